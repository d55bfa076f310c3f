// pgpool.check(): what is wrong with the set-up, and how to mend it.
//
// Owns the list of checks that need C: the region, the workers, limits of the system, and the manager's own
// opinion on logins, which it asks for as a worker would. Checks on tables are SQL in the extension's script.
// Works in part without preloading, because that is the first thing to report. Must not change anything.
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include <netinet/in.h>
#include <unistd.h>

#include "region/files.hpp"
#include "postgres/functions/rows.hpp"
#include "postgres/base/settings.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "commands/extension.h"
#include "commands/dbcommands.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgpool_check);
PG_FUNCTION_INFO_V1(pgpool_preloaded);
PG_FUNCTION_INFO_V1(pgpool_config_changed);
}

namespace pgpool::postgres
{

namespace
{

constexpr int kAnswerMs = 3000;

enum class Level { Ok, Warning, Error };

void report(RowBuilder &to, const char *item, Level level, const char *remedy, const char *format, ...)
    __attribute__((format(__printf__, 5, 6)));

void report(RowBuilder &to, const char *item, Level level, const char *remedy, const char *format, ...)
{
	static const char *const names[] = {"ok", "warning", "error"};
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	to.text(item);
	to.text(names[static_cast<int>(level)]);
	to.text(text);
	if (remedy)
		to.text(remedy);
	else
		to.null();
	to.end();
}

// Asks the manager how a login of the present user to the present database would end.
bool ask_manager(bool by_tcp, control::AuthAnswer &a)
{
	auto q = control::make<control::AuthLookup>(control::Type::AuthLookup, 1);
	volatile int n = 0;
	int fd = channel_connect(control::kManagerSocket);

	if (fd < 0)
		return false;
	if (by_tcp) {
		sockaddr_in from{};
		from.sin_family = AF_INET;
		from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		q.address_length = sizeof from;
		memcpy(q.address, &from, sizeof from);
	}
	strlcpy(q.user, GetUserNameFromId(GetSessionUserId(), false), sizeof q.user);
	strlcpy(q.database, get_database_name(MyDatabaseId), sizeof q.database);
	if (channel_send(fd, &q, sizeof q)) {
		PG_TRY();
		{
			n = channel_receive(fd, &a, sizeof a, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kAnswerMs));
		}
		PG_CATCH();
		{
			close(fd);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	close(fd);
	return n == sizeof a && a.head.type == control::Type::AuthAnswer;
}

const char *method_name(control::AuthMethod m)
{
	static const char *const names[] = {"refused", "trust", "password", "md5", "scram-sha-256", "cert"};
	uint32 i = static_cast<uint32>(m);

	return i < lengthof(names) ? names[i] : "unknown";
}

void check_login(RowBuilder &to, bool by_tcp)
{
	control::AuthAnswer a;
	const char *item = by_tcp ? "login by TCP" : "login by Unix socket";
	const char *way = by_tcp ? "from 127.0.0.1" : "by Unix socket";

	memset(&a, 0, sizeof a);
	if (!ask_manager(by_tcp, a)) {
		report(to, item, Level::Error, "See the server log.", "the manager did not answer");
		return;
	}
	explicit_bzero(a.verifier, sizeof a.verifier);
	explicit_bzero(a.server_password, sizeof a.server_password);
	const control::ErrorText &e = a.error.sqlstate[0] ? a.error : a.route_error;
	if (a.error.sqlstate[0] || a.doomed)
		report(to, item, Level::Warning, e.hint[0] ? pstrdup(e.hint) : nullptr,
		       "role \"%s\" could not log in %s: %s%s%s", a.role, way, a.doomed ? "no usable password. " : "",
		       e.message, a.log_detail);
	else if (a.route == control::ServerRoute::None)
		report(to, item, Level::Error, pstrdup(a.route_error.hint), "%s: %s", a.route_error.message,
		       a.route_error.detail);
	else if (a.route == control::ServerRoute::Tcp)
		report(
		    to, item, Level::Warning,
		    "Let unix_socket_directories and pg_hba.conf have a way for pgpool's own logins by Unix socket.",
		    "role \"%s\" logs in %s with method %s, pgpool logs in for it by TCP: such a server cannot tell what a "
		    "session keeps, so that in transaction mode SET, temporary objects, LISTEN and advisory locks stay on it",
		    a.role, way, method_name(a.method));
	else
		report(to, item, Level::Ok, nullptr,
		       "role \"%s\" logs in %s with method %s, pgpool logs in for it by Unix socket", a.role, way,
		       method_name(a.method));
}

void check_worker(RowBuilder &to, uint32 i)
{
	const region::WorkerSlot &w = region_view.worker(i);
	int32 wanted = gucs.listen_addresses[0] ? region::kListenTcp : 0;
	char item[32], problem[region::kTextLen];

	snprintf(item, sizeof item, "worker %u", i);
	strlcpy(problem, w.problem, sizeof problem);
	if (gucs.session_port && wanted)
		wanted |= region::kListenSession;
	if (w.pid.load() == 0 || w.state.load() == region::WorkerState::Down)
		report(to, item, Level::Error, "See the server log; is max_worker_processes large enough?",
		       "worker %u does not run", i);
	else if (problem[0])
		report(to, item, Level::Warning, "See the server log.", "worker %u: %s", i, problem);
	else if ((w.listening.load() & wanted) != wanted)
		report(to, item, Level::Error, "See the server log.", "worker %u does not listen on all its ports", i);
	else
		report(to, item, Level::Ok, nullptr, "worker %u runs and listens, process %d", i, w.pid.load());
}

void check_files(RowBuilder &to)
{
	int64 places = 0;

	for (uint32 i = 0; i < region_view.header()->workers; i++) {
		int32 limit = region_view.worker(i).file_limit.load();
		places += Max(limit - region::reserved_files(limit, resolved_max_server_connections()), 0);
	}
	int64 needed = gucs.max_client_connections;
	if (places == 0)
		report(to, "open files", Level::Warning, "Start the workers first.",
		       "no worker has told its limit of open files");
	else if (places < needed)
		report(to, "open files", Level::Error,
		       "Raise the limit of open files of the server (LimitNOFILE=, ulimit -n), or lower "
		       "pgpool.max_client_connections.",
		       "the workers can open " INT64_FORMAT
		       " files for clients, but pgpool.max_client_connections is " INT64_FORMAT,
		       places, needed);
	else
		report(to, "open files", Level::Ok, nullptr,
		       "the workers can open " INT64_FORMAT " files for " INT64_FORMAT " clients, and those of servers", places,
		       needed);
}

void check_manager(RowBuilder &to)
{
	char problem[region::kTextLen];
	int fd = channel_connect(control::kManagerSocket);

	strlcpy(problem, region_view.header()->manager_problem, sizeof problem);
	if (fd >= 0)
		close(fd);
	if (fd < 0)
		report(to, "manager", Level::Error, "See the server log; the manager needs pgpool.database to exist.", "%s",
		       problem[0] ? problem : "the manager does not run");
	else if (problem[0])
		report(to, "manager", Level::Warning, "Remove the cause and restart.", "%s", problem);
	else
		report(to, "manager", Level::Ok, nullptr, "the manager runs, process %d",
		       region_view.header()->manager_pid.load());
}

void check_limits(RowBuilder &to)
{
	int servers = resolved_max_server_connections();
	int room = server_setting_int("max_connections", 100) - server_setting_int("superuser_reserved_connections", 3) -
	           server_setting_int("reserved_connections", 0);

	if (max_worker_processes < gucs.workers + 1)
		report(to, "max_worker_processes", Level::Error, "Raise max_worker_processes and restart.",
		       "%d background workers are needed, but max_worker_processes is %d", gucs.workers + 1,
		       max_worker_processes);
	else
		report(to, "max_worker_processes", Level::Ok, nullptr, "%d of %d background workers are used by pgpool",
		       gucs.workers + 1, max_worker_processes);
	if (servers > room)
		report(to, "max_connections", Level::Error, "Lower pgpool.max_server_connections or raise max_connections.",
		       "pgpool may open %d server connections, but max_connections leaves %d", servers, room);
	else
		report(to, "max_connections", Level::Ok, nullptr, "pgpool may open %d of %d server connections", servers, room);
}

void check_rest(RowBuilder &to)
{
	bool tls = strcmp(server_setting("ssl"), "on") == 0;

	if (region_view.header()->port_taken.load())
		report(to, "port", Level::Error, "Set pgpool.port and pgpool.session_port to free ports and restart.",
		       "another cluster on this machine uses the pooler's port %d or session port %d", gucs.port,
		       gucs.session_port);
	else
		report(to, "port", Level::Ok, nullptr, "port %d belongs to this cluster", gucs.port);
	if (region_view.header()->extension_exists.load())
		report(to, "extension", Level::Ok, nullptr, "extension pgpool is created in database \"%s\"", gucs.database);
	else
		report(to, "extension", Level::Error, "Run CREATE EXTENSION pgpool in the database named by pgpool.database.",
		       "extension pgpool is not created in database \"%s\"", gucs.database);
	if (tls)
		report(to, "ssl", Level::Ok, nullptr, "clients may use TLS");
	else
		report(to, "ssl", Level::Warning, "Set ssl = on with ssl_cert_file and ssl_key_file, then reload.",
		       "TLS is off: traffic and passwords of the method \"password\" can be read on the network");
}

} // namespace

} // namespace pgpool::postgres

using namespace pgpool;
using namespace pgpool::postgres;

Datum pgpool_check(PG_FUNCTION_ARGS)
{
	RowBuilder to(fcinfo);

	if (!have_region()) {
		report(to, "preload", Level::Error, "Add pgpool to shared_preload_libraries and restart.",
		       "not preloaded: add pgpool to shared_preload_libraries and restart");
		return (Datum)0;
	}
	report(to, "preload", Level::Ok, nullptr, "the library is preloaded");
	check_manager(to);
	for (uint32 i = 0; i < region_view.header()->workers; i++)
		check_worker(to, i);
	check_rest(to);
	check_limits(to);
	check_files(to);
	check_login(to, false);
	check_login(to, true);
	return (Datum)0;
}

Datum pgpool_preloaded(FunctionCallInfo)
{
	PG_RETURN_BOOL(have_region());
}

// Trigger of the configuration tables, and called by functions that change something without a row.
Datum pgpool_config_changed(FunctionCallInfo)
{
	wake_manager_at_commit();
	return PointerGetDatum(nullptr); // a trigger must not return SQL's NULL
}
