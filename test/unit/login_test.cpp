// Logins of clients, and of servers: proofs, refusals, early bytes, time.
#include <gtest/gtest.h>

#include "fake.hpp"
#include "proto/scram.hpp"

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
		std::string body, final;
		Writer(body).string("SCRAM-SHA-256").u32(static_cast<uint32_t>(first.size())).bytes(first);
		s->from_peer += message('p', body);
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

TEST_F(LoginTest, AnEncryptionRequestIsAnsweredAndBytesBehindItAreRefused)
{
	const std::string ssl("\0\0\0\x08\x04\xd2\x16\x2f", 8);
	Stream *c = world.connect();
	c->from_peer = ssl;
	world.settle();
	EXPECT_EQ(c->to_peer, "N");
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
	EXPECT_EQ(world.counters().open.load(), 0);
	world.prepare_backend = [](Backend &b) { b.role_oid = 11; };
	world.pass(1000);
	EXPECT_EQ(login(world.connect()), "R E:FATAL:28000") << "the name is another role's now";
}

TEST_F(LoginTest, MoreClientsThanAllowedAreRefused)
{
	world.view.tenant(0).max_clients.store(1);
	EXPECT_EQ(login(world.connect()).substr(0, 2), "R ");
	EXPECT_EQ(login(world.connect()), "E:FATAL:53300");
	EXPECT_EQ(world.view.tenant_counters(0, 0).clients.load(), 1);
}

} // namespace
