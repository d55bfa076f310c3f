// What a fresh login is told: what it says of the standby never goes back.
#include "core/group/greeting.hpp"

#include <gtest/gtest.h>

namespace pgpool::core
{

namespace
{

std::string told(const Greeting &greeting)
{
	for (const auto &f : greeting.fixed()) {
		if (f.first == kInHotStandby)
			return f.second;
	}
	return "nothing";
}

} // namespace

TEST(Greeting, AStandbyIsWhatItsServersSay)
{
	Greeting greeting;
	EXPECT_FALSE(greeting.in_hot_standby());
	greeting.set_fixed(kInHotStandby, "on");
	EXPECT_TRUE(greeting.in_hot_standby());
	EXPECT_EQ(told(greeting), "on");
	greeting.set_fixed(kInHotStandby, "off");
	EXPECT_FALSE(greeting.in_hot_standby());
	EXPECT_EQ(told(greeting), "off");
}

// The words of a server that logged in before the promotion are read late.
TEST(Greeting, APromotionDoesNotGoBack)
{
	for (const bool by_server : {false, true}) {
		for (const bool was_standby : {false, true}) {
			Greeting greeting;
			if (was_standby)
				greeting.set_fixed(kInHotStandby, "on");
			if (by_server)
				greeting.set_fixed(kInHotStandby, "off");
			else
				greeting.leave_hot_standby();
			greeting.set_fixed(kInHotStandby, "on");
			EXPECT_FALSE(greeting.in_hot_standby()) << by_server << was_standby;
			EXPECT_EQ(told(greeting), "off") << by_server << was_standby;
		}
	}
}

} // namespace pgpool::core
