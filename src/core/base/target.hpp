// Where servers may be: on the primary, or on a node that reads are sent to. Each target of a pool has servers, a queue
// and places of its own.
//
// The slots of the region are those of groups (tenant, database, role): names and limits are the same whatever the
// target is; its gauges are its own (region::TargetGauges).
#pragma once

#include <cstddef>
#include <cstdint>

#include "region/layout.hpp"

namespace pgpool::core
{

enum class Target : uint8_t { Primary = 0 }; // the others: the slot of a node plus 1

constexpr size_t kTargets = region::kTargets;

constexpr Target on_node(uint32_t slot)
{
	return static_cast<Target>(slot + 1);
}
constexpr bool is_node(Target target)
{
	return target != Target::Primary;
}
constexpr uint32_t node_of(Target target) // that is one
{
	return static_cast<uint32_t>(target) - 1;
}
constexpr uint32_t index_of(Target target)
{
	return static_cast<uint32_t>(target);
}

} // namespace pgpool::core
