// How a worker's open files are shared out: clients must not take what servers may need.
//
// Owns that one sum; the worker obeys it, check() reports by it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pgpool::region
{

// Of `limit` files, those that no client gets: any worker may have all servers.
inline int32_t reserved_files(int32_t limit, int32_t max_server_connections)
{
	constexpr int32_t kLeast = 128;
	constexpr int32_t kOwn = 28; // listeners, control sockets, the log
	const int32_t servers = std::min(max_server_connections, limit);
	return std::max(kLeast, std::min(servers + kOwn, limit / 2));
}

} // namespace pgpool::region
