// Which strings of SQL are reads that a node may serve, for the clients of one worker.
//
// Owns the answers of the grammar and the facts of databases. Must not know sessions, targets or PostgreSQL.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/ports.hpp"
#include "core/routing/facts_store.hpp"
#include "core/routing/statement_kinds.hpp"

namespace pgpool::core
{

class Reads
{
public:
	Reads(Outside &outside, region::View region)
	    : region_(region), kinds_(outside.grammar()), facts_(region, [&outside](uint32_t database, std::string &text) {
		      return outside.read_facts(database, text);
	      })
	{
	}

	// Valid until the next call.
	const Classified &what(std::string_view sql, const Reading &reading, uint32_t database, int64_t now)
	{
		// what one node refused, another one may do
		if (const uint32_t changed = region_.header()->nodes_changed.load(std::memory_order_relaxed);
		    std::exchange(nodes_changed_, changed) != changed)
			kinds_.forget();
		return kinds_.classify(sql, reading, facts_.of(database, now));
	}

	// A node refused to do it, for it writes.
	void learn_write(std::string_view sql, const Reading &reading, uint32_t database, int64_t now)
	{
		kinds_.learn_write(sql, reading, facts_.of(database, now));
	}

private:
	const region::View region_;
	uint32_t nodes_changed_ = 0;
	StatementKinds kinds_;
	FactsStore facts_;
};

} // namespace pgpool::core
