// What a fresh login of a role to a database would be, as a number: if it changes, so would the login.
//
// Owns the list of what counts: attributes and memberships of the role and of all roles that it is a member of, the
// owner of the database and its collation version (of which a login may warn), and the settings of both. Read from the
// catalog, so it does not matter how that was changed: by a command, by an UPDATE of a system table, or on the primary
// of this standby. Not what decides whether there is a login at all (LOGIN, password, limits of connections, CONNECT):
// sessions that are there go on without it. Must not know pools or sessions.
#include "postgres/manager/manager.hpp"

extern "C" {
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_db_role_setting.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"
}

namespace pgpool::postgres
{

namespace
{

// Rows have no order: their hashes are added.
uint64 of_row(HeapTuple tuple, uint64 table)
{
	return hash_bytes_extended(reinterpret_cast<unsigned char *>(tuple->t_data) + tuple->t_data->t_hoff,
	                           static_cast<int>(tuple->t_len) - tuple->t_data->t_hoff, table);
}

uint64 of_role(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	uint64 sum = 0;

	if (HeapTupleIsValid(tuple)) {
		FormData_pg_authid row;
		memcpy(&row, GETSTRUCT(tuple), offsetof(FormData_pg_authid, rolconnlimit));
		row.rolcanlogin = false;
		sum = hash_bytes_extended(reinterpret_cast<unsigned char *>(&row), offsetof(FormData_pg_authid, rolconnlimit),
		                          AuthIdRelationId);
		ReleaseSysCache(tuple);
	}
	return sum;
}

uint64 of_memberships(Oid role, List *&roles)
{
	CatCList *rows = SearchSysCacheList1(AUTHMEMMEMROLE, ObjectIdGetDatum(role));
	uint64 sum = 0;

	for (int i = 0; i < rows->n_members; i++) {
		HeapTuple tuple = &rows->members[i]->tuple;
		sum += of_row(tuple, AuthMemRelationId);
		roles = list_append_unique_oid(roles, reinterpret_cast<Form_pg_auth_members>(GETSTRUCT(tuple))->roleid);
	}
	ReleaseSysCacheList(rows);
	return sum;
}

uint64 of_settings(Relation table, Oid database, Oid role)
{
	ScanKeyData keys[2];
	uint64 sum = 0;

	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(role));
	SysScanDesc scan = systable_beginscan(table, DbRoleSettingDatidRolidIndexId, true, nullptr, 2, keys);
	while (HeapTuple tuple = systable_getnext(scan))
		sum += of_row(tuple, DbRoleSettingRelationId);
	systable_endscan(scan);
	return sum;
}

uint64 of_collation(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	uint64 sum = 0;
	bool is_null = true;

	if (!HeapTupleIsValid(tuple))
		return 0;
	Datum version = SysCacheGetAttr(DATABASEOID, tuple, Anum_pg_database_datcollversion, &is_null);
	if (!is_null) {
		char *name = TextDatumGetCString(version);
		sum = hash_bytes_extended(reinterpret_cast<unsigned char *>(name), static_cast<int>(strlen(name)),
		                          DatabaseRelationId);
	}
	ReleaseSysCache(tuple);
	return sum;
}

} // namespace

uint64 login_digest(Oid role, const Database &database)
{
	List *roles = list_make1_oid(role);
	// who owns it is a member of pg_database_owner
	uint64 sum = hash_combine64(DatabaseRelationId, database.owner) + of_collation(database.oid);

	for (int i = 0; i < list_length(roles); i++) { // it grows
		Oid r = list_nth_oid(roles, i);
		sum += of_role(r) + of_memberships(r, roles);
	}
	list_free(roles);
	Relation table = table_open(DbRoleSettingRelationId, AccessShareLock);
	sum += of_settings(table, database.oid, role) + of_settings(table, InvalidOid, role) +
	       of_settings(table, database.oid, InvalidOid) + of_settings(table, InvalidOid, InvalidOid);
	table_close(table, AccessShareLock);
	return sum;
}

} // namespace pgpool::postgres
