// What the facts worker's parts know of each other. See facts.cpp.
#pragma once

#include "core/routing/facts.hpp"

#include "postgres/base/compat.hpp"

namespace pgpool::postgres
{

using core::Facts;
using core::Verdict;

// ---- facts.cpp: functions, operators, types, casts; the names that are written

Verdict worse(Verdict a, Verdict b);
Verdict verdict_of_function(Oid function); // 0 = none: harmless
Verdict verdict_of_type(Oid type);
void note_name(Facts::What what, const char *schema, const char *name, Verdict v);

// ---- facts_trees.cpp: expressions and queries that the catalog has

struct Uses { // of a relation, found in its rule or policies
	Verdict verdict = Verdict::Harmless;
	List *relations = NIL; // OIDs
};
void look_into(const char *tree, Uses &uses);
void collect_relations();

} // namespace pgpool::postgres
