// The settings: definition, bounds and descriptions of pgpool.*, and what workers get of them.
//
// Owns the GUC variables and the translation of the server's own settings (ssl_*, sockets, port) into a
// region::Settings. Must not know the region's slots, sockets or the catalog.
#include <cstring>

#include "region/layout.hpp"
#include "server/compat.hpp"
#include "server/settings.hpp"

extern "C" {
#include "postmaster/postmaster.h"
#include "utils/varlena.h"
}

namespace pgpool::server
{

Gucs gucs;

namespace
{

const config_enum_entry kPoolModes[] = {
    {"transaction", static_cast<int>(region::PoolMode::Transaction), false},
    {"session", static_cast<int>(region::PoolMode::Session), false},
    {nullptr, 0, false},
};

const config_enum_entry kOnDisconnect[] = {
    {"finish", static_cast<int>(region::OnDisconnect::Finish), false},
    {"cancel", static_cast<int>(region::OnDisconnect::Cancel), false},
    {nullptr, 0, false},
};

const config_enum_entry kCacheUnnamed[] = {
    {"off", static_cast<int>(region::CacheUnnamed::Off), false},
    {"custom", static_cast<int>(region::CacheUnnamed::Custom), false},
    {"generic", static_cast<int>(region::CacheUnnamed::Generic), false},
    {nullptr, 0, false},
};

bool check_addresses(char **value, void **, GucSource)
{
	char *copy = pstrdup(*value);
	List *list = NIL;
	bool ok = SplitGUCList(copy, ',', &list);

	list_free(list);
	pfree(copy);
	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	else if (strlen(*value) >= region::kPathLen) {
		GUC_check_errdetail("The list is longer than %d bytes.", region::kPathLen - 1);
		ok = false;
	}
	return ok;
}

bool check_database(char **value, void **, GucSource)
{
	if (**value == '\0' || strlen(*value) >= NAMEDATALEN) {
		GUC_check_errdetail("The name of a database has 1 to %d bytes.", NAMEDATALEN - 1);
		return false;
	}
	return true;
}

struct IntSetting {
	const char *name;
	const char *text;
	const char *more;
	int *variable;
	int preset, least, most;
	GucContext context;
	int flags;
};

constexpr int kHour = 3600;

const IntSetting kInts[] = {
    {"pgpool.workers", "Number of worker processes that serve clients.", nullptr, &gucs.workers, 1, 1,
     region::kMaxWorkers, PGC_POSTMASTER, 0},
    {"pgpool.port", "TCP port of the pooler.", "The Unix-domain sockets are named after it, too.", &gucs.port, 6543, 1,
     65535, PGC_POSTMASTER, 0},
    {"pgpool.session_port", "TCP port on which every client gets a server of its own for the whole session.",
     "0 turns it off.", &gucs.session_port, 0, 0, 65535, PGC_POSTMASTER, 0},
    {"pgpool.max_tenants", "Number of tenants that can be in use at one time.", nullptr, &gucs.max_tenants, 1000, 1,
     1000000, PGC_POSTMASTER, 0},
    {"pgpool.max_pools", "Number of pools that can be in use at one time.",
     "A pool belongs to one tenant, database and role.", &gucs.max_pools, 4000, 1, 1000000, PGC_POSTMASTER, 0},
    {"pgpool.max_client_connections", "Number of clients that can be connected at one time, over all workers.", nullptr,
     &gucs.max_client_connections, 10000, 1, 10000000, PGC_SIGHUP, 0},
    {"pgpool.max_server_connections", "Number of connections that the pooler opens to the server, over all pools.",
     "0 takes max_connections less the reserved connections and 3.", &gucs.max_server_connections, 0, 0, 262143,
     PGC_SIGHUP, 0},
    {"pgpool.default_pool_size", "Size of a pool whose tenant and role name none.", nullptr, &gucs.default_pool_size,
     20, 1, 262143, PGC_SIGHUP, 0},
    {"pgpool.default_max_pinned", "Servers of a pool that clients may keep between transactions.",
     "0 takes the size of the pool less one, at least 1.", &gucs.default_max_pinned, 0, 0, 262143, PGC_SIGHUP, 0},
    {"pgpool.login_timeout", "Time that a client may take to log in.", "0 turns it off.", &gucs.login_timeout, 60000, 0,
     INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.query_wait_timeout", "Time that a client waits for a server of its pool.", "0 turns it off.",
     &gucs.query_wait_timeout, 120000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.client_idle_timeout", "Time after which an idle client is disconnected.", "0 turns it off.",
     &gucs.client_idle_timeout, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.idle_in_transaction_timeout", "Time after which a client idle in a transaction is disconnected.",
     "0 turns it off.", &gucs.idle_in_transaction_timeout, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.pin_idle_timeout",
     "Time after which an idle client is disconnected that keeps its server between transactions.", "0 turns it off.",
     &gucs.pin_idle_timeout, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.pin_grace_time",
     "Time after which an idle client is disconnected that is one too many to keep its server while others wait.",
     "0 turns it off: the others wait.", &gucs.pin_grace_time, 5000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.max_prepared_statements", "Most shared prepared statements on one server connection.",
     "The least recently used one is closed to make room.", &gucs.max_prepared_statements, 1000, 1, 100000, PGC_SIGHUP,
     0},
    {"pgpool.max_client_statements", "Most named prepared statements of one client.", nullptr,
     &gucs.max_client_statements, 10000, 1, 1000000, PGC_SIGHUP, 0},
    {"pgpool.client_statement_memory", "Most text and parameter types that the prepared statements of one client have.",
     "A statement that has several names counts for each.", &gucs.client_statement_memory, 16384, 64, INT_MAX,
     PGC_SIGHUP, GUC_UNIT_KB},
    {"pgpool.max_session_settings", "Most settings of a session that pgpool takes from server to server.",
     "A client with more keeps its server.", &gucs.max_session_settings, 1000, 1, 100000, PGC_SIGHUP, 0},
    {"pgpool.session_settings_memory",
     "Most names and values of a session's settings that pgpool takes from server to server.",
     "A client with more keeps its server.", &gucs.session_settings_memory, 1024, 64, 1048576, PGC_SIGHUP, GUC_UNIT_KB},
    {"pgpool.server_idle_timeout", "Time after which an idle server connection is closed.", "0 turns it off.",
     &gucs.server_idle_timeout, 600, 0, INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S},
    {"pgpool.server_lifetime", "Age at which a server connection is closed as soon as it is idle.", "0 turns it off.",
     &gucs.server_lifetime, kHour, 0, INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S},
    {"pgpool.write_timeout", "Time after which a client that takes no data is cut off.",
     "0, the default, turns it off: a slow reader is waited for.", &gucs.write_timeout, 0, 0, INT_MAX, PGC_SIGHUP,
     GUC_UNIT_MS},
    {"pgpool.shutdown_timeout", "Time that running transactions get to end when a worker stops.", nullptr,
     &gucs.shutdown_timeout, 10000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.tcp_keepalives_idle", "Time without traffic after which TCP keepalives are sent to a client.",
     "0 takes the value of the operating system.", &gucs.tcp_keepalives_idle, 10, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pgpool.tcp_keepalives_interval", "Time between TCP keepalives.", "0 takes the value of the operating system.",
     &gucs.tcp_keepalives_interval, 5, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pgpool.tcp_keepalives_count", "Number of TCP keepalives that may be lost.",
     "0 takes the value of the operating system.", &gucs.tcp_keepalives_count, 4, 0, INT_MAX, PGC_SIGHUP, 0},
    {"pgpool.tcp_user_timeout", "Time that data sent to a client may stay unacknowledged.",
     "0 takes the value of the operating system.", &gucs.tcp_user_timeout, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
    {"pgpool.listen_backlog", "Length of the queue of connections that wait to be accepted.", nullptr,
     &gucs.listen_backlog, 4096, 1, 65535, PGC_SIGHUP, 0},
};

void copy_setting(char *to, size_t room, const char *name)
{
	strlcpy(to, server_setting(name), room);
}

region::TlsVersion tls_version(const char *name)
{
	const char *value = server_setting(name);

	if (pg_strcasecmp(value, "TLSv1") == 0)
		return region::TlsVersion::V1_0;
	if (pg_strcasecmp(value, "TLSv1.1") == 0)
		return region::TlsVersion::V1_1;
	if (pg_strcasecmp(value, "TLSv1.2") == 0)
		return region::TlsVersion::V1_2;
	if (pg_strcasecmp(value, "TLSv1.3") == 0)
		return region::TlsVersion::V1_3;
	return region::TlsVersion::Any;
}

// Copies the first member of a comma separated list.
void first_directory(char *to, size_t room)
{
	char *copy = pstrdup(server_setting("unix_socket_directories"));
	List *list = NIL;

	to[0] = '\0';
	if (SplitDirectoriesString(copy, ',', &list) && list != NIL)
		strlcpy(to, static_cast<char *>(linitial(list)), room);
	list_free_deep(list);
	pfree(copy);
}

void loopback(char *to, size_t room)
{
	char *copy = pstrdup(server_setting("listen_addresses"));
	List *list = NIL;
	ListCell *cell;
	bool v4 = false, v6 = false;

	if (SplitGUCList(copy, ',', &list)) {
		foreach (cell, list) {
			const char *a = static_cast<const char *>(lfirst(cell));

			if (!strcmp(a, "*") || !strcmp(a, "0.0.0.0") || !pg_strcasecmp(a, "localhost") || !strcmp(a, "127.0.0.1"))
				v4 = true;
			else if (!strcmp(a, "::") || !strcmp(a, "::1"))
				v6 = true;
		}
	}
	strlcpy(to, v4 ? "127.0.0.1" : v6 ? "::1" : "", room);
	list_free(list);
	pfree(copy);
}

} // namespace

const char *server_setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value ? value : "";
}

int server_setting_int(const char *name, int otherwise)
{
	const char *value = server_setting(name);

	return *value ? atoi(value) : otherwise;
}

int resolved_max_server_connections()
{
	if (gucs.max_server_connections > 0)
		return gucs.max_server_connections;
	int n = server_setting_int("max_connections", 100) - server_setting_int("superuser_reserved_connections", 3) -
	        server_setting_int("reserved_connections", 0) - 3;
	return n < 1 ? 1 : n;
}

void define_settings()
{
	for (const IntSetting &s : kInts)
		DefineCustomIntVariable(s.name, s.text, s.more, s.variable, s.preset, s.least, s.most, s.context, s.flags,
		                        nullptr, nullptr, nullptr);
	DefineCustomStringVariable("pgpool.listen_addresses", "Addresses on which the pooler listens.",
	                           "Comma separated, as in listen_addresses; * stands for all.", &gucs.listen_addresses,
	                           "localhost", PGC_POSTMASTER, GUC_LIST_INPUT, check_addresses, nullptr, nullptr);
	DefineCustomStringVariable("pgpool.database", "Database that holds the tables of the extension pgpool.", nullptr,
	                           &gucs.database, "postgres", PGC_POSTMASTER, 0, check_database, nullptr, nullptr);
	DefineCustomEnumVariable("pgpool.default_pool_mode", "Mode of a pool whose tenant and role name none.",
	                         "transaction or session: when a server goes back to its pool.", &gucs.default_pool_mode, 0,
	                         kPoolModes, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
	DefineCustomEnumVariable(
	    "pgpool.default_cache_unnamed", "What serves an unnamed statement where tenant and role name nothing.",
	    "off: the server, each time. custom, generic: a shared prepared statement, with a plan for "
	    "the parameters or one that the server chooses.",
	    &gucs.default_cache_unnamed, static_cast<int>(region::CacheUnnamed::Custom), kCacheUnnamed, PGC_SIGHUP, 0,
	    nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("pgpool.default_pin_sequences",
	                         "A client that used a sequence keeps its server, where tenant and role say nothing.",
	                         "Otherwise currval() and lastval() hold until the server serves another client.",
	                         &gucs.default_pin_sequences, false, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
	DefineCustomEnumVariable(
	    "pgpool.default_on_disconnect",
	    "What becomes of a statement whose client has left, where tenant and role say nothing.",
	    "finish: it runs to its end, as in PostgreSQL. cancel: it is canceled after half a second.",
	    &gucs.default_on_disconnect, static_cast<int>(region::OnDisconnect::Finish), kOnDisconnect, PGC_SIGHUP, 0,
	    nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("pgpool.log_connections", "Logs each login of a client.", nullptr, &gucs.log_connections,
	                         false, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
	DefineCustomBoolVariable("pgpool.log_disconnections", "Logs the end of each client, with its duration.", nullptr,
	                         &gucs.log_disconnections, false, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
	MarkGUCPrefixReserved("pgpool");
}

void fill_settings(region::Settings &to, uint32_t generation)
{
	memset(&to, 0, sizeof to);
	to.generation = generation;
	to.workers = gucs.workers;
	to.port = gucs.port;
	to.session_port = gucs.session_port;
	to.listen_backlog = gucs.listen_backlog;
	to.max_client_connections = gucs.max_client_connections;
	to.max_server_connections = resolved_max_server_connections();
	to.login_timeout = gucs.login_timeout;
	to.write_timeout = gucs.write_timeout;
	to.pin_grace_time = gucs.pin_grace_time;
	to.shutdown_timeout = gucs.shutdown_timeout;
	to.tcp_keepalives_idle = gucs.tcp_keepalives_idle;
	to.tcp_keepalives_interval = gucs.tcp_keepalives_interval;
	to.tcp_keepalives_count = gucs.tcp_keepalives_count;
	to.tcp_user_timeout = gucs.tcp_user_timeout;
	to.max_prepared_statements = gucs.max_prepared_statements;
	to.max_client_statements = gucs.max_client_statements;
	to.client_statement_memory = gucs.client_statement_memory;
	to.max_session_settings = gucs.max_session_settings;
	to.session_settings_memory = gucs.session_settings_memory;
	to.log_connections = gucs.log_connections;
	to.log_disconnections = gucs.log_disconnections;
	strlcpy(to.listen_addresses, gucs.listen_addresses, sizeof to.listen_addresses);

	to.server_port = PostPortNumber;
	first_directory(to.server_socket_directory, sizeof to.server_socket_directory);
	loopback(to.server_loopback, sizeof to.server_loopback);
	to.tls_enabled = strcmp(server_setting("ssl"), "on") == 0;
	to.tls_prefer_server_ciphers = strcmp(server_setting("ssl_prefer_server_ciphers"), "on") == 0;
	to.tls_min = tls_version("ssl_min_protocol_version");
	to.tls_max = tls_version("ssl_max_protocol_version");
	copy_setting(to.tls_cert_file, sizeof to.tls_cert_file, "ssl_cert_file");
	copy_setting(to.tls_key_file, sizeof to.tls_key_file, "ssl_key_file");
	copy_setting(to.tls_ca_file, sizeof to.tls_ca_file, "ssl_ca_file");
	copy_setting(to.tls_crl_file, sizeof to.tls_crl_file, "ssl_crl_file");
	copy_setting(to.tls_crl_dir, sizeof to.tls_crl_dir, "ssl_crl_dir");
	copy_setting(to.tls_ciphers, sizeof to.tls_ciphers, "ssl_ciphers");
	// 18 calls it ssl_groups and keeps the old name as an alias
	copy_setting(to.tls_ecdh_curve, sizeof to.tls_ecdh_curve, "ssl_ecdh_curve");
}

} // namespace pgpool::server
