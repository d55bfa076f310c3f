// See server_pins.hpp.
#include "core/server/server_pins.hpp"

#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kParkAgain = 5000000; // after a parking that failed, microseconds

} // namespace

void ServerPins::tell(std::string_view reasons)
{
	reasons_ = reasons;
	of_agent_ = reasons.size();
}

void ServerPins::tell_settings(bool too_many)
{
	if (too_many == (reasons_.size() > of_agent_))
		return;
	reasons_.resize(of_agent_);
	if (too_many)
		reasons_.append(reasons_.empty() ? "" : ", ").append("settings");
}

void ServerPins::cannot_park(int64_t now)
{
	park_again_at_ = now + kParkAgain;
}

bool ServerPins::may_park_again(int64_t now)
{
	if (park_again_at_ == 0 || now < park_again_at_)
		return false;
	park_again_at_ = 0;
	return true;
}

// The sums are those of all servers of the pool in this worker, so each is in them as it was counted last.
void ServerPins::count(Counted as, region::TargetGauges &sums)
{
	const Counted was = std::exchange(counted_, as);
	if (was == as)
		return;
	sums.pinned.store(sums.pinned.load() + (as != Counted::Not) - (was != Counted::Not));
	sums.parkable.store(sums.parkable.load() + (as == Counted::Parkable) - (was == Counted::Parkable));
}

} // namespace pgpool::core
