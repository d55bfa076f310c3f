// When a server did what, and how much: the limits of time that hold for it, and what the views say of it.
//
// Owns the times and counts; the pool's sums are the caller's. From sent() to answered() a query of the client's is on
// its way, and a transaction at least that long. All times are microseconds of the worker's clock. Must not know
// messages, nor what follows when something took too long.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "region/control.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class ServerTimes
{
public:
	// `wall`: the same moment, as the views show it.
	ServerTimes(int64_t now, int64_t wall) : wall_(wall), opened_(now), since_(now) {}

	int64_t age_ms(int64_t now) const { return (now - opened_) / 1000; }
	int64_t since() const { return since_; } // of the present state, or of the client's last answer
	void changed(int64_t now) { since_ = now; }

	// ---- what the client does
	void assigned() { transaction_began_ = query_began_ = 0; }
	bool in_query() const { return query_began_ > 0; }
	void sent(int64_t now); // not in_query(): what went last will be answered
	void heard() { heard_ = true; }
	// Since when nothing is heard of it nor told to it, in ms; heard() is taken as of the call that follows it, so
	// that it needs no clock.
	int64_t silent_ms(int64_t now);
	// ---- what the backend does: looked at now and then, so that it needs no clock
	void said() { said_ = true; }
	bool has_said()
	{
		if (said_)
			quiet_ = 0;
		return std::exchange(said_, false);
	}
	uint32_t count_quiet(bool owes) { return quiet_ = owes ? quiet_ + 1 : 0; }
	// ReadyForQuery, with this status. `more`: another query is on its way.
	void answered(int64_t now, char status, bool more, region::PoolCounters &sums);

	void fill(control::ServerRow &row, int64_t now, int64_t wall) const;

private:
	int64_t wall_;
	int64_t opened_;
	int64_t since_;
	int64_t transaction_began_ = 0; // 0 = none runs
	int64_t query_began_ = 0;       // 0 = none runs
	int64_t heard_at_ = 0;
	uint64_t transactions_ = 0, queries_ = 0;
	uint32_t quiet_ = 0; // looks since it said something
	bool heard_ = false; // since heard_at_
	bool said_ = false;  // since it was last looked at
};

} // namespace pgpool::core
