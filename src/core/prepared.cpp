// See prepared.hpp.
#include "core/prepared.hpp"

#include <algorithm>
#include <functional>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

bool begins_transaction(std::string_view text)
{
	const std::string_view word = text.substr(0, 5);
	auto is = [&](const char *wanted) {
		return std::equal(word.begin(), word.end(), wanted, wanted + 5, [](char a, char b) { return (a | 0x20) == b; });
	};
	return is("begin") || is("start"); // nothing else begins so
}

} // namespace

// ---- the store

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
	auto *s = new Statement;
	s->body = body;
	s->name = std::string(kStatementPrefix) + std::to_string(next_++);
	s->hash = h;
	s->references = 1;
	s->begins = begins_transaction(body);
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
	return std::exchange(seen_[h % kSeen], h) == h ? intern(body, meaning) : nullptr;
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

// ---- a client's names

namespace
{

// The first item whose name is not before `name`.
template <class Items> auto place_of(Items &items, std::string_view name)
{
	return std::lower_bound(items.begin(), items.end(), name,
	                        [](const auto &item, std::string_view n) { return item.first < n; });
}

} // namespace

Statement *ClientStatements::find(std::string_view name) const
{
	const auto it = place_of(items_, name);
	return it != items_.end() && it->first == name ? it->second : nullptr;
}

std::string_view ClientStatements::name_of(std::string_view server_name) const
{
	for (const Item &item : items_) {
		if (item.second->name == server_name)
			return item.first;
	}
	return {};
}

Statement *ClientStatements::set(std::string_view name, Statement *s)
{
	const auto it = place_of(items_, name);
	Statement *before = it != items_.end() && it->first == name ? it->second : nullptr;
	bytes_ += (s ? s->body.size() : 0) - (before ? before->body.size() : 0);
	if (before && s)
		it->second = s;
	else if (before)
		items_.erase(it);
	else if (s)
		items_.emplace(it, name, s);
	return before;
}

std::vector<std::pair<std::string, Statement *>> ClientStatements::take_all()
{
	bytes_ = 0;
	return std::exchange(items_, {});
}

// ---- what a backend has

ServerStatements::Has ServerStatements::has(Statement *s, uint64_t batch)
{
	auto it = items_.find(s);
	if (it == items_.end())
		return Has::No;
	Item &item = it->second;
	if (item.state != State::Present && item.batch != batch)
		return Has::Unsettled;
	if (item.state == State::Closing)
		return Has::No;
	if (used_.begin() != item.used)
		used_.splice(used_.begin(), used_, item.used);
	// One that is on its way was sent a moment ago, behind which it cannot be closed and parsed exactly.
	return item.state == State::Present && outdated(s, item) ? Has::Outdated : Has::Yes;
}

bool ServerStatements::present(Statement *s) const
{
	auto it = items_.find(s);
	return it != items_.end() && it->second.state == State::Present && !outdated(s, it->second);
}

void ServerStatements::parsing(Statement *s, uint64_t batch, uint64_t clock)
{
	auto it = items_.find(s);
	if (it != items_.end()) { // closed earlier in this batch
		it->second.closing = it->second.state == State::Closing;
		it->second.state = State::Parsing;
		it->second.batch = batch;
		it->second.parsed_at = clock;
		return;
	}
	StatementStore::keep(s);
	used_.push_front(s);
	items_.emplace(s, Item{State::Parsing, batch, used_.begin(), clock});
}

void ServerStatements::closing(Statement *s, uint64_t batch)
{
	Item &item = items_.at(s);
	item.state = State::Closing;
	item.batch = batch;
}

void ServerStatements::parsed(Statement *s)
{
	auto it = items_.find(s);
	if (it == items_.end() || it->second.state != State::Parsing)
		return;
	it->second.state = State::Present;
	it->second.gone = false;
}

void ServerStatements::closed(Statement *s, StatementStore &store)
{
	auto it = items_.find(s);
	if (it == items_.end())
		return;
	it->second.closing = false;
	if (it->second.state != State::Closing)
		return;
	used_.erase(it->second.used);
	items_.erase(it);
	store.release(s);
}

void ServerStatements::parse_void(Statement *s, StatementStore &store)
{
	auto it = items_.find(s);
	if (it == items_.end() || it->second.state != State::Parsing)
		return;
	if (it->second.closing) { // the Close before it is void, too, or will be answered
		it->second.closing = false;
		it->second.state = State::Closing;
		return;
	}
	used_.erase(it->second.used);
	items_.erase(it);
	store.release(s);
}

void ServerStatements::close_void(Statement *s, StatementStore &store)
{
	auto it = items_.find(s);
	if (it == items_.end() || it->second.state != State::Closing)
		return;
	if (it->second.gone) {
		used_.erase(it->second.used);
		items_.erase(it);
		store.release(s);
		return;
	}
	it->second.state = State::Present;
	it->second.parsed_at = 0; // a Parse behind the Close may have told a later time
}

Statement *ServerStatements::surplus(size_t limit)
{
	if (items_.size() <= limit)
		return nullptr;
	for (auto it = used_.rbegin(); it != used_.rend(); ++it) {
		if (items_.at(*it).state == State::Present)
			return *it;
	}
	return nullptr;
}

void ServerStatements::clear(StatementStore &store)
{
	for (auto it = used_.begin(); it != used_.end();) {
		Statement *s = *it++;
		Item &item = items_.at(s);
		if (item.state == State::Present) {
			used_.erase(item.used);
			items_.erase(s);
			store.release(s);
		} else if (item.state == State::Closing || item.closing) {
			item.gone = true; // its Close was sent behind this, and may yet be void
		}
	}
}

void ServerStatements::drop_all(StatementStore &store)
{
	for (Statement *s : used_)
		store.release(s);
	used_.clear();
	items_.clear();
}

} // namespace pgpool::core
