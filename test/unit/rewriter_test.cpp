// Statements of one client on one backend, without a session, a server or a world: what the rewriter makes of messages,
// and what a backend's replies make of that.
#include "core/statements/backend_statements.hpp"
#include "core/statements/rewriter.hpp"

#include <gtest/gtest.h>

#include "wire/messages.hpp"

namespace
{

using namespace wire;
using namespace pgpool::core;
namespace region = pgpool::region;
using Verdict = StatementRewriter::Verdict;

const std::string kSync = message('S');

std::string error(std::string_view code, std::string_view text, std::string_view routine = "")
{
	std::string body;
	Writer(body).string("SERROR").string("C" + std::string(code)).string("M" + std::string(text));
	Writer(body).string("R" + std::string(routine)).u8(0);
	return body;
}

// A backend as its server keeps it.
struct Backend {
	Backend(StatementPool &pool, const Params &params, uint64_t assignment, StatementRewriter &client)
	    : statements(pool, replies, params, agent, substitute)
	{
		statements.assigned(assignment, client);
		replies.sent('S', For::Sync); // what made it ready
		replies.received('Z', 'I');
	}
	Replies replies;
	AgentLink agent;
	Substitute substitute;
	BackendStatements statements;
};

class Rewriter : public ::testing::Test
{
protected:
	void SetUp() override
	{
		limits.max_client_statements = limits.max_prepared_statements = 100;
		limits.client_statement_memory = 1000;
	}
	void TearDown() override
	{
		client.forget();
		first.statements.make_all_void(nullptr);
		first.statements.table().drop_all(store);
		second.statements.table().drop_all(store);
		EXPECT_EQ(store.size(), 0u) << "a reference was lost";
	}

	// What a backend hears of the client's messages: type and name of a statement. Ends where the client has to wait.
	std::string send(Backend &to, std::string_view bytes)
	{
		std::string out;
		verdict = Verdict::Verbatim;
		while (!bytes.empty() && verdict != Verdict::Settle && verdict != Verdict::More) {
			const size_t total = size_of_first(bytes);
			const StatementRewriter::Message m{bytes.data(), std::min(total, bytes.size()), total};
			StatementRewriter::Taken taken;
			const bool names = std::string_view("PBDCQ").find(m.type()) != std::string_view::npos;
			verdict = names ? client.rewrite(to.statements, m, out, taken) : Verdict::Verbatim;
			if (verdict == Verdict::Verbatim) {
				client.account(to.statements, m);
				taken.used = 0;
			}
			if (verdict == Verdict::Verbatim || verdict == Verdict::Done)
				out += bytes.substr(taken.used, total - taken.used);
			bytes.remove_prefix(std::min(total, bytes.size()));
		}
		return heard(out);
	}
	static std::string heard(std::string_view bytes)
	{
		std::string text;
		while (!bytes.empty()) {
			const size_t total = size_of_first(bytes);
			const char type = bytes[0];
			const std::string_view body = bytes.substr(5, total - 5);
			const char *name = type == 'P'                  ? body.data()
			                   : type == 'B'                ? body.data() + body.find('\0') + 1
			                   : type == 'D' || type == 'C' ? body.data() + 1
			                                                : "";
			text += (text.empty() ? "" : " ") + std::string(1, type) + (*name ? ":" + std::string(name) : "");
			bytes.remove_prefix(total);
		}
		return text;
	}
	void answer_ourselves(Backend &instead_of)
	{
		while (instead_of.replies.fake_due()) {
			instead_of.replies.take_fake();
			instead_of.statements.on_fake(&client);
		}
	}
	// A message of the backend. True: it goes to the client as it is.
	bool reply(Backend &from, char type, std::string_view body = {})
	{
		answer_ourselves(from);
		const Replies::Verdict v = from.replies.received(type, type == 'Z' ? body[0] : '\0');
		EXPECT_FALSE(v.violation) << type;
		bool forward = v.forward;
		from.statements.on_reply(type, v, body, &client, forward);
		started_over = false;
		if (type == 'E') {
			from.statements.make_void(v, &client);
			started_over = v.forward && from.statements.may_start_over(v, body);
			if (started_over)
				from.statements.start_over(v, body, client);
			else if (v.forward && from.statements.replace_error(v, body, client))
				forward = false;
		}
		const Substitute::Due due = from.substitute.take(type, forward);
		instead = due.instead ? *due.instead : std::string();
		before = due.before ? *due.before : std::string();
		answer_ourselves(from);
		return forward;
	}
	void replies(Backend &from, const char *types)
	{
		for (; *types; types++) {
			const bool ready = *types == 'Z', described = *types == 't' || *types == 'T';
			reply(from, *types, ready ? std::string_view(types + 1, 1) : std::string_view("\0\0", described ? 2 : 0));
			types += ready;
		}
	}
	// `text` under `name`, and the backend has it.
	void prepare(Backend &on, std::string_view text, std::string_view name)
	{
		send(on, parse(text, name) + kSync);
		replies(on, "1tnZI");
	}
	bool client_has(std::string_view name) { return client.names() && client.names()->find(name); }

	StatementStore store;
	region::Atomic<uint64_t> changes[region::kCatalogCounters] = {};
	CatalogClock catalog{changes, store};
	region::Settings limits = {};
	region::PoolSlot slot = {};
	region::PoolCounters counters = {};
	StatementPool pool{store, catalog, limits, slot, counters, 1};
	ParamStore sets;
	Params params = sets.empty();
	StatementRewriter client;
	Backend first{pool, params, 1, client}, second{pool, params, 2, client};
	Verdict verdict = Verdict::Verbatim;
	std::string instead, before;
	bool started_over = false;
};

TEST_F(Rewriter, AClientWithoutAStatementOfItsOwnHasNoNames)
{
	EXPECT_EQ(send(first, query("SELECT 1")), "Q");
	EXPECT_EQ(client.names(), nullptr);
	EXPECT_FALSE(client.pins());
	EXPECT_FALSE(client.has_cleanup());
	client.on_idle(params);
	client.on_discarded(first.statements.notes());
	EXPECT_EQ(client.names(), nullptr);
}

TEST_F(Rewriter, TheBackendHearsOurNameAndWhatItHasIsNotSentAgain)
{
	EXPECT_EQ(send(first, parse("SELECT 1", "s") + bind_to("s") + kSync), "P:_pgpool_1 D:_pgpool_1 B:_pgpool_1 S");
	replies(first, "1tn2ZI");
	EXPECT_EQ(send(first, bind_to("s") + describe('S', "s") + kSync), "B:_pgpool_1 D:_pgpool_1 S");
	replies(first, "2tnZI");
	EXPECT_EQ(send(first, parse("SELECT 1", "t") + bind_to("t") + kSync), "B:_pgpool_1 S");
	EXPECT_TRUE(client_has("t"));
	EXPECT_EQ(counters.statement_parses.load(), 1u);
	replies(first, "2ZI");
	EXPECT_EQ(send(second, bind_to("s") + kSync), "P:_pgpool_1 D:_pgpool_1 B:_pgpool_1 S");
	replies(second, "1tn2ZI");
}

TEST_F(Rewriter, AnErrorTakesBackWhatItMadeTheBackendSkip)
{
	send(first, parse("wrong", "a") + parse("SELECT 1", "b") + kSync);
	EXPECT_TRUE(client_has("a") && client_has("b"));
	EXPECT_TRUE(reply(first, 'E', error("42601", "syntax error")));
	EXPECT_FALSE(client_has("a") || client_has("b"));
	replies(first, "ZI");
	EXPECT_EQ(first.statements.table().size(), 0u);
	EXPECT_TRUE(first.statements.notes().empty());
}

TEST_F(Rewriter, ANameThatAnEarlierBatchDecidesWaitsForItsEnd)
{
	send(first, parse("SELECT 1", "s") + kSync);
	EXPECT_EQ(send(first, bind_to("s")), "");
	EXPECT_EQ(verdict, Verdict::Settle);
	EXPECT_TRUE(client.waits() && client.waits_for_round());
	replies(first, "1tnZI");
	client.settled();
	EXPECT_FALSE(client.waits());
	EXPECT_EQ(send(first, bind_to("s") + kSync), "B:_pgpool_1 S");
	replies(first, "2ZI");
}

TEST_F(Rewriter, WhoseColumnsAreNotKnownWaitsForRepliesAndNotForARound)
{
	prepare(first, "SELECT 1", "s");
	changes[0].store(1); // somebody changed the catalog
	Statement *s = client.names()->find("s");
	pool.renew_if_changed(s);
	EXPECT_EQ(send(first, bind_to("s")), "C:_pgpool_1 P:_pgpool_1 D:_pgpool_1 H");
	EXPECT_EQ(verdict, Verdict::Settle);
	EXPECT_TRUE(client.waits());
	EXPECT_FALSE(client.waits_for_round());
	EXPECT_FALSE(client.has_what_it_awaits(first.replies));
	replies(first, "31tn");
	EXPECT_TRUE(client.has_what_it_awaits(first.replies));
	client.settled();
	EXPECT_EQ(send(first, bind_to("s") + kSync), "B:_pgpool_1 S");
	replies(first, "2ZI");
}

TEST_F(Rewriter, ANameLikeOursIsNeverHeardAsItIs)
{
	const std::string text = bind_to("_pgpool_7");
	EXPECT_EQ(send(first, text + kSync), "B:?pgpool_7 S");
	EXPECT_FALSE(reply(first, 'E', error("26000", "prepared statement \"?pgpool_7\" does not exist")));
	EXPECT_NE(instead.find("\"_pgpool_7\""), std::string::npos) << "the client's own word";
	replies(first, "ZI");
	EXPECT_EQ(StatementRewriter::name_to_disguise({text.data(), text.size(), text.size()}), 6u);
}

TEST_F(Rewriter, AnErrorThatNamesAStatementHasTheClientsName)
{
	prepare(first, "SELECT $1", "mine");
	send(first, bind_to("mine") + kSync);
	EXPECT_FALSE(reply(first, 'E',
	                   error("08P01", "bind message supplies 0 parameters, but prepared statement "
	                                  "\"_pgpool_1\" requires 1")));
	EXPECT_NE(instead.find("\"mine\""), std::string::npos);
	replies(first, "ZI");
}

TEST_F(Rewriter, ATextThatIsTooLongGoesUnderItsOwnNameAndSoDoAllBehindIt)
{
	EXPECT_EQ(send(first, parse(std::string(2 << 20, 'x'), "s") + parse("SELECT 1", "t")), "P:s P:t");
	EXPECT_TRUE(client.pins() && client.uses_own_names());
	EXPECT_FALSE(client_has("s") || client_has("t"));
	replies(first, "11");
	client.on_discarded(first.statements.notes());
	EXPECT_FALSE(client.pins());
}

TEST_F(Rewriter, InSessionModeNamesStayAsTheyAre)
{
	client.set_session_mode(true);
	EXPECT_EQ(send(first, parse("SELECT 1", "s") + bind_to("s") + kSync), "P:s B:s S");
	client.on_discarded(first.statements.notes());
	EXPECT_TRUE(client.uses_own_names()) << "whatever it discards";
	replies(first, "12ZI");
}

TEST_F(Rewriter, TheUnnamedStatementFollowsItsClientToAnotherBackend)
{
	EXPECT_EQ(send(first, parse("SELECT 1") + kSync), "P S");
	replies(first, "1ZI");
	EXPECT_EQ(send(second, bind_to() + kSync), "P:_pgpool_1 D:_pgpool_1 B:_pgpool_1 S");
	replies(second, "1tn2ZI");
	send(first, query("SELECT 1"));
	replies(first, "CZI");
	EXPECT_EQ(send(second, bind_to() + kSync), "C B S") << "a Query ends it; what another left there is closed";
	replies(second, "3");
	reply(second, 'E', error("26000", "unnamed prepared statement does not exist"));
	replies(second, "ZI");
}

TEST_F(Rewriter, ACloseTakesTheNameAndNotTheStatement)
{
	prepare(first, "SELECT 1", "s");
	EXPECT_EQ(send(first, close_name('S', "s") + kSync), "S");
	EXPECT_FALSE(client_has("s"));
	replies(first, "ZI");
	EXPECT_EQ(first.statements.table().size(), 1u);
}

TEST_F(Rewriter, WhoHasTooManyIsToldByTheBackendsError)
{
	limits.max_client_statements = 1;
	prepare(first, "SELECT 1", "s");
	EXPECT_EQ(send(first, parse("SELECT 2", "t") + kSync), "P:_pgpool_scratch S");
	EXPECT_FALSE(reply(first, 'E', error("42601", "syntax error")));
	EXPECT_NE(instead.find("53400"), std::string::npos);
	EXPECT_FALSE(client_has("t"));
	replies(first, "ZI");
}

TEST_F(Rewriter, WhatADeallocateNamesIsTheClients)
{
	prepare(first, "SELECT 1", "s");
	EXPECT_EQ(send(first, query("DEALLOCATE s")), "C:_pgpool_scratch P:_pgpool_scratch Q");
	EXPECT_FALSE(client_has("s"));
	replies(first, "31");
	EXPECT_TRUE(reply(first, 'E', error("25P02", "the transaction is aborted")));
	EXPECT_TRUE(client_has("s")) << "it was not executed";
	replies(first, "ZI");
}

TEST_F(Rewriter, WithoutAServerAParseIsAnsweredIfOneHasIt)
{
	const std::string bytes = parse("SELECT 1", "s");
	const StatementRewriter::Message m{bytes.data(), bytes.size(), bytes.size()};
	std::string answers;
	EXPECT_FALSE(client.answer(pool, params, m, answers, [](Statement *, Shape &) { return false; }));
	EXPECT_EQ(answers + (client_has("s") ? "s" : ""), "");
	EXPECT_TRUE(client.answer(pool, params, m, answers, [](Statement *, Shape &) { return true; }));
	EXPECT_TRUE(client_has("s"));
	const std::string close = close_name('S', "s");
	EXPECT_TRUE(client.answer(pool, params, {close.data(), close.size(), close.size()}, answers,
	                          [](Statement *, Shape &) { return false; }));
	EXPECT_FALSE(client_has("s"));
	EXPECT_EQ(heard(answers), "1 3");
}

// ---- what a backend has

TEST_F(Rewriter, ABatchThatBeginsWithAStaleStatementIsServedAgainIfItAsksForTheColumns)
{
	prepare(first, "SELECT 1", "s");
	const std::string batch = bind_to("s") + describe('P') + kSync;
	const std::string stale = error("0A000", "cached plan must not change result type", "RevalidateCachedQuery");
	send(first, batch);
	ASSERT_TRUE(first.statements.replay().on());
	first.statements.replay().add(batch);
	reply(first, 'E', stale);
	EXPECT_TRUE(started_over);
	replies(first, "ZI");
	EXPECT_EQ(send(first, batch), "C:_pgpool_1 P:_pgpool_1 D:_pgpool_1 H") << "and asks for them itself, before that";
	replies(first, "31tn");
	client.settled();
	EXPECT_EQ(send(first, batch), "B:_pgpool_1 D S");
	replies(first, "2nZI");

	send(first, bind_to("s") + kSync);
	first.statements.replay().add(bind_to("s") + kSync);
	EXPECT_TRUE(reply(first, 'E', stale)) << "it goes by a description from before";
	EXPECT_FALSE(started_over);
	replies(first, "ZI");
}

TEST_F(Rewriter, TypesThatMayYetBeStaleAreWithheld)
{
	prepare(first, "SELECT 1", "s");
	send(first, describe('S', "s") + kSync);
	EXPECT_FALSE(reply(first, 't', std::string_view("\0\0", 2)));
	EXPECT_EQ(before, "");
	EXPECT_TRUE(reply(first, 'n'));
	EXPECT_EQ(before, message('t', std::string_view("\0\0", 2)));
	replies(first, "ZI");
}

TEST_F(Rewriter, DiscardedByTheBackendIsForgottenByTheClient)
{
	prepare(first, "SELECT 1", "s");
	first.statements.on_discarded(&client);
	EXPECT_FALSE(client_has("s"));
	EXPECT_EQ(first.statements.table().size(), 0u);
}

TEST_F(Rewriter, TheLeastRecentlyUsedMakeRoom)
{
	for (const char *name : {"a", "b", "c"})
		prepare(first, name, name);
	std::string out;
	EXPECT_FALSE(first.statements.has_too_many());
	limits.max_prepared_statements = 1;
	EXPECT_TRUE(first.statements.has_too_many());
	EXPECT_TRUE(first.statements.close_surplus(first.statements.most(), out));
	EXPECT_EQ(heard(out), "C:_pgpool_1 C:_pgpool_2");
	EXPECT_EQ(counters.statement_evictions.load(), 2u);
	replies(first, "33");
	EXPECT_FALSE(first.statements.has_too_many());
}

TEST_F(Rewriter, WithoutAnAgentNoPlanIsMadeForItsParametersEachTime)
{
	slot.settings.cache_unnamed.store(region::CacheUnnamed::Custom);
	region::AgentSlot agent = {};
	send(first, parse("SELECT 1") + parse("SELECT 1") + kSync);
	EXPECT_EQ(store.size(), 0u);
	replies(first, "11ZI");
	first.agent.take(0, agent);
	first.agent.answers(true);
	EXPECT_EQ(send(first, parse("SELECT 2") + kSync), "P S") << "one that comes once is not shared";
	replies(first, "1ZI");
	EXPECT_EQ(send(first, parse("SELECT 2") + kSync), "P:_pgpool_1 D:_pgpool_1 S");
	EXPECT_EQ(agent.custom_written.load(), 1u);
	EXPECT_EQ(agent.custom[0].load(), 1u);
	replies(first, "1tnZI");
}

} // namespace
