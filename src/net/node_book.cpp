// See node_book.hpp.
#include "net/node_book.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include <netdb.h>
#include <sys/un.h>
#include <uv.h>

#include "net/loop.hpp"
#include "region/names.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int64_t kKeep = 30000000; // microseconds; a name may get another address while the old one still answers

// Of the directory of a Unix socket. PostgreSQL writes abstract ones with a leading @.
bool socket_address(const Node &node, NodeAddress &address)
{
	auto *a = reinterpret_cast<sockaddr_un *>(&address.to);
	a->sun_family = AF_UNIX;
	const int n = snprintf(a->sun_path, sizeof(a->sun_path), "%s/.s.PGSQL.%d", node.host.c_str(), node.port);
	if (n < 0 || static_cast<size_t>(n) >= sizeof(a->sun_path))
		return false;
	const bool abstract = a->sun_path[0] == '@';
	if (abstract)
		a->sun_path[0] = '\0';
	address.length =
	    static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + static_cast<size_t>(n) + (abstract ? 0 : 1));
	return true;
}

void copy(const addrinfo *list, std::vector<NodeAddress> &to)
{
	to.clear();
	for (; list; list = list->ai_next) {
		NodeAddress a;
		if (list->ai_addrlen > sizeof(a.to))
			continue;
		memcpy(&a.to, list->ai_addr, list->ai_addrlen);
		a.length = list->ai_addrlen;
		to.push_back(a);
	}
}

addrinfo hints(int flags)
{
	addrinfo h{};
	h.ai_socktype = SOCK_STREAM;
	h.ai_flags = AI_NUMERICSERV | flags;
	return h;
}

// A host that needs no looking up.
void fix_addresses(Node &node)
{
	if (node.is_socket()) {
		node.fixed = true;
		NodeAddress a;
		if (socket_address(node, a))
			node.addresses.push_back(a);
		else
			node.problem = "the path of the socket is too long";
		return;
	}
	const addrinfo numeric = hints(AI_NUMERICHOST);
	addrinfo *list = nullptr;
	node.fixed = getaddrinfo(node.host.c_str(), std::to_string(node.port).c_str(), &numeric, &list) == 0;
	if (!node.fixed)
		return;
	copy(list, node.addresses);
	freeaddrinfo(list);
}

std::shared_ptr<Node> read(const region::NodeSlot &slot)
{
	auto node = std::make_shared<Node>();
	region::NodeNames names;
	for (int tries = 0; tries < region::kReadTries; tries++) {
		node->generation = slot.generation.load(std::memory_order_acquire);
		(void)region::read_names(slot, names);
		node->port = slot.port.load();
		node->mode = slot.sslmode.load();
		if (slot.generation.load(std::memory_order_acquire) == node->generation)
			break;
	}
	node->name = names.name;
	node->host = names.host;
	node->root = names.sslrootcert;
	fix_addresses(*node);
	return node;
}

} // namespace

struct NodeBook::Lookup {
	uv_getaddrinfo_t request;
	NodeBook *book;
	std::shared_ptr<Node> node;
};

std::string NodeAddress::text() const
{
	char host[NI_MAXHOST];
	if (to.ss_family == AF_UNIX || getnameinfo(get(), length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) != 0)
		return "socket";
	return host;
}

std::string Node::text() const
{
	return "node \"" + name + "\" (host " + host + ", port " + std::to_string(port) + ", sslmode " +
	       region::name_of(region::kSslModes, mode) + ")";
}

std::shared_ptr<Node> NodeBook::find(uint32_t number)
{
	const region::NodeSlot *slot = number < nodes_.size() ? slots_(number) : nullptr;
	if (!slot || slot->used.load() == 0)
		return nullptr;
	std::shared_ptr<Node> &kept = nodes_[number];
	if (!kept || kept->generation != slot->generation.load(std::memory_order_acquire))
		kept = read(*slot);
	return kept;
}

bool NodeBook::fresh(const Node &node) const
{
	return node.fixed || (!node.addresses.empty() && loop_.now_us() - node.found_at < kKeep);
}

void NodeBook::works(Node &node, const NodeAddress &address)
{
	auto same = [&](const NodeAddress &a) {
		return a.length == address.length && memcmp(&a.to, &address.to, a.length) == 0;
	};
	auto it = std::find_if(node.addresses.begin(), node.addresses.end(), same);
	if (it != node.addresses.end())
		std::rotate(node.addresses.begin(), it, it + 1);
}

void NodeBook::doubt(Node &node)
{
	if (!node.fixed)
		node.addresses.clear();
}

// libuv counts it as slow and leaves a thread to others: a name server that is away stops no hash of a password.
bool NodeBook::look_up(const std::shared_ptr<Node> &node)
{
	if (node->looking)
		return true;
	auto lookup = std::make_unique<Lookup>();
	lookup->request.data = lookup.get();
	lookup->book = this;
	lookup->node = node;
	const addrinfo any = hints(0);
	const int rc = uv_getaddrinfo(
	    loop_.uv(), &lookup->request,
	    [](uv_getaddrinfo_t *request, int status, addrinfo *list) {
		    const std::unique_ptr<Lookup> self(static_cast<Lookup *>(request->data));
		    self->book->loop_.guarded([&] { self->book->looked_up(*self->node, status, list); });
		    uv_freeaddrinfo(list);
	    },
	    node->host.c_str(), std::to_string(node->port).c_str(), &any);
	if (rc != 0) {
		node->problem = uv_strerror(rc);
		return false;
	}
	node->looking = true;
	(void)lookup.release();
	return true;
}

// What is not found any more may still be where it was: then the addresses stay, until somebody doubts them.
void NodeBook::looked_up(Node &node, int status, const addrinfo *list)
{
	node.looking = false;
	node.problem = status == 0 ? "" : uv_strerror(status);
	if (status == 0)
		copy(list, node.addresses);
	node.found_at = loop_.now_us();
	found_(node);
}

} // namespace pgpool::net
