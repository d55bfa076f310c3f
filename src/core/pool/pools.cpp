// See pools.hpp.
#include "core/pool/pools.hpp"

#include <algorithm>

#include "core/context/context.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

Pools::Pools(Context &context)
    : context_(context), places_(context.outside(), context.region(), context.worker(), context.settings())
{
}

Pools::~Pools() = default;

PoolGroup *Pools::find(uint32_t slot, uint32_t generation) const
{
	auto it = groups_.find(slot);
	return it != groups_.end() && it->second->generation() == generation ? it->second.get() : nullptr;
}

PoolGroup *Pools::group(uint32_t slot, uint32_t generation)
{
	const region::View &region = context_.region();
	if (slot >= region.header()->max_pools)
		return nullptr;
	const region::PoolSlot &shared = region.pool(slot);
	if (shared.state.load() != region::SlotState::Used || shared.generation.load() != generation)
		return nullptr;
	std::unique_ptr<PoolGroup> &p = groups_[slot];
	if (!p || p->generation() != generation) {
		p = std::make_unique<PoolGroup>(*this, slot, generation);
		if (drains_.count(shared.database_oid) != 0)
			p->drain();
	}
	return p.get();
}

void Pools::refresh()
{
	each([](PoolGroup &g) { g.refresh(); });
}

void Pools::close_idle()
{
	each([](PoolGroup &g) { g.close_idle(); });
}

void Pools::tick(int64_t now)
{
	for (auto it = groups_.begin(); it != groups_.end();) {
		// Before its tick: a server that ended in this event is not freed yet, and still needs it.
		if (it->second->unused() && it->second->dead()) {
			it = groups_.erase(it);
			continue;
		}
		it->second->tick(now);
		++it;
	}
}

void Pools::end_event()
{
	if (wanted_) {
		wanted_ = false;
		each([](PoolGroup &g) {
			if (g.has_waiters())
				g.grow();
		});
	}
	while (Pool *p = uncounted_.front())
		p->write_gauges();
}

uint32_t Pools::drain(uint32_t database_oid)
{
	uint32_t closed = 0;
	drains_[database_oid]++;
	each([&](PoolGroup &g) { closed += g.shared().database_oid == database_oid ? g.drain() : 0; });
	return closed;
}

void Pools::end_drain(uint32_t database_oid)
{
	auto it = drains_.find(database_oid);
	if (it == drains_.end() || --it->second > 0)
		return;
	drains_.erase(it);
	each([&](PoolGroup &g) {
		if (g.shared().database_oid == database_oid)
			g.end_drain();
	});
}

// ---- places

// Each worker closes no more idle servers than are too many.
void Pools::shed()
{
	int64_t surplus = places_.surplus();
	for (auto it = groups_.begin(); it != groups_.end() && surplus > 0; ++it) {
		while (surplus > 0 && it->second->close_one_idle())
			surplus--;
	}
}

// A pool that nobody waits for may have a server to spare.
bool Pools::close_spare()
{
	return std::any_of(groups_.begin(), groups_.end(), [](auto &entry) { return entry.second->close_spare(); });
}

// All of pgpool.max_server_connections are taken. The pool that wants one tries again at the next tick.
void Pools::make_place()
{
	if (!close_spare())
		places_.ask_all(context_.now());
}

bool Pools::give_up_idle(control::ServerLimit limit, const Claim &to)
{
	const region::PoolSlot &for_whom = context_.region().pool(to.pool_slot);
	return std::any_of(groups_.begin(), groups_.end(), [&](auto &entry) {
		return counts_for(limit, for_whom, entry.second->shared()) && entry.second->give_up_idle(to);
	});
}

void Pools::tell_place_free(const Claim &to)
{
	if (to.worker == context_.worker())
		place_is_free(to);
	else
		places_.tell_free(to);
}

// ---- from other workers

void Pools::on_yield(const control::YieldServer &yield)
{
	const region::Header &header = *context_.region().header();
	if (yield.pool_slot == control::kAnyPool) {
		close_spare();
		return;
	}
	if (yield.pool_slot >= header.max_pools || yield.from >= header.workers || yield.target >= kTargets)
		return;
	if (yield.refused_by != control::ServerLimit::None) {
		give_up_idle(yield.refused_by, {yield.from, yield.pool_slot, yield.pool_generation, Target::Primary});
		return;
	}
	Pool *pool = find_pool({yield.from, yield.pool_slot, yield.pool_generation, static_cast<Target>(yield.target)});
	if (pool)
		pool->yield(yield.from, yield.waited_ms);
}

void Pools::on_place_free(const control::PlaceFree &free)
{
	if (free.target < kTargets)
		place_is_free({context_.worker(), free.pool_slot, free.pool_generation, static_cast<Target>(free.target)});
}

void Pools::place_is_free(const Claim &claimed)
{
	if (Pool *pool = find_pool(claimed))
		pool->on_place_free();
}

Pool *Pools::find_pool(const Claim &of) const
{
	PoolGroup *group = find(of.pool_slot, of.pool_generation);
	return group ? group->find_pool(of.target) : nullptr;
}

void Pools::on_proof(const control::Proof &proof)
{
	if (PoolGroup *g = group(proof.pool_slot, proof.pool_generation))
		g->learn(proof);
}

} // namespace pgpool::core
