// What a string is, command by command, behind a border post that an ERROR does not pass. See grammar.hpp.
//
// Owns how the parser is called (encoding, settings of the lexer, memory) and what each kind of command means for the
// routing. Expressions are grammar_walk.cpp's. The lexer reads its settings in globals of the server: they are put
// back, for in a backend they are somebody's. Must not use the catalog: in a worker there is none.
#include "core/routing/route_words.hpp"
#include "postgres/base/grammar.hpp"

#include "postgres/base/compat.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "parser/parser.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres
{

using core::Kind;
using core::Reason;
using core::Route;

namespace
{

Finding write(Reason r)
{
	Finding f;
	f.kind = Kind::Write;
	f.reason = r;
	return f;
}

Finding simply(Kind k)
{
	Finding f;
	f.kind = k;
	return f;
}

bool is_true(Node *value)
{
	return value && IsA(value, A_Const) && IsA(&reinterpret_cast<A_Const *>(value)->val, Integer) &&
	       intVal(&reinterpret_cast<A_Const *>(value)->val) != 0;
}

const char *string_of(Node *value)
{
	if (!value || !IsA(value, A_Const) || reinterpret_cast<A_Const *>(value)->isnull ||
	    !IsA(&reinterpret_cast<A_Const *>(value)->val, String))
		return nullptr;
	return strVal(&reinterpret_cast<A_Const *>(value)->val);
}

// ---- transactions

void read_options(List *options, Finding &f)
{
	ListCell *cell;

	foreach (cell, options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		if (strcmp(option->defname, "transaction_read_only") == 0) {
			f.access = is_true(option->arg) ? core::Access::ReadOnly : core::Access::ReadWrite;
		} else if (strcmp(option->defname, "transaction_isolation") == 0) {
			const char *level = string_of(option->arg);
			if (!level)
				continue;
			f.isolation = strcmp(level, "serializable") == 0      ? core::Isolation::Serializable
			              : strcmp(level, "repeatable read") == 0 ? core::Isolation::RepeatableRead
			                                                      : core::Isolation::ReadCommitted;
		}
	}
}

bool may_be_on_standby(const Finding &f)
{
	return f.access == core::Access::ReadOnly && f.isolation != core::Isolation::Serializable;
}

Finding transaction(TransactionStmt *t)
{
	Finding f;

	switch (t->kind) {
	case TRANS_STMT_BEGIN:
	case TRANS_STMT_START:
		read_options(t->options, f);
		f.kind = may_be_on_standby(f) ? Kind::BeginReadOnly : Kind::Begin;
		return f;
	case TRANS_STMT_COMMIT:
	case TRANS_STMT_ROLLBACK:
		f.kind = Kind::End;
		f.chain = t->chain;
		f.rolls_back = t->kind == TRANS_STMT_ROLLBACK;
		return f;
	default:
		return write(Reason::Utility);
	}
}

// ---- settings

Finding set_route(VariableSetStmt *s)
{
	Finding f = simply(Kind::SetRoute);
	f.local = s->is_local;
	if (s->kind == VAR_SET_DEFAULT || s->kind == VAR_RESET)
		return f;
	const char *word = s->kind == VAR_SET_VALUE && list_length(s->args) == 1
	                       ? string_of(static_cast<Node *>(linitial(s->args)))
	                       : nullptr;
	if (!word || !core::route_of_word({word, word + strlen(word)}, f.route))
		return write(Reason::Session);
	return f;
}

Finding set(VariableSetStmt *s)
{
	if (s->name && core::is_route_setting(s->name))
		return set_route(s);
	if (s->kind == VAR_SET_MULTI && strcmp(s->name, "TRANSACTION") == 0) {
		Finding f;
		read_options(s->args, f);
		if (may_be_on_standby(f)) {
			f.kind = Kind::SetTransactionReadOnly;
			return f;
		}
	}
	return write(Reason::Session);
}

Finding show(VariableShowStmt *s)
{
	if (is_harmless_setting(s->name))
		return {};
	Finding f = write(Reason::Setting);
	strlcpy(f.object, s->name, sizeof f.object);
	return f;
}

// ---- queries

Finding query(Walk w, Node *node)
{
	if (w.facts) {
		const core::Verdict casts = w.facts->implicit_casts();
		if (casts != core::Verdict::Harmless && !(casts == core::Verdict::Stable && w.reading->trusts_stable) &&
		    refuse(w, Reason::CastUnknown))
			return w.found;
	}
	(void)walk_query(node, &w);
	return w.found;
}

Finding copy(const Walk &w, CopyStmt *c)
{
	if (c->is_from)
		return write(Reason::Modifies);
	if (c->filename || c->is_program)
		return write(Reason::Utility);
	if (c->query && !IsA(c->query, SelectStmt))
		return write(Reason::Modifies);
	return query(w, c->query ? c->query : reinterpret_cast<Node *>(c->relation));
}

bool runs(const ExplainStmt *e)
{
	ListCell *cell;

	foreach (cell, e->options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		// whatever its value is
		if (strcmp(option->defname, "analyze") == 0)
			return true;
	}
	return false;
}

Finding explain(Walk w, ExplainStmt *e)
{
	w.explains = !runs(e);
	switch (nodeTag(e->query)) {
	case T_InsertStmt:
	case T_UpdateStmt:
	case T_DeleteStmt:
	case T_MergeStmt:
		if (!w.explains)
			return write(Reason::Modifies);
		return query(w, e->query);
	case T_SelectStmt:
		return query(w, e->query);
	case T_ExecuteStmt:
	case T_DeclareCursorStmt:
		return write(Reason::Session);
	default:
		return write(Reason::Utility);
	}
}

Finding statement(const Walk &w, Node *node)
{
	switch (nodeTag(node)) {
	case T_SelectStmt:
		return query(w, node);
	case T_InsertStmt:
	case T_UpdateStmt:
	case T_DeleteStmt:
	case T_MergeStmt:
		return write(Reason::Modifies);
	case T_CopyStmt:
		return copy(w, reinterpret_cast<CopyStmt *>(node));
	case T_ExplainStmt:
		return explain(w, reinterpret_cast<ExplainStmt *>(node));
	case T_TransactionStmt:
		return transaction(reinterpret_cast<TransactionStmt *>(node));
	case T_VariableSetStmt:
		return set(reinterpret_cast<VariableSetStmt *>(node));
	case T_VariableShowStmt:
		return show(reinterpret_cast<VariableShowStmt *>(node));
	case T_DeclareCursorStmt:
	case T_FetchStmt:
	case T_ClosePortalStmt:
	case T_PrepareStmt:
	case T_ExecuteStmt:
	case T_DeallocateStmt:
	case T_DiscardStmt:
	case T_ListenStmt:
	case T_UnlistenStmt:
	case T_ConstraintsSetStmt:
	case T_LoadStmt:
		return write(Reason::Session);
	default:
		return write(Reason::Utility);
	}
}

// A string with more than one statement is one transaction: it is taken as a whole.
Finding statements(const Walk &w, List *all)
{
	ListCell *cell;

	if (!all)
		return simply(Kind::Nothing);
	foreach (cell, all) {
		Finding f = statement(w, static_cast<RawStmt *>(lfirst(cell))->stmt);
		if (list_length(all) == 1)
			return f;
		// a hint would make a Read of what was not looked at
		if (f.kind == Kind::Write && !is_let_pass(w, f.reason))
			return f;
		if (f.kind != Kind::Read)
			return write(Reason::SeveralStatements);
	}
	return {};
}

void apply_hint(const Walk &w, Finding &f)
{
	if (f.kind == Kind::SetRoute)
		return;
	const Route hint = w.hint == Route::Auto ? w.reading->route : w.hint;
	f.route = hint;
	if (hint == Route::Primary && f.kind == Kind::Read)
		f.reason = Reason::Hint;
	if (hint == Route::Primary && (f.kind == Kind::Read || f.kind == Kind::BeginReadOnly))
		f.kind = f.kind == Kind::Read ? Kind::Write : Kind::Begin;
	if (f.kind == Kind::Write && is_let_pass(w, f.reason)) {
		f.kind = Kind::Read;
		f.reason = Reason::Hint;
		f.object[0] = '\0';
	}
}

// ---- the parser

int encoding_of(std::string_view name)
{
	char text[64];

	if (name.size() >= sizeof text)
		return -1;
	memcpy(text, name.data(), name.size());
	text[name.size()] = '\0';
	return pg_char_to_encoding(text);
}

// False: the lexer would see other characters than the server does.
bool read_in_encoding(const char *sql, size_t size, const core::Reading &r, bool &doubtful_names)
{
	int client = encoding_of(r.client_encoding), server = encoding_of(r.server_encoding);
	bool ascii = true;

	for (size_t i = 0; i < size && ascii; i++)
		ascii = (sql[i] & 0x80) == 0;
	doubtful_names = !ascii && (client != server || pg_encoding_max_length(server) == 1);
	if (!PG_VALID_BE_ENCODING(server))
		return false;
	if (!ascii && !PG_VALID_BE_ENCODING(client))
		return false;
	// in a worker, which has no database
	if (!OidIsValid(MyDatabaseId) && GetDatabaseEncoding() != server)
		SetDatabaseEncoding(server);
	return GetDatabaseEncoding() == server;
}

struct Lexer { // as scan.l and elog.c have them
	int quote, log, client;
	bool conforming, warning;
};

Lexer lexer()
{
	return {backslash_quote, log_min_messages, client_min_messages, standard_conforming_strings, escape_string_warning};
}

void set_lexer(const Lexer &l)
{
	backslash_quote = l.quote;
	log_min_messages = l.log;
	client_min_messages = l.client;
	standard_conforming_strings = l.conforming;
	escape_string_warning = l.warning;
}

MemoryContext parse_context()
{
	static MemoryContext context;

	if (!context)
		context = AllocSetContextCreate(TopMemoryContext, "pgpool grammar", ALLOCSET_DEFAULT_SIZES);
	return context;
}

// Errors and too deep a text are not understood: to the primary.
Finding parse(Walk &walk, const char *sql, size_t size)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext volatile own = nullptr;
	const uint32 held = InterruptHoldoffCount;
	Finding found;

	PG_TRY();
	{
		own = parse_context();
		MemoryContextSwitchTo(own);
		if (!read_in_encoding(sql, size, *walk.reading, walk.doubtful_names))
			found = write(Reason::Encoding);
		else
			found = statements(walk, raw_parser(pnstrdup(sql, size), RAW_PARSE_DEFAULT));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
		InterruptHoldoffCount = held;
		found = write(Reason::NotParsed);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (own)
		MemoryContextReset(own);
	return found;
}

} // namespace

Finding classify_text(const char *sql, size_t size, const core::Reading &reading, const core::Facts *facts)
{
	core::Words words{sql, sql + size};
	Finding found;
	Walk walk{&reading, facts, core::take_hints(words), false, false, {}};

	if (size > core::kMostGrammar)
		return write(Reason::TooLong);
	if (core::is_server_role(words, found.route)) {
		found.kind = Kind::SetRoute;
		found.ours = true;
		return found;
	}
	const Lexer before = lexer();
	set_lexer({reading.backslash_quote, PANIC, PANIC, reading.standard_conforming_strings, false});
	found = parse(walk, sql, size);
	set_lexer(before);
	apply_hint(walk, found);
	return found;
}

} // namespace pgpool::postgres
