// Numbers in memory that several processes share.
#pragma once

#include <atomic>
#include <cstdint>

namespace pgpool::region
{

template <class T> using Atomic = std::atomic<T>;
static_assert(Atomic<uint64_t>::is_always_lock_free && Atomic<int32_t>::is_always_lock_free,
              "memory shared by processes needs address-free atomics");

// For counters with one writer: no locked instruction is needed.
template <class T> inline void bump(Atomic<T> &counter, T n = 1)
{
	counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

} // namespace pgpool::region
