// Cancel requests to nodes: where no signal reaches a backend, its key does, over a connection of its own.
//
// Owns each from its start until it is known, or as well known as it will ever be, whether the node has acted on it.
// Who asked is known by a number alone. Must not know servers, nor how a node is dialled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "core/base/ports.hpp"

namespace pgpool::net
{

class Loop;
class NodeDialer;
class SocketStream;

class NodeCancels
{
public:
	using Over = std::function<void(uint64_t id, core::CancelEnd end)>;

	NodeCancels(Loop &loop, NodeDialer &dialer, Over over);
	~NodeCancels();
	NodeCancels(const NodeCancels &) = delete;
	NodeCancels &operator=(const NodeCancels &) = delete;

	// At the address that `server` is connected to. `over` is called in a later event.
	void start(uint32_t node, const SocketStream &server, int32_t pid, std::string_view key, uint64_t id);
	void tick();

private:
	class Cancel;

	Loop &loop_;
	NodeDialer &dialer_;
	const Over over_;
	std::unordered_map<const Cancel *, std::unique_ptr<Cancel>> running_;
};

} // namespace pgpool::net
