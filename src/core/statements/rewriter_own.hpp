// What a client has that prepared a statement of its own: see rewriter.hpp. For rewriter*.cpp alone.
//
// Owns the references to the shared statements that the client's names stand for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/statements/rewriter.hpp"

namespace pgpool::core
{

// Part of the meaning of a statement whose plans are made for their parameters each time, as an unnamed one's.
inline constexpr char kCustom = 'c';

inline Statement *as_custom(Statement *s)
{
	if (s)
		s->custom = true;
	return s;
}

// One NUL-terminated string of `body`, which it is cut off. False: its end is not there.
inline bool take_string(std::string_view &body, std::string_view &s)
{
	const size_t end = body.find('\0');
	if (end == std::string_view::npos)
		return false;
	s = body.substr(0, end);
	body.remove_prefix(end + 1);
	return true;
}

inline bool is_like_ours(std::string_view name)
{
	return name.substr(0, kStatementPrefix.size()) == kStatementPrefix;
}

struct StatementRewriter::Own {
	explicit Own(StatementStore &the_store) : store(the_store) {}
	~Own() { forget(); }
	Own(const Own &) = delete;
	Own &operator=(const Own &) = delete;

	void forget()
	{
		for (ClientStatements::Item &item : names.take_all())
			store.release(item.statement);
		unnamed.in_names = false;
		forget_unnamed();
	}
	void forget_unnamed()
	{
		if (std::exchange(unnamed.in_names, false))
			store.release(names.set("", {}).statement);
		store.release(unnamed.shared);
		unnamed.shared = nullptr;
		unnamed.text.clear();
		unnamed.waits = false;
		unnamed.at = 0;
		unnamed.deallocates.clear();
	}
	// What the client prepared as unnamed lasts until it prepares another, whoever serves it.
	void share_unnamed(const std::string &reading)
	{
		unnamed.shared = as_custom(store.intern(unnamed.text, reading + kCustom));
		unnamed.text = {};
	}

	StatementStore &store;
	ClientStatements names;
	struct {
		uint64_t at = 0;             // assignment in which it was prepared
		uint64_t batch = 0;          // of its last Parse or Close
		std::string text;            // body of its Parse behind the name, for a Bind that comes on another server
		Statement *shared = nullptr; // the same, once it was needed or the client has been idle
		std::string deallocates;     // name that it takes away
		bool in_names = false;       // it is a shared one, in `names`
		bool waits = false;          // it was prepared, not yet used, and is too long to remember
	} unnamed;
	struct {
		std::string deallocates;
		bool begins = false; // BEGIN is bound to it
	} unnamed_portal;
	std::string cleanup;   // a name that is to be closed on the server behind the next Sync
	uint64_t in_doubt = 0; // place in Replies up to which all names may yet go
	uint64_t awaited = 0;  // place up to which it waits for replies
	uint64_t batch = 1;    // its number, which no other batch of the client has
};

} // namespace pgpool::core
