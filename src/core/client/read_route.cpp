// See read_route.hpp.
#include "core/client/read_route.hpp"

#include <algorithm>
#include <utility>

#include "proto/frontend.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kMostMessages = 64; // of a batch that is looked at

} // namespace

bool BatchReader::next(size_t n)
{
	if (n == kMostMessages)
		return false;
	short_ = left_.size() < proto::kHeaderSize;
	if (short_)
		return false;
	const uint32_t length = proto::load32(left_.data() + 1);
	if (!proto::is_frontend(left_[0], length))
		return false;
	short_ = left_.size() <= length;
	if (short_)
		return false;
	type_ = left_[0];
	body_ = left_.substr(proto::kHeaderSize, length - 4);
	left_.remove_prefix(size_t{length} + 1);
	return true;
}

bool BatchReader::take_string(std::string_view &s)
{
	const size_t end = body_.find('\0');
	if (end == std::string_view::npos)
		return false;
	s = body_.substr(0, end);
	body_.remove_prefix(end + 1);
	return true;
}

char BatchReader::take_byte()
{
	const char c = body_.empty() ? '\0' : body_[0];
	body_.remove_prefix(std::min<size_t>(1, body_.size()));
	return c;
}

// The order is that of Parse and Bind, which is that of Execute with all drivers; whatever is not as expected is Other.
bool BatchReader::note(Part part, std::string_view sql)
{
	const bool first = reads_ + others_ == 0;
	(part == Part::Read ? reads_ : others_)++;
	switch (part) {
	case Part::Read:
	case Part::Nothing:
		return !ended_ && sets_read_only_.empty();
	case Part::Begin:
		begin_ = sql;
		return first;
	case Part::ReadOnly:
		sets_read_only_ = sql;
		return first;
	case Part::End:
		return !std::exchange(ended_, true);
	default:
		return false;
	}
}

bool BatchReader::made(std::string_view name) const
{
	const auto end = made_.begin() + made_count_;
	return std::find(made_.begin(), end, name) != end;
}

} // namespace pgpool::core
