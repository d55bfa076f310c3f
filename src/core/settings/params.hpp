// Session settings as sets that can be compared by pointer.
//
// A ParamSet is an immutable, interned set of (name, value). A client has the one it wants, a server the
// one it has; equal sets are the same object, so the usual case costs one comparison. `reported` are those
// that the server tells by ParameterStatus and that a client may set; the others came with a client's
// startup packet and are known only because pgpool set them. `preset` are those of the reported that nobody has set:
// their value is that of a fresh login, whatever that is at the server that serves next.
// Owns the sets and the SQL that leads from one to another. Knows no session.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pgpool::proto
{
class Reader;
}

namespace pgpool::core
{

struct Param {
	std::string name; // in the server's spelling; compared without ASCII case
	std::string value;
	bool reported;
	bool unknown; // the value is more than pgpool keeps: only the server has it
	bool preset = false;
	uint64_t hash = 0;
};

struct ParamSet {
	// Sorted by name. Sets have them in common, so that one more costs a pointer for each of the others.
	using Items = std::vector<std::shared_ptr<const Param>>;
	Items items;
	uint64_t hash = 0;
	size_t bytes = 0;   // of names and values
	size_t own = 0;     // those that the server does not report by itself
	size_t unknown = 0; // those whose value is
	mutable uint32_t references = 0;

	const Param *find(std::string_view name) const;
	// Values of those settings that decide what a text means when it is parsed.
	const std::string &reading() const;

private:
	mutable std::string reading_; // made when first asked for
};

class ParamStore;

// A counted reference to an interned set.
class Params
{
public:
	Params() = default;
	Params(ParamStore *store, const ParamSet *set);
	Params(const Params &other);
	Params(Params &&other) noexcept;
	Params &operator=(Params other) noexcept;
	~Params();

	explicit operator bool() const { return set_ != nullptr; }
	const ParamSet *operator->() const { return set_; }
	const ParamSet *get() const { return set_; }
	bool operator==(const Params &o) const { return set_ == o.set_; }
	bool operator!=(const Params &o) const { return set_ != o.set_; }

	// The same set with one value changed or added.
	Params with(std::string_view name, std::string_view value, bool reported, bool unknown = false,
	            bool preset = false) const;
	Params without(std::string_view name) const;
	// Of the reported ones, those whose names are in the list (with commas) are somebody's own, the others preset.
	Params with_own(std::string_view names) const;
	// The same for a server that has `have`: what is preset is what it is there. `defaults` says what it goes back to
	// where somebody has set it.
	Params preset_as(const Params &have, const Params &defaults) const;
	// Only what the server reports: what is left after DISCARD ALL.
	Params reported_only() const;

private:
	ParamStore *store_ = nullptr;
	const ParamSet *set_ = nullptr;
};

class ParamStore
{
public:
	Params empty() { return intern({}); }
	Params intern(ParamSet::Items items);
	// A set as bytes, and back. nullptr in it: `r` does not go on with what save() makes of a set.
	static void save(const ParamSet &set, std::string &out);
	Params load(proto::Reader &r);
	size_t size() const { return sets_.size(); }

private:
	friend class Params;
	void release(const ParamSet *set);

	std::unordered_multimap<uint64_t, ParamSet *> sets_; // by hash
};

// SQL that makes a session with `have` one with `want`; "" = nothing to do. `only_reported` is set when
// nothing but values that a server itself reported (and so must accept) is set. No value comes back as a result: the
// client's encoding may not have it.
std::string sql_between(const ParamSet &have, const ParamSet &want, bool &only_reported);
// The same as one statement for each setting, in the order in which they must run.
struct SettingSql {
	std::string name, sql;
};
std::vector<SettingSql> each_between(const ParamSet &have, const ParamSet &want);

// Reported by the server, but not to be set: they describe the server or the role.
bool is_fixed_parameter(std::string_view name);
bool is_tcp_setting(std::string_view name);                  // acts on the client's connection
constexpr std::string_view kInHotStandby = "in_hot_standby"; // the only one of these that changes by itself

} // namespace pgpool::core
