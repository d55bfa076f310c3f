// Whether the nodes that reads are at still answer.
//
// A node whose machine has stopped, or to which the network is cut, closes no connection: a read there would wait for
// as long as TCP does. A read that takes its time looks the same. So when a server has owed an answer for some time,
// and nothing came from its node, the postmaster there is asked for a sign of life, on a connection of its own that
// needs no place, role or password. If it gives none either, the node has failed. Time is counted in ticks: a worker
// that was held up itself has not listened meanwhile. Owns what was asked. What becomes of the servers of a silent
// node, they know themselves.
#pragma once

#include <array>
#include <cstdint>

#include "region/nodes.hpp"

namespace pgpool::core
{

class Context;
class Pools;
class ServerConn;

class NodeWatch
{
public:
	NodeWatch(Context &context, Pools &pools) : context_(context), pools_(pools) {}
	NodeWatch(const NodeWatch &) = delete;
	NodeWatch &operator=(const NodeWatch &) = delete;

	void tick();
	void on_pulse(uint32_t node) { asked_[node] = 0; } // it lives

private:
	void ask(uint32_t node, ServerConn &server);
	void is_silent(uint32_t node);

	Context &context_;
	Pools &pools_;
	std::array<uint32_t, region::kMaxNodes> asked_{}; // ticks since, counting that one; 0 = it is not asked
};

} // namespace pgpool::core
