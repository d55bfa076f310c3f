// read_sql_command(): PostgreSQL's lexical rules, as far as they decide what DEALLOCATE and DISCARD name.
#include "core/statements/sql_command.hpp"

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::core;

// "name", "ALL", "DISCARD ALL" or "-"; "+" behind it: something follows.
std::string read(std::string_view text)
{
	const SqlCommand c = read_sql_command(text);
	std::string s;
	switch (c.kind) {
	case SqlCommand::Other:
		return "-";
	case SqlCommand::Deallocate:
		s = c.name;
		break;
	case SqlCommand::DeallocateAll:
		s = "ALL";
		break;
	case SqlCommand::DiscardAll:
		s = "DISCARD ALL";
		break;
	}
	return s + (c.alone ? "" : "+");
}

TEST(SqlCommand, NamesAreFoldedToLowerCaseUnlessTheyAreQuoted)
{
	EXPECT_EQ(read("deallocate abc"), "abc");
	EXPECT_EQ(read("DEALLOCATE AbC"), "abc");
	EXPECT_EQ(read("DeAllocate \"AbC\""), "AbC");
	EXPECT_EQ(read("deallocate \"a\"\"b\""), "a\"b");
	EXPECT_EQ(read("deallocate\"abc\""), "abc");
	EXPECT_EQ(read("deallocate _a$1\xc3\x84"), "_a$1\xc3\x84");
}

TEST(SqlCommand, PrepareMayStandBeforeTheNameAndMayBeTheName)
{
	EXPECT_EQ(read("DEALLOCATE PREPARE x"), "x");
	EXPECT_EQ(read("deallocate prepare \"X\""), "X");
	EXPECT_EQ(read("DEALLOCATE prepare"), "prepare");
	EXPECT_EQ(read("DEALLOCATE prepare;"), "prepare");
	EXPECT_EQ(read("DEALLOCATE PREPARE prepare"), "prepare");
	EXPECT_EQ(read("DEALLOCATE \"prepare\" x"), "prepare+");
}

TEST(SqlCommand, AllIsEverythingUnlessItIsQuoted)
{
	EXPECT_EQ(read("DEALLOCATE ALL"), "ALL");
	EXPECT_EQ(read("deallocate prepare all"), "ALL");
	EXPECT_EQ(read("DEALLOCATE \"all\""), "all");
	EXPECT_EQ(read("DEALLOCATE PREPARE \"all\""), "all");
	EXPECT_EQ(read("Discard All"), "DISCARD ALL");
	EXPECT_EQ(read("DISCARD \"all\""), "-");
	EXPECT_EQ(read("DISCARD PLANS"), "-");
}

TEST(SqlCommand, BlanksAndCommentsMayStandAnywhere)
{
	EXPECT_EQ(read(" \t\n\r\f\vdeallocate\n x \n"), "x");
	EXPECT_EQ(read("-- it goes\nDEALLOCATE -- now\r x -- done"), "x");
	EXPECT_EQ(read("/* a /* nested */ one */ DEALLOCATE/**/x/* end */"), "x");
	EXPECT_EQ(read("/* -- */ deallocate x"), "x");
	EXPECT_EQ(read("-- /*\ndeallocate x"), "x");
	EXPECT_EQ(read("/* not closed /* */ deallocate x"), "-");
	EXPECT_EQ(read("/*/ deallocate x"), "-");
	EXPECT_EQ(read("deallocate x /* not closed"), "x+");
	EXPECT_EQ(read("--"), "-");
}

TEST(SqlCommand, WhatFollowsIsSeen)
{
	EXPECT_EQ(read("deallocate x;;  ; -- end"), "x");
	EXPECT_EQ(read("deallocate x; select 1"), "x+");
	EXPECT_EQ(read("deallocate x y"), "x+");
	EXPECT_EQ(read("deallocate all; select 1"), "ALL+");
	EXPECT_EQ(read("discard all, temp"), "DISCARD ALL+");
}

TEST(SqlCommand, WhatIsNotACommandOfThisKindIsLeftAlone)
{
	for (const char *text :
	     {"", " ", "select 1", "deallocatex", "deallocate_all", "deallocate", "deallocate ;", "deallocate 1",
	      "deallocate ''", "deallocate \"\"", "deallocate \"open", "discardall", "\"deallocate\" x", "$deallocate x"})
		EXPECT_EQ(read(text), "-") << text;
	EXPECT_NE(read("deallocate U&\"x\""), "x") << "U&\"...\" needs the settings of the server to be read";
	EXPECT_NE(read("deallocate U&\"x\""), "u");
}

// NAMEDATALEN is 64: the backend cuts a longer name, at a character.
TEST(SqlCommand, ANameThatTheServerWouldCutIsLeftToIt)
{
	const std::string longest(63, 'n');
	EXPECT_EQ(read("deallocate " + longest), longest);
	EXPECT_EQ(read("deallocate " + longest + "n"), "-");
	EXPECT_EQ(read("deallocate \"" + longest + "n\""), "-");
}

TEST(SqlCommand, TheQuickLookMissesNothing)
{
	for (const char *text :
	     {"deallocate x", "DISCARD ALL", " \n discard all", "-- c\ndeallocate x", "/**/deallocate x", "", "  ", "d"})
		EXPECT_TRUE(may_be_sql_command(text)) << text;
	for (const char *text : {"select 1", " begin", "insert into d values(1)", "(select 1)"})
		EXPECT_FALSE(may_be_sql_command(text)) << text;
	EXPECT_FALSE(may_be_sql_command(std::string_view("  \0", 3))) << "a whole text that is blank";
}

} // namespace
