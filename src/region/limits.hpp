// Limits of a pool: each stands here once, with the values it takes, where it may be set and how it acts.
//
// A limit can be set for a role in a tenant, for the tenant and, if it names a setting of the server, for all: the
// first of these counts. From the list come the setting, the columns, arguments and checks of SQL (sql/generate.cpp),
// what the manager reads and resolves, what workers see (PoolSettings) and the tables of docs/reference.md.
// Must not know PostgreSQL.
#pragma once

#include <cstdint>
#include <string_view>

#include "region/atomic.hpp"
#include "region/range.hpp"

namespace pgpool::region
{

enum class PoolMode : int32_t { Transaction = 0, Session = 1 };
// What serves an unnamed Parse: the server each time, or a shared statement.
enum class CacheUnnamed : int32_t { Off = 0, Custom = 1, Generic = 2 };
// What becomes of a statement whose client has left.
enum class OnDisconnect : int32_t { Cancel = 0, Finish = 1 };

// Where statements that only read are served.
enum class Routing : int32_t { Off = 0, Reads = 1 };
// What a read on another node sees for certain.
enum class Consistency : int32_t { Eventual = 0, Session = 1, Database = 2 };
// What a block that does not say READ ONLY begins on.
enum class RouteBlocks : int32_t { Off = 0, UntilWrite = 1 };
// What becomes of a read when no node is fit.
enum class ReplicaFallback : int32_t { Primary = 0, Error = 1 };

inline constexpr Choice kPoolModes[] = {named("transaction", PoolMode::Transaction),
                                        named("session", PoolMode::Session)};
inline constexpr Choice kCacheUnnamed[] = {named("off", CacheUnnamed::Off), named("custom", CacheUnnamed::Custom),
                                           named("generic", CacheUnnamed::Generic)};
inline constexpr Choice kOnDisconnect[] = {named("finish", OnDisconnect::Finish),
                                           named("cancel", OnDisconnect::Cancel)};
inline constexpr Choice kRoutings[] = {named("off", Routing::Off), named("reads", Routing::Reads)};
inline constexpr Choice kConsistencies[] = {named("eventual", Consistency::Eventual),
                                            named("session", Consistency::Session),
                                            named("database", Consistency::Database)};
inline constexpr Choice kRouteBlocks[] = {named("off", RouteBlocks::Off),
                                          named("until_write", RouteBlocks::UntilWrite)};
inline constexpr Choice kReplicaFallbacks[] = {named("primary", ReplicaFallback::Primary),
                                               named("error", ReplicaFallback::Error)};

constexpr int32_t kMostServers = 262143; // MAX_BACKENDS of PostgreSQL

// LIMIT(type of what workers see, name of column and argument, values, setting of the server or "", what the setting
// is, more of that, comment on the column). Arguments of the SQL functions stand in this order: a new one comes last.
#define PGPOOL_LIMITS(LIMIT)                                                                                           \
	LIMIT(PoolMode, pool_mode, choice(kPoolModes, PoolMode::Transaction), "default_pool_mode",                         \
	      "Mode of a pool whose tenant and role name none.",                                                           \
	      "transaction or session: when a server goes back to its pool.", "")                                          \
	LIMIT(int32_t, pool_size, count(1, kMostServers, 20), "default_pool_size",                                         \
	      "Size of a pool whose tenant and role name none.", nullptr,                                                  \
	      "servers of each pool (role and database), over all workers")                                                \
	LIMIT(int32_t, max_clients, count(0, kNoBound, 0, "no limit"), "", "", nullptr,                                    \
	      "clients of the tenant over all workers; 0: no limit")                                                       \
	LIMIT(int32_t, query_wait_timeout, milliseconds(120000), "query_wait_timeout",                                     \
	      "Time that a client waits for a server of its pool.", "0 turns it off.", "")                                 \
	LIMIT(int32_t, client_idle_timeout, milliseconds(0), "client_idle_timeout",                                        \
	      "Time after which an idle client is disconnected.", "0 turns it off.", "")                                   \
	LIMIT(int32_t, idle_in_transaction_timeout, milliseconds(0), "idle_in_transaction_timeout",                        \
	      "Time after which a client idle in a transaction is disconnected.", "0 turns it off.", "")                   \
	LIMIT(int32_t, server_idle_timeout, seconds_of_pools(600), "server_idle_timeout",                                  \
	      "Time after which an idle server connection is closed.", "0 turns it off.", "")                              \
	LIMIT(int32_t, server_lifetime, seconds_of_pools(3600), "server_lifetime",                                         \
	      "Age at which a server connection is closed as soon as it is idle.", "0 turns it off.", "")                  \
	LIMIT(CacheUnnamed, cache_unnamed, choice(kCacheUnnamed, CacheUnnamed::Custom), "default_cache_unnamed",           \
	      "What serves an unnamed statement where tenant and role name nothing.",                                      \
	      "off: the server, each time. custom, generic: a shared prepared statement, with a plan for the parameters "  \
	      "or one that the server chooses.",                                                                           \
	      "what serves unnamed statements: off (the server), custom or generic (a shared prepared statement)")         \
	LIMIT(int32_t, max_pinned, count(0, kMostServers, 0, "pool_size less one"), "default_max_pinned",                  \
	      "Servers of a pool that clients may keep between transactions.",                                             \
	      "0 takes the size of the pool less one, at least 1.",                                                        \
	      "servers of a pool that clients may keep between transactions; 0: pool_size less one, at least 1")           \
	LIMIT(int32_t, pin_idle_timeout, milliseconds(0), "pin_idle_timeout",                                              \
	      "Time after which an idle client is disconnected that keeps its server between transactions.",               \
	      "0 turns it off.", "idle time of a client that keeps its server between transactions; 0: off")               \
	LIMIT(int32_t, pin_sequences, flag(false), "default_pin_sequences",                                                \
	      "A client that used a sequence keeps its server, where tenant and role say nothing.",                        \
	      "Otherwise currval() and lastval() hold until the server serves another client.",                            \
	      "a client that used a sequence keeps its server, so that currval() and lastval() go on")                     \
	LIMIT(OnDisconnect, on_disconnect, choice(kOnDisconnect, OnDisconnect::Finish), "default_on_disconnect",           \
	      "What becomes of a statement whose client has left, where tenant and role say nothing.",                     \
	      "finish: it runs to its end, as in PostgreSQL. cancel: it is canceled after half a second.",                 \
	      "what becomes of a statement whose client left: finish (as in PostgreSQL) or cancel")                        \
	LIMIT(Routing, routing, choice(kRoutings, Routing::Off), "", "", nullptr,                                          \
	      "where statements that only read are served: off (here) or reads (on the nodes of pgpool.node)")             \
	LIMIT(Consistency, consistency, choice(kConsistencies, Consistency::Session), "default_consistency",               \
	      "What reads on replicas see for certain, where tenant and role say nothing.",                                \
	      "eventual: what is at most max_lag old. session: also what the client has written or seen. database: also "  \
	      "every commit of the database that was acknowledged before.",                                                \
	      "what reads on replicas see for certain: eventual, session (own writes) or database (all writes)")           \
	LIMIT(int32_t, read_wait, milliseconds(5, "none"), "read_wait",                                                    \
	      "Time that a read waits for a replica that is behind.", "Then the primary serves it. 0: it does not wait.",  \
	      "time that a read waits for a replica that is behind")                                                       \
	LIMIT(int32_t, primary_reads, flag(false), "", "", nullptr, "the primary takes its share of the reads")            \
	LIMIT(RouteBlocks, route_blocks, choice(kRouteBlocks, RouteBlocks::Off), "", "", nullptr,                          \
	      "blocks that do not say READ ONLY: off (on the primary) or until_write (on a replica until they write)")     \
	LIMIT(ReplicaFallback, replica_fallback, choice(kReplicaFallbacks, ReplicaFallback::Primary), "", "", nullptr,     \
	      "reads when no replica is fit: primary (it serves them) or error")

struct Limit {
	const char *name;
	Range range;
	const char *setting;     // without "pgpool.", "" = none
	const char *text, *more; // of the setting; more may be NULL
	const char *column;      // comment, "" = none
};

#define PGPOOL_LIMIT_ROW(type, name, range, setting, text, more, column) {#name, range, setting, text, more, column},
inline constexpr Limit kLimits[] = {PGPOOL_LIMITS(PGPOOL_LIMIT_ROW)};
#undef PGPOOL_LIMIT_ROW

constexpr int kFirstLimits = 13; // of 0.1.0; the arguments of later ones stand behind all others

constexpr const Limit &limit_named(std::string_view name)
{
	return row_named(kLimits, name);
}

// Limits of a pool as they hold now. The manager resolves them; workers only read. Times in milliseconds, 0 = off.
// pool_size and max_pinned are those that hold (at least 1), max_clients is that of the role in the tenant: the
// tenant's holds over all its roles and is in TenantSlot.
struct PoolSettings {
#define PGPOOL_LIMIT_FIELD(type, name, ...) Atomic<type> name;
	PGPOOL_LIMITS(PGPOOL_LIMIT_FIELD)
#undef PGPOOL_LIMIT_FIELD
};

} // namespace pgpool::region
