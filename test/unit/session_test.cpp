// Sessions in service: what is answered, when a server is released, what follows a client to its next server.
#include <gtest/gtest.h>

#include "session_fixture.hpp"

namespace
{

using namespace fake;

TEST_F(Session, IsGreetedWithTheServersParametersAKeyAndReady)
{
	login();
	const std::string s = summary(greeting);
	EXPECT_NE(s.find("S:TimeZone=UTC"), std::string::npos) << s;
	EXPECT_NE(s.find("S:server_version=15.20"), std::string::npos) << s;
	EXPECT_EQ(s.substr(s.size() - 5), "K Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, AQueryIsAnsweredAndItsServerReleased)
{
	Stream *c = login();
	EXPECT_EQ(ask(c, query("SELECT c1.a")), "T D:c1.a C:SELECT 1 Z:I");
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(world.gauges().idle.load(), 1);
}

TEST_F(Session, KeepsItsServerUntilTheTransactionEnds)
{
	Stream *c = login();
	EXPECT_EQ(ask(c, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(c, query("FAIL c1.x")), "E:22012 Z:E");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(c, query("COMMIT")), "C:ROLLBACK Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, SyncFlushAndCopyLeftoversNeedNoServer)
{
	Stream *c = login();
	const size_t executed = backend().log.size();
	EXPECT_EQ(ask(c, kSync + kFlush + message('d', "x") + message('c') + text_message('f', "no") + kSync), "Z:I Z:I");
	EXPECT_EQ(backend().log.size(), executed);
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, APipelineWithoutSyncKeepsTheServer)
{
	Stream *c = login();
	EXPECT_EQ(ask(c, parse("SELECT c1.a") + bind_to() + execute() + kFlush), "1 2 D:c1.a C:SELECT 1");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(c, kSync), "Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, FiftyQueriesInOneWriteAreAllAnsweredInOrder)
{
	Stream *c = login();
	std::string all, want;
	for (int i = 0; i < 50; i++) {
		const std::string tag = "c1." + std::to_string(i);
		all += query("SELECT " + tag);
		want += (i ? " " : "") + ("T D:" + tag) + " C:SELECT 1 Z:I";
	}
	EXPECT_EQ(ask(c, all), want);
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, AnErrorSkipsToSyncAndAQueryInBetweenIsDiscarded)
{
	Stream *c = login();
	EXPECT_EQ(ask(c, parse("FAIL c1.a") + bind_to() + execute()), "1 2 E:22012");
	EXPECT_EQ(ask(c, query("SELECT c1.lost") + parse("SELECT c1.lost")), "");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(c, kSync + query("SELECT c1.b")), "Z:I T D:c1.b C:SELECT 1 Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Session, CopyInEatsSyncAndAFailedOneDoesNotStrandTheServer)
{
	Stream *c = login();
	const std::string copy = parse("COPYIN c1.x") + bind_to() + execute() + kSync;
	EXPECT_EQ(ask(c, copy), "1 2 G");
	EXPECT_EQ(ask(c, message('d', "c1 row") + message('c') + kSync), "C:COPY 1 Z:I");
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(ask(c, copy), "1 2 G");
	EXPECT_EQ(ask(c, message('d', "c1 bad") + message('d', "c1 x") + message('c') + kSync), "E:22P04 Z:I");
	EXPECT_EQ(busy(), 0) << "after the probe";
	EXPECT_EQ(ask(c, query("SELECT c1.b")), "T D:c1.b C:SELECT 1 Z:I");
	EXPECT_EQ(ask(c, query("COPYIN c1.y")), "G");
	EXPECT_EQ(ask(c, text_message('f', "no")), "E:22P04 Z:I");
	EXPECT_EQ(busy(), 0);
}

// The reply that forwards and the one that is ours come in one read, and the client leaves by then.
TEST_F(Session, ATerminateThatWaitsForTheProbeDoesNotCrash)
{
	Stream *c = login();
	EXPECT_EQ(ask(c, query("COPYIN c1.x")), "G");
	Stream *s = world.stream_of(&backend());
	// The server fails the copy on its own; the client's Sync comes after, and a CopyFail that nobody wants.
	c->from_peer = message('d', "c1 bad");
	while (world.stream_event(c, SIZE_MAX)) {
	}
	c->from_peer = kSync + message('c') + kSync + message('X');
	while (world.stream_event(c, SIZE_MAX)) {
	}
	while (world.backend_event(s, SIZE_MAX, SIZE_MAX)) {
	}
	world.settle();
	c->from_peer.clear();
	EXPECT_TRUE(c->closed);
}

TEST_F(Session, WaitersAreServedFirstComeFirstServed)
{
	world.settings().pool_size.store(1);
	Stream *a = login(), *b = login(), *c = login();
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(b, query("BEGIN")), "");
	EXPECT_EQ(ask(c, query("SELECT c3.x")), "");
	EXPECT_EQ(world.gauges().waiting.load(), 2);
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(got(b), "C:BEGIN Z:T");
	EXPECT_EQ(got(c), "");
	EXPECT_EQ(ask(b, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(got(c), "T D:c3.x C:SELECT 1 Z:I");
	EXPECT_EQ(world.backends.size(), 1u);
}

TEST_F(Session, AWaitThatIsTooLongIsAnErrorAndThePipelineIsSkippedToSync)
{
	world.settings().pool_size.store(1);
	world.settings().query_wait_timeout.store(500);
	Stream *a = login(), *b = login(), *c = login();
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "");
	EXPECT_EQ(ask(c, parse("SELECT c3.x") + bind_to() + execute()), "");
	world.pass(700);
	EXPECT_EQ(got(b), "E:53300 Z:I");
	EXPECT_EQ(got(c), "E:53300");
	EXPECT_EQ(ask(c, parse("x") + kFlush + query("SELECT c3.skipped")), "");
	EXPECT_EQ(ask(c, kSync), "Z:I");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(ask(b, query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
	EXPECT_EQ(ask(c, query("SELECT c3.y")), "T D:c3.y C:SELECT 1 Z:I");
}

TEST_F(Session, AClientThatWaitsOverlongWithALongMessageLosesOnlyThatMessage)
{
	world.settings().pool_size.store(1);
	world.settings().query_wait_timeout.store(500);
	Stream *a = login(), *b = login();
	ask(a, query("BEGIN"));
	const std::string lengthy = query("SELECT c2.long" + std::string(200000, ' '));
	EXPECT_EQ(ask(b, lengthy.substr(0, 100000)), "");
	world.pass(700);
	EXPECT_EQ(got(b), "E:53300 Z:I");
	ask(a, query("COMMIT"));
	EXPECT_EQ(ask(b, lengthy.substr(100000) + query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
}

TEST_F(Session, SettingsFollowTheClientAndNobodyElse)
{
	world.settings().pool_size.store(1);
	Stream *a = login({{"application_name", "one"}}), *b = login({{"application_name", "two"}, {"TimeZone", "CET"}});
	EXPECT_EQ(ask(a, query("SHOW application_name")), "T D:one C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SHOW application_name")), "T D:two C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SHOW TimeZone")), "T D:CET C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:UTC C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SET TimeZone PST")), "C:SET S:TimeZone=PST Z:I");
	EXPECT_EQ(ask(b, query("SHOW TimeZone")), "T D:CET C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:PST C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("BEGIN; SET TimeZone X; ROLLBACK")), "C:BEGIN C:SET C:ROLLBACK Z:I");
	EXPECT_EQ(ask(b, query("SHOW TimeZone")), "T D:CET C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:PST C:SHOW Z:I");
	EXPECT_EQ(world.backends.size(), 1u);
}

TEST_F(Session, StartupSettingsThatAreNotReportedFollowTheClientToo)
{
	world.settings().pool_size.store(1);
	Stream *a = login({{"options", "-c statement_timeout=7"}}), *b = login();
	EXPECT_EQ(ask(a, query("SHOW statement_timeout")), "T D:7 C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SHOW statement_timeout")), "T D:0 C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW statement_timeout")), "T D:7 C:SHOW Z:I");
}

// The server is told nothing of what nobody has set, and the client what is new.
TEST_F(Session, WhatNobodySetIsThatOfAFreshLoginAndWhatTheClientSetIsItsOwn)
{
	for (const bool agent : {false, true}) {
		world.prepare_backend = [agent](Backend &b) { b.agent = agent; };
		world.view.pool(0).epoch.fetch_add(1);
		Stream *a = login(), *same = login({{"TimeZone", "UTC"}}), *set = login();
		EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:UTC C:SHOW Z:I");
		EXPECT_EQ(ask(set, query("SET TimeZone CET")), "C:SET S:TimeZone=CET Z:I");
		EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:UTC C:SHOW Z:I");
		world.prepare_backend = [agent](Backend &b) {
			b.agent = agent;
			b.defaults["TimeZone"] = "Europe/Berlin";
		};
		world.view.pool(0).epoch.fetch_add(1);
		world.engine().on_poke();
		world.engine().end_event();
		world.settle();
		for (int i = 0; i < 2; i++) {
			const char *told = i == 0 ? "S:TimeZone=Europe/Berlin " : "";
			EXPECT_EQ(ask(a, query("SHOW TimeZone")), std::string(told) + "T D:Europe/Berlin C:SHOW Z:I");
			EXPECT_EQ(ask(same, query("SHOW TimeZone")), "T D:UTC C:SHOW Z:I");
			EXPECT_EQ(ask(set, query("SHOW TimeZone")), "T D:CET C:SHOW Z:I");
		}
		EXPECT_EQ(ask(login(), query("SHOW TimeZone")), "T D:Europe/Berlin C:SHOW Z:I");
	}
}

TEST_F(Session, AClientThatLeavesInATransactionLeavesACleanServer)
{
	Stream *a = login();
	ask(a, query("BEGIN"));
	a->peer_eof = a->peer_gone = true;
	world.settle();
	EXPECT_EQ(backend().log.back(), "ROLLBACK");
	EXPECT_FALSE(backend().dead);
	EXPECT_EQ(world.gauges().idle.load(), 1);
}

TEST_F(Session, AClientThatLeavesWhileItsQueryRunsHasItCancelled)
{
	Stream *a = login();
	send(a, query("SLEEP c1.x"));
	a->peer_eof = a->peer_gone = true;
	world.settle();
	world.pass(1500);
	EXPECT_EQ(backend().cancelled, 1);
	EXPECT_FALSE(backend().dead);
	EXPECT_EQ(world.gauges().idle.load(), 1);
}

TEST_F(Session, AClientThatLeavesWithinAMessageCostsTheServer)
{
	Stream *a = login();
	send(a, query("BEGIN") + query("SELECT c1." + std::string(70000, 'x')).substr(0, 68000));
	EXPECT_EQ(busy(), 1);
	a->peer_eof = a->peer_gone = true;
	world.settle();
	EXPECT_TRUE(backend().dead);
	EXPECT_EQ(world.gauges().open.load(), 0);
}

TEST_F(Session, AClientThatLeavesInAPipelineOrACopyLeavesNothingBehind)
{
	for (const std::string &work :
	     {parse("SELECT c1.x") + bind_to() + execute() + kFlush, parse("FAIL c1.x") + bind_to() + execute() + kFlush,
	      query("COPYIN c1.x"), parse("COPYIN c1.x") + bind_to() + execute() + kSync}) {
		Stream *a = login();
		send(a, work);
		EXPECT_EQ(busy(), 1);
		a->peer_eof = a->peer_gone = true;
		world.pass(1200);
		EXPECT_EQ(busy(), 0);
		Stream *b = login();
		EXPECT_EQ(ask(b, query("SELECT c2.x")), "T D:c2.x C:SELECT 1 Z:I");
		send(b, message('X'));
	}
}

TEST_F(Session, ACancelHitsOnlyWhileAServerIsAssigned)
{
	Stream *a = login();
	int32_t pid = 0;
	const std::string key = key_of_greeting(pid);
	auto cancel = [&](const std::string &with) {
		Stream *x = world.connect();
		send(x, cancel_request(pid, with));
		EXPECT_TRUE(x->closed);
		EXPECT_EQ(x->to_peer, "");
	};
	cancel(key);
	EXPECT_TRUE(world.interrupts.empty());
	send(a, query("SLEEP c1.x"));
	std::string wrong = key;
	wrong[0] ^= 1;
	cancel(wrong);
	EXPECT_TRUE(world.interrupts.empty());
	cancel(key);
	EXPECT_EQ(got(a), "E:57014 Z:I");
	EXPECT_EQ(world.interrupts.size(), 1u);
}

TEST_F(Session, ACancelEndsTheWaitOfAQueuedClient)
{
	world.settings().pool_size.store(1);
	Stream *b = login(), *a = login();
	int32_t pid = 0;
	const std::string key = key_of_greeting(pid);
	ask(b, query("BEGIN"));
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	Stream *x = world.connect();
	send(x, cancel_request(pid, key));
	EXPECT_EQ(got(a), "E:57014 Z:I");
	EXPECT_TRUE(world.interrupts.empty());
	EXPECT_EQ(ask(b, query("COMMIT")), "C:COMMIT Z:I");
}

TEST_F(Session, ACancelIsNotForPgpoolsOwnQueries)
{
	world.settings().pool_size.store(1);
	Stream *b = login({{"application_name", "other"}}), *a = login({{"options", "-c statement_timeout=7"}});
	int32_t pid = 0;
	const std::string key = key_of_greeting(pid);
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "T D:c2.x C:SELECT 1 Z:I");
	a->from_peer = query("SLEEP c1.x");
	world.stream_event(a, SIZE_MAX); // the settings are on their way, the client is held
	Stream *x = world.connect();
	x->from_peer = cancel_request(pid, key);
	world.stream_event(x, SIZE_MAX);
	EXPECT_TRUE(world.interrupts.empty()) << "a backend that runs our own query was interrupted";
	world.settle();
	if (backend().sleeping())
		backend().wake();
	world.settle();
	EXPECT_FALSE(a->closed);
}

TEST_F(Session, AServerThatDiesAtRestIsNotNoticed)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	backend().die();
	world.settle();
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(world.backends.size(), 2u);
}

TEST_F(Session, AServerFoundDeadByTheFirstWriteIsReplaced)
{
	Stream *a = login();
	Stream *s = world.stream_of(&backend());
	backend().dead = true;
	s->peer_gone = true; // nobody has read the end of file yet
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Session, AServerFoundDeadWhenSettingsAreAppliedIsReplaced)
{
	world.settings().pool_size.store(1);
	Stream *a = login({{"options", "-c statement_timeout=7"}}), *b = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	Stream *s = world.stream_of(&backend());
	backend().dead = true;
	s->peer_gone = true;
	b->from_peer = query("SELECT c2.y");
	world.stream_event(b, SIZE_MAX);
	s->peer_eof = true;
	world.settle();
	EXPECT_EQ(got(b), "T D:c2.y C:SELECT 1 Z:I");
	EXPECT_EQ(ask(b, query("SELECT c2.z")), "T D:c2.z C:SELECT 1 Z:I");
}

TEST_F(Session, AServerIsNotReadyBeforeTheAnswerAboutItsIdentityIsComplete)
{
	for (size_t at = 1; at < 400; at++) {
		Stream *c = world.connect();
		c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}, {"TimeZone", std::to_string(at)}});
		while (world.stream_event(c, SIZE_MAX) || world.post_event()) {
		}
		Stream *s = world.stream_of(world.backends.back().get());
		size_t left = at; // the first read of all that the backend says ends here
		for (bool more = true; more;) {
			more = world.backend_event(s, SIZE_MAX, SIZE_MAX);
			const size_t n = std::min(left, s->from_peer.size());
			if (n > 0 && world.stream_event(s, n)) {
				left -= n;
				more = true;
			}
			more |= left == 0 ? false : world.stream_event(s, left);
			if (left == 0)
				break;
		}
		c->from_peer += query("SHOW TimeZone");
		world.settle();
		const std::string all = got(c), end = "T D:" + std::to_string(at) + " C:SHOW Z:I";
		ASSERT_GE(all.size(), end.size()) << at;
		EXPECT_EQ(all.substr(all.size() - end.size()), end) << at;
		send(c, message('X'));
		world.backends.back()->die();
		world.settle();
	}
}

TEST_F(Session, AnIdleServerThatSaidItsLastWordsIsNotGivenToAClient)
{
	Stream *a = login();
	Stream *s = world.stream_of(&backend());
	pgpool::proto::append_error(s->from_peer, pgpool::proto::Severity::Fatal, {"57P01", "terminating", "", ""});
	while (world.stream_event(s, SIZE_MAX)) {
	}
	a->from_peer = query("SELECT c1.y");
	while (world.stream_event(a, SIZE_MAX)) {
	}
	EXPECT_EQ(s->to_peer.find("c1.y"), std::string::npos);
	backend().dead = true;
	world.settle();
	EXPECT_EQ(got(a), "T D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Session, AServerThatDiesInATransactionEndsTheClient)
{
	Stream *a = login();
	ask(a, query("BEGIN"));
	backend().die();
	world.settle();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	EXPECT_TRUE(a->closed);
}

// The copy failed, what is left of its data is thrown away: also when the server dies in the middle of that.
TEST_F(Session, AServerThatDiesWhileCopyDataIsDiscardedLosesNoPlaceInTheClientsStream)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("COPYIN c1.x")), "G");
	const std::string rest = message('d', std::string(1000, 'Q'));
	EXPECT_EQ(ask(a, message('d', "c1 bad") + rest.substr(0, 500)), "E:22P04 Z:I");
	EXPECT_EQ(busy(), 1);
	backend().die();
	world.settle();
	EXPECT_EQ(ask(a, rest.substr(500) + query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Session, ModeSessionKeepsTheServerAndDiscardsAllBehindTheClient)
{
	Stream *a = login({}, true);
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(a, query("SET search_path mine")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:mine C:SHOW Z:I");
	EXPECT_EQ(busy(), 1);
	send(a, message('X'));
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(backend().log.back(), "DISCARD ALL");
	Stream *b = login();
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:public C:SHOW Z:I");
	EXPECT_EQ(world.backends.size(), 1u);
}

TEST_F(Session, AClientIdleInATransactionIsEndedAndRolledBack)
{
	world.settings().idle_in_transaction_timeout.store(1000);
	world.settings().client_idle_timeout.store(5000);
	Stream *a = login(), *b = login();
	ask(a, query("BEGIN"));
	world.pass(1500);
	EXPECT_EQ(got(a), "E:FATAL:25P03");
	EXPECT_EQ(backend().log.back(), "ROLLBACK");
	EXPECT_FALSE(b->closed);
	world.pass(6000);
	EXPECT_EQ(got(b), "E:FATAL:57P05");
}

TEST_F(Session, AClientThatDoesNotReadStopsItsServerAndIsCutByTheWriteTimeout)
{
	world.view.header()->settings.write_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = login();
	a->room = 100;
	send(a, query("ROWS c1.x 100 10000"));
	Stream *s = world.stream_of(&backend());
	EXPECT_FALSE(s->reading);
	EXPECT_EQ(busy(), 1);
	EXPECT_LE(a->unsent(), core::kChunk);
	world.pass(1500);
	EXPECT_FALSE(a->closed);
	a->room = SIZE_MAX;
	world.settle();
	EXPECT_EQ(take_messages(a->to_peer).size(), 103u);
	EXPECT_EQ(busy(), 0);
	a->room = 0;
	send(a, query("ROWS c1.x 100 10000"));
	world.pass(2500);
	EXPECT_TRUE(a->closed);
	ASSERT_FALSE(world.log.empty());
	EXPECT_NE(
	    world.log.back().find("client peer of role \"anna\", database \"shop\", tenant \"main\", took no data for 20"),
	    std::string::npos)
	    << world.log.back();
	EXPECT_NE(world.log.back().find("pgpool.write_timeout is 2000 ms"), std::string::npos) << world.log.back();
}

TEST_F(Session, WhoeverTakesNoDataIsToldWhyWhereAMessageEnds)
{
	world.view.header()->settings.write_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	for (size_t piece : {size_t{1000}, SIZE_MAX}) {
		Stream *a = login();
		const std::string before = a->to_peer;
		a->room = 0;
		a->from_peer += query("ROWS c1.x 10 5000") + query("SELECT pg_sleep(3600)");
		Stream *s = world.stream_of(world.backends.back().get());
		world.stream_event(a, core::kChunk);
		for (int i = 0; i < 20; i++) {
			world.backend_event(s, SIZE_MAX, piece);
			world.stream_event(s, core::kChunk);
		}
		world.tick(1500);
		EXPECT_FALSE(a->closed);
		world.tick(1000);
		EXPECT_TRUE(a->closed);
		// What a client would read: whole messages up to the last word, or a message that ends nowhere.
		const std::vector<Message> all = take_messages(a->to_peer);
		if (a->to_peer.empty() && !all.empty()) {
			EXPECT_EQ(all.back().type, 'E');
			EXPECT_NE(all.back().body.find("57P05"), std::string::npos);
		} else {
			EXPECT_EQ(a->to_peer, "");
		}
		world.settle();
	}
}

TEST_F(Session, WithoutAWriteTimeoutAClientThatDoesNotReadIsWaitedFor)
{
	Stream *a = login();
	a->room = 100;
	send(a, query("ROWS c1.x 100 10000"));
	world.pass(600000);
	EXPECT_FALSE(a->closed);
	a->room = SIZE_MAX;
	world.settle();
	EXPECT_EQ(take_messages(a->to_peer).size(), 103u);
}

TEST_F(Session, AConnectionThatTimedOutIsLogged)
{
	Stream *a = login();
	a->peer_eof = a->peer_gone = true;
	a->end = core::kTimedOut;
	world.settle();
	EXPECT_TRUE(a->closed);
	ASSERT_FALSE(world.log.empty());
	EXPECT_NE(world.log.back().find("pgpool.tcp_user_timeout"), std::string::npos) << world.log.back();
}

TEST_F(Session, AServerThatDoesNotReadStopsItsClient)
{
	world.server_room = 3000;
	Stream *a = login();
	Stream *s = world.stream_of(&backend());
	s->room = 1000;
	a->from_peer = query("SELECT c1.x" + std::string(500000, ' '));
	world.settle();
	EXPECT_FALSE(a->reading);
	EXPECT_LE(s->unsent(), 2 * core::kChunk);
	for (int i = 0; i < 1000 && a->to_peer.empty(); i++) {
		s->room = 1000;
		world.settle();
	}
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
}

TEST_F(Session, EverySplitOfBothSidesGivesTheSameAnswer)
{
	const std::string work = query("SELECT c1.a") + parse("SELECT c1.b") + bind_to() + describe('P') + execute() +
	                         kSync + parse("FAIL c1.c") + bind_to() + kFlush + execute() + query("SELECT c1.no") +
	                         kSync + query("COPYIN c1.d") + message('d', "c1 x") + message('c') +
	                         query("SET TimeZone PST");
	Stream *one = login();
	const std::string want = ask(one, work);
	ask(one, query("SET TimeZone UTC"));
	for (size_t at = 0; at <= work.size(); at++) {
		Stream *c = login();
		send(c, work.substr(0, at));
		send(c, work.substr(at));
		EXPECT_EQ(got(c), want) << at;
		send(c, message('X'));
	}
	for (const size_t n : {1, 2, 3, 7}) {
		Stream *c = login();
		c->from_peer = work;
		for (bool more = true; more;) {
			more = world.stream_event(c, n);
			Stream *s = world.stream_of(world.backends.back().get());
			more |= world.backend_event(s, n, n) | world.stream_event(s, n);
		}
		EXPECT_EQ(got(c), want) << n;
		send(c, message('X'));
	}
}

TEST_F(Session, AMessageOfNoKnownTypeOrLengthIsFatal)
{
	for (const std::string &bad :
	     {std::string("\x01\0\0\0\4", 5), std::string("Z\0\0\0\4", 5), std::string("Q\0\0\0\3", 5),
	      std::string("E\0\1\0\0", 5), std::string("Q\x7f\xff\xff\xff", 5)}) {
		Stream *c = login();
		EXPECT_EQ(ask(c, bad), "E:FATAL:08P01");
		EXPECT_TRUE(c->closed);
	}
	Stream *c = login();
	EXPECT_EQ(ask(c, query("BEGIN") + std::string("\x01\0\0\0\4", 5)), "E:FATAL:08P01");
}

TEST_F(Session, AParseWithoutABodyIsTheServersToRefuse)
{
	for (const std::string &bad : {message('P'), message('P', "x"), message('B'), message('D'), message('D', "S"),
	                               message('C'), message('C', "S"), message('E')}) {
		Stream *c = login();
		const std::string answer = ask(c, parse("SELECT c1.a") + bad + kSync);
		EXPECT_EQ(answer.substr(answer.size() - 3), "Z:I");
		send(c, message('X'));
	}
}

TEST_F(Session, AFlushWithABodyIsTheServersToRefuse)
{
	const std::string bad = message('H', "x");
	Stream *c = login();
	EXPECT_EQ(ask(c, bad + query("SELECT c1.a") + kSync), "E:08P01 Z:I") << "the query is skipped";
	EXPECT_EQ(ask(c, parse("SELECT c1.a") + bad + query("SELECT c1.b") + kSync), "1 E:08P01 Z:I");
	EXPECT_EQ(ask(c, query("COPYIN c1") + message('d', "1\n") + bad + message('c')), "G C:COPY 1 Z:I");
	EXPECT_EQ(ask(c, query("SELECT c1.c")), "T D:c1.c C:SELECT 1 Z:I");
	send(c, bad + query("BEGIN c1.d") + message('X'));
	EXPECT_TRUE(c->closed) << "nothing of it is to come";
}

TEST_F(Session, AFlushWithABodyThatACopyEatsLeavesNoEntry)
{
	const std::string bad = message('H', "x");
	Stream *c = login();
	for (const std::string &more : {bad, bad + kSync, kSync + bad, bad + bad + kSync + bad}) {
		EXPECT_EQ(ask(c, query("COPYIN c1") + more + message('d', "1\n") + message('c')), "G C:COPY 1 Z:I");
		EXPECT_EQ(ask(c, query("SELECT c1.a")), "T D:c1.a C:SELECT 1 Z:I");
		EXPECT_EQ(busy(), 0) << "its server is another's";
	}
}

TEST_F(Session, NamesThatAreTakenLeaveNothingOnTheServer)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, parse("SELECT c1.a", "s") + parse("SELECT c1.b", "t") + kSync), "1 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.c", "s") + parse("SELECT c1.d", "t") + kSync), "E:42P05 Z:I");
	Stream *b = login();
	EXPECT_EQ(ask(b, bind_to("s") + kSync + bind_to("t") + kSync), "E:26000 Z:I E:26000 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.e", "s") + kSync), "E:42P05 Z:I");
	EXPECT_EQ(world.backends.size(), 1u);
}

// Room is made for a second statement, then the first is wanted again, all behind an error: it is still there.
TEST_F(Session, ACloseAndAParseThatTheBackendSkippedLeaveTheStatementWhereItWas)
{
	world.view.header()->settings.max_prepared_statements = 1;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = login();
	EXPECT_EQ(ask(a, parse("SELECT c1.a", "s") + kSync), "1 Z:I");
	EXPECT_EQ(ask(a, bind_to("nothing") + parse("SELECT c1.b", "t") + bind_to("s") + execute() + kSync), "E:26000 Z:I");
	EXPECT_EQ(ask(a, bind_to("s") + execute() + kSync), "2 D:c1.a C:SELECT 1 Z:I");
}

TEST_F(Session, AClientWithAnotherIdentityKeepsItsServerAndLeavesNothingOfIt)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SET session_authorization bob")), "C:SET S:session_authorization=bob Z:I");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(a, query("SET session_authorization anna")), "C:SET S:session_authorization=anna Z:I");
	EXPECT_EQ(busy(), 0);
	ask(a, query("SET session_authorization bob"));
	send(a, message('X'));
	EXPECT_EQ(backend().log.back(), "DISCARD ALL");
	EXPECT_TRUE(backend().dead) << "nobody said who it is now";
}

TEST_F(Session, AServerThatSaysWhatNothingAskedForIsClosedAndItsClientTold)
{
	for (const std::string &wrong : {message('1'), message('K', "12345678"), message('R', std::string(4, '\0')),
	                                 std::string("D\0\0\0\2", 5), std::string("C\x7f\0\0\0", 5), message('T')}) {
		Stream *a = login();
		ask(a, query("BEGIN"));
		Backend &b = *world.backends.back();
		b.out += wrong;
		world.settle();
		EXPECT_EQ(got(a), "E:FATAL:08P01") << wrong;
		EXPECT_TRUE(b.dead);
		EXPECT_NE(world.log.back().find("out of step"), std::string::npos);
	}
}

TEST_F(Session, ASettingThatOneServerRefusesIsTriedOnAnother)
{
	world.settings().pool_size.store(1);
	Stream *b = login(), *a = login({{"options", "-c statement_timeout=7"}});
	ask(b, query("SELECT c2.x"));
	backend().refused_value = "7";
	EXPECT_EQ(ask(a, query("SHOW statement_timeout")), "T D:7 C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
}

TEST_F(Session, ASettingThatEveryServerRefusesIsLostWithAWarning)
{
	world.settings().pool_size.store(1);
	Stream *b = login(), *a = login({{"options", "-c statement_timeout=7 -c lock_timeout=8"}});
	ask(b, query("SELECT c2.x"));
	world.prepare_backend = [](Backend &n) { n.refused_value = "7"; };
	backend().refused_value = "7";
	EXPECT_EQ(ask(a, query("SHOW lock_timeout")), "N T D:8 C:SHOW Z:I") << "and the other one is kept";
	EXPECT_EQ(ask(a, query("SHOW statement_timeout") + query("SELECT c1.y")),
	          "T D:0 C:SHOW Z:I T D:c1.y C:SELECT 1 Z:I")
	    << "at its default, and said once";
	EXPECT_EQ(ask(b, query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
}

TEST_F(Session, AServerThatDoesNotEndInTimeGivesItsPlaceUp)
{
	Stream *a = login();
	send(a, query("SLEEP c1.x"));
	backend().deaf = true;
	a->peer_eof = a->peer_gone = true;
	const int32_t pid = backend().pid;
	world.pass(2000);
	EXPECT_TRUE(world.terminated.empty());
	world.pass(1000);
	EXPECT_EQ(world.terminated, std::vector<int32_t>{pid})
	    << "a cancellation can be caught, or there were no end of it";
	EXPECT_EQ(world.gauges().open.load(), 1);
	world.pass(1500);
	EXPECT_EQ(world.gauges().open.load(), 0) << "neither cleaned nor closed by the backend";
	EXPECT_EQ(world.terminated.size(), 1u);
	backend().die();
	world.settle();
}

TEST_F(Session, APoolThatIsGoneIsFreedAfterItsLastServer)
{
	Stream *a = login();
	send(a, query("SLEEP c1.x"));
	backend().deaf = true;
	a->peer_eof = a->peer_gone = true;
	world.settle();
	world.view.pool(0).state.store(pgpool::region::SlotState::Dead);
	world.pass(5000); // a tick gives its place up: in that event the server still needs the pool
	EXPECT_EQ(world.gauges().open.load(), 0);
	backend().die();
	world.settle();
}

TEST_F(Session, AHalfClosedClientStillGetsItsReplies)
{
	Stream *c = login();
	c->from_peer = query("SELECT c1.a");
	c->peer_eof = true;
	world.settle();
	EXPECT_EQ(got(c), "T D:c1.a C:SELECT 1 Z:I");
	EXPECT_TRUE(c->closed);
}

} // namespace
