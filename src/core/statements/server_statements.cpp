// See server_statements.hpp.
#include "core/statements/server_statements.hpp"

#include <iterator>
#include <unordered_set>
#include <utility>
#include <vector>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kMostLooks = 16; // for a statement that can go
constexpr uint8_t kSavedVersion = 1;
constexpr uint32_t kMostSaved = 1 << 17; // statements of one backend: more than max_prepared_statements can say

} // namespace

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
