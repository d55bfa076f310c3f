// See server_times.hpp.
#include "core/server/server_times.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

void ServerTimes::sent(int64_t now)
{
	query_began_ = now;
	if (transaction_began_ == 0)
		transaction_began_ = now;
}

int64_t ServerTimes::silent_ms(int64_t now)
{
	if (std::exchange(heard_, false))
		heard_at_ = now;
	return (now - std::max(since_, heard_at_)) / 1000;
}

void ServerTimes::answered(int64_t now, char status, bool more, region::PoolCounters &sums)
{
	bump(sums.queries);
	queries_++;
	if (query_began_ > 0)
		bump(sums.query_us, static_cast<uint64_t>(std::max<int64_t>(0, now - query_began_)));
	query_began_ = more ? now : 0;
	since_ = now;
	if (status != 'I')
		return;
	bump(sums.transactions);
	bump(sums.transaction_us, static_cast<uint64_t>(std::max<int64_t>(0, now - transaction_began_)));
	transactions_++;
	transaction_began_ = query_began_; // of a pipeline, the next one runs now
}

void ServerTimes::fill(control::ServerRow &row, int64_t now, int64_t wall) const
{
	row.connected_at = wall_;
	row.state_since = wall - (now - since_);
	row.transactions = transactions_;
	row.queries = queries_;
}

} // namespace pgpool::core
