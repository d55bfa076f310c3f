// Logins of clients, and of servers: proofs, refusals, early bytes, time.
#include <gtest/gtest.h>

#include "fake.hpp"
#include "proto/scram.hpp"
#include "region/names.hpp"

namespace
{

using namespace fake;
namespace proto = pgpool::proto;

class LoginTest : public ::testing::Test
{
protected:
	World world;

	std::string ask(Stream *s, const std::string &bytes)
	{
		s->from_peer += bytes;
		world.settle();
		return summary(take_messages(s->to_peer));
	}
	std::string start() { return startup_packet({{"user", "anna"}, {"database", "shop"}}); }
	std::string login(Stream *s) { return ask(s, start()); }

	// The exchange of a client with this password; what came after the proof.
	std::string scram(Stream *s, const char *password)
	{
		proto::ScramVerifier verifier;
		proto::ScramKey key;
		EXPECT_TRUE(proto::ScramVerifier::parse(kVerifier, verifier));
		(void)proto::scram_keys_from_password(password, verifier, key);
		proto::ScramClient client(key, verifier);
		EXPECT_EQ(login(s), "R");
		const std::string first = client.first();
		std::string final;
		s->from_peer += sasl_first("SCRAM-SHA-256", first);
		world.settle();
		const std::vector<Message> m = take_messages(s->to_peer);
		EXPECT_EQ(m.size(), 1u);
		EXPECT_EQ(client.server_first(m.at(0).body.substr(4), final), proto::ScramStep::Continue);
		return ask(s, message('p', final));
	}
	void use_scram(bool doomed)
	{
		world.answer = [doomed](const control::AuthLookup &, control::AuthAnswer &a) {
			a.method = control::AuthMethod::Scram;
			a.doomed = doomed;
			strcpy(a.verifier, kVerifier);
		};
	}
	void TearDown() override
	{
		world.check();
		EXPECT_EQ(world.problem, "");
	}
};

TEST_F(LoginTest, ByTrustGreetsAtOnce)
{
	const std::string s = login(world.connect());
	EXPECT_EQ(s.substr(0, 2), "R ");
	EXPECT_EQ(s.substr(s.size() - 5), "K Z:I");
}

TEST_F(LoginTest, ByScramOpensAServerWithTheSameProof)
{
	use_scram(false);
	world.prepare_backend = [](Backend &b) { b.verifier = kVerifier; };
	const std::string s = scram(world.connect(), "pencil");
	EXPECT_EQ(s.substr(0, 4), "R R ");
	EXPECT_EQ(s.substr(s.size() - 5), "K Z:I");
}

TEST_F(LoginTest, AWrongPasswordAndADoomedLoginLookTheSame)
{
	use_scram(false);
	const std::string wrong = scram(world.connect(), "pencils");
	use_scram(true);
	EXPECT_EQ(scram(world.connect(), "pencil"), wrong);
	EXPECT_EQ(wrong, "E:FATAL:28P01");
	EXPECT_EQ(world.backends.size(), 0u);
}

TEST_F(LoginTest, ARefusalIsToldAndNoServerIsOpened)
{
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = control::AuthMethod::Refuse;
		strcpy(a.error.sqlstate, "28000");
	};
	Stream *c = world.connect();
	EXPECT_EQ(login(c), "E:FATAL:28000");
	EXPECT_TRUE(c->closed);
	EXPECT_EQ(world.backends.size(), 0u);
}

TEST_F(LoginTest, ARefusalAfterTheProofIsToldBehindAuthenticationOk)
{
	for (auto method : {control::AuthMethod::Trust, control::AuthMethod::Certificate}) {
		world.answer = [method](const control::AuthLookup &, control::AuthAnswer &a) {
			a.method = method;
			strcpy(a.error.sqlstate, "42501");
		};
		EXPECT_EQ(login(world.connect()), "R E:FATAL:42501");
	}
	EXPECT_EQ(world.backends.size(), 0u);
}

TEST_F(LoginTest, AnEncryptionRequestIsAnsweredAndBytesBehindItAreRefused)
{
	const std::string ssl("\0\0\0\x08\x04\xd2\x16\x2f", 8);
	Stream *c = world.connect();
	c->from_peer = ssl;
	world.settle();
	EXPECT_EQ(c->to_peer, "N") << "TLS is off";
	c->to_peer.clear();
	EXPECT_EQ(login(c).substr(0, 2), "R ");
	Stream *d = world.connect();
	d->from_peer = ssl + "x";
	world.settle();
	EXPECT_TRUE(d->closed);
	EXPECT_NE(d->to_peer.find("received unencrypted data after SSL request"), std::string::npos);
}

TEST_F(LoginTest, QueriesThatComeEarlyAreServedAfterTheGreeting)
{
	for (size_t piece : {1, 7, 10000}) {
		Stream *c = world.connect();
		c->from_peer = start() + query("SELECT c1.a") + query("SELECT c1.b");
		for (bool more = true; more;) {
			more = world.stream_event(c, piece) | world.post_event();
			for (size_t i = 0; i < world.streams.size(); i++) {
				if (world.streams[i]->backend)
					more |= world.backend_event(world.streams[i].get(), piece, piece) |
					        world.stream_event(world.streams[i].get(), piece);
			}
		}
		const std::string s = summary(take_messages(c->to_peer)),
		                  end = "Z:I T D:c1.a C:SELECT 1 Z:I T D:c1.b C:SELECT 1 Z:I";
		ASSERT_GT(s.size(), end.size());
		EXPECT_EQ(s.substr(s.size() - end.size()), end);
	}
}

TEST_F(LoginTest, EndsWithTheLoginTimeoutWhereverItStands)
{
	world.view.header()->settings.login_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = world.connect(), *b = world.connect();
	world.manager_answers = false;
	EXPECT_EQ(ask(a, start().substr(0, 9)), "");
	EXPECT_EQ(ask(b, start()), "");
	world.pass(2500);
	EXPECT_TRUE(a->closed && b->closed);
	EXPECT_EQ(summary(take_messages(b->to_peer)), "E:FATAL:57014");
}

TEST_F(LoginTest, WaitsForTheManagerAndForAServerThatStartsUp)
{
	world.manager_answers = false;
	Stream *c = world.connect();
	EXPECT_EQ(login(c), "");
	world.prepare_backend = [](Backend &b) { b.refuse = {"57P03", "starting up", "", ""}; };
	world.manager_answers = true;
	world.engine().on_manager();
	EXPECT_EQ(ask(c, ""), "R");
	world.pass(1200);
	EXPECT_FALSE(c->closed);
	EXPECT_GE(world.backends.size(), 2u);
	world.prepare_backend = nullptr;
	world.pass(1200);
	const std::string s = summary(take_messages(c->to_peer));
	ASSERT_GE(s.size(), 5u);
	EXPECT_EQ(s.substr(s.size() - 5), "K Z:I");
}

TEST_F(LoginTest, AServerThatRefusesTheRoleRefusesTheClient)
{
	world.prepare_backend = [](Backend &b) { b.refuse = {"28P01", "no", "", ""}; };
	EXPECT_EQ(login(world.connect()), "R E:FATAL:28P01");
	EXPECT_EQ(world.gauges().open.load(), 0);
	world.prepare_backend = [](Backend &b) { b.role_oid = 11; };
	world.pass(1000);
	EXPECT_EQ(login(world.connect()), "R E:FATAL:28000") << "the name is another role's now";
}

TEST_F(LoginTest, WhatIsTakenFromARoleIsNoEndOfItsOpenSessions)
{
	for (const char *sqlstate : {"28000", "42501", "55000", "28P01"}) {
		Stream *c = world.connect();
		ASSERT_EQ(login(c).substr(0, 1), "R");
		EXPECT_EQ(ask(c, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
		world.prepare_backend = [&](Backend &b) { b.refuse = {sqlstate, "no", "", ""}; };
		world.backends.back()->die();
		world.settle();
		EXPECT_EQ(ask(c, query("SELECT c1.x")), std::string("E:") + sqlstate + " Z:I");
		world.prepare_backend = nullptr;
		world.pass(1200);
		EXPECT_EQ(ask(c, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I") << "given back";
		c->from_peer = message('X', "");
		world.settle();
	}
	Stream *c = world.connect();
	ASSERT_EQ(login(c).substr(0, 1), "R");
	world.prepare_backend = [](Backend &b) { b.refuse = {"3D000", "no such database", "", ""}; };
	world.backends.back()->die();
	world.settle();
	EXPECT_EQ(ask(c, query("SELECT c1.x")), "E:FATAL:3D000") << "for good";
}

// A server is refused by the name that it was asked for by; that is believed when the manager has looked after it.
TEST_F(LoginTest, ARefusedNameIsBelievedWhenTheManagerHasLooked)
{
	for (const char *sqlstate : {"3D000", "28000", "28P01"}) {
		for (const bool renamed : {true, false}) {
			Stream *c = world.connect();
			ASSERT_EQ(login(c).substr(0, 1), "R");
			world.manager_answers = false;
			world.prepare_backend = [&](Backend &b) { b.refuse = {sqlstate, "no", "", ""}; };
			world.backends.back()->die();
			world.settle();
			EXPECT_EQ(ask(c, query("SELECT c1.x")), "") << "the manager has not looked";
			world.pass(1200);
			EXPECT_EQ(ask(c, ""), "") << "nor now";
			if (renamed) {
				world.prepare_backend = nullptr;
				region::write_names(world.view.pool(0), {"main", "shop", "anna"});
			}
			world.look();
			world.settle();
			const std::string told = ask(c, "");
			if (renamed)
				EXPECT_EQ(told, "T D:c1.x C:SELECT 1 Z:I") << sqlstate << ": at once";
			else
				EXPECT_EQ(told.substr(0, 2), "E:") << sqlstate << ": it is the name";
			world.prepare_backend = nullptr;
			world.manager_answers = true;
			world.pass(1200);
			c->from_peer = message('X', "");
			world.settle();
		}
	}
}

// The manager has told the new name, and only then the refusal of the old one comes.
TEST_F(LoginTest, ALateRefusalOfAnOldNameIsNotBelieved)
{
	Stream *c = world.connect();
	ASSERT_EQ(login(c).substr(0, 1), "R");
	Backend *slow = nullptr;
	world.prepare_backend = [&](Backend &b) {
		b.slow = true;
		slow = &b;
	};
	world.backends.back()->die();
	world.settle();
	EXPECT_EQ(ask(c, query("SELECT c1.x")), "");
	ASSERT_NE(slow, nullptr);
	region::write_names(world.view.pool(0), {"main", "shop", "anna"});
	world.look();
	world.prepare_backend = nullptr;
	slow->refuse = {"3D000", "no such database", "", ""};
	slow->slow = false;
	world.settle();
	EXPECT_EQ(ask(c, ""), "T D:c1.x C:SELECT 1 Z:I");
}

TEST_F(LoginTest, ATimeoutWhileItWaitsForAServerNamesTheLimit)
{
	world.view.header()->settings.login_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = world.connect(0, true), *b = world.connect(0, true), *c = world.connect(0, true);
	EXPECT_EQ(login(a).substr(0, 1), "R");
	EXPECT_EQ(login(b).substr(0, 1), "R");
	EXPECT_EQ(login(c), "R");
	world.pass(2500);
	EXPECT_NE(c->to_peer.find("has 2 server connections, and all are in use"), std::string::npos);
	EXPECT_EQ(summary(take_messages(c->to_peer)), "E:FATAL:57014");
}

TEST_F(LoginTest, ReplicationIsRefusedWhateverTheDatabaseIs)
{
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		strcpy(a.error.sqlstate, "3D000");
		strcpy(a.error.message, "database \"replication\" does not exist");
	};
	const std::pair<std::string, std::string> user{"user", "anna"}, database{"database", "replication"};
	EXPECT_EQ(ask(world.connect(), startup_packet({user, database})), "R E:FATAL:3D000");
	EXPECT_EQ(ask(world.connect(), startup_packet({user, database, {"replication", "true"}})), "R E:FATAL:0A000");
}

TEST_F(LoginTest, MoreClientsThanAllowedAreRefused)
{
	world.view.tenant(0).max_clients.store(1);
	EXPECT_EQ(login(world.connect()).substr(0, 2), "R ");
	EXPECT_EQ(login(world.connect()), "R E:FATAL:53300");
	EXPECT_EQ(world.view.tenant_counters(0, 0).clients.load(), 1);
}

// ---- TLS

const std::string kSslRequest("\0\0\0\x08\x04\xd2\x16\x2f", 8);

TEST_F(LoginTest, IsJudgedAsTlsOnlyWhenTheHandshakeIsDone)
{
	for (bool up : {true, false}) {
		int asked = 0;
		world.answer = [&](const control::AuthLookup &q, control::AuthAnswer &) {
			asked++;
			EXPECT_EQ(q.tls, 1) << "of clear text nothing may come behind start_tls()";
		};
		Stream *c = world.connect();
		c->tls_possible = true;
		c->from_peer = kSslRequest;
		world.settle();
		EXPECT_EQ(c->to_peer, "S");
		EXPECT_TRUE(c->tls_started);
		EXPECT_EQ(c->tls(), nullptr);
		c->to_peer.clear();
		c->tls_up = up;
		EXPECT_EQ(login(c).substr(0, 2), up ? "R " : "");
		EXPECT_EQ(asked, up ? 1 : 0);
		c->tls_up = true;
		world.settle();
	}
	world.answer = nullptr;
	Stream *d = world.connect();
	d->tls_possible = true;
	d->from_peer = kSslRequest + start();
	world.settle();
	EXPECT_TRUE(d->closed);
	EXPECT_FALSE(d->tls_started) << "bytes in clear behind the request are nobody's";
	EXPECT_NE(d->to_peer.find("received unencrypted data after SSL request"), std::string::npos);
}

TEST_F(LoginTest, AHandshakeThatFailsOrLastsIsCountedAndToldInTheLogAlone)
{
	world.view.header()->settings.login_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	const uint64_t before = world.view.worker(0).login_failures.load();
	auto half = [&] {
		Stream *s = world.connect();
		s->tls_possible = true;
		s->from_peer = kSslRequest;
		world.settle();
		EXPECT_EQ(s->to_peer, "S");
		s->to_peer.clear();
		return s;
	};
	Stream *fails = half();
	fails->peer_eof = true;
	world.settle();
	EXPECT_TRUE(fails->closed);
	ASSERT_EQ(world.log.size(), 1u);
	EXPECT_EQ(world.log.back(), "could not accept SSL connection: EOF detected (client peer)");
	world.pass(1500);
	std::vector<Stream *> last;
	for (int i = 0; i < 60; i++)
		last.push_back(half());
	EXPECT_EQ(world.view.worker(0).clients.load(), 60);
	world.pass(2500);
	EXPECT_EQ(world.view.worker(0).clients.load(), 0);
	for (Stream *s : last) {
		EXPECT_TRUE(s->closed);
		EXPECT_EQ(s->to_peer, "") << "in clear, to one who was promised TLS";
	}
	EXPECT_EQ(world.view.worker(0).login_failures.load(), before + 61);
	world.pass(1500);
	size_t lines = 0;
	for (const std::string &line : world.log)
		lines += line == "could not accept SSL connection: the handshake was not complete after pgpool.login_timeout, "
		                 "2000 ms (client peer)";
	EXPECT_GE(lines, 1u);
	EXPECT_LE(lines, 21u) << "a few lines, whatever strangers do";
	EXPECT_EQ(world.log.back(), std::to_string(60 - lines) + " more logins were refused and not logged (peer: " +
	                                std::to_string(60 - lines) + ")");
}

TEST_F(LoginTest, BeyondTheMarkOfDescriptorsIsAnsweredAndClosedAtOnce)
{
	world.view.worker(0).file_limit.store(500);
	Stream *s = world.new_stream(0);
	world.engine().accept(s, false, true);
	world.engine().end_event();
	EXPECT_TRUE(s->closed) << "without a word of his";
	EXPECT_NE(s->to_peer.find("This worker's limit of open files is 500."), std::string::npos);
	EXPECT_EQ(summary(take_messages(s->to_peer)), "E:FATAL:53300");
	EXPECT_EQ(world.view.worker(0).refused.load(), 1u);
	EXPECT_EQ(world.view.worker(0).clients.load(), 0);
	EXPECT_EQ(login(world.connect()).substr(0, 2), "R ");
}

// ---- hashes beside the event loop

TEST_F(LoginTest, APasswordIsHashedInAnotherEventAndWhoeverLeavesIsForgotten)
{
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = control::AuthMethod::Password;
		strcpy(a.verifier, kVerifier);
	};
	world.can_derive = false;
	auto run_hashes = [&] {
		auto all = std::move(world.deriving);
		world.deriving.clear();
		for (auto &f : all)
			f();
		world.settle();
	};
	const std::string right = password("pencil"), wrong = password("pen");
	Stream *good = world.connect(), *bad = world.connect(), *gone = world.connect(), *hasty = world.connect();
	for (Stream *s : {good, bad, gone, hasty})
		EXPECT_EQ(login(s), "R");
	EXPECT_EQ(ask(good, right), "");
	EXPECT_EQ(ask(bad, wrong), "");
	EXPECT_EQ(ask(gone, right), "");
	EXPECT_EQ(ask(hasty, right + right + right), "") << "one hash at a time for a login";
	EXPECT_EQ(world.derived, 4);
	gone->peer_eof = gone->peer_gone = true;
	world.settle();
	EXPECT_EQ(ask(good, query("SELECT c1.a")), "");
	run_hashes();
	EXPECT_EQ(world.derived, 4);
	const std::string s = summary(take_messages(good->to_peer)), end = "Z:I T D:c1.a C:SELECT 1 Z:I";
	ASSERT_GT(s.size(), end.size());
	EXPECT_EQ(s.substr(s.size() - end.size()), end);
	EXPECT_EQ(summary(take_messages(bad->to_peer)), "E:FATAL:28P01");
	EXPECT_TRUE(gone->closed);

	// The time limit and a reset end one whose hash is still on its way.
	world.view.header()->settings.login_timeout = 2000;
	world.engine().on_settings(world.view.header()->settings);
	Stream *late = world.connect();
	login(late);
	ask(late, right);
	world.pass(2500);
	EXPECT_TRUE(late->closed);
	EXPECT_EQ(world.forgotten, 1);
	run_hashes();
	EXPECT_EQ(summary(take_messages(late->to_peer)), "E:FATAL:57014");
}

TEST_F(LoginTest, AStoredPasswordOfTheServerIsHashedOncePerPool)
{
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = control::AuthMethod::Trust;
		strcpy(a.verifier, kVerifier);
		strcpy(a.server_password, "pencil");
	};
	world.can_derive = false;
	Stream *a = world.connect(), *leaves = world.connect();
	EXPECT_EQ(login(a), "R");
	EXPECT_EQ(login(leaves), "R");
	EXPECT_EQ(world.derived, 2);
	EXPECT_EQ(world.view.tenant_counters(0, 0).clients.load(), 2);
	auto all = std::move(world.deriving);
	world.deriving.clear();
	leaves->peer_eof = leaves->peer_gone = true;
	for (auto &f : all)
		f();
	world.settle();
	EXPECT_EQ(summary(take_messages(a->to_peer)).substr(0, 2), "S:");
	EXPECT_EQ(world.view.tenant_counters(0, 0).clients.load(), 1);
	EXPECT_EQ(login(world.connect()).substr(0, 2), "R ") << "the key is known";
	EXPECT_EQ(world.derived, 2);
}

TEST_F(LoginTest, WhatStartupAsksInVainIsToldAfterTheProof)
{
	const std::vector<std::pair<std::string, std::string>> asks[] = {
	    {{"options", "-X"}}, {{"options", "-c name"}}, {{"replication", "database"}}};
	for (const auto &more : asks) {
		std::vector<std::pair<std::string, std::string>> all{{"user", "anna"}, {"database", "shop"}};
		all.insert(all.end(), more.begin(), more.end());
		use_scram(false);
		EXPECT_EQ(ask(world.connect(), startup_packet(all)), "R") << "as to anybody";
		world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
			a.method = control::AuthMethod::Trust;
		};
		Stream *c = world.connect();
		const std::string s = ask(c, startup_packet(all));
		EXPECT_EQ(s.substr(0, 10), "R E:FATAL:") << s;
		EXPECT_TRUE(c->closed);
	}
	EXPECT_EQ(world.backends.size(), 0u);
}

TEST_F(LoginTest, ALoweredLoginTimeoutIsThatOfAllLogins)
{
	use_scram(false);
	region::Settings s = world.view.header()->settings;
	s.login_timeout = 60000;
	world.engine().on_settings(s);
	Stream *old = world.connect();
	login(old);
	world.pass(500);
	s.login_timeout = 1000;
	world.engine().on_settings(s);
	Stream *late = world.connect();
	login(late);
	world.pass(700);
	EXPECT_TRUE(old->closed) << "its time is over";
	EXPECT_FALSE(late->closed);
	world.pass(500);
	EXPECT_TRUE(late->closed) << "and nobody before it is in its way";
	s.login_timeout = 0;
	world.engine().on_settings(s);
}

TEST_F(LoginTest, AnAnswerForAnotherTenantsPlaceIsStale)
{
	world.answer = [this](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = control::AuthMethod::Trust;
		a.tenant_generation = world.view.tenant(0).generation.load();
		world.view.tenant(0).generation.fetch_add(1); // given to another one before the answer is there
	};
	EXPECT_EQ(login(world.connect()), "R E:FATAL:57P03");
	world.answer = [this](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = control::AuthMethod::Trust;
		a.tenant_generation = world.view.tenant(0).generation.load();
	};
	EXPECT_EQ(login(world.connect()).substr(0, 2), "R ");
}

TEST_F(LoginTest, ACertificateNameThatHasNoRoomIsNone)
{
	control::AuthLookup seen{};
	world.answer = [&seen](const control::AuthLookup &q, control::AuthAnswer &a) {
		seen = q;
		a.method = control::AuthMethod::Trust;
	};
	auto look = [&](size_t cn, size_t dn) {
		Stream *c = world.connect();
		c->tls_started = c->tls_up = true;
		c->tls_info.certificate_valid = true;
		c->tls_info.certificate_cn = std::string(cn, 'c');
		c->tls_info.certificate_dn = std::string(dn, 'd');
		login(c);
	};
	look(255, 1023);
	EXPECT_EQ(std::string(seen.certificate_cn), std::string(255, 'c'));
	EXPECT_EQ(std::string(seen.certificate_dn), std::string(1023, 'd'));
	EXPECT_EQ(seen.certificate_name_long, 0);
	look(256, 10);
	EXPECT_EQ(std::string(seen.certificate_cn), "") << "a part of it might be another one's";
	EXPECT_EQ(std::string(seen.certificate_dn), "dddddddddd");
	EXPECT_EQ(seen.certificate_name_long, 1);
	look(10, 1024);
	EXPECT_EQ(std::string(seen.certificate_dn), "");
	EXPECT_EQ(seen.certificate_name_long, 1);
}

TEST_F(LoginTest, TheBufferOfAnExchangeIsWipedAndOfASessionNot)
{
	use_scram(false);
	world.prepare_backend = [](Backend &b) { b.verifier = kVerifier; };
	Stream *c = world.connect();
	EXPECT_FALSE(c->wipes_input);
	login(c);
	EXPECT_TRUE(c->wipes_input);
	Stream *d = world.connect();
	scram(d, "pencil");
	EXPECT_FALSE(d->wipes_input);
}

} // namespace
