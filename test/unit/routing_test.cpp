// The words of routing: hints and spellings, the facts of a database, what is remembered of texts. What the server's
// grammar says of a statement is the table of test/tap/155_grammar.pl.
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/routing/facts.hpp"
#include "core/routing/facts_store.hpp"
#include "core/routing/route_words.hpp"
#include "core/routing/statement_kinds.hpp"

using namespace pgpool::core;
namespace region = pgpool::region;

namespace
{

Route hint_of(std::string_view sql, std::string_view *rest = nullptr)
{
	Words w{sql.data(), sql.data() + sql.size()};
	const Route r = take_hints(w);
	if (rest)
		*rest = {w.at, static_cast<size_t>(w.end - w.at)};
	return r;
}

struct FakeGrammar final : Grammar {
	Classified classify(std::string_view sql, const Reading &, const Facts *facts) override
	{
		calls++;
		Classified c;
		c.kind = sql.substr(0, 6) == "SELECT" ? Kind::Read : Kind::Write;
		c.object = facts ? std::to_string(facts->version()) : "";
		return c;
	}
	int calls = 0;
};

} // namespace

TEST(Hints, CountAtTheBeginningOnly)
{
	std::string_view rest;
	EXPECT_EQ(hint_of("/* pgpool: primary */ SELECT 1", &rest), Route::Primary);
	EXPECT_EQ(rest, "SELECT 1");
	EXPECT_EQ(hint_of(" \n/*pgdog_role: replica*/SELECT 1"), Route::Replica);
	EXPECT_EQ(hint_of("-- pgpool: primary\nSELECT 1"), Route::Primary);
	EXPECT_EQ(hint_of("/*NO LOAD BALANCE*/ SELECT 1"), Route::Primary);
	EXPECT_EQ(hint_of("/* app=1, pgdog_shard: 0 pgdog_role: primary */ SELECT 1"), Route::Primary);
	EXPECT_EQ(hint_of("SELECT '/* pgpool: primary */'"), Route::Auto);
	EXPECT_EQ(hint_of("SELECT 1 /* pgpool: primary */"), Route::Auto);
	EXPECT_EQ(hint_of("/* xpgpool: primary */ SELECT 1"), Route::Auto);
	EXPECT_EQ(hint_of("/* pgpool: primaryx */ SELECT 1"), Route::Auto);
	EXPECT_EQ(hint_of("/* a /* pgpool: primary */ SELECT 1"), Route::Auto) << "a comment without an end";
	EXPECT_EQ(hint_of("/* a /* b */ pgpool: replica */ SELECT 1"), Route::Replica);
	EXPECT_EQ(hint_of("/* pgpool:"), Route::Auto);
	EXPECT_EQ(hint_of("/"), Route::Auto);
	EXPECT_EQ(hint_of(""), Route::Auto);
}

TEST(Hints, SetServerRole)
{
	Route r = Route::Auto;
	auto is = [&](std::string_view sql) { return is_server_role({sql.data(), sql.data() + sql.size()}, r); };
	EXPECT_TRUE(is("SET SERVER ROLE TO 'primary'"));
	EXPECT_EQ(r, Route::Primary);
	EXPECT_TRUE(is("set server role to 'replica' ; "));
	EXPECT_EQ(r, Route::Replica);
	EXPECT_TRUE(is("SET SERVER ROLE TO 'auto'"));
	EXPECT_EQ(r, Route::Auto);
	EXPECT_FALSE(is("SET SERVER ROLE TO 'nobody'"));
	EXPECT_FALSE(is("SET SERVER ROLE TO 'primary'; SELECT 1"));
	EXPECT_FALSE(is("SET SERVER ROLE TO 'primary"));
	EXPECT_FALSE(is("SET server_role TO 'primary'"));
	EXPECT_FALSE(is("SET"));
}

TEST(FactsOfADatabase, AreLookedUpWithAndWithoutSchema)
{
	Facts f("pgpool facts 1 16384 77\nfh lower\nfh pg_catalog\tlower\nfu lower2\nfh a\tb.c\noh +\nrx t\nch implicit\n");
	ASSERT_TRUE(f.usable());
	EXPECT_EQ(f.database(), 16384u);
	EXPECT_EQ(f.version(), 77u);
	EXPECT_EQ(f.of(Facts::Function, nullptr, "lower", Verdict::Unknown), Verdict::Harmless);
	EXPECT_EQ(f.of(Facts::Function, "pg_catalog", "lower", Verdict::Unknown), Verdict::Harmless);
	EXPECT_EQ(f.of(Facts::Function, "public", "lower", Verdict::Unknown), Verdict::Unknown);
	EXPECT_EQ(f.of(Facts::Function, nullptr, "lower2", Verdict::Harmless), Verdict::Unknown);
	EXPECT_EQ(f.of(Facts::Function, nullptr, "lowe", Verdict::Unknown), Verdict::Unknown);
	EXPECT_EQ(f.of(Facts::Function, "a", "b.c", Verdict::Unknown), Verdict::Harmless);
	EXPECT_EQ(f.of(Facts::Function, "a.b", "c", Verdict::Unknown), Verdict::Unknown);
	EXPECT_EQ(f.of(Facts::Type, nullptr, "lower", Verdict::Unknown), Verdict::Unknown);
	EXPECT_EQ(f.of(Facts::Operator, nullptr, "+", Verdict::Unknown), Verdict::Harmless);
	EXPECT_EQ(f.of(Facts::Relation, nullptr, "t", Verdict::Harmless), Verdict::Relation);
	EXPECT_EQ(f.of(Facts::Relation, nullptr, "u", Verdict::Harmless), Verdict::Harmless);
	EXPECT_EQ(f.of(Facts::Relation, nullptr, "u\nv", Verdict::Harmless), Verdict::Unknown) << "it has no line";
	EXPECT_EQ(f.implicit_casts(), Verdict::Harmless);
}

TEST(FactsOfADatabase, AreNotMadeOfAnythingElse)
{
	for (const char *text : {"", "pgpool facts 1 1 1", "pgpool facts 2 1 1\n", "nothing\n", "pgpool facts 1 x 1\n"}) {
		Facts f(text);
		EXPECT_FALSE(f.usable()) << text;
		EXPECT_EQ(f.of(Facts::Relation, nullptr, "t", Verdict::Harmless), Verdict::Unknown) << text;
	}
}

TEST(FactsOfAWorker, AreOfThePresentCatalog)
{
	std::vector<char> memory(region::View::size(1, 1, 1, 1) + 64);
	void *place = memory.data();
	size_t room = memory.size();
	auto *header = static_cast<region::Header *>(std::align(64, region::View::size(1, 1, 1, 1), place, room));
	region::View::format(header, 1, 1, 1, 1);
	int reads = 0;
	std::string file;
	FactsStore store(region::View(header), [&](uint32_t database, std::string &to) {
		EXPECT_EQ(database, 5u);
		reads++;
		to = file;
		return true;
	});
	EXPECT_EQ(store.of(5, 1000), nullptr);
	region::FactsSlot &slot = header->facts[0];
	EXPECT_EQ(slot.database.load(), 5u) << "it is asked for";
	EXPECT_GT(slot.wanted_until.load(), 1000);
	EXPECT_EQ(reads, 0);

	file = "pgpool facts 1 5 0\n";
	slot.files.store(1);
	EXPECT_NE(store.of(5, 1000), nullptr);
	EXPECT_NE(store.of(5, 2000), nullptr);
	EXPECT_EQ(reads, 1);

	header->catalog_changes[5].fetch_add(1);
	EXPECT_EQ(store.of(5, 3000), nullptr) << "the catalog changed";
	EXPECT_EQ(reads, 1);
	file = "pgpool facts 1 6 1\n";
	slot.files.store(2);
	EXPECT_EQ(store.of(5, 4000), nullptr) << "the file is of another database";
	file = "pgpool facts 1 5 1\n";
	slot.files.store(3);
	EXPECT_NE(store.of(5, 5000), nullptr);

	const int64_t later = 5000 + 10 * region::kFactsWantedFor;
	ASSERT_NE(region::want_facts(header->facts, 7, later), nullptr);
	EXPECT_EQ(slot.database.load(), 7u) << "nobody had asked for the other for a while";
	EXPECT_EQ(store.of(5, later), nullptr);
	EXPECT_EQ(header->facts[1].database.load(), 5u) << "it is asked for again";
}

TEST(StatementKindsByText, AsksTheGrammarOnce)
{
	FakeGrammar g;
	StatementKinds kinds(g);
	Facts first("pgpool facts 1 5 1\nfh f\n"), second("pgpool facts 1 5 2\nfu f\n"),
	    other("pgpool facts 1 6 1\nfh f\n");
	Facts again("pgpool facts 1 5 3\nfu f\n");
	Reading r, sjis;
	sjis.client_encoding = "SJIS";
	EXPECT_EQ(kinds.classify("SELECT 1", r, nullptr).kind, Kind::Read);
	EXPECT_EQ(kinds.classify("SELECT 1", r, nullptr).kind, Kind::Read);
	EXPECT_EQ(g.calls, 1);
	EXPECT_EQ(kinds.classify("SELECT 2", r, nullptr).kind, Kind::Read);
	EXPECT_EQ(g.calls, 2);
	EXPECT_EQ(kinds.classify("SELECT 1", sjis, nullptr).kind, Kind::Read);
	EXPECT_EQ(g.calls, 3) << "another way to read it";
	EXPECT_EQ(kinds.classify("SELECT 1", r, &first).object, "1");
	EXPECT_EQ(kinds.classify("SELECT 1", r, &first).object, "1");
	EXPECT_EQ(g.calls, 4);
	EXPECT_EQ(kinds.classify("SELECT 1", r, &second).object, "2") << "the facts changed";
	EXPECT_EQ(kinds.classify("SELECT 1", r, &other).object, "1") << "another database";
	EXPECT_EQ(g.calls, 6);
	EXPECT_EQ(kinds.classify("SELECT 1", r, &second).object, "2");
	EXPECT_EQ(kinds.classify("SELECT 1", r, &again).object, "2") << "the catalog changed, what is known did not";
	EXPECT_EQ(g.calls, 6);
	kinds.learn_write("SELECT 1", r, &second);
	EXPECT_EQ(kinds.classify("SELECT 1", r, &second).reason, Reason::Learned);
	EXPECT_EQ(kinds.classify("SELECT 1", r, &other).kind, Kind::Read);
	EXPECT_EQ(g.calls, 6);
}

TEST(StatementKindsByText, KeepsWhatIsUsedWithinItsBounds)
{
	FakeGrammar g;
	StatementKinds::Bounds b;
	b.entries = 100;
	b.bytes = 4000;
	b.longest = 1000;
	StatementKinds kinds(g, b);
	const Reading r;
	for (int i = 0; i < 10000; i++) {
		kinds.classify("SELECT " + std::to_string(i), r, nullptr);
		kinds.classify("SELECT always", r, nullptr);
		ASSERT_LE(kinds.size(), 200u);
		ASSERT_LE(kinds.bytes(), 8000u);
	}
	EXPECT_EQ(g.calls, 10001) << "what is in use was forgotten";
	const std::string text = "SELECT " + std::string(2000, ' ');
	kinds.classify(text, r, nullptr);
	kinds.classify(text, r, nullptr);
	EXPECT_EQ(g.calls, 10003) << "long ones are not kept";
}

TEST(ReasonsOfRouting, HaveNamesAndWords)
{
	for (int i = 0; i < kReasons; i++) {
		EXPECT_GT(std::string(name_of(static_cast<Reason>(i))).size(), 3u);
		EXPECT_GT(std::string(words_of(static_cast<Reason>(i))).size(), 5u);
	}
}

TEST(StatementKindsByText, WhatAKnownOneCosts)
{
	FakeGrammar g;
	StatementKinds kinds(g);
	Facts facts("pgpool facts 1 5 1\n");
	const Reading r;
	const std::string sql = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
	constexpr int kTimes = 100000;
	const auto began = std::chrono::steady_clock::now();
	for (int i = 0; i < kTimes; i++)
		ASSERT_EQ(kinds.classify(sql, r, &facts).kind, Kind::Read);
	const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - began;
	printf("%.0f ns for each known statement (with sanitizers)\n", took.count() / kTimes);
	EXPECT_EQ(g.calls, 1);
}
