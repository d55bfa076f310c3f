// Places for servers: the limits of pools and pgpool.max_server_connections, which hold over all workers.
//
// A place is taken before a server is dialled and given back when its backend is gone: `open`, `listeners` and
// `servers` in the region (layout.hpp says how the limits are kept exactly without a lock). When all are taken, other
// workers are asked. They give an idle server's place at once, a busy one's when its client releases it; who gave one
// lets the other worker take it before he opens a server himself. Owns what was asked, promised and is owed. It says
// which servers are to go; the pool closes them. Must not know servers, sessions and why somebody waits.
#pragma once

#include <cstdint>

#include "core/base/claim.hpp"
#include "core/base/ports.hpp"
#include "core/base/target.hpp"
#include "region/control.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

// Servers of both pools count for this limit of PostgreSQL's own.
bool counts_for(control::ServerLimit limit, const region::PoolSlot &a, const region::PoolSlot &b);

// Those under pgpool.max_server_connections that one worker has taken, for all its pools.
class WorkerPlaces
{
public:
	WorkerPlaces(Outside &outside, region::View region, uint32_t worker, const region::Settings &settings);

	bool take();
	void give_back();
	bool none_taken() const { return taken_ == 0; }
	int64_t surplus() const;   // the limit was lowered
	void ask_all(int64_t now); // all workers for any place
	// A worker with an idle server that counts for the same limit as those of `for_whom`; false: there is none.
	bool ask_for_idle(control::ServerLimit limit, const Claim &for_whom);
	void ask(uint32_t worker, const Claim &for_whom, uint32_t waited_ms, control::ServerLimit limit);
	// To another worker: the place that he claimed is free.
	void tell_free(const Claim &to);

	const region::View &region() const { return region_; }
	uint32_t worker() const { return worker_; }
	uint32_t workers() const { return region_.header()->workers; }

private:
	int64_t taken_everywhere() const;

	Outside &outside_;
	const region::View region_;
	const uint32_t worker_;
	const region::Settings &settings_;
	uint32_t taken_ = 0;
	int64_t asked_all_at_ = 0;
};

// Those of one target of a pool. What is promised to another worker is either owed (a busy server, until one is
// released) or under way (its backend is still there); when it is gone, that worker is told and ours waits a moment.
class Places
{
public:
	Places(WorkerPlaces &worker, uint32_t slot, uint32_t generation, Target target);

	enum class Kind { Client, Listener };
	enum class Taken { Yes, PoolFull, WorkerFull };
	Taken take(Kind kind);
	void give_back(Kind kind, bool claimed, int64_t now);
	bool held(int64_t now) const { return now < hold_until_; } // the place that is free is another worker's
	int64_t surplus() const; // servers of all workers that are more than the pool may have; 0: as many as it may

	// ---- our clients wait
	Claim claim() const { return {worker_.worker(), slot_, generation_, target_}; }
	bool may_ask(int64_t now) const;
	// A worker with an idle server, else the one whose own clients wait least, if that is less than half as long.
	void ask_others(int64_t now, int64_t waited_us);
	// For a place under a limit of PostgreSQL's own: of an idle server of any pool.
	bool ask_for_idle(int64_t now, control::ServerLimit limit);
	void asked(int64_t now) { asked_at_ = now; }

	// ---- those of another worker wait
	void promise(uint32_t worker); // a server that is about to go
	// A busy server, when it is released; only if its client has waited clearly longer than ours.
	void owe(uint32_t worker, uint32_t waited_ms, int64_t ours_ms);
	bool pay(); // a server is released; true: it is owed

private:
	region::TargetGauges &gauges(uint32_t worker) const
	{
		return worker_.region().gauges(slot_, index_of(target_), worker);
	}
	int32_t size() const { return worker_.region().pool(slot_).settings.pool_size.load(); }

	WorkerPlaces &worker_;
	const uint32_t slot_;
	const uint32_t generation_;
	const Target target_;
	region::TargetGauges &mine_;
	bool owed_ = false;    // a busy server that was promised to another worker
	uint32_t yielded_ = 0; // servers whose place goes to yielded_to_ when the backend is gone, the owed one included
	uint32_t yielded_to_ = 0;
	int64_t hold_until_ = 0;
	int64_t asked_at_ = 0;
};

} // namespace pgpool::core
