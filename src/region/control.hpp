// The control protocol: packets between manager, workers and backends of one cluster.
//
// Sockets: PGDATA/pgpool/manager.sock and PGDATA/pgpool/worker.N.sock, AF_UNIX SOCK_SEQPACKET, in a
// directory of mode 0700. One packet is one message: a Head and the struct of its type, both plain bytes;
// sender and receiver are always of the same build (Head.version says so, else the packet is refused).
// Strings are NUL-terminated within their arrays.
//
// Who speaks to whom:
//   worker -> manager.sock    Hello once, then AuthLookup, Poke (look at the catalogs: changes_told);
//                             gets Settings, UnixListeners, AuthAnswer, Poke
//   backend -> worker.N.sock  ListClients, ListServers, ListPrepared, TerminateClient, CancelClient,
//                             DrainDatabase; gets ClientRows/ServerRows/PreparedRows ..., End or Ack
//   worker -> worker.N.sock   CancelKey (gets Ack), YieldServer, PlaceFree, Proof (no answer)
//
// Must not know PostgreSQL, sockets or libuv.
#pragma once

#include <cstdint>
#include <type_traits>

#include "region/layout.hpp"
#include "region/rows.hpp"

namespace pgpool::control
{

constexpr uint32_t kMagic = 0x70677063; // "pgpc"
constexpr uint32_t kMaxPacket = 65536;

inline constexpr const char kDirectory[] = "pgpool"; // below PGDATA, every process's working directory
inline constexpr const char kManagerSocket[] = "pgpool/manager.sock";
inline constexpr const char kWorkerSocketFormat[] = "pgpool/worker.%u.sock";

enum class Type : uint32_t {
	Hello = 1,
	Settings,
	UnixListeners,
	Poke,
	AuthLookup,
	AuthAnswer,
	ListClients,
	ListServers,
	ClientRows,
	ServerRows,
	End,
	TerminateClient,
	CancelClient,
	DrainDatabase,
	Ack,
	CancelKey,
	YieldServer,
	PlaceFree,
	Proof,
	ListPrepared,
	PreparedRows,
};

struct Head {
	uint32_t magic;
	uint32_t version; // region::kVersion
	Type type;
	uint32_t size; // of the whole packet
	uint64_t id;   // of a question, repeated in its answer
};

struct Hello {
	Head head;
	uint32_t worker;
	int32_t pid;
};

struct SettingsMessage {
	Head head;
	region::Settings settings;
};

// Carries listening Unix sockets as SCM_RIGHTS: the transaction port's first, then the session port's.
// They replace all that were sent before.
struct UnixListeners {
	Head head;
	uint32_t transaction_fds;
	uint32_t session_fds;
};

// Limits, bans, names or epochs in the region changed, or Phase did: look again.
struct Poke {
	Head head;
};

// ---- authentication -------------------------------------------------------------------------------

struct AuthLookup {
	Head head;
	uint32_t address_length; // of `address`, a sockaddr; 0 = Unix socket
	uint8_t address[128];
	uint8_t tls;               // the client speaks TLS
	uint8_t certificate_valid; // it showed a certificate that was verified
	uint8_t session_port;
	uint8_t certificate_name_long; // one that has no room here, and is empty
	uint8_t proved; // by the exchange that an earlier answer asked for: a place for the pool may be taken
	char user[256]; // as in the startup packet
	char database[256];
	char tenant[kNameLen]; // from pgpool.tenant or reference, "" = not given
	char sni[256];         // "" = none
	char certificate_cn[256];
	char certificate_dn[1024];
};

enum class AuthMethod : uint32_t {
	Refuse = 0, // no exchange: send `error` as FATAL
	Trust,
	Password, // clear text, compared with `verifier`
	Md5,
	Scram,
	Certificate, // the worker already verified it, the manager matched the name: nothing to exchange
};

struct ErrorText {
	char sqlstate[8]; // "" = no error
	char message[kTextLen];
	char detail[kTextLen];
	char hint[kTextLen];
};

// Node: another server of the cluster (nodes.hpp); no answer of the manager has it.
enum class ServerRoute : uint32_t { None = 0, Unix, Tcp, Node };
// What the server will ask of the worker on that route.
enum class ServerMethod : uint32_t { Trust = 0, Password, Md5, Scram, Peer };

struct AuthAnswer {
	Head head;
	AuthMethod method;
	// The exchange goes on (with a mock verifier where there is no real one) and is then refused
	// whatever the proof was: unknown role, tenant or database must look like a wrong password.
	uint32_t doomed;
	// Refuse: sent at once. Otherwise: sent after the exchange succeeded (NOLOGIN, no such database,
	// no CONNECT privilege, connection limit, ban ...). sqlstate "" = welcome.
	ErrorText error;
	char log_detail[kTextLen]; // why it is doomed, for the server log only
	char verifier[512];        // as in pg_authid.rolpassword, or a mock of the same form
	// UINT32_MAX: there is no place for them yet. It is given to who asks again after the exchange.
	uint32_t tenant_slot, tenant_generation;
	uint32_t pool_slot, pool_generation;
	uint32_t role_oid, database_oid;
	uint32_t in_hot_standby; // bool: the server, now
	char role[kNameLen];     // without the tenant's suffix
	char database[kNameLen];
	ServerRoute route;
	ServerMethod route_method;
	char server_password[256]; // stored for the tenant's role, "" = none
	ErrorText route_error;     // why route is None
};

// ---- lists for the views --------------------------------------------------------------------------

// Rows of clients, servers and shared statements: rows.hpp.

struct Rows { // followed by `count` ClientRow, ServerRow or PreparedRow
	Head head;
	uint32_t count;
	uint32_t spare;
};

struct ClientVerb { // TerminateClient, CancelClient
	Head head;
	uint64_t client_id;
};

// Closes idle servers of a database and opens none for 6 seconds: DROP DATABASE and the like are coming.
struct DrainDatabase {
	Head head;
	uint32_t database_oid;
};

struct Ack {
	Head head;
	uint32_t done; // number of objects it was done to
};

// ---- among workers --------------------------------------------------------------------------------

struct CancelKey {
	Head head;
	int32_t pid;
	uint32_t key_length;
	uint8_t key[256];
};

// What the server counted when it refused a login of pgpool's with 53300.
enum class ServerLimit : uint32_t { None = 0, Role, Database, Server };

// A client of worker `from` waits at the pool's limit, or, with `refused_by`, at one of the server's: then the place of
// any idle server that counts for the same limit will do.
struct YieldServer {
	Head head;
	uint32_t from;
	uint32_t pool_slot;
	uint32_t pool_generation;
	uint32_t waited_ms;
	ServerLimit refused_by;
	uint32_t target; // of the pool: where the servers are, 0 = the primary
};

// What a client proved, for the same pool of the other workers: after ALTER ROLE ... PASSWORD all of them
// can open servers as soon as one has seen the new password. Secret: wiped after use on both sides.
struct Proof {
	Head head;
	uint32_t pool_slot;
	uint32_t pool_generation;
	uint32_t has_key;
	uint8_t client_key[32];
	char verifier[512]; // SCRAM or md5, as in pg_authid.rolpassword
	char password[256];
};

constexpr uint32_t kAnyPool = UINT32_MAX; // in YieldServer: pgpool.max_server_connections is reached

struct PlaceFree { // answer to YieldServer, once the backend is gone
	Head head;
	uint32_t pool_slot;
	uint32_t pool_generation;
	uint32_t target;
};

template <class T> T make(Type type, uint64_t id = 0)
{
	static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMaxPacket);
	T m{};
	m.head = Head{kMagic, region::kVersion, type, sizeof(T), id};
	return m;
}

} // namespace pgpool::control
