// What is counted: each counter stands here once, with the column that shows it.
//
// A worker has its own of each pool and tenant (the types of layout.hpp); sums, the baselines that reset_stats() keeps,
// and the columns of the views (views.hpp) are made over this list. Must not know PostgreSQL.
#pragma once

#include <cstdint>

#include "region/atomic.hpp"
#include "region/columns.hpp"

namespace pgpool::region
{

// COUNTER(kind of column, name, column, what it counts). Times are in microseconds.
#define PGPOOL_POOL_COUNTERS(COUNTER)                                                                                  \
	COUNTER(Number, transactions, transactions, "ended: ReadyForQuery with status I")                                  \
	COUNTER(Number, queries, queries,                                                                                  \
	        "ReadyForQuery messages that were a client's: simple queries, function calls and Syncs")                   \
	COUNTER(Number, bytes_received, bytes_received, "from clients, forwarded to servers")                              \
	COUNTER(Number, bytes_sent, bytes_sent, "from servers, forwarded to clients")                                      \
	COUNTER(Number, waits, waits, "times that a client had to wait for a server")                                      \
	COUNTER(Milliseconds, wait_us, wait_time, "ms, sum of the waits that ended with a server")                         \
	COUNTER(Milliseconds, query_us, query_time, "ms, sum from the first byte sent to ReadyForQuery")                   \
	COUNTER(Milliseconds, transaction_us, transaction_time,                                                            \
	        "ms, sum from the first byte sent to the end of the transaction")                                          \
	COUNTER(Number, errors, errors, "ErrorResponses forwarded to clients")                                             \
	COUNTER(Number, wait_timeouts, wait_timeouts, "waits that ended by `query_wait_timeout`")                          \
	COUNTER(Number, server_logins, server_logins, "server connections opened")                                         \
	COUNTER(Number, server_login_failures, server_login_failures, "that could not be opened")                          \
	COUNTER(Number, statement_uses, statement_uses, "Binds of prepared statements")                                    \
	COUNTER(Number, statement_hits, statement_hits,                                                                    \
	        "Parse, Bind and Describe messages that needed nothing of the server: it had the statement")               \
	COUNTER(Number, statement_parses, statement_parses, "Parses of shared statements sent to servers")                 \
	COUNTER(Number, statement_evictions, statement_evictions,                                                          \
	        "shared statements closed on a server to make room, see `pgpool.max_prepared_statements`")                 \
	COUNTER(Number, reads_on_replicas, reads_on_replicas,                                                              \
	        "of `queries`, those that replicas served; 0 without `routing`")                                           \
	COUNTER(Number, reads_on_primary, reads_on_primary,                                                                \
	        "of `queries`, reads that the primary served: no replica was fit, or `primary_reads`; see "                \
	        "`pg_stat_routing`; 0 without `routing`")

#define PGPOOL_WORKER_COUNTERS(COUNTER)                                                                                \
	COUNTER(Number, accepted, accepted, "connections accepted")                                                        \
	COUNTER(Number, logins, logins, "logins that succeeded")                                                           \
	COUNTER(Number, login_failures, login_failures, "logins that ended in an error, TLS handshakes among them")        \
	COUNTER(Number, refused, refused, "logins refused because of a limit; counted under `login_failures`, too")        \
	COUNTER(Number, cancels, cancels, "cancel requests received")                                                      \
	COUNTER(Number, cancels_delivered, cancels_delivered,                                                              \
	        "cancel requests whose key was that of a client of this worker")

#define PGPOOL_TENANT_COUNTERS(COUNTER)                                                                                \
	COUNTER(Number, logins, logins, "")                                                                                \
	COUNTER(Number, login_failures, login_failures, "those of which the tenant was known and admitted the role")       \
	COUNTER(Number, refused, refused, "by `max_clients`")

#define PGPOOL_NODE_COUNTERS(COUNTER)                                                                                  \
	COUNTER(Number, reads, reads, "statements that it served")                                                         \
	COUNTER(Number, waits, waits, "reads that waited for it to replay")                                                \
	COUNTER(Number, fallbacks, fallbacks, "reads that were for it and that the primary served")                        \
	COUNTER(Number, fallbacks_behind, fallbacks_behind,                                                                \
	        "of these, since it had not replayed what the client must see, or was no standby")                         \
	COUNTER(Number, fallbacks_refused, fallbacks_refused,                                                              \
	        "since it refused the read: what it calls writes, a conflict with recovery")                               \
	COUNTER(Number, fallbacks_failed, fallbacks_failed, "since a connection to it failed, or was lost")                \
	COUNTER(Number, errors, errors, "connections to it that failed, or that were lost")

// In a struct of layout.hpp or nodes.hpp
#define PGPOOL_ATOMIC(kind, name, ...) Atomic<uint64_t> name;

#define PGPOOL_TOTAL(kind, name, ...) uint64_t name;
#define PGPOOL_ADD(kind, name, ...) total.name += counted.name.load(std::memory_order_relaxed);
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
PGPOOL_TOTALS(NodeTotals, PGPOOL_NODE_COUNTERS)

#undef PGPOOL_TOTAL
#undef PGPOOL_ADD
#undef PGPOOL_TOTALS

} // namespace pgpool::region
