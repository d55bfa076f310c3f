// The address book: which nodes there are, and where.
//
// Owns what was read of a node's slot in the region, and the addresses of its host, which libuv looks up in a thread.
// Both are kept until the slot says that it is another node, the addresses also no longer than kKeep, or until somebody
// who could not connect doubts them. Must not know streams, nor TLS.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "region/nodes.hpp"

struct addrinfo;

namespace pgpool::net
{

class Loop;

struct NodeAddress {
	sockaddr_storage to{};
	socklen_t length = 0;

	const sockaddr *get() const { return reinterpret_cast<const sockaddr *>(&to); }
	std::string text() const;
};

struct Node {
	std::string name, host, root; // root: sslrootcert
	int32_t port = 0;
	region::SslMode mode = region::SslMode::Disable;
	uint32_t generation = 0;
	std::vector<NodeAddress> addresses; // in the order to try them; empty: to be looked up
	int64_t found_at = 0;
	std::string problem; // of the last lookup, "" = none
	bool fixed = false;  // the addresses are the host itself, and not looked up
	bool looking = false;

	bool is_socket() const { return !host.empty() && (host[0] == '/' || host[0] == '@'); }
	std::string text() const; // as messages name it
};

class NodeBook
{
public:
	using Slots = std::function<const region::NodeSlot *(uint32_t)>; // nullptr: there is no such slot
	using Found = std::function<void(Node &)>;                       // or not: `problem`

	NodeBook(Loop &loop, Slots slots, Found found) : loop_(loop), slots_(std::move(slots)), found_(std::move(found)) {}

	std::shared_ptr<Node> find(uint32_t number); // as it is now; nullptr: there is none
	// Found follows in a later event. False: it will not, `problem` says why.
	[[nodiscard]] bool look_up(const std::shared_ptr<Node> &node);
	bool fresh(const Node &node) const;
	static void works(Node &node, const NodeAddress &address); // it is tried first
	static void doubt(Node &node);                             // nobody answers there

private:
	struct Lookup;

	void looked_up(Node &node, int status, const addrinfo *list);

	Loop &loop_;
	const Slots slots_;
	const Found found_;
	std::array<std::shared_ptr<Node>, region::kMaxNodes> nodes_;
};

} // namespace pgpool::net
