// literals_read_the_clock(): no literal that may stand for the time of its reading is missed, and common texts are not
// taken for one.
#include "core/statements/sql_literals.hpp"

#include <gtest/gtest.h>

namespace
{

using pgpool::core::literals_read_the_clock;

TEST(SqlLiterals, WordsForTheTimeAreFoundInEveryFormOfALiteral)
{
	for (const char *text : {"SELECT 'now'",
	                         "SELECT 'NOW'::date",
	                         "select timestamp ' toDay '",
	                         "SELECT '[now,)'::tstzrange",
	                         "SELECT '{today,tomorrow}'::date[]",
	                         "SELECT E'n\\ow'",
	                         "SELECT E'\\x6eow'",
	                         "SELECT E'\\156ow'",
	                         "SELECT e'\\u006eow'",
	                         "SELECT U&'\\006eow'",
	                         "SELECT u&'!006eow' UESCAPE '!'",
	                         "SELECT E'\\tnow'",
	                         "SELECT E'today\\n'",
	                         "SELECT e'\\r\\f\\bnow\\t'",
	                         "SELECT '\\tnow'",
	                         "SELECT 'yesterday\\n'",
	                         "SELECT E'[\\ttoday\\n,)'",
	                         "SELECT $$now$$",
	                         "SELECT $x$yesterday$x$",
	                         "SELECT 'n'\n'ow'",
	                         "SELECT 'to' -- a comment\n  'day'",
	                         "SELECT 'it''s now'",
	                         "SELECT N'now'",
	                         "SELECT 'a\\'",
	                         "SELECT '\\x6e'",
	                         "SELECT \"a\"'now'",
	                         "/* ' */ SELECT 'now'",
	                         "/* /* */ ' */ SELECT 'now'",
	                         "-- '\nSELECT 'now'",
	                         "SELECT a$b$'now'",
	                         "SELECT $1,'now'",
	                         "SELECT 'now",
	                         "SELECT $a$it's$a$, 'now'",
	                         "SELECT '2024-01-01','tomorrow 10:00'",
	                         "SELECT E'\\'', 'now'",
	                         "SELECT name'\\', date 'now'",
	                         "SELECT a$e'\\', date 'now'",
	                         "SELECT 'now-1'"})
		EXPECT_TRUE(literals_read_the_clock(text)) << text;
}

TEST(SqlLiterals, OtherTextsAreShared)
{
	for (const char *text : {"",
	                         "SELECT now()",
	                         "SELECT now(), 'abc'",
	                         "SELECT 'know', 'snow', 'nowhere', 'todays'",
	                         "SELECT 1 -- 'now'",
	                         "SELECT /* 'now' */ 1",
	                         "SELECT \"now\"",
	                         "SELECT $1 AS now",
	                         "SELECT a$now$b FROM t",
	                         "SELECT 'n', 'ow'",
	                         "SELECT 'it''s'",
	                         "SELECT E'a\\nb'",
	                         "SELECT 'a%' || $1",
	                         "SELECT current_date, 'x' AS today",
	                         "SELECT $a$ n $a$",
	                         "/* unfinished",
	                         "SELECT \"unfinished",
	                         "SELECT $",
	                         "SELECT $a",
	                         "-- end"})
		EXPECT_FALSE(literals_read_the_clock(text)) << text;
}

} // namespace
