// What a fresh login is told: settings, warnings, what is fixed; and what the settings of clients' startups become.
//
// Owns what the pool's servers said of it. It is true for one epoch of the pool: the first server that logs in in
// another one says it anew. Must not know servers and clients.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/settings/params.hpp"

namespace pgpool::core
{

class Greeting
{
public:
	struct Started {
		Params params;
		int32_t idle_session_timeout; // ms
	};

	// What is known still holds.
	bool holds(uint32_t epoch) const { return base_ && epoch_ == epoch; }
	bool is_of(uint32_t epoch) const { return epoch_ == epoch; }
	void learn(const Params &base, const std::string &notices, uint32_t epoch);
	const Params &base() const { return base_; }
	const std::string &notices() const { return notices_; } // as messages

	// What no session can change.
	void set_fixed(std::string_view name, std::string_view value);
	const std::vector<std::pair<std::string, std::string>> &fixed() const { return fixed_; }
	bool in_hot_standby() const { return standby_ == Standby::On; } // as far as a server or the manager told
	void leave_hot_standby();

	// Startup settings as the server understood them, by what the client sent; nullptr: not known.
	const Started *started(const std::string &key) const;
	void remember(const std::string &key, Started started);

private:
	// Off is for good: there is no way back but a restart, of the workers as well. So a server that says On then says
	// what was true before.
	enum class Standby : uint8_t { Unknown, On, Off };

	Params base_;
	std::string notices_;
	std::vector<std::pair<std::string, std::string>> fixed_;
	std::unordered_map<std::string, Started> known_startups_;
	uint32_t epoch_ = 0; // of base_
	Standby standby_ = Standby::Unknown;
};

} // namespace pgpool::core
