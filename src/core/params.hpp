// Session settings as sets that can be compared by pointer.
//
// A ParamSet is an immutable, interned set of (name, value). A client has the one it wants, a server the
// one it has; equal sets are the same object, so the usual case costs one comparison. `reported` are those
// that the server tells by ParameterStatus and that a client may set; the others came with a client's
// startup packet and are known only because pgpool set them.
// Owns the sets and the SQL that leads from one to another. Knows no session.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pgpool::core
{

struct Param {
	std::string name; // in the server's spelling; compared without ASCII case
	std::string value;
	bool reported;
};

struct ParamSet {
	std::vector<Param> items; // sorted by name
	uint64_t hash = 0;
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
	Params with(std::string_view name, std::string_view value, bool reported) const;
	Params without(std::string_view name) const;
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
	Params intern(std::vector<Param> items);
	size_t size() const { return sets_.size(); }

private:
	friend class Params;
	void release(const ParamSet *set);

	std::unordered_multimap<uint64_t, ParamSet *> sets_; // by hash
};

// SQL that makes a session with `have` one with `want`; "" = nothing to do. `only_reported` is set when
// nothing but values that a server itself reported (and so must accept) is set.
std::string sql_between(const ParamSet &have, const ParamSet &want, bool &only_reported);

// Reported by the server, but not to be set: they describe the server or the role.
bool is_fixed_parameter(std::string_view name);

} // namespace pgpool::core
