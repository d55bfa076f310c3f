// See statement_kinds.hpp.
#include "core/routing/statement_kinds.hpp"

#include <functional>
#include <utility>

#include "core/routing/facts.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

uint64_t hash_of(std::string_view sql, uint32_t reading, const Facts *facts)
{
	const uint64_t rest = (uint64_t{reading} << 32) | (facts ? facts->database() : 0);
	return std::hash<std::string_view>()(sql) ^ (rest * 0x9e3779b97f4a7c15u);
}

uint32_t database_of(const Facts *facts)
{
	return facts ? facts->database() : 0;
}

uint64_t edition_of(const Facts *facts)
{
	return facts ? facts->edition() : 0;
}

} // namespace

Reading StatementKinds::KnownReading::view() const
{
	return {client_encoding, server_encoding, conforming, backslash_quote, trusts_stable, route};
}

uint32_t StatementKinds::number_of(const Reading &reading)
{
	for (uint32_t i = 0; i < readings_.size(); i++) {
		if (readings_[i].view() == reading)
			return i;
	}
	if (readings_.size() >= bounds_.readings)
		return kNone;
	readings_.push_back({std::string(reading.client_encoding), std::string(reading.server_encoding),
	                     reading.standard_conforming_strings, reading.trusts_stable, reading.backslash_quote,
	                     reading.route});
	return static_cast<uint32_t>(readings_.size() - 1);
}

StatementKinds::Entry *StatementKinds::find(uint64_t hash, std::string_view sql, uint32_t reading, const Facts *facts)
{
	auto fits = [&](const Entry &e) {
		return e.reading == reading && e.database == database_of(facts) && e.edition == edition_of(facts) &&
		       e.sql == sql;
	};
	auto it = young_.entries.find(hash);
	if (it != young_.entries.end())
		return fits(it->second) ? &it->second : nullptr;
	it = old_.entries.find(hash);
	if (it == old_.entries.end() || !fits(it->second))
		return nullptr;
	Entry moved = std::move(it->second);
	old_.bytes -= moved.sql.size();
	old_.entries.erase(it);
	return put(hash, std::move(moved));
}

StatementKinds::Entry *StatementKinds::put(uint64_t hash, Entry entry)
{
	if (young_.entries.size() >= bounds_.entries || young_.bytes + entry.sql.size() > bounds_.bytes) {
		old_ = std::move(young_);
		young_ = {};
	}
	Entry &place = young_.entries[hash];
	young_.bytes += entry.sql.size() - place.sql.size();
	place = std::move(entry);
	return &place;
}

const Classified &StatementKinds::classify(std::string_view sql, const Reading &reading, const Facts *facts)
{
	const uint32_t number = sql.size() <= bounds_.longest ? number_of(reading) : kNone;
	const uint64_t hash = hash_of(sql, number, facts);
	if (number != kNone) {
		if (const Entry *known = find(hash, sql, number, facts))
			return known->what;
	}
	asked_++;
	Classified what = grammar_.classify(sql, reading, facts);
	if (number == kNone) {
		not_kept_ = std::move(what);
		return not_kept_;
	}
	return put(hash, {std::string(sql), number, database_of(facts), edition_of(facts), std::move(what)})->what;
}

void StatementKinds::learn_write(std::string_view sql, const Reading &reading, const Facts *facts)
{
	const uint32_t number = sql.size() <= bounds_.longest ? number_of(reading) : kNone;
	if (number == kNone)
		return;
	Classified what;
	what.kind = Kind::Write;
	what.reason = Reason::Learned;
	put(hash_of(sql, number, facts), {std::string(sql), number, database_of(facts), edition_of(facts), what});
}

} // namespace pgpool::core
