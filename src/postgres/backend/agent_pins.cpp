// The agent: what a session keeps beyond its transaction, so that nobody else may have it.
//
// Owns the reasons. They are computed when the session is idle, from PostgreSQL's own state and not from the
// statements, so ROLLBACK, DISCARD and functions need no thought; the hooks only say what to look at again. Advisory
// locks need no hook: the list of one's own locks is read each time, about 30 ns. What cannot be undone (LOAD,
// setseed) stays. Must not know what the worker makes of it.
#include <cstring>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_namespace.h"
#include "commands/prepare.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace pgpool::postgres::agent
{

namespace
{

constexpr uint32_t kAdvisoryLock = 1, kListen = 2, kTemporary = 4, kHoldCursor = 8, kPrepare = 16, kLoad = 32,
                   kSetseed = 64, kSequences = 128, kUnknown = 256, kUser = 512, kBackup = 1024, kSlot = 2048,
                   kOrigin = 4096, kDblink = 8192, kUntold = 16384;
constexpr struct Reason {
	uint32_t bit;
	const char *text;
} kReasons[] = {{kAdvisoryLock, "advisory lock"},
                {kListen, "LISTEN"},
                {kTemporary, "temporary object"},
                {kHoldCursor, "WITH HOLD cursor"},
                {kPrepare, "PREPARE"},
                {kLoad, "LOAD"},
                {kSetseed, "setseed"},
                {kSequences, "sequences"},
                {kUnknown, "unknown"},
                {kUser, "other user"},
                {kBackup, "backup"},
                {kSlot, "replication slot"},
                {kOrigin, "replication origin"},
                {kDblink, "dblink"},
                {kUntold, "untold setting"}};

uint32_t present;  // reasons that hold
uint32_t doubtful; // reasons to look at again
uint32_t reported;

MemoryContext names_context;
List *cursors, *statements; // names that were declared WITH HOLD and prepared by SQL, some gone since

ProcessUtility_hook_type previous_utility;
object_access_hook_type previous_access;
GucRealAssignHook previous_seed;

void set(uint32_t reason, bool holds)
{
	present = holds ? present | reason : present & ~reason;
}

// ---- looking

bool listens()
{
	LOCAL_FCINFO(call, 0);
	FmgrInfo function;
	ReturnSetInfo rows;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgpool listen", ALLOCSET_SMALL_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	ExprContext *expression = CreateStandaloneExprContext();

	memset(&rows, 0, sizeof rows);
	rows.type = T_ReturnSetInfo;
	rows.econtext = expression;
	rows.allowedModes = SFRM_ValuePerCall;
	rows.returnMode = SFRM_ValuePerCall;
	fmgr_info_cxt(F_PG_LISTENING_CHANNELS, &function, context);
	InitFunctionCallInfoData(*call, &function, 0, InvalidOid, nullptr, reinterpret_cast<Node *>(&rows));
	(void)FunctionCallInvoke(call);
	FreeExprContext(expression, true);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return rows.isDone == ExprMultipleResult;
}

// Does anything depend on the temporary schema: tables, views, types, functions in it?
bool has_temporary_objects()
{
	Oid schema, toast_schema;
	ScanKeyData key[2];
	MemoryContext before = CurrentMemoryContext;

	GetTempNamespaceState(&schema, &toast_schema);
	if (!OidIsValid(schema))
		return false;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	Relation depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(NamespaceRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(schema));
	SysScanDesc scan = systable_beginscan(depend, DependReferenceIndexId, true, nullptr, 2, key);
	bool found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(before);
	return found;
}

bool is_held(const char *name)
{
	Portal portal = GetPortalByName(name);
	return PortalIsValid(portal) && (portal->cursorOptions & CURSOR_OPT_HOLD) != 0;
}

// Those that a worker prepared came by the protocol.
bool is_prepared(const char *name)
{
	PreparedStatement *statement = FetchPreparedStatement(name, false);
	return statement && statement->from_sql;
}

// sequence.c keeps what nextval() and setval() gave in a table of its own, from the first use of a sequence (also by
// ALTER SEQUENCE) to DISCARD. The table is static there, but its memory has a name.
bool uses_sequences()
{
	for (MemoryContext c = TopMemoryContext->firstchild; c; c = c->nextchild)
		if (c->ident && strcmp(c->ident, "Sequence values") == 0)
			return true;
	return false;
}

// Forgets the names that are gone.
List *still_there(List *names, bool (*is_there)(const char *))
{
	ListCell *cell;

	foreach (cell, names) {
		auto *name = static_cast<char *>(lfirst(cell));
		if (is_there(name))
			continue;
		pfree(name);
		names = foreach_delete_current(names, cell);
	}
	return names;
}

// ---- hooks: what to look at again

List *remember(List *names, const char *name)
{
	ListCell *cell;

	foreach (cell, names)
		if (strcmp(static_cast<char *>(lfirst(cell)), name) == 0)
			return names;
	MemoryContext before = MemoryContextSwitchTo(names_context);
	names = lappend(names, pstrdup(name));
	MemoryContextSwitchTo(before);
	return names;
}

// Before the statement: afterwards its tree may be gone, and it may fail after it did something.
void note(const Node *s)
{
	switch (nodeTag(s)) {
	case T_ListenStmt:
	case T_UnlistenStmt:
		doubtful |= kListen;
		break;
	case T_DiscardStmt:
		doubtful |= kListen | kTemporary;
		break;
	case T_PrepareStmt:
		statements = remember(statements, reinterpret_cast<const PrepareStmt *>(s)->name);
		break;
	case T_DeclareCursorStmt: {
		auto *declare = reinterpret_cast<const DeclareCursorStmt *>(s);
		if (declare->options & CURSOR_OPT_HOLD)
			cursors = remember(cursors, declare->portalname);
		break;
	}
	default:
		break;
	}
}

void on_utility(PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,
                ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                QueryCompletion *completion)
{
	bool loads = IsA(statement->utilityStmt, LoadStmt);

	follow_identity();
	before_statement();
	note(statement->utilityStmt);
	if (previous_utility)
		previous_utility(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, parameters, environment, receiver,
		                        completion);
	if (loads)
		present |= kLoad;
}

// The end of a transaction drops objects, too: ON COMMIT DROP.
void on_access(ObjectAccessType access, Oid class_oid, Oid object, int column, void *argument)
{
	if (previous_access)
		previous_access(access, class_oid, object, column, argument);
	if (access == OAT_FUNCTION_EXECUTE) {
		before_statement(); // by a FunctionCall message
		if (object == F_SETSEED)
			present |= kSetseed;
	} else if ((access == OAT_POST_CREATE || access == OAT_DROP) && OidIsValid(MyProc->tempNamespaceId))
		doubtful |= kTemporary;
}

// SET seed, set_config('seed', ...): the only places that see all of them. `extra` is not 0 when it will act.
void on_seed(double value, void *extra)
{
	if (extra && *static_cast<int *>(extra))
		present |= kSetseed;
	if (previous_seed)
		previous_seed(value, extra);
}

void watch_seed()
{
	config_generic *setting = compat::find_setting("seed");

	if (!setting || setting->vartype != PGC_REAL)
		return;
	auto *seed = reinterpret_cast<config_real *>(setting);
	previous_seed = seed->assign_hook;
	seed->assign_hook = on_seed;
}

} // namespace

void install_pins()
{
	names_context = AllocSetContextCreate(TopMemoryContext, "pgpool agent", ALLOCSET_SMALL_SIZES);
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	previous_access = object_access_hook;
	object_access_hook = on_access;
	watch_seed();
}

void look_without_catalog()
{
	set(kAdvisoryLock, compat::holds_advisory_lock());
	if (cursors)
		cursors = still_there(cursors, is_held);
	set(kHoldCursor, cursors != NIL);
	if (statements)
		statements = still_there(statements, is_prepared);
	set(kPrepare, statements != NIL);
	set(kUser, user_differs());
	set(kBackup, runs_backup());
	set(kSlot, has_temporary_slot());
	set(kOrigin, has_replication_origin());
	set(kDblink, has_dblink());
	set(kUntold, settings_untold() || defaults_broken());
	set(kSequences, slot->pin_sequences.load(std::memory_order_relaxed) != 0 && uses_sequences());
}

bool pins_need_catalog()
{
	return doubtful != 0;
}

// A cancel that comes now is for a statement that has ended: as for PostgreSQL itself, it has no effect.
void read_catalog_for_pins()
{
	HOLD_CANCEL_INTERRUPTS();
	if (doubtful & kListen)
		set(kListen, listens());
	if (doubtful & kTemporary)
		set(kTemporary, has_temporary_objects());
	RESUME_CANCEL_INTERRUPTS();
	doubtful = 0;
	set(kUnknown, false);
}

void pins_unknown()
{
	set(kUnknown, true);
}

void report_pins()
{
	char text[300] = "";

	if (present == reported)
		return;
	for (const Reason &reason : kReasons) {
		if ((present & reason.bit) == 0)
			continue;
		if (text[0])
			strlcat(text, ", ", sizeof text);
		strlcat(text, reason.text, sizeof text);
	}
	reported = present;
	put_parameter_status("pgpool.pins", text);
}

} // namespace pgpool::postgres::agent
