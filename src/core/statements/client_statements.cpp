// See client_statements.hpp.
#include "core/statements/client_statements.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

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

} // namespace pgpool::core
