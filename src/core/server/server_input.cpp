// See server_input.hpp.
#include "core/server/server_input.hpp"

#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

ServerInput::Pass::Start ServerInput::Pass::start(const char *data, size_t size)
{
	std::string_view all(data, size);
	if (!input_.kept_.empty()) {
		if (!proto::try_append(input_.kept_, all))
			return Start::NoMemory;
		if (input_.kept_.size() < input_.needs_)
			return Start::Wait;
		joined_ = std::exchange(input_.kept_, {});
		input_.needs_ = 0;
		all = joined_;
	}
	run_ = at_ = all.data();
	end_ = at_ + all.size();
	return Start::Ready;
}

bool ServerInput::Pass::keep_rest(size_t needs)
{
	input_.unread_ = 0;
	input_.needs_ = needs;
	return !more() || proto::try_append(input_.kept_, {at_, have()});
}

} // namespace pgpool::core
