// What shared statements need to know of the pool in which they are used: its catalog, settings and counters.
//
// Owns the worker's sight of catalog changes (CatalogClock); all else belongs to the pool, its worker or the region,
// and is referred to, so that a test makes a StatementPool of values of its own. Must not know servers or clients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/statements/statement_store.hpp"
#include "region/layout.hpp"
#include "region/settings.hpp"

namespace pgpool::core
{

// When this worker saw the last change of a database's catalog, by the clock of the statements.
class CatalogClock
{
public:
	// `changes`: as many as kCatalogCounters, which backends raise.
	CatalogClock(const region::Atomic<uint64_t> *changes, StatementStore &store) : changes_(changes), store_(store) {}
	uint64_t at(uint32_t database_oid)
	{
		const uint32_t i = database_oid % region::kCatalogCounters;
		const uint64_t changes = changes_[i].load(std::memory_order_acquire);
		if (seen_[i].changes != changes)
			seen_[i] = {changes, store_.advance()};
		return seen_[i].clock;
	}

private:
	const region::Atomic<uint64_t> *changes_;
	StatementStore &store_;
	struct {
		uint64_t changes, clock;
	} seen_[region::kCatalogCounters] = {};
};

class StatementPool
{
public:
	// `number`: no other pool has or had it.
	StatementPool(StatementStore &store, CatalogClock &catalog, const region::Settings &limits,
	              const region::PoolSlot &slot, region::PoolCounters &counters, uint64_t number)
	    : store_(store), catalog_(catalog), limits_(limits), slot_(slot), counters_(counters), number_(number)
	{
	}
	StatementStore &store() { return store_; }
	const region::Settings &limits() const { return limits_; }
	region::PoolCounters &counters() { return counters_; }
	region::CacheUnnamed cache_unnamed() const { return slot_.settings.cache_unnamed.load(std::memory_order_relaxed); }

	// A client prepares `s`: what was parsed before the last change of the catalog is outdated.
	void renew_if_changed(Statement *s)
	{
		s->valid_since = std::max(s->valid_since, catalog_.at(slot_.database_oid));
		if (std::exchange(s->suspect, false)) // changed where this server does not count, on the primary of a standby
			s->valid_since = store_.advance();
	}
	// As some backend of the pool told it last, unless the catalog was changed since it was parsed there.
	Shape shape_of(const Statement *s)
	{
		const bool current =
		    s->shape_of == number_ && s->shape_at >= s->valid_since && s->shape_at >= catalog_.at(slot_.database_oid);
		return current ? s->shape : Shape{};
	}
	// A backend of the pool tells it, which parsed `s` at `parsed_at` of the store's clock.
	void note_shape(Statement *s, Shape shape, uint64_t parsed_at) const
	{
		s->shape = shape;
		s->shape_at = parsed_at;
		s->shape_of = number_;
	}

private:
	StatementStore &store_;
	CatalogClock &catalog_;
	const region::Settings &limits_;
	const region::PoolSlot &slot_;
	region::PoolCounters &counters_;
	const uint64_t number_;
};

} // namespace pgpool::core
