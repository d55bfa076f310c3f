// Differences between PostgreSQL 15, 17 and 18, and the one way to include the server's headers.
//
// Owns every #if on PG_VERSION_NUM of the preloaded library: callers see one function per difference.
// Standard headers and ours come before it, server headers after it. Must not know anything of pgpool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
#include "postgres.h"

// libpq-be.h wants gssapi.h although it needs one pointer only; without the macro it declares void *gss
// of the same size.
#undef ENABLE_GSS

#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_tablespace.h"
#include "common/base64.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
}

#if PG_VERSION_NUM < 150000
#error "pgpool needs PostgreSQL 15 or later"
#endif

namespace pgpool::compat
{

inline bool may_connect(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

inline bool owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

inline bool may_create_in_tablespace(Oid tablespace, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(TableSpaceRelationId, tablespace, role, ACL_CREATE) == ACLCHECK_OK;
#else
	return pg_tablespace_aclcheck(tablespace, role, ACL_CREATE) == ACLCHECK_OK;
#endif
}

inline bool may_give_to(Oid role, Oid owner)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(role, owner);
#else
	return is_member_of_role(role, owner);
#endif
}

inline LocalTransactionId local_transaction(const PGPROC *process)
{
#if PG_VERSION_NUM >= 170000
	return process->vxid.lxid;
#else
	return process->lxid;
#endif
}

// Base64 with a final NUL; false if it does not fit.
inline bool base64(const uint8_t *from, int length, char *to, int room)
{
#if PG_VERSION_NUM >= 180000
	int n = pg_b64_encode(from, length, to, room - 1);
#else
	int n = pg_b64_encode(reinterpret_cast<const char *>(from), length, to, room - 1);
#endif
	if (n < 0)
		return false;
	to[n] = '\0';
	return true;
}

// Since 16 a role's name in pg_ident.conf may be a keyword, a group or a regular expression.
constexpr bool kIdentRolePatterns = PG_VERSION_NUM >= 160000;

// All settings. From 16 on the array is made anew, and sorted, for each caller.
inline config_generic **settings(int &count)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(&count);
#else
	count = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

// 16 and later do not tell how many there are, except to who wants all of them.
constexpr bool kCountsSettings = PG_VERSION_NUM < 160000;
inline int settings_count()
{
#if PG_VERSION_NUM >= 160000
	return 0;
#else
	return GetNumConfigOptions();
#endif
}

#if PG_VERSION_NUM < 160000
// Settings are sorted by their names in ASCII lower case, whatever the locale.
inline int compare_names(const char *a, const char *b)
{
	auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };

	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) - lower(*b);
}
#endif

// Makes a placeholder if there is no setting of that name; NULL if that is not allowed. Without kCountsSettings only.
inline config_generic *make_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, true, true, 0);
#else
	(void)name;
	return nullptr;
#endif
}

// Since 17: the mark that its handler leaves for the next CHECK_FOR_INTERRUPTS(), which would be FATAL.
constexpr bool kHasTransactionTimeout = PG_VERSION_NUM >= 170000;
inline void forget_transaction_timeout()
{
#if PG_VERSION_NUM >= 170000
	TransactionTimeoutPending = false;
#endif
}

using Walker = bool (*)(Node *, void *);

// Until 15 walkers are declared as C functions of unknown arguments.
#if PG_VERSION_NUM >= 160000
inline tree_walker_callback as_walker(Walker walker)
{
	return walker;
}
#else
inline bool (*as_walker(Walker walker))()
{
	return reinterpret_cast<bool (*)()>(reinterpret_cast<void *>(walker));
}
#endif

inline bool walk_query(Query *query, Walker walker, void *context)
{
	return query_tree_walker(query, as_walker(walker), context, 0);
}

inline bool walk_expression(Node *node, Walker walker, void *context)
{
	return expression_tree_walker(node, as_walker(walker), context);
}

// Of what the parser gives. An ERROR at nodes that stand in commands only.
inline bool walk_raw(Node *node, Walker walker, void *context)
{
	return raw_expression_tree_walker(node, as_walker(walker), context);
}

// NULL if there is none. Never an error.
inline config_generic *find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, 0);
#else
	config_generic **all = get_guc_variables();
	int from = 0, to = GetNumConfigOptions();

	while (from < to) {
		int middle = from + (to - from) / 2;
		int order = compare_names(name, all[middle]->name);
		if (order == 0)
			return all[middle];
		if (order < 0)
			to = middle;
		else
			from = middle + 1;
	}
	return nullptr;
#endif
}

// What PostgreSQL takes for the value that the client knows, NULL = none. Without memory it becomes NULL.
inline void set_last_reported(config_generic *setting, const char *value)
{
#if PG_VERSION_NUM >= 160000
	if (setting->last_reported)
		guc_free(setting->last_reported);
	setting->last_reported = value ? guc_strdup(LOG, value) : nullptr;
#else
	free(setting->last_reported);
	setting->last_reported = value ? strdup(value) : nullptr;
#endif
}

// As of the last pgstat_clear_backend_activity_snapshot(); NULL if there is none.
inline const PgBackendStatus *backend_status(int pid)
{
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++) {
#if PG_VERSION_NUM >= 160000
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
#else
		LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(i);
#endif
		if (local != nullptr && local->backendStatus.st_procpid == pid)
			return &local->backendStatus;
	}
	return nullptr;
}

inline bool is_advisory(const PROCLOCK *held)
{
	return held->tag.myLock->tag.locktag_type == LOCKTAG_ADVISORY && held->holdMask != 0;
}

// Outside a transaction: of the session. What this backend put into its own lists it sees without a lock; the lock is
// for walking, as others may move what is in a list that has something.
inline bool holds_advisory_lock()
{
	constexpr size_t kLink = offsetof(PROCLOCK, procLink);
	bool found = false;

	for (int i = 0; i < NUM_LOCK_PARTITIONS && !found; i++) {
		auto *mine = &MyProc->myProcLocks[i];
#if PG_VERSION_NUM >= 160000
		if (dlist_is_empty(mine))
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		for (dlist_node *at = mine->head.next; at != &mine->head; at = at->next)
			found |= is_advisory(reinterpret_cast<PROCLOCK *>(reinterpret_cast<char *>(at) - kLink));
#else
		if (SHMQueueEmpty(mine))
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		for (Pointer at = SHMQueueNext(mine, mine, kLink); at;) {
			auto *held = reinterpret_cast<PROCLOCK *>(at);
			found |= is_advisory(held);
			at = SHMQueueNext(mine, &held->procLink, kLink);
		}
#endif
		LWLockRelease(LockHashPartitionLockByIndex(i));
	}
	return found;
}

} // namespace pgpool::compat

#if PG_VERSION_NUM >= 180000
#define PGPOOL_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "pgpool", .version = PGPOOL_VERSION)
#else
#define PGPOOL_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#ifndef PGPOOL_VERSION
#define PGPOOL_VERSION "0.1.0"
#endif

// A set-returning C function that fills a tuplestore.
inline ReturnSetInfo *pgpool_begin_rows(FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	return reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
}
