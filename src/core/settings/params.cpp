// See params.hpp.
#include "core/settings/params.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "proto/message.hpp"
#include "proto/startup.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// Of a setting that is saved.
constexpr int kReported = 1, kUnknown = 2, kPreset = 4, kBitsEnd = 8;

bool name_less(std::string_view a, std::string_view b)
{
	auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
	return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
	                                    [&](char x, char y) { return lower(x) < lower(y); });
}

bool is_ascii(std::string_view text)
{
	return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool same(const std::shared_ptr<const Param> &a, const std::shared_ptr<const Param> &b)
{
	return a == b || (a->hash == b->hash && a->reported == b->reported && a->unknown == b->unknown &&
	                  a->preset == b->preset && a->value == b->value && proto::equal_names(a->name, b->name));
}

ParamSet::Items::const_iterator place_of(const ParamSet::Items &items, std::string_view name)
{
	return std::lower_bound(
	    items.begin(), items.end(), name,
	    [](const std::shared_ptr<const Param> &p, std::string_view n) { return name_less(p->name, n); });
}

bool is_named(const ParamSet::Items &items, ParamSet::Items::const_iterator it, std::string_view name)
{
	return it != items.end() && proto::equal_names((*it)->name, name);
}

std::shared_ptr<const Param> make_param(std::string_view name, std::string_view value, bool reported, bool unknown,
                                        bool preset)
{
	Param p{std::string(name), std::string(value), reported, unknown, preset};
	const uint64_t kind = (reported ? 2 : 1) + (preset ? 4 : 0);
	p.hash = (std::hash<std::string_view>{}(value) ^ name.size()) * 1099511628211ULL + kind;
	return std::make_shared<const Param>(std::move(p));
}

bool is_listed(std::string_view names, std::string_view name)
{
	for (size_t at = 0; at < names.size();) {
		const size_t end = std::min(names.find(',', at), names.size());
		if (proto::equal_names(names.substr(at, end - at), name))
			return true;
		at = end + 1;
	}
	return false;
}

// A list of results has at most 1664 members.
constexpr size_t kMostInOneSelect = 1000;

void append_set(std::string &sql, const Param &p)
{
	sql += "pg_catalog.set_config(";
	proto::append_literal(sql, p.name);
	sql += ',';
	proto::append_literal(sql, p.value);
	sql += ",false) IS NULL";
}

void append_reset(std::string &sql, const Param &p)
{
	if (is_ascii(p.name)) {
		sql += "RESET ";
		proto::append_setting_name(sql, p.name);
	} else { // an identifier is read in the encoding of who has the server until now
		sql += "SELECT pg_catalog.set_config(";
		proto::append_literal(sql, p.name);
		sql += ",NULL,false) IS NULL";
	}
	sql += ';';
}

// The role goes first and comes last: with another one some of the values could not be set.
template <class Reset, class Set> void each_difference(const ParamSet &have, const ParamSet &want, Reset reset, Set set)
{
	const Param *role = want.find("role");
	const Param *present_role = have.find("role");
	if (present_role && (!role || role->value != present_role->value))
		reset(*present_role);
	// What PostgreSQL reports is in every set, so "not wanted" is not missing there but preset: the default of the
	// login.
	for (const auto &p : have.items) {
		const Param *w = want.find(p->name);
		if (p->reported ? w && w->preset && !p->preset : p.get() != present_role && !w)
			reset(*p);
	}
	auto set_if_other = [&](const Param &p) {
		const Param *h = have.find(p.name);
		// A preset one is never set: the value would stay when the default behind it changes.
		if (!p.preset && (!h || h->value != p.value || h->preset))
			set(p);
	};
	for (const auto &p : want.items) {
		if (p.get() != role)
			set_if_other(*p);
	}
	if (role)
		set_if_other(*role);
}

} // namespace

const Param *ParamSet::find(std::string_view name) const
{
	const auto it = place_of(items, name);
	return is_named(items, it, name) ? it->get() : nullptr;
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

Params Params::with(std::string_view name, std::string_view value, bool reported, bool unknown, bool preset) const
{
	const auto it = place_of(set_->items, name);
	const bool there = is_named(set_->items, it, name);
	if (there)
		reported |= (*it)->reported;
	if (there && (*it)->value == value && (*it)->reported == reported && (*it)->unknown == unknown &&
	    (*it)->preset == preset)
		return *this;
	auto param = make_param(there ? (*it)->name : name, value, reported, unknown, preset);
	ParamSet::Items items;
	items.reserve(set_->items.size() + 1);
	items.assign(set_->items.begin(), it);
	items.push_back(std::move(param));
	items.insert(items.end(), it + there, set_->items.end());
	return store_->intern(std::move(items));
}

Params Params::without(std::string_view name) const
{
	const auto it = place_of(set_->items, name);
	if (!is_named(set_->items, it, name))
		return *this;
	ParamSet::Items items(set_->items.begin(), it);
	items.insert(items.end(), it + 1, set_->items.end());
	return store_->intern(std::move(items));
}

Params Params::with_own(std::string_view names) const
{
	Params set = *this;
	for (const auto &p : set_->items) {
		if (p->reported)
			set = set.with(p->name, p->value, true, p->unknown, !is_listed(names, p->name));
	}
	return set;
}

Params Params::preset_as(const Params &have, const Params &defaults) const
{
	Params set = *this;
	for (const auto &p : set_->items) {
		const Param *there = p->preset ? have->find(p->name) : nullptr;
		if (there && !there->preset)
			there = defaults->find(p->name);
		if (there)
			set = set.with(p->name, there->value, true, there->unknown, true);
	}
	return set;
}

Params Params::reported_only() const
{
	ParamSet::Items items;
	for (const auto &p : set_->items) {
		if (p->reported)
			items.push_back(p);
	}
	return store_->intern(std::move(items));
}

Params ParamStore::intern(ParamSet::Items items)
{
	uint64_t hash = 1469598103934665603ULL;
	for (const auto &p : items)
		hash = (hash ^ p->hash) * 1099511628211ULL;
	auto range = sets_.equal_range(hash);
	for (auto it = range.first; it != range.second; ++it) {
		const ParamSet::Items &have = it->second->items;
		if (std::equal(have.begin(), have.end(), items.begin(), items.end(), same))
			return Params(this, it->second);
	}
	auto *set = new ParamSet;
	set->items = std::move(items);
	set->hash = hash;
	for (const auto &p : set->items) {
		set->bytes += p->name.size() + p->value.size();
		set->own += !p->reported;
		set->unknown += p->unknown;
	}
	sets_.emplace(hash, set);
	return Params(this, set);
}

void ParamStore::save(const ParamSet &set, std::string &out)
{
	proto::Writer w(out);
	w.u32(static_cast<uint32_t>(set.items.size()));
	for (const auto &p : set.items) {
		const int bits = (p->reported ? kReported : 0) | (p->unknown ? kUnknown : 0) | (p->preset ? kPreset : 0);
		w.u8(static_cast<uint8_t>(bits)).string(p->name).string(p->value);
	}
}

// What is looked up by halves must be in order, each name once.
Params ParamStore::load(proto::Reader &r)
{
	ParamSet::Items items;
	const uint32_t count = r.u32();
	for (uint32_t i = 0; r.ok() && i < count; i++) {
		const uint8_t bits = r.u8();
		const std::string_view name = r.string();
		const std::string_view value = r.string();
		const bool preset_only = (bits & kPreset) && !(bits & kReported);
		const bool has_both = (bits & kUnknown) && !value.empty();
		const bool in_order = items.empty() || name_less(items.back()->name, name);
		if (!r.ok() || bits >= kBitsEnd || name.empty() || preset_only || has_both || !in_order)
			return {};
		items.push_back(make_param(name, value, bits & kReported, bits & kUnknown, bits & kPreset));
	}
	return r.ok() ? intern(std::move(items)) : Params();
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
	size_t in_select = 0;
	each_difference(
	    have, want,
	    [&](const Param &p) {
		    append_reset(sql, p);
		    only_reported &= p.reported;
	    },
	    [&](const Param &p) {
		    const bool another = in_select++ % kMostInOneSelect == 0;
		    sql += another ? (in_select > 1 ? ";SELECT " : "SELECT ") : ",";
		    append_set(sql, p);
		    only_reported &= p.reported;
	    });
	return sql;
}

std::vector<SettingSql> each_between(const ParamSet &have, const ParamSet &want)
{
	std::vector<SettingSql> all;
	each_difference(
	    have, want,
	    [&](const Param &p) {
		    all.push_back({p.name, ""});
		    append_reset(all.back().sql, p);
	    },
	    [&](const Param &p) {
		    all.push_back({p.name, "SELECT "});
		    append_set(all.back().sql, p);
	    });
	return all;
}

bool is_fixed_parameter(std::string_view name)
{
	static constexpr std::string_view kFixed[] = {"server_version", "server_encoding",       "integer_datetimes",
	                                              "is_superuser",   "session_authorization", kInHotStandby};
	for (std::string_view f : kFixed) {
		if (f == name)
			return true;
	}
	return false;
}

bool is_tcp_setting(std::string_view name)
{
	return name.substr(0, 15) == "tcp_keepalives_" || name == "tcp_user_timeout";
}

} // namespace pgpool::core
