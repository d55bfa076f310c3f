// Servers with the agent: what it reports follows the client, and what it is told is what it must know.
#include "session_fixture.hpp"

namespace
{

using namespace fake;

class Agent : public Session
{
protected:
	void SetUp() override
	{
		world.settings().pool_size.store(1);
		world.prepare_backend = [](Backend &b) { b.agent = true; };
	}
	region::AgentSlot &slot() { return world.view.agent(0); }
	control::ClientRow row() { return client_rows(world.engine()).at(0); }
};

TEST_F(Agent, EverySettingFollowsTheClientAndOnlyThoseOfPostgresqlAreTold)
{
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, query("SET search_path mine")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SET TimeZone PST")), "C:SET S:TimeZone=PST Z:I");
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:public C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SHOW TimeZone")), "T D:UTC C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:mine C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("RESET search_path")), "C:RESET Z:I");
	EXPECT_EQ(ask(b, query("SET search_path other")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:public C:SHOW Z:I");
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:other C:SHOW Z:I");
	EXPECT_EQ(world.backends.size(), 1u);
}

TEST_F(Agent, TheRoleComesLastAndGoesFirst)
{
	Stream *a = login(), *b = login(), *c = login();
	ask(a, query("SET role one"));
	ask(a, query("SET search_path mine"));
	ask(b, query("SET role two"));
	EXPECT_EQ(ask(a, query("SHOW role")), "T D:one C:SHOW Z:I");
	const std::vector<std::string> &log = backend().log;
	const std::string last = log.at(log.size() - 2);
	EXPECT_NE(last.find("role"), std::string::npos);
	EXPECT_GT(last.find("role"), last.find("search_path"));
	EXPECT_EQ(log.at(log.size() - 3), "RESET \"role\"");
	EXPECT_EQ(ask(b, query("SHOW role")), "T D:two C:SHOW Z:I");
	EXPECT_EQ(ask(c, query("SHOW role")), "T D C:SHOW Z:I");
}

TEST_F(Agent, WhatTheClientSentBehindARefusedSettingIsServedByAnotherBackend)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET search_path gone"));
	ask(b, query("SELECT c2.x"));
	backend().refused_value = "gone";
	world.prepare_backend = [](Backend &n) {
		n.agent = true;
		n.refused_value = "gone";
	};
	EXPECT_EQ(ask(a, parse("SELECT c1.x") + bind_to() + execute() + kSync + query("SHOW search_path")),
	          "N 1 2 D:c1.x C:SELECT 1 Z:I T D:public C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:public C:SHOW Z:I");
}

// pg_cancel_backend() may hit the SET of a client whose settings are applied one by one.
TEST_F(Agent, ACanceledSettingIsSetOnceMore)
{
	for (const int cancels : {1, 3, 1000}) {
		Stream *a = login(), *b = login();
		ask(a, query("SET search_path mine"));
		ask(b, query("SELECT c2.x"));
		world.prepare_backend = [&](Backend &n) {
			n.agent = true;
			n.refused_value = "mine";
			n.refused_with = "57014";
			n.refusals = cancels;
		};
		for (auto &n : world.backends) { // so that they are applied one by one, elsewhere
			n->refused_value = "mine";
			n->refused_with = "22023";
			n->refusals = INT_MAX;
		}
		const std::string told = ask(a, query("SHOW search_path"));
		world.pass(3000);
		EXPECT_EQ(told + got(a), cancels == 1000 ? "N T D:public C:SHOW Z:I" : "T D:mine C:SHOW Z:I") << cancels;
		world.prepare_backend = [](Backend &n) { n.agent = true; };
		for (auto &n : world.backends)
			n->refused_value.clear();
		send(a, message('X'));
		send(b, message('X'));
		world.pass(3000);
	}
}

// What is done once more comes before the role is set, also the RESET of that.
TEST_F(Agent, ACanceledResetOfTheRoleDoesNotComeLast)
{
	world.settings().pool_size.store(2);
	Stream *a = login(), *b = login(), *c = login();
	ask(a, query("SET search_path gone"));
	ask(a, query("SET role one"));
	ask(b, query("SET role two"));
	ask(c, query("SET role two"));
	ask(b, query("BEGIN"));
	ask(c, query("SELECT c3.x"));
	ask(b, query("COMMIT"));
	for (auto &n : world.backends)
		n->refused_value = "gone";
	backend(0).cancels_reset = 1; // of the one that is asked second
	EXPECT_EQ(ask(a, query("SHOW role")), "N T D:one C:SHOW Z:I");
}

TEST_F(Agent, WhatCameWithTerminateRunsWhenASettingIsRefused)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET search_path gone"));
	ask(b, query("SELECT c2.x"));
	backend().refused_value = "gone";
	world.prepare_backend = [](Backend &n) {
		n.agent = true;
		n.refused_value = "gone";
	};
	a->from_peer = query("SELECT c1.x") + std::string("X\0\0\0\4", 5);
	world.settle();
	EXPECT_TRUE(a->closed);
	int ran = 0;
	for (size_t i = 1; i < world.backends.size(); i++) // in the first one the agent keeps it from running
		ran += static_cast<int>(std::count(backend(i).log.begin(), backend(i).log.end(), "SELECT c1.x"));
	EXPECT_EQ(ran, 1);
	EXPECT_EQ(ask(b, query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
}

TEST_F(Agent, NothingRunsUnderAnotherRoleThanTheClients)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET role gone"));
	ask(a, query("SET search_path mine"));
	ask(b, query("SELECT c2.x"));
	backend().refused_value = "gone";
	world.prepare_backend = [](Backend &n) {
		n.agent = true;
		n.refused_value = "gone";
	};
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "E:22023 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.x") + bind_to() + execute() + kSync), "E:22023 Z:I");
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:public C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SET role other")), "E:22023 Z:I") << "it might fail, and then there were none";
	for (size_t i = 1; i < world.backends.size(); i++) { // in the first one the agent keeps it from running
		const std::vector<std::string> &log = backend(i).log;
		EXPECT_EQ(std::count(log.begin(), log.end(), "SELECT c1.x"), 0);
	}
	EXPECT_EQ(ask(a, query("RESET role") + query("SHOW search_path")), "C:RESET Z:I T D:mine C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SET role other")), "C:SET Z:I");
	EXPECT_EQ(ask(b, query("SELECT c2.y")), "T D:c2.y C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, query("SHOW role")), "T D:other C:SHOW Z:I");
}

TEST_F(Agent, AClientWithMoreSettingsThanPgpoolKeepsStaysOnItsServer)
{
	world.settings().pool_size.store(3);
	world.view.header()->settings.max_session_settings = 3;
	world.view.header()->settings.session_settings_memory = 64;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = login();
	for (const char *name : {"my.a", "my.b", "my.c"})
		ask(a, query(std::string("SET ") + name + " 1"));
	EXPECT_STREQ(row().pinned, "");
	ask(a, query("SET my.d 1"));
	EXPECT_STREQ(row().pinned, "settings");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(world.gauges().pinned.load(), 1);
	ask(a, query("RESET my.a"));
	EXPECT_STREQ(row().pinned, "");
	EXPECT_EQ(busy(), 0);
	for (const size_t size : {size_t{70000}, size_t{3} << 20}) { // the second one is not even read
		const std::string value(size, 'v');
		EXPECT_EQ(ask(a, query("SET my.b " + value)), "C:SET Z:I");
		EXPECT_STREQ(row().pinned, "settings") << size;
		EXPECT_EQ(ask(a, query("SHOW my.b")), "T D:" + value + " C:SHOW Z:I");
		ask(a, query("RESET my.b"));
		EXPECT_STREQ(row().pinned, "") << size;
		ask(a, query("SET my.b 1"));
	}
	for (int i = 0; i < 20; i++)
		ask(a, query("SET many.x" + std::to_string(i) + " 1"));
	EXPECT_STREQ(row().pinned, "settings");
	send(a, message('X'));
	world.pass(1200);
	EXPECT_EQ(world.gauges().pinned.load(), 0);
}

TEST_F(Agent, AClientKeepsAServerThatTheAgentPins)
{
	world.settings().pool_size.store(2);
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, query("PIN temporary")), "C:PIN Z:I");
	EXPECT_EQ(busy(), 1);
	EXPECT_STREQ(row().pinned, "temporary");
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "T D:c2.x C:SELECT 1 Z:I") << "one of two is left";
	EXPECT_EQ(ask(a, query("PIN off")), "C:PIN Z:I");
	EXPECT_EQ(busy(), 0);
	EXPECT_STREQ(row().pinned, "");
	EXPECT_EQ(ask(a, query("PIN temporary")), "C:PIN Z:I");
	send(a, message('X'));
	world.pass(1200);
	EXPECT_EQ(world.gauges().pinned.load(), 0);
}

// A pool of two, of which one may be kept.
TEST_F(Agent, WhoIsOneTooManyToKeepAServerStaysAsLongAsNobodyWaits)
{
	world.settings().pool_size.store(2);
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, query("PIN temporary")), "C:PIN Z:I");
	EXPECT_EQ(ask(b, query("PIN listen")), "C:PIN Z:I");
	EXPECT_EQ(world.gauges().pinned.load(), 2);
	world.pass(10000);
	EXPECT_EQ(got(a) + got(b), "");
	EXPECT_EQ(busy(), 2);
}

TEST_F(Agent, WhenOthersWaitTheOneThatWasIdleForLongestGoesAfterATimeOfGrace)
{
	world.settings().pool_size.store(2);
	Stream *a = login(), *b = login(), *c = login();
	ask(a, query("PIN temporary"));
	ask(b, query("PIN listen"));
	world.pass(10000);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I") << "now b was idle for longer";
	EXPECT_EQ(ask(c, query("SELECT c3.x")), "");
	world.pass(1500);
	EXPECT_EQ(got(a) + got(b) + got(c), "") << "in the time of grace";
	world.pass(1000);
	EXPECT_EQ(got(b), "E:FATAL:53400");
	world.pass(1200); // the fake's pin is for good, so that server is closed
	EXPECT_EQ(got(c), "T D:c3.x C:SELECT 1 Z:I");
	EXPECT_EQ(world.gauges().pinned.load(), 1);
	world.pass(10000);
	EXPECT_EQ(got(a), "") << "one may be kept";
	EXPECT_FALSE(a->closed);
}

TEST_F(Agent, WhoIsHeardOftenEnoughOrIsInATransactionIsNotOneTooMany)
{
	world.settings().pool_size.store(2);
	world.settings().query_wait_timeout.store(9000);
	Stream *a = login(), *b = login(), *c = login();
	ask(a, query("PIN temporary"));
	ask(b, query("PIN listen"));
	ask(b, query("BEGIN"));
	EXPECT_EQ(ask(c, query("SELECT c3.x")), "");
	for (int i = 0; i < 6; i++) {
		world.pass(1500);
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	}
	EXPECT_EQ(got(c), "E:53300 Z:I") << "it waited in vain";
	EXPECT_FALSE(a->closed || b->closed);
	EXPECT_EQ(ask(b, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(ask(b, query("PIN off")), "C:PIN Z:I");
	EXPECT_EQ(ask(c, query("SELECT c3.x")), "T D:c3.x C:SELECT 1 Z:I");
}

TEST_F(Agent, APoolOfWhichAllServersAreKeptDoesNotLockUp)
{
	world.settings().max_pinned.store(1); // and the pool has one
	Stream *a = login(), *b = login();
	ask(a, query("PIN temporary"));
	world.pass(5000);
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "");
	world.pass(1900);
	EXPECT_EQ(got(a), "");
	world.pass(1500);
	EXPECT_EQ(got(a), "E:FATAL:53400");
	EXPECT_EQ(got(b), "T D:c2.x C:SELECT 1 Z:I");
}

TEST_F(Agent, WithoutATimeOfGraceOthersWait)
{
	region::Settings settings = world.engine().context().settings();
	settings.pin_grace_time = 0;
	world.engine().on_settings(settings);
	Stream *a = login(), *b = login();
	ask(a, query("PIN temporary"));
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "");
	world.pass(60000);
	EXPECT_EQ(got(a) + got(b), "");
	EXPECT_EQ(ask(a, query("PIN off")), "C:PIN Z:I");
	EXPECT_EQ(got(b), "T D:c2.x C:SELECT 1 Z:I");
}

// Whatever keeps a server counts, is shown, has its limit and its time, and is forgotten with its client.
TEST_F(Agent, EveryReasonToKeepAServerCounts)
{
	const std::string long_text = "SELECT c9.x/*" + std::string((1 << 20) + 1000, 'x') + "*/";
	const std::string wide_text = "SELECT c9.x/*" + std::string(70000, 'x') + "*/";
	const struct {
		const char *reason;
		std::string bytes, undo;
	} reasons[] = {
	    {"long statement", parse(long_text, "big") + kSync, query("DEALLOCATE ALL")},
	    {"long statement", parse(long_text, "big") + bind_to("big") + execute() + kSync, query("DEALLOCATE ALL")},
	    {"unnamed statement", parse(wide_text) + kSync, query("SELECT c9.y")},
	    {"SET SESSION AUTHORIZATION", query("SET session_authorization bob"), query("SET session_authorization anna")},
	    {"temporary", query("PIN temporary"), query("PIN off")},
	};
	for (const auto &r : reasons) {
		for (const bool leaves : {false, true}) {
			Stream *a = login(), *b = login();
			ask(a, r.bytes);
			EXPECT_STREQ(row().pinned, r.reason);
			EXPECT_EQ(world.gauges().pinned.load(), 1) << r.reason;
			if (leaves) {
				EXPECT_EQ(ask(b, query("SELECT c2.x")), "") << r.reason;
				world.pass(3500);
				EXPECT_EQ(got(a), "E:FATAL:53400") << r.reason << ": the limit holds for it";
				EXPECT_EQ(got(b), "T D:c2.x C:SELECT 1 Z:I") << r.reason;
			} else {
				ask(a, r.undo);
				EXPECT_STREQ(row().pinned, "");
				EXPECT_EQ(busy(), 0) << r.reason;
			}
			EXPECT_EQ(world.gauges().pinned.load(), 0) << r.reason;
			if (leaves)
				continue;
			world.settings().pin_idle_timeout.store(1000);
			ask(a, r.bytes);
			world.pass(1200);
			EXPECT_EQ(got(a), "E:FATAL:57P05") << r.reason << ": its time, too";
			world.settings().pin_idle_timeout.store(0);
			world.pass(1200);
			EXPECT_EQ(world.gauges().pinned.load(), 0) << r.reason;
			b->peer_eof = b->peer_gone = true;
			world.pass(100);
		}
		for (auto &s : world.streams) {
			if (!s->backend)
				s->peer_eof = s->peer_gone = true;
		}
		world.pass(1200);
	}
}

// What a client had there is lost with the server: it must not go on elsewhere as if it were another session.
TEST_F(Agent, AServerThatDiesTakesWhoeverKeepsItAlong)
{
	Stream *a = login();
	ask(a, query("SET session_authorization bob"));
	backend().die();
	world.settle();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	EXPECT_TRUE(a->closed);
}

TEST_F(Agent, AClientThatOnlyKeepsAServerIsEndedAfterATime)
{
	world.settings().pin_idle_timeout.store(1000);
	Stream *a = login(), *b = login();
	EXPECT_EQ(ask(a, query("PIN temporary")), "C:PIN Z:I");
	for (int i = 0; i < 4; i++) {
		world.pass(600);
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I") << "it asks often enough";
	}
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	world.pass(3000);
	EXPECT_EQ(got(a), "") << "another limit is for transactions";
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	send(b, query("SELECT c2.x"));
	world.pass(1200);
	EXPECT_EQ(got(a), "E:FATAL:57P05");
	EXPECT_EQ(got(b), "T D:c2.x C:SELECT 1 Z:I") << "then the server is free";
	world.pass(3000);
	EXPECT_FALSE(b->closed) << "it keeps none";
}

TEST_F(Agent, ItIsToldWhomItServesAndWhatResetGoesBackTo)
{
	Stream *a = login({{"options", "-c statement_timeout=7"}});
	a->address_bytes = "0123";
	world.pass(1500);
	EXPECT_EQ(slot().pooled, 1u) << "it serves nobody";
	ask(a, query("BEGIN"));
	EXPECT_EQ(slot().pooled, 0u);
	EXPECT_EQ(slot().address_length, 4u);
	EXPECT_EQ(slot().client.load(), row().id);
	EXPECT_EQ(slot().pin_sequences.load(), 0u);
	const std::string defaults(slot().defaults, slot().defaults_length);
	EXPECT_NE(defaults.find(std::string("statement_timeout\0007", 19)), std::string::npos);
	const uint32_t told = slot().identity_sequence.load();
	ask(a, query("COMMIT"));
	ask(a, query("SELECT c1.x"));
	EXPECT_EQ(slot().identity_sequence.load(), told) << "it is the same client";
	world.pass(1500);
	EXPECT_EQ(slot().pooled, 1u);
	EXPECT_EQ(slot().address_length, 0u);
	Stream *b = login({{"options", "-c search_path=" + std::string(sizeof(slot().defaults), 'x')}});
	world.settings().pin_sequences.store(1);
	ask(b, query("SELECT c2.x"));
	EXPECT_EQ(slot().client.load(), client_rows(world.engine()).at(1).id);
	EXPECT_EQ(slot().pin_sequences.load(), 1u) << "from the next assignment on";
	EXPECT_EQ(slot().defaults_length, 0u) << "more than fits";
	backend().die();
	world.settle();
	EXPECT_EQ(slot().owner.load(), 0u);
}

TEST_F(Agent, TheCommitPositionIsThatOfTheClientThatWrote)
{
	Stream *a = login();
	ask(a, query("SELECT c1.x"));
	EXPECT_EQ(row().commit_lsn, 0u);
	ask(a, query("BEGIN"));
	slot().commit_lsn.store(77);
	ask(a, query("COMMIT"));
	EXPECT_EQ(row().commit_lsn, 77u);
	Stream *b = login();
	ask(b, query("SELECT c2.x"));
	EXPECT_EQ(client_rows(world.engine()).at(1).commit_lsn, 0u) << "it wrote nothing";
}

TEST_F(Agent, AnUnnamedStatementThatComesAgainIsSharedWithPlansOfItsOwn)
{
	world.settings().cache_unnamed.store(region::CacheUnnamed::Custom);
	Stream *a = login();
	const std::string work = parse("SELECT shared") + bind_to() + execute() + kSync;
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(ask(a, work), "1 2 D:shared C:SELECT 1 Z:I");
	EXPECT_EQ(backend().history.substr(backend().history.size() - 3), "BES");
	EXPECT_EQ(slot().custom_written.load(), 1u);
}

TEST_F(Agent, TheLastClientsStatementTimeoutDoesNotEndTheNextClient)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET statement_timeout 20ms"));
	ask(a, query("SET search_path mine"));
	ask(b, query("SET search_path other"));
	ask(a, query("SELECT c1.x"));
	backend().refused_value = "other";
	backend().refused_with = "57014";
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:other C:SHOW Z:I") << "by another backend";
	EXPECT_EQ(world.backends.size(), 2u);
	EXPECT_TRUE(backend().dead);
}

TEST_F(Agent, ItProvesWhoseSessionItIsWithoutAQuery)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	for (const std::string &sql : backend().log)
		EXPECT_EQ(sql.find("pg_database"), std::string::npos) << sql;
	world.prepare_backend = [](Backend &b) {
		b.agent = true;
		b.role_oid = 11; // its name was given to another role
	};
	backend().die();
	world.settle();
	send(a, query("SELECT c2.x"));
	world.pass(1200);
	EXPECT_EQ(got(a), "E:FATAL:28000") << "nobody is served there";
}

TEST_F(Agent, WithoutItAProofThatATimeoutEndsIsAskedForAgain)
{
	int asked = 0;
	world.prepare_backend = [](Backend &b) { b.proofs_ended = 3; };
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	for (const std::string &sql : backend().log)
		asked += sql.find("pg_database") != std::string::npos ? 1 : 0;
	EXPECT_EQ(asked, 4);
}

TEST_F(Agent, ASlotThatIsGivenUpIsNamedAnew)
{
	Stream *a = login();
	ask(a, query("SELECT c1.x"));
	const uint32_t generation = slot().generation.load();
	EXPECT_EQ(backend().agent_named, "0." + std::to_string(generation));
	backend().die();
	world.settle();
	EXPECT_EQ(slot().generation.load(), generation + 1) << "before anybody else has it";
	EXPECT_EQ(slot().owner.load(), 0u);
	ask(a, query("SELECT c2.x"));
	EXPECT_EQ(world.backends.back()->agent_named, "0." + std::to_string(generation + 1));
}

TEST_F(Agent, AQueryOfPgpoolsOwnIsAnnouncedBeforeItIsSent)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET search_path mine"));
	const uint32_t before = slot().applies.load();
	ask(b, query("SELECT c2.x"));
	EXPECT_EQ(slot().applies.load(), before + 1) << "settings";
	ask(b, query("PIN temporary"));
	send(b, message('X'));
	world.settle();
	EXPECT_EQ(slot().applies.load(), before + 2) << "DISCARD ALL";
}

// The agent counts, and the settings of the next client may be right behind the Sync.
TEST_F(Agent, ASyncThatNobodyWaitsForIsAnnouncedToo)
{
	Stream *a = login(), *b = login();
	ask(a, query("SET search_path mine"));
	const uint32_t before = slot().applies.load();
	world.pass(2500);
	EXPECT_EQ(slot().applies.load(), before + 1) << "idle";
	ask(b, query("SELECT c2.x"));
	EXPECT_EQ(slot().applies.load(), before + 2) << "settings";
}

TEST_F(Agent, WhatAValueIsInTheServersEncodingIsForTheWorkerAlone)
{
	Stream *a = login(), *b = login();
	backend().reports_bytes = true; // as if TimeZone were another text in the client's encoding
	EXPECT_EQ(ask(a, query("SET TimeZone PST")), "C:SET S:TimeZone=? Z:I");
	backend().reports_bytes = false;
	ask(b, query("SHOW TimeZone"));
	EXPECT_EQ(ask(a, query("SHOW TimeZone")), "T D:PST C:SHOW Z:I");
}

TEST_F(Agent, WithoutAPlaceForItAServerGoesWithout)
{
	for (uint32_t i = 0; i < world.view.header()->max_agents; i++)
		world.view.agent(i).owner.store(99);
	world.prepare_backend = nullptr;
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(slot().owner.load(), 99u);
	EXPECT_EQ(server_rows(world.engine()).at(0).agent, 0);
}

} // namespace
