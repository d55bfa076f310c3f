// Who wants to know what the names of a database mean, and how far that is known.
//
// Owns the slots: a worker (or explain_route()) asks by taking one; the manager starts a facts worker for it, which
// writes the file and says here what it is of. See src/core/routing/facts.hpp. Must not know PostgreSQL.
#pragma once

#include <cstdint>
#include <cstdio>

#include "region/atomic.hpp"

namespace pgpool::region
{

constexpr uint32_t kMaxFacts = 64; // databases with clients whose reads are routed

struct FactsSlot {
	Atomic<uint32_t> database;    // OID, 0 = free
	Atomic<uint32_t> files;       // raised when there is a new file; 0 = none yet
	Atomic<uint64_t> version;     // catalog_changes of the database before that file was made
	Atomic<int64_t> wanted_until; // CLOCK_MONOTONIC microseconds
};

constexpr int64_t kFactsWantedFor = 60000000; // after the last use

// The slot of a database, taken if it has none. NULL: all are of others. One that nobody has wanted for a while is
// taken over.
inline FactsSlot *want_facts(FactsSlot *slots, uint32_t database, int64_t now_us)
{
	FactsSlot *place = nullptr;
	for (uint32_t i = 0; i < kMaxFacts && !place; i++) {
		if (slots[i].database.load() == database)
			place = &slots[i];
	}
	for (uint32_t i = 0; i < kMaxFacts && !place; i++) {
		uint32_t was = slots[i].database.load();
		if (was != 0 && slots[i].wanted_until.load() + kFactsWantedFor > now_us)
			continue;
		if (slots[i].database.compare_exchange_strong(was, database)) {
			slots[i].files.store(0);
			place = &slots[i];
		}
	}
	if (place && place->wanted_until.load(std::memory_order_relaxed) < now_us + kFactsWantedFor / 2)
		place->wanted_until.store(now_us + kFactsWantedFor, std::memory_order_relaxed);
	return place;
}

inline void facts_path(char *to, size_t room, uint32_t database)
{
	snprintf(to, room, "pgpool/facts.%u", database);
}

} // namespace pgpool::region
