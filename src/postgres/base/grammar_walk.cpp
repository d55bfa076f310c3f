// What a query names: functions, operators, types, relations, clauses that lock or write.
//
// Owns the walk over the raw tree, on which nothing is resolved: a name stands for all that have it. What is implied by
// syntax is looked up by its name, too ("=" of IN, CASE, JOIN USING). Must not know commands, which are grammar.cpp's.
#include <cstdio>

#include "postgres/base/grammar.hpp"

#include "postgres/base/compat.hpp"

namespace pgpool::postgres
{

using core::Facts;
using core::Reason;
using core::Verdict;

namespace
{

// A hint speaks of one statement, pgpool.route of all: set_config() and advisory locks among them, which a session
// would lose on a replica.
bool is_soft(Reason r, bool hinted)
{
	switch (r) {
	case Reason::FunctionWrites:
	case Reason::FunctionOfSession:
	case Reason::ViewOfSession:
	case Reason::Setting:
		return hinted;
	case Reason::FunctionUnknown:
	case Reason::OperatorUnknown:
	case Reason::TypeUnknown:
	case Reason::ViewUnknown:
	case Reason::CastUnknown:
	case Reason::FactsMissing:
		return true;
	default:
		return false;
	}
}

} // namespace

bool is_let_pass(const Walk &w, Reason r)
{
	const bool hinted = w.hint == core::Route::Replica;
	return (hinted || (w.hint == core::Route::Auto && w.reading->route == core::Route::Replica)) && is_soft(r, hinted);
}

// The first reason counts, but one that no hint takes away is worth more.
bool refuse(Walk &w, Reason r, const char *schema, const char *name)
{
	if (w.found.kind == core::Kind::Read || (is_let_pass(w, w.found.reason) && !is_let_pass(w, r)) ||
	    (is_soft(w.found.reason, true) && !is_soft(r, true))) {
		w.found.kind = core::Kind::Write;
		w.found.reason = r;
		snprintf(w.found.object, sizeof w.found.object, "%s%s%s", schema ? schema : "", schema ? "." : "",
		         name ? name : "");
	}
	return !is_let_pass(w, r);
}

// Those that a client's session has, wherever it is served, or that all servers of a cluster have in common. Names with
// a dot are made by their users.
bool is_harmless_setting(const char *name)
{
	static const char *const kHarmless[] = {
	    "application_name",
	    "bytea_output",
	    "client_encoding",
	    "datestyle",
	    "default_transaction_isolation",
	    "extra_float_digits",
	    "integer_datetimes",
	    "intervalstyle",
	    "is_superuser",
	    "role",
	    "search_path",
	    "server_encoding",
	    "server_version",
	    "server_version_num",
	    "session_authorization",
	    "standard_conforming_strings",
	    "timezone",
	    "transaction_isolation",
	    "block_size",
	    "max_identifier_length",
	};
	for (const char *h : kHarmless) {
		if (strcasecmp(h, name) == 0)
			return true;
	}
	return strchr(name, '.') != nullptr && strncasecmp(name, "pgpool.", 7) != 0;
}

namespace
{

struct Name {
	const char *schema, *name; // schema may be NULL
};

Name name_of(List *parts)
{
	Name n{nullptr, nullptr};
	ListCell *cell;

	foreach (cell, parts) {
		Node *part = static_cast<Node *>(lfirst(cell));
		if (!IsA(part, String))
			return {nullptr, nullptr};
		n.schema = n.name;
		n.name = strVal(part);
	}
	return n;
}

bool is_doubtful(const Walk &w, const char *name)
{
	if (!w.doubtful_names)
		return false;
	for (; *name; name++) {
		if (*name & 0x80)
			return true;
	}
	return false;
}

Reason reason_of(Facts::What what, Verdict v)
{
	switch (what) {
	case Facts::Operator:
		return Reason::OperatorUnknown;
	case Facts::Type:
		return Reason::TypeUnknown;
	case Facts::Relation:
		return v == Verdict::Relation    ? Reason::Relation
		       : v == Verdict::OfSession ? Reason::ViewOfSession
		                                 : Reason::ViewUnknown;
	default:
		return v == Verdict::Writes      ? Reason::FunctionWrites
		       : v == Verdict::OfSession ? Reason::FunctionOfSession
		                                 : Reason::FunctionUnknown;
	}
}

bool look_up(Walk &w, Facts::What what, Name n, Verdict otherwise)
{
	if (!n.name)
		return refuse(w, Reason::NotParsed);
	if (is_doubtful(w, n.name) || (n.schema && is_doubtful(w, n.schema)))
		return refuse(w, Reason::Encoding, n.schema, n.name);
	if (!w.facts)
		return refuse(w, Reason::FactsMissing, n.schema, n.name);
	Verdict v = w.facts->of(what, n.schema, n.name, otherwise);
	if (v == Verdict::Harmless || (v == Verdict::Stable && w.reading->trusts_stable))
		return false;
	return refuse(w, reason_of(what, v), n.schema, n.name);
}

bool operator_is(Walk &w, const char *name)
{
	return look_up(w, Facts::Operator, {nullptr, name}, Verdict::Unknown);
}

bool relation(Walk &w, const RangeVar *r)
{
	if (r->schemaname && strncmp(r->schemaname, "pg_temp", 7) == 0)
		return refuse(w, Reason::Relation, r->schemaname, r->relname);
	return look_up(w, Facts::Relation, {r->schemaname, r->relname}, Verdict::Harmless);
}

// What it tells depends on the setting; only a constant says which.
bool current_setting_is(Walk &w, List *arguments)
{
	Node *first = arguments ? static_cast<Node *>(linitial(arguments)) : nullptr;

	if (first && IsA(first, A_Const)) {
		auto *c = reinterpret_cast<A_Const *>(first);
		if (!c->isnull && IsA(&c->val, String) && is_harmless_setting(c->val.sval.sval))
			return false;
	}
	return refuse(w, Reason::FunctionOfSession, nullptr, "current_setting");
}

bool function(Walk &w, FuncCall *f)
{
	Name n = name_of(f->funcname);

	if (look_up(w, Facts::Function, n, Verdict::Unknown))
		return true;
	return n.name && strcmp(n.name, "current_setting") == 0 && current_setting_is(w, f->args);
}

bool expression(Walk &w, A_Expr *e)
{
	switch (e->kind) {
	case AEXPR_BETWEEN:
	case AEXPR_BETWEEN_SYM:
		return operator_is(w, ">=") || operator_is(w, "<=");
	case AEXPR_NOT_BETWEEN:
	case AEXPR_NOT_BETWEEN_SYM:
		return operator_is(w, "<") || operator_is(w, ">");
	default:
		return look_up(w, Facts::Operator, name_of(e->name), Verdict::Unknown);
	}
}

// SELECT t.f FROM t calls f(t) if t has no column f.
bool attribute(Walk &w, List *parts)
{
	Node *last = parts ? static_cast<Node *>(llast(parts)) : nullptr;

	return last && IsA(last, String) && w.facts &&
	       look_up(w, Facts::Attribute, {nullptr, strVal(last)}, Verdict::Harmless);
}

bool select(Walk &w, SelectStmt *s)
{
	if (s->intoClause && !w.explains && refuse(w, Reason::Into, nullptr, s->intoClause->rel->relname))
		return true;
	return s->lockingClause && !w.explains && refuse(w, Reason::LockingClause);
}

bool common_table(Walk &w, CommonTableExpr *c)
{
	return c->cycle_clause && (operator_is(w, "=") || walk_query(c->cycle_clause->cycle_mark_value, &w) ||
	                           walk_query(c->cycle_clause->cycle_mark_default, &w));
}

} // namespace

bool walk_query(Node *node, void *walk)
{
	Walk &w = *static_cast<Walk *>(walk);
	bool over = false;

	if (!node)
		return false;
	check_stack_depth();
	switch (nodeTag(node)) {
	case T_SelectStmt:
		over = select(w, reinterpret_cast<SelectStmt *>(node));
		break;
	case T_InsertStmt:
	case T_UpdateStmt:
	case T_DeleteStmt:
	case T_MergeStmt:
		over = !w.explains && refuse(w, Reason::ModifyingCte);
		break;
	case T_RangeVar:
		return relation(w, reinterpret_cast<RangeVar *>(node));
	case T_FuncCall:
		over = function(w, reinterpret_cast<FuncCall *>(node));
		break;
	case T_A_Expr:
		over = expression(w, reinterpret_cast<A_Expr *>(node));
		break;
	case T_SubLink: {
		auto *s = reinterpret_cast<SubLink *>(node);
		if (s->operName)
			over = look_up(w, Facts::Operator, name_of(s->operName), Verdict::Unknown);
		else
			over = s->testexpr && operator_is(w, "=");
		break;
	}
	case T_CaseExpr:
		over = reinterpret_cast<CaseExpr *>(node)->arg && operator_is(w, "=");
		break;
	case T_JoinExpr:
		over = (reinterpret_cast<JoinExpr *>(node)->usingClause || reinterpret_cast<JoinExpr *>(node)->isNatural) &&
		       operator_is(w, "=");
		break;
	case T_SortBy: {
		List *by = reinterpret_cast<SortBy *>(node)->useOp;
		over = by && look_up(w, Facts::Operator, name_of(by), Verdict::Unknown);
		break;
	}
	case T_TypeName: {
		auto *t = reinterpret_cast<TypeName *>(node);
		over = t->pct_type ? refuse(w, Reason::TypeUnknown)
		                   : look_up(w, Facts::Type, name_of(t->names), Verdict::Harmless);
		break;
	}
	case T_ColumnRef: {
		List *fields = reinterpret_cast<ColumnRef *>(node)->fields;
		return list_length(fields) > 1 && attribute(w, fields);
	}
	case T_A_Indirection: {
		ListCell *cell;
		foreach (cell, reinterpret_cast<A_Indirection *>(node)->indirection) {
			Node *part = static_cast<Node *>(lfirst(cell));
			if (IsA(part, String) && attribute(w, list_make1(part)))
				return true;
		}
		break;
	}
	case T_RangeTableSample:
		over =
		    look_up(w, Facts::Function, name_of(reinterpret_cast<RangeTableSample *>(node)->method), Verdict::Unknown);
		break;
	case T_CommonTableExpr:
		over = common_table(w, reinterpret_cast<CommonTableExpr *>(node));
		break;
	default:
		break;
	}
	return over || compat::walk_raw(node, walk_query, walk);
}

} // namespace pgpool::postgres
