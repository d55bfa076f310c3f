// See group.hpp.
#include "core/group/group.hpp"

#include "core/context/context.hpp"
#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

Group::Group(Context &context, uint32_t slot, uint32_t generation)
    : context_(context), slot_(slot), generation_(generation), shared_(context.region().pool(slot)),
      mine_(context.region().pool_counters(slot, context.worker())),
      statements_(context.statements(), context.catalog(), context.settings(), shared_, mine_,
                  uint64_t{slot} << 32 | generation),
      tenant_(shared_.tenant)
{
	read_names();
}

bool Group::has_other_names() const
{
	return shared_.name_sequence.load(std::memory_order_relaxed) != names_sequence_;
}

void Group::read_names()
{
	region::PoolNames names;
	names_sequence_ = region::read_names(shared_, names);
	database_ = names.database;
	role_ = names.role;
}

proto::Error Group::death() const
{
	const std::string rest = "The connection cannot be used any more.";
	switch (shared_.missing.load(std::memory_order_relaxed)) {
	case region::Missing::Database:
		return {proto::sqlstate::kUnknownDatabase, "database \"" + database_ + "\" does not exist",
		        "It was dropped. " + rest, ""};
	case region::Missing::Role:
		return {proto::sqlstate::kInvalidAuthorization, "role \"" + role_ + "\" does not exist",
		        "It was dropped. " + rest, ""};
	case region::Missing::Tenant:
	case region::Missing::Nothing:
		break;
	}
	return {proto::sqlstate::kAdminShutdown, "tenant \"" + tenant_ + "\" was dropped", rest, ""};
}

std::string Group::described() const
{
	return "pool of role \"" + role_ + "\" in database \"" + database_ + "\" of tenant \"" + tenant_ + "\"";
}

} // namespace pgpool::core
