// A client that leaves: what it sent before is served, and what becomes of a statement that runs.
#include "session_fixture.hpp"

namespace
{

using namespace fake;
using region::OnDisconnect;

class Leaving : public Session, public ::testing::WithParamInterface<OnDisconnect>
{
protected:
	void SetUp() override
	{
		world.settings().on_disconnect.store(GetParam());
		world.settings().pool_size.store(1);
	}
	bool finishes() const { return GetParam() == OnDisconnect::Finish; }
	static void leave(Stream *s) { s->peer_eof = s->peer_gone = true; }
	bool was_run(const std::string &sql)
	{
		for (auto &b : world.backends) {
			for (const std::string &said : b->log) {
				if (said == sql)
					return true;
			}
		}
		return false;
	}
};

std::string printable(const std::string &bytes)
{
	std::string out;
	for (const char c : bytes.substr(0, 60))
		out += c >= ' ' && c <= '~' ? c : '.';
	return out;
}

TEST_P(Leaving, WhatWaitsForAServerIsServedAllTheSame)
{
	for (const std::string &more : {std::string(), message('X')}) {
		Stream *busy_one = login(), *a = login();
		ask(busy_one, query("BEGIN"));
		send(a, query("SELECT c1.x") + query("SELECT c1.y") + more);
		leave(a);
		world.pass(3000); // longer than a half close is waited for
		EXPECT_FALSE(was_run("SELECT c1.x"));
		ask(busy_one, query("COMMIT"));
		world.pass(1200);
		EXPECT_TRUE(was_run("SELECT c1.x") && was_run("SELECT c1.y"));
		EXPECT_EQ(busy(), 0);
		send(busy_one, message('X'));
		for (auto &b : world.backends)
			b->log.clear();
	}
}

TEST_P(Leaving, AHalfCloseWhileWaitingGetsItsResult)
{
	Stream *busy_one = login(), *a = login();
	ask(busy_one, query("BEGIN"));
	send(a, query("SELECT c1.x"));
	a->peer_eof = true;
	world.pass(3000);
	EXPECT_FALSE(a->closed);
	ask(busy_one, query("COMMIT"));
	world.pass(300);
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
	world.pass(300);
	EXPECT_TRUE(a->closed);
}

TEST_P(Leaving, TheWaitHasItsBound)
{
	world.settings().query_wait_timeout.store(1000);
	Stream *busy_one = login(), *a = login();
	ask(busy_one, query("BEGIN"));
	send(a, query("SELECT c1.x") + query("SELECT c1.y"));
	a->peer_eof = true;
	world.pass(1300);
	EXPECT_EQ(got(a), "E:53300 Z:I");
	EXPECT_TRUE(a->closed) << "and does not wait once more for the next";
	ask(busy_one, query("COMMIT"));
	world.pass(500);
	EXPECT_FALSE(was_run("SELECT c1.x") || was_run("SELECT c1.y"));
}

TEST_P(Leaving, AStatementThatRunsEndsByItselfOrIsCancelled)
{
	world.settings().query_wait_timeout.store(20000);
	Stream *a = login();
	send(a, query("SLEEP c1.x") + message('X'));
	leave(a);
	world.pass(2000);
	EXPECT_EQ(backend().cancelled, finishes() ? -1 : 1);
	EXPECT_EQ(busy(), finishes() ? 1 : 0);
	if (finishes())
		backend().wake();
	world.pass(200);
	EXPECT_EQ(busy(), 0);
	EXPECT_FALSE(backend().dead);
	EXPECT_EQ(world.gauges().idle.load(), 1);
}

TEST_P(Leaving, NobodyKeepsAServerForEver)
{
	world.settings().query_wait_timeout.store(2000);
	Stream *a = login();
	send(a, query("SLEEP c1.x"));
	leave(a);
	world.pass(4000);
	EXPECT_EQ(backend().cancelled, 1);
	EXPECT_EQ(busy(), 0);
}

// As PostgreSQL, which finds the end of file behind them; and canceling the first would leave the second to run.
TEST_P(Leaving, WholeMessagesBeforeHalfOfOneAreRunOrNoneOfThemIs)
{
	const std::string half = query("SELECT '" + std::string(70000, 'x') + "'").substr(0, 69000);
	Stream *a = login();
	send(a, query("SLEEP c1.x") + query("SELECT c1.y") + half);
	leave(a);
	world.pass(2500);
	Backend &b = backend();
	EXPECT_EQ(b.cancelled, -1);
	EXPECT_EQ(world.terminated.size(), finishes() ? 0U : 1U);
	if (finishes()) {
		b.wake();
		world.pass(200);
		EXPECT_TRUE(b.dead) << "it has seen the end of file";
		EXPECT_TRUE(was_run("SELECT c1.y"));
	}
	EXPECT_EQ(world.gauges().open.load(), 0);
}

// A client that reads slowly gets the end of its result, as from a backend; one that is gone does not.
TEST_P(Leaving, WhoHasClosedItsHalfMayReadSlowly)
{
	world.settings().query_wait_timeout.store(5000);
	for (const bool reads : {true, false}) {
		Stream *a = login();
		a->room = 100;
		send(a, query("ROWS c1.x 300 200"));
		a->peer_eof = true;
		world.pass(3000);
		EXPECT_FALSE(a->closed);
		EXPECT_EQ(busy(), 1);
		if (reads) {
			a->room = SIZE_MAX;
			world.pass(200);
			const std::string all = got(a);
			EXPECT_EQ(all.substr(all.size() - 3), "Z:I");
		} else {
			world.pass(3000);
		}
		EXPECT_TRUE(a->closed);
		world.pass(1200);
		EXPECT_EQ(busy(), 0);
	}
}

TEST_P(Leaving, WhoIsTerminatedMeanwhileIsGone)
{
	Stream *a = login();
	send(a, query("SLEEP c1.x") + message('X'));
	leave(a);
	world.pass(200);
	ASSERT_NE(world.engine().clients().sessions().front(), nullptr);
	EXPECT_TRUE(world.engine().terminate_client(world.engine().clients().sessions().front()->id()));
	world.engine().end_event();
	world.pass(1500);
	EXPECT_EQ(backend().cancelled, 1);
	EXPECT_EQ(busy(), 0);
}

TEST_P(Leaving, WhatCannotBeCommittedIsNotWaitedFor)
{
	for (const std::string &work : {query("COPYIN c1.x"), parse("SLEEP c1.x") + bind_to() + execute() + kFlush}) {
		Stream *a = login();
		send(a, work);
		leave(a);
		world.pass(2000);
		EXPECT_EQ(busy(), 0);
	}
}

// Cut wherever it may be, behind whatever was whole, and however the client came to wait.
TEST_P(Leaving, HalfAMessageIsNotWaitedFor)
{
	world.settings().query_wait_timeout.store(20000);
	const std::string large(80000, 'x');
	std::string many; // more than one turn takes
	world.engine().context().set_bounds({10, 4096});
	for (int i = 0; i < 15; i++)
		many += query("ROWS c1.x 60 90");
	const std::vector<std::string> before{"",
	                                      many,
	                                      query("SELECT c1.x"),
	                                      parse("SELECT c1.x") + bind_to() + execute() + kSync,
	                                      parse("SELECT c1.x") + bind_to() + execute(),
	                                      query("BEGIN"),
	                                      query("COPYIN c1.x")};
	const std::vector<std::string> cut{query("SELECT c1.y"),
	                                   query("SELECT '" + large + "'"),
	                                   parse("SELECT c1.y") + bind_to() + execute() + kSync,
	                                   parse("SELECT '" + large + "'") + kSync,
	                                   message('d', large),
	                                   message('d', "c1.y") + message('c'),
	                                   message('F', std::string(20, '\0')),
	                                   message('X')};
	for (const std::string &whole : before) {
		for (const std::string &part : cut) {
			for (const size_t length : {size_t{1}, size_t{5}, size_t{6}, part.size() - 1}) {
				for (const char *state : {"served", "waits", "reads nothing", "and then does"}) {
					if (length >= part.size())
						continue;
					const bool waits = state == std::string_view("waits"),
					           reads_late = state == std::string_view("and then does");
					Stream *busy_one = login(), *a = login();
					if (waits)
						ask(busy_one, query("BEGIN"));
					if (!waits && state != std::string_view("served"))
						a->room = 0;
					a->from_peer = whole + part.substr(0, length);
					a->peer_eof = true;
					a->peer_gone = !reads_late;
					world.settle();
					if (reads_late) {
						a->room = SIZE_MAX;
						world.settle();
					}
					if (waits)
						ask(busy_one, query("COMMIT"));
					world.pass(2500);
					EXPECT_EQ(busy(), 0) << "behind \"" << printable(whole) << "\" \""
					                     << printable(part.substr(0, length)) << "\", " << state;
					send(busy_one, message('X'));
					world.pass(1500);
				}
			}
		}
	}
}

INSTANTIATE_TEST_SUITE_P(Both, Leaving, ::testing::Values(OnDisconnect::Cancel, OnDisconnect::Finish));

} // namespace
