// Attempts: what a refused login of a server means to those who wait, and when the next one is tried.
#include <gtest/gtest.h>

#include "core/pool/attempts.hpp"

namespace
{

using namespace pgpool;
using core::Attempts;
using Verdict = Attempts::Verdict;
using Limit = control::ServerLimit;

constexpr int64_t kNow = 1000000000;

proto::Error error(const char *sqlstate)
{
	return {sqlstate, "no", "", ""};
}

TEST(AttemptsTest, WhatPassesByItselfIsWaitedForAndASessionThatDidNothingWrongGoesOn)
{
	for (const char *passing : {"57P03", "53300", "08006", "57P01", "57P02", "08P01"})
		EXPECT_EQ(Attempts::judge(error(passing), true), Verdict::Wait) << passing;
	EXPECT_EQ(Attempts::judge(error("28P01"), false), Verdict::Error);
	for (const char *taken_back : {"28000", "42501", "55000"}) {
		EXPECT_EQ(Attempts::judge(error(taken_back), true), Verdict::Error) << taken_back;
		EXPECT_EQ(Attempts::judge(error(taken_back), false), Verdict::Fatal) << taken_back;
	}
	EXPECT_EQ(Attempts::judge(error("3D000"), true), Verdict::Fatal);
}

TEST(AttemptsTest, AfterAFailureTheNextTryWaitsUnlessSomethingIsNew)
{
	Attempts a;
	EXPECT_FALSE(a.must_wait(kNow));
	a.failed(error("28P01"), Limit::None, kNow);
	EXPECT_FALSE(a.is_full());
	EXPECT_TRUE(a.must_wait(kNow + 499999));
	EXPECT_FALSE(a.must_wait(kNow + 500000));
	EXPECT_EQ(a.last_failure().sqlstate, "28P01");
	a.retry();
	EXPECT_FALSE(a.must_wait(kNow));
	a.succeeded(kNow);
	EXPECT_EQ(a.last_failure().sqlstate, "");
}

TEST(AttemptsTest, AServerThatWasFullIsFullForASecondThoughALoginSucceeds)
{
	Attempts a;
	a.failed(error("53300"), Limit::Role, kNow);
	a.succeeded(kNow + 999999);
	EXPECT_EQ(a.full(), Limit::Role);
	a.made_room(true, kNow + 999999);
	EXPECT_FALSE(a.must_wait(kNow + 999999)) << "somebody waits";
	a.made_room(false, kNow + 999999);
	EXPECT_TRUE(a.must_wait(kNow + 1000000));
	a.succeeded(kNow + 1000000);
	EXPECT_FALSE(a.is_full());
}

TEST(AttemptsTest, ARefusalIsKeptUntilItIsTakenOrALoginSucceeds)
{
	Attempts a;
	EXPECT_FALSE(a.in_doubt());
	a.doubt({error("3D000"), true, 7});
	ASSERT_TRUE(a.in_doubt());
	EXPECT_EQ(a.refusal()->look, 7u);
	const Attempts::Refusal r = a.take_refusal();
	EXPECT_TRUE(r.fatal);
	EXPECT_EQ(r.why.sqlstate, "3D000");
	EXPECT_FALSE(a.in_doubt());
	a.doubt({error("28P01"), false, 8});
	a.succeeded(kNow);
	EXPECT_FALSE(a.in_doubt());
}

TEST(AttemptsTest, FailuresAreLoggedOnceASecond)
{
	Attempts a;
	EXPECT_TRUE(a.may_log(kNow));
	EXPECT_FALSE(a.may_log(kNow + 999999));
	EXPECT_TRUE(a.may_log(kNow + 1000000));
}

} // namespace
