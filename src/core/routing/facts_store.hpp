// The facts of the databases of a worker's clients, as far as they are of the present catalog.
//
// Owns what was read of the files that facts workers write, and says by the region's slots that it is wanted. What is
// stale is as good as nothing: a name may mean something else now. Must not know files: whoever makes it reads them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/routing/facts.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class FactsStore
{
public:
	using Reader = std::function<bool(uint32_t database, std::string &text)>; // the file of a database

	FactsStore(region::View region, Reader reader) : region_(region), reader_(std::move(reader)) {}

	// nullptr: not known, or of an older catalog; the manager has them made within a second or two. Valid until the
	// next call. Costs a look at two numbers, and the reading of a file (some milliseconds) when there is a new one.
	const Facts *of(uint32_t database, int64_t now_us)
	{
		Known &k = known_[database];
		// the slot may be lost to others in a while without use
		if (!k.slot || k.slot->database.load(std::memory_order_relaxed) != database || now_us >= k.ask_again_at) {
			k.slot = region::want_facts(region_.header()->facts, database, now_us);
			k.ask_again_at = now_us + region::kFactsWantedFor / 4;
		}
		if (!k.slot)
			return nullptr;
		// a new file may say something else of the same catalog: what is declared
		const uint32_t file = k.slot->files.load();
		if (file != k.file) {
			k.file = file;
			read(database, k);
		}
		const uint64_t changes = region_.header()->catalog_changes[database % region::kCatalogCounters].load();
		return k.facts && k.facts->version() == changes ? k.facts.get() : nullptr;
	}

private:
	struct Known {
		region::FactsSlot *slot = nullptr;
		int64_t ask_again_at = 0;
		uint32_t file = 0; // the number of the one that was read
		std::unique_ptr<Facts> facts;
	};

	void read(uint32_t database, Known &k)
	{
		std::string text;
		k.facts = k.file != 0 && reader_(database, text) ? std::make_unique<Facts>(text) : nullptr;
		if (k.facts && (!k.facts->usable() || k.facts->database() != database))
			k.facts = nullptr;
	}

	region::View region_;
	Reader reader_;
	std::unordered_map<uint32_t, Known> known_;
};

} // namespace pgpool::core
