// A client's names for statements, and what the client was told of each.
//
// Owns the names and one reference to what each stands for. Must not know backends, nor who sent what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/statements/statement_store.hpp"

namespace pgpool::core
{

// What a client's name stands for, and what its client was told of it.
struct Meaning {
	Statement *statement = nullptr;
	Shape shape;
	uint64_t batch = 0; // of the client's, in which it was prepared
};

class ClientStatements
{
public:
	struct Item {
		std::string name;
		Statement *statement = nullptr;
		Shape shape;
		uint64_t batch = 0; // see Meaning
		// If it means `s`. What it was told already stays.
		void learn(const Statement *s, Shape told);
	};
	Statement *find(std::string_view name) const;
	Item *item(std::string_view name);                      // until names change; nullptr: it means nothing
	std::string_view name_of(std::string_view server_name); // one of them, "" = there is none
	// Returns what the name meant before; the reference to it goes to the caller, that to the new one comes here.
	Meaning set(std::string_view name, const Meaning &now);
	Shape shape(std::string_view name) const; // of the statement when `name` was prepared
	std::vector<Item> take_all();
	template <class F> void each(F f) const
	{
		for (const Item &item : items_) {
			if (item.statement)
				f(item.statement);
		}
	}
	template <class F> void each_item(F f) const
	{
		for (const Item &item : items_) {
			if (item.statement)
				f(item);
		}
	}
	size_t size() const { return size_; }
	uint64_t bytes() const { return bytes_; } // of the texts that the names stand for

private:
	size_t home(std::string_view name) const;
	size_t place_of(std::string_view name) const; // where it is, or would be
	const Item *item(std::string_view name) const { return const_cast<ClientStatements *>(this)->item(name); }
	void grow();
	void erase(size_t place);
	void forget_server_name(const Statement *s, std::string_view name);

	// A hash table with linear probing, a power of two, never full: a place without a statement is free. A client with
	// few names needs little memory, and its next name none.
	std::vector<Item> items_;
	// The names by what backends call them, from the first error that names a statement on: one that has many names
	// may get as many errors.
	std::unique_ptr<std::unordered_multimap<std::string_view, std::string>> by_server_name_;
	size_t size_ = 0;
	uint64_t bytes_ = 0;
};

} // namespace pgpool::core
