// Hooks in backends: statements that the pooler must hear of.
//
// Owns a ProcessUtility hook. A statement that needs a database without connections is run with workers out of it
// (drain.cpp); after one that changes what a new session starts with, idle servers become stale
// at COMMIT. The end of a prepared transaction may be the end of changes of the catalog. All other statements cost one
// comparison of a node tag. Must not know pools or sessions.
#include <cstring>

#include "postgres/base/shared.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/utility.h"
}

namespace pgpool::postgres
{

namespace
{

ProcessUtility_hook_type previous_utility;

bool sets_tablespace(const AlterDatabaseStmt *s)
{
	ListCell *cell;

	foreach (cell, s->options)
		if (strcmp(static_cast<DefElem *>(lfirst(cell))->defname, "tablespace") == 0)
			return true;
	return false;
}

bool needs_database_alone(const Node *s)
{
	switch (nodeTag(s)) {
	case T_DropdbStmt:
	case T_CreatedbStmt:
		return true;
	case T_RenameStmt:
		return reinterpret_cast<const RenameStmt *>(s)->renameType == OBJECT_DATABASE;
	case T_AlterDatabaseStmt:
		return sets_tablespace(reinterpret_cast<const AlterDatabaseStmt *>(s));
	default:
		return false;
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

struct Call { // of the hook
	PlannedStmt *statement;
	const char *text;
	bool read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo parameters;
	QueryEnvironment *environment;
	DestReceiver *receiver;
	QueryCompletion *completion;
};

void run(const Call &c)
{
	(previous_utility ? previous_utility : standard_ProcessUtility)(
	    c.statement, c.text, c.read_only_tree, c.context, c.parameters, c.environment, c.receiver, c.completion);
}

void run_alone(const Call &c)
{
	Drain drain;

	drain.count = 0;
	PG_TRY();
	{
		drain_begin(drain, c.statement->utilityStmt, c.context == PROCESS_UTILITY_TOPLEVEL);
		run(c);
	}
	PG_CATCH();
	{
		drain_end(drain);
		PG_RE_THROW();
	}
	PG_END_TRY();
	drain_end(drain);
}

void on_utility(PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,
                ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                QueryCompletion *completion)
{
	const Call c = {statement, text, read_only_tree, context, parameters, environment, receiver, completion};
	const Node *s = statement->utilityStmt;

	if (!of_interest(s)) {
		run(c);
		return;
	}
	// the tree of the statement may be gone afterwards: a DROP DATABASE commits in between
	MemoryContext keep = CurrentMemoryContext;
	Node *copy = static_cast<Node *>(copyObjectImpl(s));
	if (needs_database_alone(s))
		run_alone(c);
	else
		run(c);
	MemoryContext now = MemoryContextSwitchTo(keep);
	after(copy);
	MemoryContextSwitchTo(now);
}

} // namespace

void install_hooks()
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}

} // namespace pgpool::postgres
