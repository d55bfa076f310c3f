// See places.hpp.
#include "core/pool/places.hpp"

#include <algorithm>
#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kAskAgain = 50000;   // between two requests for a place of another worker, microseconds
constexpr int64_t kYieldPause = 20000; // a yielded place is not taken back at once
constexpr uint32_t kYieldAfterMs = 30; // a busy server is not given away for less
constexpr int32_t kLeastListeners = 2; // that a small pool may have in each worker

} // namespace

bool counts_for(control::ServerLimit limit, const region::PoolSlot &a, const region::PoolSlot &b)
{
	switch (limit) {
	case control::ServerLimit::Role:
		return a.role_oid == b.role_oid;
	case control::ServerLimit::Database:
		return a.database_oid == b.database_oid;
	case control::ServerLimit::Server:
		return true;
	default:
		return false;
	}
}

// ---- of the worker

WorkerPlaces::WorkerPlaces(Outside &outside, region::View region, uint32_t worker, const region::Settings &settings)
    : outside_(outside), region_(region), worker_(worker), settings_(settings)
{
}

int64_t WorkerPlaces::taken_everywhere() const
{
	int64_t sum = 0;
	for (uint32_t w = 0; w < workers(); w++)
		sum += region_.worker(w).servers.load();
	return sum;
}

int64_t WorkerPlaces::surplus() const
{
	return taken_everywhere() - settings_.max_server_connections;
}

// Add first, then look: of two workers that want the last place none may get it, but never both.
bool WorkerPlaces::take()
{
	region::Atomic<int32_t> &mine = region_.worker(worker_).servers;
	mine.store(mine.load() + 1);
	if (surplus() <= 0) {
		taken_++;
		return true;
	}
	mine.store(mine.load() - 1);
	return false;
}

void WorkerPlaces::give_back()
{
	taken_--;
	region::Atomic<int32_t> &mine = region_.worker(worker_).servers;
	mine.store(mine.load() - 1);
}

void WorkerPlaces::ask(uint32_t worker, const Claim &for_whom, uint32_t waited_ms, control::ServerLimit limit)
{
	auto ask = control::make<control::YieldServer>(control::Type::YieldServer);
	ask.from = for_whom.worker;
	ask.pool_slot = for_whom.pool_slot;
	ask.pool_generation = for_whom.pool_generation;
	ask.waited_ms = waited_ms;
	ask.refused_by = limit;
	ask.target = index_of(for_whom.target);
	outside_.tell_worker(worker, &ask, sizeof(ask));
}

// The pool that asks tries again at the next tick.
void WorkerPlaces::ask_all(int64_t now)
{
	if (now < asked_all_at_ + kAskAgain)
		return;
	asked_all_at_ = now;
	for (uint32_t w = 0; w < workers(); w++) {
		if (w != worker_ && region_.worker(w).servers.load() > 0)
			ask(w, {worker_, control::kAnyPool, 0, Target::Primary}, 0, control::ServerLimit::None);
	}
}

bool WorkerPlaces::ask_for_idle(control::ServerLimit limit, const Claim &for_whom)
{
	const region::PoolSlot &pool = region_.pool(for_whom.pool_slot);
	for (uint32_t i = 0; workers() > 1 && i < region_.header()->max_pools; i++) {
		if (region_.pool(i).state.load(std::memory_order_relaxed) != region::SlotState::Used ||
		    !counts_for(limit, pool, region_.pool(i)))
			continue;
		for (uint32_t w = 0; w < workers(); w++) {
			const region::TargetGauges &c = region_.gauges(i, index_of(Target::Primary), w);
			if (w == worker_ || c.idle.load(std::memory_order_relaxed) <= 0 ||
			    c.waiting.load(std::memory_order_relaxed) > 0)
				continue;
			ask(w, for_whom, 0, limit);
			return true;
		}
	}
	return false;
}

void WorkerPlaces::tell_free(const Claim &to)
{
	auto free = control::make<control::PlaceFree>(control::Type::PlaceFree);
	free.pool_slot = to.pool_slot;
	free.pool_generation = to.pool_generation;
	free.target = index_of(to.target);
	outside_.tell_worker(to.worker, &free, sizeof(free));
}

// ---- of a pool

Places::Places(WorkerPlaces &worker, uint32_t slot, uint32_t generation, Target target)
    : worker_(worker), slot_(slot), generation_(generation), target_(target), mine_(gauges(worker.worker()))
{
}

int64_t Places::surplus() const
{
	int64_t sum = 0;
	for (uint32_t w = 0; w < worker_.workers(); w++)
		sum += gauges(w).open.load();
	return sum - size();
}

// Add first, then look (layout.hpp). A listener takes no place of the pool's, for it serves none of its clients. There
// is one for each client_encoding, which a client chooses: so no pool has many more of them than servers.
Places::Taken Places::take(Kind kind)
{
	if (kind == Kind::Listener) {
		const auto workers = static_cast<int32_t>(worker_.workers());
		if (mine_.listeners.load() >= std::max(kLeastListeners, size() / workers))
			return Taken::PoolFull;
		if (!worker_.take())
			return Taken::WorkerFull;
		mine_.listeners.store(mine_.listeners.load() + 1);
		return Taken::Yes;
	}
	mine_.open.store(mine_.open.load() + 1);
	const bool fits = surplus() <= 0;
	if (fits && (is_node(target_) || worker_.take()))
		return Taken::Yes;
	mine_.open.store(mine_.open.load() - 1);
	return fits ? Taken::WorkerFull : Taken::PoolFull;
}

void Places::give_back(Kind kind, bool claimed, int64_t now)
{
	region::Atomic<int32_t> &place = kind == Kind::Listener ? mine_.listeners : mine_.open;
	place.store(place.load() - 1);
	if (!is_node(target_)) // pgpool.max_server_connections is a limit of this server
		worker_.give_back();
	const bool yielded = yielded_ > 0 && kind == Kind::Client;
	if (yielded || claimed)
		hold_until_ = now + kYieldPause;
	if (yielded) {
		yielded_--;
		worker_.tell_free({yielded_to_, slot_, generation_, target_});
	}
}

bool Places::may_ask(int64_t now) const
{
	return now >= asked_at_ + kAskAgain;
}

void Places::ask_others(int64_t now, int64_t waited_us)
{
	if (!may_ask(now) || worker_.workers() < 2)
		return;
	asked_at_ = now;
	uint32_t best = worker_.worker();
	int64_t least = waited_us / 2;
	for (uint32_t w = 0; w < worker_.workers(); w++) {
		const region::TargetGauges &c = gauges(w);
		if (w == worker_.worker() || c.open.load(std::memory_order_relaxed) <= 0)
			continue;
		const int64_t since = c.waiting_since_us.load(std::memory_order_relaxed);
		const int64_t theirs = c.idle.load(std::memory_order_relaxed) > 0 ? -1 : since == 0 ? 0 : now - since;
		if (theirs < least) {
			least = theirs;
			best = w;
		}
	}
	if (best != worker_.worker())
		worker_.ask(best, claim(), static_cast<uint32_t>(waited_us / 1000), control::ServerLimit::None);
}

bool Places::ask_for_idle(int64_t now, control::ServerLimit limit)
{
	if (!worker_.ask_for_idle(limit, claim()))
		return false;
	asked_at_ = now;
	return true;
}

void Places::promise(uint32_t worker)
{
	yielded_++;
	yielded_to_ = worker;
}

// Then the waits even out, not the numbers of servers.
void Places::owe(uint32_t worker, uint32_t waited_ms, int64_t ours_ms)
{
	if (owed_ || waited_ms <= 2 * ours_ms + kYieldAfterMs)
		return;
	owed_ = true;
	promise(worker);
}

bool Places::pay()
{
	return std::exchange(owed_, false);
}

} // namespace pgpool::core
