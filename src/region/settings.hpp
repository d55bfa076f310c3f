// Settings: one POD snapshot of everything that workers must know of the configuration.
//
// Owns the list of pgpool.* settings, but for the limits of pools (limits.hpp), and of those server settings that the
// port obeys (ssl_*, sockets). A row of the list makes the setting, its member here and its row in docs/reference.md.
// The postmaster fills one before it forks workers, the manager sends a new one over the control socket
// at every reload, so no worker ever reads postgresql.conf. Must not know PostgreSQL's GUC machinery.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "region/limits.hpp"

namespace pgpool::region
{

constexpr int kPathLen = 1024;

// Values of ssl_min_protocol_version and ssl_max_protocol_version; Any = no bound.
enum class TlsVersion : int32_t { Any = 0, V1_0, V1_1, V1_2, V1_3 };

constexpr int kMaxWorkers = 64;

enum class Change { Restart, Reload };

// SETTING(name without "pgpool.", values, when a change acts, what it is, more of that)
#define PGPOOL_SETTINGS(SETTING)                                                                                       \
	SETTING(workers, count(1, kMaxWorkers, 1), Change::Restart, "Number of worker processes that serve clients.",      \
	        nullptr)                                                                                                   \
	SETTING(port, count(1, 65535, 6543), Change::Restart, "TCP port of the pooler.",                                   \
	        "The Unix-domain sockets are named after it, too.")                                                        \
	SETTING(session_port, count(0, 65535, 0, "off"), Change::Restart,                                                  \
	        "TCP port on which every client gets a server of its own for the whole session.", "0 turns it off.")       \
	SETTING(max_tenants, count(1, 1000000, 1000), Change::Restart,                                                     \
	        "Number of tenants that can be in use at one time.", nullptr)                                              \
	SETTING(max_pools, count(1, 1000000, 4000), Change::Restart, "Number of pools that can be in use at one time.",    \
	        "A pool belongs to one tenant, database and role.")                                                        \
	SETTING(max_client_connections, count(1, 10000000, 10000), Change::Reload,                                         \
	        "Number of clients that can be connected at one time, over all workers.", nullptr)                         \
	SETTING(max_server_connections, count(0, kMostServers, 0, "max_connections less reserved ones and 3"),             \
	        Change::Reload, "Number of connections that the pooler opens to the server, over all pools.",              \
	        "0 takes max_connections less the reserved connections and 3.")                                            \
	SETTING(login_timeout, milliseconds(60000), Change::Reload, "Time that a client may take to log in.",              \
	        "0 turns it off.")                                                                                         \
	SETTING(                                                                                                           \
	    pin_grace_time, milliseconds(5000), Change::Reload,                                                            \
	    "Time after which an idle client is disconnected that is one too many to keep its server while others wait.",  \
	    "0 turns it off: the others wait.")                                                                            \
	SETTING(max_prepared_statements, count(1, 100000, 1000), Change::Reload,                                           \
	        "Most shared prepared statements on one server connection.",                                               \
	        "The least recently used one is closed to make room.")                                                     \
	SETTING(max_client_statements, count(1, 1000000, 10000), Change::Reload,                                           \
	        "Most named prepared statements of one client.", nullptr)                                                  \
	SETTING(client_statement_memory, kilobytes(64, kNoBound, 16384), Change::Reload,                                   \
	        "Most text and parameter types that the prepared statements of one client have.",                          \
	        "A statement that has several names counts for each.")                                                     \
	SETTING(max_session_settings, count(1, 100000, 1000), Change::Reload,                                              \
	        "Most settings of a session that pgpool takes from server to server.",                                     \
	        "A client with more keeps its server.")                                                                    \
	SETTING(session_settings_memory, kilobytes(64, 1048576, 1024), Change::Reload,                                     \
	        "Most names and values of a session's settings that pgpool takes from server to server.",                  \
	        "A client with more keeps its server.")                                                                    \
	SETTING(write_timeout, milliseconds(0), Change::Reload,                                                            \
	        "Time after which a client that takes no data is cut off.",                                                \
	        "0, the default, turns it off: a slow reader is waited for.")                                              \
	SETTING(shutdown_timeout, milliseconds(10000, ""), Change::Reload,                                                 \
	        "Time that running transactions get to end when a worker stops.", nullptr)                                 \
	SETTING(tcp_keepalives_idle, seconds(10, "the system's value"), Change::Reload,                                    \
	        "Time without traffic after which TCP keepalives are sent to a client.",                                   \
	        "0 takes the value of the operating system.")                                                              \
	SETTING(tcp_keepalives_interval, seconds(5, "the system's value"), Change::Reload, "Time between TCP keepalives.", \
	        "0 takes the value of the operating system.")                                                              \
	SETTING(tcp_keepalives_count, count(0, kNoBound, 4, "the system's value"), Change::Reload,                         \
	        "Number of TCP keepalives that may be lost.", "0 takes the value of the operating system.")                \
	SETTING(tcp_user_timeout, milliseconds(0, "the system's value"), Change::Reload,                                   \
	        "Time that data sent to a client may stay unacknowledged.", "0 takes the value of the operating system.")  \
	SETTING(listen_backlog, count(1, 65535, 4096), Change::Reload,                                                     \
	        "Length of the queue of connections that wait to be accepted.", nullptr)                                   \
	SETTING(log_connections, flag(false), Change::Reload, "Logs each login of a client.", nullptr)                     \
	SETTING(log_disconnections, flag(false), Change::Reload, "Logs the end of each client, with its duration.", nullptr)

// TEXT(name without "pgpool.", default, is it a list, when a change acts, what it is, more of that)
#define PGPOOL_TEXT_SETTINGS(TEXT)                                                                                     \
	TEXT(listen_addresses, "localhost", true, Change::Restart, "Addresses on which the pooler listens.",               \
	     "Comma separated, as in listen_addresses; * stands for all.")                                                 \
	TEXT(database, "postgres", false, Change::Restart, "Database that holds the tables of the extension pgpool.",      \
	     nullptr)

struct Setting {
	const char *name;
	Range range;
	Change change;
	const char *text, *more; // more may be NULL
};

struct TextSetting {
	const char *name, *preset;
	bool list;
	Change change;
	const char *text, *more;
};

#define PGPOOL_SETTING_ROW(name, range, change, text, more) {#name, range, change, text, more},
inline constexpr Setting kSettings[] = {PGPOOL_SETTINGS(PGPOOL_SETTING_ROW)};
#undef PGPOOL_SETTING_ROW
#define PGPOOL_TEXT_ROW(name, preset, list, change, text, more) {#name, preset, list, change, text, more},
inline constexpr TextSetting kTextSettings[] = {PGPOOL_TEXT_SETTINGS(PGPOOL_TEXT_ROW)};
#undef PGPOOL_TEXT_ROW

constexpr const Setting &setting_named(std::string_view name)
{
	return row_named(kSettings, name);
}

constexpr const TextSetting &text_setting_named(std::string_view name)
{
	return row_named(kTextSettings, name);
}

struct Settings {
	uint32_t generation; // grows with every snapshot

	// pgpool.*; flags are 0 or 1. max_server_connections is resolved already, and never 0
#define PGPOOL_SETTING_FIELD(name, ...) int32_t name;
	PGPOOL_SETTINGS(PGPOOL_SETTING_FIELD)
#undef PGPOOL_SETTING_FIELD
	char listen_addresses[kPathLen]; // comma separated, "*" = all

	// of the server
	int32_t server_port;                    // where the postmaster listens
	char server_socket_directory[kPathLen]; // first of unix_socket_directories, "" = none
	char server_loopback[64];               // numeric address for logins by TCP, "" = not listening there
	int32_t tls_enabled;
	int32_t tls_prefer_server_ciphers;
	TlsVersion tls_min;
	TlsVersion tls_max;
	char tls_cert_file[kPathLen];
	char tls_key_file[kPathLen];
	char tls_ca_file[kPathLen];
	char tls_crl_file[kPathLen];
	char tls_crl_dir[kPathLen];
	char tls_ciphers[kPathLen];
	char tls_ecdh_curve[128];
};

static_assert(std::is_trivially_copyable_v<Settings> && std::is_standard_layout_v<Settings>);

} // namespace pgpool::region
