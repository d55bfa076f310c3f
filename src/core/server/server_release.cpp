// How a server leaves its client: the release rule, cleaning up, and the end of the connection. See server.hpp.
#include "core/server/server.hpp"

#include <algorithm>
#include <utility>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;

namespace
{

constexpr int64_t kCleaningTime = 1000000; // to end what a vanished client left behind
constexpr int64_t kClosingTime = 1000000;  // until the backend is terminated, and until its place is given up

} // namespace

// ---- release

// The heart: see the design, "when a server may be released". Nothing here is ever weakened.
bool ServerConn::may_release(const Standing &client) const
{
	return client_at_rest(client) && !kept(client); // (f)
}

// All of the rule but what the client keeps.
bool ServerConn::client_at_rest(const Standing &client) const
{
	return cancel_id_ == 0                  // (e)
	       && replies_.at_rest()            // (a), (b)
	       && input_.took_all()             // (c) unread from the server
	       && stream_->unsent() == 0        // (c) unsent to the server
	       && client_.stream->unsent() == 0 // (c) unsent to the client
	       && !client.mid_message;          // (d); (e): on the primary kill() is synchronous
}

bool ServerConn::try_release()
{
	const Standing client = standing();
	if (!client.served || settings_.awaited())
		return false;
	if (client.leaving && replies_.empty() && client_.stream->unsent() == 0) {
		user_->on_left();
		return true;
	}
	if (client_.session_mode)
		return false;
	if (replies_.wants_probe() && client_.stream->unsent() == 0 && !client.mid_message) {
		probe();
		return false;
	}
	if (!may_release(client)) {
		if (may_park() && owner_.wanted())
			park();
		return false;
	}
	release();
	return true;
}

// See Replies: the client waits meanwhile, what it sends is kept.
void ServerConn::probe()
{
	replies_.probe();
	user_->hold();
	put_query("");
}

void ServerConn::release()
{
	leave_user()->on_released();
	if (!statements_.has_too_many()) {
		cleaned();
		return;
	}
	// A pipeline left more than there may be, or the limit was lowered.
	deadline_ = group_.context().now() + kCleaningTime;
	set_state(ServerState::Cleaning);
	clean();
}

// In the middle of what the backend sent: after_service() goes on from here.
void ServerConn::give_back()
{
	leave_user();
	discard_ = false;
	deadline_ = group_.context().now() + kCleaningTime;
	set_state(ServerState::Cleaning);
}

// Its client goes on elsewhere with the block that is open here.
void ServerConn::roll_back()
{
	statements_.replay().stop();
	give_back();
	clean();
}

// Its client is gone, whatever was going on.
void ServerConn::client_gone(const Left &left)
{
	if (!user_)
		return;
	statements_.replay().stop();
	discard_ = client_.session_mode || left.own_names || pins_.any();
	// Without its Sync a pipeline is not committed, and a Sync of ours would do just that.
	const bool hopeless = left.mid_message || (replies_.unsynced() && !replies_.skipping()) || stream_->unsent() > 0 ||
	                      replies_.copy_in() || replies_.doubtful() || stream_->broken() || settings_.awaited();
	const int64_t until = replies_.ends_by_itself() ? left.served_until : 0;
	leave_user();
	if (state_ != ServerState::Active)
		return;
	if (hopeless) {
		close();
		end_what_runs(until);
		return;
	}
	deadline_ = group_.context().now() + kCleaningTime;
	set_state(ServerState::Cleaning);
	stream_->read(true);
	if (!replies_.empty()) {
		interrupt();
		replies_.disown(For::Nobody);
	}
	clean();
}

// Closing: whole messages that a client left behind run, as after the end of file in PostgreSQL, but no longer than
// `until`. Nor is one of them only canceled, for what came behind it would still run.
void ServerConn::end_what_runs(int64_t until)
{
	if (end_ == End::Gone || replies_.empty())
		return;
	if (until > group_.context().now())
		deadline_ = until;
	else
		end_closing(group_.context().now());
}

// What was written, or not written, of the client's messages is not what the account says.
void ServerConn::forsake()
{
	statements_.replay().stop();
	leave_user();
	close();
	end_what_runs(0);
}

// One step of making the server fit for the next client: end what runs, roll back, discard.
void ServerConn::clean()
{
	std::string out;
	if (replies_.skipping()) {
		proto::Writer(out).begin('S').end();
		replies_.sent('S', For::Sync);
	} else if (!replies_.empty()) {
		return;
	} else if (replies_.status() != 'I') {
		agent_.announce_own();
		proto::append_query(out, "ROLLBACK");
		replies_.sent('Q', For::Rollback);
	} else if (replies_.unsynced()) {
		// A copy ate the Sync of its batch. One of ours would commit what its client, who is gone, did not.
		close();
		return;
	} else if (discard_) {
		agent_.announce_own();
		set_defaults(Params());
		proto::append_query(out, "DISCARD ALL");
		replies_.sent('Q', For::Discard);
	}
	if (out.empty() && statements_.close_surplus(statements_.most(), out)) {
		proto::Writer(out).begin('S').end();
		replies_.sent('S', For::Sync);
	}
	if (!out.empty()) {
		stream_->queue(out.data(), out.size());
		stream_->flush();
		return;
	}
	if (input_.took_all() && stream_->unsent() == 0)
		cleaned();
}

// Nothing of the last client is left.
void ServerConn::cleaned()
{
	if (is_over() || cancel_id_ != 0)
		return;
	if (stale() || replies_.was_doubtful() || pins_.any() || said_fatal_ || stream_->broken() ||
	    expired(group_.context().now())) {
		close();
		return;
	}
	owner_.on_server_ready(this);
}

void ServerConn::interrupt()
{
	// While the server is this client's, so that no other client's query can be hit: kill() is
	// synchronous, and the next client's bytes are written after it.
	if (user_ && standing().to_be_served && replies_.round_is_ours()) {
		interrupt_later_ = true; // it works for us now: the client's query comes behind
		return;
	}
	if (pid_ > 0 && !is_over() && !stream_->broken())
		interrupt_backend();
}

void ServerConn::interrupt_backend()
{
	Context &context = group_.context();
	if (!on_node()) {
		context.outside().interrupt_backend(pid_);
	} else if (cancel_id_ == 0) {
		cancel_id_ = context.next_assignment();
		context.outside().cancel_on_node(node_of(target()), *stream_, pid_, key_, cancel_id_);
	}
}

// One that may still be on its way would hit whoever is served next.
void ServerConn::on_cancel_over(CancelEnd end)
{
	cancel_id_ = 0;
	said_fatal_ |= end == CancelEnd::Lost;
	if (state_ == ServerState::Cleaning)
		clean();
	else if (user_)
		try_release();
}

// ---- the end

void ServerConn::abandon()
{
	statements_.make_all_void(client_statements());
	leave_user();
	replies_ = Replies();
	close();
}

void ServerConn::close()
{
	if (is_over())
		return;
	deadline_ = group_.context().now() + kClosingTime;
	const bool can_say_goodbye =
	    state_ == ServerState::Idle || state_ == ServerState::Cleaning || state_ == ServerState::Listener;
	set_state(ServerState::Closing);
	if (is_listener_ && user_)
		leave_user()->on_lost(Loss::Gone, &our_error_);
	input_.drop();
	if (can_say_goodbye && replies_.empty() && stream_->unsent() == 0) {
		std::string out;
		proto::Writer(out).begin('X').end();
		stream_->queue(out.data(), out.size());
		stream_->flush();
	} else {
		stream_->shutdown_write();
	}
	stream_->read(true);
}

void ServerConn::out_of_step(const char *what)
{
	group_.context().outside().log(std::string("server connection out of step: the backend with pid ") +
	                               std::to_string(pid_) + " sent " + what + "; the connection is closed");
	const proto::Error why{proto::sqlstate::kProtocolViolation, std::string("the server sent ") + what,
	                       "The connection to it was closed.", ""};
	lost(&why);
}

// The connection is of no use any more, nor is its client's transaction.
void ServerConn::lost(const proto::Error *why)
{
	if (is_listener_) {
		close();
		return;
	}
	ServerUser *user = leave_user();
	close();
	if (user)
		user->on_lost(Loss::Broken, why);
}

void ServerConn::on_closed(const char *why)
{
	if (end_ == End::Gone)
		return;
	if (state_ == ServerState::Connecting || state_ == ServerState::Login) {
		give_up_login(std::string("could not connect to the server: ") + why);
		return;
	}
	if (why == kNoMemory && user_ && user_->on_out_of_memory())
		return;
	if (on_node() && state_ != ServerState::Closing)
		group_.context().nodes().fails(node_of(target()), group_.context().now(),
		                               std::string("a connection to it was lost: ") + why);
	end_for(serves_again() ? Loss::Unused : loss_now());
}

void ServerConn::end_for(Loss loss)
{
	ServerUser *user = is_listener_ ? nullptr : leave_user();
	end();
	// Last words that came while it worked for us were not forwarded.
	if (user)
		user->on_lost(loss, our_error_.sqlstate.empty() ? nullptr : &our_error_);
}

// One whose client has heard a part waits on, as in PostgreSQL, until TCP gives the connection up. What is idle may be
// as dead as the others, and a new connection would tell.
void ServerConn::on_silence()
{
	switch (state_) {
	case ServerState::Connecting: // which has a limit of its own
	case ServerState::Listener:
		break;
	case ServerState::Login:
		give_up_login("the server does not answer");
		break;
	case ServerState::Active:
		if (settings_.awaited() || serves_again())
			end_for(Loss::Unused);
		break;
	default:
		end();
		break;
	}
}

// The primary will do what a node was at, of which the client has heard nothing.
bool ServerConn::serves_again()
{
	if (!user_ || !on_node())
		return false;
	// In the first case nothing of the client's is there, but a block that it has begun before.
	if (replies_.front_is(For::Replay) || replies_.front_is(For::Position)) {
		if (replies_.status() != 'I')
			return false;
	} else {
		if (!statements_.replay().elsewhere() || !user_->start_over(statements_.replay().bytes(), ""))
			return false;
		statements_.start_over_elsewhere(*client_statements());
	}
	group_.context().nodes().count_fallback(node_of(target()), Fallback::Failed);
	return true;
}

// What it means for its client that the backend is gone now.
Loss ServerConn::loss_now() const
{
	if (client_.session_mode)
		return Loss::Gone;
	if (settings_.awaited())
		return Loss::Unused;
	return replies_.at_rest() && user_ && !kept(standing()) ? Loss::AtRest : Loss::Gone;
}

// A query may catch its cancellation and go on for ever; were its place given to another one, a role could have any
// number of backends. Nothing catches SIGTERM.
void ServerConn::end_closing(int64_t now)
{
	// The process of that number is on another machine.
	if (end_ != End::None || pid_ <= 0 || stream_->broken() || on_node()) {
		end();
		return;
	}
	end_ = End::Terminated;
	deadline_ = now + kClosingTime;
	group_.context().outside().terminate_backend(pid_);
}

void ServerConn::end()
{
	if (end_ == End::Gone)
		return;
	end_ = End::Gone;
	if (ServerUser *user = leave_user(); user && is_listener_)
		user->on_lost(Loss::Gone, &our_error_);
	count_kept();
	if (agent_.has_slot())
		group_.context().free_agent_slot(agent_.slot());
	agent_.leave();
	stream_->close(false);
	stream_ = nullptr;
	owner_.on_server_gone(this);
}

} // namespace pgpool::core
