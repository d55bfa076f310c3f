// A pool as clients and the manager see it, in one worker: a Group (group.hpp) with its clients and servers.
//
// Owns the number of clients, the drain of its database, and one Pool for each target: servers, the queue of those who
// wait for them.
// Open, or draining: a statement needs the database alone, so there is no server until it ends. Once dead() it is freed
// when unused().
// Must not know messages, nor which server is given to whom.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "core/group/group.hpp"
#include "core/pool/pool.hpp"
#include "core/base/target.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Pools;

class PoolGroup final : public Group
{
public:
	PoolGroup(Pools &all, uint32_t slot, uint32_t generation);

	// ---- for sessions
	void attach();
	void detach();
	Pool &pool(Target target); // that of a node is made when it is first asked for
	Pool *find_pool(Target target) const { return pools_[index_of(target)].get(); }
	void learn(std::unique_ptr<Credential> credential); // of a client that has just proved itself
	void learn(const control::Proof &proof);            // of a client of another worker
	bool has_prepared(Statement *s, Shape &shape);      // a server of this worker has it for certain

	bool routes_reads() const; // to nodes
	// Nodes, by bits: those that let this role not in, or not into this database.
	uint32_t refusing_nodes() const { return refusing_; }
	void note_refusal(uint32_t node, bool refuses)
	{
		refusing_ = (refusing_ & ~(1u << node)) | (refuses ? 1u << node : 0);
	}
	void try_nodes(uint32_t nodes); // these, which failed, if it is time to

	// ---- for the engine
	void tick(int64_t now);
	void refresh(); // the region was changed by the manager
	uint32_t drain();
	void end_drain();
	bool draining() const { return state_ == State::Draining; }
	bool has_waiters() const;
	void grow();
	uint32_t close_idle();
	bool close_one_idle();
	bool close_spare();                 // of a pool that nobody waits for
	bool give_up_idle(const Claim &to); // false: there is none, or our own clients wait
	bool unused() const;
	template <class F> void each_pool(F f)
	{
		for (const auto &p : pools_) {
			if (p)
				f(*p);
		}
	}
	template <class F> void each_server(F f)
	{
		each_pool([&f](Pool &p) { p.each_server(f); });
	}

	Pools &all() { return all_; }

private:
	enum class State { Open, Draining };

	void tell_others();
	template <class F> bool any_pool(F f) const
	{
		return std::any_of(pools_.begin(), pools_.end(), [&f](const auto &p) { return p && f(*p); });
	}

	Pools &all_;
	State state_ = State::Open;
	uint32_t clients_ = 0;
	uint32_t refusing_ = 0;
	std::array<std::unique_ptr<Pool>, kTargets> pools_;
};

} // namespace pgpool::core
