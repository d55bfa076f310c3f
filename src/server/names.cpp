// Names of a pool's tenant, database and role in the region.
//
// Owns the sequence protocol of PoolSlot.name_sequence: odd while the manager writes, readers try again.
// Must not know where the names come from.
#include <cstring>

#include "server/shared.hpp"

namespace pgpool::server
{

void write_pool_names(region::PoolSlot &slot, const PoolNames &names)
{
	uint32_t sequence = slot.name_sequence.load(std::memory_order_relaxed) | 1;

	slot.name_sequence.store(sequence, std::memory_order_relaxed);
	std::atomic_thread_fence(std::memory_order_release);
	memcpy(slot.tenant, names.tenant, sizeof slot.tenant);
	memcpy(slot.database, names.database, sizeof slot.database);
	memcpy(slot.role, names.role, sizeof slot.role);
	slot.name_sequence.store(sequence + 1, std::memory_order_release);
}

PoolNames read_pool_names(const region::PoolSlot &slot)
{
	PoolNames names;

	// bounded: a manager that died while it wrote leaves the sequence odd
	for (int tries = 0; tries < 1000; tries++) {
		uint32_t before = slot.name_sequence.load(std::memory_order_acquire);

		memcpy(names.tenant, slot.tenant, sizeof names.tenant);
		memcpy(names.database, slot.database, sizeof names.database);
		memcpy(names.role, slot.role, sizeof names.role);
		std::atomic_thread_fence(std::memory_order_acquire);
		if ((before & 1) == 0 && slot.name_sequence.load(std::memory_order_relaxed) == before)
			break;
	}
	names.tenant[sizeof names.tenant - 1] = '\0';
	names.database[sizeof names.database - 1] = '\0';
	names.role[sizeof names.role - 1] = '\0';
	return names;
}

} // namespace pgpool::server
