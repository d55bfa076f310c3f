// What the literals of a statement may mean at another time.
//
// PostgreSQL reads a literal when it parses: 'now', 'today', 'tomorrow' and 'yesterday' become the time of that moment
// wherever a date or time is expected, also inside a range, an array or a row. A statement with such a literal is not
// that of another client, who prepared it at another time. Reads PostgreSQL's lexical rules (scan.l) for strings,
// comments and quoted names; what is in doubt may hold one. Must not know statements or types.
#pragma once

#include <string_view>

namespace pgpool::core
{

bool literals_read_the_clock(std::string_view text);

} // namespace pgpool::core
