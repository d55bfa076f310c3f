// See greeting.hpp.
#include "core/group/greeting.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

void Greeting::learn(const Params &base, const std::string &notices, uint32_t epoch)
{
	base_ = base;
	notices_ = notices;
	epoch_ = epoch;
	known_startups_.clear(); // defaults may have changed
}

void Greeting::set_fixed(std::string_view name, std::string_view value)
{
	if (name == kInHotStandby) {
		if (standby_ == Standby::Off)
			value = "off";
		standby_ = value == "on" ? Standby::On : Standby::Off;
	}
	for (auto &f : fixed_) {
		if (f.first == name) {
			f.second = value;
			return;
		}
	}
	fixed_.emplace_back(name, value);
}

void Greeting::leave_hot_standby()
{
	if (standby_ == Standby::On)
		set_fixed(kInHotStandby, "off");
	standby_ = Standby::Off;
}

const Greeting::Started *Greeting::started(const std::string &key) const
{
	auto it = known_startups_.find(key);
	return it == known_startups_.end() ? nullptr : &it->second;
}

void Greeting::remember(const std::string &key, Started started)
{
	constexpr size_t kMostKnown = 1000; // a client that starts with random settings must not fill the memory
	if (known_startups_.size() >= kMostKnown)
		known_startups_.clear();
	known_startups_[key] = std::move(started);
}

} // namespace pgpool::core
