// See pool_servers.hpp.
#include "core/pool/pool_servers.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int kLookAt = 16; // idle servers that are compared for their settings

} // namespace

// One that has the settings already; else, of those that were in use last, the one that waits longest: the others may
// fit whom they served.
ServerConn *PoolServers::pick(const Params &wanted) const
{
	ServerConn *oldest = nullptr;
	ServerConn *s = idle_.front();
	for (int i = 0; s && i < kLookAt; i++, s = ServerList::next(s)) {
		if (s->params() == wanted)
			return s;
		oldest = s;
	}
	return oldest;
}

} // namespace pgpool::core
