// The nodes that reads may be sent to, as this worker knows them.
//
// Owns what the worker's own connections told: how far a node has replayed for certain (proved), whether it serves or
// has failed, how many of its servers are at work. What the manager says of nodes is in the region (region/nodes.hpp);
// its positions are hints for the choice only. A node whose row was changed is another one: what was known of it goes.
// Must not know sessions, servers or pools.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "region/layout.hpp"

namespace pgpool::core
{

// What a read asks of the node that serves it.
struct ReadNeeds {
	uint32_t nodes = UINT32_MAX; // bits, by slot: those that it may use
	uint64_t fence = 0;          // WAL position that it must not be behind, 0 = any
	int32_t primary_weight = 0;  // of the primary among them, 0 = it takes no part
};

struct NodeChoice {
	enum class Kind : uint8_t {
		Node,
		Primary, // it is its turn
		Behind,  // no node is at the fence, `node` is nearest
		None     // serves within its limits
	};
	Kind kind = Kind::None;
	uint32_t node = 0;
};

// Why the primary takes a read in a node's stead.
enum class Fallback : uint8_t { Behind, Refused, Failed };

class Nodes
{
public:
	Nodes(region::View region, uint32_t worker) : region_(region), worker_(worker) {}

	// Of those that serve, that are in `needs.nodes` and within their limits of lag, by weight and by what each has to
	// do: one that is known or said to be at the fence before any other.
	NodeChoice choose(const ReadNeeds &needs);
	// None, or as if all were behind: where they are to be is not known yet.
	NodeChoice nearest(const ReadNeeds &needs);
	std::string why_none(const ReadNeeds &needs);
	bool may_serve(uint32_t node, const ReadNeeds &needs);
	// It was a standby a moment ago, and at the fence: nobody need ask it.
	bool is_proved(uint32_t node, uint64_t fence, int64_t now);

	// ---- what connections tell
	void prove(uint32_t node, uint64_t replayed, int64_t now); // it is a standby, and so far
	void works(uint32_t node);                                 // a login succeeded
	// It serves nobody until a login succeeds, which somebody is to try now and then.
	void fails(uint32_t node, int64_t now, std::string_view why);
	void refuses(uint32_t node, std::string_view why); // one role or database: the view shows it, it serves the others
	uint32_t failing() const { return failing_; }      // bits, by slot; some may have another row by now
	bool may_try(uint32_t node, int64_t now);          // a login, for it is time
	void count_busy(uint32_t node, int32_t delta);     // servers that serve a client
	void count_wait(uint32_t node);                    // for it to replay
	void count_read(uint32_t node);
	void count_fallback(uint32_t node, Fallback why);

	bool exist() const; // any node at all

private:
	struct Known {
		uint32_t generation = 0;
		uint64_t proved = 0;
		int64_t proved_at = 0; // 0 = never
		bool fails = false;
		std::string problem; // the last one
		int64_t retry_at = 0;
		uint32_t failures = 0; // one after the other
		uint32_t busy = 0;
		int64_t credit = 0; // in turns that others had before it
	};

	Known &known(uint32_t node); // of its present row
	struct Fit {
		std::array<uint32_t, region::kMaxNodes> nodes;
		std::array<int32_t, region::kMaxNodes> weights; // as they were a moment ago: the manager may change them
		size_t count = 0;
	};

	int32_t weight(uint32_t node) const;
	uint32_t in_turn(const Fit &fit);
	bool within_lag(const region::NodeSlot &slot) const;
	void forget_fault(uint32_t node);
	static void show(region::NodeCounters &mine, std::string_view problem);
	bool is_the_primarys_turn(int32_t weight, int64_t others);
	std::string why_not(uint32_t node, const region::NodeSlot &slot);

	const region::View region_;
	const uint32_t worker_;
	std::array<Known, region::kMaxNodes> known_;
	uint32_t failing_ = 0; // bits
	int64_t primary_credit_ = 0;
};

} // namespace pgpool::core
