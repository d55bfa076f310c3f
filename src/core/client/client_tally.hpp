// What a client has had done since it came, for the views.
//
// Owns what counts as a query and as a transaction. Must not know messages but by their type.
#pragma once

#include <cstdint>

#include "region/control.hpp"

namespace pgpool::core
{

class ClientTally
{
public:
	explicit ClientTally(int64_t connected_at) : connected_at_(connected_at) {}

	int64_t connected_at() const { return connected_at_; } // wall clock
	void on_sent(char type) { queries_ += type == 'Q' || type == 'E' || type == 'F'; }
	// 0 = it wrote nothing.
	void on_ready(char status, uint64_t commit_lsn)
	{
		if (commit_lsn > 0)
			commit_lsn_ = commit_lsn;
		transactions_ += status == 'I';
	}
	uint64_t commit_lsn() const { return commit_lsn_; }
	void fill(control::ClientRow &row) const
	{
		row.connected_at = connected_at_;
		row.transactions = transactions_;
		row.queries = queries_;
		row.commit_lsn = commit_lsn_;
	}

private:
	int64_t connected_at_;
	uint64_t transactions_ = 0, queries_ = 0;
	uint64_t commit_lsn_ = 0; // end of the last commit that wrote
};

} // namespace pgpool::core
