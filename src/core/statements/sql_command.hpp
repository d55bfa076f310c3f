// The few SQL commands that name prepared statements, read off the start of a query string.
//
// A client's statements have other names on the backend, so DEALLOCATE must be known before it is sent. Reads
// just the first command, by PostgreSQL's lexical rules (scan.l) for white space, comments and identifiers; what
// is put together in a function or follows another command in the same string is not seen here.
#pragma once

#include <string>
#include <string_view>

namespace pgpool::core
{

struct SqlCommand {
	enum Kind { Other, Deallocate, DeallocateAll, DiscardAll };
	Kind kind = Other;
	std::string name;   // Deallocate: as PostgreSQL understands it
	bool alone = false; // nothing follows but white space, comments and semicolons
};

// Quick: false for nearly all queries. The text may be the start of one.
bool may_be_sql_command(std::string_view text);
SqlCommand read_sql_command(std::string_view text);
// RESET ROLE, RESET ALL, SET ROLE NONE, DISCARD ALL: it goes back to the role that logged in.
bool leaves_role(std::string_view text);
// FETCH, EXECUTE, SHOW: the columns of its result are those of a cursor, a statement, a setting.
bool looks_up_its_columns(std::string_view text);

} // namespace pgpool::core
