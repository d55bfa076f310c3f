// A server's link to the agent in its backend: a slot of the region that both know. See region::AgentSlot.
//
// Has the slot from the startup packet to the server's end; owns what is written there, and what the agent has told
// that is no setting. A server without a slot (a route by TCP, none free) has a link, too: what is said there goes to a
// slot that no backend has. A slot whose agent never answered (a library that is not preloaded) is written like any,
// and nobody reads it: to ask each time whether somebody does would cost more. What is asked of either has the answer
// of an agent that says nothing. So who uses a link need not know. Must not know sessions, settings by name, nor what
// is sent to the backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "region/layout.hpp"

namespace pgpool::core
{

struct ParamSet;

class AgentLink
{
public:
	AgentLink();
	AgentLink(const AgentLink &) = delete;
	AgentLink &operator=(const AgentLink &) = delete;

	void take(uint32_t number, region::AgentSlot &slot); // before the startup packet
	void leave();                                        // the slot is another's
	bool has_slot() const;
	uint32_t slot() const { return number_; }
	std::string name() const; // as the startup packet says it; "" = there is none

	// ---- what the agent says
	void answers(bool there) { there_ = there; }
	// It tells all settings, and lets nothing run behind a query of ours that fails.
	bool there() const { return there_; }
	void set_idle_session_timeout(int32_t ms) { idle_session_timeout_ = ms; }
	int32_t idle_session_timeout() const { return idle_session_timeout_; } // of the client that is served, ms
	// The end of the last commit that wrote, unless it is known; 0 = there is none.
	uint64_t new_commit();
	void ignore_commits() { commit_known_ = commit_lsn(); } // up to now they are another client's, or noted

	// ---- what it is told; all of it before a message that it is about
	void serve(uint64_t client, std::string_view address, bool pin_sequences);
	void show_idle(); // it serves nobody
	bool needs_show_idle() const { return there_ && !shown_idle_; }
	void set_defaults(const ParamSet *defaults); // what RESET goes back to; nullptr: the server's own
	void announce_custom(uint64_t statement);    // its plans are to be made for their parameters each time
	void announce_own();                         // a query of ours is sent to a backend that waits for one
	// What runs now is ours and may be refused: settings one by one (whose values shall not get into the server's log),
	// LISTEN.
	void hush(bool on);

private:
	void identify(uint64_t client, std::string_view address);
	uint64_t commit_lsn() const;

	region::AgentSlot *slot_;
	uint32_t number_ = 0;     // of the slot
	uint64_t identified_ = 0; // the client that the agent was told of, 0 = none
	uint64_t commit_known_ = 0;
	int32_t idle_session_timeout_ = 0;
	bool there_ = false;
	bool shown_idle_ = false;
};

} // namespace pgpool::core
