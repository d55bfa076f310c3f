// Where servers may be: each target of a pool has servers, a queue and places of its own.
//
// Today there is one. The slots of the region are those of groups (tenant, database, role): names and limits are the
// same whatever the target is. Another target will need gauges and a limit of its own in PoolCounters and
// PoolSettings, and no slot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pgpool::core
{

enum class Target : uint8_t { Primary = 0 };

constexpr size_t kTargets = 1;

} // namespace pgpool::core
