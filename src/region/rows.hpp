// Rows of the views that a backend asks of the workers: clients, servers, shared statements. Each column stands here
// once.
//
// Owns the lists and the rows, which are sent as they are (control.hpp). Core fills them,
// src/postgres/functions/lists.cpp shows them. Must not know PostgreSQL.
#pragma once

#include "region/columns.hpp"
#include "region/range.hpp"

namespace pgpool::control
{

using region::kNameLen;
using region::kTextLen;

enum class ClientState : uint32_t { Login = 0, Idle, Waiting, Active, IdleInTransaction, Closing, Listening };
enum class ServerState : uint32_t { Connecting = 0, Login, Idle, Active, Cleaning, Closing, Listener };

inline constexpr region::Choice kClientStates[] = {
    region::named("login", ClientState::Login),
    region::named("idle", ClientState::Idle),
    region::named("waiting", ClientState::Waiting),
    region::named("active", ClientState::Active),
    region::named("idle in transaction", ClientState::IdleInTransaction),
    region::named("closing", ClientState::Closing),
    region::named("listening", ClientState::Listening),
};
inline constexpr region::Choice kServerStates[] = {
    region::named("connecting", ServerState::Connecting),
    region::named("login", ServerState::Login),
    region::named("idle", ServerState::Idle),
    region::named("active", ServerState::Active),
    region::named("cleaning", ServerState::Cleaning),
    region::named("closing", ServerState::Closing),
    region::named("listener", ServerState::Listener),
};

inline const char *shown(ClientState s)
{
	return region::name_of(kClientStates, s);
}
inline const char *shown(ServerState s)
{
	return region::name_of(kServerStates, s);
}

} // namespace pgpool::control

namespace pgpool::region::column
{

using ClientStateName = Named<control::ClientState>;
using ServerStateName = Named<control::ServerState>;

struct SessionMode { // bool: `session`, else `transaction`
	using Field = uint8_t;
	static constexpr const char *sql = "text";
};

struct Route { // bool: `tcp`, else `unix`
	using Field = uint8_t;
	static constexpr const char *sql = "text";
};

} // namespace pgpool::region::column

namespace pgpool::control
{

#define PGPOOL_CLIENT_COLUMNS(FIELD, MADE)                                                                             \
	FIELD(Number, id, id, "for `terminate_client()` and `cancel_client()`: worker * 2^48 + number")                    \
	MADE(integer, worker, "")                                                                                          \
	FIELD(Name, tenant, tenant, "NULL before the proof")                                                               \
	FIELD(Name, database, database, "NULL before the proof")                                                           \
	FIELD(Name, role, role, "NULL before the proof")                                                                   \
	FIELD(Name, application_name, application_name, "")                                                                \
	MADE(inet, client_addr, "NULL: Unix socket")                                                                       \
	MADE(integer, client_port, "")                                                                                     \
	FIELD(ClientStateName, state, state,                                                                               \
	      "`login`, `idle`, `waiting`, `active`, `idle in transaction`, `closing`; `listening`: idle, without a "      \
	      "server, and notifications come by a server in state `listener`")                                            \
	FIELD(SomeInteger, server_pid, server_pid, "backend that serves it; NULL: none")                                   \
	FIELD(SomeInteger, key_pid, pid,                                                                                   \
	      "the pid that the client was told (BackendKeyData): in session mode the backend's, else a random one")       \
	FIELD(SessionMode, session_mode, pool_mode, "`session` or `transaction`, of this client")                          \
	FIELD(Text<128>, pinned, pinned,                                                                                   \
	      "why its server is kept between transactions: `session mode`, `long statement`, `unnamed statement`, or "    \
	      "what the agent in the backend found: `advisory lock`, `LISTEN`, `temporary object`, `WITH HOLD cursor`, "   \
	      "`PREPARE`, `LOAD`, `setseed`, `sequences`, `SET SESSION AUTHORIZATION`, `other user` (changed by an "       \
	      "extension, behind the back of `role`), `backup`, `replication slot` (a temporary one), `replication "       \
	      "origin`, `dblink` (a connection of `dblink_connect()`; until the client's end), `untold setting` and "      \
	      "`unknown` (there was no memory to look); `settings`: more than `pgpool.max_session_settings` or "           \
	      "`pgpool.session_settings_memory`; NULL: nothing")                                                           \
	FIELD(Flag, tls, ssl, "")                                                                                          \
	FIELD(Text<16>, tls_version, ssl_version, "")                                                                      \
	FIELD(Text<48>, tls_cipher, ssl_cipher, "")                                                                        \
	FIELD(Time, connected_at, connected_at, "")                                                                        \
	FIELD(Time, state_since, state_since, "")                                                                          \
	FIELD(Number, transactions, transactions, "")                                                                      \
	FIELD(Number, queries, queries, "Query, Execute and FunctionCall messages")                                        \
	FIELD(Lsn, commit_lsn, commit_lsn,                                                                                 \
	      "end of its last commit that wrote WAL, as the agent in the backend tells; NULL: none yet, or no agent")     \
	FIELD(Name, node, node, "`pgpool.node` that serves it; NULL: the primary, or none")

#define PGPOOL_SERVER_COLUMNS(FIELD, MADE)                                                                             \
	FIELD(SomeInteger, pid, pid, "of the backend; NULL before it told")                                                \
	MADE(integer, worker, "")                                                                                          \
	FIELD(Name, tenant, tenant, "of its pool")                                                                         \
	FIELD(Name, database, database, "of its pool")                                                                     \
	FIELD(Name, role, role, "of its pool")                                                                             \
	FIELD(Name, application_name, application_name, "as the backend has it")                                           \
	FIELD(ServerStateName, state, state,                                                                               \
	      "`connecting`, `login`, `idle`, `active`, `cleaning`, `closing`; `listener`: it has no client, and listens " \
	      "for all of its worker, database and role that are in state `listening`, whatever their tenant; the pool "   \
	      "is that of the first of them")                                                                              \
	FIELD(SomeNumber, client_id, client_id, "`pg_stat_clients.id`; NULL: none")                                        \
	FIELD(Route, by_tcp, route, "`unix` or `tcp`")                                                                     \
	FIELD(Flag, agent, agent, "the backend tells what its session keeps; false: by TCP, or during login")              \
	FIELD(Time, connected_at, connected_at, "")                                                                        \
	FIELD(Time, state_since, state_since, "")                                                                          \
	FIELD(Number, transactions, transactions, "")                                                                      \
	FIELD(Number, queries, queries, "ReadyForQuery messages")                                                          \
	FIELD(Name, node, node, "`pgpool.node` that the backend is on; NULL: this server")

#define PGPOOL_PREPARED_COLUMNS(FIELD, MADE)                                                                           \
	MADE(integer, worker, "")                                                                                          \
	FIELD(Name, name, name,                                                                                            \
	      "`_pgpool_N`, as in `pg_prepared_statements` of the servers; no two workers have the same N")                \
	MADE(text, text,                                                                                                   \
	     "the first 1024 bytes; characters that this database cannot have show as `?`. NULL for who is neither "       \
	     "superuser nor a member of `pg_read_all_stats` (`pg_monitor` is)")                                            \
	MADE(oid[], parameter_types, "those that Parse named, at most 64; 0: left to the server")                          \
	MADE(text[], tenants, "whose servers have it now; at most 16")                                                     \
	FIELD(Number, clients, clients, "that have it prepared now, under whatever names")                                 \
	FIELD(Number, servers, servers, "that have it now")                                                                \
	FIELD(Number, uses, uses, "Binds")                                                                                 \
	FIELD(Number, hits, hits, "Parse, Bind and Describe messages that needed nothing of the server")                   \
	FIELD(Number, parses, parses, "Parses sent to servers")                                                            \
	FIELD(Number, evictions, evictions, "times that it was closed on a server to make room")                           \
	FIELD(Number, bytes, bytes, "of its text and parameter types")

struct ClientRow { // id: worker number * 2^48 + serial number; pinned: reasons
	PGPOOL_CLIENT_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
	uint32_t pool_slot;      // UINT32_MAX before login
	uint32_t address_length; // 0 = Unix socket
	uint8_t address[28];     // sockaddr_in or sockaddr_in6
	uint8_t protocol_minor;
};

struct ServerRow {
	PGPOOL_SERVER_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
	uint32_t pool_slot;
};

constexpr uint32_t kTextShown = 1024; // bytes
constexpr uint32_t kTypesShown = 64;
constexpr uint32_t kTenantsShown = 16;

// Arrays of bytes and of names are filled up with NUL, and have none if they are full.
struct PreparedRow { // bytes: also of what is cut here
	PGPOOL_PREPARED_COLUMNS(PGPOOL_ROW_FIELD, PGPOOL_ROW_MADE)
	uint32_t type_count, tenant_count;
	uint32_t types[kTypesShown];
	char tenants[kTenantsShown][kNameLen];
	char text[kTextShown]; // in the client's encoding
};

} // namespace pgpool::control
