// The server's grammar asked what a string is to the routing of reads: in a worker for clients, in a backend for
// explain_route().
//
// Owns the declarations of grammar.cpp and grammar_walk.cpp, which both libraries have: no exceptions, no libstdc++. An
// ERROR of the parser ends in the border post of classify_text() and is an answer like any other.
#pragma once

#include "core/routing/facts.hpp"
#include "core/routing/statement_kind.hpp"

struct Node;

namespace pgpool::postgres
{

// core::Classified without a string.
struct Finding {
	core::Kind kind = core::Kind::Read;
	core::Reason reason = core::Reason::None;
	core::Route route = core::Route::Auto;
	bool local = false, ours = false, chain = false, rolls_back = false;
	core::Isolation isolation = core::Isolation::Default;
	core::Access access = core::Access::Default;
	char object[160] = ""; // schema and name
};

// Never an ERROR, never a line in the log. Needs no transaction, no shared memory.
Finding classify_text(const char *sql, size_t size, const core::Reading &reading, const core::Facts *facts);

// ---- between the two files

struct Walk {
	const core::Reading *reading;
	const core::Facts *facts;
	core::Route hint;
	bool doubtful_names; // those with bytes outside ASCII are not as the server has them
	bool explains;       // it is planned, not run: commands that change data are let pass
	Finding found;
};

// Whether a Write by that is a Read for who asked for a replica: by a hint, or by pgpool.route.
bool is_let_pass(const Walk &w, core::Reason r);
// Notes why it is no Read. True: the walk is over.
bool refuse(Walk &w, core::Reason r, const char *schema = nullptr, const char *name = nullptr);
// True: it was refused, and nothing else need be looked at.
bool walk_query(Node *node, void *walk);
bool is_harmless_setting(const char *name);

} // namespace pgpool::postgres
