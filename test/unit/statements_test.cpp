// Prepared statements of sessions: what the client is answered, and what the backend hears of it.
#include "session_fixture.hpp"

namespace
{

using namespace fake;

class Statements : public Session
{
protected:
	void SetUp() override
	{
		world.settings().pool_size.store(1);
		world.view.header()->settings.max_prepared_statements = 100;
		world.engine().on_settings(world.view.header()->settings);
	}
	// Types of the messages that the first backend got since it was last asked; after an error in lower case.
	std::string heard() { return std::exchange(backend().history, std::string()); }
	void alter()
	{
		world.catalog->version++;
		if (world.catalog->changed)
			world.catalog->changed();
	}
	void limit(int statements, int kilobytes)
	{
		region::Settings &settings = world.view.header()->settings;
		settings.max_client_statements = statements;
		settings.client_statement_memory = kilobytes;
		world.engine().on_settings(settings);
	}
	std::string error_text(Stream *s, const std::string &bytes, char field = 'M')
	{
		send(s, bytes);
		for (const Message &m : take_messages(s->to_peer)) {
			if (m.type == 'E')
				return std::string(pgpool::proto::error_field(m.body, field));
		}
		return "no error";
	}
	static std::string use(std::string_view name = "") { return bind_to(name) + execute() + kSync; }
};

// ---- changes of the catalog

TEST_F(Statements, WhoPreparesAfterAChangeOfTheCatalogGetsTheStatementAnew)
{
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, parse("TYPES x", "s") + use("s")), "1 2 D:v1 C:SELECT 1 Z:I");
	heard();
	EXPECT_EQ(ask(b, parse("TYPES x", "s") + use("s")), "1 2 D:v1 C:SELECT 1 Z:I");
	EXPECT_EQ(heard(), "BES") << "nothing has changed";
	alter();
	EXPECT_EQ(ask(a, use("s")), "2 D:v1 C:SELECT 1 Z:I") << "as it was prepared";
	heard();
	EXPECT_EQ(ask(b, parse("TYPES x", "t") + kSync), "1 Z:I");
	EXPECT_EQ(heard(), "CPDS") << "and is asked what it looks like now";
	EXPECT_EQ(ask(b, use("t")), "2 D:v2 C:SELECT 1 Z:I");
	EXPECT_EQ(heard(), "BES");
	EXPECT_EQ(ask(a, parse("TYPES x", "t") + kSync), "1 Z:I");
	EXPECT_EQ(heard(), "") << "it is up to date, and no server is needed";
}

TEST_F(Statements, WhatIsAtWorkMayChangeTheCatalogSoAParseBehindItIsReal)
{
	Stream *a = login();
	ask(a, parse("TYPES x", "s") + kSync);
	EXPECT_EQ(ask(a, parse("ALTER c1.x") + bind_to() + execute() + parse("TYPES x", "t") + use("t")),
	          "1 2 C:ALTER 1 2 D:v2 C:SELECT 1 Z:I");
	ask(a, parse("TYPES x", "v") + kSync);
	heard();
	EXPECT_EQ(ask(a, parse("BEGIN c1.y", "b") + bind_to("b") + execute() + parse("TYPES x", "u") + use("u")),
	          "1 2 C:BEGIN 1 2 D:v2 C:SELECT 1 Z:T");
	EXPECT_EQ(heard(), "PDBEBES") << "BEGIN changes nothing";
	ask(a, query("COMMIT"));
}

TEST_F(Statements, AParseBehindAChangeOfTheSamePipelineHoldsForAllServers)
{
	world.settings().pool_size.store(2);
	Stream *a = login(), *b = login(), *c = login();
	ask(b, query("BEGIN c2.x"));
	ask(b, parse("TYPES x", "s") + kSync);
	EXPECT_EQ(ask(a, parse("TYPES x", "s") + use("s")), "1 2 D:v1 C:SELECT 1 Z:I");
	ask(b, query("COMMIT c2.y")); // two servers have it
	EXPECT_EQ(ask(c, query("ALTER c3.x") + parse("TYPES x", "s") + kSync), "C:ALTER Z:I 1 Z:I");
	ask(b, query("BEGIN c2.z")); // takes the one that c had
	EXPECT_EQ(ask(c, use("s")), "2 D:v2 C:SELECT 1 Z:I");
	ask(b, query("COMMIT c2.z"));
}

// ---- statements that a backend calls stale

TEST_F(Statements, AStaleStatementIsServedAgainWhenTheBatchAsksForADescription)
{
	for (const std::string &before : {describe('S', "s"), std::string()}) {
		Stream *a = login();
		EXPECT_EQ(ask(a, parse("SHAPE x", "s") + kSync), "1 Z:I");
		alter();
		heard();
		EXPECT_EQ(ask(a, before + bind_to("s") + describe('P') + execute() + kSync),
		          (before.empty() ? "" : "t T ") + std::string("2 T D:x C:SELECT 1 Z:I"));
		EXPECT_NE(heard().find("CP"), std::string::npos);
		EXPECT_EQ(ask(a, use("s")), "2 D:x C:SELECT 1 Z:I");
		EXPECT_EQ(heard(), "BES");
		send(a, message('X'));
	}
}

TEST_F(Statements, AClientThatGoesByAnEarlierDescriptionIsToldAndMayPrepareAnew)
{
	world.catalog->changed = nullptr; // as on a standby
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I");
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I");
	EXPECT_EQ(ask(a, parse("SHAPE x", "t") + use("t")), "1 2 D:x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I") << "that name still has the old columns";
}

// The catalog changes between the Parse, which is answered here, and the Bind: a backend of the client's own has a
// lock.
TEST_F(Statements, WhatAClientPreparesInABatchIsNotStaleInItWhateverIsBehind)
{
	world.catalog->changed = nullptr; // the worker hears of it too late
	const std::string again = "1 2 D:x C:SELECT 1 Z:I";
	const std::pair<std::string, std::string> behind[] = {
	    {"", ""},
	    {kSync, " Z:I"},
	    {use("s"), " 2 D:x C:SELECT 1 Z:I"},
	    {parse("SHAPE y", "t") + use("t") + close_name('S', "t") + kSync, " 1 2 D:y C:SELECT 1 Z:I 3 Z:I"},
	    {query("SELECT 1"), " T D:1 C:SELECT 1 Z:I"},
	    {query(""), " I Z:I"},
	    {execute() + kSync, " E:34000 Z:I"},
	};
	for (const auto &[more, answer] : behind) {
		Stream *a = login();
		ask(a, parse("SHAPE x", "other") + kSync);
		alter();
		EXPECT_EQ(ask(a, parse("SHAPE x", "s") + use("s") + more), again + answer);
		send(a, message('X'));
	}
}

// What is behind it is the end: of the messages, or of the connection.
TEST_F(Statements, WhatAClientPreparesInABatchIsNotStaleInItWhenItLeavesBehindIt)
{
	world.catalog->changed = nullptr;
	for (const bool finishes : {false, true}) {
		world.settings().on_disconnect.store(finishes ? region::OnDisconnect::Finish : region::OnDisconnect::Cancel);
		for (const std::string &more : {message('X'), std::string()}) {
			Stream *a = login();
			ask(a, parse("SHAPE x", "other") + kSync);
			alter();
			a->peer_eof = more.empty();
			EXPECT_EQ(ask(a, parse("SHAPE x", "s") + use("s") + more), "1 2 D:x C:SELECT 1 Z:I") << finishes;
			world.pass(300);
			EXPECT_TRUE(a->closed);
			EXPECT_EQ(busy(), 0);
		}
	}
}

TEST_F(Statements, ABatchThatIsServedAgainFindsItsNamesAsTheyWere)
{
	world.settings().cache_unnamed.store(region::CacheUnnamed::Generic);
	world.catalog->changed = nullptr;
	Stream *a = login();
	for (int i = 0; i < 2; i++)
		ask(a, parse("SHAPE x", "") + use("") + parse("SHAPE z", "") + use(""));
	const std::string both = parse("SHAPE x", "") + bind_to("") + execute() + parse("SHAPE z", "") + use("");
	const std::string right = ask(a, both);
	alter();
	EXPECT_EQ(ask(a, both), right);
}

// By name, and not by what it stands for: another name of the same text goes by the columns that it was told.
TEST_F(Statements, OnlyNamesThatABatchPreparesTakeAnyColumns)
{
	world.catalog->changed = nullptr;
	Stream *a = login();
	ask(a, parse("SHAPE x", "other") + parse("SHAPE z", "twin") + kSync);
	alter();
	EXPECT_EQ(ask(a, parse("SHAPE x", "s") + parse("SHAPE z", "t") + use("s")), "1 1 2 D:x C:SELECT 1 Z:I");
	alter();
	EXPECT_EQ(ask(a, parse("SHAPE x", "u") + use("other")), "1 E:0A000 Z:I");
}

TEST_F(Statements, ABatchThatWaitedForAServerBehindItsParseGoesByNoColumnsYet)
{
	Stream *a = login(), *b = login();
	ask(b, parse("SHAPE x", "s") + kSync);
	ask(b, query("BEGIN"));
	EXPECT_EQ(ask(a, parse("SHAPE x", "s") + use("s")), "1") << "it was known";
	alter();
	ask(b, parse("SHAPE x", "t") + kSync);
	ask(b, query("COMMIT"));
	EXPECT_EQ(ask(a, ""), "2 D:x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(b, use("s")), "E:0A000 Z:I") << "it knew others";
}

TEST_F(Statements, TheDataOfACopyBehindTheSyncThatItEatsDoNotWaitForTheEndOfTheBatch)
{
	Stream *a = login();
	ask(a, parse("COPYIN x", "other") + kSync);
	EXPECT_EQ(ask(a, parse("COPYIN x", "s") + use("s") + message('d', "1\n") + message('c') + kSync),
	          "1 2 G C:COPY 1 Z:I");
}

TEST_F(Statements, ColumnsThatAClientKnowsAreNotThoseOfAnothersStatement)
{
	Stream *a = login(), *b = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	ask(b, parse("SHAPE x", "s") + kSync);
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I");
	EXPECT_EQ(ask(b, use("s")), "2 D:x C:SELECT 1 Z:I");
	ask(a, query("BEGIN"));
	EXPECT_EQ(ask(a, bind_to("s") + describe('P') + execute() + kSync), "E:0A000 Z:E") << "as PostgreSQL in a block";
	EXPECT_EQ(ask(a, use("s")), "E:25P02 Z:E");
	ask(a, query("ROLLBACK"));
	EXPECT_EQ(ask(a, bind_to("s") + describe('P') + execute() + kSync), "2 T D:x C:SELECT 1 Z:I") << "it is told";
	EXPECT_EQ(ask(a, use("s")), "2 D:x C:SELECT 1 Z:I") << "and knows";
}

TEST_F(Statements, AServerWithoutTheStatementIsAskedForItsColumnsWhenTheCatalogHasChanged)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + parse("TYPES x", "t") + kSync);
	auto move = [&] {
		world.backends.back()->die();
		world.settle();
	};
	auto asked = [&] { return std::exchange(world.backends.back()->history, std::string()); };
	move();
	EXPECT_EQ(ask(a, use("s")), "2 D:x C:SELECT 1 Z:I");
	EXPECT_NE(asked().find("PDBES"), std::string::npos) << "nothing has changed";
	alter();
	move();
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I");
	EXPECT_NE(asked().find("PDHP"), std::string::npos);
	EXPECT_EQ(ask(a, use("t")), "2 D:v2 C:SELECT 1 Z:I") << "it has the same columns";
	EXPECT_EQ(asked(), "PDHBES");
	move();
	EXPECT_EQ(ask(a, use("s")), "E:0A000 Z:I");
	EXPECT_EQ(ask(a, use("t")), "2 D:v2 C:SELECT 1 Z:I");
	EXPECT_EQ(asked().find('H'), std::string::npos) << "that is known already";
}

TEST_F(Statements, SettingsThatDecideWhatATextMeansAreNotShared)
{
	Stream *a = login(), *b = login();
	ask(b, query("SET TimeZone PST"));
	ask(a, parse("SELECT x", "s") + kSync);
	heard();
	EXPECT_EQ(ask(b, parse("SELECT x", "s") + kSync), "1 Z:I");
	EXPECT_EQ(heard(), "QPDS");
	EXPECT_EQ(ask(a, parse("SET TimeZone EST c1.x") + bind_to() + execute() + parse("SELECT x", "t") + kSync),
	          "1 2 C:SET 1 S:TimeZone=EST Z:I");
	heard();
	ask(a, parse("SELECT x", "u") + kSync);
	EXPECT_EQ(heard(), "PDS") << "when t was prepared nobody knew yet what was at work";
}

TEST_F(Statements, AClientThatHasJustPreparedItKnowsNoOtherColumns)
{
	world.catalog->changed = nullptr; // as when the change comes a moment later
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	EXPECT_EQ(ask(a, parse("SHAPE x", "t") + use("t")), "1 2 D:x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, use("t")), "2 D:x C:SELECT 1 Z:I");
}

TEST_F(Statements, AStaleStatementInABlockIsTheClientsError)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	ask(a, query("BEGIN"));
	alter();
	EXPECT_EQ(ask(a, bind_to("s") + describe('P') + execute() + kSync), "E:0A000 Z:E");
	EXPECT_EQ(ask(a, query("ROLLBACK")), "C:ROLLBACK Z:I");
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, describe('S', "s") + bind_to("s") + execute() + kSync), "t E:0A000 Z:E");
	ask(a, query("ROLLBACK"));
}

TEST_F(Statements, ABatchWithoutASyncIsServedAgainAndGoesOn)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	EXPECT_EQ(ask(a, bind_to("s") + describe('P') + kFlush), "2 T");
	EXPECT_EQ(ask(a, execute() + kSync), "D:x C:SELECT 1 Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Statements, BehindSomethingThatWasToldTheErrorIsTheClients)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + parse("SELECT c1.x", "t") + kSync);
	alter();
	EXPECT_EQ(ask(a, bind_to("t") + execute() + bind_to("s") + describe('P') + execute() + kSync),
	          "2 D:c1.x C:SELECT 1 E:0A000 Z:I");
}

TEST_F(Statements, ABatchThatIsTooLongToBeKeptIsNotServedAgain)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	const std::string big = bind_to("s", "", {std::string(70000, 'x')});
	EXPECT_EQ(ask(a, big + describe('P') + execute() + kSync), "E:0A000 Z:I");
}

TEST_F(Statements, AClientThatLeavesWhileItsBatchIsServedAgainLeavesNothing)
{
	Stream *a = login();
	ask(a, parse("SHAPE x", "s") + kSync);
	alter();
	a->from_peer = bind_to("s") + describe('P') + execute() + kSync;
	Stream *s = world.stream_of(&backend());
	while (world.stream_event(a, SIZE_MAX)) {
	}
	world.backend_event(s, SIZE_MAX, SIZE_MAX);
	world.stream_event(s, SIZE_MAX); // the error
	a->peer_eof = a->peer_gone = true;
	world.settle();
	Stream *b = login();
	EXPECT_EQ(ask(b, parse("SHAPE x", "s") + use("s")), "1 2 D:x C:SELECT 1 Z:I");
}

// ---- statements that were taken away behind our back

TEST_F(Statements, WhatWasTakenAwayIsPreparedAgain)
{
	Stream *a = login(), *b = login();
	ask(a, parse("SELECT c1.x", "s") + parse("SELECT c1.y", "t") + kSync);
	EXPECT_EQ(ask(b, query("FORGET c2.x")), "C:FORGET Z:I");
	EXPECT_EQ(ask(a, bind_to("s") + execute() + bind_to("t") + execute() + kSync),
	          "2 D:c1.x C:SELECT 1 2 D:c1.y C:SELECT 1 Z:I");
	ask(b, query("FORGET c2.y"));
	EXPECT_EQ(ask(a, describe('S', "t") + kSync), "t T Z:I");
}

TEST_F(Statements, InABlockTheClientIsToldOfItByItsOwnName)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "mine") + kSync);
	ask(a, query("BEGIN; FORGET c1.y"));
	EXPECT_EQ(error_text(a, use("mine")), "prepared statement \"mine\" does not exist");
	ask(a, query("ROLLBACK"));
	EXPECT_EQ(ask(a, use("mine")), "2 D:c1.x C:SELECT 1 Z:I");
}

TEST_F(Statements, NamesLikePgpoolsOwnAreTheClientsAlone)
{
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, parse("SELECT c1.a", "s") + kSync), "1 Z:I");
	EXPECT_EQ(ask(a, use("s")), "2 D:c1.a C:SELECT 1 Z:I");
	for (const std::string name : {"_pgpool_0", "_pgpool_1", "_pgpool_2", "_pgpool_scratch", "_pgpool_nowhere"}) {
		EXPECT_EQ(ask(b, bind_to(name) + kSync), "E:26000 Z:I") << name;
		EXPECT_EQ(ask(b, parse("SELECT c2.a", name) + kSync), "1 Z:I") << name;
		EXPECT_EQ(error_text(b, parse("SELECT c2.b", name) + kSync),
		          "prepared statement \"" + name + "\" already exists");
		EXPECT_EQ(ask(b, use(name)), "2 D:c2.a C:SELECT 1 Z:I") << name;
		heard();
		EXPECT_EQ(ask(a, use("s")), "2 D:c1.a C:SELECT 1 Z:I") << name;
		EXPECT_EQ(heard(), "BES") << "it is still there beside " << name;
	}
}

// What pgpool does about the unnamed statement that another client left there was skipped itself.
TEST_F(Statements, TheUnnamedStatementOfAnotherIsNotUsedBehindABatchThatWasSkipped)
{
	for (const bool at_once : {false, true}) {
		Stream *a = login(), *b = login();
		ask(a, parse("SELECT c1.a") + kSync);
		if (at_once) {
			EXPECT_EQ(ask(b, bind_to("nope") + describe('S', "") + kSync + use("")), "E:26000 Z:I E:26000 Z:I");
			continue;
		}
		EXPECT_EQ(ask(b, bind_to("nope") + kFlush), "E:26000");
		EXPECT_EQ(ask(b, describe('S', "") + kSync), "Z:I");
		EXPECT_EQ(ask(b, use("")), "E:26000 Z:I");
	}
	EXPECT_EQ(world.backends.size(), 1u);
}

// A reply of ours that is due at once waits for the end of a message that is here in part.
TEST_F(Statements, ACloseIsNotAnsweredInTheMiddleOfAReply)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "s") + kSync);
	Stream *s = world.stream_of(&backend());
	a->from_peer = describe('S', "s") + kFlush;
	while (world.stream_event(a, SIZE_MAX)) {
	}
	while (world.backend_event(s, SIZE_MAX, SIZE_MAX)) {
	}
	world.stream_event(s, s->from_peer.size() - 3);
	a->from_peer = close_name('S', "s");
	while (world.stream_event(a, SIZE_MAX)) {
	}
	world.settle();
	EXPECT_EQ(ask(a, kSync), "t T 3 Z:I");
}

// To PostgreSQL the stream is out of step then: it ends the connection.
TEST_F(Statements, ACloseEndsACopyThatIsAboutToBegin)
{
	Stream *a = login(), *b = login();
	const std::string copy = parse("COPYIN c1.1") + bind_to() + execute();
	const std::string refused = ask(a, copy + close_name('S', "s") + kSync);
	EXPECT_NE(refused.find("08P01"), std::string::npos) << refused;
	EXPECT_TRUE(a->closed);
	EXPECT_EQ(ask(b, query("SELECT c2.1")), "T D:c2.1 C:SELECT 1 Z:I");
}

// ---- limits

TEST_F(Statements, AClientIsRefusedMoreStatementsThanItMayHave)
{
	Stream *a = login();
	limit(2, 1000);
	EXPECT_EQ(ask(a, parse("SELECT c1.a", "a") + parse("SELECT c1.b", "b") + kSync), "1 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.c", "c") + use("c")), "E:53400 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.a", "c") + kSync), "E:53400 Z:I") << "also when no server would be needed";
	EXPECT_EQ(error_text(a, parse("SELECT c1.c", "c") + kSync, 'H'),
	          "Close statements that are not needed, or raise pgpool.max_client_statements, now 2.");
	EXPECT_EQ(ask(a, parse("SELECT c1.c", "b") + kSync), "E:42P05 Z:I") << "a name that is taken comes first";
	EXPECT_EQ(ask(a, parse("SELECT c1.d") + use()), "1 2 D:c1.d C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, close_name('S', "a") + parse("SELECT c1.c", "c") + use("c")), "3 1 2 D:c1.c C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, parse("SELECT c1.e", "e") + kSync), "E:53400 Z:E");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:ROLLBACK Z:I");
}

TEST_F(Statements, AndMoreTextThanItMayHave)
{
	Stream *a = login();
	limit(100, 1);
	EXPECT_EQ(ask(a, parse("SELECT c1.a" + std::string(600, ' '), "a") + kSync), "1 Z:I");
	const std::string more = parse("SELECT c1.b" + std::string(600, ' '), "b") + kSync;
	EXPECT_EQ(ask(a, more), "E:53400 Z:I");
	EXPECT_EQ(error_text(a, more, 'H'),
	          "Close statements that are not needed, or raise pgpool.client_statement_memory, now 1 kB.");
	EXPECT_EQ(ask(a, close_name('S', "a") + more), "3 1 Z:I");
}

// ---- DEALLOCATE and DISCARD by SQL

TEST_F(Statements, DeallocateTakesTheClientsNameAndNobodyElses)
{
	Stream *a = login(), *b = login();
	for (Stream *s : {a, b})
		ask(s, parse("SELECT c1.x", "s") + kSync);
	EXPECT_EQ(ask(a, query("DEALLOCATE s")), "C:DEALLOCATE Z:I");
	EXPECT_EQ(ask(a, use("s")), "E:26000 Z:I");
	EXPECT_EQ(error_text(a, query("DEALLOCATE PREPARE s")), "prepared statement \"s\" does not exist");
	EXPECT_EQ(ask(b, use("s")), "2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.y", "s") + use("s")), "1 2 D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Statements, DeallocateIsKnownHoweverItIsCut)
{
	const std::string command = query("  /* x */ DEALLOCATE s");
	Stream *a = login();
	for (size_t at = 0; at <= command.size(); at++) {
		ask(a, parse("SELECT c1.x", "s") + kSync);
		send(a, command.substr(0, at));
		EXPECT_EQ(ask(a, command.substr(at)), "C:DEALLOCATE Z:I") << at;
		EXPECT_EQ(ask(a, use("s")), "E:26000 Z:I") << at;
	}
}

TEST_F(Statements, DeallocateThatIsRefusedOrSkippedTakesNothing)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "s") + kSync);
	ask(a, query("BEGIN; FAIL c1.x"));
	EXPECT_EQ(ask(a, query("DEALLOCATE s")), "E:25P02 Z:E");
	EXPECT_EQ(ask(a, parse("DEALLOCATE s") + use()), "E:25P02 Z:E");
	ask(a, query("ROLLBACK"));
	EXPECT_EQ(ask(a, parse("BADPARSE c1.x") + query("DEALLOCATE s") + kSync), "E:42601 Z:I");
	EXPECT_EQ(ask(a, parse("BADPARSE c1.x") + parse("DEALLOCATE s") + use()), "E:42601 Z:I");
	EXPECT_EQ(ask(a, use("s")), "2 D:c1.x C:SELECT 1 Z:I");
}

TEST_F(Statements, DeallocateByAnUnnamedStatementTakesTheNameWhenItIsExecuted)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "s") + kSync);
	EXPECT_EQ(ask(a, parse("DEALLOCATE \"s\"") + describe('S') + kSync), "1 t n Z:I");
	EXPECT_EQ(ask(a, use("s")), "2 D:c1.x C:SELECT 1 Z:I") << "not executed";
	EXPECT_EQ(ask(a, parse("DEALLOCATE \"s\"") + bind_to() + describe('P') + execute() + kSync),
	          "1 2 n C:DEALLOCATE Z:I");
	EXPECT_EQ(ask(a, use("s")), "E:26000 Z:I");
	ask(a, parse("SELECT c1.x", "s") + kSync);
	EXPECT_EQ(ask(a, parse("DEALLOCATE s") + use() + parse("SELECT c1.y", "s") + use("s")),
	          "1 2 C:DEALLOCATE Z:I 1 2 D:c1.y C:SELECT 1 Z:I")
	    << "the name is free for what comes at once behind it";
	EXPECT_EQ(ask(a, parse("DEALLOCATE s") + bind_to() + execute() + parse("SELECT c1.z", "s") + use("s")),
	          "1 2 C:DEALLOCATE 1 2 D:c1.z C:SELECT 1 Z:I")
	    << "also in the same batch";
}

TEST_F(Statements, ADeallocateWaitsForOneThatMayFail)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "s") + kSync);
	ask(a, query("BEGIN; FAIL c1.x"));
	EXPECT_EQ(ask(a, query("DEALLOCATE s") + query("ROLLBACK") + parse("DEALLOCATE s") + use()),
	          "E:25P02 Z:E C:ROLLBACK Z:I 1 2 C:DEALLOCATE Z:I");
}

TEST_F(Statements, WhatIsSentBehindDeallocateAllMeansWhatItThenMeans)
{
	Stream *a = login();
	for (const std::string &all :
	     {query("DEALLOCATE ALL"), query("DISCARD ALL"), query("DEALLOCATE ALL; SELECT c1.y")}) {
		EXPECT_EQ(ask(a, parse("SELECT c1.x", "s") + parse("SELECT c1.t", "t") + kSync), "1 1 Z:I");
		const std::string answer = ask(a, all + use("t") + parse("SELECT c1.z", "s") + use("s"));
		EXPECT_EQ(answer.substr(answer.find("Z:I")), "Z:I E:26000 Z:I 1 2 D:c1.z C:SELECT 1 Z:I");
		ask(a, query("DEALLOCATE ALL"));
	}
}

TEST_F(Statements, BehindADeallocateOrAFlushInACopyDeallocateAllIsSeenToo)
{
	Stream *a = login();
	ask(a, parse("SELECT c1.x", "s") + parse("SELECT c1.y", "t") + kSync);
	EXPECT_EQ(ask(a, query("DEALLOCATE s") + query("DEALLOCATE ALL") + parse("SELECT c1.z", "t") + kSync),
	          "C:DEALLOCATE Z:I C:DEALLOCATE ALL Z:I 1 Z:I");
	ask(a, query("COPYIN c1.x"));
	EXPECT_EQ(ask(a, kFlush + message('c') + query("DEALLOCATE ALL") + parse("SELECT c1.z", "t") + kSync),
	          "C:COPY 0 Z:I C:DEALLOCATE ALL Z:I 1 Z:I");
	EXPECT_EQ(ask(a, query("COPYIN c1.y") + kFlush + message('c') + query("DEALLOCATE ALL") +
	                     parse("SELECT c1.z", "t") + kSync),
	          "G C:COPY 0 Z:I C:DEALLOCATE ALL Z:I 1 Z:I")
	    << "before it is known to be one";
	EXPECT_EQ(ask(a, bind_to("missing") + query("DEALLOCATE ALL") + parse("SELECT c1.x", "t") + kSync), "E:26000 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.z", "t") + kSync), "E:42P05 Z:I") << "it was skipped";
}

TEST_F(Statements, WhatWaitsForARequestThatTurnsOutToBeACopyGoesToTheServer)
{
	const std::string named = parse("SELECT c1.z", "t"), unnamed = bind_to();
	for (const std::string &sent :
	     {query("DEALLOCATE ALL; COPYIN c1.x") + named + unnamed, parse("COPYIN c1.x") + use() + unnamed + named}) {
		Stream *a = login();
		const std::string answer = ask(a, sent + kSync);
		EXPECT_NE(answer.find("G E:FATAL:08P01"), std::string::npos) << answer;
		EXPECT_TRUE(a->closed);
	}
}

TEST_F(Statements, AClientThatLeavesWithADeallocateOnItsWayLeavesTheAccountExact)
{
	for (const std::string &work :
	     {query("SLEEP c1.x") + query("DEALLOCATE s"), query("SLEEP c1.x") + query("DEALLOCATE ALL"),
	      query("SLEEP c1.x") + parse("DEALLOCATE s") + use()}) {
		SCOPED_TRACE(work);
		Stream *a = login();
		EXPECT_EQ(ask(a, parse("SELECT shared", "s") + parse("SELECT other", "t") + kSync), "1 1 Z:I");
		send(a, work);
		a->peer_eof = a->peer_gone = true;
		world.pass(1000);
		Stream *b = login();
		EXPECT_EQ(ask(b, query("BEGIN c2.b")), "C:BEGIN Z:T");
		EXPECT_EQ(ask(b, parse("SELECT shared", "s") + use("s")), "1 2 D:shared C:SELECT 1 Z:T");
		EXPECT_EQ(ask(b, close_name('S', "s") + parse("SELECT c2.x", "s") + use("s")), "3 1 2 D:c2.x C:SELECT 1 Z:T");
		ask(b, query("COMMIT"));
		send(b, message('X'));
	}
	EXPECT_EQ(world.backends.size(), 1u);
}

// ---- the unnamed statement

TEST_F(Statements, TheUnnamedStatementLastsWhoeverServesIt)
{
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, parse("SELECT c1.x") + use()), "1 2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(b, parse("SELECT c2.x") + kSync), "1 Z:I");
	EXPECT_EQ(ask(a, use()), "2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(b, describe('S') + use()), "t T 2 D:c2.x C:SELECT 1 Z:I");
	world.pass(1500); // it is shared meanwhile
	EXPECT_EQ(ask(a, use()), "2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, query("DEALLOCATE ALL") + kSync), "C:DEALLOCATE ALL Z:I Z:I");
	EXPECT_EQ(ask(a, use()), "E:26000 Z:I") << "a Query takes it away";
	EXPECT_EQ(ask(b, close_name('S', "") + kSync + use()), "3 Z:I E:26000 Z:I");
}

TEST_F(Statements, WhatIsSkippedBehindAnErrorLeavesTheUnnamedStatement)
{
	Stream *a = login();
	for (const std::string &skipped : {parse("SELECT c1.no"), close_name('S', ""), parse("DEALLOCATE s")}) {
		EXPECT_EQ(ask(a, parse("SELECT c1.x") + bind_to("missing")), "1 E:26000");
		EXPECT_EQ(ask(a, skipped + kSync), "Z:I");
		EXPECT_EQ(ask(a, use()), "2 D:c1.x C:SELECT 1 Z:I");
	}
}

TEST_F(Statements, AnUnnamedStatementThatComesAgainIsShared)
{
	world.settings().cache_unnamed.store(region::CacheUnnamed::Generic);
	Stream *a = login();
	heard();
	for (const char *asked : {"PBES", "PDBES"}) { // the second time it is made to last
		EXPECT_EQ(ask(a, parse("SELECT shared") + use()), "1 2 D:shared C:SELECT 1 Z:I");
		EXPECT_EQ(heard(), asked);
	}
	EXPECT_EQ(ask(a, parse("SELECT shared") + use()), "1 2 D:shared C:SELECT 1 Z:I");
	EXPECT_EQ(heard(), "BES");
	EXPECT_EQ(ask(a, use()), "2 D:shared C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.once") + use()), "1 2 D:c1.once C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT shared") + parse("SELECT c1.x") + use()), "1 1 2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT shared") + bind_to("missing") + parse("SELECT shared") + kSync), "1 E:26000 Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, use()), "E:26000 Z:I");
}

// The first write of a transaction finds the server dead; the Parse that was meant for it must not be used early.
TEST_F(Statements, AServerFoundDeadLeavesNoUnnamedStatementFromTheFuture)
{
	Stream *a = login();
	Stream *s = world.stream_of(&backend());
	backend().dead = true;
	s->peer_gone = true;
	EXPECT_EQ(ask(a, describe('S') + kSync + parse("SELECT c1.x") + use()), "E:26000 Z:I 1 2 D:c1.x C:SELECT 1 Z:I");
}

} // namespace
