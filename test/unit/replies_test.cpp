// Replies: every rule of its header, one claim each.
#include "core/account/replies.hpp"

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::core;

void send(Replies &r, const char *types)
{
	for (; *types; types++)
		r.sent(*types);
}

// "Z" is followed by its status in the text.
Replies::Verdict receive(Replies &r, const char *types)
{
	Replies::Verdict v;
	for (; *types; types++) {
		v = *types == 'Z' ? r.received('Z', types[1]) : r.received(*types);
		types += *types == 'Z';
		EXPECT_FALSE(v.violation) << types;
	}
	return v;
}

TEST(Replies, AQueryIsAnsweredByItsReadyForQueryAlone)
{
	Replies r;
	send(r, "Q");
	receive(r, "TDDCTDC");
	EXPECT_FALSE(r.at_rest());
	EXPECT_EQ(receive(r, "ZI").answered, 'Q');
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, AtRestOnlyWithStatusIdle)
{
	Replies r;
	for (const char *end : {"CZT", "EZE"}) {
		send(r, "Q");
		receive(r, end);
		EXPECT_TRUE(r.empty());
		EXPECT_FALSE(r.at_rest());
	}
	send(r, "Q");
	receive(r, "CZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, APipelineIsNotAtRestBeforeItsSync)
{
	Replies r;
	send(r, "PBDEH");
	receive(r, "12TDC");
	EXPECT_TRUE(r.empty());
	EXPECT_FALSE(r.at_rest());
	send(r, "S");
	receive(r, "ZI");
	EXPECT_TRUE(r.at_rest());
	send(r, "H");
	EXPECT_FALSE(r.at_rest()) << "a Flush may be answered as long as there is no Sync";
}

TEST(Replies, AnErrorInAPipelineVoidsAllUpToSync)
{
	Replies r;
	send(r, "PBQFES");
	send(r, "PS");
	receive(r, "1E");
	EXPECT_EQ(r.size(), 3u);
	receive(r, "ZI1ZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, AfterAnErrorWithoutSyncNothingIsExpected)
{
	Replies r;
	send(r, "PB");
	receive(r, "E");
	EXPECT_TRUE(r.skipping());
	for (const char type : {'P', 'B', 'E', 'Q', 'F', 'C', 'D'})
		EXPECT_FALSE(r.sent(type)) << type;
	EXPECT_FALSE(r.at_rest());
	EXPECT_TRUE(r.sent('S'));
	receive(r, "ZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, AnErrorUnderAQueryDiscardsNothing)
{
	Replies r;
	send(r, "QQ");
	receive(r, "EZI");
	EXPECT_EQ(r.size(), 1u);
	receive(r, "CZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, SyncIsEatenByACopyThatRuns)
{
	Replies r;
	send(r, "PBE");
	receive(r, "12G");
	EXPECT_FALSE(r.sent('S'));
	EXPECT_FALSE(r.at_rest());
	send(r, "dc");
	send(r, "S");
	receive(r, "CZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, ASyncThatTheCopyAteDoesNotEndThePipeline)
{
	Replies r;
	send(r, "PBES");
	receive(r, "12G");
	send(r, "dc");
	receive(r, "C");
	EXPECT_TRUE(r.empty());
	EXPECT_FALSE(r.at_rest()) << "the backend waits for a Sync, its transaction is open";
	send(r, "S");
	receive(r, "ZI");
	EXPECT_TRUE(r.at_rest());
}

TEST(Replies, AFailedCopyThatMayHaveEatenASyncIsInDoubtUntilTheProbe)
{
	for (const bool eaten : {false, true}) {
		Replies r;
		send(r, "PBES");
		receive(r, "12G");
		send(r, "d");
		receive(r, "E");
		send(r, "cS");
		EXPECT_TRUE(r.doubtful());
		receive(r, "ZI");
		EXPECT_TRUE(r.wants_probe());
		EXPECT_FALSE(r.at_rest());
		r.probe();
		if (!eaten) {
			EXPECT_TRUE(receive(r, "ZI").forward) << "the late one is the client's";
		}
		EXPECT_FALSE(r.at_rest());
		EXPECT_FALSE(receive(r, "I").forward);
		const Replies::Verdict v = receive(r, "ZI");
		EXPECT_FALSE(v.forward);
		EXPECT_EQ(v.answered, 'Q');
		EXPECT_TRUE(r.at_rest());
	}
}

TEST(Replies, WhatIsOursIsNotForwarded)
{
	Replies r;
	r.sent('Q', For::Settings);
	r.sent('Q');
	for (const char type : {'T', 'D', 'C', 'N', 'S'})
		EXPECT_FALSE(r.received(type).forward) << type;
	EXPECT_FALSE(r.received('Z', 'I').forward);
	for (const char type : {'T', 'D', 'C', 'N', 'S', 'A'})
		EXPECT_TRUE(r.received(type).forward) << type;
	EXPECT_TRUE(r.received('Z', 'I').forward);
}

TEST(Replies, AReplyOfOursSaysWhatItIsFor)
{
	const For ours[] = {For::Settings, For::Setting, For::Probe,    For::Rollback, For::Sync,
	                    For::Discard,  For::Silence, For::Handover, For::Round,    For::Statement};
	Replies r;
	for (const For purpose : ours)
		r.sent(purpose == For::Sync || purpose == For::Silence ? 'S' : 'Q', purpose);
	r.sent('Q');
	r.sent('S');
	r.disown(For::Replay);
	for (const For purpose : ours)
		EXPECT_EQ(r.received('Z', 'I').purpose, purpose) << "also when what is the client's is disowned";
	EXPECT_EQ(r.received('Z', 'I').purpose, For::Replay);
	EXPECT_EQ(r.received('Z', 'I').purpose, For::Replay);
	r.sent('S');
	EXPECT_EQ(r.received('Z', 'I').purpose, For::Client);
}

TEST(Replies, AnErrorSaysWhatItsMessageWasFor)
{
	Replies r;
	r.sent('Q', For::Setting);
	EXPECT_EQ(r.received('E').purpose, For::Setting);
	EXPECT_EQ(r.received('Z', 'I').purpose, For::Setting);
	r.sent(Replies::kNotedParse, For::Statement);
	r.sent('B');
	r.sent('S');
	const Replies::Verdict v = r.received('E');
	EXPECT_TRUE(v.forward) << "it is the client's";
	EXPECT_EQ(v.purpose, For::Statement);
	EXPECT_EQ(r.received('Z', 'I').purpose, For::Client);
}

TEST(Replies, DisownedRepliesAreSwallowed)
{
	Replies r;
	send(r, "QQ");
	r.disown(pgpool::core::For::Nobody);
	EXPECT_FALSE(r.received('C').forward);
	EXPECT_FALSE(r.received('Z', 'I').forward);
	EXPECT_TRUE(r.front_is_ours());
}

TEST(Replies, AReplyThatNothingAskedForIsAViolation)
{
	for (const char type : {'1', '2', '3', 'T', 'D', 'C', 'n', 's', 'I', 'Z', 'H'}) {
		Replies r;
		EXPECT_TRUE(r.received(type, 'I').violation) << type;
	}
	for (const char type : {'N', 'A', 'S', 'E'}) {
		Replies r;
		EXPECT_FALSE(r.received(type).violation) << type;
	}
	Replies r;
	send(r, "P");
	EXPECT_TRUE(r.received('2').violation);
}

TEST(Replies, ManyRepliesTakeMemoryOfThoseOutstandingOnly)
{
	Replies r;
	for (int i = 0; i < 100000; i++) {
		send(r, "QQ");
		receive(r, i == 0 ? "CZI" : "CZICZI");
	}
	EXPECT_EQ(r.size(), 1u);
	receive(r, "CZI");
	EXPECT_TRUE(r.at_rest());
}

} // namespace
