// Whether a node lives: its postmaster is asked for something that costs it nothing, on a connection of its own.
//
// The question is GSSENCRequest: it is answered with one byte before any login, by whatever postmaster takes
// connections, and who leaves then is not logged. Nothing is told to the node, and nothing of the answer counts but
// that there is one. Owns the questions on their way, each no longer than kTime. Must not know servers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>

#include "core/base/ports.hpp"

namespace pgpool::net
{

class Loop;
class SocketStream;

class NodePulses
{
public:
	using Lives = std::function<void(uint32_t node)>;

	NodePulses(Loop &loop, Lives lives);
	~NodePulses();
	NodePulses(const NodePulses &) = delete;
	NodePulses &operator=(const NodePulses &) = delete;

	// At the address that `server` is connected to. `lives` is called in a later event, or never. False: it will not.
	[[nodiscard]] bool take(uint32_t node, const SocketStream &server);
	void tick();

private:
	class Pulse;

	Loop &loop_;
	const Lives lives_;
	std::unordered_map<const Pulse *, std::unique_ptr<Pulse>> taken_;
};

} // namespace pgpool::net
