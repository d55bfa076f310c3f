// The settings that a backend has, and how it gets those of the client that it serves next.
//
// Owns what the backend told of them, what a fresh login has, what RESET goes back to, and a change that is on its way:
// the difference goes out in front of the client's own bytes, which are kept until it is known that the backend took
// it; or one by one, so that those that cannot be made again are known. Must not know sessions, nor who sends what it
// makes.
//
//   None -> Sent -> None              the client's messages go right behind; if it is refused, none of them has run
//   None -> Awaited -> None           the client waits; if it is refused, until its server is closed
//   None -> OneByOne -> None          it waits, too
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/agent/agent_link.hpp"
#include "core/settings/params.hpp"
#include "core/base/ports.hpp"
#include "proto/message.hpp"
#include "region/settings.hpp"

namespace pgpool::core
{

class ServerSettings
{
public:
	ServerSettings(ParamStore &store, const region::Settings &limits, const AgentLink &agent);

	const Params &now() const { return now_; }

	// ---- what the backend tells
	// True: PostgreSQL itself reports it, so the client is to hear it. `whole`: else the value is not known.
	bool tell(std::string_view name, std::string_view value, bool whole);
	void tell_reset(std::string_view name, std::string_view value, bool whole); // back to what RESET goes back to
	void tell_own(std::string_view names) { now_ = now_.with_own(names); }      // of those that are reported
	void tell_discarded() { now_ = now_.reported_only(); }                      // DISCARD ALL was executed
	void logged_in() { native_ = now_; } // up to now it told those of a fresh login
	void end_round();                    // a ReadyForQuery
	// More than may go from server to server, or something that is not known: the client keeps this one.
	bool too_many() const;
	size_t most_value() const; // one that is longer is not read whole
	static constexpr size_t kLongestName = 1024;

	void set_defaults(const Params &defaults) { defaults_ = defaults; }
	const Params &defaults() const { return defaults_; } // null: the server's own

	// ---- a change
	// To settings other than now(). False: there is nothing to send. Else query() is to be; `ground` is SQL to run
	// before.
	[[nodiscard]] bool change_to(const Params &want, bool must_wait, std::string_view ground);
	const std::string &query() const { return query_; }       // stays until the reply
	[[nodiscard]] bool change_one_by_one(const Params &want); // the same with each()
	const std::vector<SettingSql> &each() const { return each_; }
	bool one_by_one() const { return change_ == Change::OneByOne; }
	bool awaited() const { return change_ == Change::Awaited || one_by_one(); } // the client waits
	// What the client sent meanwhile: the backend runs nothing of it if they are refused.
	bool unproved() const { return change_ == Change::Sent; }
	void keep_unproved(std::string_view bytes) { unproved_ += bytes; }
	std::string take_unproved() { return std::exchange(unproved_, {}); }
	bool has_unproved() const { return !unproved_.empty(); }
	bool has_much_unproved() const { return unproved_.size() > kChunk; }

	// The reply to one of each().
	enum class Progress { More, Again, Done }; // Again: all of each() are to be sent once more
	Progress answered(const proto::Error &error);
	void in_force(); // the change is
	void fail();     // it was refused; who awaits it does so until the server is closed
	// What the client has not set is what a fresh login would have now: messages, where it was told something else.
	std::string news() const;
	struct Refused {
		std::string name;
		proto::Error why;
	};
	const std::vector<Refused> &refused() const { return refused_; } // of the last change

	// All but a change that is on its way, as bytes for another worker. load() into those of a new server; false, and
	// nothing is changed: save() has not made these bytes.
	std::string save() const;
	[[nodiscard]] bool load(std::string_view saved);

private:
	enum class Change : uint8_t { None, Sent, Awaited, OneByOne };

	void keep(std::string_view name, std::string_view value, bool whole, bool reported);
	bool is_preset(std::string_view name, std::string_view value) const;
	bool is_refused(std::string_view name) const;
	bool reports(std::string_view name) const; // by itself
	void begin(const Params &want);

	ParamStore &store_;
	const region::Settings &limits_;
	const AgentLink &agent_;
	Params now_;
	Params native_;   // what the server reports by itself, as a fresh login has it; null: it has not logged in
	Params defaults_; // what RESET goes back to, other than the server's own defaults
	Change change_ = Change::None;
	Params target_; // of the change
	Params told_;   // the same as the client knows them
	std::string query_;
	std::string unproved_;
	std::vector<SettingSql> each_;
	size_t each_done_ = 0;
	int each_again_ = 0; // so many may yet be tried once more
	bool each_canceled_ = false;
	std::vector<Refused> refused_;
	bool preset_changed_ = false; // one may be another since the last ReadyForQuery
	bool untracked_ = false;      // it has more settings than are looked at, so nobody else can ever have it
};

} // namespace pgpool::core
