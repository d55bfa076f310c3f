// The pools of one worker: each a group (pool_group.hpp), found by its slot in the region.
//
// Owns the groups, the drains of databases, and what pools do for each other: one gives a place up that another one
// needs, here or in another worker. A group is made when the first client comes, and freed when it is dead and unused.
// Must not know sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "core/base/list.hpp"
#include "core/pool/places.hpp"
#include "core/pool/pool_group.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class Pools
{
public:
	explicit Pools(Context &context);
	~Pools();
	Context &context() { return context_; }
	using Servers = List<ServerConn, &ServerConn::all_hook>;
	Servers &servers() { return servers_; } // of all pools, in the order in which they were opened
	Pools(const Pools &) = delete;
	Pools &operator=(const Pools &) = delete;

	// nullptr: the slot was given to another pool, or is dead.
	PoolGroup *group(uint32_t slot, uint32_t generation);
	template <class F> void each(F f)
	{
		for (auto &entry : groups_)
			f(*entry.second);
	}
	void refresh(); // the region was changed by the manager
	void tick(int64_t now);
	void end_event();
	void close_idle();
	// A statement needs the database without connections, until it ends. Says how many were closed.
	uint32_t drain(uint32_t database_oid);
	void end_drain(uint32_t database_oid);

	// ---- places
	WorkerPlaces &places() { return places_; }
	void make_place(); // here or in another worker, for a server
	// False: no idle server here counts for that limit, at which the server refused a login.
	bool give_up_idle(control::ServerLimit limit, const Claim &to);
	void tell_place_free(const Claim &to);
	void shed(); // what is above a limit that was lowered

	// ---- from other workers
	void on_yield(const control::YieldServer &yield);
	void on_place_free(const control::PlaceFree &free);
	void on_proof(const control::Proof &proof);

	// ---- at the end of the event
	List<Pool, &Pool::gauges_hook> &uncounted() { return uncounted_; }
	void want_servers() { wanted_ = true; } // those who wait are looked at again

private:
	PoolGroup *find(uint32_t slot, uint32_t generation) const;
	Pool *find_pool(const Claim &of) const;
	void place_is_free(const Claim &claimed);
	bool close_spare();

	Context &context_;
	WorkerPlaces places_;
	Servers servers_;
	List<Pool, &Pool::gauges_hook> uncounted_; // outlives the pools, which take themselves out
	std::unordered_map<uint32_t, std::unique_ptr<PoolGroup>> groups_;
	std::unordered_map<uint32_t, uint32_t> drains_; // by database: statements that need it alone
	bool wanted_ = false;
};

} // namespace pgpool::core
