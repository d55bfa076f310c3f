// isocheck: what its parts know of each other. isocheck.cpp says what the program is.
//
// Owns the state of a client and of the run. A client's connection, and what it does next, is isocheck_client.cpp;
// whether a message is the right one isocheck_replies.cpp; bytes and time isocheck_loop.cpp; the table that all write
// to isocheck_table.cpp.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "isomix.hpp"

namespace iso
{

using namespace rawpg;

struct Settings {
	Target target;
	std::vector<std::string> users, databases;
	uint64_t clients, replies, seconds, seed, bad, hang_ms, tls_percent, least;
	bool allow_wait_timeout, allow_disconnect, with_params, with_cancel, with_rst, with_half_close, with_split,
	    with_idle;
	std::vector<std::pair<std::string, unsigned>> mix;
	unsigned mix_sum = 0;
};

struct Totals {
	uint64_t replies = 0, messages = 0, bytes = 0, episodes = 0, logins = 0, resets = 0, leaves = 0;
	uint64_t half_closes = 0, cut_messages = 0, open_transactions = 0, cancels = 0, cancelled = 0, late_cancels = 0;
	uint64_t split_sends = 0, stalls = 0, slow_reads = 0, wait_timeouts = 0, parameter_status = 0, lost = 0;
	std::map<std::string, uint64_t> by_kind;
};

// How an episode is broken off.
enum class Break { None, ResetSending, CloseSending, ResetReceiving, HalfClose, HalfCloseCut, LeaveAfter };
enum class Chop { Whole, EachByte, Random, Stall };

struct Plan {
	Break how = Break::None;
	size_t step = 0, bytes = 0; // of the step: sent, or received since it began
	Chop chop = Chop::Whole;
	uint64_t stall_at = 0, stall_us = 0;
	uint64_t read_stall_us = 0;
};

enum class Phase { Backoff, Connecting, TlsAsk, TlsShake, LoggingIn, Running, Closing, Done };
inline const char *const kPhases[] = {"backoff",    "connecting", "tls ask", "tls handshake",
                                      "logging in", "running",    "closing", "done"};

struct Client {
	explicit Client(uint64_t seed) : rng(seed) {}
	unsigned number = 0;
	Rng rng;
	Self self;
	Target target;
	Phase phase = Phase::Backoff;
	Channel channel, cancel_channel;
	std::unique_ptr<Login> login;
	Splitter in;
	std::map<std::string, std::string> parameters;
	std::set<std::string> reported;
	Bytes out; // login bytes, or the current step's
	size_t sent = 0;
	Episode episode;
	Plan plan;
	size_t step = 0;
	std::deque<Expect> expects;
	bool step_done = false;
	uint64_t received = 0; // since the step began
	uint64_t send_after = 0, read_after = 0, progress = 0, backoff_until = 0;
	uint64_t login_began = 0;
	uint64_t cancel_at = 0;
	enum class Cancel { None, Planned, Connecting, Sent, Over } cancel = Cancel::None;
	bool cancelled = false, skipping = false, given_up = false;
	uint32_t watching = 0, cancel_watching = 0;
	std::vector<Insert> ledger;
	std::deque<Message> last; // bodies cut short
	std::deque<size_t> last_size;
};

// ---- the run
extern Settings cfg;
extern Totals totals;
extern std::vector<std::unique_ptr<Client>> clients;
extern std::map<std::string, unsigned> owner_of_tag;
extern int epoll_fd;
extern bool failed, stopping;
extern uint64_t started;

// ---- a client
void fail(const Client &c, const std::string &what, const std::string &got);
void remember(Client &c, const Message &m);
void watch(Channel &channel, uint32_t &now, uint32_t wanted, uint64_t id);
void drop_cancel(Client &c);
void leave(Client &c, bool reset);
void lost(Client &c, const std::string &why);
void begin_connect(Client &c);
void send_startup(Client &c);
void begin_episode(Client &c);
void next_step_or_episode(Client &c); // if all is answered

// ---- the others
void take(Client &c, const Message &m); // came, and must be the next one that is expected
void loop();
bool prepare(); // the table
void verify();  // ... has what it must have

} // namespace iso
