// Clients, servers and shared statements as rows, and verbs on one client: asked of the workers over their sockets.
//
// Owns the conversation of a backend with every live worker, bounded to two seconds in all: a worker that does
// not answer costs a WARNING, not the view. Must not know how a worker keeps its lists.
#include <cstring>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "server/shared.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/inet.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pgpool_stat_clients);
PG_FUNCTION_INFO_V1(pgpool_stat_servers);
PG_FUNCTION_INFO_V1(pgpool_stat_prepared);
PG_FUNCTION_INFO_V1(pgpool_terminate_client);
PG_FUNCTION_INFO_V1(pgpool_cancel_client);
}

namespace pgpool::server
{

namespace
{

using control::ClientRow;
using control::PreparedRow;
using control::ServerRow;

constexpr int kAnswerMs = 2000;
constexpr int64 kEpochShift = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
constexpr int kMaxColumns = 24;

struct Values {
	Datum values[kMaxColumns];
	bool nulls[kMaxColumns];
	int count;

	void put(Datum d, bool null = false)
	{
		nulls[count] = null;
		values[count++] = d;
	}
	// "" is NULL; the sender's arrays are not trusted to have their NUL
	template <size_t N> void text(const char (&s)[N])
	{
		char copy[N];

		strlcpy(copy, s, Min(N, strnlen(s, N) + 1));
		put(copy[0] ? CStringGetTextDatum(copy) : (Datum)0, copy[0] == '\0');
	}
	void name(const char *s) { put(CStringGetTextDatum(s)); }
	void number(uint64 n) { put(Int64GetDatum(static_cast<int64>(n))); }
	void time(int64 us) { put(TimestampTzGetDatum(us - kEpochShift), us == 0); }
};

const char *const kClientStates[] = {"login",   "idle",     "waiting", "active", "idle in transaction",
                                     "closing", "listening"};
const char *const kServerStates[] = {"connecting", "login", "idle", "active", "cleaning", "closing", "listener"};

template <size_t N> const char *name_of(const char *const (&names)[N], uint32 value)
{
	return value < N ? names[value] : "unknown";
}

void put_address(Values &v, const ClientRow &r)
{
	char text[INET6_ADDRSTRLEN] = "";
	uint16_t port = 0;

	if (r.address_length >= sizeof(sockaddr_in)) {
		sockaddr_in a4;
		sockaddr_in6 a6;
		memcpy(&a4, r.address, sizeof a4);
		memcpy(&a6, r.address, sizeof a6);
		if (a4.sin_family == AF_INET) {
			(void)inet_ntop(AF_INET, &a4.sin_addr, text, sizeof text);
			port = ntohs(a4.sin_port);
		} else if (a4.sin_family == AF_INET6 && r.address_length >= sizeof a6) {
			(void)inet_ntop(AF_INET6, &a6.sin6_addr, text, sizeof text);
			port = ntohs(a6.sin6_port);
		}
	}
	if (text[0])
		v.put(DirectFunctionCall1(inet_in, CStringGetDatum(text)));
	else
		v.put((Datum)0, true);
	v.put(Int32GetDatum(port), text[0] == '\0');
}

void row_values(Values &v, const ClientRow &r, int worker)
{
	v.put(Int64GetDatum(static_cast<int64>(r.id)));
	v.put(Int32GetDatum(worker));
	v.text(r.tenant);
	v.text(r.database);
	v.text(r.role);
	v.text(r.application_name);
	put_address(v, r);
	v.name(name_of(kClientStates, static_cast<uint32>(r.state)));
	v.put(Int32GetDatum(r.server_pid), r.server_pid == 0);
	v.put(Int32GetDatum(r.key_pid), r.key_pid == 0);
	v.name(r.session_mode ? "session" : "transaction");
	v.text(r.pinned);
	v.put(BoolGetDatum(r.tls != 0));
	v.text(r.tls_version);
	v.text(r.tls_cipher);
	v.time(r.connected_at);
	v.time(r.state_since);
	v.put(Int64GetDatum(r.transactions));
	v.put(Int64GetDatum(r.queries));
	v.put(LSNGetDatum(r.commit_lsn), r.commit_lsn == 0);
}

void row_values(Values &v, const ServerRow &r, int worker)
{
	v.put(Int32GetDatum(r.pid), r.pid == 0);
	v.put(Int32GetDatum(worker));
	v.text(r.tenant);
	v.text(r.database);
	v.text(r.role);
	v.text(r.application_name);
	v.name(name_of(kServerStates, static_cast<uint32>(r.state)));
	v.put(Int64GetDatum(static_cast<int64>(r.client_id)), r.client_id == 0);
	v.name(r.by_tcp ? "tcp" : "unix");
	v.put(BoolGetDatum(r.agent != 0));
	v.time(r.connected_at);
	v.time(r.state_since);
	v.put(Int64GetDatum(r.transactions));
	v.put(Int64GetDatum(r.queries));
}

// A text may be in another encoding than this database's: what is no character here shows as ?.
void put_statement_text(Values &v, const PreparedRow &r)
{
	char text[sizeof r.text + 1];
	int n = static_cast<int>(strnlen(r.text, sizeof r.text));

	memcpy(text, r.text, n);
	if (n == sizeof r.text) // maybe cut within a character
		n = pg_mbcliplen(text, n, n);
	text[n] = '\0';
	for (char *p = text; *p;) {
		int length = pg_encoding_verifymbchar(GetDatabaseEncoding(), p, static_cast<int>(text + n - p));
		if (length < 1)
			*p = '?';
		p += Max(length, 1);
	}
	v.name(text);
}

void put_arrays(Values &v, const PreparedRow &r)
{
	Datum items[Max(control::kTypesShown, control::kTenantsShown)];
	int types = static_cast<int>(Min(r.type_count, control::kTypesShown));
	int tenants = static_cast<int>(Min(r.tenant_count, control::kTenantsShown));

	for (int i = 0; i < types; i++)
		items[i] = ObjectIdGetDatum(r.types[i]);
	v.put(PointerGetDatum(construct_array(items, types, OIDOID, sizeof(Oid), true, TYPALIGN_INT)));
	for (int i = 0; i < tenants; i++)
		items[i] = PointerGetDatum(
		    cstring_to_text_with_len(r.tenants[i], static_cast<int>(strnlen(r.tenants[i], sizeof r.tenants[i]))));
	v.put(PointerGetDatum(construct_array(items, tenants, TEXTOID, -1, false, TYPALIGN_INT)));
}

void row_values(Values &v, const PreparedRow &r, int worker)
{
	v.put(Int32GetDatum(worker));
	v.text(r.name);
	// it may hold secrets of a tenant, so it is shown to whom pg_stat_activity shows queries
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		put_statement_text(v, r);
	else
		v.put((Datum)0, true);
	put_arrays(v, r);
	v.number(r.clients);
	v.number(r.servers);
	v.number(r.uses);
	v.number(r.hits);
	v.number(r.parses);
	v.number(r.evictions);
	v.number(r.bytes);
}

template <class T> void store_rows(const char *packet, int size, int worker, ReturnSetInfo *to)
{
	control::Rows rows;

	memcpy(&rows, packet, sizeof rows);
	uint32 fit = (size - sizeof rows) / sizeof(T);
	for (uint32 i = 0; i < Min(rows.count, fit); i++) {
		T row;
		Values v{};

		memcpy(&row, packet + sizeof rows + i * sizeof(T), sizeof row);
		row_values(v, row, worker);
		if (v.count != to->setDesc->natts)
			elog(ERROR, "function returns %d columns, but its declaration has %d", v.count, to->setDesc->natts);
		tuplestore_putvalues(to->setResult, to->setDesc, v.values, v.nulls);
	}
}

// False: the worker did not answer to the end.
template <class T>
bool read_list(int fd, control::Type expected, char *packet, int worker, TimestampTz deadline, ReturnSetInfo *to)
{
	for (;;) {
		int n = channel_receive(fd, packet, control::kMaxPacket, deadline);
		control::Head head;

		if (n <= 0)
			return false;
		memcpy(&head, packet, sizeof head);
		if (head.type == control::Type::End)
			return true;
		if (head.type != expected || n < static_cast<int>(sizeof(control::Rows)))
			return false;
		store_rows<T>(packet, n, worker, to);
	}
}

template <class T> void list_all(FunctionCallInfo fcinfo, control::Type question, control::Type answer)
{
	require_region();
	ReturnSetInfo *to = pgpool_begin_rows(fcinfo);
	char *packet = static_cast<char *>(palloc(control::kMaxPacket));
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kAnswerMs);

	for (uint32 i = 0; i < region_view.header()->workers; i++) {
		auto m = control::make<control::Poke>(question); // a head alone
		volatile bool answered = false;

		if (region_view.worker(i).pid.load() == 0)
			continue;
		volatile int fd = channel_connect_worker(i); // PG_CATCH reads it
		if (fd >= 0 && channel_send(fd, &m, sizeof m)) {
			PG_TRY();
			{
				answered = read_list<T>(fd, answer, packet, static_cast<int>(i), deadline, to);
			}
			PG_CATCH();
			{
				close(fd);
				PG_RE_THROW();
			}
			PG_END_TRY();
		}
		if (fd >= 0)
			close(fd);
		if (!answered)
			ereport(WARNING, (errmsg("pgpool worker %u did not answer", i), errdetail("Its rows are missing.")));
	}
}

bool tell_client(int64 id, control::Type verb)
{
	require_region();
	uint64_t worker = static_cast<uint64_t>(id) >> 48;
	auto m = control::make<control::ClientVerb>(verb);
	control::Ack ack;
	volatile int n = 0;

	if (id < 0 || worker >= region_view.header()->workers)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("there is no client " INT64_FORMAT, id),
		                errhint("See pgpool.pg_stat_clients for the clients and their id.")));
	m.client_id = static_cast<uint64_t>(id);
	int fd = channel_connect_worker(static_cast<uint32_t>(worker));
	if (fd >= 0 && channel_send(fd, &m, sizeof m)) {
		PG_TRY();
		{
			n = channel_receive(fd, &ack, sizeof ack, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kAnswerMs));
		}
		PG_CATCH();
		{
			close(fd);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	if (fd >= 0)
		close(fd);
	if (n != sizeof ack || ack.head.type != control::Type::Ack)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("pgpool worker %d did not answer", static_cast<int>(worker)), errhint("See pgpool.check().")));
	if (ack.done == 0)
		ereport(WARNING, (errmsg("there is no client " INT64_FORMAT, id)));
	return ack.done > 0;
}

} // namespace

} // namespace pgpool::server

using namespace pgpool;
using namespace pgpool::server;

Datum pgpool_stat_clients(PG_FUNCTION_ARGS)
{
	list_all<ClientRow>(fcinfo, control::Type::ListClients, control::Type::ClientRows);
	return (Datum)0;
}

Datum pgpool_stat_servers(PG_FUNCTION_ARGS)
{
	list_all<ServerRow>(fcinfo, control::Type::ListServers, control::Type::ServerRows);
	return (Datum)0;
}

Datum pgpool_stat_prepared(PG_FUNCTION_ARGS)
{
	list_all<PreparedRow>(fcinfo, control::Type::ListPrepared, control::Type::PreparedRows);
	return (Datum)0;
}

Datum pgpool_terminate_client(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(tell_client(PG_GETARG_INT64(0), control::Type::TerminateClient));
}

Datum pgpool_cancel_client(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(tell_client(PG_GETARG_INT64(0), control::Type::CancelClient));
}
