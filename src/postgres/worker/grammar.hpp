// The port of routing to the grammar, as the network code is given it. See src/postgres/base/grammar.hpp.
#pragma once

#include <memory>

#include "core/routing/statement_kind.hpp"

namespace pgpool::postgres
{

std::unique_ptr<core::Grammar> server_grammar();

} // namespace pgpool::postgres
