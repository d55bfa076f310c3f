// Proofs: methods of pg_hba.conf at the client, demands of the backend, and what is refused before and after.
#include <gtest/gtest.h>

#include "fake.hpp"
#include "proto/md5.hpp"
#include "proto/scram.hpp"

namespace
{

using namespace fake;
namespace proto = pgpool::proto;
using control::AuthMethod;

class Proof : public ::testing::Test
{
protected:
	World world;

	std::string ask(Stream *s, const std::string &bytes)
	{
		s->from_peer += bytes;
		world.settle();
		return end_of(summary(take_messages(s->to_peer)));
	}
	// "Z:I" for a greeting
	static std::string end_of(const std::string &s)
	{
		return s.size() > 5 && s.substr(s.size() - 5) == "K Z:I" ? "Z:I" : s;
	}
	std::string login(Stream *s, std::vector<std::pair<std::string, std::string>> more = {})
	{
		more.insert(more.begin(), {{"user", "anna"}, {"database", "shop"}});
		return ask(s, startup_packet(more));
	}
	std::string prove(const std::string &body)
	{
		Stream *c = world.connect();
		EXPECT_EQ(login(c), "R");
		return ask(c, message('p', body));
	}
	void use(AuthMethod method, const std::string &verifier, bool doomed = false, const char *server_password = "")
	{
		world.answer = [=](const control::AuthLookup &, control::AuthAnswer &a) {
			a.method = method;
			a.doomed = doomed;
			strcpy(a.verifier, verifier.c_str());
			strcpy(a.server_password, server_password);
			strcpy(a.log_detail, doomed ? "the role does not exist" : "");
		};
	}
	static std::string md5_of(const std::string &password)
	{
		std::string verifier;
		EXPECT_TRUE(proto::md5_verifier(password, "anna", verifier));
		return verifier;
	}
	static std::string text(std::string_view s) { return std::string(s) + '\0'; }
	void TearDown() override
	{
		world.check();
		EXPECT_EQ(world.problem, "");
	}
};

TEST_F(Proof, APasswordInClearFitsEitherVerifier)
{
	for (const std::string &verifier : {std::string(kVerifier), md5_of("pencil")}) {
		use(AuthMethod::Password, verifier);
		EXPECT_EQ(prove(text("pencil")), "Z:I");
		EXPECT_EQ(prove(text("pencils")), "E:FATAL:28P01");
		EXPECT_EQ(prove(text("")), "E:FATAL:28P01");
		EXPECT_EQ(prove("pencil"), "E:FATAL:08P01") << "no end";
		EXPECT_EQ(prove(text("pencil") + "x"), "E:FATAL:08P01");
		use(AuthMethod::Password, verifier, true);
		EXPECT_EQ(prove(text("pencil")), "E:FATAL:28P01");
	}
	EXPECT_NE(world.log.back().find("the role does not exist"), std::string::npos);
}

TEST_F(Proof, AnMd5ResponseIsCheckedAgainstItsSalt)
{
	for (const bool doomed : {false, true}) {
		use(AuthMethod::Md5, md5_of("pencil"), doomed);
		Stream *c = world.connect();
		c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
		world.settle();
		const std::vector<Message> m = take_messages(c->to_peer);
		ASSERT_EQ(m.at(0).body.size(), 8u);
		uint8_t salt[4];
		memcpy(salt, m[0].body.data() + 4, 4);
		std::string response;
		ASSERT_TRUE(proto::md5_response(md5_of("pencil"), salt, response));
		EXPECT_EQ(ask(c, message('p', text(response))), doomed ? "E:FATAL:28P01" : "Z:I");
		EXPECT_EQ(prove(text(response)), "E:FATAL:28P01") << "another salt";
	}
}

TEST_F(Proof, AMalformedExchangeIsAProtocolViolation)
{
	use(AuthMethod::Scram, kVerifier);
	std::string late, mechanism;
	Writer(late).string("SCRAM-SHA-256").u32(UINT32_MAX);
	Writer(mechanism).string("SCRAM-SHA-1").u32(1).bytes("n");
	std::string length;
	Writer(length).string("SCRAM-SHA-256").u32(7).bytes("n");
	EXPECT_EQ(prove("SCRAM"), "E:FATAL:08P01");
	EXPECT_EQ(prove(length), "E:FATAL:08P01");
	EXPECT_EQ(prove(mechanism), "E:FATAL:08P01");
	Stream *c = world.connect();
	login(c);
	EXPECT_EQ(ask(c, message('p', late)), "R") << "an empty challenge asks for the first message";
	EXPECT_EQ(ask(c, message('p', "n,,n=,r=abc")), "R");
	EXPECT_EQ(ask(c, message('p', "nonsense")), "E:FATAL:08P01");
	Stream *d = world.connect();
	login(d);
	EXPECT_EQ(ask(d, query("SELECT 1")), "E:FATAL:08P01") << "not a proof";
	Stream *e = world.connect();
	login(e);
	EXPECT_EQ(ask(e, std::string("p\0\xff\xff\xff", 5)), "E:FATAL:08P01");
	use(AuthMethod::Scram, "what is this?");
	EXPECT_EQ(login(world.connect()), "E:FATAL:XX000");
}

TEST_F(Proof, AHastyClientMaySendItsProofBeforeItIsAsked)
{
	use(AuthMethod::Password, kVerifier);
	Stream *c = world.connect();
	c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}}) + message('p', text("pencil"));
	world.settle();
	EXPECT_EQ(end_of(summary(take_messages(c->to_peer))), "Z:I");
	world.manager_answers = false;
	Stream *d = world.connect();
	EXPECT_EQ(login(d), "");
	EXPECT_EQ(ask(d, std::string(70000, 'x')), "E:FATAL:08P01") << "but not without end";
}

TEST_F(Proof, WhatTheManagerSaysAfterwardsIsToldAfterTheProof)
{
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		a.method = AuthMethod::Password;
		strcpy(a.verifier, kVerifier);
		strcpy(a.error.sqlstate, "28000");
	};
	EXPECT_EQ(prove(text("pencil")), "R E:FATAL:28000");
	EXPECT_EQ(prove(text("wrong")), "E:FATAL:28P01");
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) { a.pool_generation = 4711; };
	EXPECT_EQ(login(world.connect()), "R E:FATAL:57P03") << "the pool is another one's by now";
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) { a.pool_slot = 4711; };
	EXPECT_EQ(login(world.connect()), "R E:FATAL:57P03");
	world.answer = [](const control::AuthLookup &, control::AuthAnswer &a) {
		a.route = control::ServerRoute::None;
		strcpy(a.route_error.sqlstate, "28000");
	};
	EXPECT_EQ(login(world.connect()), "R E:FATAL:28000") << "no way to the server";
}

TEST_F(Proof, WhatIsWrongWithAStartupPacketIsTold)
{
	EXPECT_EQ(login(world.connect(), {{"replication", "database"}}), "R E:FATAL:0A000") << "after the proof";
	EXPECT_EQ(login(world.connect(), {{"replication", "off"}}), "Z:I");
	EXPECT_EQ(ask(world.connect(), startup_packet({{"user", std::string(300, 'u')}})), "E:FATAL:28000");
	EXPECT_EQ(ask(world.connect(), startup_packet({{"database", "shop"}})), "E:FATAL:28000");
	EXPECT_EQ(ask(world.connect(), startup_packet({{"user", "anna"}}, 3u << 16 | 2)).substr(0, 1), "Z");
	Stream *bad = world.connect();
	EXPECT_EQ(ask(bad, std::string(8, '\x7f')), "");
	EXPECT_TRUE(bad->closed) << "no answer";
	const std::string gss("\0\0\0\x08\x04\xd2\x16\x30", 8);
	Stream *c = world.connect();
	c->from_peer = gss;
	world.settle();
	EXPECT_EQ(c->to_peer, "N");
	c->to_peer.clear();
	EXPECT_EQ(ask(c, gss), "E:FATAL:08P01") << "twice";
	EXPECT_EQ(ask(world.connect(), gss + "x"), "E:FATAL:08P01");
	Stream *d = world.connect();
	EXPECT_EQ(ask(d, std::string("\0\0\0\x08\x04\xd2\x16\x2e", 8)), "");
	EXPECT_TRUE(d->closed) << "a cancel request without a key";
}

TEST_F(Proof, LimitsOfClientsAreLookedAtBeforeAndAfterTheProof)
{
	region::Settings &settings = world.view.header()->settings;
	settings.log_connections = settings.log_disconnections = 1;
	settings.max_client_connections = 1;
	world.engine().on_settings(settings);
	Stream *a = world.connect();
	EXPECT_EQ(login(a), "Z:I");
	EXPECT_NE(world.log.back().find("logged in"), std::string::npos);
	EXPECT_EQ(login(world.connect()), "E:FATAL:53300");
	settings.max_client_connections = 100;
	world.engine().on_settings(settings);
	world.settings().max_clients.store(1);
	EXPECT_EQ(login(world.connect()), "R E:FATAL:53300") << "of this role";
	ask(a, message('X'));
	EXPECT_NE(world.log.back().find("disconnection"), std::string::npos);
	EXPECT_EQ(login(world.connect()), "Z:I");
	Stream *last = world.new_stream(0);
	world.engine().accept(last, false, true);
	EXPECT_EQ(login(last), "E:FATAL:53300") << "no descriptor is left";
}

// ---- the backend's demands

TEST_F(Proof, ABackendThatWantsAPasswordGetsWhatIsKnown)
{
	const std::string clear = message('R', std::string("\0\0\0\3", 4)),
	                  md5 = message('R', std::string("\0\0\0\5salt", 8));
	for (const std::string &demand : {clear, md5}) {
		world.prepare_backend = [demand](Backend &b) { b.demand = demand; };
		use(AuthMethod::Trust, "", false, "pencil");
		EXPECT_EQ(login(world.connect(), {{"TimeZone", demand == clear ? "a" : "b"}}), "Z:I");
		EXPECT_EQ(world.backends.back()->proof.substr(0, 3), demand == clear ? "pen" : "md5");
		world.backends.back()->die();
		world.settle();
	}
	use(AuthMethod::Password, md5_of("pencil"));
	Stream *c = world.connect();
	EXPECT_EQ(login(c, {{"TimeZone", "other"}}), "R");
	EXPECT_EQ(ask(c, message('p', text("pencil"))), "Z:I");
}

TEST_F(Proof, APasswordGoesToAnotherMachineOnlyWhereNobodyCanReadIt)
{
	const std::string clear = message('R', std::string("\0\0\0\3", 4)),
	                  md5 = message('R', std::string("\0\0\0\5salt", 8));
	using core::Secrecy;
	struct {
		Secrecy secret;
		bool clear, md5;
	} const cases[] = {{Secrecy::Clear, false, false},
	                   {Secrecy::Encrypted, false, true},
	                   {Secrecy::Verified, true, true},
	                   {Secrecy::Local, true, true}};
	use(AuthMethod::Trust, "", false, "pencil");
	for (const auto &c : cases) {
		for (const bool in_clear : {true, false}) {
			World another;
			another.answer = world.answer;
			another.prepare_backend = [&](Backend &b) { b.demand = in_clear ? clear : md5; };
			another.on_dialled = [&](Stream &s) { s.secret = c.secret; };
			Stream *s = another.connect();
			s->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
			another.settle();
			const bool sent = in_clear ? c.clear : c.md5;
			EXPECT_EQ(end_of(summary(take_messages(s->to_peer))), sent ? "Z:I" : "R E:FATAL:28000");
			EXPECT_EQ(another.backends.back()->proof.empty(), !sent);
		}
	}
}

TEST_F(Proof, ABackendThatWantsWhatNobodyProvedIsAnErrorOfTheClient)
{
	const std::pair<const char *, std::string> demands[] = {
	    {" E:FATAL:28000", message('R', std::string("\0\0\0\3", 4))},
	    {" E:FATAL:28000", message('R', std::string("\0\0\0\5salt", 8))},
	    {" E:FATAL:28000", message('R', std::string("\0\0\0\5sa", 6))},
	    {" E:FATAL:28000", message('R', std::string("\0\0\0\x0aSCRAM-SHA-256\0\0", 19))},
	    {" E:FATAL:28000", message('R', std::string("\0\0\0\7", 4))}, // GSSAPI
	    {"", message('R', std::string("\0\0\0\x0bhello", 9))},
	    {"", message('T')},
	    {"", std::string("R\0\0\0\2", 5)},
	    {"", std::string("R\x7f\0\0\2", 5)}};
	for (const auto &d : demands) {
		World another;
		another.prepare_backend = [&](Backend &b) { b.demand = d.second; };
		Stream *c = another.connect();
		c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
		another.settle();
		EXPECT_EQ(summary(take_messages(c->to_peer)), std::string("R") + d.first)
		    << "one that makes no sense is tried again";
		EXPECT_EQ(another.gauges().open.load(), 0);
		EXPECT_EQ(another.counters().server_login_failures.load(), 1u);
	}
}

TEST_F(Proof, ABackendThatSaysNothingIsGivenUp)
{
	world.prepare_backend = [](Backend &b) { b.demand = message('N', "x"); };
	Stream *c = world.connect();
	EXPECT_EQ(login(c), "R");
	world.pass(15500);
	EXPECT_EQ(world.counters().server_login_failures.load(), 1u);
	world.prepare_backend = nullptr;
	world.pass(2000);
	EXPECT_EQ(end_of(summary(take_messages(c->to_peer))), "Z:I");
}

TEST_F(Proof, AChangedPasswordIsToldToWhoWaits)
{
	use(AuthMethod::Password, kVerifier);
	Stream *c = world.connect();
	login(c);
	ask(c, message('p', text("pencil")));
	world.backends.back()->die();
	world.settle();
	std::string other(kVerifier);
	other.replace(other.find("W22Z"), 4, "X22Z");
	world.prepare_backend = [&](Backend &b) { b.verifier = other; };
	EXPECT_EQ(ask(c, query("SELECT c1.x")), "E:28P01 Z:I") << "it may go on";
	world.prepare_backend = [&](Backend &b) { b.verifier = kVerifier; };
	world.pass(1200);
	EXPECT_EQ(ask(c, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
}

// ---- what one worker knows, the others know

TEST_F(Proof, AProofIsToldToTheOtherWorkers)
{
	World two(2);
	Stream *c = two.connect(0);
	auto give = [&](Stream *s, const std::string &bytes) {
		s->from_peer += bytes;
		two.settle();
		return summary(take_messages(s->to_peer));
	};
	for (const bool md5 : {false, true}) {
		two.answer = [&](const control::AuthLookup &, control::AuthAnswer &a) {
			a.method = AuthMethod::Password;
			strcpy(a.verifier, md5 ? md5_of("pencil").c_str() : kVerifier);
		};
		c = two.connect(0);
		give(c, startup_packet({{"user", "anna"}, {"database", "shop"}}));
		EXPECT_EQ(end_of(give(c, message('p', text("pencil")))), "Z:I");
		EXPECT_GE(two.proofs, md5 ? 2 : 1);
	}
}

} // namespace
