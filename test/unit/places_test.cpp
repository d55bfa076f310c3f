// Places: limits are exact over all workers, and places go to those who wait longest, without a world around them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/pool/places.hpp"

namespace
{

using namespace pgpool;
using core::Places;
using core::WorkerPlaces;
using Kind = Places::Kind;
using Taken = Places::Taken;

struct Told {
	uint32_t from, to;
	control::Type type;
	control::YieldServer yield;
	control::PlaceFree free;
};

class Mail final : public core::Outside
{
public:
	Mail(std::vector<Told> &told, uint32_t from) : told_(told), from_(from) {}
	int64_t now_us() override { return 0; }
	int64_t clock_us() override { return 0; }
	int64_t wall_us() override { return 0; }
	void alarm() override {}
	void random(void *, size_t) override {}
	core::Grammar &grammar() override { std::abort(); }
	bool read_facts(uint32_t, std::string &) override { return false; }
	void log(std::string_view) override {}
	bool ask_manager(const control::AuthLookup &) override { return false; }
	void wake_manager() override {}
	void derive(uint64_t, std::string_view, const proto::ScramVerifier &) override {}
	void forget_derivation(uint64_t) override {}
	core::Stream *dial(const core::ServerAddress &, core::StreamOwner *) override { return nullptr; }
	void interrupt_backend(int32_t) override {}
	void terminate_backend(int32_t) override {}
	void forward_cancel(const control::CancelKey &, uint64_t) override {}
	void cancel_on_node(uint32_t, const core::Stream &, int32_t, std::string_view, uint64_t) override {}
	bool take_pulse(uint32_t, const core::Stream &) override { return false; }
	void tell_worker(uint32_t worker, const void *packet, size_t size) override
	{
		Told t{};
		control::Head head;
		memcpy(&head, packet, sizeof(head));
		t.from = from_;
		t.to = worker;
		t.type = head.type;
		if (head.type == control::Type::YieldServer)
			memcpy(&t.yield, packet, std::min(size, sizeof(t.yield)));
		else
			memcpy(&t.free, packet, std::min(size, sizeof(t.free)));
		told_.push_back(t);
	}

private:
	std::vector<Told> &told_;
	uint32_t from_;
};

constexpr int64_t kNow = 1000000000;
constexpr int64_t kMs = 1000;

class PlacesTest : public ::testing::Test
{
protected:
	static constexpr uint32_t kWorkers = 3, kPools = 4;

	PlacesTest()
	{
		memory.reset(new (std::align_val_t(64)) char[region::View::size(kWorkers, 1, kPools, 1)]());
		auto *h = reinterpret_cast<region::Header *>(memory.get());
		region::View::format(h, kWorkers, 1, kPools, 1);
		view = region::View(h);
		settings.max_server_connections = 100;
		for (uint32_t i = 0; i < kPools; i++) {
			region::PoolSlot &p = view.pool(i);
			p.database_oid = 5 + i % 2;
			p.role_oid = 10 + i / 2;
			p.settings.pool_size.store(4);
			p.state.store(region::SlotState::Used);
		}
		for (uint32_t w = 0; w < kWorkers; w++) {
			mails.push_back(std::make_unique<Mail>(told, w));
			workers.push_back(std::make_unique<WorkerPlaces>(*mails[w], view, w, settings));
			pool.push_back(std::make_unique<Places>(*workers[w], 0, 7, core::Target::Primary));
		}
	}
	region::TargetGauges &gauges(uint32_t worker, uint32_t slot = 0) { return view.gauges(slot, 0, worker); }
	std::vector<Told> take()
	{
		std::vector<Told> all;
		all.swap(told);
		return all;
	}

	struct Free {
		void operator()(char *p) const { operator delete[](p, std::align_val_t(64)); }
	};
	std::unique_ptr<char, Free> memory;
	region::View view;
	region::Settings settings{};
	std::vector<Told> told;
	std::vector<std::unique_ptr<Mail>> mails;
	std::vector<std::unique_ptr<WorkerPlaces>> workers;
	std::vector<std::unique_ptr<Places>> pool;
};

TEST_F(PlacesTest, APoolHasNoMorePlacesThanItsSizeInAllWorkersTogether)
{
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[1]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[2]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[2]->surplus(), -1);
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[1]->take(Kind::Client), Taken::PoolFull);
	EXPECT_EQ(pool[0]->surplus(), 0);
	EXPECT_EQ(gauges(1).open.load(), 1) << "what was refused is taken back";
	EXPECT_EQ(view.worker(1).servers.load(), 1);
	pool[2]->give_back(Kind::Client, false, kNow);
	EXPECT_EQ(pool[1]->take(Kind::Client), Taken::Yes);
	view.pool(0).settings.pool_size.store(1);
	EXPECT_EQ(pool[0]->surplus(), 3);
}

TEST_F(PlacesTest, AllPoolsTogetherHaveNoMoreThanMaxServerConnections)
{
	Places other(*workers[1], 1, 7, core::Target::Primary);
	settings.max_server_connections = 2;
	EXPECT_TRUE(workers[1]->none_taken());
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(other.take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::WorkerFull);
	EXPECT_EQ(other.take(Kind::Listener), Taken::WorkerFull);
	EXPECT_EQ(gauges(0).open.load(), 1);
	EXPECT_EQ(gauges(1, 1).listeners.load(), 0);
	EXPECT_FALSE(workers[1]->none_taken());
	other.give_back(Kind::Client, false, kNow);
	EXPECT_TRUE(workers[1]->none_taken());
	EXPECT_EQ(workers[0]->surplus(), -1);
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	settings.max_server_connections = 1;
	EXPECT_EQ(workers[0]->surplus(), 1);
}

TEST_F(PlacesTest, AListenerTakesNoPlaceOfThePoolsButIsOneOfFew)
{
	view.pool(0).settings.pool_size.store(1);
	EXPECT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	EXPECT_EQ(pool[0]->take(Kind::Listener), Taken::Yes);
	EXPECT_EQ(pool[0]->take(Kind::Listener), Taken::Yes);
	EXPECT_EQ(pool[0]->take(Kind::Listener), Taken::PoolFull);
	EXPECT_EQ(pool[0]->surplus(), 0);
	EXPECT_EQ(view.worker(0).servers.load(), 3);
	pool[0]->promise(1);
	pool[0]->give_back(Kind::Listener, false, kNow);
	EXPECT_TRUE(take().empty()) << "its place is no use to who waits for a server";
	EXPECT_EQ(gauges(0).listeners.load(), 1);
}

TEST_F(PlacesTest, AWorkerWithAnIdleServerIsAskedBeforeOneWhoseClientsWait)
{
	gauges(1).open.store(2);
	gauges(1).waiting_since_us.store(kNow - 1 * kMs);
	gauges(2).open.store(2);
	gauges(2).idle.store(1);
	pool[0]->ask_others(kNow, 80 * kMs);
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
	EXPECT_EQ(all[0].yield.from, 0u);
	EXPECT_EQ(all[0].yield.pool_slot, 0u);
	EXPECT_EQ(all[0].yield.pool_generation, 7u);
	EXPECT_EQ(all[0].yield.waited_ms, 80u);
	EXPECT_EQ(all[0].yield.refused_by, control::ServerLimit::None);
}

TEST_F(PlacesTest, OfBusyWorkersTheOneWhoseClientsWaitLeastAndLessThanHalfIsAsked)
{
	gauges(1).open.store(1);
	gauges(1).waiting_since_us.store(kNow - 30 * kMs);
	gauges(2).open.store(1);
	gauges(2).waiting_since_us.store(kNow - 20 * kMs);
	pool[0]->ask_others(kNow, 40 * kMs);
	EXPECT_TRUE(take().empty()) << "20 ms is not less than half of 40";
	pool[0]->ask_others(kNow + 60 * kMs, 200 * kMs);
	auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
	gauges(2).open.store(0);
	pool[0]->ask_others(kNow + 120 * kMs, 400 * kMs);
	all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 1u) << "who has no server can give none";
	gauges(1).open.store(0);
	pool[0]->ask_others(kNow + 180 * kMs, 400 * kMs);
	EXPECT_TRUE(take().empty());
}

TEST_F(PlacesTest, AWorkerWhoseClientsDoNotWaitIsAskedAsOneThatWaitsForNoTime)
{
	gauges(1).open.store(1);
	gauges(1).waiting_since_us.store(kNow - 1 * kMs);
	gauges(2).open.store(1);
	pool[0]->ask_others(kNow, 10 * kMs);
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
}

TEST_F(PlacesTest, OthersAreNotAskedAgainBeforeFiftyMilliseconds)
{
	gauges(1).open.store(1);
	gauges(1).idle.store(1);
	pool[0]->ask_others(kNow, 1 * kMs);
	EXPECT_FALSE(pool[0]->may_ask(kNow + 49 * kMs));
	pool[0]->ask_others(kNow + 49 * kMs, 50 * kMs);
	EXPECT_EQ(take().size(), 1u);
	EXPECT_TRUE(pool[0]->may_ask(kNow + 50 * kMs));
	pool[0]->ask_others(kNow + 50 * kMs, 51 * kMs);
	EXPECT_EQ(take().size(), 1u);
}

TEST_F(PlacesTest, AnIdleServersPlaceIsTheOthersWhenItsBackendIsGone)
{
	ASSERT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	pool[0]->promise(2);
	EXPECT_TRUE(take().empty()) << "the backend is still there";
	EXPECT_FALSE(pool[0]->held(kNow));
	pool[0]->give_back(Kind::Client, false, kNow);
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
	EXPECT_EQ(all[0].type, control::Type::PlaceFree);
	EXPECT_EQ(all[0].free.pool_slot, 0u);
	EXPECT_EQ(all[0].free.pool_generation, 7u);
	EXPECT_TRUE(pool[0]->held(kNow + 20 * kMs - 1)) << "ours would take it back";
	EXPECT_FALSE(pool[0]->held(kNow + 20 * kMs));
	ASSERT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	pool[0]->give_back(Kind::Client, false, kNow + kMs * 100);
	EXPECT_TRUE(take().empty()) << "one place was promised";
	EXPECT_FALSE(pool[0]->held(kNow + kMs * 100));
}

TEST_F(PlacesTest, ABusyServerIsOwedOnlyToWhoWaitedClearlyLonger)
{
	pool[0]->owe(1, 130, 50);
	EXPECT_FALSE(pool[0]->pay()) << "not more than twice as long and 30 ms";
	pool[0]->owe(1, 30, 0);
	EXPECT_FALSE(pool[0]->pay());
	pool[0]->owe(1, 131, 50);
	pool[0]->owe(2, 5000, 0);
	EXPECT_TRUE(pool[0]->pay());
	EXPECT_FALSE(pool[0]->pay()) << "one at a time";
	ASSERT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	pool[0]->give_back(Kind::Client, false, kNow);
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 1u) << "the first who asked";
}

TEST_F(PlacesTest, WhoPromisedTwoPlacesTellsOfBoth)
{
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	pool[0]->promise(1);
	pool[0]->owe(1, 1000, 0);
	pool[0]->give_back(Kind::Client, false, kNow);
	EXPECT_TRUE(pool[0]->pay());
	pool[0]->give_back(Kind::Client, false, kNow);
	EXPECT_EQ(take().size(), 2u);
}

TEST_F(PlacesTest, AClaimedPlaceIsHeldForWhoClaimedIt)
{
	ASSERT_EQ(pool[0]->take(Kind::Client), Taken::Yes);
	pool[0]->give_back(Kind::Client, true, kNow);
	EXPECT_TRUE(pool[0]->held(kNow));
	EXPECT_TRUE(take().empty()) << "whose it is the engine says";
	workers[0]->tell_free({2, 3, 9, core::Target::Primary});
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
	EXPECT_EQ(all[0].free.pool_slot, 3u);
	EXPECT_EQ(all[0].free.pool_generation, 9u);
}

TEST_F(PlacesTest, AnIdleServerOfAnyPoolThatCountsForTheServersLimitIsAskedFor)
{
	// pools 0 and 2 are of one database, 0 and 1 of one role
	for (const auto &[limit, slot] :
	     {std::pair(control::ServerLimit::Role, 1u), std::pair(control::ServerLimit::Database, 2u),
	      std::pair(control::ServerLimit::Server, 3u)}) {
		gauges(0, slot).idle.store(1);
		EXPECT_FALSE(pool[0]->ask_for_idle(kNow, limit)) << "one's own is not asked for by letter";
		gauges(1, slot).idle.store(1);
		gauges(1, slot).waiting.store(1);
		EXPECT_FALSE(pool[0]->ask_for_idle(kNow, limit)) << "its own clients get it";
		gauges(2, slot).idle.store(1);
		view.pool(slot).state.store(region::SlotState::Dead);
		EXPECT_FALSE(pool[0]->ask_for_idle(kNow, limit));
		view.pool(slot).state.store(region::SlotState::Used);
		EXPECT_TRUE(pool[0]->may_ask(kNow));
		EXPECT_TRUE(pool[0]->ask_for_idle(kNow, limit));
		EXPECT_FALSE(pool[0]->may_ask(kNow));
		const auto all = take();
		ASSERT_EQ(all.size(), 1u);
		EXPECT_EQ(all[0].to, 2u);
		EXPECT_EQ(all[0].yield.refused_by, limit);
		EXPECT_EQ(all[0].yield.pool_slot, 0u) << "who asks, not who has it";
		for (uint32_t w = 0; w < kWorkers; w++) {
			gauges(w, slot).idle.store(0);
			gauges(w, slot).waiting.store(0);
		}
		pool[0]->asked(0);
	}
}

TEST_F(PlacesTest, AllWorkersThatHaveServersAreAskedForAnyPlace)
{
	view.worker(2).servers.store(1);
	workers[0]->ask_all(kNow);
	workers[0]->ask_all(kNow + 49 * kMs);
	const auto all = take();
	ASSERT_EQ(all.size(), 1u);
	EXPECT_EQ(all[0].to, 2u);
	EXPECT_EQ(all[0].yield.from, 0u);
	EXPECT_EQ(all[0].yield.pool_slot, control::kAnyPool);
	workers[0]->ask_all(kNow + 50 * kMs);
	EXPECT_EQ(take().size(), 1u);
}

} // namespace
