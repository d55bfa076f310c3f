// What is longer than an atomic, in memory that several processes share: names of pools and nodes, and the settings.
//
// Owns the two protocols, for the one writer (the manager) and all readers. Neither ever waits for another process: a
// manager that died while it wrote, in a region that outlives it, stops nobody. Must not know what the texts mean.
#pragma once

#include <cstring>

#include "region/layout.hpp"
#include "region/nodes.hpp"

namespace pgpool::region
{

struct PoolNames {
	char tenant[kNameLen], database[kNameLen], role[kNameLen];
};

constexpr int kReadTries = 1000; // a writer needs no time to speak of

// The sequence number is odd while names are written. One that is odd already is of a writer that died.
template <class Write> void write_under(Atomic<uint32_t> &number, Write write)
{
	const uint32_t sequence = number.load(std::memory_order_relaxed) | 1;
	number.store(sequence, std::memory_order_relaxed);
	std::atomic_thread_fence(std::memory_order_release);
	write();
	number.store(sequence + 1, std::memory_order_release);
}

// Gives the number that they were read under: as long as it is the present one, they are the present ones. An odd one
// says that they may be mixed of old and new.
template <class Read> uint32_t read_under(const Atomic<uint32_t> &number, Read read)
{
	uint32_t before = 0;
	for (int tries = 0; tries < kReadTries; tries++) {
		before = number.load(std::memory_order_acquire);
		read();
		std::atomic_thread_fence(std::memory_order_acquire);
		if ((before & 1) == 0 && number.load(std::memory_order_relaxed) == before)
			break;
		before |= 1; // whatever the writer makes of it, it is to be read again
	}
	return before;
}

inline void write_names(PoolSlot &slot, const PoolNames &names)
{
	write_under(slot.name_sequence, [&] {
		memcpy(slot.tenant, names.tenant, sizeof(slot.tenant));
		memcpy(slot.database, names.database, sizeof(slot.database));
		memcpy(slot.role, names.role, sizeof(slot.role));
	});
}

inline uint32_t read_names(const PoolSlot &slot, PoolNames &names)
{
	const uint32_t sequence = read_under(slot.name_sequence, [&] {
		memcpy(names.tenant, slot.tenant, sizeof(names.tenant));
		memcpy(names.database, slot.database, sizeof(names.database));
		memcpy(names.role, slot.role, sizeof(names.role));
	});
	names.tenant[kNameLen - 1] = names.database[kNameLen - 1] = names.role[kNameLen - 1] = '\0';
	return sequence;
}

inline void write_names(NodeSlot &slot, const NodeNames &names)
{
	write_under(slot.name_sequence, [&] { slot.names = names; });
}

inline uint32_t read_names(const NodeSlot &slot, NodeNames &names)
{
	const uint32_t sequence = read_under(slot.name_sequence, [&] { names = slot.names; });
	names.name[sizeof(names.name) - 1] = names.host[sizeof(names.host) - 1] = '\0';
	names.sslrootcert[sizeof(names.sslrootcert) - 1] = '\0';
	return sequence;
}

// A manager that starts: its forerunner died while it wrote.
template <class Slot> bool names_torn(const Slot &slot)
{
	return (slot.name_sequence.load(std::memory_order_relaxed) & 1) != 0;
}

// The writer fills the copy that is not the present one and then says so; what it leaves when it dies in between was
// nobody's yet.
inline void write_settings(Header &header, const Settings &settings)
{
	const uint32_t n = header.renewals.load(std::memory_order_relaxed) + 1;
	std::atomic_thread_fence(std::memory_order_release);
	header.renewed[n % 2] = settings;
	header.renewals.store(n, std::memory_order_release);
}

inline Settings present_settings(const Header &header)
{
	for (int tries = 0;; tries++) {
		const uint32_t n = header.renewals.load(std::memory_order_acquire);
		const Settings copy = n == 0 ? header.settings : header.renewed[n % 2];
		std::atomic_thread_fence(std::memory_order_acquire);
		if (tries == kReadTries || header.renewals.load(std::memory_order_relaxed) == n)
			return copy;
	}
}

} // namespace pgpool::region
