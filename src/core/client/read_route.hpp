// What a client's reads need: whether a batch of messages is a read, and what is known of the node that it reads from.
//
// Owns the splitting of one batch and the words of one session. What a statement is, the grammar says
// (core/routing). Must not know nodes, servers or pools.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/list.hpp"
#include "core/routing/statement_kind.hpp"

namespace pgpool::core
{

class Session;

struct ReadRoute {
	// ---- the batch
	uint64_t fence = 0;    // that the node must be at
	uint64_t position = 0; // that it said it is at; 0 = it is no standby
	bool served = false;   // its messages went there
	// The next one goes to the primary, whatever it is; None: as it is.
	Reason primary_once = Reason::None;
	Reason why = Reason::None; // the primary serves it
	uint32_t tried = 0;        // bits: nodes that failed it
	int64_t wait_until = 0;    // for a node to be at the fence, which stays as it is; 0 = it does not wait
	Session *session = nullptr;
	Hook<ReadRoute> wait_hook; // of Clients
	// ---- the client
	bool is_reader = false; // its last batch was a read on `node`, and so were those since `since`
	uint32_t node = 0;
	int64_t since = 0;         // monotonic
	int64_t answered_at = 0;   // the same: the last of what `seen` does not cover; 0 = there is nothing
	uint64_t seen = 0;         // position that nothing it has seen elsewhere is behind
	int64_t primary_until = 0; // it reads on the primary, whose turn it was

	bool waits() const { return wait_until != 0; }
	void end_wait() { wait_until = 0; }
};

// What a batch does: the messages up to ReadyForQuery at the beginning of what a client sent.
class BatchReader
{
public:
	explicit BatchReader(std::string_view bytes) : left_(bytes) {}

	// All of it is here, each message belongs to a Query or to the extended protocol with one Sync, and each statement
	// that it prepares or uses is a read. `is_read(sql)`; `sql_of(name)`: of a statement that was prepared before.
	template <class IsRead, class SqlOf> bool reads(IsRead is_read, SqlOf sql_of)
	{
		for (size_t n = 0; next(n); n++) {
			std::string_view name, sql;
			switch (type_) {
			case 'Q':
				return n == 0 && take_string(sql) && body_.empty() && is_read(sql);
			case 'P':
				if (!take_string(name) || !take_string(sql) || !is_read(sql))
					return false;
				if (made_count_ == kMostMade)
					return false;
				made_[made_count_++] = name;
				break;
			case 'B':
				if (!take_string(name) || !uses(sql_of, is_read))
					return false;
				break;
			case 'D':
				if (take_byte() == 'S' && !uses(sql_of, is_read))
					return false;
				break;
			case 'E':
				break;
			case 'S':
				return n > 0 && body_.empty();
			default: // Close may close what is still needed, Flush waits for what is not the whole batch
				return false;
			}
		}
		return false;
	}

private:
	bool next(size_t n);
	bool take_string(std::string_view &s);
	char take_byte();
	bool made(std::string_view name) const;
	template <class SqlOf, class IsRead> bool uses(SqlOf sql_of, IsRead is_read)
	{
		std::string_view name;
		if (!take_string(name))
			return false;
		if (made(name))
			return true;
		const std::string_view sql = sql_of(name);
		return !sql.empty() && is_read(sql);
	}

	std::string_view left_;
	std::string_view body_; // of the present message
	char type_ = 0;
	static constexpr size_t kMostMade = 8;
	std::array<std::string_view, kMostMade> made_; // names that the batch prepares
	size_t made_count_ = 0;
};

} // namespace pgpool::core
