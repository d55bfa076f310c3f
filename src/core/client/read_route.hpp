// What a client's reads need: what the statements of a batch of messages are to a node, and what is known of the node
// that it reads from.
//
// Owns the splitting of one batch and the words of one session. What a statement is, the grammar says
// (core/routing). Must not know nodes, servers or pools.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/list.hpp"
#include "core/base/ports.hpp"
#include "core/routing/statement_kind.hpp"

namespace pgpool::core
{

class Session;

// A transaction block that was begun on a node.
struct Block {
	std::string begin;       // what begins it elsewhere, in SQL; "" = there is none
	bool read_only = false;  // else it is one until its first write
	bool vouched = false;    // whoever began it asked for a replica
	bool repeatable = false; // its statements have one snapshot, so none can be served elsewhere
	bool is_fenced = false;  // of the batch that comes next it is known what it must see
	bool asks = false;       // whether that is so depends on the session's default, which the node is asked for
	// ---- on its way to the primary
	bool moves = false;
	bool fails = false; // it is aborted there: no statement of it can be served but its end
};

struct ReadRoute {
	// ---- the batch
	uint64_t fence = 0;    // that the node must be at
	uint64_t position = 0; // that it said it is at; 0 = it is no standby
	std::string isolation; // that it said is the session's default
	bool served = false;   // its messages went there
	// The next one goes to the primary, whatever it is; None: as it is.
	Reason primary_once = Reason::None;
	Reason why = Reason::None; // the primary serves it
	uint32_t tried = 0;        // bits: nodes that failed it
	int64_t wait_until = 0;    // for a node to be at the fence, which stays as it is; 0 = it does not wait
	Session *session = nullptr;
	Hook<ReadRoute> wait_hook; // of Clients
	Block block;
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

// What a string of SQL is in a batch.
enum class Part : uint8_t {
	Read,
	Nothing,  // no statement
	Begin,    // of a block for a node
	ReadOnly, // SET TRANSACTION READ ONLY
	End,      // of a block
	Other
};

// What a batch does: the messages up to ReadyForQuery at the beginning of what a client sent.
class BatchReader
{
public:
	// Of a batch longer than kChunk there is no copy, and nothing holds back what comes behind it: it is no read.
	explicit BatchReader(std::string_view bytes) : left_(bytes.substr(0, kChunk)) {}

	// True: all of it is here, each message belongs to a Query or to the extended protocol with one Sync, and no
	// statement that it prepares or uses is Other. `part_of(sql)`; `sql_of(name)`: of a statement that was prepared
	// before.
	template <class PartOf, class SqlOf> bool read(PartOf part_of, SqlOf sql_of)
	{
		for (size_t n = 0; next(n); n++) {
			std::string_view name, sql;
			switch (type_) {
			case 'Q':
				executes_ = true;
				return n == 0 && take_string(sql) && body_.empty() && note(part_of(sql), sql);
			case 'P':
				if (!take_string(name) || !take_string(sql) || !note(part_of(sql), sql) || made_count_ == kMostMade)
					return false;
				made_[made_count_++] = name;
				break;
			case 'B':
				if (!take_string(name))
					return false;
				keeps_portals_ |= !name.empty();
				if (!uses(sql_of, part_of))
					return false;
				break;
			case 'D':
				if (take_byte() == 'S' && !uses(sql_of, part_of))
					return false;
				break;
			case 'E':
				if (!take_string(name))
					return false;
				executes_ = true;
				keeps_portals_ |= !name.empty() || body_ != std::string_view("\0\0\0\0", 4);
				break;
			case 'C':
				closes_ = true;
				break;
			case 'S':
				return body_.empty();
			default: // Flush waits for what is not the whole batch
				return false;
			}
		}
		return false;
	}

	// Outside a block. Close may close what is needed when it is served again.
	bool only_reads() const { return reads_ > 0 && others_ == 0 && !closes_; }
	bool begins_block() const { return !begin_.empty() && !closes_ && !keeps_portals_; }
	bool is_short() const { return short_; } // there is more to come of it before anything of it is answered
	std::string_view begin() const { return begin_; }
	// In a block that may have to go on elsewhere, where portals do not follow.
	bool goes_on() const { return begin_.empty(); }
	bool keeps_portals() const { return keeps_portals_; }
	std::string_view sets_read_only() const { return executes_ ? sets_read_only_ : std::string_view(); }

private:
	bool next(size_t n);
	bool take_string(std::string_view &s);
	char take_byte();
	bool made(std::string_view name) const;
	bool note(Part part, std::string_view sql);
	template <class SqlOf, class PartOf> bool uses(SqlOf sql_of, PartOf part_of)
	{
		std::string_view name;
		if (!take_string(name))
			return false;
		if (made(name))
			return true;
		const std::string_view sql = sql_of(name);
		return !sql.empty() && note(part_of(sql), sql);
	}

	std::string_view left_;
	std::string_view body_; // of the present message
	char type_ = 0;
	static constexpr size_t kMostMade = 8;
	std::array<std::string_view, kMostMade> made_; // names that the batch prepares
	size_t made_count_ = 0;
	size_t reads_ = 0, others_ = 0;   // statements that are Read, and those that are not
	std::string_view begin_;          // its first statement
	std::string_view sets_read_only_; // its only one
	bool ended_ = false;
	bool keeps_portals_ = false; // a later batch may use one of its portals, or it uses one of an earlier batch
	bool closes_ = false;
	bool executes_ = false;
	bool short_ = false;
};

} // namespace pgpool::core
