// Times and counts of a server, without a server around them.
#include "core/server/server_times.hpp"

#include <gtest/gtest.h>

namespace
{

using namespace pgpool;
using core::ServerTimes;

struct TimesOfServer : ::testing::Test {
	region::PoolCounters sums{};
	ServerTimes times{1000, 5000000};
};

TEST_F(TimesOfServer, ATransactionLastsFromItsFirstQueryToTheEndOfItsLast)
{
	times.assigned();
	EXPECT_FALSE(times.in_query());
	times.sent(2000);
	EXPECT_TRUE(times.in_query());
	times.answered(2300, 'T', false, sums);
	EXPECT_FALSE(times.in_query());
	EXPECT_EQ(sums.queries.load(), 1u);
	EXPECT_EQ(sums.query_us.load(), 300u);
	EXPECT_EQ(sums.transactions.load(), 0u);
	times.sent(3000);
	times.answered(3100, 'I', false, sums);
	EXPECT_EQ(sums.query_us.load(), 400u);
	EXPECT_EQ(sums.transactions.load(), 1u);
	EXPECT_EQ(sums.transaction_us.load(), 1100u);
	EXPECT_EQ(times.since(), 3100);
}

TEST_F(TimesOfServer, TheNextQueryOfAPipelineBeginsWhenTheOneBeforeItEnds)
{
	times.sent(1000);
	times.answered(1100, 'I', true, sums);
	EXPECT_TRUE(times.in_query());
	times.answered(1250, 'I', false, sums);
	EXPECT_EQ(sums.query_us.load(), 250u);
	EXPECT_EQ(sums.transaction_us.load(), 250u);
	EXPECT_EQ(sums.transactions.load(), 2u);
}

TEST_F(TimesOfServer, WhatAFormerClientBeganIsNotTheNextOnes)
{
	times.sent(1000);
	times.assigned();
	times.sent(9000);
	times.answered(9100, 'I', false, sums);
	EXPECT_EQ(sums.query_us.load(), 100u);
	EXPECT_EQ(sums.transaction_us.load(), 100u);
}

TEST_F(TimesOfServer, SilenceBeginsWithTheLastWordOfEither)
{
	times.changed(10000);
	EXPECT_EQ(times.silent_ms(15000), 5);
	times.heard();
	EXPECT_EQ(times.silent_ms(20000), 0);
	EXPECT_EQ(times.silent_ms(23000), 3);
	times.answered(22000, 'T', false, sums);
	EXPECT_EQ(times.silent_ms(23000), 1);
}

TEST_F(TimesOfServer, TheViewHasItsOwnClock)
{
	times.changed(4000);
	times.sent(5000);
	times.answered(6000, 'I', false, sums);
	control::ServerRow row{};
	times.fill(row, 7000, 5006000);
	EXPECT_EQ(row.connected_at, 5000000);
	EXPECT_EQ(row.state_since, 5005000);
	EXPECT_EQ(row.queries, 1u);
	EXPECT_EQ(row.transactions, 1u);
	EXPECT_EQ(times.age_ms(7000), 6);
}

} // namespace
