// Why a server stays with its client, without a server around it.
#include "core/server/server_pins.hpp"

#include <gtest/gtest.h>

namespace
{

using namespace pgpool;
using core::ServerPins;
using Counted = ServerPins::Counted;

TEST(ServerPins, SettingsStandBehindWhatTheAgentSays)
{
	ServerPins pins;
	EXPECT_FALSE(pins.any());
	pins.tell_settings(true);
	EXPECT_EQ(pins.why(), "settings");
	pins.tell("LISTEN");
	EXPECT_TRUE(pins.only_listens()) << "whether there are too many settings is told anew";
	pins.tell_settings(true);
	pins.tell_settings(true);
	EXPECT_EQ(pins.why(), "LISTEN, settings");
	EXPECT_FALSE(pins.only_listens());
	pins.tell_settings(false);
	EXPECT_EQ(pins.why(), "LISTEN");
	pins.tell("");
	EXPECT_FALSE(pins.any());
}

TEST(ServerPins, AnotherIdentityIsAReasonWhateverTheAgentSays)
{
	ServerPins pins;
	pins.tell("LISTEN");
	pins.tell_identity(true);
	EXPECT_EQ(pins.why(), "SET SESSION AUTHORIZATION");
	EXPECT_FALSE(pins.only_listens());
	pins.tell("");
	EXPECT_TRUE(pins.any());
	pins.tell_identity(false);
	EXPECT_FALSE(pins.any());
}

TEST(ServerPins, AParkingThatFailedIsTriedAgainAfterAWhileOrForAnotherClient)
{
	ServerPins pins;
	EXPECT_TRUE(pins.may_park());
	EXPECT_FALSE(pins.may_park_again(1)) << "nothing failed";
	pins.cannot_park(0);
	EXPECT_FALSE(pins.may_park());
	EXPECT_FALSE(pins.may_park_again(4999999));
	EXPECT_TRUE(pins.may_park_again(5000000));
	EXPECT_TRUE(pins.may_park());
	pins.cannot_park(5000000);
	pins.assigned();
	EXPECT_TRUE(pins.may_park());
}

TEST(ServerPins, TheSumsOfAPoolAreThoseOfItsServers)
{
	region::TargetGauges sums{};
	ServerPins one, other;
	const auto expect = [&](int32_t pinned, int32_t parkable) {
		EXPECT_EQ(sums.pinned.load(), pinned);
		EXPECT_EQ(sums.parkable.load(), parkable);
	};
	one.count(Counted::Kept, sums);
	other.count(Counted::Parkable, sums);
	expect(2, 1);
	one.count(Counted::Parkable, sums);
	one.count(Counted::Parkable, sums);
	expect(2, 2);
	other.count(Counted::Kept, sums);
	expect(2, 1);
	other.count(Counted::Not, sums);
	expect(1, 1);
	one.count(Counted::Not, sums);
	expect(0, 0);
}

} // namespace
