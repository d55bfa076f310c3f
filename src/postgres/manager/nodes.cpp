// Slots of nodes in the region: kept as the rows of pgpool.node say.
//
// Owns what the manager writes to NodeSlot, but for positions, and finds the row that is this node. A row names its
// slot, so it is the same on each node of the cluster and whenever the manager starts. Must not know what a node
// answers: whether it is of this cluster, and fit to be read from, is what workers find out.
#include <cstring>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <unistd.h>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "postmaster/postmaster.h"
#include "utils/varlena.h"
}

namespace pgpool::postgres
{

namespace
{

using region::NodeRole;
using region::NodeSlot;

region::Header &header()
{
	return *region_view.header();
}

template <class T> bool put(region::Atomic<T> &to, T value)
{
	return to.load(std::memory_order_relaxed) != value && (to.store(value), true);
}

bool same_address(const sockaddr *a, int family, const void *address)
{
	if (a == nullptr || a->sa_family != family)
		return false;
	if (family == AF_INET)
		return memcmp(&reinterpret_cast<const sockaddr_in *>(a)->sin_addr, address, sizeof(in_addr)) == 0;
	return memcmp(&reinterpret_cast<const sockaddr_in6 *>(a)->sin6_addr, address, sizeof(in6_addr)) == 0;
}

bool of_this_machine(int family, const void *address)
{
	ifaddrs *all;
	bool found = false;

	if (getifaddrs(&all) != 0)
		return false;
	for (ifaddrs *i = all; i && !found; i = i->ifa_next)
		found = same_address(i->ifa_addr, family, address);
	freeifaddrs(all);
	return found;
}

bool is_socket_directory(const char *host)
{
	char *copy = pstrdup(server_setting("unix_socket_directories"));
	List *directories = NIL;
	ListCell *cell;
	bool found = false;

	if (SplitDirectoriesString(copy, ',', &directories))
		foreach (cell, directories)
			found |= strcmp(static_cast<const char *>(lfirst(cell)), host) == 0;
	list_free_deep(directories);
	pfree(copy);
	return found;
}

// Any other name is not looked up: that may take seconds, in which nobody could log in. A worker that connects there
// finds that it is this node by what it says of itself.
bool is_name_of_machine(const char *host)
{
	char own[256] = "";

	return pg_strcasecmp(host, "localhost") == 0 ||
	       (gethostname(own, sizeof own - 1) == 0 && pg_strcasecmp(host, own) == 0);
}

bool is_self(const Node &node)
{
	const char *host = node.names.host;
	in6_addr address;

	if (node.port != PostPortNumber)
		return false;
	if (host[0] == '/')
		return is_socket_directory(host);
	if (inet_pton(AF_INET, host, &address) == 1)
		return of_this_machine(AF_INET, &address);
	if (inet_pton(AF_INET6, host, &address) == 1)
		return of_this_machine(AF_INET6, &address);
	return is_name_of_machine(host);
}

// Whether connections to what it was are connections to what it is.
bool apply_address(NodeSlot &slot, const Node &node)
{
	region::NodeNames before;
	bool changed = region::names_torn(slot); // a manager died while it wrote them

	(void)region::read_names(slot, before);
	if (changed || memcmp(&before, &node.names, sizeof before) != 0) {
		region::write_names(slot, node.names);
		changed = true;
	}
	changed |= put(slot.port, static_cast<int32_t>(node.port));
	changed |= put(slot.sslmode, node.sslmode);
	return changed;
}

bool apply(NodeSlot &slot, const Node &node)
{
	bool is_new = slot.used.load() == 0, moved = apply_address(slot, node);
	bool changed = is_new || moved;

	if (is_new)
		slot.baseline = region_view.node_totals(static_cast<uint32_t>(node.slot));
	if (is_new || moved) {
		slot.replayed.store(0);
		slot.lag_ms.store(0);
		slot.generation.fetch_add(1);
	}
	changed |= put(slot.weight, static_cast<int32_t>(node.weight));
	changed |= put(slot.max_lag_bytes, static_cast<int64_t>(node.max_lag_bytes));
	changed |= put(slot.max_lag_ms, static_cast<int32_t>(node.max_lag_ms));
	changed |= put(slot.role, is_self(node) ? NodeRole::Self : NodeRole::Replica);
	slot.used.store(1);
	return changed;
}

} // namespace

bool refresh_nodes()
{
	Node rows[region::kMaxNodes];
	int count = extension_present() ? node_rows(rows) : 0;
	uint32_t used = 0;
	bool changed = false;

	header().system_identifier.store(GetSystemIdentifier());
	for (int i = 0; i < count; i++)
		used |= 1U << rows[i].slot;
	// Backends tell of their commits before a worker reads anywhere else, and those of before count, too.
	const uint32_t before = header().nodes_used.exchange(used);
	if (before == 0 && used != 0)
		begin_commits();
	for (int i = 0; i < count; i++)
		changed |= apply(region_view.node(static_cast<uint32_t>(rows[i].slot)), rows[i]);
	for (uint32_t i = 0; i < region::kMaxNodes; i++)
		if ((used & (1U << i)) == 0)
			changed |= region_view.node(i).used.exchange(0) != 0;
	if (changed)
		header().nodes_changed.fetch_add(1);
	return changed;
}

void look_at_primary()
{
	if (RecoveryInProgress() || header().primary.load() != 0)
		return;
	begin_commits(); // what was replayed, and what committed since the promotion
	header().primary.store(1);
}

} // namespace pgpool::postgres
