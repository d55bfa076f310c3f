// A pool as clients and the manager see it, in one worker: (tenant, database OID, role OID), whatever the target.
//
// Owns what holds for all its servers: names, the limits and counters in the region, the role's Credential, the
// greeting of a fresh login, the number of clients, the drain of its database. And under it one Pool for each target:
// servers, the queue of those who wait for them.
// Open, or draining: a statement needs the database alone, so there is no server until it ends. When the manager has
// found tenant, role or database gone it is dead() for ever, and is freed when unused().
// Must not know messages, nor which server is given to whom.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "core/credential.hpp"
#include "core/greeting.hpp"
#include "core/pool.hpp"
#include "core/statement_pool.hpp"
#include "core/target.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Pools;

class PoolGroup
{
public:
	PoolGroup(Pools &all, uint32_t slot, uint32_t generation);
	PoolGroup(const PoolGroup &) = delete;
	PoolGroup &operator=(const PoolGroup &) = delete;

	// ---- for sessions
	void attach();
	void detach();
	Pool &pool(Target target) { return pools_[static_cast<size_t>(target)]; }
	void learn(std::unique_ptr<Credential> credential); // of a client that has just proved itself
	void learn(const control::Proof &proof);            // of a client of another worker
	const Credential *credential() const { return credential_.get(); }
	bool can_log_in() const { return credential_ && credential_->route != control::ServerRoute::None; }
	Greeting &greeting() { return greeting_; }
	bool greeting_holds() const { return greeting_.holds(epoch()); }
	bool has_prepared(Statement *s, Shape &shape); // a server of this worker has it for certain
	StatementPool &statements() { return statements_; }
	// Why a dead pool's clients must go.
	proto::Error death() const;

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
		for (Pool &p : pools_)
			f(p);
	}
	template <class F> void each_server(F f)
	{
		each_pool([&f](Pool &p) { p.each_server(f); });
	}

	// ---- what it is
	Context &context() { return context_; }
	Pools &all() { return all_; }
	uint32_t slot() const { return slot_; }
	uint32_t generation() const { return generation_; }
	const region::PoolSlot &shared() const { return shared_; }
	const region::PoolSettings &settings() const { return shared_.settings; }
	region::PoolCounters &counters() { return mine_; }
	const std::string &tenant() const { return tenant_; }
	const std::string &database() const { return database_; }
	const std::string &role() const { return role_; }
	std::string described() const; // for a line or a message
	uint32_t names_sequence() const { return names_sequence_; }
	bool dead() const { return shared_.state.load(std::memory_order_relaxed) != region::SlotState::Used; }
	uint32_t epoch() const { return shared_.epoch.load(std::memory_order_relaxed); }

private:
	enum class State { Open, Draining };

	void read_names();
	void tell_others();

	Context &context_;
	Pools &all_;
	const uint32_t slot_;
	const uint32_t generation_;
	region::PoolSlot &shared_;
	region::PoolCounters &mine_;
	StatementPool statements_;
	std::string tenant_, database_, role_;
	uint32_t names_sequence_ = 0;
	State state_ = State::Open;
	uint32_t clients_ = 0;
	std::unique_ptr<Credential> credential_;
	Greeting greeting_;
	std::array<Pool, kTargets> pools_;
};

} // namespace pgpool::core
