// Slots of tenants and pools in the region: given out, kept current, taken back.
//
// Owns what the manager writes to TenantSlot and PoolSlot. A slot is given to another pool only when no worker
// has had a client or server in it for a minute, and never without raising its generation: a worker that
// comes late with an old answer sees that it is stale. Must not know pg_hba.conf or the links to workers.
#include <cstring>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

using region::PoolSlot;
using region::SlotState;
using region::TenantSlot;

struct PoolKey {
	int64 tenant;
	Oid database, role;
};
struct PoolEntry {
	PoolKey key;
	uint32 slot;
};
struct TenantEntry {
	int64 id;
	uint32 slot;
};

HTAB *pool_index, *tenant_index;
TimestampTz *pool_used, *tenant_used; // when the slot was last seen in use

region::Header &header()
{
	return *region_view.header();
}

// A login that got its answer may need the rest of login_timeout before it shows up in the counters.
int rest_ms()
{
	return Max(60000, Min(gucs.login_timeout, 3600000) + 5000);
}

PoolKey key_of(const PoolSlot &p)
{
	PoolKey k;

	memset(&k, 0, sizeof k);
	k.tenant = region_view.tenant(p.tenant_slot).id;
	k.database = p.database_oid;
	k.role = p.role_oid;
	return k;
}

// Whether any worker has something of it.
bool pool_busy(uint32 i)
{
	const region::PoolGauges g = region_view.pool_gauges(i);

	return g.clients != 0 || g.open != 0 || g.waiting != 0 || g.listeners != 0;
}

bool tenant_busy(uint32 i)
{
	if (region_view.tenant_clients(i) != 0)
		return true;
	for (uint32 p = 0; p < header().max_pools; p++)
		if (region_view.pool(p).state.load() != SlotState::Free && region_view.pool(p).tenant_slot == i)
			return true;
	return false;
}

// What holds where tenant and role name nothing.
int64 preset(const region::Limit &limit, int64 setting)
{
	int64 value = *limit.setting ? setting : limit.range.preset;

	return limit.range.kind == region::Kind::Seconds ? value * 1000 : value;
}

Limits server_limits()
{
	Limits l;

#define PGPOOL_PRESET(type, name, ...) l.name = preset(region::limit_named(#name), gucs.preset.name);
	PGPOOL_LIMITS(PGPOOL_PRESET)
#undef PGPOOL_PRESET
	return l;
}

template <class T> bool put(region::Atomic<T> &to, T value)
{
	return to.load(std::memory_order_relaxed) != value && (to.store(value), true);
}

// The role's value counts before the tenant's, that before the server's.
Limits resolve(const Limits &tenant, const TenantUser *user)
{
	Limits l = server_limits();

#define PGPOOL_RESOLVE(type, name, ...)                                                                                \
	if (user && user->limits.name >= 0)                                                                                \
		l.name = user->limits.name;                                                                                    \
	else if (tenant.name >= 0)                                                                                         \
		l.name = tenant.name;
	PGPOOL_LIMITS(PGPOOL_RESOLVE)
#undef PGPOOL_RESOLVE
	return l;
}

// What holds may be less than what was set.
Limits limits_that_hold(const Limits &tenant, const TenantUser *user, const Role &role, const Database &database)
{
	Limits l = resolve(tenant, user);

	// a superuser is exempt from connection limits, as in PostgreSQL
	if (role.connection_limit > 0 && !role.superuser)
		l.pool_size = Min(l.pool_size, role.connection_limit);
	if (database.connection_limit > 0 && !role.superuser)
		l.pool_size = Min(l.pool_size, database.connection_limit);
	l.pool_size = Max(1, Min(l.pool_size, resolved_max_server_connections()));
	l.max_pinned = l.max_pinned > 0 ? Min(l.max_pinned, l.pool_size) : Max(1, l.pool_size - 1);
	// the tenant's limit holds over all its roles and lives in its own slot
	l.max_clients = user ? Max(user->limits.max_clients, 0) : 0;
	return l;
}

bool apply_limits(region::PoolSettings &to, const Limits &tenant, const TenantUser *user, const Role &role,
                  const Database &database)
{
	Limits l = limits_that_hold(tenant, user, role, database);
	bool changed = false;

#define PGPOOL_APPLY(type, name, ...)                                                                                  \
	changed |= put(to.name, static_cast<decltype(to.name.load())>(Min(l.name, static_cast<int64>(INT_MAX))));
	PGPOOL_LIMITS(PGPOOL_APPLY)
#undef PGPOOL_APPLY
	return changed;
}

// The role's list counts before the tenant's; without any it is all nodes.
bool apply_nodes(PoolSlot &to, const Tenant &tenant, const TenantUser *user)
{
	int64 nodes = user && user->nodes >= 0 ? user->nodes : tenant.nodes;

	return put(to.node_mask, nodes >= 0 ? static_cast<uint32_t>(nodes) : UINT32_MAX);
}

bool apply_tenant(TenantSlot &slot, const Tenant &t)
{
	bool changed = put(slot.max_clients, static_cast<int32_t>(t.limits.max_clients > 0 ? t.limits.max_clients : 0));

	changed |= put(slot.banned, static_cast<int32_t>(t.banned));
	if (strcmp(slot.name, t.name) != 0) {
		strlcpy(slot.name, t.name, sizeof slot.name);
		changed = true;
	}
	return changed;
}

void free_pool(uint32 i)
{
	PoolSlot &p = region_view.pool(i);
	PoolKey key = key_of(p);
	auto *e = static_cast<PoolEntry *>(hash_search(pool_index, &key, HASH_FIND, nullptr));

	if (e && e->slot == i)
		hash_search(pool_index, &key, HASH_REMOVE, nullptr);
	p.generation.fetch_add(1);
	p.state.store(SlotState::Free);
}

void free_tenant(uint32 i)
{
	TenantSlot &t = region_view.tenant(i);
	auto *e = static_cast<TenantEntry *>(hash_search(tenant_index, &t.id, HASH_FIND, nullptr));

	if (e && e->slot == i)
		hash_search(tenant_index, &t.id, HASH_REMOVE, nullptr);
	t.generation.fetch_add(1);
	t.state.store(SlotState::Free);
}

void bury(region::Atomic<SlotState> &state, bool &changed)
{
	state.store(SlotState::Dead);
	changed = true;
}

// Dead slots at any time, used ones only when the place is needed.
void retire_pools(bool used_too)
{
	TimestampTz now = GetCurrentTimestamp();

	for (uint32 i = 0; i < header().max_pools; i++) {
		SlotState state = region_view.pool(i).state.load();

		if (state == SlotState::Free)
			continue;
		if (pool_busy(i))
			pool_used[i] = now;
		else if ((used_too || state == SlotState::Dead) && TimestampDifferenceExceeds(pool_used[i], now, rest_ms()))
			free_pool(i);
	}
}

void retire_tenants(bool used_too)
{
	TimestampTz now = GetCurrentTimestamp();

	for (uint32 i = 0; i < header().max_tenants; i++) {
		SlotState state = region_view.tenant(i).state.load();

		if (state == SlotState::Free || (!used_too && state != SlotState::Dead))
			continue;
		if (tenant_busy(i))
			tenant_used[i] = now;
		else if (TimestampDifferenceExceeds(tenant_used[i], now, rest_ms()))
			free_tenant(i);
	}
}

template <class At> uint32 find_free(uint32 count, At at)
{
	for (uint32 i = 0; i < count; i++)
		if (at(i).state.load() == SlotState::Free)
			return i;
	return UINT32_MAX;
}

uint32 tenant_slot_for(const Tenant &t)
{
	auto *e = static_cast<TenantEntry *>(hash_search(tenant_index, &t.id, HASH_FIND, nullptr));

	if (e == nullptr) {
		auto at = [](uint32 i) -> TenantSlot & { return region_view.tenant(i); };
		uint32 i = find_free(header().max_tenants, at);
		if (i == UINT32_MAX) {
			retire_pools(true);
			retire_tenants(true);
			if ((i = find_free(header().max_tenants, at)) == UINT32_MAX)
				return UINT32_MAX;
		}
		TenantSlot &slot = region_view.tenant(i);
		slot.generation.fetch_add(1);
		slot.id = t.id;
		slot.baseline = region_view.tenant_totals(i);
		for (uint32 reason = 0; reason < region::kRouteReasons; reason++)
			slot.to_primary_baseline[reason] = region_view.to_primary_total(i, reason);
		(void)apply_tenant(slot, t);
		slot.state.store(SlotState::Used);
		e = static_cast<TenantEntry *>(hash_search(tenant_index, &t.id, HASH_ENTER, nullptr));
		e->slot = i;
	}
	tenant_used[e->slot] = GetCurrentTimestamp();
	(void)apply_tenant(region_view.tenant(e->slot), t);
	return e->slot;
}

uint32 new_pool(const PoolKey &key, uint32 tenant_slot)
{
	auto at = [](uint32 i) -> PoolSlot & { return region_view.pool(i); };
	uint32 i = find_free(header().max_pools, at);

	if (i == UINT32_MAX) {
		retire_pools(true);
		if ((i = find_free(header().max_pools, at)) == UINT32_MAX)
			return UINT32_MAX;
	}
	PoolSlot &p = region_view.pool(i);
	p.generation.fetch_add(1);
	p.epoch.fetch_add(1);
	p.tenant_slot = tenant_slot;
	p.database_oid = key.database;
	p.role_oid = key.role;
	p.baseline = region_view.pool_totals(i);
	auto *e = static_cast<PoolEntry *>(hash_search(pool_index, &key, HASH_ENTER, nullptr));
	e->slot = i;
	return i;
}

// In the region, so that a manager that starts anew sees what was changed meanwhile.
bool renew_if_changed(PoolSlot &p, const Role &role, const Database &database)
{
	uint64 digest = login_digest(role.oid, database);

	if (p.login_digest == digest)
		return false;
	p.login_digest = digest;
	p.epoch.fetch_add(1);
	return true;
}

bool refresh_tenant(uint32 i, Tenant *&row)
{
	TenantSlot &slot = region_view.tenant(i);
	Tenant t;
	bool changed = false;

	if (!extension_present() || !tenant_by_id(slot.id, t)) {
		bury(slot.state, changed);
		hash_search(tenant_index, &slot.id, HASH_REMOVE, nullptr);
		return changed;
	}
	row = static_cast<Tenant *>(palloc(sizeof(Tenant)));
	*row = t;
	return apply_tenant(slot, t);
}

bool refresh_pool(uint32 i, const Tenant *tenant)
{
	PoolSlot &p = region_view.pool(i);
	region::PoolNames names{}, before;
	Role role = role_by_oid(p.role_oid, names.role);
	Database database = database_by_oid(p.database_oid, names.database);
	bool changed = false;

	(void)region::read_names(p, before);
	if (tenant == nullptr || !OidIsValid(role.oid) || !OidIsValid(database.oid)) {
		PoolKey key = key_of(p);
		p.missing.store(tenant == nullptr       ? region::Missing::Tenant
		                : !OidIsValid(role.oid) ? region::Missing::Role
		                                        : region::Missing::Database);
		bury(p.state, changed);
		hash_search(pool_index, &key, HASH_REMOVE, nullptr);
		return changed;
	}
	strlcpy(names.tenant, tenant->name, sizeof names.tenant);
	// Torn: a manager died while it wrote them, and nobody reads them until they are whole.
	if (region::names_torn(p) || strcmp(names.tenant, before.tenant) != 0 || strcmp(names.role, before.role) != 0 ||
	    strcmp(names.database, before.database) != 0) {
		region::write_names(p, names);
		changed = true;
	}
	TenantUser user;
	bool listed = tenant_user(tenant->id, names.role, user);
	changed |= renew_if_changed(p, role, database);
	explicit_bzero(user.server_password, sizeof user.server_password);
	changed |= apply_nodes(p, *tenant, listed ? &user : nullptr);
	return apply_limits(p.settings, tenant->limits, listed ? &user : nullptr, role, database) || changed;
}

} // namespace

void slots_start()
{
	HASHCTL info;
	TimestampTz now = GetCurrentTimestamp();

	memset(&info, 0, sizeof info);
	info.keysize = sizeof(PoolKey);
	info.entrysize = sizeof(PoolEntry);
	pool_index = hash_create("pgpool pools", 256, &info, HASH_ELEM | HASH_BLOBS);
	info.keysize = sizeof(int64);
	info.entrysize = sizeof(TenantEntry);
	tenant_index = hash_create("pgpool tenants", 64, &info, HASH_ELEM | HASH_BLOBS);
	pool_used =
	    static_cast<TimestampTz *>(MemoryContextAllocHuge(TopMemoryContext, sizeof(TimestampTz) * header().max_pools));
	tenant_used = static_cast<TimestampTz *>(
	    MemoryContextAllocHuge(TopMemoryContext, sizeof(TimestampTz) * header().max_tenants));

	// a manager that was restarted finds the slots of its forerunner
	for (uint32 i = 0; i < header().max_tenants; i++) {
		TenantSlot &t = region_view.tenant(i);
		tenant_used[i] = now;
		if (t.state.load() == SlotState::Used)
			static_cast<TenantEntry *>(hash_search(tenant_index, &t.id, HASH_ENTER, nullptr))->slot = i;
	}
	for (uint32 i = 0; i < header().max_pools; i++) {
		PoolSlot &p = region_view.pool(i);
		pool_used[i] = now;
		if (p.state.load() != SlotState::Used)
			continue;
		PoolKey key = key_of(p);
		static_cast<PoolEntry *>(hash_search(pool_index, &key, HASH_ENTER, nullptr))->slot = i;
	}
}

bool assign_slots(const Tenant &t, const TenantUser *u, const Role &role, const Database &database, bool may_take,
                  control::AuthAnswer &a)
{
	PoolKey key;

	memset(&key, 0, sizeof key);
	key.tenant = t.id;
	key.database = database.oid;
	key.role = role.oid;
	if (!may_take && (hash_search(pool_index, &key, HASH_FIND, nullptr) == nullptr ||
	                  hash_search(tenant_index, &t.id, HASH_FIND, nullptr) == nullptr))
		return true;
	uint32 tenant_slot = tenant_slot_for(t);
	if (tenant_slot == UINT32_MAX)
		return false;
	auto *e = static_cast<PoolEntry *>(hash_search(pool_index, &key, HASH_FIND, nullptr));
	uint32 i = e ? e->slot : new_pool(key, tenant_slot);
	if (i == UINT32_MAX)
		return false;

	PoolSlot &p = region_view.pool(i);
	if (e == nullptr) {
		region::PoolNames names{};
		strlcpy(names.tenant, t.name, sizeof names.tenant);
		strlcpy(names.database, a.database, sizeof names.database);
		strlcpy(names.role, a.role, sizeof names.role);
		region::write_names(p, names);
	}
	(void)apply_limits(p.settings, t.limits, u, role, database);
	(void)apply_nodes(p, t, u);
	(void)renew_if_changed(p, role, database); // before the answer: who logs in now is served as of now
	p.state.store(SlotState::Used);
	pool_used[i] = GetCurrentTimestamp();
	a.tenant_slot = tenant_slot;
	a.tenant_generation = region_view.tenant(tenant_slot).generation.load();
	a.pool_slot = i;
	a.pool_generation = p.generation.load();
	return true;
}

bool refresh_slots()
{
	auto **rows = static_cast<Tenant **>(palloc0(sizeof(Tenant *) * header().max_tenants));
	bool changed = false;

	for (uint32 i = 0; i < header().max_tenants; i++)
		if (region_view.tenant(i).state.load() == SlotState::Used)
			changed |= refresh_tenant(i, rows[i]);
	for (uint32 i = 0; i < header().max_pools; i++)
		if (region_view.pool(i).state.load() == SlotState::Used)
			changed |= refresh_pool(i, rows[region_view.pool(i).tenant_slot]);
	return changed;
}

void renew_slots()
{
	for (uint32 i = 0; i < header().max_pools; i++)
		region_view.pool(i).epoch.fetch_add(1);
}

void retire_slots()
{
	retire_pools(false);
	retire_tenants(false);
}

} // namespace pgpool::postgres
