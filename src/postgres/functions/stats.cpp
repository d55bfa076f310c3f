// Statistics of the region as rows: workers, tenants, pools, nodes; and their reset.
//
// Owns the sums over workers, less the baseline of the last reset. Reads without locks: a row is a set of
// numbers that were each right at some moment. Must not know sockets or the catalog.
#include <cstring>
#include <ctime>

#include "core/routing/statement_kind.hpp"
#include "region/views.hpp"
#include "postgres/functions/rows.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgpool_stat_workers);
PG_FUNCTION_INFO_V1(pgpool_stat_tenants);
PG_FUNCTION_INFO_V1(pgpool_stat_pools);
PG_FUNCTION_INFO_V1(pgpool_stat_replicas);
PG_FUNCTION_INFO_V1(pgpool_stat_routing);
PG_FUNCTION_INFO_V1(pgpool_last_commit);
PG_FUNCTION_INFO_V1(pgpool_reset_stats);
}

namespace pgpool::postgres
{

namespace
{

using region::NodeRole;
using region::NodeRow;
using region::NodeState;
using region::PoolGauges;
using region::PoolRow;
using region::PoolTotals;
using region::RoutingRow;
using region::SlotState;
using region::TenantRow;
using region::WorkerRow;

int64 monotonic_us()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000) + t.tv_nsec / 1000;
}

// What was counted since reset_stats().
#define PGPOOL_SINCE(kind, name, ...) row.name = total.name - baseline.name;

PoolRow pool_row(uint32 i)
{
	const region::PoolSlot &p = region_view.pool(i);
	region::PoolNames n;
	(void)region::read_names(p, n);
	const PoolGauges g = region_view.pool_gauges(i);
	const PoolTotals total = region_view.pool_totals(i), baseline = p.baseline;
	PoolRow row{};

	strlcpy(row.tenant, n.tenant, sizeof row.tenant);
	strlcpy(row.database, n.database, sizeof row.database);
	strlcpy(row.role, n.role, sizeof row.role);
	row.state = p.state;
	row.pool_mode = p.settings.pool_mode;
	row.cache_unnamed = p.settings.cache_unnamed;
	row.pool_size = p.settings.pool_size;
	row.max_pinned = p.settings.max_pinned;
	row.clients = g.clients;
	row.waiting = g.waiting;
	row.longest_wait_us = g.waiting_since_us > 0 ? Max(monotonic_us() - g.waiting_since_us, 0) : 0;
	row.open = g.open;
	row.active = g.active;
	row.idle = g.idle;
	row.pinned = g.pinned;
	PGPOOL_POOL_COUNTERS(PGPOOL_SINCE)
	double all = static_cast<double>(row.statement_hits + row.statement_parses);
	row.statement_hit_rate = all > 0 ? static_cast<double>(row.statement_hits) / all : -1;
	return row;
}

void add_pools(TenantRow &row, uint32 tenant)
{
	for (uint32 i = 0; i < region_view.header()->max_pools; i++) {
		const region::PoolSlot &p = region_view.pool(i);
		if (p.state.load() == SlotState::Free || p.tenant_slot != tenant)
			continue;
		const PoolGauges g = region_view.pool_gauges(i);
		const PoolTotals t = region_view.pool_totals(i);
		row.pools++;
		row.clients_waiting += g.waiting;
		row.servers += g.open;
		row.transactions += t.transactions - p.baseline.transactions;
		row.queries += t.queries - p.baseline.queries;
		row.errors += t.errors - p.baseline.errors;
		row.reads_on_replicas += t.reads_on_replicas - p.baseline.reads_on_replicas;
		row.reads_on_primary += t.reads_on_primary - p.baseline.reads_on_primary;
	}
}

TenantRow tenant_row(uint32 i)
{
	const region::TenantSlot &slot = region_view.tenant(i);
	const region::TenantTotals total = region_view.tenant_totals(i), baseline = slot.baseline;
	TenantRow row{};

	strlcpy(row.tenant, slot.name, sizeof row.tenant);
	row.state = slot.state;
	row.banned = slot.banned != 0;
	row.clients = region_view.tenant_clients(i);
	row.max_clients = slot.max_clients;
	add_pools(row, i);
	PGPOOL_TENANT_COUNTERS(PGPOOL_SINCE)
	return row;
}

region::WorkerTotals worker_totals(const region::WorkerSlot &w)
{
	region::WorkerTotals t{};

	add(t, w);
	return t;
}

WorkerRow worker_row(uint32 i)
{
	const region::WorkerSlot &w = region_view.worker(i);
	const region::WorkerTotals total = worker_totals(w), baseline = w.baseline;
	int32 listening = w.listening;
	WorkerRow row{};

	row.worker = static_cast<int32>(i);
	row.pid = w.pid;
	row.state = w.state;
	row.started_at = w.started_at;
	row.starts = w.starts;
	row.clients = w.clients;
	row.servers = w.servers;
	row.listens_tcp = (listening & region::kListenTcp) != 0;
	row.listens_session = (listening & region::kListenSession) != 0;
	row.listens_unix = (listening & region::kListenUnix) != 0;
	row.file_limit = w.file_limit;
	PGPOOL_WORKER_COUNTERS(PGPOOL_SINCE)
	strlcpy(row.problem, w.problem, sizeof row.problem);
	return row;
}

// Why it gets no reads, as far as the region says.
const char *why_unused(const region::NodeSlot &slot, const NodeRow &row)
{
	if (row.role == NodeRole::Self)
		return "it is this server";
	if (row.weight == 0)
		return "its weight is 0";
	if (slot.max_lag_bytes > 0 && row.lag_bytes > slot.max_lag_bytes)
		return "it lacks more than max_lag_bytes";
	if (slot.max_lag_ms > 0 && row.lag_ms > slot.max_lag_ms)
		return "it lacks what is older than max_lag";
	return nullptr;
}

RoutingRow routing_row(uint32 tenant, core::Reason reason)
{
	const region::TenantSlot &slot = region_view.tenant(tenant);
	const auto why = static_cast<uint32>(reason);
	RoutingRow row{};

	strlcpy(row.tenant, slot.name, sizeof row.tenant);
	strlcpy(row.reason, core::name_of(reason), sizeof row.reason);
	strlcpy(row.words, core::words_of(reason), sizeof row.words);
	row.is_read = core::is_of_read(reason);
	row.count = region_view.to_primary_total(tenant, why) - slot.to_primary_baseline[why];
	return row;
}

// One after the other by all workers that cannot use it, or not for some pool: mostly they say the same.
void append_problem(NodeRow &row, const region::NodeCounters &c)
{
	char problem[sizeof c.problem];

	strlcpy(problem, c.problem, sizeof problem);
	if (!strstr(row.reason, problem))
		strlcat(row.reason, psprintf("%s%s", row.reason[0] ? "; " : "", problem), sizeof row.reason);
}

NodeRow node_row(uint32 i)
{
	const region::NodeSlot &slot = region_view.node(i);
	const region::NodeTotals total = region_view.node_totals(i), baseline = slot.baseline;
	region::NodeNames n;
	(void)region::read_names(slot, n);
	const PoolGauges g = region_view.target_gauges(i + 1);
	NodeRow row{};
	bool bad = false;

	strlcpy(row.name, n.name, sizeof row.name);
	strlcpy(row.host, n.host, sizeof row.host);
	row.port = slot.port;
	row.role = slot.role;
	row.weight = slot.weight;
	row.replayed = slot.replayed;
	const int64 behind = static_cast<int64>(region_view.header()->flushed.load() - row.replayed);
	row.lag_bytes = row.replayed != 0 ? Max(behind, 0) : -1;
	row.lag_ms = row.replayed != 0 ? slot.lag_ms.load() : -1;
	for (uint32 w = 0; w < region_view.header()->workers; w++) {
		const region::NodeCounters &c = region_view.node_counters(i, w);
		row.proved = Max(row.proved, c.proved.load());
		bad |= c.bad_since.load() != 0;
		append_problem(row, c);
	}
	row.open = g.open;
	row.active = g.active;
	row.idle = g.idle;
	row.waiting = g.waiting;
	PGPOOL_NODE_COUNTERS(PGPOOL_SINCE)
	const char *why = why_unused(slot, row);
	row.state = why ? NodeState::Unused : bad ? NodeState::Failing : NodeState::Serving;
	if (why)
		strlcpy(row.reason, why, sizeof row.reason);
	return row;
}

void show(RowBuilder &to, const NodeRow &row)
{
	PGPOOL_NODE_COLUMNS(PGPOOL_PUT, )
	to.end();
}

void show(RowBuilder &to, const RoutingRow &row)
{
	PGPOOL_ROUTING_COLUMNS(PGPOOL_PUT, )
	to.end();
}

void show(RowBuilder &to, const WorkerRow &row)
{
	PGPOOL_WORKER_COLUMNS(PGPOOL_PUT, )
	to.end();
}

void show(RowBuilder &to, const TenantRow &row)
{
	PGPOOL_TENANT_COLUMNS(PGPOOL_PUT, )
	to.end();
}

void show(RowBuilder &to, const PoolRow &row)
{
	PGPOOL_POOL_COLUMNS(PGPOOL_PUT, )
	to.end();
}

} // namespace

} // namespace pgpool::postgres

using namespace pgpool;
using namespace pgpool::postgres;

Datum pgpool_stat_workers(PG_FUNCTION_ARGS)
{
	require_region();
	RowBuilder to(fcinfo);

	for (uint32 i = 0; i < region_view.header()->workers; i++)
		show(to, worker_row(i));
	return (Datum)0;
}

Datum pgpool_stat_tenants(PG_FUNCTION_ARGS)
{
	require_region();
	RowBuilder to(fcinfo);

	for (uint32 i = 0; i < region_view.header()->max_tenants; i++)
		if (region_view.tenant(i).state.load() != SlotState::Free)
			show(to, tenant_row(i));
	return (Datum)0;
}

Datum pgpool_stat_pools(PG_FUNCTION_ARGS)
{
	require_region();
	RowBuilder to(fcinfo);

	for (uint32 i = 0; i < region_view.header()->max_pools; i++)
		if (region_view.pool(i).state.load() != SlotState::Free)
			show(to, pool_row(i));
	return (Datum)0;
}

Datum pgpool_stat_replicas(PG_FUNCTION_ARGS)
{
	require_region();
	RowBuilder to(fcinfo);

	for (uint32 i = 0; i < region::kMaxNodes; i++)
		if (region_view.node(i).used.load() != 0)
			show(to, node_row(i));
	return (Datum)0;
}

Datum pgpool_stat_routing(PG_FUNCTION_ARGS)
{
	require_region();
	RowBuilder to(fcinfo);

	for (uint32 i = 0; i < region_view.header()->max_tenants; i++) {
		if (region_view.tenant(i).state.load() == SlotState::Free)
			continue;
		for (int reason = 0; reason < core::kReasons; reason++) {
			const RoutingRow row = routing_row(i, static_cast<core::Reason>(reason));
			if (row.count > 0)
				show(to, row);
		}
	}
	return (Datum)0;
}

Datum pgpool_last_commit(PG_FUNCTION_ARGS)
{
	require_region();
	uint64 lsn = region_view.header()->database_commit[MyDatabaseId % region::kCatalogCounters].load();

	if (lsn == 0 || region_view.header()->nodes_used.load() == 0)
		PG_RETURN_NULL();
	PG_RETURN_LSN(lsn);
}

Datum pgpool_reset_stats(FunctionCallInfo)
{
	require_region();
	region::Header &h = *region_view.header();

	for (uint32 i = 0; i < h.workers; i++)
		region_view.worker(i).baseline = worker_totals(region_view.worker(i));
	for (uint32 i = 0; i < h.max_tenants; i++) {
		region::TenantSlot &tenant = region_view.tenant(i);
		if (tenant.state.load() == SlotState::Free)
			continue;
		tenant.baseline = region_view.tenant_totals(i);
		for (uint32 reason = 0; reason < region::kRouteReasons; reason++)
			tenant.to_primary_baseline[reason] = region_view.to_primary_total(i, reason);
	}
	for (uint32 i = 0; i < h.max_pools; i++)
		if (region_view.pool(i).state.load() != SlotState::Free)
			region_view.pool(i).baseline = region_view.pool_totals(i);
	for (uint32 i = 0; i < region::kMaxNodes; i++)
		region_view.node(i).baseline = region_view.node_totals(i);
	h.stats_reset_at.store(GetCurrentTimestamp() + RowBuilder::kEpochShift);
	PG_RETURN_VOID();
}
