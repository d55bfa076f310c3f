// A pool as its servers know it, in one worker: (tenant, database OID, role OID), whatever the target.
//
// Owns what holds for all servers of it: names, the limits and counters in the region, the role's Credential, the
// greeting of a fresh login. When the manager has found tenant, role or database gone it is dead() for ever.
// Must not know servers, nor who waits for one: that is PoolGroup's (pool_group.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/group/credential.hpp"
#include "core/group/greeting.hpp"
#include "core/statements/statement_pool.hpp"
#include "proto/message.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Context;

class Group
{
public:
	Group(Context &context, uint32_t slot, uint32_t generation);
	Group(const Group &) = delete;
	Group &operator=(const Group &) = delete;

	Context &context() { return context_; }
	uint32_t slot() const { return slot_; }
	uint32_t generation() const { return generation_; }
	const region::PoolSlot &shared() const { return shared_; }
	const region::PoolSettings &settings() const { return shared_.settings; }
	region::PoolCounters &counters() { return mine_; }
	StatementPool &statements() { return statements_; }
	const std::string &tenant() const { return tenant_; }
	const std::string &database() const { return database_; }
	const std::string &role() const { return role_; }
	std::string described() const; // for a line or a message
	uint32_t names_sequence() const { return names_sequence_; }
	uint32_t epoch() const { return shared_.epoch.load(std::memory_order_relaxed); }
	bool dead() const { return shared_.state.load(std::memory_order_relaxed) != region::SlotState::Used; }
	proto::Error death() const; // why a dead one's clients must go
	const Credential *credential() const { return credential_.get(); }
	bool can_log_in() const { return credential_ && credential_->route != control::ServerRoute::None; }
	Greeting &greeting() { return greeting_; }
	bool greeting_holds() const { return greeting_.holds(epoch()); }

protected:
	~Group() = default;           // as a PoolGroup
	bool has_other_names() const; // than the region
	void read_names();

	Context &context_;
	const uint32_t slot_;
	const uint32_t generation_;
	region::PoolSlot &shared_;
	region::PoolCounters &mine_;
	std::unique_ptr<Credential> credential_;

private:
	StatementPool statements_;
	std::string tenant_, database_, role_;
	uint32_t names_sequence_ = 0;
	Greeting greeting_;
};

} // namespace pgpool::core
