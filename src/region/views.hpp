// Rows of the views that a backend reads from the region: workers, tenants, pools, nodes. Each column stands here once.
//
// Owns the lists and the rows; src/postgres/functions/stats.cpp fills them. Must not know PostgreSQL.
#pragma once

#include "region/layout.hpp"

namespace pgpool::region
{

inline constexpr Choice kWorkerStates[] = {named("running", WorkerState::Running),
                                           named("draining", WorkerState::Draining), named("down", WorkerState::Down)};

inline constexpr Choice kNodeRoles[] = {named("replica", NodeRole::Replica), named("self", NodeRole::Self)};
// A node by what all workers say of it.
enum class NodeState : int32_t { Serving = 0, Unused, Failing };
inline constexpr Choice kNodeStates[] = {named("serving", NodeState::Serving), named("unused", NodeState::Unused),
                                         named("failing", NodeState::Failing)};

inline const char *shown(WorkerState s)
{
	return name_of(kWorkerStates, s);
}
inline const char *shown(SlotState s)
{
	return s == SlotState::Dead ? "dead" : "used"; // free: it was used when its row was begun
}
inline const char *shown(PoolMode m)
{
	return name_of(kPoolModes, m);
}
inline const char *shown(CacheUnnamed c)
{
	return name_of(kCacheUnnamed, c);
}
inline const char *shown(NodeRole r)
{
	return name_of(kNodeRoles, r);
}
inline const char *shown(NodeState s)
{
	return name_of(kNodeStates, s);
}

namespace column
{
using NodeRoleName = Named<NodeRole>;
using NodeStateName = Named<NodeState>;
using WorkerStateName = Named<WorkerState>;
using SlotStateName = Named<SlotState>;
using PoolModeName = Named<PoolMode>;
using CacheUnnamedName = Named<CacheUnnamed>;
} // namespace column

#define PGPOOL_WORKER_COLUMNS(FIELD, MADE)                                                                             \
	FIELD(Integer, worker, worker, "number, from 0")                                                                   \
	FIELD(SomeInteger, pid, pid, "process; NULL when it does not run")                                                 \
	FIELD(WorkerStateName, state, state, "`running`, `draining`, `down`")                                              \
	FIELD(Time, started_at, started_at, "of the present process")                                                      \
	FIELD(Number, starts, starts, "more than 1: it was started again")                                                 \
	FIELD(Integer, clients, clients, "connected now, those that log in included")                                      \
	FIELD(Integer, servers, servers, "server connections open now, those that log in or close included")               \
	FIELD(Flag, listens_tcp, listens_tcp, "on `pgpool.port`")                                                          \
	FIELD(Flag, listens_session, listens_session, "on `pgpool.session_port`, by TCP")                                  \
	FIELD(Flag, listens_unix, listens_unix, "on Unix sockets")                                                         \
	FIELD(Integer, file_limit, file_limit, "limit of open files of the process")                                       \
	PGPOOL_WORKER_COUNTERS(FIELD)                                                                                      \
	FIELD(Text<256>, problem, problem, "why it does not do all it should; NULL: nothing")

#define PGPOOL_TENANT_COLUMNS(FIELD, MADE)                                                                             \
	FIELD(Name, tenant, tenant, "name")                                                                                \
	FIELD(SlotStateName, state, state, "`used`, or `dead` when it was dropped")                                        \
	FIELD(Flag, banned, banned, "")                                                                                    \
	FIELD(Number, clients, clients, "connected now, after their proof")                                                \
	FIELD(SomeInteger, max_clients, max_clients, "NULL: no limit")                                                     \
	FIELD(Number, pools, pools, "pools in use")                                                                        \
	FIELD(Number, clients_waiting, clients_waiting, "clients that wait for a server")                                  \
	FIELD(Number, servers, servers, "server connections")                                                              \
	FIELD(Number, transactions, transactions, "finished ones")                                                         \
	FIELD(Number, queries, queries, "as in `pg_stat_pools`")                                                           \
	FIELD(Number, errors, errors, "ErrorResponses forwarded")                                                          \
	PGPOOL_TENANT_COUNTERS(FIELD)                                                                                      \
	FIELD(Number, reads_on_replicas, reads_on_replicas, "as in `pg_stat_pools`")                                       \
	FIELD(Number, reads_on_primary, reads_on_primary, "the same")

#define PGPOOL_POOL_COLUMNS(FIELD, MADE)                                                                               \
	FIELD(Name, tenant, tenant, "of the pool")                                                                         \
	FIELD(Name, database, database, "its present name")                                                                \
	FIELD(Name, role, role, "its present name")                                                                        \
	FIELD(SlotStateName, state, state, "`used`, or `dead` when role, database or tenant is gone")                      \
	FIELD(PoolModeName, pool_mode, pool_mode, "`transaction` or `session`")                                            \
	FIELD(CacheUnnamedName, cache_unnamed, cache_unnamed, "`off`, `custom` or `generic`")                              \
	FIELD(Integer, pool_size, pool_size, "the limit as it holds now")                                                  \
	FIELD(Integer, max_pinned, max_pinned, "limit of `servers_pinned` as it holds now")                                \
	FIELD(Number, clients, clients, "sessions of the pool")                                                            \
	FIELD(Number, waiting, clients_waiting, "of these, in the queue for a server")                                     \
	FIELD(Milliseconds, longest_wait_us, longest_wait, "ms that the first in the queue has waited")                    \
	FIELD(Number, open, servers, "open now, those that log in or close included")                                      \
	FIELD(Number, active, servers_active, "that have a client")                                                        \
	FIELD(Number, idle, servers_idle, "")                                                                              \
	FIELD(Number, pinned, servers_pinned,                                                                              \
	      "of the active ones, that their client keeps between transactions, see `pg_stat_clients.pinned`; more than " \
	      "`max_pinned` as long as nobody waits")                                                                      \
	PGPOOL_POOL_COUNTERS(FIELD)                                                                                        \
	FIELD(Ratio, statement_hit_rate, statement_hit_rate,                                                               \
	      "`statement_hits` / (`statement_hits` + `statement_parses`), 0 to 1; NULL: none yet")

// The view has one more than the function: it is asked of the clients.
#define PGPOOL_POOL_VIEW_COLUMNS(MADE)                                                                                 \
	MADE(text, pinned,                                                                                                 \
	     "why `servers_pinned` are: reasons as in `pg_stat_clients.pinned`, and of how many clients; NULL: none is")

#define PGPOOL_NODE_COLUMNS(FIELD, MADE)                                                                               \
	FIELD(Name, name, name, "of the node")                                                                             \
	FIELD(Text<256>, host, host, "")                                                                                   \
	FIELD(Integer, port, port, "")                                                                                     \
	FIELD(NodeRoleName, role, role, "`replica`; `self`: this server")                                                  \
	FIELD(NodeStateName, state, state,                                                                                 \
	      "`serving`: it gets reads; `unused`: it gets none; `failing`: some worker cannot use it")                    \
	FIELD(Text<512>, reason, reason, "why it gets no reads, or none of some pool; NULL: it gets them")                 \
	FIELD(Integer, weight, weight, "share of the reads")                                                               \
	FIELD(Lsn, replayed, replayed,                                                                                     \
	      "as far as it has replayed, as its connection for replication says; NULL: it has none to this server")       \
	FIELD(                                                                                                             \
	    Lsn, proved, proved,                                                                                           \
	    "as far as it has replayed for certain: it said so itself, to the connections that read from it; NULL: none "  \
	    "has asked yet")                                                                                               \
	FIELD(SomeLag, lag_bytes, lag_bytes, "WAL that it lacks; NULL: not known")                                         \
	FIELD(SomeLag, lag_ms, lag_ms, "ms since the oldest WAL that it lacks was written; NULL: not known")               \
	FIELD(Number, open, servers, "server connections to it, those that log in or close included")                      \
	FIELD(Number, active, servers_active, "of these, that serve a client")                                             \
	FIELD(Number, idle, servers_idle, "")                                                                              \
	FIELD(Number, waiting, clients_waiting, "clients that wait for such a connection")                                 \
	PGPOOL_NODE_COUNTERS(FIELD)

#define PGPOOL_ROUTING_COLUMNS(FIELD, MADE)                                                                            \
	FIELD(Name, tenant, tenant, "with `routing`")                                                                      \
	FIELD(Name, reason, reason, "why statements of its clients went to the primary, as `explain_route()` has it")      \
	FIELD(Text<128>, words, words, "the same for people")                                                              \
	FIELD(Flag, is_read, is_read,                                                                                      \
	      "they were reads, and no replica served them: nothing of the statements can be changed")                     \
	FIELD(Number, count, count, "how many; what has one reply to it, as in `queries`, is one")

struct WorkerRow {
	PGPOOL_WORKER_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
};

struct TenantRow {
	PGPOOL_TENANT_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
};

struct RoutingRow {
	PGPOOL_ROUTING_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
};

struct NodeRow {
	PGPOOL_NODE_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
};

struct PoolRow {
	PGPOOL_POOL_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
};

} // namespace pgpool::region
