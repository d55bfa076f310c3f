// Who uses a server: whom the backend works for, and who hears what it says.
//
// A client's session (session.hpp), its login while a server says what its settings become (login.hpp), its
// subscription while it changes between a server and a listener (subscription.hpp), and a listener (listeners.hpp). One
// at a time; a server that is idle, cleaned or closed has none. What a server asks of its user at each message is told
// to it once, as `Client`. Owns the interface only. Must not know its users, nor how a server works.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/notification.hpp"
#include "core/settings/params.hpp"
#include "core/base/ports.hpp"
#include "core/account/replies.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class StatementRewriter;

// The client behind a user, as its server needs it.
struct Client {
	Stream *stream = nullptr; // for what the backend answers; nullptr: nobody reads it
	std::string_view address;
	uint64_t id = 0;     // 0 = there is none
	int32_t key_pid = 0; // that it was told as its backend's
	bool session_mode = false;
};

// What the release rule asks of a user between two messages.
struct Standing {
	bool served = false;      // the client's messages go to the server; else the server works for the user alone
	bool to_be_served = true; // its messages come behind what is ours
	bool mid_message = false; // half a message of the client's went
	bool leaving = false;     // the client sends no more
	bool pinned = false;      // the next server would not do
};

// How a server is lost.
enum class Loss : uint8_t {
	Unused, // nothing of the client's was executed: another one will do
	AtRest, // between two transactions, and it kept nothing for its client
	Gone,   // with what the client had there
	Broken, // it is of no use any more, and the client hears why
};

class ServerUser
{
public:
	virtual ~ServerUser() = default;

	virtual Standing standing() const { return {}; }
	// In words, why a server cannot be given to another client; "" = nothing.
	virtual std::string_view pinned_by() const { return {}; }

	// ---- what the backend said
	virtual void on_logged_in() {}
	virtual void on_replies(uint64_t /*forwarded*/) {}                 // all that came is taken, so much to the client
	virtual void on_ready(char /*status*/, uint64_t /*commit_lsn*/) {} // to the client; 0 = it wrote nothing
	virtual void on_round(For /*purpose*/, const proto::Error & /*why*/) {
	}                                                 // a query of ours; no SQLSTATE: without an error
	virtual void on_row(std::string_view /*body*/) {} // of a query of the user's own
	virtual bool on_notification(const Notification &) { return true; } // true: it is for the client
	virtual void on_hot_standby(bool /*on*/) {}
	virtual void on_tcp_settings(const Params & /*now*/) {}
	virtual void on_server_writable() {} // the backend takes more

	// ---- its settings
	virtual void on_settings(bool /*all*/) {} // are in force, all or all but refused(), and nothing was sent meanwhile
	[[nodiscard]] virtual bool on_settings_refused() { return false; } // false: the server is lost

	// ---- the client's end
	virtual void hold() {}    // what it sends is kept until on_round(For::Probe)
	virtual void on_left() {} // it was leaving, and has all its replies
	virtual void end(const proto::Error & /*why*/) {}
	[[nodiscard]] virtual bool on_out_of_memory() { return false; } // false: there is no client to end
	virtual bool cut_off(int64_t /*now*/) { return false; }         // true: it took nothing for too long, and is gone
	virtual void check_timeouts(int64_t /*now*/) {}
	virtual bool may_park() const { return false; }
	[[nodiscard]] virtual bool park() { return false; } // false: not now

	// ---- the server's end
	virtual void on_released() {}                               // back to its pool
	virtual void on_lost(Loss, const proto::Error * /*why*/) {} // nullptr: the backend's last words were forwarded

	// ---- its client's statements
	virtual StatementRewriter *statements() { return nullptr; }
	// The batch is served again, after this error; "" = the server was lost.
	[[nodiscard]] virtual bool start_over(std::string_view /*bytes*/, std::string_view /*sqlstate*/) { return false; }
};

} // namespace pgpool::core
