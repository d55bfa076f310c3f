// Prepared statements that many clients share.
//
// Owns them: the store interns a statement by its text, parameter types and those settings that decide how the text is
// read; equal statements of all clients of a worker are one object with a name of ours. What a client's names stand for
// is in client_statements.hpp, which of them a backend has in server_statements.hpp.
//
// A client that prepares a text gets it as the catalog is now, so a statement that a backend parsed before
// the catalog changed is outdated there. Order is told by the store's clock, which counts such changes.
// Must not know sessions or messages; rewriter.hpp rewrites those.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "proto/wire.hpp"

namespace pgpool::core
{

// Prefix of the names on the backends. A client's own name of that form is never sent as it is, but disguised.
inline constexpr std::string_view kStatementPrefix = "_pgpool_", kDisguisedPrefix = "?pgpool_";

// By what a client's name is known: PostgreSQL cuts it where an identifier ends.
inline std::string_view known_part(std::string_view name)
{
	return name.substr(0, proto::kMostName);
}

// What a client is told of a statement when it prepares or describes it: hashes. PostgreSQL keeps the types of the
// parameters for the statement's life, and refuses to go on when the columns of its result change.
struct Shape {
	uint64_t types = 0, columns = 0;
	bool known() const { return columns != 0; }
};
// Of the body of a RowDescription, what PostgreSQL compares before it calls a plan stale: names and types of columns.
// Of a body that is not whole, because it is longer than kChunk, it is always the same.
uint64_t hash_of_columns(std::string_view row_description);
inline constexpr uint64_t kNoColumns = 1, kTooManyColumns = 2;

struct Statement {
	std::string body; // of Parse behind the name: text, NUL, parameter types
	std::string name; // on backends
	uint64_t number;  // in the name
	uint64_t hash;
	uint32_t references = 0;
	bool begins = false;      // BEGIN or START TRANSACTION
	bool custom = false;      // its plans are made for their parameters each time
	bool suspect = false;     // a backend called it stale: who prepares it gets it anew
	uint64_t valid_since = 0; // store's clock: what a backend parsed before is outdated
	// FETCH, EXECUTE, SHOW: PostgreSQL looks up the columns of their result each time, and compares them with nothing.
	bool looks_up = false;
	// As last told by a backend of the pool with the number `shape_of`, which had parsed it at `shape_at` of the
	// store's clock.
	Shape shape;
	uint64_t shape_at = 0, shape_of = 0;
	// Types of its parameters that clients were told (bodies of ParameterDescription), by hash, the newest last; they
	// are more than one after a change of the catalog.
	std::vector<std::pair<uint64_t, std::string>> types_told;
	// For pg_stat_prepared: Bind of it; Parse, Bind and Describe that needed nothing of the server; Parse sent;
	// Close sent to make room.
	uint64_t uses = 0, hits = 0, parses = 0, evictions = 0;
};

// Numbers of all workers are different, and none is given twice in a worker's life: a name means the same text in every
// worker, so a backend may be handed from one to another with what it has.
class StatementStore
{
public:
	explicit StatementStore(uint32_t worker = 0, uint32_t workers = 1) : next_(uint64_t{worker} + 1), step_(workers) {}
	// `meaning`: the settings that decide how the text is read.
	Statement *intern(std::string_view body, std::string_view meaning); // with one reference
	// The same for a text that was asked for not long ago or is held; one that comes once is not worth a plan
	// that lasts: nullptr.
	Statement *intern_again(std::string_view body, std::string_view meaning);
	// One that nobody else will get: what the text means is not known.
	Statement *intern_alone(std::string_view body);
	// `s` with the parameters of the types that were told as `types`: one more reference. nullptr: `s` itself has them,
	// or they are forgotten.
	Statement *with_types(const Statement *s, uint64_t types);
	// Remembers them; returns their hash. A body that is not whole is not looked into.
	static uint64_t types_told(Statement *s, std::string_view parameter_description);
	static Statement *keep(Statement *s)
	{
		if (s)
			s->references++;
		return s;
	}
	void release(Statement *s);
	// What may stand behind a number that is in use on a backend: one of ours, or of another worker, or of an earlier
	// life of this one. False: ours, and not given yet.
	bool may_exist(uint64_t number) const { return number > 0 && (number % step_ != next_ % step_ || number < next_); }
	// One more reference to each. Whose text is not known here, a statement stands for that nobody will get.
	std::vector<Statement *> of_numbers(const std::vector<uint64_t> &numbers);
	template <class F> void each(F f) const
	{
		for (const auto &entry : by_hash_)
			f(*entry.second.statement);
	}
	size_t size() const { return by_hash_.size(); }
	uint64_t bytes() const { return bytes_; }
	uint64_t clock() const { return clock_; }
	uint64_t advance() { return ++clock_; }

private:
	struct Entry {
		Statement *statement;
		std::string meaning;
	};
	static uint64_t hash(std::string_view body, std::string_view meaning);
	Statement *make(uint64_t hash, std::string_view body, std::string_view meaning, uint64_t number);
	uint64_t next_number() { return std::exchange(next_, next_ + step_); }
	Statement *find(uint64_t hash, std::string_view body, std::string_view meaning) const;

	std::unordered_multimap<uint64_t, Entry> by_hash_;
	static constexpr size_t kSeen = 4096;
	std::vector<uint64_t> seen_; // hashes, each at its place modulo kSeen
	uint64_t next_;              // number
	const uint64_t step_;
	uint64_t bytes_ = 0;
	uint64_t clock_ = 0;
};

} // namespace pgpool::core
