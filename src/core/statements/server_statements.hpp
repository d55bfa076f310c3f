// Which of the shared statements one backend has.
//
// Knows it exactly, also while messages are on their way: what was sent is `unsettled` until its reply came, and an
// error voids what it made the backend skip. Owns one reference to each, and which was used last. Must not know
// clients, their names, nor messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "core/statements/statement_store.hpp"

namespace pgpool::core
{

class ServerStatements
{
public:
	enum class Has { No, Yes, Outdated, Unsettled };

	// Yes: a message that follows at once may use it. Outdated: so it may, but it is to be closed and parsed
	// anew. Unsettled: only the replies to an earlier batch will tell, so the caller must wait for them.
	// `batch` counts the Syncs that were sent.
	Has has(Statement *s, uint64_t batch) { return look(s, batch).has; }
	struct There {
		Has has = Has::No;
		Shape shape; // of the last Parse
	};
	There look(Statement *s, uint64_t batch);
	bool present(Statement *s) const; // up to date, and nothing on the way changes that
	// Whatever was parsed before `clock` may not be what we think.
	void distrust(uint64_t clock) { valid_since_ = clock; }
	void parsing(Statement *s, uint64_t batch, uint64_t clock); // Parse is sent
	void closing(Statement *s, uint64_t batch);                 // Close is sent
	void confirm(Statement *s, StatementStore &store);          // the reply to the first of them came
	void take_back(Statement *s, StatementStore &store);        // the last of them failed or was skipped
	Shape shape(const Statement *s) const;                      // of the last Parse
	void set_shape(const Statement *s, Shape shape);
	// The store's clock when it was parsed.
	uint64_t parsed_at(const Statement *s) const;
	// The least recently used one, when there will be more than `limit`; nullptr: none that can go now.
	Statement *surplus(size_t limit, uint64_t batch) const;
	template <class F> void each(F f) const // that is there for certain
	{
		for (const auto &item : items_) {
			if (item.second.there && item.second.pending == 0)
				f(item.first);
		}
	}
	// What is there for certain, as bytes for another worker: the numbers. load() into one that has none; each is
	// parsed anew before it is used, for what the catalog was when it was parsed nobody knows there. False, and nothing
	// is changed: save() has not made these bytes, or they name one that cannot be.
	std::string save() const;
	[[nodiscard]] bool load(std::string_view saved, StatementStore &store);

	void clear(StatementStore &store);          // DEALLOCATE ALL took effect
	void drop_all(StatementStore &store);       // the backend is gone
	size_t will_be() const { return will_be_; } // when all is answered
	size_t size() const { return items_.size(); }

private:
	// Parse and Close of one statement come in turn, and are answered in turn; so what is there now and how many
	// are on their way tell what each of them is.
	struct Item {
		std::list<Statement *>::iterator used;
		uint64_t batch = 0;     // of the last of them
		uint64_t parsed_at = 0; // store's clock
		Shape shape;
		uint32_t pending = 0;
		bool there = false;
		bool gone = false; // counts as there, but DEALLOCATE ALL took it before its Close, which is pending
		bool will_be() const { return there != (pending % 2 == 1); }
	};
	using Items = std::unordered_map<Statement *, Item>;
	bool outdated(const Statement *s, const Item &item) const
	{
		return item.parsed_at < s->valid_since || item.parsed_at < valid_since_;
	}
	void drop_if_gone(Items::iterator it, StatementStore &store);

	Items items_;
	std::list<Statement *> used_; // most recently first
	size_t will_be_ = 0;
	uint64_t valid_since_ = 0;
};

} // namespace pgpool::core
