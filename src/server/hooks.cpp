// Hooks in backends: statements that the pooler must hear of.
//
// Owns a ProcessUtility hook. Before a statement that needs a database without connections, workers close
// their idle servers in it; after one that changes what a new session starts with, idle servers become stale
// at COMMIT. The end of a prepared transaction may be the end of changes of the catalog. All other statements cost one
// comparison of a node tag. Must not know pools or sessions.
#include <cstring>

#include <unistd.h>

#include "server/shared.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/utility.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
}

namespace pgpool::server
{

namespace
{

constexpr int kDrainMs = 1000;

ProcessUtility_hook_type previous_utility;

int ask_to_drain(uint32 worker, Oid database)
{
	auto m = control::make<control::DrainDatabase>(control::Type::DrainDatabase, worker);
	int fd = -1;

	m.database_oid = database;
	if (region_view.worker(worker).pid.load() != 0)
		fd = channel_connect_worker(worker);
	if (fd >= 0 && !channel_send(fd, &m, sizeof m)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

bool may_create_databases()
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool may = false;

	if (HeapTupleIsValid(tuple)) {
		may = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

// At most a second in all: a worker that hangs delays the statement, it does not stop it. Nothing in here
// throws but an interrupt, which costs at most the descriptors, closed in the PG_FINALLY.
void drain(Oid database)
{
	int fds[region::kMaxWorkers];
	uint32 workers = region_view.header()->workers;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kDrainMs);
	control::Ack ack;

	// the statement itself will fail for others; CREATE DATABASE may copy a template of somebody else
	if (!OidIsValid(database) || !(compat::owns_database(database, GetUserId()) || may_create_databases()))
		return;
	for (uint32 i = 0; i < workers; i++)
		fds[i] = ask_to_drain(i, database);
	PG_TRY();
	{
		for (uint32 i = 0; i < workers; i++)
			if (fds[i] >= 0)
				(void)channel_receive(fds[i], &ack, sizeof ack, deadline);
	}
	PG_FINALLY();
	{
		for (uint32 i = 0; i < workers; i++)
			if (fds[i] >= 0)
				close(fds[i]);
	}
	PG_END_TRY();
}

Oid template_of(const CreatedbStmt *s)
{
	const char *name = "template1";
	ListCell *cell;

	foreach (cell, s->options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		if (strcmp(option->defname, "template") == 0 && option->arg)
			name = defGetString(option);
	}
	return get_database_oid(name, true);
}

bool sets_tablespace(const AlterDatabaseStmt *s)
{
	ListCell *cell;

	foreach (cell, s->options)
		if (strcmp(static_cast<DefElem *>(lfirst(cell))->defname, "tablespace") == 0)
			return true;
	return false;
}

void before(const Node *s)
{
	switch (nodeTag(s)) {
	case T_DropdbStmt:
		drain(get_database_oid(reinterpret_cast<const DropdbStmt *>(s)->dbname, true));
		break;
	case T_CreatedbStmt:
		drain(template_of(reinterpret_cast<const CreatedbStmt *>(s)));
		break;
	case T_RenameStmt: {
		auto *r = reinterpret_cast<const RenameStmt *>(s);
		if (r->renameType == OBJECT_DATABASE)
			drain(get_database_oid(r->subname, true));
		break;
	}
	case T_AlterDatabaseStmt: {
		auto *a = reinterpret_cast<const AlterDatabaseStmt *>(s);
		if (sets_tablespace(a))
			drain(get_database_oid(a->dbname, true));
		break;
	}
	default:
		break;
	}
}

// What a login would be, not whether there is one: that ends no session.
bool changes_logins(const AlterRoleStmt *s)
{
	static const char *const whether[] = {"password", "validUntil", "connectionlimit", "canlogin"};
	ListCell *cell;

	foreach (cell, s->options) {
		const char *name = static_cast<DefElem *>(lfirst(cell))->defname;
		bool only_whether = false;
		for (const char *w : whether)
			only_whether |= strcmp(name, w) == 0;
		if (!only_whether)
			return true;
	}
	return false;
}

void role_altered(const RoleSpec *role)
{
	Oid oid = get_rolespec_oid(role, true);

	if (OidIsValid(oid))
		raise_epochs_at_commit(InvalidOid, oid);
}

// The manager finds out itself whose login would be another one (digest.cpp) and hears here that it is time to look.
// Where the statement says who it is, the epoch is raised at once: whoever is connected has the change in its next
// transaction.
void after(const Node *s)
{
	switch (nodeTag(s)) {
	case T_AlterRoleSetStmt: {
		auto *a = reinterpret_cast<const AlterRoleSetStmt *>(s);
		raise_epochs_at_commit(a->database ? get_database_oid(a->database, true) : InvalidOid,
		                       a->role ? get_rolespec_oid(a->role, true) : InvalidOid);
		break;
	}
	case T_AlterDatabaseSetStmt:
		raise_epochs_at_commit(get_database_oid(reinterpret_cast<const AlterDatabaseSetStmt *>(s)->dbname, true),
		                       InvalidOid);
		break;
	case T_RenameStmt: {
		auto *r = reinterpret_cast<const RenameStmt *>(s);
		if (r->renameType == OBJECT_ROLE)
			raise_epochs_at_commit(InvalidOid, get_role_oid(r->newname, true));
		else if (r->renameType == OBJECT_DATABASE)
			wake_manager_at_commit();
		break;
	}
	case T_AlterRoleStmt: {
		auto *a = reinterpret_cast<const AlterRoleStmt *>(s);
		wake_manager_at_commit();
		if (changes_logins(a))
			role_altered(a->role);
		break;
	}
	case T_CreateRoleStmt: // IN ROLE, ROLE
	case T_GrantRoleStmt:
	case T_DropRoleStmt:
	case T_DropOwnedStmt:
	case T_ReassignOwnedStmt:
	case T_AlterOwnerStmt: // of a database
	case T_DropdbStmt:
	case T_AlterDatabaseStmt:
	case T_DropStmt: // DROP EXTENSION among others
	case T_CreateExtensionStmt:
		wake_manager_at_commit();
		break;
	case T_TransactionStmt: // catalog.cpp has not seen what it changed: another backend did that
		catalog_changed();
		wake_manager_now();
		break;
	default:
		break;
	}
}

bool ends_prepared(const TransactionStmt *s)
{
	return s->kind == TRANS_STMT_COMMIT_PREPARED || s->kind == TRANS_STMT_ROLLBACK_PREPARED;
}

bool of_interest(NodeTag tag)
{
	switch (tag) {
	case T_DropdbStmt:
	case T_CreatedbStmt:
	case T_RenameStmt:
	case T_AlterDatabaseStmt:
	case T_AlterRoleSetStmt:
	case T_AlterDatabaseSetStmt:
	case T_AlterRoleStmt:
	case T_CreateRoleStmt:
	case T_GrantRoleStmt:
	case T_DropRoleStmt:
	case T_DropOwnedStmt:
	case T_ReassignOwnedStmt:
	case T_CreateExtensionStmt:
		return true;
	default:
		return false;
	}
}

bool of_interest(const Node *s)
{
	if (IsA(s, DropStmt))
		return reinterpret_cast<const DropStmt *>(s)->removeType == OBJECT_EXTENSION;
	if (IsA(s, AlterOwnerStmt))
		return reinterpret_cast<const AlterOwnerStmt *>(s)->objectType == OBJECT_DATABASE;
	if (IsA(s, TransactionStmt))
		return ends_prepared(reinterpret_cast<const TransactionStmt *>(s));
	return of_interest(nodeTag(s));
}

void on_utility(PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,
                ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                QueryCompletion *completion)
{
	const Node *s = statement->utilityStmt;
	bool ours = of_interest(s);

	// the tree of the statement may be gone afterwards: a DROP DATABASE commits in between
	MemoryContext keep = CurrentMemoryContext;
	Node *copy = ours ? static_cast<Node *>(copyObjectImpl(s)) : nullptr;

	if (ours)
		before(s);
	if (previous_utility)
		previous_utility(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, parameters, environment, receiver,
		                        completion);
	if (ours) {
		MemoryContext now = MemoryContextSwitchTo(keep);
		after(copy);
		MemoryContextSwitchTo(now);
	}
}

} // namespace

void install_hooks()
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}

} // namespace pgpool::server
