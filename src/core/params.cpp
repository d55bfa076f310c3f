// See params.hpp.
#include "core/params.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "proto/message.hpp"
#include "proto/startup.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

bool name_less(std::string_view a, std::string_view b)
{
	auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
	return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
	                                    [&](char x, char y) { return lower(x) < lower(y); });
}

bool same(const Param &a, const Param &b)
{
	return a.reported == b.reported && a.value == b.value && proto::equal_names(a.name, b.name);
}

} // namespace

const Param *ParamSet::find(std::string_view name) const
{
	auto it = std::lower_bound(items.begin(), items.end(), name,
	                           [](const Param &p, std::string_view n) { return name_less(p.name, n); });
	return it != items.end() && proto::equal_names(it->name, name) ? &*it : nullptr;
}

// A name is looked up and a literal is converted when a statement is parsed: what is shared must have been read under
// the same rules. PostgreSQL itself looks again at a plan when search_path or the role is another, but not at who may
// use a schema, and not at literals.
const std::string &ParamSet::reading() const
{
	if (reading_.empty()) {
		for (const char *name : {"client_encoding", "standard_conforming_strings", "backslash_quote",
		                         "transform_null_equals", "search_path", "role", "TimeZone", "timezone_abbreviations",
		                         "DateStyle", "IntervalStyle", "lc_monetary", "array_nulls", "xmloption"}) {
			if (const Param *p = find(name))
				reading_ += p->value;
			reading_ += '\0';
		}
	}
	return reading_;
}

Params::Params(ParamStore *store, const ParamSet *set) : store_(store), set_(set)
{
	if (set_)
		set_->references++;
}

Params::Params(const Params &other) : Params(other.store_, other.set_) {}

Params::Params(Params &&other) noexcept
    : store_(std::exchange(other.store_, nullptr)), set_(std::exchange(other.set_, nullptr))
{
}

Params &Params::operator=(Params other) noexcept
{
	std::swap(store_, other.store_);
	std::swap(set_, other.set_);
	return *this;
}

Params::~Params()
{
	if (set_ && --set_->references == 0)
		store_->release(set_);
}

Params Params::with(std::string_view name, std::string_view value, bool reported) const
{
	std::vector<Param> items = set_->items;
	auto it = std::lower_bound(items.begin(), items.end(), name,
	                           [](const Param &p, std::string_view n) { return name_less(p.name, n); });
	if (it != items.end() && proto::equal_names(it->name, name)) {
		if (it->value == value && it->reported == (it->reported || reported))
			return *this;
		it->value = value;
		it->reported |= reported;
	} else {
		items.insert(it, Param{std::string(name), std::string(value), reported});
	}
	return store_->intern(std::move(items));
}

Params Params::without(std::string_view name) const
{
	if (!set_->find(name))
		return *this;
	std::vector<Param> items;
	for (const Param &p : set_->items) {
		if (!proto::equal_names(p.name, name))
			items.push_back(p);
	}
	return store_->intern(std::move(items));
}

Params Params::reported_only() const
{
	std::vector<Param> items;
	for (const Param &p : set_->items) {
		if (p.reported)
			items.push_back(p);
	}
	return store_->intern(std::move(items));
}

Params ParamStore::intern(std::vector<Param> items)
{
	uint64_t hash = 1469598103934665603ULL;
	for (const Param &p : items)
		hash = (hash ^ std::hash<std::string>{}(p.value)) * 1099511628211ULL + p.name.size();
	auto range = sets_.equal_range(hash);
	for (auto it = range.first; it != range.second; ++it) {
		const std::vector<Param> &have = it->second->items;
		if (std::equal(have.begin(), have.end(), items.begin(), items.end(), same))
			return Params(this, it->second);
	}
	auto *set = new ParamSet;
	set->items = std::move(items);
	set->hash = hash;
	sets_.emplace(hash, set);
	return Params(this, set);
}

void ParamStore::release(const ParamSet *set)
{
	auto range = sets_.equal_range(set->hash);
	for (auto it = range.first; it != range.second; ++it) {
		if (it->second == set) {
			sets_.erase(it);
			delete set;
			return;
		}
	}
}

std::string sql_between(const ParamSet &have, const ParamSet &want, bool &only_reported)
{
	std::string sql;
	only_reported = true;
	// The role goes first and comes last: with another one some of the values could not be set.
	const Param *role = want.find("role");
	const Param *present_role = have.find("role");
	if (present_role && (!role || role->value != present_role->value)) {
		sql += "RESET role;";
		only_reported = false;
	}
	for (const Param &p : have.items) {
		if (p.reported || &p == present_role || want.find(p.name))
			continue;
		sql += "RESET ";
		proto::append_identifier(sql, p.name);
		sql += ';';
		only_reported = false;
	}
	bool first = true;
	auto set = [&](const Param &p) {
		const Param *h = have.find(p.name);
		if (h && h->value == p.value)
			return;
		sql += first ? "SELECT pg_catalog.set_config(" : ",pg_catalog.set_config(";
		first = false;
		proto::append_literal(sql, p.name);
		sql += ',';
		proto::append_literal(sql, p.value);
		sql += ",false)";
		only_reported &= p.reported;
	};
	for (const Param &p : want.items) {
		if (&p != role)
			set(p);
	}
	if (role)
		set(*role);
	return sql;
}

bool is_fixed_parameter(std::string_view name)
{
	static constexpr std::string_view kFixed[] = {"server_version", "server_encoding",       "integer_datetimes",
	                                              "is_superuser",   "session_authorization", "in_hot_standby"};
	for (std::string_view f : kFixed) {
		if (f == name)
			return true;
	}
	return false;
}

} // namespace pgpool::core
