// What is counted: each counter stands here once, with what it counts.
//
// A worker has its own of each pool and tenant (the types of layout.hpp); sums, and the baselines that reset_stats()
// keeps, are made over this list. The columns of the views are in src/server/stats.cpp. Must not know PostgreSQL.
#pragma once

#include <cstdint>

#include "region/atomic.hpp"

namespace pgpool::region
{

// Times are in microseconds.
#define PGPOOL_POOL_COUNTERS(COUNTER)                                                                                  \
	COUNTER(transactions)                                                                                              \
	COUNTER(queries)                                                                                                   \
	COUNTER(bytes_received) /* from clients */                                                                         \
	COUNTER(bytes_sent)     /* to clients */                                                                           \
	COUNTER(waits)          /* for a server */                                                                         \
	COUNTER(wait_us)                                                                                                   \
	COUNTER(query_us)                                                                                                  \
	COUNTER(transaction_us)                                                                                            \
	COUNTER(errors)                                                                                                    \
	COUNTER(wait_timeouts)                                                                                             \
	COUNTER(server_logins)                                                                                             \
	COUNTER(server_login_failures)                                                                                     \
	COUNTER(statement_uses)      /* Bind of a shared one */                                                            \
	COUNTER(statement_hits)      /* Parse, Bind and Describe that found it there */                                    \
	COUNTER(statement_parses)    /* Parse sent to a server */                                                          \
	COUNTER(statement_evictions) /* Close to make room */

#define PGPOOL_WORKER_COUNTERS(COUNTER)                                                                                \
	COUNTER(accepted) /* connections */                                                                                \
	COUNTER(logins)                                                                                                    \
	COUNTER(login_failures)                                                                                            \
	COUNTER(refused)                                                                                                   \
	COUNTER(cancels)                                                                                                   \
	COUNTER(cancels_delivered)

#define PGPOOL_TENANT_COUNTERS(COUNTER)                                                                                \
	COUNTER(logins)                                                                                                    \
	COUNTER(login_failures)                                                                                            \
	COUNTER(refused)

// In a struct of layout.hpp
#define PGPOOL_ATOMIC(name) Atomic<uint64_t> name;

#define PGPOOL_TOTAL(name) uint64_t name;
#define PGPOOL_ADD(name) total.name += counted.name.load(std::memory_order_relaxed);
#define PGPOOL_TOTALS(Totals, COUNTERS)                                                                                \
	struct Totals {                                                                                                    \
		COUNTERS(PGPOOL_TOTAL)                                                                                         \
	};                                                                                                                 \
	template <class Counted> void add(Totals &total, const Counted &counted)                                           \
	{                                                                                                                  \
		COUNTERS(PGPOOL_ADD)                                                                                           \
	}

PGPOOL_TOTALS(WorkerTotals, PGPOOL_WORKER_COUNTERS)
PGPOOL_TOTALS(PoolTotals, PGPOOL_POOL_COUNTERS)
PGPOOL_TOTALS(TenantTotals, PGPOOL_TENANT_COUNTERS)

#undef PGPOOL_TOTAL
#undef PGPOOL_ADD
#undef PGPOOL_TOTALS

} // namespace pgpool::region
