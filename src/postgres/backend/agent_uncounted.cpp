// The agent: what the worker does in a session is not counted as the client's.
//
// Extensions that keep statistics (pg_stat_statements and those that follow it) leave out a statement without a query
// identifier, so the worker's have none. Must not know what the worker's statement is, nor any of the extensions.
#include "postgres/backend/agent.hpp"

extern "C" {
#include "parser/analyze.h"
}

namespace pgpool::postgres::agent
{

namespace
{

post_parse_analyze_hook_type previous_analyze;

// Before the others see it: this hook was set last.
void on_analyze(ParseState *state, Query *query, JumbleState *jumble)
{
	if (serves_pgpool())
		query->queryId = 0;
	if (previous_analyze)
		previous_analyze(state, query, jumble);
}

} // namespace

void install_uncounted()
{
	previous_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = on_analyze;
}

} // namespace pgpool::postgres::agent
