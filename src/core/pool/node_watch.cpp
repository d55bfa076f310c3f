// See node_watch.hpp.
#include "core/pool/node_watch.hpp"

#include "core/base/target.hpp"
#include "core/context/context.hpp"
#include "core/pool/pools.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// Ticks of 100 ms: together less than a second.
constexpr uint32_t kQuiet = 3;     // then the node is asked
constexpr uint32_t kAskAgain = 50; // ... and once more for the same read
constexpr uint32_t kToAnswer = 5;

} // namespace

void NodeWatch::tick()
{
	std::array<ServerConn *, region::kMaxNodes> quiet{};
	std::array<bool, region::kMaxNodes> said{};
	bool any = false;
	pools_.servers().each([&](ServerConn *s) {
		if (!s->on_node())
			return;
		const uint32_t node = node_of(s->target());
		any = true;
		said[node] |= s->has_said();
		const uint32_t ticks = s->count_quiet();
		if (ticks == kQuiet || (ticks > 0 && ticks % kAskAgain == 0))
			quiet[node] = s;
	});
	for (uint32_t i = 0; any && i < region::kMaxNodes; i++) {
		if (said[i])
			asked_[i] = 0;
		else if (asked_[i] > 0 && asked_[i]++ >= kToAnswer)
			is_silent(i);
		else if (quiet[i] && asked_[i] == 0)
			ask(i, *quiet[i]);
	}
}

// When it cannot be asked, nobody knows.
void NodeWatch::ask(uint32_t node, ServerConn &server)
{
	if (context_.outside().take_pulse(node, *server.stream()))
		asked_[node] = 1;
}

void NodeWatch::is_silent(uint32_t node)
{
	asked_[node] = 0;
	context_.nodes().fails(node, context_.now(), "it does not answer");
	pools_.servers().each([node](ServerConn *s) {
		if (s->target() == on_node(node))
			s->on_silence();
	});
}

} // namespace pgpool::core
