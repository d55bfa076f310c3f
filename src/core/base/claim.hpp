// Who gets the place of a server that is closed for him. Owns nothing.
#pragma once

#include <cstdint>

#include "core/base/target.hpp"

namespace pgpool::core
{

struct Claim {
	uint32_t worker, pool_slot, pool_generation;
	Target target;
};

} // namespace pgpool::core
