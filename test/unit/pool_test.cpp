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
	EXPECT_EQ(world.counters(0).open.load() + world.counters(1).open.load(), 1);
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

TEST(PoolTest, DISABLED_ASmallerLimitClosesOnlyWhatIsTooMuch)
{
	World world;
	world.settings().pool_size.store(2);
	Stream *a = login(world), *b = login(world);
	ask(world, a, query("BEGIN"));
	ask(world, b, query("BEGIN"));
	EXPECT_EQ(world.live_backends(), 2u);
	ask(world, a, query("COMMIT"));
	ask(world, b, query("COMMIT"));
	world.settings().pool_size.store(1);
	world.engine().on_poke();
	world.engine().end_event();
	world.settle();
	EXPECT_EQ(world.live_backends(), 1u);
}

} // namespace
