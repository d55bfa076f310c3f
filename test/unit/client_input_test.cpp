// What a client sent and is not done with: client_input.hpp.
#include <gtest/gtest.h>

#include "core/client/client_input.hpp"

namespace pgpool
{
namespace
{

using core::ClientInput;
using Missing = ClientInput::Missing;
using Pause = ClientInput::Pause;

TEST(ClientInput, BytesWaitInTheOrderInWhichTheyAreToBeServed)
{
	ClientInput input;
	EXPECT_TRUE(input.replace("old"));
	EXPECT_TRUE(input.replace("second"));
	EXPECT_TRUE(input.add(" third"));
	EXPECT_TRUE(input.put_back("first "));
	EXPECT_EQ(input.bytes(), "first second third");
	EXPECT_EQ(input.take(), "first second third");
	EXPECT_TRUE(input.empty());
}

TEST(ClientInput, WhatIsNeededHoldsUntilTheBytesAreTaken)
{
	ClientInput input;
	input.need(4);
	EXPECT_TRUE(input.add("abc"));
	EXPECT_FALSE(input.has_enough());
	EXPECT_TRUE(input.add("d"));
	EXPECT_TRUE(input.has_enough());
	input.take();
	EXPECT_TRUE(input.has_enough());
}

TEST(ClientInput, AMessageGoesThroughInPiecesAndNotBeyondItsEnd)
{
	ClientInput input;
	EXPECT_FALSE(input.mid_message());
	input.begin(100, 30);
	EXPECT_EQ(input.go_on(50), 50u);
	EXPECT_TRUE(input.mid_message());
	EXPECT_EQ(input.go_on(50), 20u);
	EXPECT_FALSE(input.mid_message());
}

TEST(ClientInput, TheRestOfAMessageThatNobodyWantsIsDroppedBehindWhatIsDroppedAlready)
{
	ClientInput input;
	input.drop(5);
	input.begin(100, 90);
	input.drop_rest();
	EXPECT_FALSE(input.mid_message());
	EXPECT_EQ(input.drop_some(100), 15u);
	EXPECT_FALSE(input.dropping());
}

TEST(ClientInput, OneReasonToWaitDoesNotEndTheOther)
{
	ClientInput input;
	EXPECT_FALSE(input.held());
	input.miss(Missing::Handover);
	input.set_pause(Pause::Reader);
	EXPECT_FALSE(input.end_pause(Pause::Turn));
	EXPECT_TRUE(input.end_pause(Pause::Reader));
	EXPECT_FALSE(input.end_pause(Pause::None));
	EXPECT_TRUE(input.held());
	input.miss(Missing::Nothing);
	EXPECT_FALSE(input.held());
}

TEST(ClientInput, ServedByAnotherServerItBeginsWithAWholeMessage)
{
	ClientInput input;
	input.begin(100, 90);
	input.miss(Missing::Settings);
	input.set_pause(Pause::Backlog);
	input.start_over();
	EXPECT_FALSE(input.mid_message());
	EXPECT_FALSE(input.dropping());
	EXPECT_FALSE(input.held());
}

} // namespace
} // namespace pgpool
