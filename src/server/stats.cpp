// Statistics of the region as rows: workers, tenants, pools; and their reset.
//
// Owns the sums over workers, less the baseline of the last reset. Reads without locks: a row is a set of
// numbers that were each right at some moment. Must not know sockets or the catalog.
#include <cstring>
#include <ctime>

#include "server/settings.hpp"
#include "server/shared.hpp"

extern "C" {
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(pgpool_stat_workers);
PG_FUNCTION_INFO_V1(pgpool_stat_tenants);
PG_FUNCTION_INFO_V1(pgpool_stat_pools);
PG_FUNCTION_INFO_V1(pgpool_reset_stats);
}

namespace pgpool::server
{

namespace
{

using region::PoolCounters;
using region::PoolTotals;
using region::SlotState;

// Values of one row, put one after the other; too few or too many are a bug that the row's end shows.
struct Row {
	ReturnSetInfo *to;
	int count;
	Datum values[40];
	bool nulls[40];

	void put(Datum value, bool null = false)
	{
		nulls[count] = null;
		values[count++] = value;
	}
	void text(const char *s) { put(CStringGetTextDatum(s)); }
	void number(int64 n) { put(Int64GetDatum(n)); }
	void integer(int32 n) { put(Int32GetDatum(n)); }
	void milliseconds(uint64 us) { put(Float8GetDatum(static_cast<double>(us) / 1000.0)); }
	void flag(bool b) { put(BoolGetDatum(b)); }
	void end()
	{
		if (count != to->setDesc->natts)
			elog(ERROR, "function returns %d columns, but its declaration has %d", count, to->setDesc->natts);
		tuplestore_putvalues(to->setResult, to->setDesc, values, nulls);
		count = 0;
	}
};

constexpr int64 kEpochShift = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

const char *state_name(region::WorkerState s)
{
	switch (s) {
	case region::WorkerState::Running:
		return "running";
	case region::WorkerState::Draining:
		return "draining";
	default:
		return "down";
	}
}

int64 monotonic_us()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000) + t.tv_nsec / 1000;
}

struct PoolGauges {
	int64 clients, open, active, idle, pinned, waiting;
	int64 oldest_us; // 0 = nobody waits
};

PoolTotals pool_sums(uint32 pool, PoolGauges *g)
{
	PoolTotals t{};

	memset(g, 0, sizeof *g);
	for (uint32 w = 0; w < region_view.header()->workers; w++) {
		const PoolCounters &c = region_view.pool_counters(pool, w);
		int64 since = c.waiting_since_us;

		g->clients += c.clients;
		g->open += c.open;
		g->active += c.active;
		g->idle += c.idle;
		g->pinned += c.pinned;
		g->waiting += c.waiting;
		if (since > 0 && (g->oldest_us == 0 || since < g->oldest_us))
			g->oldest_us = since;
		add(t, c);
	}
	return t;
}

void statement_columns(Row &r, const PoolTotals &t, const PoolTotals &b)
{
	uint64 hits = t.statement_hits - b.statement_hits, parses = t.statement_parses - b.statement_parses;
	double all = static_cast<double>(hits + parses);

	r.number(t.statement_uses - b.statement_uses);
	r.number(hits);
	r.number(parses);
	r.number(t.statement_evictions - b.statement_evictions);
	r.put(Float8GetDatum(all > 0 ? static_cast<double>(hits) / all : 0), all == 0);
}

void pool_row(Row &r, uint32 i)
{
	const region::PoolSlot &p = region_view.pool(i);
	region::PoolNames n;
	(void)region::read_names(p, n);
	PoolGauges g;
	PoolTotals t = pool_sums(i, &g), b = p.baseline;

	r.text(n.tenant);
	r.text(n.database);
	r.text(n.role);
	r.text(p.state.load() == SlotState::Dead ? "dead" : "used");
	r.text(name_of(region::kPoolModes, p.settings.pool_mode.load()));
	r.text(name_of(region::kCacheUnnamed, p.settings.cache_unnamed.load()));
	r.integer(p.settings.pool_size);
	r.integer(p.settings.max_pinned);
	r.number(g.clients);
	r.number(g.waiting);
	r.milliseconds(g.oldest_us > 0 ? Max(monotonic_us() - g.oldest_us, 0) : 0);
	r.number(g.open);
	r.number(g.active);
	r.number(g.idle);
	r.number(g.pinned);
	r.number(t.transactions - b.transactions);
	r.number(t.queries - b.queries);
	r.number(t.bytes_received - b.bytes_received);
	r.number(t.bytes_sent - b.bytes_sent);
	r.number(t.waits - b.waits);
	r.milliseconds(t.wait_us - b.wait_us);
	r.milliseconds(t.query_us - b.query_us);
	r.milliseconds(t.transaction_us - b.transaction_us);
	r.number(t.errors - b.errors);
	r.number(t.wait_timeouts - b.wait_timeouts);
	r.number(t.server_logins - b.server_logins);
	r.number(t.server_login_failures - b.server_login_failures);
	statement_columns(r, t, b);
	r.end();
}

region::TenantTotals tenant_sums(uint32 tenant, int64 *clients)
{
	region::TenantTotals t{};

	*clients = 0;
	for (uint32 w = 0; w < region_view.header()->workers; w++) {
		const region::TenantCounters &c = region_view.tenant_counters(tenant, w);
		*clients += c.clients;
		add(t, c);
	}
	return t;
}

void pools_of_tenant(Row &r, uint32 tenant)
{
	int64 pools = 0;
	PoolGauges all{}, g;
	PoolTotals sum{};

	for (uint32 i = 0; i < region_view.header()->max_pools; i++) {
		const region::PoolSlot &p = region_view.pool(i);
		if (p.state.load() == SlotState::Free || p.tenant_slot != tenant)
			continue;
		PoolTotals t = pool_sums(i, &g);
		pools++;
		all.open += g.open;
		all.waiting += g.waiting;
		sum.transactions += t.transactions - p.baseline.transactions;
		sum.queries += t.queries - p.baseline.queries;
		sum.errors += t.errors - p.baseline.errors;
	}
	r.number(pools);
	r.number(all.waiting);
	r.number(all.open);
	r.number(sum.transactions);
	r.number(sum.queries);
	r.number(sum.errors);
}

region::WorkerTotals worker_totals(const region::WorkerSlot &w)
{
	region::WorkerTotals t{};

	add(t, w);
	return t;
}

} // namespace

} // namespace pgpool::server

using namespace pgpool;
using namespace pgpool::server;

Datum pgpool_stat_workers(PG_FUNCTION_ARGS)
{
	require_region();
	Row r{pgpool_begin_rows(fcinfo), 0, {}, {}};

	for (uint32 i = 0; i < region_view.header()->workers; i++) {
		const region::WorkerSlot &w = region_view.worker(i);
		region::WorkerTotals t = worker_totals(w), b = w.baseline;
		int32 bits = w.listening;
		int64 started = w.started_at;
		char problem[region::kTextLen];

		strlcpy(problem, w.problem, sizeof problem);
		r.integer(i);
		r.put(Int32GetDatum(w.pid), w.pid == 0);
		r.text(state_name(w.state));
		r.put(TimestampTzGetDatum(started - kEpochShift), started == 0);
		r.number(w.starts);
		r.integer(w.clients);
		r.integer(w.servers);
		r.flag(bits & region::kListenTcp);
		r.flag(bits & region::kListenSession);
		r.flag(bits & region::kListenUnix);
		r.integer(w.file_limit);
		r.number(t.accepted - b.accepted);
		r.number(t.logins - b.logins);
		r.number(t.login_failures - b.login_failures);
		r.number(t.refused - b.refused);
		r.number(t.cancels - b.cancels);
		r.number(t.cancels_delivered - b.cancels_delivered);
		r.put(CStringGetTextDatum(problem), problem[0] == '\0');
		r.end();
	}
	return (Datum)0;
}

Datum pgpool_stat_tenants(PG_FUNCTION_ARGS)
{
	require_region();
	Row r{pgpool_begin_rows(fcinfo), 0, {}, {}};

	for (uint32 i = 0; i < region_view.header()->max_tenants; i++) {
		const region::TenantSlot &slot = region_view.tenant(i);
		int64 clients;

		if (slot.state.load() == SlotState::Free)
			continue;
		region::TenantTotals t = tenant_sums(i, &clients), b = slot.baseline;
		char name[region::kNameLen];
		strlcpy(name, slot.name, sizeof name);
		r.text(name);
		r.text(slot.state.load() == SlotState::Dead ? "dead" : "used");
		r.flag(slot.banned);
		r.number(clients);
		r.put(Int32GetDatum(slot.max_clients), slot.max_clients == 0);
		pools_of_tenant(r, i);
		r.number(t.logins - b.logins);
		r.number(t.login_failures - b.login_failures);
		r.number(t.refused - b.refused);
		r.end();
	}
	return (Datum)0;
}

Datum pgpool_stat_pools(PG_FUNCTION_ARGS)
{
	require_region();
	Row r{pgpool_begin_rows(fcinfo), 0, {}, {}};

	for (uint32 i = 0; i < region_view.header()->max_pools; i++)
		if (region_view.pool(i).state.load() != SlotState::Free)
			pool_row(r, i);
	return (Datum)0;
}

Datum pgpool_reset_stats(FunctionCallInfo)
{
	require_region();
	region::Header &h = *region_view.header();
	PoolGauges g;
	int64 clients;

	for (uint32 i = 0; i < h.workers; i++)
		region_view.worker(i).baseline = worker_totals(region_view.worker(i));
	for (uint32 i = 0; i < h.max_tenants; i++)
		if (region_view.tenant(i).state.load() != SlotState::Free)
			region_view.tenant(i).baseline = tenant_sums(i, &clients);
	for (uint32 i = 0; i < h.max_pools; i++)
		if (region_view.pool(i).state.load() != SlotState::Free)
			region_view.pool(i).baseline = pool_sums(i, &g);
	h.stats_reset_at.store(GetCurrentTimestamp() + kEpochShift);
	PG_RETURN_VOID();
}
