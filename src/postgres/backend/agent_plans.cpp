// The agent: how the statements that stand for unnamed ones are planned.
//
// PostgreSQL plans an unnamed statement for its values each time it is bound. One that is kept under a name gets
// CURSOR_OPT_CUSTOM_PLAN, which makes the plan cache do the same. Where the plan can't depend on the values, though
// (the row of a unique key; an INSERT of one row), planning again only costs: such a statement is left to the plan
// cache's own choice, which is the generic plan from the sixth time on. That is found out when it is first planned,
// and again with each generic plan: a change of its table has ended the one before, and the plan cache asks after that
// whether it shall be used. So nothing has to be heard of changes here, and no callback of the relation cache is taken,
// of which a backend has ten. Must not know clients, nor texts.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "commands/prepare.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
}

namespace pgpool::postgres::agent
{

namespace
{

planner_hook_type previous_planner;

uint64_t plans_read;
uint64_t plans_waiting[region::kCustomPlans]; // announced, but their Parse has not come
int plans_waiting_count;

// Statements whose plan may not depend on their values; one that finds no room is planned each time.
constexpr int kMostLookups = 256;
struct Lookup {
	uint64_t number;
	bool one_plan;    // unless its table changes; false: not known yet
	const char *text; // of the plan source: by that the planner's caller is known
};
Lookup lookups[kMostLookups];
int lookup_count, undecided_count;

CachedPlanSource *source_of(uint64_t number)
{
	char name[40];

	snprintf(name, sizeof name, "_pgpool_" UINT64_FORMAT, number);
	PreparedStatement *statement = FetchPreparedStatement(name, false);
	return statement ? statement->plansource : nullptr;
}

// ---- one plan for all values

bool has_parameter(Node *node, void *context)
{
	if (!node)
		return false;
	return IsA(node, Param) || compat::walk_expression(node, has_parameter, context);
}

// Nothing but its table, if there is one, has a number of rows that is estimated.
bool is_plain(const Query *query)
{
	return !query->hasSubLinks && !query->hasTargetSRFs && query->cteList == NIL && !query->setOperations &&
	       !has_parameter(query->limitCount, nullptr) && !has_parameter(query->limitOffset, nullptr);
}

// The only one that is read; NULL: there are more, or it is something else than a plain table.
const RangeTblEntry *only_table(const Query *query)
{
	const List *from = query->jointree->fromlist;

	if (list_length(from) != 1 || !IsA(linitial(from), RangeTblRef) || list_length(query->rtable) != 1)
		return nullptr;
	const RangeTblEntry *table = linitial_node(RangeTblEntry, query->rtable);
	// Children are plans of their own, a sample has a size that may be a parameter, and the quals of a policy are not
	// those that were looked at.
	if (table->rtekind != RTE_RELATION || table->relkind != RELKIND_RELATION || table->tablesample ||
	    table->securityQuals != NIL || (table->inh && has_subclass(table->relid)))
		return nullptr;
	return table;
}

Node *without_relabel(void *node)
{
	while (IsA(node, RelabelType))
		node = castNode(RelabelType, node)->arg;
	return static_cast<Node *>(node);
}

// The column in `column = $n` or `$n = column`, 0 if it is something else. Where the column is unique, eqsel() does not
// look at the value to know how many rows have it.
AttrNumber column_of(Node *term)
{
	if (!IsA(term, OpExpr) || get_oprrest(castNode(OpExpr, term)->opno) != F_EQSEL)
		return 0;
	Node *column = without_relabel(linitial(castNode(OpExpr, term)->args));
	Node *value = without_relabel(lsecond(castNode(OpExpr, term)->args));
	if (IsA(column, Param))
		std::swap(column, value);
	return IsA(column, Var) && IsA(value, Param) ? castNode(Var, column)->varattno : 0;
}

// Its indexes: one is of that column alone and unique, and none is partial, for a value may prove what it leaves out.
bool unique_column(Oid relation, AttrNumber column)
{
	Relation table = RelationIdGetRelation(relation); // locked by who is planning
	bool unique = false, partial = false;

	if (!RelationIsValid(table))
		return false;
	List *indexes = RelationGetIndexList(table);
	ListCell *cell;
	foreach (cell, indexes) {
		HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		if (!HeapTupleIsValid(tuple))
			continue;
		const auto *index = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
		partial |= !heap_attisnull(tuple, Anum_pg_index_indpred, nullptr);
		unique |= index->indisunique && index->indisvalid && index->indimmediate && index->indnkeyatts == 1 &&
		          index->indkey.values[0] == column;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	RelationClose(table);
	return unique && !partial;
}

// The column that one value is looked up in, and no other term has a value; 0: it is not so.
AttrNumber looked_up(Node *where)
{
	List *terms = where && is_andclause(where) ? castNode(BoolExpr, where)->args : list_make1(where);
	AttrNumber column = 0;
	ListCell *cell;

	foreach (cell, terms) {
		auto *term = static_cast<Node *>(lfirst(cell));
		if (!has_parameter(term, nullptr))
			continue;
		if (column != 0)
			return 0;
		column = column_of(term);
		if (column <= 0)
			return 0;
	}
	return column;
}

bool same_for_all_values(const Query *query)
{
	if (!is_plain(query))
		return false;
	if (query->jointree->fromlist == NIL)
		return !query->jointree->quals;
	const RangeTblEntry *table = only_table(query);
	if (!table)
		return false;
	const AttrNumber column = looked_up(query->jointree->quals);
	return column != 0 && unique_column(table->relid, column);
}

// ---- which statements

// NULL: the statement is gone, and the text's address may by now be another's.
CachedPlanSource *source_of(const Lookup &lookup)
{
	CachedPlanSource *source = source_of(lookup.number);

	return source && source->query_string == lookup.text ? source : nullptr;
}

void count_undecided()
{
	undecided_count =
	    static_cast<int>(std::count_if(lookups, lookups + lookup_count, [](const Lookup &l) { return !l.one_plan; }));
}

// One that has a plan for each value needs no look any more; nor has one that reads no table, which nothing changes.
void decide(const char *text, bool same, bool has_table)
{
	int kept = 0;
	for (int i = 0; i < lookup_count; i++) {
		Lookup lookup = lookups[i];
		if (lookup.text == text) {
			CachedPlanSource *source = source_of(lookup);
			if (!source)
				continue;
			if (!same || list_length(source->query_list) != 1) {
				source->cursor_options |= CURSOR_OPT_CUSTOM_PLAN;
				continue;
			}
			source->cursor_options &= ~CURSOR_OPT_CUSTOM_PLAN;
			if (!has_table)
				continue;
			lookup.one_plan = true;
		}
		lookups[kept++] = lookup;
	}
	lookup_count = kept;
	count_undecided();
}

// Planned for its values as long as nothing is known; else the one plan for all, which is made without them.
bool asks_for_decision(const char *text, int options, ParamListInfo parameters)
{
	const bool known = (options & CURSOR_OPT_CUSTOM_PLAN) == 0;

	if (known ? parameters != nullptr : undecided_count == 0)
		return false;
	return std::any_of(lookups, lookups + lookup_count,
	                   [=](const Lookup &lookup) { return lookup.text == text && lookup.one_plan == known; });
}

PlannedStmt *plan(Query *query, const char *text, int options, ParamListInfo parameters)
{
	if (asks_for_decision(text, options, parameters))
		decide(text, same_for_all_values(query), query->rtable != NIL);
	return previous_planner ? previous_planner(query, text, options, parameters)
	                        : standard_planner(query, text, options, parameters);
}

void forget_gone_lookups()
{
	lookup_count = static_cast<int>(
	    std::remove_if(lookups, lookups + lookup_count, [](const Lookup &l) { return !source_of(l); }) - lookups);
	count_undecided();
}

bool make_custom(uint64_t number)
{
	CachedPlanSource *source = source_of(number);

	if (!source)
		return false;
	source->cursor_options |= CURSOR_OPT_CUSTOM_PLAN;
	if (lookup_count == kMostLookups)
		forget_gone_lookups();
	if (lookup_count < kMostLookups) {
		lookups[lookup_count++] = {number, false, source->query_string};
		undecided_count++;
	}
	return true;
}

} // namespace

void look_for_plans(bool ready)
{
	static int patience;
	uint64_t written = slot->custom_written.load(std::memory_order_acquire);

	if (written == plans_read && plans_waiting_count == 0)
		return;
	if (written != plans_read)
		patience = 100;
	else if (ready && --patience <= 0)
		plans_waiting_count = 0; // their Parse failed: an error, or it was never sent
	if (written - plans_read > region::kCustomPlans)
		plans_read = written - region::kCustomPlans;
	int kept = 0;
	for (int i = 0; i < plans_waiting_count; i++)
		if (!make_custom(plans_waiting[i]))
			plans_waiting[kept++] = plans_waiting[i];
	for (; plans_read != written; plans_read++) {
		uint64_t number = slot->custom[plans_read % region::kCustomPlans].load(std::memory_order_relaxed);
		if (!make_custom(number) && kept < static_cast<int>(region::kCustomPlans))
			plans_waiting[kept++] = number;
	}
	plans_waiting_count = kept;
}

void install_plans()
{
	plans_read = slot->custom_written.load();
	previous_planner = planner_hook;
	planner_hook = plan;
}

} // namespace pgpool::postgres::agent
