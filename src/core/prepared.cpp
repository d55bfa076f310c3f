// See prepared.hpp.
#include "core/prepared.hpp"

#include <functional>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

// ---- the store

Statement *StatementStore::intern(std::string_view body, std::string_view meaning)
{
	const uint64_t hash = std::hash<std::string_view>{}(body) ^ (std::hash<std::string_view>{}(meaning)*31);
	auto range = by_hash_.equal_range(hash);
	for (auto it = range.first; it != range.second; ++it) {
		if (it->second.statement->body == body && it->second.meaning == meaning)
			return keep(it->second.statement);
	}
	auto *s = new Statement;
	s->body = body;
	s->name = std::string(kStatementPrefix) + std::to_string(next_++);
	s->hash = hash;
	s->references = 1;
	bytes_ += s->body.size();
	by_hash_.emplace(hash, Entry{s, std::string(meaning)});
	return s;
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

Statement *ClientStatements::find(std::string_view name) const
{
	for (const auto &item : items_) {
		if (item.first == name)
			return item.second;
	}
	return nullptr;
}

Statement *ClientStatements::set(std::string_view name, Statement *s)
{
	for (auto it = items_.begin(); it != items_.end(); ++it) {
		if (it->first != name)
			continue;
		Statement *before = it->second;
		if (s)
			it->second = s;
		else
			items_.erase(it);
		return before;
	}
	if (s)
		items_.emplace_back(name, s);
	return nullptr;
}

std::vector<std::pair<std::string, Statement *>> ClientStatements::take_all()
{
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
	return Has::Yes;
}

bool ServerStatements::present(Statement *s) const
{
	auto it = items_.find(s);
	return it != items_.end() && it->second.state == State::Present;
}

void ServerStatements::parsing(Statement *s, uint64_t batch)
{
	auto it = items_.find(s);
	if (it != items_.end()) { // closed earlier in this batch
		it->second.closing = it->second.state == State::Closing;
		it->second.state = State::Parsing;
		it->second.batch = batch;
		return;
	}
	StatementStore::keep(s);
	used_.push_front(s);
	items_.emplace(s, Item{State::Parsing, batch, used_.begin()});
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
	if (it != items_.end() && it->second.state == State::Parsing)
		it->second.state = State::Present;
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

void ServerStatements::close_void(Statement *s)
{
	auto it = items_.find(s);
	if (it != items_.end() && it->second.state == State::Closing)
		it->second.state = State::Present;
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
		if (items_.at(s).state == State::Present) {
			used_.erase(items_.at(s).used);
			items_.erase(s);
			store.release(s);
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
