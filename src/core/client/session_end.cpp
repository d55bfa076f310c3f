// How a session ends: its client leaves, a limit of time is over, somebody sends it away. See session.hpp.
//
// Owns what is still served of a client that sends no more, and for how long. Must not know messages of clients.
#include "core/client/session.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "core/client/clients.hpp"
#include "core/client/login.hpp"
#include "core/client/subscription.hpp"
#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "proto/message.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kHalfCloseGrace = 500000; // for a reply to a client that will send no more, microseconds
constexpr int64_t kIdleBeforeShared = 1000; // then a text of its own is memory better saved, milliseconds

bool finishes(const PoolGroup *group)
{
	return group && group->settings().on_disconnect.load(std::memory_order_relaxed) == region::OnDisconnect::Finish;
}

// query_wait_timeout, in microseconds
int64_t patience(const PoolGroup &group)
{
	const int32_t limit = group.settings().query_wait_timeout.load(std::memory_order_relaxed);
	return limit > 0 ? int64_t{limit} * 1000 : INT64_MAX;
}

// For the log.
std::string described(Session &session)
{
	std::string who = "client " + session.stream()->peer();
	if (const PoolGroup *group = session.group())
		who += " of role \"" + group->role() + "\", database \"" + group->database() + "\", tenant \"" +
		       group->tenant() + "\",";
	return who;
}

void log_timed_out(Session &session)
{
	Context &context = session.context();
	const region::Settings &s = context.settings();
	const std::string what =
	    " did not acknowledge what was sent to it: the connection timed out (pgpool.tcp_user_timeout is " +
	    std::to_string(s.tcp_user_timeout) + " ms, pgpool.tcp_keepalives_idle " +
	    std::to_string(s.tcp_keepalives_idle) + " s)";
	if (session.login())
		context.log_stranger(*session.stream(), "a client that logs in" + what);
	else
		context.outside().log(described(session) + what);
}

} // namespace

// ---- the client leaves

// What came before the end of file is served, as by a backend, which reads that last. Whether the client has only
// closed its own half and waits for replies, or is gone, nobody can tell; time_to_leave() says how long it takes.
void Session::on_closed(const char *why)
{
	if (dead_)
		return;
	if (login_ && stream_->handshaking()) {
		login_->on_handshake_failed(why);
		return;
	}
	if (why == kTimedOut)
		log_timed_out(*this);
	if (why == kNoMemory) {
		out_of_memory();
		return;
	}
	// A login that waits for the manager may come to messages that were sent behind it, if they can be answered.
	const bool more_to_serve = login_ ? login_->busy() && !stream_->broken() : has_more_to_serve();
	if ((more_to_serve && departure_.ended()) || (departure_.leaving() && server_))
		return; // it is on its way already
	if (more_to_serve) {
		departure_.end();
		note_leaving();
		stream_->read(false);
	} else if (server_ && !login_ && may_leave_later()) {
		await_the_last();
	} else {
		note_leaving();
		close(stream_->unsent() > 0 && !stream_->broken());
	}
}

// Seen while reading is off. Where that goes on by itself, the end is seen again, behind what is still to be read: a
// client that pauses, waits or has sent half a message may have sent more, which would be lost if it ended here; where
// statements are finished anyway, so may any other.
void Session::on_half_closed()
{
	const bool read_again = !login_ && !departure_.leaving() && (kept() || input_.mid_message() || finishes(group_));
	if (departure_.ended() || !read_again)
		on_closed("the client closed the connection");
}

// Terminate. What is not committed by what came before it is lost anyway.
void Session::leave()
{
	const Replies &replies = server_->replies();
	if (replies.empty() || !replies.round_outstanding() || (replies.unsynced() && !finishes(group_)))
		close(true);
	else
		await_the_last();
}

void Session::await_the_last()
{
	departure_.leave();
	note_leaving();
	stream_->read(false);
}

void Session::note_leaving()
{
	since_ = context_.now();
	departure_.note(since_);
}

bool Session::has_more_to_serve() const
{
	return kept() && input_.pause() != Pause::Reader && !input_.empty();
}

// There must be something to wait for, it must come by itself (the rest of a message will not), and be for somebody:
// who reads it, or who wants it finished all the same. Once only, or it would not end.
bool Session::may_leave_later() const
{
	return (!server_->replies().empty() || stream_->unsent() > 0) && !input_.mid_message() && !departure_.leaving() &&
	       (!stream_->broken() || finishes(group_));
}

// For a client that will send no more, from the moment that its statement has a server. One that is gone must not keep
// that for ever: it may run for as long as others may wait.
int64_t Session::time_to_leave() const
{
	// As a backend, which reads the end of file when its replies are written.
	const bool delivers = server_ && stream_->unsent() > 0 && !stream_->broken();
	// What waits for the rest of a message, or for replies to a batch whose Sync never comes, waits for ever.
	const bool stuck = server_ && statements_.waits_for_round();
	const bool will_end =
	    !input_.mid_message() && ((has_more_to_serve() && !stuck) || (server_ && server_->replies().ends_by_itself()));
	if (!delivers && (!finishes(group_) || !will_end))
		return kHalfCloseGrace;
	return patience(*group_);
}

// Of many statements each has its time; all together have as long as one may wait and run.
bool Session::stays_too_long(int64_t now) const
{
	const int64_t limit = time_to_leave();
	return !wait_hook.linked && (now - since_ > limit || (finishes(group_) && departure_.takes_too_long(now, limit)));
}

// Whose end is known leaves when nothing that it sent before waits any more.
void Session::end_if_ended()
{
	if (departure_.ended() && !dead_)
		on_closed("the client closed the connection");
}

// ---- limits of time

void Session::check_timeouts(int64_t now)
{
	if (dead_ || login_)
		return;
	const region::PoolSettings &s = group_->settings();
	const bool keeps_server = server_ && session_mode_ && server_->replies().at_rest();
	const int64_t idle_ms = (now - (keeps_server ? std::max(since_, server_->since()) : since_)) / 1000;
	if (!server_ && cut_off(now)) // blocked by notifications
		return;
	if (server_ && departure_.begun() &&
	    stream_->broken()) // what it did not take is dropped by now, which no event tells
		server_->client_writable();
	if (dead_)
		return;
	if (departure_.begun() && stays_too_long(now)) {
		close(false);
		return;
	}
	if (idles_too_long(now))
		return;
	if (!server_ && idle_ms >= kIdleBeforeShared)
		statements_.on_idle(settings_.now());
	if ((!server_ || keeps_server) && !wait_hook.linked) {
		const int32_t limit = s.client_idle_timeout.load(std::memory_order_relaxed);
		if (limit > 0 && idle_ms >= limit)
			fatal({proto::sqlstate::kIdleSession, "terminating connection due to idle-session timeout",
			       "The client was idle for " + std::to_string(idle_ms) + " ms.",
			       "The limit is pgpool.client_idle_timeout or client_idle_timeout of the tenant, now " +
			           std::to_string(limit) + " ms."});
	}
}

// PostgreSQL's own limit, which counts from the last reply, whatever the client keeps.
bool Session::idles_too_long(int64_t now)
{
	const int32_t limit = server_ ? server_->agent().idle_session_timeout() : settings_.idle_session_timeout();
	const bool idle = !wait_hook.linked && !input_.mid_message() && (!server_ || server_->replies().at_rest());
	const int64_t since = server_ ? std::max(since_, server_->since()) : since_;
	if (limit <= 0 || !idle || (now - since) / 1000 < limit)
		return false;
	fatal({proto::sqlstate::kIdleSession, "terminating connection due to idle-session timeout", "", ""});
	return true;
}

bool Session::cut_off(int64_t now)
{
	const int32_t limit = context_.settings().write_timeout;
	const int64_t blocked = stream_->blocked_since();
	if (limit <= 0 || blocked == 0 || (now - blocked) / 1000 < limit)
		return false;
	const std::string time = std::to_string((now - blocked) / 1000) + " ms";
	context_.outside().log(described(*this) + " took no data for " + time + ": disconnected (pgpool.write_timeout is " +
	                       std::to_string(limit) + " ms)");
	fatal({proto::sqlstate::kIdleSession, "terminating connection because the client takes no data",
	       "The client took no data for " + time + ".",
	       "The limit is pgpool.write_timeout, now " + std::to_string(limit) + " ms."});
	return true;
}

// ---- the end

void Session::fatal(const proto::Error &error)
{
	if (dead_)
		return;
	// Last words have a place only between two messages.
	const bool can_tell = !server_ || !server_->mid_message();
	if (can_tell) {
		std::string out;
		proto::append_error(out, proto::Severity::Fatal, error);
		reply(out);
	}
	close(can_tell);
}

// The order: who hears of it must not find a session that waits, is parked or has a server; statements are forgotten
// behind client_gone(), which is told what of them is on the server; the group and the stream go last, for all of these
// may still look at them.
void Session::close(bool flush)
{
	if (dead_)
		return;
	dead_ = true;
	if (wait_hook.linked)
		pool().stop_waiting(this);
	if (route_)
		clients_.stop_awaiting(route_.get());
	subscription_.reset();
	const int64_t time = finishes(group_) ? patience(*group_) : kHalfCloseGrace;
	if (ServerConn *server = std::exchange(server_, nullptr))
		server->client_gone({input_.mid_message(), statements_.leaves_own_names(), departure_.served_until(time)});
	statements_.forget();
	if (context_.settings().log_disconnections && group_ && key_.pid() != 0)
		context_.outside().log("disconnection: session time " +
		                       std::to_string((context_.outside().wall_us() - tally_.connected_at()) / 1000) +
		                       " ms, role \"" + group_->role() + "\", database \"" + group_->database() +
		                       "\", tenant \"" + group_->tenant() + "\"");
	if (group_)
		group_->detach();
	if (tenant_slot_ != UINT32_MAX)
		count_in_tenant(tenant_slot_, -1);
	stream_->close(flush);
	stream_ = nullptr;
	clients_.on_ended(this);
}

} // namespace pgpool::core
