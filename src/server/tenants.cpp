// Rows of pgpool.tenant, pgpool.tenant_user and pgpool.tenant_secret, read by the manager.
//
// Owns the SQL texts and their saved plans. There is no cache: one index lookup per login is cheap, and a
// committed change is visible to the next login without further machinery. Must not know the region or hba.
#include <cstring>

#include "server/manager.hpp"

extern "C" {
#include "commands/extension.h"
#include "executor/spi.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
}

namespace pgpool::server
{

namespace
{

// Both tables have the same columns of limits; 0 means off and NULL not set.
// clang-format off
#define LIMITS(t)                                                                                                      \
	MODE(t ".pool_mode") ", " t ".pool_size, " t ".max_clients, " MS(t ".query_wait_timeout") ", "                     \
	MS(t ".client_idle_timeout") ", " MS(t ".idle_in_transaction_timeout") ", " MS(t ".server_idle_timeout") ", "      \
	MS(t ".server_lifetime") ", " CACHE(t ".cache_unnamed") ", " t ".max_pinned, " MS(t ".pin_idle_timeout") ", "     \
	t ".pin_sequences::int, " LEAVING(t ".on_disconnect")
// clang-format on
#define MODE(x) "CASE " x " WHEN 'transaction' THEN 0 WHEN 'session' THEN 1 END"
#define CACHE(x) "CASE " x " WHEN 'off' THEN 0 WHEN 'custom' THEN 1 WHEN 'generic' THEN 2 END"
#define LEAVING(x) "CASE " x " WHEN 'cancel' THEN 0 WHEN 'finish' THEN 1 END"
#define MS(x) "(extract(epoch FROM " x ") * 1000)::int8"
constexpr int kLimitColumns = 13;

#define TENANT_ROW                                                                                                     \
	"SELECT t.id, t.name, t.database, t.require_tls, t.only_listed_users, coalesce(t.banned_until > now(), false), "   \
	"t.banned_until::text, t.ban_reason, t.allow_list IS NULL OR $2 = '' OR $2::inet <<= ANY (t.allow_list), " LIMITS( \
	    "t") " FROM pgpool.tenant t WHERE "

const char kByName[] = TENANT_ROW "t.name = $1";
const char kByDatabase[] = TENANT_ROW "t.database = $1 ORDER BY t.id";
const char kBySni[] = TENANT_ROW "lower($1) = ANY (t.sni)";
const char kById[] = TENANT_ROW "t.id = $1::int8";
const char kUser[] = "SELECT s.server_password, " LIMITS(
    "u") " FROM pgpool.tenant_user u LEFT JOIN pgpool.tenant_secret s USING (tenant_id, role_name) "
         "WHERE u.tenant_id = $1::int8 AND u.role_name = $2";

SPIPlanPtr plan_by_name, plan_by_database, plan_by_sni, plan_by_id, plan_user;

// What a client sends is bytes. No row has a text that its database could not have.
bool valid(const char *text)
{
	return pg_verify_mbstr(GetDatabaseEncoding(), text, static_cast<int>(strlen(text)), true);
}

// Two rows at most: that there are several is all that anybody asks for.
bool run(SPIPlanPtr &plan, const char *sql, const char *first, const char *second)
{
	if (!valid(first) || !valid(second))
		return false;

	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {CStringGetTextDatum(first), CStringGetTextDatum(second)};

	if (plan == nullptr) {
		SPIPlanPtr fresh = SPI_prepare(sql, 2, types);
		if (fresh == nullptr || SPI_keepplan(fresh) != 0)
			elog(ERROR, "could not prepare a query on the tables of pgpool");
		plan = fresh;
	}
	if (SPI_execute_plan(plan, values, nullptr, true, 2) != SPI_OK_SELECT)
		elog(ERROR, "could not read the tables of pgpool");
	return SPI_processed > 0;
}

Datum column(int number, bool *null)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, null);
}

void text_column(int number, char *to, size_t room)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number);

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

int64 number_column(int number, bool wide)
{
	bool null;
	Datum d = column(number, &null);

	return null ? -1 : wide ? DatumGetInt64(d) : DatumGetInt32(d);
}

Limits limit_columns(int first)
{
	Limits l;

	l.pool_mode = static_cast<int>(number_column(first, false));
	l.pool_size = static_cast<int>(number_column(first + 1, false));
	l.max_clients = static_cast<int>(number_column(first + 2, false));
	l.query_wait_timeout = number_column(first + 3, true);
	l.client_idle_timeout = number_column(first + 4, true);
	l.idle_in_transaction_timeout = number_column(first + 5, true);
	l.server_idle_timeout = number_column(first + 6, true);
	l.server_lifetime = number_column(first + 7, true);
	l.cache_unnamed = static_cast<int>(number_column(first + 8, false));
	l.max_pinned = static_cast<int>(number_column(first + 9, false));
	l.pin_idle_timeout = number_column(first + 10, true);
	l.pin_sequences = static_cast<int>(number_column(first + 11, false));
	l.on_disconnect = static_cast<int>(number_column(first + 12, false));
	static_assert(kLimitColumns == 13);
	return l;
}

bool one_tenant(SPIPlanPtr &plan, const char *sql, const char *key, const char *address, Tenant &to)
{
	bool null;

	memset(&to, 0, sizeof to);
	if (!run(plan, sql, key, address))
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
	to.limits = limit_columns(10);
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
	return one_tenant(plan_by_name, kByName, name, address, to);
}

bool tenant_by_database(const char *database, const char *address, Tenant &to)
{
	return one_tenant(plan_by_database, kByDatabase, database, address, to);
}

bool tenant_by_sni(const char *sni, const char *address, Tenant &to)
{
	return one_tenant(plan_by_sni, kBySni, sni, address, to);
}

bool tenant_by_id(int64 id, Tenant &to)
{
	char key[32];

	snprintf(key, sizeof key, INT64_FORMAT, id);
	return one_tenant(plan_by_id, kById, key, "", to);
}

bool tenant_user(int64 tenant, const char *role, TenantUser &to)
{
	char key[32];

	memset(&to, 0, sizeof to);
	snprintf(key, sizeof key, INT64_FORMAT, tenant);
	if (!run(plan_user, kUser, key, role))
		return false;
	text_column(1, to.server_password, sizeof to.server_password);
	to.limits = limit_columns(2);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

} // namespace pgpool::server
