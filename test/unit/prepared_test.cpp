// Shared statements without sessions: the store, a client's names, what one backend has.
#include "core/statements/client_statements.hpp"
#include "core/statements/server_statements.hpp"
#include "core/statements/statement_notes.hpp"

#include <optional>

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::core;
using Has = ServerStatements::Has;

std::string body(std::string_view text)
{
	return std::string(text) + std::string(3, '\0');
}

struct Prepared : ::testing::Test {
	StatementStore store;
	ClientStatements client;
	ServerStatements server;

	Statement *intern(std::string_view text) { return store.intern(body(text), "UTF8"); }
	// A statement that the server has, from now on held by it alone.
	Statement *parsed(std::string_view text)
	{
		Statement *s = intern(text);
		server.parsing(s, 1, store.clock());
		server.confirm(s, store);
		store.release(s);
		return s;
	}
	void set(std::string_view name, Statement *s) { store.release(client.set(name, {s, {}}).statement); }
	void TearDown() override
	{
		for (auto &item : client.take_all())
			store.release(item.statement);
		server.drop_all(store);
		EXPECT_EQ(store.size(), 0u) << "a reference was lost";
		EXPECT_EQ(store.bytes(), 0u);
	}
};

TEST_F(Prepared, TypesThatWereToldAreBounded)
{
	Statement *s = intern("SELECT $1::t");
	auto told = [s](char type) { return StatementStore::types_told(s, std::string("\0\1\0\0\1", 5) + type); };
	const uint64_t first = told('a'), again = told('a');
	EXPECT_EQ(first, again);
	EXPECT_EQ(s->types_told.size(), 1u);
	uint64_t last = first;
	for (char type = 'b'; type <= 'z'; type++)
		last = told(type);
	EXPECT_LE(s->types_told.size(), 8u) << "a type may be made anew for ever";
	EXPECT_EQ(store.with_types(s, first), nullptr) << "forgotten";
	Statement *typed = store.with_types(s, last);
	ASSERT_NE(typed, nullptr);
	store.release(typed);
	store.release(s);
}

TEST_F(Prepared, EqualTextsAreOneStatementUnlessTheyAreReadDifferently)
{
	Statement *a = intern("SELECT 1"), *b = intern("SELECT 1"), *c = intern("SELECT 2");
	Statement *d = store.intern(body("SELECT 1"), "LATIN1");
	EXPECT_EQ(a, b);
	EXPECT_NE(a, c);
	EXPECT_NE(a, d);
	EXPECT_NE(a->name, d->name);
	EXPECT_EQ(store.size(), 3u);
	EXPECT_EQ(store.bytes(), 3 * body("SELECT 1").size());
	for (Statement *s : {a, b, c, d})
		store.release(s);
}

TEST_F(Prepared, ATextThatIsAskedForOnceIsNotInterned)
{
	EXPECT_EQ(store.intern_again(body("SELECT 1"), "UTF8"), nullptr);
	EXPECT_EQ(store.intern_again(body("SELECT 2"), "UTF8"), nullptr);
	EXPECT_EQ(store.size(), 0u);
	Statement *s = store.intern_again(body("SELECT 1"), "UTF8");
	ASSERT_NE(s, nullptr);
	Statement *held = intern("SELECT 3");
	EXPECT_EQ(store.intern_again(body("SELECT 3"), "UTF8"), held) << "somebody has it";
	store.release(held);
	store.release(held);
	store.release(s);
}

TEST_F(Prepared, NamesAreFoundInWhateverOrderTheyCame)
{
	std::vector<std::string> names;
	for (int i = 0; i < 50; i++)
		names.push_back("s" + std::to_string(i * 7919 % 50));
	names.emplace_back();
	size_t bytes = 0;
	for (const std::string &name : names) {
		set(name, intern("SELECT " + name));
		bytes += body("SELECT " + name).size();
	}
	EXPECT_EQ(client.size(), names.size());
	EXPECT_EQ(client.bytes(), bytes);
	for (const std::string &name : names) {
		ASSERT_NE(client.find(name), nullptr) << name;
		EXPECT_EQ(client.find(name)->body, body("SELECT " + name));
		EXPECT_EQ(client.name_of(client.find(name)->name), name);
	}
	EXPECT_EQ(client.find("s"), nullptr);
	EXPECT_EQ(client.find("s999"), nullptr);
	EXPECT_EQ(client.name_of("_pgpool_0"), "");
	for (const std::string &name : names)
		set(name, nullptr);
	EXPECT_EQ(client.size(), 0u);
	EXPECT_EQ(client.bytes(), 0u);
	set("nothing", nullptr);
	EXPECT_EQ(client.size(), 0u);
}

TEST_F(Prepared, ANameThatComesToMeanSomethingElseCountsTheNewText)
{
	set("s", intern("SELECT 1"));
	Statement *before = client.set("s", {intern("SELECT longer"), {}}).statement;
	EXPECT_EQ(before->body, body("SELECT 1"));
	store.release(before);
	EXPECT_EQ(client.size(), 1u);
	EXPECT_EQ(client.bytes(), body("SELECT longer").size());
}

TEST_F(Prepared, WhatWasParsedBeforeTheStatementsTimeIsOutdated)
{
	Statement *s = parsed("SELECT 1");
	EXPECT_EQ(server.has(s, 2), Has::Yes);
	s->valid_since = store.advance();
	EXPECT_EQ(server.has(s, 2), Has::Outdated);
	EXPECT_FALSE(server.present(s));
	server.closing(s, 2);
	server.parsing(s, 2, store.clock());
	EXPECT_EQ(server.has(s, 2), Has::Yes) << "in the batch of its Parse";
	EXPECT_EQ(server.has(s, 3), Has::Unsettled);
	server.confirm(s, store);
	server.confirm(s, store);
	EXPECT_EQ(server.has(s, 3), Has::Yes);
	EXPECT_TRUE(server.present(s));
}

TEST_F(Prepared, AServerThatIsDistrustedHasNothingFromBefore)
{
	Statement *a = parsed("SELECT 1");
	server.distrust(store.advance());
	Statement *b = parsed("SELECT 2");
	EXPECT_EQ(server.has(a, 2), Has::Outdated);
	EXPECT_EQ(server.has(b, 2), Has::Yes);
}

TEST_F(Prepared, ACloseAndAParseThatAreTakenBackLeaveAnOldStatement)
{
	Statement *s = parsed("SELECT 1");
	s->valid_since = store.advance();
	server.closing(s, 2);
	server.parsing(s, 2, store.clock());
	server.take_back(s, store);
	server.take_back(s, store);
	EXPECT_EQ(server.has(s, 3), Has::Outdated) << "the time of the Parse that was skipped does not count";
}

TEST_F(Prepared, WhatDeallocateAllTookStaysGoneWhenACloseBehindItIsVoid)
{
	Statement *s = parsed("SELECT 1");
	StatementStore::keep(s);
	server.closing(s, 2);
	server.clear(store);
	server.take_back(s, store);
	EXPECT_EQ(server.has(s, 3), Has::No);
	EXPECT_EQ(server.size(), 0u);
	store.release(s);
}

TEST_F(Prepared, WhatIsParsedBehindDeallocateAllStays)
{
	Statement *s = parsed("SELECT 1");
	server.closing(s, 2);
	server.parsing(s, 2, store.clock());
	server.clear(store);
	server.confirm(s, store);
	server.confirm(s, store);
	EXPECT_EQ(server.has(s, 3), Has::Yes);
}

TEST_F(Prepared, TheLeastRecentlyUsedMakesRoom)
{
	Statement *a = parsed("SELECT 1"), *b = parsed("SELECT 2"), *c = parsed("SELECT 3");
	EXPECT_EQ(server.surplus(3, 2), nullptr);
	EXPECT_EQ(server.surplus(2, 2), a);
	EXPECT_EQ(server.has(a, 2), Has::Yes);
	EXPECT_EQ(server.surplus(2, 2), b);
	server.closing(b, 2);
	EXPECT_EQ(server.surplus(2, 2), nullptr) << "one is on its way out";
	EXPECT_EQ(server.surplus(1, 2), c);
	EXPECT_EQ(server.will_be(), 2u);
}

// ---- notes

struct Notes : Prepared {
	std::optional<StatementNotes> held{std::in_place, store, server};
	StatementNotes &notes = *held;
	using OnServer = StatementNotes::OnServer;

	// A client's Parse is sent in this batch.
	void parse(const char *name, const char *text, uint64_t batch)
	{
		Statement *s = intern(text);
		server.parsing(s, batch, store.clock());
		notes.note_batch(batch);
		notes.add(OnServer::Parse, s, name, client.set(name, {s, {}}));
	}
	void TearDown() override
	{
		held.reset();
		Prepared::TearDown();
	}
	std::string meaning(const char *name) { return client.find(name) ? client.find(name)->body.c_str() : "nothing"; }
};

TEST_F(Notes, WhatIsVoidIsTakenBackLastFirst)
{
	set("s", intern("SELECT 0"));
	parse("s", "SELECT 1", 1);
	parse("s", "SELECT 2", 1);
	EXPECT_EQ(meaning("s"), "SELECT 2");
	EXPECT_TRUE(notes.unsettled("s", 2));
	EXPECT_FALSE(notes.unsettled("s", 1)) << "in its own batch";
	EXPECT_FALSE(notes.unsettled("t", 2));
	notes.make_void(2, &client);
	EXPECT_EQ(meaning("s"), "SELECT 0");
	EXPECT_TRUE(notes.empty());
	EXPECT_EQ(server.size(), 0u);
}

TEST_F(Notes, ANameThatIsTakenBackKeepsWhatItsClientWasTold)
{
	const Shape told{7, 11};
	set("s", intern("SELECT 0"));
	client.item("s")->learn(client.find("s"), told);
	parse("s", "SELECT 1", 1);
	EXPECT_FALSE(client.shape("s").known()) << "nothing of the new one";
	notes.make_void(1, &client);
	EXPECT_EQ(client.shape("s").types, told.types);
	EXPECT_EQ(client.shape("s").columns, told.columns);

	notes.note_batch(2); // a Close
	notes.add(OnServer::Nothing, nullptr, "s", client.set("s", {}));
	EXPECT_EQ(meaning("s"), "nothing");
	notes.make_void(1, &client);
	EXPECT_EQ(meaning("s"), "SELECT 0");
	EXPECT_EQ(client.shape("s").types, told.types);
	EXPECT_EQ(client.shape("s").columns, told.columns);
}

TEST_F(Notes, WhatIsConfirmedStands)
{
	parse("s", "SELECT 1", 1);
	parse("t", "SELECT 2", 1);
	notes.confirm(nullptr);
	notes.make_void(UINT32_MAX, &client);
	notes.confirm(nullptr);
	EXPECT_EQ(meaning("s"), "SELECT 1");
	EXPECT_EQ(meaning("t"), "nothing");
	EXPECT_EQ(server.size(), 1u);
}

TEST_F(Notes, BehindDeallocateAllOnlyWhatWillBeStays)
{
	set("s", intern("SELECT 0"));
	const std::string before = client.find("s")->name;
	parse("s", "SELECT 1", 1);
	EXPECT_EQ(notes.name_of(before), "s");
	EXPECT_EQ(notes.name_of("_pgpool_0"), "");
	EXPECT_TRUE(notes.will_be("s", client.find("s")));
	EXPECT_FALSE(notes.will_be("t", client.find("s")));
	EXPECT_FALSE(notes.will_be("s", nullptr));
	notes.forget_before();
	notes.make_void(1, &client);
	EXPECT_EQ(meaning("s"), "nothing");
}

TEST_F(Notes, AServerThatEndsGivesBackWhatItsNotesHold)
{
	parse("s", "SELECT 1", 1);
	parse("s", "SELECT 2", 1);
}

TEST_F(Prepared, BeginIsKnownByItsFirstWord)
{
	for (const char *text : {"BEGIN", "begin work", "Start Transaction", "SELECT 1", "COMMIT"}) {
		Statement *s = intern(text);
		EXPECT_EQ(s->begins, *text == 'B' || *text == 'b' || text[1] == 't') << text;
		store.release(s);
	}
}

// ---- numbers, and what is saved

TEST(StatementNumbers, ThoseOfTwoWorkersAreNeverTheSame)
{
	StatementStore first(0, 3), third(2, 3);
	std::vector<Statement *> all;
	for (const char *text : {"SELECT 1", "SELECT 2", "SELECT 3"}) {
		all.push_back(first.intern(body(text), ""));
		EXPECT_EQ(all.back()->number % 3, 1u);
		EXPECT_FALSE(third.may_exist(0));
		EXPECT_TRUE(third.may_exist(all.back()->number));
		first.release(all.back());
	}
	Statement *s = third.intern(body("SELECT 1"), "");
	EXPECT_EQ(s->name, "_pgpool_3");
	EXPECT_TRUE(third.may_exist(3));
	EXPECT_FALSE(third.may_exist(6)) << "not given yet";
	EXPECT_TRUE(third.may_exist(7));
	third.release(s);
}

TEST_F(Prepared, WhatABackendHasIsSavedAndLoaded)
{
	Statement *one = parsed("SELECT 1"), *two = parsed("SELECT 2");
	Statement *on_its_way = intern("SELECT 3");
	server.parsing(on_its_way, 1, store.clock());
	const std::string saved = server.save();

	StatementStore elsewhere(5, 9);
	ServerStatements there;
	ASSERT_TRUE(there.load(saved, elsewhere));
	EXPECT_EQ(there.save(), saved);
	EXPECT_EQ(there.will_be(), 2u);
	Statement *oldest = there.surplus(1, 1);
	ASSERT_NE(oldest, nullptr);
	EXPECT_EQ(oldest->name, one->name);
	Statement *same_text = elsewhere.intern(body("SELECT 1"), "UTF8");
	EXPECT_NE(same_text, oldest) << "nobody knows whether that is its text";
	elsewhere.release(same_text);
	ServerStatements once_more;
	ASSERT_TRUE(once_more.load(saved, elsewhere));
	EXPECT_EQ(elsewhere.size(), 2u) << "the same ones";
	once_more.drop_all(elsewhere);
	there.drop_all(elsewhere);
	EXPECT_EQ(elsewhere.size(), 0u);

	ServerStatements back; // where they are known
	ASSERT_TRUE(back.load(saved, store));
	EXPECT_EQ(back.has(two, 1), Has::Outdated) << "parsed nobody knows when";
	EXPECT_FALSE(back.present(one));
	back.drop_all(store);
	server.take_back(on_its_way, store);
	store.release(on_its_way);
}

TEST_F(Prepared, SavedStatementsThatCannotBeAreRefused)
{
	parsed("SELECT 1");
	parsed("SELECT 2");
	const std::string saved = server.save();
	ServerStatements other;
	for (size_t n = 0; n < saved.size(); n++)
		EXPECT_FALSE(other.load(std::string_view(saved).substr(0, n), store)) << n;
	EXPECT_FALSE(other.load(saved + '\0', store));
	auto with = [&](size_t at, char byte) {
		std::string bytes = saved;
		bytes[at] = byte;
		return bytes;
	};
	EXPECT_FALSE(other.load(with(0, 9), store)) << "of another version";
	EXPECT_FALSE(other.load(with(1, '\x7f'), store)) << "too many";
	EXPECT_FALSE(other.load(with(saved.size() - 1, 1), store)) << "one of them twice";
	EXPECT_FALSE(other.load(with(saved.size() - 1, 0), store)) << "no number";
	EXPECT_FALSE(other.load(with(saved.size() - 1, 77), store)) << "of this worker, and not given yet";
	EXPECT_EQ(other.size(), 0u);
	EXPECT_EQ(store.size(), 2u);
}

} // namespace
