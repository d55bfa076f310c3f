// Clients, servers and shared statements as rows, and verbs on one client: asked of the workers over their sockets.
//
// Owns the conversation of a backend with every live worker, bounded to two seconds in all: a worker that does
// not answer costs a WARNING, not the view. Must not know how a worker keeps its lists.
#include <cstring>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "postgres/functions/rows.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/inet.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgpool_stat_clients);
PG_FUNCTION_INFO_V1(pgpool_stat_servers);
PG_FUNCTION_INFO_V1(pgpool_stat_prepared);
PG_FUNCTION_INFO_V1(pgpool_terminate_client);
PG_FUNCTION_INFO_V1(pgpool_cancel_client);
}

namespace pgpool::postgres
{

namespace
{

using control::ClientRow;
using control::PreparedRow;
using control::ServerRow;

constexpr int kAnswerMs = 2000;

// Columns that are not a member of the row as it is; of two columns that come of one member the first makes both.
template <class Row> void made_worker(RowBuilder &to, const Row &, int worker)
{
	to.put(region::column::Integer{}, worker);
}

void made_client_addr(RowBuilder &to, const ClientRow &r, int)
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
		to.put(DirectFunctionCall1(inet_in, CStringGetDatum(text)));
	else
		to.null();
	to.put(Int32GetDatum(port), text[0] == '\0');
}

void made_client_port(RowBuilder &, const ClientRow &, int) {}

// A text may be in another encoding than this database's: what is no character here shows as ?.
void put_statement_text(RowBuilder &to, const PreparedRow &r)
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
	to.text(text);
}

void made_text(RowBuilder &to, const PreparedRow &r, int)
{
	// it may hold secrets of a tenant, so it is shown to whom pg_stat_activity shows queries
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		put_statement_text(to, r);
	else
		to.null();
}

void made_parameter_types(RowBuilder &to, const PreparedRow &r, int)
{
	Datum items[control::kTypesShown];
	int n = static_cast<int>(Min(r.type_count, control::kTypesShown));

	for (int i = 0; i < n; i++)
		items[i] = ObjectIdGetDatum(r.types[i]);
	to.put(PointerGetDatum(construct_array(items, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT)));
}

void made_tenants(RowBuilder &to, const PreparedRow &r, int)
{
	Datum items[control::kTenantsShown];
	int n = static_cast<int>(Min(r.tenant_count, control::kTenantsShown));

	for (int i = 0; i < n; i++)
		items[i] = PointerGetDatum(
		    cstring_to_text_with_len(r.tenants[i], static_cast<int>(strnlen(r.tenants[i], sizeof r.tenants[i]))));
	to.put(PointerGetDatum(construct_array(items, n, TEXTOID, -1, false, TYPALIGN_INT)));
}

#define PGPOOL_MAKE(type, name, ...) made_##name(to, row, worker);

void show(RowBuilder &to, const ClientRow &row, int worker)
{
	PGPOOL_CLIENT_COLUMNS(PGPOOL_PUT, PGPOOL_MAKE)
	to.end();
}

void show(RowBuilder &to, const ServerRow &row, int worker)
{
	PGPOOL_SERVER_COLUMNS(PGPOOL_PUT, PGPOOL_MAKE)
	to.end();
}

void show(RowBuilder &to, const PreparedRow &row, int worker)
{
	PGPOOL_PREPARED_COLUMNS(PGPOOL_PUT, PGPOOL_MAKE)
	to.end();
}

template <class T> void store_rows(const char *packet, int size, int worker, RowBuilder &to)
{
	control::Rows rows;

	memcpy(&rows, packet, sizeof rows);
	uint32 fit = (size - sizeof rows) / sizeof(T);
	for (uint32 i = 0; i < Min(rows.count, fit); i++) {
		T row;

		memcpy(&row, packet + sizeof rows + i * sizeof(T), sizeof row);
		show(to, row, worker);
	}
}

// False: the worker did not answer to the end.
template <class T>
bool read_list(int fd, control::Type expected, char *packet, int worker, TimestampTz deadline, RowBuilder &to)
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
	RowBuilder to(fcinfo);
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

} // namespace pgpool::postgres

using namespace pgpool;
using namespace pgpool::postgres;

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
