// Settings: one POD snapshot of everything that workers must know of the configuration.
//
// Owns the list of pgpool.* settings and of those server settings that the port obeys (ssl_*, sockets).
// The postmaster fills one before it forks workers, the manager sends a new one over the control socket
// at every reload, so no worker ever reads postgresql.conf. Must not know PostgreSQL's GUC machinery.
#pragma once

#include <cstdint>
#include <type_traits>

namespace pgpool::region
{

constexpr int kPathLen = 1024;

// Values of ssl_min_protocol_version and ssl_max_protocol_version; Any = no bound.
enum class TlsVersion : int32_t { Any = 0, V1_0, V1_1, V1_2, V1_3 };

struct Settings {
	uint32_t generation; // grows with every snapshot

	// pgpool.*; times in milliseconds, 0 = off, unless said otherwise
	int32_t workers;
	int32_t port;
	int32_t session_port; // 0 = off
	int32_t listen_backlog;
	int32_t max_client_connections; // over all workers
	int32_t max_server_connections; // over all workers and pools, already resolved (never 0)
	int32_t login_timeout;
	int32_t write_timeout;
	int32_t pin_grace_time; // of clients that keep a server while others wait
	int32_t shutdown_timeout;
	int32_t tcp_keepalives_idle;     // seconds
	int32_t tcp_keepalives_interval; // seconds
	int32_t tcp_keepalives_count;
	int32_t tcp_user_timeout;
	int32_t max_prepared_statements; // shared ones on one server
	int32_t max_client_statements;   // names that one client may have
	int32_t client_statement_memory; // kB of text and parameter types that they may stand for
	int32_t max_session_settings;    // that one client may take from server to server
	int32_t session_settings_memory; // kB of their names and values
	int32_t log_connections;         // bool
	int32_t log_disconnections;      // bool
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
