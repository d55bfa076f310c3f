// A client as a row of a view. Owns nothing; must not know who asks, nor how many rows go out at once (rows.hpp).
#pragma once

#include "region/control.hpp"

namespace pgpool::core
{

class Session;

void fill(control::ClientRow &row, Session &session);

} // namespace pgpool::core
