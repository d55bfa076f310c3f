// The agent: what a session may leave behind that neither RESET nor DISCARD ALL takes away.
//
// Owns the looks at it: who the user really is, a backup, temporary replication slots, a replication origin,
// connections of dblink, libraries that came. Where PostgreSQL has the state, it is read each time (some loads); where
// it has not, a function that makes it is seen when it is called, and the state is believed to stay. Must not know what
// a pin is.
#include <cstring>

#include <link.h>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "replication/origin.h"
#include "replication/slot.h"
#include "utils/fmgroids.h"
#include "utils/guc_tables.h"
#include "utils/syscache.h"
}

namespace pgpool::postgres::agent
{

namespace
{

object_access_hook_type previous_access;
const config_generic *role, *session_user;
bool slots_looked_for, dblink_connected;

// What the assignment of `role` and of `session_authorization` goes by, whatever their text: commands/variable.c.
// Its first member is the role; there is none as long as `role` is "none".
Oid set_user(const config_generic *setting)
{
	return setting->extra ? *static_cast<const Oid *>(setting->extra) : InvalidOid;
}

// Of these the library keeps a connection that DISCARD ALL does not know, opened with somebody's password.
bool connects_by_dblink(Oid function)
{
	HeapTuple row = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool connects = false;

	if (!HeapTupleIsValid(row))
		return false;
	if (reinterpret_cast<Form_pg_proc>(GETSTRUCT(row))->prolang == ClanguageId) {
		bool no_source = true, no_library = true;
		Datum source = SysCacheGetAttr(PROCOID, row, Anum_pg_proc_prosrc, &no_source);
		Datum library = SysCacheGetAttr(PROCOID, row, Anum_pg_proc_probin, &no_library);
		connects = !no_source && !no_library && strstr(TextDatumGetCString(library), "dblink") &&
		           strncmp(TextDatumGetCString(source), "dblink_connect", 14) == 0;
	}
	ReleaseSysCache(row);
	return connects;
}

bool makes_slots(Oid function)
{
	switch (function) {
	case F_PG_CREATE_PHYSICAL_REPLICATION_SLOT:
	case F_PG_CREATE_LOGICAL_REPLICATION_SLOT:
	case F_PG_COPY_PHYSICAL_REPLICATION_SLOT_NAME_NAME_BOOL:
	case F_PG_COPY_LOGICAL_REPLICATION_SLOT_NAME_NAME_BOOL_NAME:
	case F_PG_COPY_LOGICAL_REPLICATION_SLOT_NAME_NAME_BOOL:
		return true;
	default:
		return false;
	}
}

void on_access(ObjectAccessType access, Oid class_oid, Oid object, int column, void *argument)
{
	if (previous_access)
		previous_access(access, class_oid, object, column, argument);
	if (access != OAT_FUNCTION_EXECUTE)
		return;
	if (makes_slots(object))
		slots_looked_for = true;
	else if (object >= FirstNormalObjectId && !dblink_connected && connects_by_dblink(object))
		dblink_connected = true;
}

int count_libraries(dl_phdr_info *info, size_t, void *count)
{
	*static_cast<unsigned long long *>(count) = info->dlpi_adds;
	return 1; // the number is the same in each
}

unsigned long long libraries()
{
	unsigned long long count = 0;

	(void)dl_iterate_phdr(count_libraries, &count);
	return count;
}

} // namespace

void install_leftovers()
{
	role = compat::find_setting("role");
	session_user = compat::find_setting("session_authorization");
	previous_access = object_access_hook;
	object_access_hook = on_access;
}

// SetCurrentRoleId() and the like, by an extension such as set_user: SHOW role, RESET ROLE and DISCARD ALL know nothing
// of it. Outside a transaction nothing of PostgreSQL's own has another user in force for a while.
bool user_differs()
{
	// In turn: SET ROLE behind the setting's back; a function's user left in force; without a role the session's user
	// is the outer one; SET SESSION AUTHORIZATION behind its setting's back.
	return GetCurrentRoleId() != set_user(role) || GetUserId() != GetOuterUserId() ||
	       (!OidIsValid(GetCurrentRoleId()) && GetOuterUserId() != GetSessionUserId()) ||
	       GetSessionUserId() != set_user(session_user);
}

bool runs_backup()
{
	return get_backup_status() != SESSION_BACKUP_NONE;
}

// Nobody but this process changes what is read here of its own slots.
bool has_temporary_slot()
{
	bool found = MyReplicationSlot != nullptr;

	if (!slots_looked_for)
		return found;
	for (int i = 0; i < max_replication_slots && !found; i++) {
		const ReplicationSlot &s = ReplicationSlotCtl->replication_slots[i];
		found = s.in_use && s.active_pid == MyProcPid;
	}
	slots_looked_for = found;
	return found;
}

bool has_replication_origin()
{
	return replorigin_session_origin != InvalidRepOriginId;
}

bool has_dblink()
{
	return dblink_connected;
}

// Some 20 ns.
bool library_came()
{
	static unsigned long long known = libraries();
	unsigned long long now = libraries();

	if (now == known)
		return false;
	known = now;
	return true;
}

} // namespace pgpool::postgres::agent
