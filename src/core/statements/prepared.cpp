// See prepared.hpp.
#include "core/statements/prepared.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <unordered_set>

#include "core/statements/sql_command.hpp"
#include "core/statements/sql_literals.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kMostLooks = 16;     // for a statement that can go
constexpr uint64_t kTooManyTypes = 2; // as kTooManyColumns
constexpr uint8_t kSavedVersion = 1;
constexpr uint32_t kMostSaved = 1 << 17; // statements of one backend: more than max_prepared_statements can say
constexpr size_t kMostTypesTold = 8;     // of one statement: who makes types anew for ever must not fill the memory

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

// ---- a client's names

size_t ClientStatements::home(std::string_view name) const
{
	return std::hash<std::string_view>{}(name) & (items_.size() - 1);
}

size_t ClientStatements::place_of(std::string_view name) const
{
	size_t i = home(name);
	while (items_[i].statement && items_[i].name != name)
		i = (i + 1) & (items_.size() - 1);
	return i;
}

ClientStatements::Item *ClientStatements::item(std::string_view name)
{
	if (items_.empty())
		return nullptr;
	Item &i = items_[place_of(known_part(name))];
	return i.statement ? &i : nullptr;
}

void ClientStatements::grow()
{
	std::vector<Item> old(std::max<size_t>(2, items_.size() * 2));
	old.swap(items_);
	for (Item &i : old) {
		if (i.statement)
			items_[place_of(i.name)] = std::move(i);
	}
}

// What stands behind it because its own place was taken moves up.
void ClientStatements::erase(size_t hole)
{
	const size_t mask = items_.size() - 1;
	for (size_t i = (hole + 1) & mask; items_[i].statement; i = (i + 1) & mask) {
		if (((i - home(items_[i].name)) & mask) < ((i - hole) & mask))
			continue;
		items_[hole] = std::move(items_[i]);
		hole = i;
	}
	items_[hole].name.clear();
	items_[hole].statement = nullptr;
	size_--;
}

Statement *ClientStatements::find(std::string_view name) const
{
	const Item *i = item(name);
	return i ? i->statement : nullptr;
}

Shape ClientStatements::shape(std::string_view name) const
{
	const Item *i = item(name);
	return i ? i->shape : Shape{};
}

void ClientStatements::Item::learn(const Statement *s, Shape told)
{
	if (statement == s && !shape.known() && (shape.types == 0 || shape.types == told.types))
		shape = told;
}

void ClientStatements::forget_columns(std::string_view name)
{
	if (Item *i = item(name))
		i->shape.columns = 0;
}

std::string_view ClientStatements::name_of(std::string_view server_name)
{
	if (!by_server_name_) {
		by_server_name_ = std::make_unique<std::unordered_multimap<std::string_view, std::string>>();
		for (const Item &item : items_) {
			if (item.statement)
				by_server_name_->emplace(item.statement->name, item.name);
		}
	}
	const auto it = by_server_name_->find(server_name);
	return it == by_server_name_->end() ? std::string_view() : it->second;
}

void ClientStatements::forget_server_name(const Statement *s, std::string_view name)
{
	const auto all = by_server_name_->equal_range(s->name);
	const auto it = std::find_if(all.first, all.second, [name](const auto &entry) { return entry.second == name; });
	if (it != all.second)
		by_server_name_->erase(it);
}

Meaning ClientStatements::set(std::string_view name, const Meaning &now)
{
	name = known_part(name);
	const Item *there = item(name);
	const Meaning before = there ? Meaning{there->statement, there->shape, there->batch} : Meaning{};
	Statement *s = now.statement;
	bytes_ += (s ? s->body.size() : 0) - (before.statement ? before.statement->body.size() : 0);
	if (!s && !before.statement)
		return {};
	if (before.statement && by_server_name_)
		forget_server_name(before.statement, name);
	if (s && by_server_name_)
		by_server_name_->emplace(s->name, name);
	if (!s) {
		erase(place_of(name));
		return before;
	}
	if (!before.statement && (size_ + 1) * 4 > items_.size() * 3)
		grow();
	Item &item = items_[place_of(name)];
	if (!before.statement) {
		item.name = name;
		size_++;
	}
	item.statement = s;
	item.shape = now.shape;
	item.batch = now.batch;
	return before;
}

std::vector<ClientStatements::Item> ClientStatements::take_all()
{
	std::vector<Item> all = std::exchange(items_, {});
	by_server_name_.reset();
	all.erase(std::remove_if(all.begin(), all.end(), [](const Item &i) { return !i.statement; }), all.end());
	bytes_ = size_ = 0;
	return all;
}

// ---- what a backend has

ServerStatements::There ServerStatements::look(Statement *s, uint64_t batch)
{
	auto it = items_.find(s);
	if (it == items_.end())
		return {};
	Item &item = it->second;
	if (item.pending > 0 && item.batch != batch)
		return {Has::Unsettled, item.shape};
	if (!item.will_be())
		return {Has::No, item.shape};
	if (used_.begin() != item.used)
		used_.splice(used_.begin(), used_, item.used);
	return {outdated(s, item) ? Has::Outdated : Has::Yes, item.shape};
}

bool ServerStatements::present(Statement *s) const
{
	auto it = items_.find(s);
	return it != items_.end() && it->second.there && it->second.pending == 0 && !outdated(s, it->second);
}

Shape ServerStatements::shape(const Statement *s) const
{
	const auto it = items_.find(const_cast<Statement *>(s));
	return it != items_.end() ? it->second.shape : Shape{};
}

uint64_t ServerStatements::parsed_at(const Statement *s) const
{
	const auto it = items_.find(const_cast<Statement *>(s));
	return it != items_.end() ? it->second.parsed_at : 0;
}

void ServerStatements::set_shape(const Statement *s, Shape shape)
{
	const auto it = items_.find(const_cast<Statement *>(s));
	if (it != items_.end() && it->second.pending == 0)
		it->second.shape = shape;
}

void ServerStatements::parsing(Statement *s, uint64_t batch, uint64_t clock)
{
	auto it = items_.find(s);
	if (it == items_.end()) {
		StatementStore::keep(s);
		used_.push_front(s);
		it = items_.emplace(s, Item{}).first;
		it->second.used = used_.begin();
	}
	it->second.batch = batch;
	it->second.parsed_at = clock;
	it->second.shape = {};
	it->second.pending++;
	will_be_++;
}

void ServerStatements::closing(Statement *s, uint64_t batch)
{
	Item &item = items_.at(s);
	used_.splice(used_.begin(), used_, item.used); // so that those that can go stand at the end
	item.batch = batch;
	item.pending++;
	will_be_--;
}

void ServerStatements::confirm(Statement *s, StatementStore &store)
{
	auto it = items_.find(s);
	if (it == items_.end() || it->second.pending == 0)
		return;
	it->second.pending--;
	it->second.there = !it->second.there;
	it->second.gone = false;
	drop_if_gone(it, store);
}

void ServerStatements::take_back(Statement *s, StatementStore &store)
{
	auto it = items_.find(s);
	if (it == items_.end() || it->second.pending == 0)
		return;
	Item &item = it->second;
	const bool was_parse = item.will_be();
	item.pending--;
	will_be_ = was_parse ? will_be_ - 1 : will_be_ + 1;
	item.parsed_at = 0; // may have been that of the one taken back
	drop_if_gone(it, store);
}

void ServerStatements::drop_if_gone(Items::iterator it, StatementStore &store)
{
	Item &item = it->second;
	if (item.pending > 0 || (item.there && !item.gone))
		return;
	if (item.there)
		will_be_--;
	Statement *s = it->first;
	used_.erase(item.used);
	items_.erase(it);
	store.release(s);
}

Statement *ServerStatements::surplus(size_t limit, uint64_t batch) const
{
	if (will_be_ <= limit)
		return nullptr;
	// Those that cannot go wait for replies; when there are many, it is soon enough behind them.
	size_t looks = kMostLooks;
	for (auto it = used_.rbegin(); it != used_.rend() && looks-- > 0; ++it) {
		const Item &item = items_.at(*it);
		if (item.will_be() && (item.pending == 0 || item.batch == batch))
			return *it;
	}
	return nullptr;
}

// A version, how many, and the number of each, the one that was used last in the end.
std::string ServerStatements::save() const
{
	std::string numbers, saved;
	proto::Writer w(numbers);
	uint32_t count = 0;
	for (auto it = used_.rbegin(); it != used_.rend(); ++it) {
		const Item &item = items_.at(*it);
		if (!item.there || item.pending > 0)
			continue;
		w.u32(static_cast<uint32_t>((*it)->number >> 32)).u32(static_cast<uint32_t>((*it)->number));
		count++;
	}
	proto::Writer(saved).u8(kSavedVersion).u32(count).bytes(numbers);
	return saved;
}

bool ServerStatements::load(std::string_view saved, StatementStore &store)
{
	proto::Reader r(saved);
	const bool version = r.u8() == kSavedVersion;
	const uint32_t count = r.u32();
	if (!r.ok() || !version || count > kMostSaved || r.left() != count * sizeof(uint64_t))
		return false;
	std::vector<uint64_t> numbers;
	std::unordered_set<uint64_t> seen;
	for (uint32_t i = 0; i < count; i++) {
		const uint64_t high = r.u32();
		const uint64_t number = high << 32 | r.u32();
		if (!store.may_exist(number) || !seen.insert(number).second)
			return false;
		numbers.push_back(number);
	}
	for (Statement *s : store.of_numbers(numbers)) {
		used_.push_front(s);
		Item &item = items_[s];
		item.used = used_.begin();
		item.there = true;
		will_be_++;
	}
	distrust(store.advance());
	return true;
}

void ServerStatements::clear(StatementStore &store)
{
	for (auto it = items_.begin(); it != items_.end();) {
		auto next = std::next(it);
		it->second.gone = it->second.there;
		drop_if_gone(it, store);
		it = next;
	}
}

void ServerStatements::drop_all(StatementStore &store)
{
	for (Statement *s : used_)
		store.release(s);
	used_.clear();
	items_.clear();
	will_be_ = 0;
}

} // namespace pgpool::core
