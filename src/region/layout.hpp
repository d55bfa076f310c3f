// The region: memory that the postmaster maps before it forks, shared by manager, workers and backends.
//
// Owns the layout (offsets, never pointers) and who writes what. It is not PostgreSQL's shared memory:
// a wild write of a worker can hurt statistics and limits, never data.
//
// Writers. A field named in a per-worker struct (WorkerSlot, PoolCounters, TargetGauges, TenantCounters, NodeCounters)
// is written by that worker alone. TenantSlot, PoolSlot and NodeSlot are allocated, filled and freed by the manager
// alone; `epoch` and `baseline` are the exceptions: any backend may raise an epoch, reset_stats() copies into a
// baseline. Counters only grow; sums over workers are made by the reader.
//
// Limits over all workers are kept without a lock: add to the own counter, sum over all workers, take back
// if the sum is over the limit (seq_cst). Two workers may both fail at the last place and try again;
// never do both succeed. A worker that starts zeroes its own gauges, so a crash cannot leak a place.
//
// Must not know PostgreSQL, sockets or libuv.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "region/atomic.hpp"
#include "region/counters.hpp"
#include "region/facts.hpp"
#include "region/limits.hpp"
#include "region/nodes.hpp"
#include "region/rows.hpp"
#include "region/settings.hpp"

namespace pgpool::region
{

constexpr uint64_t kMagic = 0x7067706f6f6c7267ULL; // "pgpoolrg"

// Of what processes of one cluster share and send each other: a library or process of another version is refused. A row
// of a list counts by itself, the number is raised when any other member changes.
#define PGPOOL_TOLD(kind, name, ...) #kind #name
#define PGPOOL_NAMED(name, ...) #name
constexpr uint32_t kVersion = fingerprint(
    12, PGPOOL_SETTINGS(PGPOOL_NAMED) PGPOOL_LIMITS(PGPOOL_TOLD) PGPOOL_POOL_COUNTERS(PGPOOL_TOLD)
            PGPOOL_WORKER_COUNTERS(PGPOOL_TOLD) PGPOOL_TENANT_COUNTERS(PGPOOL_TOLD) PGPOOL_NODE_COUNTERS(PGPOOL_TOLD)
                PGPOOL_CLIENT_COLUMNS(PGPOOL_TOLD, PGPOOL_ROW_MADE) PGPOOL_SERVER_COLUMNS(PGPOOL_TOLD, PGPOOL_ROW_MADE)
                    PGPOOL_PREPARED_COLUMNS(PGPOOL_TOLD, PGPOOL_ROW_MADE));
#undef PGPOOL_TOLD
#undef PGPOOL_NAMED

constexpr uint32_t kCatalogCounters = 256;

enum class WorkerState : uint32_t { Down = 0, Running, Draining };

struct alignas(64) WorkerSlot {
	Atomic<int32_t> pid;
	Atomic<WorkerState> state;
	Atomic<int64_t> started_at; // microseconds since 1970, 0 = never
	Atomic<uint64_t> starts;    // more than one: it was restarted
	Atomic<int32_t> clients;    // connected now, those that log in included
	Atomic<int32_t> servers;    // open now, those that log in included
	Atomic<int32_t> listening;  // bits kListen*
	Atomic<int32_t> file_limit;
	PGPOOL_WORKER_COUNTERS(PGPOOL_ATOMIC)
	WorkerTotals baseline;  // reset_stats() copies here
	char problem[kTextLen]; // why it does not do all it should, "" = nothing
};

constexpr int32_t kListenTcp = 1;
constexpr int32_t kListenSession = 2;
constexpr int32_t kListenUnix = 4;

// Where servers of a pool are: the primary, or a node that reads are sent to (nodes.hpp).
constexpr uint32_t kTargets = 1 + kMaxNodes;

struct alignas(64) PoolCounters { // one per worker and pool
	Atomic<int32_t> clients;      // sessions of this pool, waiting ones included
	PGPOOL_POOL_COUNTERS(PGPOOL_ATOMIC)
};

struct alignas(64) TargetGauges { // one per worker, pool and target
	Atomic<int32_t> open;         // servers, those that log in or close included
	Atomic<int32_t> active;       // servers that serve a client
	Atomic<int32_t> idle;
	Atomic<int32_t> pinned;           // active ones that their client keeps between transactions, whatever the reason
	Atomic<int32_t> parkable;         // of these, those whose client only listens and will be parked
	Atomic<int32_t> listeners;        // that listen for parked clients; none of `open`
	Atomic<int32_t> waiting;          // clients in the queue
	Atomic<int64_t> waiting_since_us; // CLOCK_MONOTONIC of the first in the queue, 0 = none
	Atomic<int64_t> kept_since_us;    // of the client that keeps its server idle for longest, parkable ones excepted
};

// Of a worker that starts: what its earlier life had is gone with it.
inline void zero(TargetGauges &g)
{
	for (auto *gauge : {&g.open, &g.active, &g.idle, &g.pinned, &g.parkable, &g.listeners, &g.waiting})
		gauge->store(0);
	g.waiting_since_us.store(0);
	g.kept_since_us.store(0);
}

enum class SlotState : uint32_t { Free = 0, Used, Dead };              // Dead: role, database or tenant is gone
enum class Missing : uint32_t { Nothing = 0, Tenant, Role, Database }; // what a dead pool died of

struct alignas(64) PoolSlot {
	Atomic<SlotState> state;
	Atomic<uint32_t> generation; // raised when the slot is given to another pool
	Atomic<uint32_t> epoch;      // raised when servers are not what a fresh login would be
	uint32_t tenant_slot;
	uint32_t database_oid;
	uint32_t role_oid;
	Atomic<Missing> missing;        // written before the state becomes Dead
	Atomic<uint32_t> name_sequence; // odd while names are written
	char tenant[kNameLen];
	char database[kNameLen]; // present names of the OIDs
	char role[kNameLen];
	uint64_t login_digest; // the manager's: what a fresh login would be when it looked last
	PoolSettings settings;
	Atomic<uint32_t> node_mask; // bits of the nodes that reads may be sent to; a bit may be of a node that is not there
	PoolTotals baseline;
};

// Room for the reasons why statements go to the primary: core/routing/statement_kind.hpp has them.
constexpr uint32_t kRouteReasons = 48;

struct alignas(64) TenantCounters { // one per worker and tenant
	Atomic<int32_t> clients;
	PGPOOL_TENANT_COUNTERS(PGPOOL_ATOMIC)
	Atomic<uint64_t> to_primary[kRouteReasons]; // batches, with routing; by core::Reason
};

struct alignas(64) TenantSlot {
	Atomic<SlotState> state;
	Atomic<uint32_t> generation;
	Atomic<int32_t> max_clients; // over all workers, 0 = only pgpool.max_client_connections
	Atomic<int32_t> banned;      // bool: clients in it are told to leave, too
	int64_t id;
	char name[kNameLen];
	TenantTotals baseline;
	uint64_t to_primary_baseline[kRouteReasons];
};

// One internal backend with the agent: what it and its worker tell each other without a message. A worker takes a
// free slot before it dials and names it in the startup packet; the agent accepts it when the peer of its socket
// is that worker. Who writes what: docs/architecture.md.
constexpr uint32_t kCustomPlans = 64;
constexpr uint32_t kDefaultsLen = 8192;

struct alignas(64) AgentSlot {
	Atomic<uint32_t> owner; // index of the worker plus 1; 0 = free
	// Raised by the owner when it frees the slot; the startup packet names it. A backend that was given up may live on:
	// it looks at nothing here any more once this is not what it was told.
	Atomic<uint32_t> generation;
	Atomic<int32_t> backend_pid;
	// End of the last commit that wrote WAL, 0 = none yet. Stored before the ReadyForQuery behind it is sent.
	Atomic<uint64_t> commit_lsn;
	// Whom the backend serves; even = valid. Display only.
	Atomic<uint32_t> identity_sequence;
	uint32_t address_length; // of `address`, a sockaddr; 0 = Unix socket
	uint8_t address[28];
	uint8_t pooled; // bool: it serves nobody
	// Numbers N of shared statements "_pgpool_N" whose plans are to be made for their parameters each time: the
	// worker writes custom[k % kCustomPlans], then raises custom_written to k + 1, then sends the Parse.
	Atomic<uint64_t> custom_written;
	Atomic<uint64_t> custom[kCustomPlans];
	// Raised by the worker, while the backend waits, before it sends a query of its own: no timeout of the session ends
	// that. It may apply a client's settings, with the client's messages right behind it: if it fails, the agent lets
	// nothing run.
	Atomic<uint32_t> applies;
	Atomic<uint32_t> hushed; // bool: what runs is the worker's and may fail; nobody counts or logs it
	// What RESET goes back to for the client that is served: its startup parameters as name NUL value NUL ...,
	// written by the worker before it sends the client's first message.
	uint32_t defaults_length;
	char defaults[kDefaultsLen];
	// Whose session it is, the id of a client: currval() and lastval() are for none but who called nextval(). Written
	// before the client's first message is sent.
	Atomic<uint64_t> client;
	Atomic<uint32_t> pin_sequences; // bool: such a client is to keep the server
};

enum class Phase : uint32_t { Starting = 0, Running, Stopping }; // Stopping: smart shutdown seen

struct alignas(64) Header { // more than 25 members: what there is once for all processes, without behaviour
	uint64_t magic;
	uint32_t version;
	uint32_t workers;
	uint64_t size;
	uint32_t max_tenants;
	uint32_t max_pools;
	uint32_t max_agents;
	uint64_t tenants_offset, tenant_counters_offset, pools_offset, pool_counters_offset, gauges_offset, agents_offset;
	uint64_t nodes_offset, node_counters_offset;
	Atomic<Phase> phase;
	Atomic<uint64_t> system_identifier; // of the cluster, by the postmaster's control file; the manager's
	Atomic<int32_t> manager_pid;
	Atomic<int32_t> extension_exists; // bool: CREATE EXTENSION was run in pgpool.database
	Atomic<int32_t> port_taken;       // bool: another cluster on this machine holds pgpool.port
	Atomic<int64_t> stats_reset_at;   // microseconds since 1970
	// Raised by every backend that changes the catalog, at the change and when its transaction ends: what was
	// prepared before may mean something else now. By database OID, modulo: too often is harmless.
	Atomic<uint64_t> catalog_changes[kCatalogCounters];
	FactsSlot facts[kMaxFacts]; // claimed by who wants them; files and version: the facts workers
	// Raised when the manager is to look at roles, databases and tenants: by a backend that changed some, by a worker
	// that doubts the names of a pool. And how far it has looked.
	Atomic<uint32_t> changes_told, changes_seen;
	// Nodes, and how far this one is. All by the manager, but what is said otherwise.
	Atomic<uint32_t> nodes_changed; // raised when a slot has changed
	Atomic<uint32_t> nodes_used;    // bits of the slots in use: 0 = there is nothing to do for nodes
	Atomic<int32_t> primary;        // bool: this node is no standby
	Atomic<uint64_t> flushed;       // LSN: as far as it has written, or replayed as a standby
	Atomic<int64_t> flushed_at;     // CLOCK_MONOTONIC microseconds: when that was read
	Atomic<int64_t>
	    positions_wanted_until; // the same; by workers: positions are to be read each millisecond until then
	// End of the last commit of a database, by its OID, modulo: by each backend at COMMIT, if there are nodes.
	Atomic<uint64_t> database_commit[kCatalogCounters];
	Settings settings; // of the postmaster's start
	// Those of the reloads since then, for workers that start while the manager is away: names.hpp.
	Settings renewed[2];
	Atomic<uint32_t> renewals;
	// The manager's: of the configuration files as it read them last, which may be before or after the postmaster.
	uint64_t configuration_digest;
	bool configuration_doubtful;
	char manager_problem[kTextLen];
	WorkerSlot worker[kMaxWorkers];
};

// Of a pool in all workers together, on all targets.
struct PoolGauges {
	int64_t clients, open, active, idle, pinned, listeners, waiting;
	int64_t waiting_since_us; // CLOCK_MONOTONIC of the first in any queue, 0 = nobody waits
};

inline void add(PoolGauges &sum, const TargetGauges &g)
{
	const int64_t since = g.waiting_since_us.load();
	sum.open += g.open.load();
	sum.active += g.active.load();
	sum.idle += g.idle.load();
	sum.pinned += g.pinned.load();
	sum.listeners += g.listeners.load();
	sum.waiting += g.waiting.load();
	if (since > 0 && (sum.waiting_since_us == 0 || since < sum.waiting_since_us))
		sum.waiting_since_us = since;
}

// All parts of the region, found by offset from its header.
class View
{
public:
	View() = default;
	explicit View(Header *header) : header_(header) {}

	Header *header() const { return header_; }
	WorkerSlot &worker(uint32_t i) const { return header_->worker[i]; }
	TenantSlot &tenant(uint32_t i) const { return at<TenantSlot>(header_->tenants_offset)[i]; }
	TenantCounters &tenant_counters(uint32_t i, uint32_t worker) const
	{
		return at<TenantCounters>(header_->tenant_counters_offset)[uint64_t{i} * header_->workers + worker];
	}
	PoolSlot &pool(uint32_t i) const { return at<PoolSlot>(header_->pools_offset)[i]; }
	PoolCounters &pool_counters(uint32_t i, uint32_t worker) const
	{
		return at<PoolCounters>(header_->pool_counters_offset)[uint64_t{i} * header_->workers + worker];
	}
	TargetGauges &gauges(uint32_t pool, uint32_t target, uint32_t worker) const
	{
		return at<TargetGauges>(
		    header_->gauges_offset)[(uint64_t{pool} * header_->workers + worker) * kTargets + target];
	}

	// ---- sums over workers, each of numbers that were right at some moment
	PoolTotals pool_totals(uint32_t i) const
	{
		PoolTotals t{};
		for (uint32_t w = 0; w < header_->workers; w++)
			add(t, pool_counters(i, w));
		return t;
	}
	TenantTotals tenant_totals(uint32_t i) const
	{
		TenantTotals t{};
		for (uint32_t w = 0; w < header_->workers; w++)
			add(t, tenant_counters(i, w));
		return t;
	}
	uint64_t to_primary_total(uint32_t tenant, uint32_t reason) const
	{
		uint64_t n = 0;
		for (uint32_t w = 0; w < header_->workers; w++)
			n += tenant_counters(tenant, w).to_primary[reason].load(std::memory_order_relaxed);
		return n;
	}
	PoolGauges pool_gauges(uint32_t i) const
	{
		PoolGauges g{};
		for (uint32_t w = 0; w < header_->workers; w++) {
			g.clients += pool_counters(i, w).clients.load();
			for (uint32_t target = 0; target < kTargets; target++)
				add(g, gauges(i, target, w));
		}
		return g;
	}
	PoolGauges target_gauges(uint32_t target) const // of all pools
	{
		PoolGauges g{};
		for (uint32_t i = 0; i < header_->max_pools; i++) {
			for (uint32_t w = 0; w < header_->workers; w++)
				add(g, gauges(i, target, w));
		}
		return g;
	}
	int64_t tenant_clients(uint32_t i) const
	{
		int64_t clients = 0;
		for (uint32_t w = 0; w < header_->workers; w++)
			clients += tenant_counters(i, w).clients.load();
		return clients;
	}

	AgentSlot &agent(uint32_t i) const { return at<AgentSlot>(header_->agents_offset)[i]; }
	NodeSlot &node(uint32_t i) const { return at<NodeSlot>(header_->nodes_offset)[i]; } // i < kMaxNodes
	NodeCounters &node_counters(uint32_t i, uint32_t worker) const
	{
		return at<NodeCounters>(header_->node_counters_offset)[uint64_t{i} * header_->workers + worker];
	}
	NodeTotals node_totals(uint32_t i) const
	{
		NodeTotals t{};
		for (uint32_t w = 0; w < header_->workers; w++)
			add(t, node_counters(i, w));
		return t;
	}

	// Bytes needed; the same arithmetic as format().
	static uint64_t size(uint32_t workers, uint32_t max_tenants, uint32_t max_pools, uint32_t max_agents)
	{
		return sizeof(Header) + sizeof(TenantSlot) * uint64_t{max_tenants} +
		       sizeof(TenantCounters) * uint64_t{max_tenants} * workers + sizeof(PoolSlot) * uint64_t{max_pools} +
		       sizeof(PoolCounters) * uint64_t{max_pools} * workers +
		       sizeof(TargetGauges) * uint64_t{max_pools} * workers * kTargets +
		       sizeof(AgentSlot) * uint64_t{max_agents} + sizeof(NodeSlot) * uint64_t{kMaxNodes} +
		       sizeof(NodeCounters) * uint64_t{kMaxNodes} * workers;
	}

	// Writes offsets, capacities, magic and version into zeroed memory of size() bytes.
	static void format(Header *h, uint32_t workers, uint32_t max_tenants, uint32_t max_pools, uint32_t max_agents)
	{
		h->workers = workers;
		h->max_tenants = max_tenants;
		h->max_pools = max_pools;
		h->max_agents = max_agents;
		h->tenants_offset = sizeof(Header);
		h->tenant_counters_offset = h->tenants_offset + sizeof(TenantSlot) * uint64_t{max_tenants};
		h->pools_offset = h->tenant_counters_offset + sizeof(TenantCounters) * uint64_t{max_tenants} * workers;
		h->pool_counters_offset = h->pools_offset + sizeof(PoolSlot) * uint64_t{max_pools};
		h->gauges_offset = h->pool_counters_offset + sizeof(PoolCounters) * uint64_t{max_pools} * workers;
		h->agents_offset = h->gauges_offset + sizeof(TargetGauges) * uint64_t{max_pools} * workers * kTargets;
		h->nodes_offset = h->agents_offset + sizeof(AgentSlot) * uint64_t{max_agents};
		h->node_counters_offset = h->nodes_offset + sizeof(NodeSlot) * uint64_t{kMaxNodes};
		h->size = size(workers, max_tenants, max_pools, max_agents);
		h->version = kVersion;
		h->magic = kMagic;
	}

private:
	template <class T> T *at(uint64_t offset) const
	{
		return reinterpret_cast<T *>(reinterpret_cast<char *>(header_) + offset);
	}

	Header *header_ = nullptr;
};

static_assert(std::is_standard_layout_v<PoolSlot> && std::is_standard_layout_v<TenantSlot>);
static_assert(std::is_standard_layout_v<Header> && std::is_standard_layout_v<PoolCounters>);

// What pgpool.so hands to pgpool_worker.so through the rendezvous variable "pgpool".
struct Rendezvous {
	uint64_t magic;
	uint32_t version;
	Header *header;
};

} // namespace pgpool::region
