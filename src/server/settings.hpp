// The pgpool.* settings as C variables, and the snapshot of them for workers.
//
// Owns nothing at run time: settings.cpp defines the variables. Must not know who reads them.
#pragma once

#include "region/settings.hpp"

namespace pgpool::server
{

struct Gucs {
	int workers;
	int port;
	int session_port;
	char *listen_addresses;
	char *database;
	int max_tenants;
	int max_pools;
	int max_client_connections;
	int max_server_connections;
	int default_pool_size;
	int default_pool_mode;
	int default_cache_unnamed;
	int default_max_pinned;
	bool default_pin_sequences;
	int default_on_disconnect;
	int login_timeout;
	int max_prepared_statements;
	int max_client_statements;
	int client_statement_memory; // kB
	int max_session_settings;
	int session_settings_memory; // kB
	int query_wait_timeout;
	int client_idle_timeout;
	int idle_in_transaction_timeout;
	int pin_idle_timeout;
	int pin_grace_time;
	int server_idle_timeout; // seconds
	int server_lifetime;     // seconds
	int write_timeout;
	int shutdown_timeout;
	int tcp_keepalives_idle;
	int tcp_keepalives_interval;
	int tcp_keepalives_count;
	int tcp_user_timeout;
	int listen_backlog;
	bool log_connections;
	bool log_disconnections;
};

extern Gucs gucs;

void define_settings();
int resolved_max_server_connections();
void fill_settings(region::Settings &to, uint32_t generation);

// Value of any setting of the server, "" if there is none of that name.
const char *server_setting(const char *name);
int server_setting_int(const char *name, int otherwise);

} // namespace pgpool::server
