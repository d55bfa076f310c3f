// Nodes of the cluster in the region: whom reads may be sent to, and how far each of them is.
//
// A row of the table pgpool.node names its slot. The manager writes all of it but the baseline, which is
// reset_stats()'s, and NodeCounters, which are a worker's own. Names are text that is longer than an atomic: read them
// with the sequence, as those of pools (names.hpp). Must not know PostgreSQL, sockets or libuv.
#pragma once

#include <cstdint>

#include "region/atomic.hpp"
#include "region/columns.hpp"
#include "region/counters.hpp"
#include "region/range.hpp"

namespace pgpool::region
{

constexpr uint32_t kMaxNodes = 15; // replicas of a cluster; a target is one byte (target.hpp)

// As in libpq, for the way to a node.
enum class SslMode : int32_t { Disable = 0, Prefer, Require, VerifyCa, VerifyFull };

inline constexpr Choice kSslModes[] = {named("disable", SslMode::Disable), named("prefer", SslMode::Prefer),
                                       named("require", SslMode::Require), named("verify-ca", SslMode::VerifyCa),
                                       named("verify-full", SslMode::VerifyFull)};

struct NodeNames {
	char name[kNameLen];
	char host[256];         // a name, an address, or the directory of a Unix socket
	char sslrootcert[1024]; // file; "" = that of the system
};

// What the manager says of a node. Whether it is read from is a worker's judgement, by its own connections.
enum class NodeRole : int32_t {
	Replica = 0,
	Self, // this node: the primary, or the standby that we are
};

struct alignas(64) NodeSlot {
	Atomic<int32_t> used;        // bool
	Atomic<uint32_t> generation; // raised when name, host, port or TLS become others: connections are of the old one
	Atomic<uint32_t> name_sequence;
	NodeNames names;
	Atomic<int32_t> port;
	Atomic<SslMode> sslmode;
	Atomic<int32_t> weight;        // 0 = it gets no reads
	Atomic<int64_t> max_lag_bytes; // 0 = no limit
	Atomic<int32_t> max_lag_ms;    // 0 = no limit
	Atomic<NodeRole> role;
	// By its walsender here. A hint for the choice and for waiting: what is promised to clients is proved by the node
	// itself, at each read that needs it (docs/replicas.md).
	Atomic<uint64_t> replayed; // LSN, 0 = no walsender of its is attached
	Atomic<int64_t> lag_ms;    // since when the oldest commit that it lacks was flushed here, 0 = none
	NodeTotals baseline;       // reset_stats() copies here
};

// One for each worker and node.
struct alignas(64) NodeCounters {
	// Of this worker's connections, and what they know.
	Atomic<uint64_t> proved;   // an LSN that the node has replayed for certain, said by itself
	Atomic<int64_t> proved_at; // CLOCK_MONOTONIC microseconds: it was a standby then; 0 = never
	Atomic<int64_t> bad_since; // 0 = it serves
	Atomic<int32_t> busy;      // servers that serve a client
	PGPOOL_NODE_COUNTERS(PGPOOL_ATOMIC)
	char problem[512]; // why it does not serve, or not some pool; "" = it does. Who reads it meanwhile sees some of
	                   // each text
};

} // namespace pgpool::region
