// The settings: definition, bounds and descriptions of pgpool.*, and what workers get of them.
//
// Owns the GUC variables and the translation of the server's own settings (ssl_*, sockets, port) into a
// region::Settings. Must not know the region's slots, sockets or the catalog.
#include <cstring>

#include "core/routing/statement_kind.hpp"
#include "region/layout.hpp"
#include "postgres/base/compat.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "postmaster/postmaster.h"
#include "utils/memutils.h"
#include "utils/varlena.h"
}

namespace pgpool::postgres
{

Gucs gucs;

namespace
{

bool check_listen_addresses(char **value, void **, GucSource)
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

GucContext context_of(region::Change change)
{
	return change == region::Change::Restart ? PGC_POSTMASTER : PGC_SIGHUP;
}

int unit_of(region::Kind kind)
{
	switch (kind) {
	case region::Kind::Milliseconds:
		return GUC_UNIT_MS;
	case region::Kind::Seconds:
		return GUC_UNIT_S;
	case region::Kind::Kilobytes:
		return GUC_UNIT_KB;
	default:
		return 0;
	}
}

// In the memory of the process, for the setting refers to it.
const config_enum_entry *entries_of(const region::Range &range)
{
	size_t size = sizeof(config_enum_entry) * (range.choice_count + 1);
	auto *entries = static_cast<config_enum_entry *>(MemoryContextAllocZero(TopMemoryContext, size));

	for (int i = 0; i < range.choice_count; i++)
		entries[i] = {range.choices[i].name, range.choices[i].value, false};
	return entries;
}

// PostgreSQL copies the name.
const char *full_name(const char *name)
{
	return psprintf("pgpool.%s", name);
}

void define(const region::Setting &s, int *variable)
{
	const region::Range &r = s.range;
	int preset = static_cast<int>(r.preset);

	if (r.kind == region::Kind::Choice)
		DefineCustomEnumVariable(full_name(s.name), s.text, s.more, variable, preset, entries_of(r),
		                         context_of(s.change), 0, nullptr, nullptr, nullptr);
	else
		DefineCustomIntVariable(full_name(s.name), s.text, s.more, variable, preset, static_cast<int>(r.least),
		                        static_cast<int>(r.most), context_of(s.change), unit_of(r.kind), nullptr, nullptr,
		                        nullptr);
}

void define(const region::Setting &s, bool *variable)
{
	DefineCustomBoolVariable(full_name(s.name), s.text, s.more, variable, s.range.preset != 0, context_of(s.change), 0,
	                         nullptr, nullptr, nullptr);
}

void define(const region::TextSetting &s, char **variable, GucStringCheckHook check)
{
	DefineCustomStringVariable(full_name(s.name), s.text, s.more, variable, s.preset, context_of(s.change),
	                           s.list ? GUC_LIST_INPUT : 0, check, nullptr, nullptr);
}

template <class T> void define_preset(const region::Limit &l, T *variable)
{
	if (*l.setting)
		define(region::Setting{l.setting, l.range, region::Change::Reload, l.text, l.more}, variable);
}

// What a session says of the way of its statements. Nobody here reads it: PostgreSQL checks it, takes it back with a
// ROLLBACK, knows ALTER ROLE ... SET, and reports it as TimeZone, so the workers follow it as any setting of a client.
void define_route()
{
	using core::Route;
	static const config_enum_entry kRoutes[] = {{"auto", static_cast<int>(Route::Auto), false},
	                                            {"primary", static_cast<int>(Route::Primary), false},
	                                            {"replica", static_cast<int>(Route::Replica), false},
	                                            {nullptr, 0, false}};
	static int route;

	DefineCustomEnumVariable("pgpool.route", "Where the session's statements are served.",
	                         "auto: reads of tenants with routing on replicas; primary: all on the primary; replica: "
	                         "on replicas also what calls functions that are not known to be harmless.",
	                         &route, static_cast<int>(Route::Auto), kRoutes, PGC_USERSET, GUC_REPORT, nullptr, nullptr,
	                         nullptr);
}

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
#define PGPOOL_DEFINE(name, ...) define(region::setting_named(#name), &gucs.name);
	PGPOOL_SETTINGS(PGPOOL_DEFINE)
#undef PGPOOL_DEFINE
#define PGPOOL_DEFINE(name, ...) define(region::text_setting_named(#name), &gucs.name, check_##name);
	PGPOOL_TEXT_SETTINGS(PGPOOL_DEFINE)
#undef PGPOOL_DEFINE
#define PGPOOL_DEFINE(type, name, ...) define_preset(region::limit_named(#name), &gucs.preset.name);
	PGPOOL_LIMITS(PGPOOL_DEFINE)
#undef PGPOOL_DEFINE
	define_route();
	MarkGUCPrefixReserved("pgpool");
}

void fill_settings(region::Settings &to, uint32_t generation)
{
	memset(&to, 0, sizeof to);
	to.generation = generation;
#define PGPOOL_COPY(name, ...) to.name = gucs.name;
	PGPOOL_SETTINGS(PGPOOL_COPY)
#undef PGPOOL_COPY
	to.max_server_connections = resolved_max_server_connections();
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

} // namespace pgpool::postgres
