// What became of a pool's last logins at the server: when the next one may be tried, and what clients that wait are
// told.
//
// States. Clear: servers are opened as they are needed. After a failure: none before retry_at_. Full: the server
// refused one at a limit of its own; one at a time is tried, and servers that count for that limit are asked to go. In
// doubt (the refusal that is kept): the server judged the names that it was asked for, and whether these are still the
// pool's, also on a standby, the manager knows when it has looked after that.
// Owns the judgement of a login's error. Must not know servers, clients and places.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "proto/message.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class Attempts
{
public:
	struct Refusal {
		proto::Error why;
		bool fatal;    // to a session that waits
		uint32_t look; // of the manager, after which it counts
	};
	// What a failure means to a client that waits: it goes on waiting, its session goes on without a server, it ends.
	enum class Verdict { Wait, Error, Fatal };
	static Verdict judge(const proto::Error &why, bool refused_by_server);

	void failed(const proto::Error &why, control::ServerLimit limit, int64_t now);
	void succeeded(int64_t now);
	// A server is there although one was refused: there may be room for the next who waits.
	void made_room(bool is_wanted, int64_t now);
	// The proof, the names or the place are others: the next try may succeed, and waits no longer.
	void retry() { retry_at_ = 0; }

	bool must_wait(int64_t now) const { return now < retry_at_; }
	control::ServerLimit full() const { return full_; }
	bool is_full() const { return full_ != control::ServerLimit::None; }
	const proto::Error &last_failure() const { return last_failure_; } // no sqlstate: there is none

	bool in_doubt() const { return refusal_.has_value(); }
	void doubt(Refusal refusal) { refusal_ = std::move(refusal); }
	const std::optional<Refusal> &refusal() const { return refusal_; }
	Refusal take_refusal() { return *std::exchange(refusal_, std::nullopt); }
	void forget_refusal() { refusal_.reset(); }

	// One line in a second tells of failures.
	bool may_log(int64_t now);

private:
	int64_t retry_at_ = 0;
	control::ServerLimit full_ = control::ServerLimit::None;
	int64_t failed_at_ = 0;
	int64_t logged_at_ = 0;
	std::optional<Refusal> refusal_;
	proto::Error last_failure_;
};

} // namespace pgpool::core
