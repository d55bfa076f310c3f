// The agent: placeholders (myapp.user) that a session makes, where PostgreSQL does not count its settings.
//
// Until 15 the number of settings tells of new ones. From 16 on only a scan of all would, which costs some 100 us, so a
// placeholder is made and flagged before the statement that sets it runs: SET tells its name, and so does set_config()
// when the name is a constant. A name that is computed leads to the scan at the end of the statement. Not seen:
// set_config() in a view or in a function's body in standard SQL, which are not parsed again; what they make is found
// by the next scan. Must not know what is reported.
#include <cstring>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "catalog/objectaccess.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
}

namespace pgpool::postgres::agent
{

namespace
{

ProcessUtility_hook_type previous_utility;
post_parse_analyze_hook_type previous_analyze;
object_access_hook_type previous_access;
bool names_are_computed; // some statement of this session computes the name

void expect(const char *name)
{
	if (strchr(name, GUC_QUALIFIER_SEPARATOR))
		flag_setting(compat::make_setting(name));
}

bool walk(Node *node, void *context)
{
	if (!node)
		return false;
	if (IsA(node, Query))
		return compat::walk_query(reinterpret_cast<Query *>(node), walk, context);
	if (IsA(node, FuncExpr) && reinterpret_cast<FuncExpr *>(node)->funcid == F_SET_CONFIG) {
		auto *name = static_cast<Node *>(linitial(reinterpret_cast<FuncExpr *>(node)->args));
		auto *constant = reinterpret_cast<Const *>(name);
		if (!IsA(name, Const))
			names_are_computed = true;
		else if (!constant->constisnull)
			expect(TextDatumGetCString(constant->constvalue));
	}
	return compat::walk_expression(node, walk, context);
}

void on_analyze(ParseState *state, Query *query, JumbleState *jumble)
{
	if (previous_analyze)
		previous_analyze(state, query, jumble);
	// most texts have no such word, and then there is nothing to walk
	if (!state->p_sourcetext || strcasestr(state->p_sourcetext, "set_config"))
		(void)compat::walk_query(query, walk, nullptr);
}

void on_utility(PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,
                ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                QueryCompletion *completion)
{
	ProcessUtility_hook_type next = previous_utility ? previous_utility : standard_ProcessUtility;

	if (IsA(statement->utilityStmt, VariableSetStmt)) {
		auto *s = reinterpret_cast<VariableSetStmt *>(statement->utilityStmt);
		if (s->kind == VAR_SET_VALUE || s->kind == VAR_SET_CURRENT)
			expect(s->name);
	} else if (IsA(statement->utilityStmt, LoadStmt))
		scan_settings(); // what the library defines
	next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
}

void on_access(ObjectAccessType access, Oid class_oid, Oid object, int column, void *argument)
{
	if (previous_access)
		previous_access(access, class_oid, object, column, argument);
	if (access == OAT_FUNCTION_EXECUTE && object == F_SET_CONFIG && names_are_computed)
		scan_settings();
}

} // namespace

void install_placeholders()
{
	if (compat::kCountsSettings)
		return;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	previous_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = on_analyze;
	previous_access = object_access_hook;
	object_access_hook = on_access;
}

} // namespace pgpool::postgres::agent
