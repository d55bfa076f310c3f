// Relations that a standby cannot read, or that call what is not harmless: views, policies, unlogged and foreign
// tables.
//
// Owns the walk over trees of the catalog, where everything is resolved, and what follows for relations that use
// others: views of views, parents of partitions. Must not know the grammar: a name in a statement is looked up in what
// is written here.
#include "postgres/base/grammar.hpp"

#include "postgres/manager/facts.hpp"

extern "C" {
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres
{

namespace
{

// A name as "n" is as harmless as what it is asked for.
bool asks_harmless_setting(const FuncExpr *call)
{
	Node *first = call->args ? static_cast<Node *>(linitial(call->args)) : nullptr;

	if (!first || !IsA(first, Const) || reinterpret_cast<Const *>(first)->constisnull)
		return false;
	return is_harmless_setting(TextDatumGetCString(reinterpret_cast<Const *>(first)->constvalue));
}

bool use_function(Oid function, void *context)
{
	auto *uses = static_cast<Uses *>(context);

	uses->verdict = worse(uses->verdict, verdict_of_function(function));
	return false;
}

bool walk_tree(Node *node, void *context)
{
	auto *uses = static_cast<Uses *>(context);

	if (!node)
		return false;
	check_stack_depth();
	(void)check_functions_in_node(node, use_function, context);
	switch (nodeTag(node)) {
	case T_FuncExpr: {
		auto *call = reinterpret_cast<FuncExpr *>(node);
		bool asks = call->funcid == F_CURRENT_SETTING_TEXT || call->funcid == F_CURRENT_SETTING_TEXT_BOOL;
		if (asks && !asks_harmless_setting(call))
			uses->verdict = worse(uses->verdict, Verdict::OfSession);
		break;
	}
	case T_NextValueExpr:
		uses->verdict = worse(uses->verdict, Verdict::Writes);
		break;
	case T_CoerceToDomain:
		uses->verdict = worse(uses->verdict, verdict_of_type(reinterpret_cast<CoerceToDomain *>(node)->resulttype));
		break;
	case T_TableSampleClause:
		(void)use_function(reinterpret_cast<TableSampleClause *>(node)->tsmhandler, context);
		break;
	case T_RangeTblEntry: {
		auto *entry = reinterpret_cast<RangeTblEntry *>(node);
		if (entry->rtekind == RTE_RELATION)
			uses->relations = list_append_unique_oid(uses->relations, entry->relid);
		return false;
	}
	case T_Query: {
		auto *query = reinterpret_cast<Query *>(node);
		if (query->commandType != CMD_SELECT || query->rowMarks)
			uses->verdict = worse(uses->verdict, Verdict::Writes);
		return query_tree_walker(query, compat::as_walker(walk_tree), context, QTW_EXAMINE_RTES_BEFORE);
	}
	default:
		break;
	}
	return compat::walk_expression(node, walk_tree, context);
}

struct RelationEntry {
	Oid oid;
	Verdict verdict;
};

struct Edge {
	Oid from, to; // who reads `from` reads `to`
};

HTAB *relations;
Edge *edges;
int edge_count, edge_room;

void add_edge(Oid from, Oid to)
{
	if (edge_count == edge_room) {
		edge_room = edge_room ? edge_room * 2 : 1024;
		edges = static_cast<Edge *>(edges ? repalloc_huge(edges, sizeof(Edge) * edge_room)
		                                  : MemoryContextAlloc(TopTransactionContext, sizeof(Edge) * edge_room));
	}
	edges[edge_count++] = {from, to};
}

Oid oid_at(HeapTuple row, int column)
{
	bool null;
	return DatumGetObjectId(SPI_getbinval(row, SPI_tuptable->tupdesc, column, &null));
}

void run(const char *sql)
{
	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "pgpool facts: %s", sql);
}

RelationEntry *entry_of(Oid oid)
{
	bool found;
	auto *e = static_cast<RelationEntry *>(hash_search(relations, &oid, HASH_ENTER, &found));

	if (!found)
		e->verdict = Verdict::Harmless;
	return e;
}

// Those that may be other than harmless by what they are, and the parents of partitions.
void collect_kinds()
{
	run("SELECT c.oid, CASE WHEN c.relpersistence = 'u' OR c.relkind IN ('f', 'S') THEN 'x' ELSE 'h' END "
	    "FROM pg_catalog.pg_class c WHERE c.relpersistence <> 't' AND (c.relkind IN ('v', 'f', 'S') OR "
	    "c.relrowsecurity "
	    "OR (c.relpersistence = 'u' AND c.relkind IN ('r', 'p', 'm')))");
	for (uint64 i = 0; i < SPI_processed; i++) {
		HeapTuple row = SPI_tuptable->vals[i];
		entry_of(oid_at(row, 1))->verdict = static_cast<Verdict>(SPI_getvalue(row, SPI_tuptable->tupdesc, 2)[0]);
	}
	run("SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits");
	for (uint64 i = 0; i < SPI_processed; i++)
		add_edge(oid_at(SPI_tuptable->vals[i], 1), oid_at(SPI_tuptable->vals[i], 2));
}

void collect_trees(const char *sql)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "pgpool facts tree", ALLOCSET_DEFAULT_SIZES);

	run(sql);
	for (uint64 i = 0; i < SPI_processed; i++) {
		HeapTuple row = SPI_tuptable->vals[i];
		MemoryContext old = MemoryContextSwitchTo(work);
		const Oid of = oid_at(row, 1);
		Uses uses;
		ListCell *cell;

		look_into(SPI_getvalue(row, SPI_tuptable->tupdesc, 2), uses);
		foreach (cell, uses.relations)
			add_edge(of, lfirst_oid(cell));
		RelationEntry *e = entry_of(of);
		e->verdict = worse(e->verdict, uses.verdict);
		MemoryContextSwitchTo(old);
		MemoryContextReset(work);
		CHECK_FOR_INTERRUPTS();
	}
}

// Until nothing changes: a view of a view of a view.
void follow_edges()
{
	for (bool changed = true; changed;) {
		changed = false;
		for (int i = 0; i < edge_count; i++) {
			bool found;
			auto *to = static_cast<RelationEntry *>(hash_search(relations, &edges[i].to, HASH_FIND, &found));
			if (!found || to->verdict == Verdict::Harmless)
				continue;
			RelationEntry *from = entry_of(edges[i].from);
			const Verdict v = worse(from->verdict, to->verdict);
			changed |= v != from->verdict;
			from->verdict = v;
		}
		CHECK_FOR_INTERRUPTS();
	}
}

} // namespace

void look_into(const char *tree, Uses &uses)
{
	(void)walk_tree(static_cast<Node *>(stringToNode(tree)), &uses);
}

void collect_relations()
{
	HASHCTL how{};

	how.keysize = sizeof(Oid);
	how.entrysize = sizeof(RelationEntry);
	how.hcxt = TopTransactionContext;
	relations = hash_create("pgpool facts relations", 1024, &how, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	collect_kinds();
	collect_trees("SELECT ev_class, ev_action FROM pg_catalog.pg_rewrite WHERE ev_type = '1'");
	collect_trees(
	    "SELECT polrelid, polqual FROM pg_catalog.pg_policy WHERE polqual IS NOT NULL AND polcmd IN ('r', '*')");
	follow_edges();
	run("SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
	    "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'");
	for (uint64 i = 0; i < SPI_processed; i++) {
		HeapTuple row = SPI_tuptable->vals[i];
		const Oid oid = oid_at(row, 1);
		auto *e = static_cast<RelationEntry *>(hash_search(relations, &oid, HASH_FIND, nullptr));
		if (e && e->verdict != Verdict::Harmless)
			note_name(Facts::Relation, SPI_getvalue(row, SPI_tuptable->tupdesc, 2),
			          SPI_getvalue(row, SPI_tuptable->tupdesc, 3), e->verdict);
	}
}

} // namespace pgpool::postgres
