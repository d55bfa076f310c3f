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
	// Commits there.
	void write_at(Stream *s, uint64_t position)
	{
		EXPECT_EQ(ask(s, query("NOTICE c1.before")), "N C:NOTICE Z:I");
		for (auto &b : world.backends) {
			if (b->node < 0)
				b->executes = [this, position](const std::string &) { world.view.agent(0).commit_lsn.store(position); };
		}
		EXPECT_EQ(ask(s, query("NOTICE c1.w")), "N C:NOTICE Z:I");
		flush(position);
	}
	// What walsenders say.
	void hint(uint64_t position)
	{
		for (uint32_t i = 0; i < kNodes; i++)
			world.view.node(i).replayed.store(position);
	}
	void forget_proofs()
	{
		for (uint32_t i = 0; i < kNodes; i++)
			world.view.node(i).generation.fetch_add(1);
		replay(1000);
	}
	void be_slow(bool slow) // all nodes, as they are now
	{
		for (auto &b : world.backends) {
			if (b->node >= 0)
				b->slow = slow;
		}
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
	region::PoolCounters &pool() { return world.view.pool_counters(0, 0); }
	uint64_t to_primary(core::Reason why) { return world.view.to_primary_total(0, static_cast<uint32_t>(why)); }
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
	EXPECT_EQ(pool().reads_on_primary.load(), 0u);
	for (int i = 0; i < core::kReasons; i++)
		EXPECT_EQ(to_primary(static_cast<core::Reason>(i)), 0u) << "nothing is counted";
}

TEST_F(Route, WhereReadsWentIsCounted)
{
	Stream *a = login();
	ask(a, query("SELECT c1.x"));
	ask(a, parse("SELECT c1.x", "s") + bind_to("s") + execute() + kSync);
	EXPECT_EQ(pool().reads_on_replicas.load(), 2u);
	EXPECT_EQ(pool().reads_on_primary.load(), 0u);
	ask(a, query("NOTICE c1.n"));
	EXPECT_EQ(to_primary(core::Reason::NotParsed), 1u) << "what the grammar says";
	for (uint32_t i = 0; i < kNodes; i++)
		world.view.node(i).weight.store(0);
	ask(a, query("SELECT c1.y"));
	EXPECT_EQ(to_primary(core::Reason::NoReplica), 1u);
	EXPECT_EQ(pool().reads_on_primary.load(), 1u);
	EXPECT_EQ(pool().reads_on_replicas.load(), 2u);
}

TEST_F(Route, WhatANodeRefusedIsCountedForNodeAndTenant)
{
	Stream *a = login();
	ask(a, query("SELECT c1.0"));
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->refused_reads = "25006";
	}
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(to_primary(core::Reason::Learned), 1u);
	EXPECT_EQ(counters(0).fallbacks_refused.load() + counters(1).fallbacks_refused.load(), 1u);
	EXPECT_EQ(counters(0).fallbacks.load() + counters(1).fallbacks.load(), 1u);
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

TEST_F(Route, ABatchTooLongToBeServedAgainIsForThePrimary)
{
	Stream *a = login();
	const std::string sql = "SELECT c1.x", wide(66000, ' ');
	EXPECT_EQ(ask(a, parse(sql, "s") + kSync), "1 Z:I");
	send(a, parse(sql + wide, "t").substr(0, 40000));
	EXPECT_EQ(ask(a, parse(sql + wide, "t").substr(40000) + bind_to("t") + execute() + kSync + query("NOTICE c1.n")),
	          "1 2 D:c1.x C:SELECT 1 Z:I N C:NOTICE Z:I");
	EXPECT_EQ(times(sql + wide), on_primary(1));
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
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

TEST_F(Route, AReadWaitsForANodeThatIsBehind)
{
	world.settings().read_wait.store(5);
	Stream *a = login();
	write_at(a, 2000);
	for (const bool told : {true, false}) { // by walsenders, or by the nodes themselves
		const std::string sql = told ? "SELECT c1.x" : "SELECT c1.y";
		hint(told ? 1000 : 0);
		replay(1000);
		EXPECT_EQ(ask(a, query(sql)), "") << "it waits";
		EXPECT_TRUE(world.ring());
		world.settle();
		EXPECT_EQ(got(a), "");
		hint(told ? 2000 : 0);
		replay(2000);
		EXPECT_TRUE(world.ring());
		world.settle();
		EXPECT_EQ(got(a), "T D:" + sql.substr(7) + " C:SELECT 1 Z:I");
		EXPECT_EQ(times(sql), on_nodes(1));
		EXPECT_FALSE(world.ring()) << "nobody waits any more";
		forget_proofs();
	}
	EXPECT_EQ(counters(0).waits.load() + counters(1).waits.load(), 2u);
	EXPECT_EQ(world.counters().wait_timeouts.load(), 0u);
}

TEST_F(Route, AReadWaitsNoLongerThanItMay)
{
	world.settings().read_wait.store(5);
	Stream *a = login();
	write_at(a, 2000);
	hint(1000);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	for (int i = 0; i < 5; i++) {
		EXPECT_EQ(got(a), "") << i;
		EXPECT_TRUE(world.ring()) << i;
		world.settle();
	}
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
	EXPECT_FALSE(world.ring());
	world.settings().read_wait.store(0);
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I") << "none";
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1));
}

TEST_F(Route, WhoWaitsForANodeMayLeaveOrBeCanceled)
{
	world.settings().read_wait.store(1000);
	Stream *a = login(), *b = login();
	write_at(a, 2000);
	write_at(b, 2001);
	hint(1000);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	EXPECT_EQ(ask(b, query("SELECT c1.y")), "");
	a->peer_eof = a->peer_gone = true;
	for (const control::ClientRow &row : client_rows(world.engine())) {
		EXPECT_EQ(row.state, control::ClientState::Waiting);
		world.engine().cancel_client(row.id);
	}
	world.engine().end_event();
	world.settle();
	EXPECT_EQ(got(b), "E:57014 Z:I");
	EXPECT_EQ(ask(b, query("NOTICE c1.n")), "N C:NOTICE Z:I");
	world.pass(2000);
	EXPECT_EQ(times("SELECT c1.y"), on_primary(0));
}

TEST_F(Route, WithoutFallbackAReadThatNoNodeCanServeIsRefused)
{
	world.settings().replica_fallback.store(region::ReplicaFallback::Error);
	Stream *a = login();
	in_recovery.assign(kNodes, false);
	EXPECT_EQ(ask(a, query("SELECT c1.x") + query("SELECT c1.y")), "E:57P03 Z:I E:57P03 Z:I");
	EXPECT_EQ(ask(a, parse("SELECT c1.z") + bind_to() + execute() + kSync), "E:57P03 Z:I");
	EXPECT_EQ(ask(a, query("NOTICE c1.n")), "N C:NOTICE Z:I") << "no read";
	flush(1000);
	in_recovery.assign(kNodes, true);
	world.pass(1000);
	ask(a, query("SELECT c1.x"));
	world.pass(1000);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	for (auto &b : world.backends)
		b->dies_reading = b->node == 0;
	EXPECT_EQ(ask(a, query("SELECT c1.v") + query("SELECT c1.w")), "T D:c1.v C:SELECT 1 Z:I T D:c1.w C:SELECT 1 Z:I")
	    << "another node serves it";
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->refused_reads = "25006";
	}
	EXPECT_EQ(times("SELECT c1.x").first, 0);
}

TEST_F(Route, ThePrimaryTakesItsShare)
{
	world.settings().primary_reads.store(1);
	world.settings().consistency.store(region::Consistency::Eventual);
	Stream *a = login();
	for (auto i : {0u, 1u})
		world.view.node(i).weight.store(1);
	for (int i = 0; i < 30; i++)
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), std::make_pair(10, 20));
}

TEST_F(Route, WhatANodeRefusedToWriteGoesToThePrimaryAtOnce)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		if (b.node >= 0) {
			set(b);
			b.refused_reads = "25006";
		}
	};
	for (auto &b : world.backends)
		b->refused_reads = b->node >= 0 ? "25006" : "";
	for (int i = 0; i < 5; i++)
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), std::make_pair(5, 1));
	world.view.header()->nodes_changed.fetch_add(1);
	flush(1000);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), std::make_pair(6, 2)) << "the nodes are others";
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
	EXPECT_EQ(counters(0).busy.load() + counters(1).busy.load(), 0);
}

TEST_F(Route, ASilentNodeIsLeftWithinASecond)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	world.silent_nodes = UINT32_MAX;
	be_slow(true);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	world.pass(1000);
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
	for (uint32_t i = 0; i < kNodes; i++)
		EXPECT_EQ(counters(i).busy.load(), 0);
	EXPECT_EQ(counters(0).errors.load() + counters(1).errors.load(), 1u);
}

TEST_F(Route, ASlowReadIsNotCutOnANodeThatLives)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	be_slow(true);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	world.pass(30000);
	EXPECT_EQ(got(a), "");
	EXPECT_GE(world.pulses, 1);
	EXPECT_LT(world.pulses, 10) << "but not asked all the time";
	be_slow(false);
	world.pass(100);
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
}

TEST_F(Route, ANodeThatFailedIsTriedByALoginThatNobodyWaitsFor)
{
	world.settings().consistency.store(region::Consistency::Eventual); // so that it stays on none
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
	world.silent_nodes = UINT32_MAX;
	be_slow(true);
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		if (b.node >= 0)
			set(b);
		b.slow = b.node >= 0;
	};
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	world.pass(3000); // and the other one, by whoever asks next
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "");
	world.pass(3000);
	EXPECT_EQ(got(a), "T D:c1.y C:SELECT 1 Z:I");
	for (int i = 0; i < 20; i++) {
		EXPECT_EQ(ask(a, query("SELECT c1.z")), "T D:c1.z C:SELECT 1 Z:I") << "nobody waits for them";
		world.pass(500);
	}
	EXPECT_EQ(times("SELECT c1.z"), on_primary(20));
	EXPECT_LT(world.log.size(), 6u) << "nor does each try make a line";
	world.silent_nodes = 0;
	be_slow(false);
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		if (b.node >= 0)
			set(b);
	};
	for (int i = 0; i < 12; i++) {
		ask(a, query("SELECT c1.again"));
		world.pass(100);
	}
	EXPECT_EQ(ask(a, query("SELECT c1.back")), "T D:c1.back C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.back"), on_nodes(1)) << "back within little more than a second";
}

TEST_F(Route, WhomANodeLetsNotInConcernsNobodyElse)
{
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		if (b.node >= 0) {
			set(b);
			b.refuse = {"28000", "no pg_hba.conf entry", "", ""};
		}
	};
	Stream *a = login();
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(3));
	for (uint32_t i = 0; i < kNodes; i++)
		EXPECT_EQ(counters(i).bad_since.load(), 0);
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		if (b.node >= 0)
			set(b);
	};
	world.pass(600);
	ask(a, query("SELECT c1.y"));
	world.pass(100);
	flush(1000);
	EXPECT_EQ(ask(a, query("SELECT c1.z")), "T D:c1.z C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.z"), on_nodes(1));
}

TEST_F(Route, AConnectionOfAnOldRowServesNobody)
{
	Stream *a = login();
	for (int round = 0; round < 3; round++) {
		EXPECT_EQ(ask(a, query("SELECT c1.0")), "T D:c1.0 C:SELECT 1 Z:I");
		const size_t before = world.backends.size();
		for (uint32_t i = 0; i < kNodes; i++)
			world.view.node(i).generation.fetch_add(1);
		EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
		EXPECT_GT(world.backends.size(), before) << "a new one";
	}
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(3));
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

// ---- blocks

TEST_F(Route, AReadOnlyBlockIsServedByANode)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, parse("SELECT c1.y", "s") + bind_to("s") + execute() + kSync), "1 2 D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, bind_to("s") + execute() + kSync), "2 D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, kSync), "Z:T");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(times("BEGIN READ ONLY"), on_nodes(1));
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(times("SELECT c1.y"), on_nodes(2));
	EXPECT_EQ(times("COMMIT"), on_nodes(1));
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(ask(a, query("NOTICE c1.n")), "N C:NOTICE Z:I");
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(times("BEGIN"), on_primary(1)) << "which may write";
	EXPECT_EQ(ask(a, query("SELECT c1.z")), "T D:c1.z C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.z"), on_primary(1));
}

TEST_F(Route, ABlockInOnePipeline)
{
	Stream *a = login();
	const std::string begin = parse("BEGIN READ ONLY", "") + bind_to("") + execute();
	const std::string read = parse("SELECT c1.x", "") + bind_to("") + execute() + kSync;
	EXPECT_EQ(ask(a, begin + read + query("COMMIT") + query("NOTICE c1.n")),
	          "1 2 C:BEGIN 1 2 D:c1.x C:SELECT 1 Z:T C:COMMIT Z:I N C:NOTICE Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(times("COMMIT"), on_nodes(1));
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
	flush(1000);
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY") + query("SELECT c1.y") + query("NOTICE c1.m") + query("COMMIT")),
	          "C:BEGIN Z:T T D:c1.y C:SELECT 1 Z:T N C:NOTICE Z:T C:COMMIT Z:I");
	EXPECT_EQ(times("SELECT c1.y"), on_nodes(1));
	EXPECT_EQ(times("NOTICE c1.m"), on_primary(1)) << "which was not sent to the node, although it came with the rest";
	EXPECT_EQ(times("COMMIT"), std::make_pair(1, 1));
	EXPECT_EQ(busy(), 0);
}

TEST_F(Route, ABlockThatLeavesSomethingGoesToThePrimary)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SET statement_timeout 5000")), "C:SET Z:I");
	flush(1000);
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, query("SET search_path mine")), "C:SET Z:T");
	EXPECT_EQ(times("BEGIN READ ONLY"), std::make_pair(1, 1)) << "again, where the rest is";
	EXPECT_EQ(times("SET search_path mine"), on_primary(1));
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1));
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(times("COMMIT"), on_primary(1));
	EXPECT_EQ(times("ROLLBACK"), on_nodes(1));
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:mine C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW statement_timeout")), "T D:5000 C:SHOW Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Route, ABlockWithAnOpenPortalIsNotMoved)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, parse("SELECT c1.x", "") + bind_to("") + execute(1) + kSync), "1 2 D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1)) << "before it has one";
	EXPECT_EQ(times("BEGIN READ ONLY"), std::make_pair(1, 1));
}

TEST_F(Route, AFailedBlockStaysFailed)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->refused_reads = "40001";
	}
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T E:40001 Z:E") << "the client has heard of the block";
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "E:25P02 Z:E");
	EXPECT_EQ(ask(a, query("NOTICE c1.n")), "E:25P02 Z:E") << "on the primary, in a block that failed, too";
	EXPECT_EQ(ask(a, query("COMMIT")), "C:ROLLBACK Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Route, ANodeThatIsLostInABlock)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	for (auto &b : world.backends) {
		if (b->node >= 0)
			b->die();
	}
	world.settle();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
}

TEST_F(Route, ABlockIsAskedAgainAndMovesWhenTheNodeIsBehind)
{
	world.settings().consistency.store(region::Consistency::Database);
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	const uint32_t database = world.view.pool(0).database_oid % region::kCatalogCounters;
	world.view.header()->database_commit[database].store(2000); // of somebody else
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1));
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(times("COMMIT"), on_primary(1));
}

TEST_F(Route, ABlockWithOneSnapshotIsOnlyForWhoAsks)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY REPEATABLE READ")), "C:BEGIN Z:T");
	EXPECT_EQ(times("BEGIN READ ONLY REPEATABLE READ"), on_primary(1));
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	const std::string begin = "/* pgpool: replica */ BEGIN READ ONLY REPEATABLE READ";
	flush(1000);
	EXPECT_EQ(ask(a, query(begin)), "C:BEGIN Z:T");
	EXPECT_EQ(times(begin), on_nodes(1));
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, query("ROWS c1 1")), "T D:c1 C:SELECT 1 Z:T");
	EXPECT_EQ(times("ROWS c1 1"), on_nodes(1)) << "its functions are harmless, says the client";
	EXPECT_EQ(ask(a, query("SET search_path mine")), "N E:25P02 Z:E");
	EXPECT_EQ(times("SET search_path mine"), on_primary(1)) << "and failed";
	EXPECT_EQ(ask(a, query("ROLLBACK")), "C:ROLLBACK Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Route, TheDefaultIsolationCounts)
{
	world.prepare_backend = [this](Backend &b) {
		b.agent = b.node < 0;
		b.isolation = "repeatable read";
		if (b.node >= 0)
			set(b);
	};
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(times("BEGIN READ ONLY"), on_primary(1));
}

TEST_F(Route, ABlockUntilItsFirstWrite)
{
	world.settings().route_blocks.store(region::RouteBlocks::UntilWrite);
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
	EXPECT_EQ(ask(a, parse("NOTICE c1.w", "") + bind_to("") + execute() + kSync), "1 2 N C:NOTICE Z:T");
	EXPECT_EQ(times("NOTICE c1.w"), on_primary(1));
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1)) << "it is there from then on";
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	flush(1000);
	EXPECT_EQ(ask(a, query("BEGIN")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SET TRANSACTION READ ONLY")), "C:SET Z:T");
	EXPECT_EQ(times("SET TRANSACTION READ ONLY"), on_nodes(1));
	EXPECT_EQ(ask(a, query("NOTICE c1.v")), "N C:NOTICE Z:T");
	EXPECT_EQ(times("SET TRANSACTION READ ONLY"), std::make_pair(1, 1)) << "so it is on the primary";
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(busy(), 0);
}

TEST_F(Route, ABlockInPiecesIsWaitedFor)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	const std::string batch = parse("SELECT c1.x", "") + bind_to("") + execute() + kSync;
	for (size_t at = 0; at + 1 < batch.size(); at++)
		EXPECT_EQ(ask(a, batch.substr(at, 1)), "");
	EXPECT_EQ(ask(a, batch.substr(batch.size() - 1)), "1 2 D:c1.x C:SELECT 1 Z:T");
	EXPECT_EQ(times("SELECT c1.x"), on_nodes(1));
}

TEST_F(Route, AClientThatLeavesItsBlock)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:T");
	send(a, wire::message('X'));
	EXPECT_EQ(times("ROLLBACK"), on_nodes(1));
	EXPECT_EQ(busy(), 0);
}

// ---- what the session says

TEST_F(Route, TheSessionSaysWhere)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SET pgpool.route primary")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(a, query("BEGIN READ ONLY")), "C:BEGIN Z:T");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
	EXPECT_EQ(times("BEGIN READ ONLY"), on_primary(1));
	EXPECT_EQ(ask(a, query("SET pgpool.route replica")), "C:SET Z:I");
	flush(1000);
	EXPECT_EQ(ask(a, query("ROWS c1 1")), "T D:c1 C:SELECT 1 Z:I");
	EXPECT_EQ(times("ROWS c1 1"), on_nodes(1));
	EXPECT_EQ(ask(a, query("NOTICE c1.n")), "N C:NOTICE Z:I");
	EXPECT_EQ(times("NOTICE c1.n"), on_primary(1));
	EXPECT_EQ(ask(a, query("SHOW pgpool.route")), "T D:replica C:SHOW Z:I") << "it was kept on the way to the node";
	EXPECT_EQ(ask(a, query("RESET pgpool.route")), "C:RESET Z:I");
	EXPECT_EQ(ask(a, query("ROWS c1 2")), "T D:c1 D:c1 C:SELECT 2 Z:I");
	EXPECT_EQ(times("ROWS c1 2"), on_primary(1));
}

TEST_F(Route, InTheWordsOfOtherPoolers)
{
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SET SERVER ROLE TO 'primary'")), "C:SET Z:I");
	EXPECT_EQ(times("SET pgpool.route TO 'primary'"), on_primary(1));
	EXPECT_EQ(ask(a, query("SET pgdog.role primary")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.x"), on_primary(1));
	EXPECT_EQ(ask(a, query("SET pgdog.role auto")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SET odyssey.target_session_attrs read-write")), "C:SET Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(times("SELECT c1.y"), on_primary(1));
}

} // namespace
