// What strings are, by text: the grammar is asked once for each.
//
// Owns the answers, bounded in number and bytes: two generations, of which the older one is forgotten as a whole when
// the younger is full, so that what is in use stays and nothing is sorted. An answer holds for one text, one way to
// read it, and one edition of the facts of a database; a hash finds it, and all of these are compared. Must not know
// clients.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/routing/statement_kind.hpp"

namespace pgpool::core
{

class StatementKinds
{
public:
	struct Bounds {
		size_t entries = 20000;    // of one generation
		size_t bytes = 8 << 20;    // of its texts
		size_t longest = 16 << 10; // a longer text is not kept
		size_t readings = 64;      // ways to read a text; with more nothing is kept for those
	};

	explicit StatementKinds(Grammar &grammar) : StatementKinds(grammar, Bounds()) {}
	StatementKinds(Grammar &grammar, const Bounds &bounds) : grammar_(grammar), bounds_(bounds) {}

	// Valid until the next call.
	const Classified &classify(std::string_view sql, const Reading &reading, const Facts *facts);
	// A standby refused it (25006) although it was a Read: from now on it is a Write with Reason::Learned, until the
	// facts change.
	void learn_write(std::string_view sql, const Reading &reading, const Facts *facts);

	void forget() { young_ = old_ = {}; } // all

	uint64_t asked() const { return asked_; } // the grammar
	size_t size() const { return young_.entries.size() + old_.entries.size(); }
	size_t bytes() const { return young_.bytes + old_.bytes; }

private:
	struct Entry {
		std::string sql;
		uint32_t reading;
		uint32_t database; // 0 = without facts
		uint64_t edition;
		Classified what;
	};
	struct Generation {
		std::unordered_map<uint64_t, Entry> entries; // by hash: of two texts with one hash the later is kept
		size_t bytes = 0;
	};
	struct KnownReading {
		std::string client_encoding, server_encoding;
		bool conforming, trusts_stable;
		uint8_t backslash_quote;
		Route route;
		Reading view() const;
	};

	uint32_t number_of(const Reading &reading); // kNone: too many
	Entry *find(uint64_t hash, std::string_view sql, uint32_t reading, const Facts *facts);
	Entry *put(uint64_t hash, Entry entry);

	static constexpr uint32_t kNone = UINT32_MAX;
	Grammar &grammar_;
	const Bounds bounds_;
	Generation young_, old_;
	std::vector<KnownReading> readings_;
	Classified not_kept_;
	uint64_t asked_ = 0;
};

} // namespace pgpool::core
