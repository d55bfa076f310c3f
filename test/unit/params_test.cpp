// ParamSets: interned, compared by pointer, and led from one to another by SQL that no value can leave.
#include "core/settings/params.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::core;

std::string between(const Params &a, const Params &b, bool &reported)
{
	return sql_between(*a.get(), *b.get(), reported);
}

TEST(Params, EqualSetsAreOneObjectWhateverTheOrderTheyWereMadeIn)
{
	ParamStore store;
	const Params a = store.empty().with("TimeZone", "UTC", true).with("DateStyle", "ISO", true);
	const Params b =
	    store.empty().with("datestyle", "x", true).with("timezone", "UTC", true).with("DATESTYLE", "ISO", true);
	EXPECT_EQ(a, b);
	EXPECT_NE(a, a.with("TimeZone", "CET", true));
	EXPECT_NE(a, a.with("x", "UTC", false));
	EXPECT_EQ(a, a.with("TimeZone", "CET", true).with("TimeZone", "UTC", true));
}

TEST(Params, ASetIsFreedWithItsLastReference)
{
	ParamStore store;
	{
		Params a = store.empty().with("a", "1", true);
		Params b = a;
		a = b;
		b = std::move(a);
		EXPECT_EQ(store.size(), 1u);
	}
	EXPECT_EQ(store.size(), 0u);
}

TEST(Params, OnlyReportedOnesSurviveDiscardAll)
{
	ParamStore store;
	const Params a = store.empty().with("TimeZone", "UTC", true).with("work_mem", "1", false);
	EXPECT_EQ(a.reported_only(), store.empty().with("TimeZone", "UTC", true));
}

TEST(Params, NoSqlBetweenEqualSets)
{
	ParamStore store;
	bool reported = false;
	const Params a = store.empty().with("TimeZone", "UTC", true);
	EXPECT_EQ(between(a, a, reported), "");
	EXPECT_TRUE(reported);
}

TEST(Params, OneStatementSetsAndOneResetsEachThatTheOtherHad)
{
	ParamStore store;
	bool reported = false;
	const Params a = store.empty().with("TimeZone", "UTC", true).with("my.x", "1", false);
	const Params b = store.empty().with("TimeZone", "CET", true);
	EXPECT_EQ(between(a, b, reported),
	          "RESET \"my\".\"x\";SELECT pg_catalog.set_config(E'TimeZone',E'CET',false) IS NULL");
	EXPECT_FALSE(reported);
	between(b, b.with("TimeZone", "PST", true), reported);
	EXPECT_TRUE(reported);
}

TEST(Params, ANameThatIsNotAsciiIsResetWithoutAnIdentifier)
{
	ParamStore store;
	bool reported = true;
	const Params a = store.empty().with("my.\xc3\xa4", "1", false);
	EXPECT_EQ(between(a, store.empty(), reported),
	          "SELECT pg_catalog.set_config(E'my.\\xc3\\xa4',NULL,false) IS NULL;");
	EXPECT_FALSE(reported);
}

TEST(Params, NoValueAndNoNameLeavesItsLiteral)
{
	ParamStore store;
	bool reported = false;
	const std::string nasty = "a'b\\c\"d;--\n\x80\xff\x01/*$$";
	const std::string sql = between(store.empty(), store.empty().with(nasty, nasty, false), reported);
	const std::string literal = "E'a\\x27b\\x5cc\"d;--\\x0a\\x80\\xff\\x01/*$$'";
	EXPECT_EQ(sql, "SELECT pg_catalog.set_config(" + literal + "," + literal + ",false) IS NULL");
	for (const char c : sql)
		EXPECT_TRUE(c >= 0x20 && c < 0x7f);
	EXPECT_EQ(between(store.empty().with("x\"; DROP TABLE t; --", "1", false), store.empty(), reported),
	          "RESET \"x\"\"; DROP TABLE t; --\";");
}

TEST(Params, MoreThanFitInOneSelectAreSetBySeveral)
{
	ParamStore store;
	bool reported = false;
	Params many = store.empty();
	for (int i = 0; i < 2500; i++)
		many = many.with("x.n" + std::to_string(i), "1", false);
	const std::string sql = between(store.empty(), many, reported);
	size_t at = 0, selects = 0, most = 0;
	while (at < sql.size()) {
		const size_t end = std::min(sql.find(';', at), sql.size());
		size_t n = 0;
		for (size_t p = sql.find("set_config(", at); p < end; p = sql.find("set_config(", p + 1))
			n++;
		most = std::max(most, n);
		selects++;
		at = end + 1;
	}
	EXPECT_EQ(selects, 3u);
	EXPECT_LE(most, 1664u) << "PostgreSQL's limit of a list of results";
	EXPECT_EQ(each_between(*store.empty().get(), *many.get()).size(), 2500u);
}

TEST(Params, WhatIsPresetIsResetWhereSomebodySetItAndElseLeftAlone)
{
	ParamStore store;
	bool reported = false;
	const Params fresh = store.empty().with("TimeZone", "UTC", true, false, true);
	const Params own = fresh.with("TimeZone", "UTC", true);
	const Params newer = fresh.with("TimeZone", "CET", true, false, true);
	EXPECT_NE(fresh, own);
	EXPECT_EQ(between(own, fresh, reported), "RESET \"TimeZone\";");
	EXPECT_TRUE(reported);
	EXPECT_EQ(between(fresh, newer, reported), "");
	EXPECT_EQ(between(fresh, own, reported), "SELECT pg_catalog.set_config(E'TimeZone',E'UTC',false) IS NULL");
	EXPECT_EQ(fresh.preset_as(newer, fresh), newer);
	EXPECT_EQ(fresh.preset_as(own.with("TimeZone", "PST", true), newer), newer);
	EXPECT_EQ(own.preset_as(newer, newer), own);
	EXPECT_EQ(fresh.with_own("a,timezone,"), own);
	EXPECT_EQ(own.with_own("TimeZone2"), fresh);
}

TEST(Params, ASettingMoreDoesNotCopyTheValuesOfTheOthers)
{
	ParamStore store;
	const Params one = store.empty().with("x.long", std::string(1 << 20, 'v'), false);
	const Params two = one.with("x.a", "1", false);
	EXPECT_EQ(one->find("x.long"), two->find("x.long"));
	EXPECT_EQ(two->bytes, (1u << 20) + 6 + 4);
	EXPECT_EQ(two->own, 2u);
	EXPECT_EQ(two.without("x.a"), one);
}

} // namespace
