// See statement_store.hpp.
#include "core/statements/statement_store.hpp"

#include <algorithm>
#include <functional>

#include "core/statements/sql_command.hpp"
#include "core/statements/sql_literals.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr uint64_t kTooManyTypes = 2; // as kTooManyColumns
constexpr size_t kMostTypesTold = 8;  // of one statement: who makes types anew for ever must not fill the memory

bool begins_transaction(std::string_view text)
{
	const std::string_view word = text.substr(0, 5);
	auto is = [&](const char *wanted) {
		return std::equal(word.begin(), word.end(), wanted, wanted + 5, [](char a, char b) { return (a | 0x20) == b; });
	};
	return is("begin") || is("start"); // nothing else begins so
}

std::string_view text_of(std::string_view body)
{
	return body.substr(0, body.find('\0'));
}

} // namespace

uint64_t StatementStore::hash(std::string_view body, std::string_view meaning)
{
	return std::hash<std::string_view>{}(body) ^ (std::hash<std::string_view>{}(meaning)*31);
}

Statement *StatementStore::find(uint64_t hash, std::string_view body, std::string_view meaning) const
{
	auto range = by_hash_.equal_range(hash);
	for (auto it = range.first; it != range.second; ++it) {
		if (it->second.statement->body == body && it->second.meaning == meaning)
			return it->second.statement;
	}
	return nullptr;
}

Statement *StatementStore::intern(std::string_view body, std::string_view meaning)
{
	const uint64_t h = hash(body, meaning);
	if (Statement *s = find(h, body, meaning))
		return keep(s);
	return literals_read_the_clock(text_of(body)) ? intern_alone(body) : make(h, body, meaning, next_number());
}

Statement *StatementStore::intern_alone(std::string_view body)
{
	const uint64_t number = next_number();
	const std::string meaning = "alone " + std::to_string(number);
	return make(hash(body, meaning), body, meaning, number);
}

Statement *StatementStore::make(uint64_t h, std::string_view body, std::string_view meaning, uint64_t number)
{
	auto *s = new Statement;
	s->body = body;
	s->number = number;
	s->name = std::string(kStatementPrefix) + std::to_string(s->number);
	s->hash = h;
	s->references = 1;
	s->begins = begins_transaction(body);
	s->looks_up = looks_up_its_columns(text_of(body));
	bytes_ += s->body.size();
	by_hash_.emplace(h, Entry{s, std::string(meaning)});
	return s;
}

Statement *StatementStore::intern_again(std::string_view body, std::string_view meaning)
{
	const uint64_t h = hash(body, meaning);
	if (Statement *s = find(h, body, meaning))
		return keep(s);
	seen_.resize(kSeen);
	uint64_t &seen = seen_[h % kSeen];
	if (seen == ~h || std::exchange(seen, h) != h)
		return nullptr;
	if (literals_read_the_clock(text_of(body))) {
		seen = ~h; // so it is not read again
		return nullptr;
	}
	return make(h, body, meaning, next_number());
}

std::vector<Statement *> StatementStore::of_numbers(const std::vector<uint64_t> &numbers)
{
	std::unordered_map<uint64_t, Statement *> known;
	each([&](Statement &s) { known.emplace(s.number, &s); });
	std::vector<Statement *> found;
	for (const uint64_t number : numbers) {
		Statement *&s = known[number];
		if (s) {
			found.push_back(keep(s));
			continue;
		}
		const std::string meaning = "elsewhere " + std::to_string(number);
		s = make(hash({}, meaning), {}, meaning, number);
		found.push_back(s);
	}
	return found;
}

uint64_t StatementStore::types_told(Statement *s, std::string_view description)
{
	proto::Reader r(description);
	r.bytes(size_t{4} * r.u16());
	if (!r.ok())
		return kTooManyTypes;
	const uint64_t types = std::hash<std::string_view>{}(description) | 4;
	auto same = [&](const auto &told) { return told.first == types; };
	if (std::any_of(s->types_told.begin(), s->types_told.end(), same))
		return types;
	if (s->types_told.size() >= kMostTypesTold)
		s->types_told.erase(s->types_told.begin());
	s->types_told.emplace_back(types, description);
	return types;
}

Statement *StatementStore::with_types(const Statement *s, uint64_t types)
{
	const auto told =
	    std::find_if(s->types_told.begin(), s->types_told.end(), [&](const auto &t) { return t.first == types; });
	const auto range = by_hash_.equal_range(s->hash);
	const auto entry = std::find_if(range.first, range.second, [&](const auto &e) { return e.second.statement == s; });
	if (told == s->types_told.end() || entry == range.second)
		return nullptr;
	std::string body(text_of(s->body));
	body.append(1, '\0').append(told->second);
	if (body == s->body)
		return nullptr;
	const std::string meaning = entry->second.meaning; // the table may move
	Statement *typed = intern(body, meaning);
	typed->custom = s->custom;
	return typed;
}

void StatementStore::release(Statement *s)
{
	if (!s || --s->references > 0)
		return;
	auto range = by_hash_.equal_range(s->hash);
	for (auto it = range.first; it != range.second; ++it) {
		if (it->second.statement == s) {
			by_hash_.erase(it);
			break;
		}
	}
	bytes_ -= s->body.size();
	delete s;
}

uint64_t hash_of_columns(std::string_view row_description)
{
	proto::Reader r(row_description);
	const int count = r.u16();
	uint64_t h = 1469598103934665603ULL;
	auto mix = [&](uint64_t value) { h = (h ^ value) * 1099511628211ULL; };
	for (int i = 0; i < count && r.ok(); i++) {
		mix(std::hash<std::string_view>{}(r.string()));
		r.bytes(6); // where the column comes from
		mix(r.u32());
		mix(r.u16());
		mix(r.u32());
		r.bytes(2); // the format
	}
	return r.ok() ? h | 4 : kTooManyColumns;
}

} // namespace pgpool::core
