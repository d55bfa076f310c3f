// What becomes of statements when a reply comes, or when an error makes it void.
//
// One note for each noted entry of Replies, in the same order. A message is sent on the assumption that it
// succeeds; the note knows how to confirm it and how to take it back, for the backend's table and for the
// client's. Owns the references that it holds. Must not know messages.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/statements/client_statements.hpp"
#include "core/statements/server_statements.hpp"

namespace pgpool::core
{

class StatementNotes
{
public:
	explicit StatementNotes(StatementStore &store, ServerStatements &server) : store_(store), server_(server) {}
	~StatementNotes();

	enum class OnServer : uint8_t { Nothing, Parse, Close, Shape };
	// `client`: whose names change, nullptr when nobody's do. `before`: what the name meant until now.
	void add(OnServer what, Statement *statement);
	void add(OnServer what, Statement *statement, std::string_view name, const Meaning &before);

	// The shape of `statement`, which `name` of the client's means, unless nullptr.
	void add_shape(Statement *statement, const std::string_view *name);

	// The first one. `shape`: what a note of that kind was told.
	void confirm(ClientStatements *client, Shape shape = {});
	void make_void(uint32_t count, ClientStatements *client); // the first ones: taken back, last first
	// A name whose meaning depends on the reply to an earlier batch.
	bool unsettled(std::string_view name, uint64_t batch) const;
	// A Parse on its way makes `name` mean that.
	bool will_be(std::string_view name, const Statement *statement) const;
	// What a name that is on its way to something else meant; "" = there is none.
	std::string_view name_of(std::string_view server_name) const;
	void forget_before();                               // what names meant is gone
	void note_batch(uint64_t batch) { batch_ = batch; } // of notes to come
	bool empty() const { return notes_.empty(); }
	Statement *first() const { return notes_.empty() ? nullptr : notes_.front().statement; }

private:
	struct Note {
		OnServer what;
		bool renames;
		bool names;           // `name` means `statement`, from a note before
		Statement *statement; // of the backend's table
		std::string name;     // of the client's
		Meaning before;
		uint64_t batch;
		uint64_t next = 0;    // in its chain: an earlier one, of another name
		uint64_t earlier = 0; // the last one that renames the same name in an earlier batch
	};
	void push(Note note);
	void pop(size_t count);
	size_t bucket(std::string_view name) const;
	bool is_there(uint64_t number) const { return number >= first_; }
	Note &at(uint64_t number) { return notes_[number - first_]; }
	const Note &at(uint64_t number) const { return notes_[number - first_]; }
	const Note *last_that_renames(std::string_view name) const;
	void index(uint64_t number);

	StatementStore &store_;
	ServerStatements &server_;
	std::deque<Note> notes_;
	uint64_t first_ = 1; // number of the front one; they are numbered as they come
	// Of each name the last note that renames it, in chains by hash, newest first. Those that are gone end a chain:
	// nothing behind them is there.
	std::vector<uint64_t> chains_;
	uint64_t forgotten_ = 1; // notes before this one have no `before`
	uint64_t batch_ = 0;
};

} // namespace pgpool::core
