// Rows of pgpool.tenant, pgpool.tenant_user, pgpool.tenant_secret and pgpool.node, read by the manager.
//
// Owns the SQL texts and their saved plans. There is no cache: one index lookup per login is cheap, and a
// committed change is visible to the next login without further machinery. Must not know the region or hba.
#include <cstring>

#include "postgres/manager/manager.hpp"

extern "C" {
#include "commands/extension.h"
#include "executor/spi.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
}

namespace pgpool::postgres
{

namespace
{

// Both tables have the same columns of limits. Each becomes a number: NULL where nothing is set, times in milliseconds.
void append_limits(StringInfo sql, const char *table)
{
	for (const region::Limit &l : region::kLimits) {
		switch (l.range.kind) {
		case region::Kind::Milliseconds:
		case region::Kind::Seconds:
			appendStringInfo(sql, ", (extract(epoch FROM %s.%s) * 1000)::int8", table, l.name);
			break;
		case region::Kind::Choice:
			appendStringInfo(sql, ", CASE %s.%s", table, l.name);
			for (int i = 0; i < l.range.choice_count; i++)
				appendStringInfo(sql, " WHEN '%s' THEN %d::int8", l.range.choices[i].name, l.range.choices[i].value);
			appendStringInfoString(sql, " END");
			break;
		default:
			appendStringInfo(sql, ", %s.%s::int::int8", table, l.name);
		}
	}
}

// What asks for a tenant, or for a user of one, by the key $1.
struct Query {
	const char *condition;
	SPIPlanPtr plan;
};

Query by_name = {"t.name = $1"};
Query by_database = {"t.database = $1 ORDER BY t.id"};
Query by_sni = {"lower($1) = ANY (t.sni)"};
Query by_id = {"t.id = $1::int8"};
Query of_user = {"u.tenant_id = $1::int8 AND u.role_name = $2"};
Query of_nodes = {"n.slot IS NOT NULL ORDER BY n.slot"};

// Those of the named nodes that there are, as bits.
void append_nodes(StringInfo sql, const char *table)
{
	appendStringInfo(
	    sql,
	    ", CASE WHEN %s.replicas IS NULL THEN -1 ELSE coalesce((SELECT sum(1 << n.slot) FROM pgpool.node n "
	    "WHERE n.name = ANY (%s.replicas)), 0) END::int8",
	    table, table);
}

void append_node_query(StringInfo sql)
{
	appendStringInfoString(sql,
	                       "SELECT n.slot::int4, n.name, n.host, n.sslrootcert, n.port, n.weight, "
	                       "coalesce(extract(epoch FROM n.max_lag) * 1000, 0)::int4, coalesce(n.max_lag_bytes, 0), "
	                       "CASE n.sslmode");
	for (const region::Choice &mode : region::kSslModes)
		appendStringInfo(sql, " WHEN '%s' THEN %d", mode.name, mode.value);
	appendStringInfoString(sql, " END FROM pgpool.node n");
}

void append_query(StringInfo sql, const Query &query)
{
	if (&query == &of_nodes) {
		append_node_query(sql);
	} else if (&query == &of_user) {
		appendStringInfoString(sql, "SELECT s.server_password");
		append_nodes(sql, "u");
		append_limits(sql, "u");
		appendStringInfoString(sql, " FROM pgpool.tenant_user u "
		                            "LEFT JOIN pgpool.tenant_secret s USING (tenant_id, role_name)");
	} else {
		appendStringInfoString(sql, "SELECT t.id, t.name, t.database, t.require_tls, t.only_listed_users, "
		                            "coalesce(t.banned_until > now(), false), t.banned_until::text, t.ban_reason, "
		                            "t.allow_list IS NULL OR $2 = '' OR $2::inet <<= ANY (t.allow_list)");
		append_nodes(sql, "t");
		append_limits(sql, "t");
		appendStringInfoString(sql, " FROM pgpool.tenant t");
	}
	appendStringInfo(sql, " WHERE %s", query.condition);
}

// What a client sends is bytes. No row has a text that its database could not have.
bool valid(const char *text)
{
	return pg_verify_mbstr(GetDatabaseEncoding(), text, static_cast<int>(strlen(text)), true);
}

// Of tenants two rows at most: that there are several is all that anybody asks for.
bool run(Query &query, const char *first, const char *second, long most = 2)
{
	if (!valid(first) || !valid(second))
		return false;

	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {CStringGetTextDatum(first), CStringGetTextDatum(second)};

	if (query.plan == nullptr) {
		StringInfoData sql;
		initStringInfo(&sql);
		append_query(&sql, query);
		SPIPlanPtr fresh = SPI_prepare(sql.data, 2, types);
		if (fresh == nullptr || SPI_keepplan(fresh) != 0)
			elog(ERROR, "could not prepare a query on the tables of pgpool");
		query.plan = fresh;
	}
	if (SPI_execute_plan(query.plan, values, nullptr, true, most) != SPI_OK_SELECT)
		elog(ERROR, "could not read the tables of pgpool");
	return SPI_processed > 0;
}

Datum column(int number, bool *null, uint64 row = 0)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, null);
}

void text_column(int number, char *to, size_t room, uint64 row = 0)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number);

	strlcpy(to, value ? value : "", room);
	if (value)
		explicit_bzero(value, strlen(value)); // it may be a password
}

bool bool_column(int number)
{
	bool null;
	Datum d = column(number, &null);

	return !null && DatumGetBool(d);
}

Limits limit_columns(int first)
{
	Limits l;
	bool null;

#define PGPOOL_LIMIT_COLUMN(type, name, ...)                                                                           \
	l.name = DatumGetInt64(column(first++, &null));                                                                    \
	if (null)                                                                                                          \
		l.name = -1;
	PGPOOL_LIMITS(PGPOOL_LIMIT_COLUMN)
#undef PGPOOL_LIMIT_COLUMN
	return l;
}

bool one_tenant(Query &query, const char *key, const char *address, Tenant &to)
{
	bool null;

	memset(&to, 0, sizeof to);
	if (!run(query, key, address))
		return false;
	to.id = DatumGetInt64(column(1, &null));
	text_column(2, to.name, sizeof to.name);
	text_column(3, to.database, sizeof to.database);
	to.require_tls = bool_column(4);
	to.only_listed_users = bool_column(5);
	to.banned = bool_column(6);
	text_column(7, to.banned_until, sizeof to.banned_until);
	text_column(8, to.ban_reason, sizeof to.ban_reason);
	to.address_allowed = bool_column(9);
	to.nodes = DatumGetInt64(column(10, &null));
	to.limits = limit_columns(11);
	to.one_of_several = SPI_processed > 1;
	SPI_freetuptable(SPI_tuptable);
	return true;
}

} // namespace

bool extension_present()
{
	return OidIsValid(get_extension_oid("pgpool", true));
}

bool tenant_by_name(const char *name, const char *address, Tenant &to)
{
	return one_tenant(by_name, name, address, to);
}

bool tenant_by_database(const char *database, const char *address, Tenant &to)
{
	return one_tenant(by_database, database, address, to);
}

bool tenant_by_sni(const char *sni, const char *address, Tenant &to)
{
	return one_tenant(by_sni, sni, address, to);
}

bool tenant_by_id(int64 id, Tenant &to)
{
	char key[32];

	snprintf(key, sizeof key, INT64_FORMAT, id);
	return one_tenant(by_id, key, "", to);
}

bool tenant_user(int64 tenant, const char *role, TenantUser &to)
{
	char key[32];

	memset(&to, 0, sizeof to);
	snprintf(key, sizeof key, INT64_FORMAT, tenant);
	if (!run(of_user, key, role))
		return false;
	bool null;
	text_column(1, to.server_password, sizeof to.server_password);
	to.nodes = DatumGetInt64(column(2, &null));
	to.limits = limit_columns(3);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

int node_rows(Node (&to)[region::kMaxNodes])
{
	bool null;
	int count = 0;

	if (!run(of_nodes, "", "", region::kMaxNodes))
		return 0;
	for (uint64 row = 0; row < SPI_processed; row++) {
		Node &n = to[count++];
		memset(&n, 0, sizeof n);
		n.slot = DatumGetInt32(column(1, &null, row));
		text_column(2, n.names.name, sizeof n.names.name, row);
		text_column(3, n.names.host, sizeof n.names.host, row);
		text_column(4, n.names.sslrootcert, sizeof n.names.sslrootcert, row);
		n.port = DatumGetInt32(column(5, &null, row));
		n.weight = DatumGetInt32(column(6, &null, row));
		n.max_lag_ms = DatumGetInt32(column(7, &null, row));
		n.max_lag_bytes = DatumGetInt64(column(8, &null, row));
		n.sslmode = static_cast<region::SslMode>(DatumGetInt32(column(9, &null, row)));
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

} // namespace pgpool::postgres
