// Pools: the limit holds over all workers, places move to those who wait, servers end by age and idleness.
#include <gtest/gtest.h>

#include "fake.hpp"

namespace
{

using namespace fake;

std::string ask(World &world, Stream *s, const std::string &bytes)
{
	s->from_peer += bytes;
	world.settle();
	return summary(take_messages(s->to_peer));
}

Stream *login(World &world, uint32_t node = 0)
{
	Stream *s = world.connect(node);
	ask(world, s, startup_packet({{"user", "anna"}, {"database", "shop"}}));
	world.pass(300);
	take_messages(s->to_peer);
	return s;
}

TEST(PoolTest, TheLimitHoldsOverTwoWorkersAndAPlaceMovesToWhoWaits)
{
	World world(2);
	world.settings().pool_size.store(1);
	Stream *a = login(world, 0), *b = login(world, 1);
	EXPECT_EQ(ask(world, a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(world, b, query("SELECT c2.x")), "");
	world.pass(500);
	EXPECT_EQ(world.live_backends(), 1u);
	EXPECT_EQ(b->to_peer, "");
	ask(world, a, query("COMMIT"));
	world.pass(500);
	EXPECT_EQ(summary(take_messages(b->to_peer)), "T D:c2.x C:SELECT 1 Z:I");
	EXPECT_EQ(world.gauges(0).open.load() + world.gauges(1).open.load(), 1);
	world.check();
	EXPECT_EQ(world.problem, "");
}

TEST(PoolTest, AnIdleServerEndsByItsTimeoutAndAnOldOneByItsLifetime)
{
	World world;
	world.settings().server_idle_timeout.store(1000);
	Stream *a = login(world);
	EXPECT_EQ(world.live_backends(), 1u);
	world.pass(1500);
	EXPECT_EQ(world.live_backends(), 0u);
	world.settings().server_idle_timeout.store(0);
	world.settings().server_lifetime.store(1000);
	ask(world, a, query("BEGIN"));
	world.pass(1500);
	EXPECT_EQ(world.live_backends(), 1u) << "not within a transaction";
	ask(world, a, query("COMMIT"));
	world.pass(200);
	EXPECT_EQ(world.live_backends(), 0u);
}

// ---- the server has a limit of its own, for a role, a database or altogether

class Full : public ::testing::TestWithParam<const char *>
{
protected:
	World world{2};
	static constexpr size_t kLimit = 1;
	int refused = 0;

	struct Who {
		const char *role, *database;
		uint32_t role_oid, database_oid;
	};
	static constexpr Who kWho[] = {
	    {"anna", "shop", 10, 5}, {"bert", "shop", 11, 5}, {"anna", "blog", 10, 6}, {"cora", "wiki", 12, 7}};

	bool counts(const Backend &a, const Backend &b) const
	{
		const std::string routine = GetParam();
		return routine == "InitializeSessionUserId" ? a.user == b.user
		       : routine == "CheckMyDatabase"       ? a.database == b.database
		                                            : true;
	}
	size_t there(const Backend &as)
	{
		size_t n = 0;
		for (const auto &b : world.backends)
			n += b.get() != &as && !b->dead && !b->user.empty() && counts(*b, as);
		return n;
	}
	void SetUp() override
	{
		for (uint32_t i = 0; i < 4; i++) {
			region::PoolSlot &p = world.view.pool(i);
			strcpy(p.tenant, "main");
			strcpy(p.database, kWho[i].database);
			strcpy(p.role, kWho[i].role);
			p.database_oid = kWho[i].database_oid;
			p.role_oid = kWho[i].role_oid;
			p.settings.pool_size.store(8);
			p.settings.max_pinned.store(7);
			p.state.store(region::SlotState::Used);
		}
		world.answer = [](const control::AuthLookup &question, control::AuthAnswer &a) {
			for (uint32_t i = 0; i < 4; i++) {
				if (std::string(question.user) == kWho[i].role && std::string(question.database) == kWho[i].database)
					a.pool_slot = i, a.role_oid = kWho[i].role_oid, a.database_oid = kWho[i].database_oid;
			}
			strcpy(a.role, question.user);
			strcpy(a.database, question.database);
		};
		world.prepare_backend = [this](Backend &b) {
			b.on_startup = [this](Backend &self) {
				for (const Who &w : kWho) {
					if (self.user == w.role && self.database == w.database)
						self.role_oid = w.role_oid, self.database_oid = w.database_oid;
				}
				if (there(self) < kLimit)
					return;
				refused++;
				self.refuse = {"53300", "zu viele Verbindungen", "", ""};
				self.refuse_routine = GetParam();
			};
		};
	}
	Stream *client(uint32_t who, uint32_t node)
	{
		Stream *s = world.connect(node);
		s->from_peer = startup_packet({{"user", kWho[who].role}, {"database", kWho[who].database}});
		world.settle();
		return s;
	}
	// The pools whose servers count for the limit that pool 0 meets, and one that does not.
	uint32_t other() const
	{
		const std::string routine = GetParam();
		return routine == "InitializeSessionUserId" ? 2 : routine == "CheckMyDatabase" ? 1 : 3;
	}
	uint32_t innocent() const { return other() == 2 ? 1 : 2; }
	bool served(Stream *s) { return summary(take_messages(s->to_peer)).find("C:SELECT 1 Z:I") != std::string::npos; }
	bool works(Stream *s)
	{
		s->from_peer += query("SELECT c9.x");
		world.settle();
		return served(s);
	}
	int idle(uint32_t who)
	{
		return world.view.gauges(who, 0, 0).idle.load() + world.view.gauges(who, 0, 1).idle.load();
	}
};

TEST_P(Full, AnIdleServerThatCountsForTheLimitGivesItsPlaceUp)
{
	for (const uint32_t donor : {other(), 0u}) {
		for (const uint32_t node : {0u, 1u}) {
			if (donor == 0 && node == 0)
				continue; // that one would serve
			if (other() != 3)
				works(client(innocent(), node));
			ASSERT_TRUE(works(client(donor, node))) << donor << node;
			ASSERT_EQ(idle(donor), 1);
			const size_t logins = world.backends.size();
			refused = 0;
			Stream *s = client(0, 0);
			s->from_peer += query("SELECT c1.x");
			world.pass(200);
			EXPECT_TRUE(served(s)) << "its place is there at once, pool " << donor << " of worker " << node;
			EXPECT_LE(world.backends.size() - logins, 3u);
			if (other() != 3) {
				EXPECT_EQ(idle(innocent()), 1) << "it would not help";
			}
			for (auto &c : world.streams) {
				if (!c->backend)
					c->peer_eof = c->peer_gone = true;
			}
			for (auto &b : world.backends)
				b->die();
			world.pass(1500);
		}
	}
}

TEST_P(Full, ABusyServerIsWaitedForAtABoundedRate)
{
	Stream *busy = client(other(), 1);
	ASSERT_TRUE(works(busy));
	ask(world, busy, query("BEGIN"));
	std::vector<Stream *> waiting;
	for (int i = 0; i < 5; i++) {
		waiting.push_back(client(0, static_cast<uint32_t>(i % 2)));
		waiting.back()->from_peer += query("SELECT c1.x");
	}
	world.pass(10000);
	EXPECT_LE(refused, 50) << "twice a second in each worker";
	EXPECT_GE(refused, 10) << "a session of somebody else may have ended";
	EXPECT_FALSE(busy->closed);
	ask(world, busy, query("COMMIT"));
	take_messages(busy->to_peer);
	refused = 0;
	world.pass(1500);
	for (Stream *s : waiting)
		EXPECT_TRUE(served(s)) << "one place is enough for all";
	EXPECT_LE(refused, 20);
}

TEST_P(Full, TwoBusyPoolsShareThePlaceAtABoundedRate)
{
	Stream *a = client(other(), 0);
	ASSERT_TRUE(works(a));
	Stream *b = client(0, 1);
	const size_t before = world.backends.size();
	int answers[2] = {0, 0};
	bool asked[2] = {false, false};
	for (int i = 0; i < 200; i++) { // both are busy, with a short rest between two transactions of each
		for (int k = 0; k < 2; k++) {
			Stream *s = k ? b : a;
			if (!std::exchange(asked[k], true))
				s->from_peer += query(k ? "SELECT c2.x" : "SELECT c1.x");
			world.settle();
			if (served(s))
				answers[k]++, asked[k] = false;
		}
		world.tick(50);
	}
	EXPECT_LE(world.backends.size() - before, 250u) << "in ten seconds: as often as at pgpool's own limits";
	EXPECT_GT(answers[0], 20);
	EXPECT_GT(answers[1], 20);
	EXPECT_FALSE(a->closed || b->closed);
}

INSTANTIATE_TEST_SUITE_P(Limits, Full, ::testing::Values("InitializeSessionUserId", "CheckMyDatabase", "InitProcess"),
                         [](const auto &p) { return std::string(p.param); });

} // namespace
