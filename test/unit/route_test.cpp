// Reads on nodes: where a batch is served, what the node must be, and who serves it when the node cannot.
#include "session_fixture.hpp"

namespace
{

using namespace fake;

class Route : public fake::Session
{
protected:
	static constexpr uint32_t kNodes = 2;

	std::vector<uint64_t> replayed{1000, 1000};
	std::vector<bool> in_recovery{true, true};
	std::vector<uint64_t> system{4711, 4711};

	void SetUp() override
	{
		region::Header &h = *world.view.header();
		h.system_identifier.store(4711);
		h.primary.store(1);
		h.flushed.store(1000);
		h.flushed_at.store(world.clock);
		for (uint32_t i = 0; i < kNodes; i++) {
			region::NodeSlot &n = world.view.node(i);
			n.used.store(1);
			n.weight.store(100);
			n.generation.store(1);
		}
		world.view.pool(0).node_mask.store(UINT32_MAX);
		world.settings().routing.store(region::Routing::Reads);
		world.settings().consistency.store(region::Consistency::Session);
		world.prepare_backend = [this](Backend &b) {
			b.agent = b.node < 0;
			if (b.node >= 0)
				set(b);
		};
	}
	void set(Backend &b)
	{
		const auto i = static_cast<size_t>(b.node);
		b.replayed = replayed[i];
		b.in_recovery = in_recovery[i];
		b.system = system[i];
	}
	// From here on, also where somebody is connected already.
	void replay(uint64_t position)
	{
		replayed.assign(kNodes, position);
		for (auto &b : world.backends) {
			if (b->node >= 0)
				set(*b);
		}
	}
	// The manager has read how far the primary is.
	void flush(uint64_t position)
	{
		region::Header &h = *world.view.header();
		world.clock += 1000;
		h.flushed.store(position);
		h.flushed_at.store(world.clock);
		world.clock += 1000;
	}
	// How often this was executed on the primary, and on nodes.
	std::pair<int, int> times(const std::string &sql)
	{
		std::pair<int, int> n;
		for (const auto &b : world.backends) {
			for (const std::string &s : b->log)
				(b->node < 0 ? n.first : n.second) += s == sql;
		}
		return n;
	}
	std::pair<int, int> on_primary(int n) { return {n, 0}; }
	std::pair<int, int> on_nodes(int n) { return {0, n}; }
	region::NodeCounters &counters(uint32_t node) { return world.view.node_counters(node, 0); }
};

TEST_F(Route, AReadIsServedByANode)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(ask(a, query("NOTICE c1.n")), "N C:NOTICE Z:I");
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(counters(0).reads.load() + counters(1).reads.load(), 1u);
}

TEST_F(Route, WithoutRoutingNothingGoesToANode)
{
	world.settings().routing.store(region::Routing::Off);
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
}

TEST_F(Route, TheExtendedProtocolAndWhatComesBehindTheBatch)
{
	Stream *a = login();
	const std::string batch = parse("SELECT c1.x", "s") + bind_to("s") + execute() + kSync;
	EXPECT_EQ(ask(a, batch + query("NOTICE c1.n") + query("SELECT c1.y")),
	          "1 2 D:c1.x C:SELECT 1 Z:I N C:NOTICE Z:I T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1)) << "in a pipeline with a write";
	flush(1000);
	EXPECT_EQ(ask(a, bind_to("s") + execute() + kSync), "2 D:c1.x C:SELECT 1 Z:I") << "by name";
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(2));
}

TEST_F(Route, WhatWasWithheldIsToldBeforeABatchThatWaitsForTheRound)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, parse("SELECT c1.x") + kSync + query("SELECT c1.y")), "1 Z:I T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.x", "s") + kSync + bind_to("s") + execute() + kSync),
	          "1 Z:I 2 D:c1.x C:SELECT 1 Z:I");
}

TEST_F(Route, ANodeThatIsBehindOnesOwnWritesIsNotRead)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	for (auto &b : world.backends) {
		if (b->node < 0)
			b->executes = [this](const std::string &) { world.view.agent(0).commit_lsn.store(2000); };
	}
	EXPECT_EQ(ask(a, query("NOTICE c1.w")), "N C:NOTICE Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1)) << "no node is there";
	replay(2000);
	flush(2000);
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.y"), on_nodes(1)) << "both are";
}

// What others had committed it may have seen on the primary, by whatever it did there.
TEST_F(Route, NothingThatWasSeenOnThePrimaryIsMissingOnANode)
{
	int n = 0;
	for (const char *seen_by : {"NOTICE c1.n", "ROWS c1.r 1 1"}) {
		Stream *a = login();
		EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
		const std::string late = "SELECT c1.late" + std::to_string(++n), there = "SELECT c1.there" + std::to_string(n);
		ask(a, query(seen_by));
		ask(a, query(late));
		EXPECT_EQ(times(late), on_primary(1)) << "nobody knows what it has seen";
		const uint64_t position = replayed[0] + 1000;
		flush(position);
		ask(a, query(late));
		EXPECT_EQ(times(late), on_primary(2)) << "the nodes are behind";
		replay(position);
		flush(position);
		ask(a, query(there));
		EXPECT_EQ(times(there), on_nodes(1));
	}
}

TEST_F(Route, WhatANodeCannotDoThePrimaryDoes)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->refused_reads = "25006";
	}
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), std::make_pair(1, 1));
	flush(1000);
	EXPECT_EQ(ask(a, parse("SELECT c1.y", "s") + bind_to("s") + describe('P', "") + execute() + kSync),
	          "1 2 T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.y"), std::make_pair(1, 1));
	EXPECT_EQ(ask(a, bind_to("s") + execute() + kSync), "2 D:c1.y C:SELECT 1 Z:I") << "the name is there";
}

TEST_F(Route, ANodeThatDiesIsNotNoticed)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->dies_reading = true;
	}
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x").first, 1);
}

TEST_F(Route, AStrangerOrAPromotedServerIsNoNode)
{
	for (const bool promoted : {false, true}) {
		system.assign(kNodes, promoted ? 4711 : 4712);
		in_recovery.assign(kNodes, !promoted);
		world.pass(20000);
		Stream *a = login();
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
		EXPECT_EQ(times("SELECT c1.x"), on_primary(promoted ? 2 : 1));
	}
}

TEST_F(Route, APromotionIsSeenBeforeTheNextRead)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	in_recovery.assign(kNodes, false);
	replay(1000);
	world.pass(200);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
}

} // namespace
