// See nodes.hpp.
#include "core/routing/nodes.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kProofLasts = 100000; // us: a node that was promoted is not read from for longer
constexpr int64_t kFirstRetry = 250000; // us after a failure, doubled with each
constexpr int64_t kLastRetry = 1000000; // but no more: what is back is to be read from within a second
constexpr uint64_t kLittle = 2;         // reads that a node may have to do in any case

} // namespace

Nodes::Known &Nodes::known(uint32_t node)
{
	Known &k = known_[node];
	const uint32_t generation = region_.node(node).generation.load(std::memory_order_relaxed);
	if (k.generation != generation) {
		const uint32_t busy = k.busy; // of servers that are still there
		k = Known();
		k.generation = generation;
		k.busy = busy;
		forget_fault(node);
	}
	return k;
}

bool Nodes::exist() const
{
	for (uint32_t i = 0; i < region::kMaxNodes; i++) {
		if (region_.node(i).used.load(std::memory_order_relaxed) != 0)
			return true;
	}
	return false;
}

// By what the walsenders say; a node that none speaks of has no lag that is known.
bool Nodes::within_lag(const region::NodeSlot &slot) const
{
	const uint64_t replayed = slot.replayed.load(std::memory_order_relaxed);
	if (replayed == 0)
		return true;
	const int64_t most_bytes = slot.max_lag_bytes.load(std::memory_order_relaxed);
	const uint64_t flushed = region_.header()->flushed.load(std::memory_order_relaxed);
	if (most_bytes > 0 && flushed > replayed && flushed - replayed > static_cast<uint64_t>(most_bytes))
		return false;
	const int32_t most_ms = slot.max_lag_ms.load(std::memory_order_relaxed);
	return most_ms <= 0 || slot.lag_ms.load(std::memory_order_relaxed) <= most_ms;
}

bool Nodes::may_serve(uint32_t node, const ReadNeeds &needs)
{
	const region::NodeSlot &slot = region_.node(node);
	return (needs.nodes & 1u << node) != 0 && slot.used.load(std::memory_order_relaxed) != 0 &&
	       slot.role.load(std::memory_order_relaxed) == region::NodeRole::Replica &&
	       slot.weight.load(std::memory_order_relaxed) > 0 && !known(node).fails && within_lag(slot);
}

// Of those that are there. One that no walsender speaks of may be there, and can say so itself: if no other is.
NodeChoice Nodes::choose(const ReadNeeds &needs)
{
	Fit fit;
	bool are_there = false;
	uint64_t furthest = 0;
	int64_t all = 0; // weights
	NodeChoice choice;
	for (uint32_t i = 0; i < region::kMaxNodes; i++) {
		if (!may_serve(i, needs))
			continue;
		const uint64_t told = region_.node(i).replayed.load(std::memory_order_relaxed);
		const uint64_t position = std::max(known(i).proved, told);
		const bool is_there = needs.fence <= position;
		if (choice.kind == NodeChoice::Kind::None || position > furthest) {
			furthest = position;
			choice = {NodeChoice::Kind::Behind, i};
		}
		if (!is_there && told != 0)
			continue;
		all += weight(i);
		if (is_there && !std::exchange(are_there, true))
			fit.count = 0;
		if (is_there == are_there) {
			fit.weights[fit.count] = weight(i);
			fit.nodes[fit.count++] = i;
		}
	}
	if (fit.count == 0)
		return choice;
	if (needs.primary_weight > 0 && is_the_primarys_turn(needs.primary_weight, all))
		return {NodeChoice::Kind::Primary, 0};
	return {NodeChoice::Kind::Node, in_turn(fit)};
}

// Each as often as its weight says (smooth weighted round robin), but for those that have more to do than twice their
// share of it, and a little: they are slower than the others. What one has to do at a moment says too little of a few
// reads to go by it alone.
uint32_t Nodes::in_turn(const Fit &fit)
{
	uint64_t busy = 0;
	int64_t weights = 0, taking_part = 0;
	for (size_t n = 0; n < fit.count; n++) {
		busy += known_[fit.nodes[n]].busy;
		weights += fit.weights[n];
	}
	Known *next = nullptr;
	for (size_t n = 0; n < fit.count; n++) {
		Known &k = known_[fit.nodes[n]];
		const int64_t own = fit.weights[n];
		const uint64_t share = busy * static_cast<uint64_t>(own) / static_cast<uint64_t>(weights);
		if (k.busy > 2 * share + kLittle)
			continue;
		taking_part += own;
		k.credit += own;
		if (!next || k.credit > next->credit)
			next = &k;
	}
	next->credit -= taking_part; // somebody has no more than his share
	return static_cast<uint32_t>(next - known_.data());
}

NodeChoice Nodes::nearest(const ReadNeeds &needs)
{
	for (uint32_t i = 0; i < region::kMaxNodes; i++) {
		if (may_serve(i, needs))
			return {NodeChoice::Kind::Behind, i};
	}
	return {};
}

// By its weight alone: what else it does is no work of reads.
bool Nodes::is_the_primarys_turn(int32_t weight, int64_t others)
{
	primary_credit_ += weight;
	if (primary_credit_ < weight + others)
		return false;
	primary_credit_ -= weight + others;
	return true;
}

// For an error.
std::string Nodes::why_none(const ReadNeeds &needs)
{
	std::string all;
	for (uint32_t i = 0; i < region::kMaxNodes; i++) {
		const region::NodeSlot &slot = region_.node(i);
		if ((needs.nodes & 1u << i) == 0 || slot.used.load(std::memory_order_relaxed) == 0)
			continue;
		region::NodeNames names;
		(void)region::read_names(slot, names);
		all += (all.empty() ? "\"" : "; \"") + std::string(names.name) + "\": " + why_not(i, slot);
	}
	return all.empty() ? "There is none for it." : "What is wrong with " + all + ".";
}

std::string Nodes::why_not(uint32_t node, const region::NodeSlot &slot)
{
	const Known &k = known(node);
	if (slot.role.load(std::memory_order_relaxed) == region::NodeRole::Self)
		return "it is this server";
	if (slot.weight.load(std::memory_order_relaxed) <= 0)
		return "its weight is 0";
	if (k.fails)
		return k.problem;
	return within_lag(slot) ? "it has not replayed what the client must see, or refused the role or the read"
	                        : "it is behind by more than its max_lag or max_lag_bytes";
}

int32_t Nodes::weight(uint32_t node) const
{
	return std::max(1, region_.node(node).weight.load(std::memory_order_relaxed)); // it may have become 0 just now
}

bool Nodes::is_proved(uint32_t node, uint64_t fence, int64_t now)
{
	const Known &k = known(node);
	return k.proved_at > 0 && now - k.proved_at < kProofLasts && fence <= k.proved;
}

void Nodes::prove(uint32_t node, uint64_t replayed, int64_t now)
{
	Known &k = known(node);
	k.proved = std::max(k.proved, replayed);
	k.proved_at = now;
	region::NodeCounters &mine = region_.node_counters(node, worker_);
	mine.proved.store(k.proved, std::memory_order_relaxed);
	mine.proved_at.store(now, std::memory_order_relaxed);
}

void Nodes::works(uint32_t node)
{
	Known &k = known(node);
	k.fails = false;
	k.failures = 0;
	k.retry_at = 0;
	forget_fault(node);
}

void Nodes::forget_fault(uint32_t node)
{
	failing_ &= ~(1u << node);
	region::NodeCounters &mine = region_.node_counters(node, worker_);
	mine.bad_since.store(0, std::memory_order_relaxed);
	if (mine.problem[0] != '\0')
		show(mine, "");
}

void Nodes::fails(uint32_t node, int64_t now, std::string_view why)
{
	Known &k = known(node);
	region::NodeCounters &mine = region_.node_counters(node, worker_);
	k.problem = why;
	k.proved_at = 0;
	if (std::exchange(k.fails, true) && now < k.retry_at) // several connections find the same
		return;
	failing_ |= 1u << node;
	k.retry_at = now + std::min(kLastRetry, kFirstRetry << std::min(k.failures, 6u));
	k.failures++;
	if (mine.bad_since.load(std::memory_order_relaxed) == 0)
		mine.bad_since.store(now, std::memory_order_relaxed);
	show(mine, why);
	region::bump(mine.errors);
}

void Nodes::refuses(uint32_t node, std::string_view why)
{
	region::NodeCounters &mine = region_.node_counters(node, worker_);
	show(mine, why);
	region::bump(mine.errors);
}

void Nodes::show(region::NodeCounters &mine, std::string_view problem)
{
	memset(mine.problem, 0, sizeof(mine.problem));
	memcpy(mine.problem, problem.data(), std::min(problem.size(), sizeof(mine.problem) - 1));
}

bool Nodes::may_try(uint32_t node, int64_t now)
{
	Known &k = known(node);
	if (region_.node(node).used.load(std::memory_order_relaxed) == 0 || now < k.retry_at)
		return false;
	if (k.fails)
		k.retry_at = now + kLastRetry; // if nothing is heard of this one
	return true;
}

void Nodes::count_busy(uint32_t node, int32_t delta)
{
	Known &k = known(node);
	k.busy += static_cast<uint32_t>(delta);
	region_.node_counters(node, worker_).busy.store(static_cast<int32_t>(k.busy), std::memory_order_relaxed);
}

void Nodes::count_wait(uint32_t node)
{
	region::bump(region_.node_counters(node, worker_).waits);
}

void Nodes::count_read(uint32_t node)
{
	region::bump(region_.node_counters(node, worker_).reads);
}

void Nodes::count_fallback(uint32_t node, Fallback why)
{
	region::NodeCounters &mine = region_.node_counters(node, worker_);
	region::bump(mine.fallbacks);
	region::bump(why == Fallback::Behind    ? mine.fallbacks_behind
	             : why == Fallback::Refused ? mine.fallbacks_refused
	                                        : mine.fallbacks_failed);
}

} // namespace pgpool::core
