// A session's beginning and end, how its client leaves, and what it is told by servers, its pool and the clock. See
// session.hpp.
//
// When its server is gone, the client goes on only if nothing of its transaction was written and the server kept
// nothing for it. Must not know messages of clients.
#include "core/client/session.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/client/login.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "core/client/subscription.hpp"
#include "proto/bytes.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

namespace
{

constexpr int64_t kHalfCloseGrace = 500000; // for a reply to a client that will send no more, microseconds
constexpr int64_t kIdleBeforeShared = 1000; // then a text of its own is memory better saved, milliseconds

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
		log_timed_out();
	if (why == kNoMemory) {
		out_of_memory();
		return;
	}
	const bool more_to_serve = login_ ? login_->busy() && !stream_->broken() : has_more_to_serve();
	if ((more_to_serve && ended_) || (leaving_ && server_))
		return; // it is on its way already
	if (more_to_serve) {
		ended_ = true;
		note_leaving();
		stream_->read(false);
	} else if (server_ && !login_ && may_leave_later()) {
		await_the_last();
	} else {
		note_leaving();
		close(stream_->unsent() > 0 && !stream_->broken());
	}
}

// Seen while reading is off. Where that goes on by itself, the end is seen again, behind what is still to be read.
void Session::on_half_closed()
{
	const bool read_again = !login_ && !leaving_ &&
	                        (input_.pause() != Pause::None || wait_hook.linked || input_.mid_message() || finishes());
	if (ended_ || !read_again)
		on_closed("the client closed the connection");
}

// Terminate. What is not committed by what came before it is lost anyway.
void Session::leave()
{
	const Replies &replies = server_->replies();
	if (replies.empty() || !replies.round_outstanding() || (replies.unsynced() && !finishes()))
		close(true);
	else
		await_the_last();
}

void Session::await_the_last()
{
	leaving_ = true;
	note_leaving();
	stream_->read(false);
}

void Session::note_leaving()
{
	since_ = context_.now();
	if (left_at_ == 0)
		left_at_ = since_;
}

bool Session::has_more_to_serve() const
{
	return kept() && input_.pause() != Pause::Reader && !input_.empty();
}

bool Session::may_leave_later() const
{
	return (!server_->replies().empty() || stream_->unsent() > 0) && !input_.mid_message() && !leaving_ &&
	       (!stream_->broken() || finishes());
}

bool Session::finishes() const
{
	return group_ && group_->settings().on_disconnect.load(std::memory_order_relaxed) == region::OnDisconnect::Finish;
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
	if (!delivers && (!finishes() || !will_end))
		return kHalfCloseGrace;
	return patience();
}

int64_t Session::patience() const
{
	const int32_t limit = group_->settings().query_wait_timeout.load(std::memory_order_relaxed);
	return limit > 0 ? int64_t{limit} * 1000 : INT64_MAX;
}

// What its client left behind may run until then; 0 = the client did not leave, it is sent away.
int64_t Session::served_until() const
{
	if (left_at_ == 0)
		return 0;
	const int64_t time = finishes() ? patience() : kHalfCloseGrace;
	return time == INT64_MAX ? time : left_at_ + time;
}

// Of many statements each has its time; all together have as long as one may wait and run.
bool Session::stays_too_long(int64_t now) const
{
	const int64_t limit = time_to_leave();
	return !wait_hook.linked && (now - since_ > limit || (finishes() && (now - left_at_) / 2 > limit));
}

// Nobody reads what the server sends: PostgreSQL ends a statement, too, when its output meets a closed connection.
void Session::on_unheard(uint64_t size)
{
	unheard_ += size;
	if (unheard_ > kChunk)
		close(false);
}

// ---- what server and pool say

void Session::on_released()
{
	adopt(*server_);
	server_ = nullptr;
	on_serverless();
}

void Session::on_serverless()
{
	since_ = context_.now();
	if (input_.pause() == Pause::Backlog)
		pause(Pause::Turn);
	if (leaving_)
		close(true);
	else if (context_.draining())
		fatal({proto::sqlstate::kAdminShutdown, "terminating connection due to administrator command", "", ""});
}

// What came meanwhile went to the backend, which executed nothing of it.
bool Session::on_settings_refused()
{
	if (subscription_) // what it listens to must not be lost on the way
		return false;
	if (!input_.put_back(server_->settings().take_unproved())) {
		out_of_memory();
		return true;
	}
	leave_server();
	settings_doubtful_ = true;
	leaving_ = false;
	resume();
	return true;
}

void Session::on_settings(bool all)
{
	if (all)
		on_applied();
	else
		on_applied_in_part();
}

// A setting that cannot be made again, because what it names is gone or it is not allowed any more, is at its default
// from here on, and the client hears so. Not so the role: with another one a statement might do what it must not.
void Session::on_applied_in_part()
{
	std::string warnings;
	for (const ServerSettings::Refused &r : server_->settings().refused()) {
		if (r.name == "role") {
			const proto::Error why{r.why.sqlstate, r.why.message,
			                       "The session has a role that the server refuses now, so nothing runs in it.",
			                       "Say RESET ROLE, and then SET ROLE if another one will do."};
			server_->give_back();
			server_ = nullptr;
			input_.miss(Missing::Nothing);
			on_wait_failed(why, false);
			return;
		}
		proto::append_error(
		    warnings, proto::Severity::Warning,
		    {"01000", "setting \"" + r.name + "\" was lost and has its default now",
		     "The server refused it: " + r.why.message,
		     "A session in a pool takes its settings to another server; set it again if it is needed."});
	}
	reply(warnings);
	on_applied();
}

void Session::adopt(const ServerConn &server)
{
	adopt(server.params(), server.agent().idle_session_timeout());
}

void Session::adopt(const Params &params, int32_t idle_session_timeout)
{
	params_ = params;
	idle_session_timeout_ = idle_session_timeout;
}

// The server that serves it now may have told another client.
void Session::tell_promotion()
{
	std::string out;
	if (!knows_hot_standby_ || group_->greeting().in_hot_standby())
		return;
	knows_hot_standby_ = false;
	proto::append_parameter(out, kInHotStandby, "off");
	stream_->queue(out.data(), out.size());
	stream_->flush();
}

// The client's, on the client's connection.
void Session::on_tcp_settings(const Params &params)
{
	auto value = [&params](std::string_view name) {
		const Param *p = params->find(name);
		return p ? atoi(p->value.c_str()) : 0;
	};
	stream_->limit({value("tcp_keepalives_idle"), value("tcp_keepalives_interval"), value("tcp_keepalives_count"),
	                value("tcp_user_timeout")});
}

void Session::on_lost(Loss loss, const proto::Error *why)
{
	if (loss == Loss::AtRest) {
		// The rest of a message that the dead one would have discarded.
		input_.drop_rest();
		read_on();
		on_released();
		return;
	}
	server_ = nullptr;
	if (dead_)
		return;
	if (loss == Loss::Unused) {
		input_.miss(Missing::Nothing);
		resume();
	} else if (why) {
		fatal(*why);
	} else {
		close(true);
	}
}

void Session::on_server_writable()
{
	if (dead_)
		return;
	work_off_backlog();
	if (!dead_ && !kept())
		read_on();
}

bool Session::on_out_of_memory()
{
	out_of_memory();
	return true;
}

// What it sent cannot be kept, so the place in the stream of its messages is lost, and what the server was sent may be
// half of a batch.
void Session::out_of_memory()
{
	const proto::Error why{proto::sqlstate::kOutOfMemory, "out of memory", "", ""};
	const bool between_replies = !server_ || server_->between_replies();
	if (group_)
		context_.outside().log("out of memory (SQLSTATE 53200): the connection of a client is closed, role \"" +
		                       group_->role() + "\", database \"" + group_->database() + "\"");
	if (ServerConn *server = std::exchange(server_, nullptr))
		server->forsake();
	if (between_replies)
		fatal(why);
	else
		close(false);
}

void Session::on_wait_failed(const proto::Error &why, bool is_fatal)
{
	if (login_) {
		login_->on_failed(why);
		return;
	}
	if (is_fatal || session_mode_) {
		fatal(why);
		return;
	}
	const char first = input_.empty() ? 'Q' : input_.bytes()[0];
	std::string out;
	proto::append_error(out, proto::Severity::Error, why);
	if (first == 'Q' || first == 'F')
		proto::append_ready(out, 'I');
	else
		input_.skip_to_sync(true); // of a pipeline, everything up to Sync
	reply(out);
	since_ = context_.now();
	if (ended_) {
		close(true); // nobody is to wait once more for it
		return;
	}
	// The message that waited is dropped, what came behind it is served.
	if (input_.size() >= proto::kHeaderSize)
		input_.drop(proto::load32(input_.bytes().data() + 1) + 1);
	resume();
	if (leaving_ && !server_ && !dead_ && !kept())
		close(true);
}

// ---- what the engine says

void Session::cancel()
{
	if (server_) {
		server_->interrupt();
		return;
	}
	if (wait_hook.linked && !login_) {
		pool().stop_waiting(this);
		on_wait_failed({proto::sqlstate::kQueryCanceled, "canceling statement due to user request", "", ""}, false);
	}
}

void Session::check_timeouts(int64_t now)
{
	if (dead_ || login_)
		return;
	const region::PoolSettings &s = group_->settings();
	const bool keeps_server = server_ && session_mode_ && server_->replies().at_rest();
	const int64_t idle_ms = (now - (keeps_server ? std::max(since_, server_->since()) : since_)) / 1000;
	if (!server_ && cut_off(now)) // blocked by notifications
		return;
	if (server_ && (leaving_ || ended_) &&
	    stream_->broken()) // what it did not take is dropped by now, which no event tells
		server_->client_writable();
	if (dead_)
		return;
	if ((ended_ || leaving_) && stays_too_long(now)) {
		close(false);
		return;
	}
	if (idles_too_long(now))
		return;
	if (!server_ && idle_ms >= kIdleBeforeShared)
		statements_.on_idle(params_);
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
	const int32_t limit = server_ ? server_->agent().idle_session_timeout() : idle_session_timeout_;
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
	context_.outside().log(described() + " took no data for " + time + ": disconnected (pgpool.write_timeout is " +
	                       std::to_string(limit) + " ms)");
	fatal({proto::sqlstate::kIdleSession, "terminating connection because the client takes no data",
	       "The client took no data for " + time + ".",
	       "The limit is pgpool.write_timeout, now " + std::to_string(limit) + " ms."});
	return true;
}

void Session::log_timed_out()
{
	const region::Settings &s = context_.settings();
	const std::string what =
	    " did not acknowledge what was sent to it: the connection timed out (pgpool.tcp_user_timeout is " +
	    std::to_string(s.tcp_user_timeout) + " ms, pgpool.tcp_keepalives_idle " +
	    std::to_string(s.tcp_keepalives_idle) + " s)";
	if (login_)
		context_.log_stranger(*stream_, "a client that logs in" + what);
	else
		context_.outside().log(described() + what);
}

// For the log.
std::string Session::described() const
{
	std::string who = "client " + stream_->peer();
	if (group_)
		who += " of role \"" + group_->role() + "\", database \"" + group_->database() + "\", tenant \"" +
		       group_->tenant() + "\",";
	return who;
}

bool Session::matches_key(std::string_view key) const
{
	return proto::same_secret(key, this->key());
}

void Session::choose_key(int32_t pid)
{
	if (key_pid_ != 0)
		clients_.remove_key(this);
	key_length_ = minor >= 2 ? 32 : 4;
	context_.outside().random(key_, key_length_);
	key_pid_ = pid;
	while (key_pid_ == 0) {
		uint32_t random;
		context_.outside().random(&random, sizeof(random));
		random &= 0x7fffffff;
		if (!clients_.key_taken(static_cast<int32_t>(random)))
			key_pid_ = static_cast<int32_t>(random);
	}
	clients_.add_key(this);
}

void Session::set_group(PoolGroup *group, bool session_mode)
{
	group_ = group;
	session_mode_ = session_mode;
	statements_.set_session_mode(session_mode);
	group_->attach();
}

Pool &Session::pool()
{
	return group_->pool(Target::Primary);
}

void Session::on_queued()
{
	since_ = context_.now();
}

void Session::count_in_tenant(uint32_t tenant_slot, int32_t delta)
{
	tenant_slot_ = tenant_slot;
	region::Atomic<int32_t> &clients = context_.region().tenant_counters(tenant_slot, context_.worker()).clients;
	clients.store(clients.load() + delta);
}

void Session::start_login()
{
	login_ = std::make_unique<Login>(*this);
	clients_.logins().push_back(this);
}

void Session::login_done()
{
	clients_.logins().remove(this);
	clients_.retire(std::move(login_)); // it is still at work below us
	since_ = context_.now();
	if (server_)
		server_->hand_to(*this, client());
	stream_->wipe_input(false);
	stream_->read(!ended_);
}

// The end of file that came during the login takes effect.
void Session::end_if_ended()
{
	if (ended_ && !dead_)
		on_closed("the client closed the connection");
}

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

void Session::close(bool flush)
{
	if (dead_)
		return;
	dead_ = true;
	if (wait_hook.linked)
		pool().stop_waiting(this);
	subscription_.reset();
	if (ServerConn *server = std::exchange(server_, nullptr))
		server->client_gone({input_.mid_message(), statements_.leaves_own_names(), served_until()});
	statements_.forget();
	if (context_.settings().log_disconnections && group_ && key_pid_ != 0)
		context_.outside().log("disconnection: session time " +
		                       std::to_string((context_.outside().wall_us() - connected_at_) / 1000) + " ms, role \"" +
		                       group_->role() + "\", database \"" + group_->database() + "\", tenant \"" +
		                       group_->tenant() + "\"");
	if (group_)
		group_->detach();
	if (tenant_slot_ != UINT32_MAX)
		count_in_tenant(tenant_slot_, -1);
	stream_->close(flush);
	stream_ = nullptr;
	clients_.on_ended(this);
}

void Session::fill(control::ClientRow &row) const
{
	using control::ClientState;
	row.id = id_;
	row.server_pid = server_ ? server_->pid() : 0;
	if (login_)
		row.state = ClientState::Login;
	else if (wait_hook.linked)
		row.state = ClientState::Waiting;
	else if (leaving_)
		row.state = ClientState::Closing;
	else if (!server_)
		row.state = subscription_ ? ClientState::Listening : ClientState::Idle;
	else if (server_->replies().empty())
		row.state = server_->replies().at_rest() ? ClientState::Idle : ClientState::IdleInTransaction;
	else
		row.state = ClientState::Active;
	row.pool_slot = group_ ? group_->slot() : UINT32_MAX;
	const std::string_view address = stream_->address();
	row.address_length = static_cast<uint32_t>(std::min(address.size(), sizeof(row.address)));
	memcpy(row.address, address.data(), row.address_length);
	auto put = [](auto &field, std::string_view text) {
		memcpy(field, text.data(), std::min(text.size(), sizeof(field) - 1));
	};
	if (const TlsInfo *tls = stream_->tls()) {
		row.tls = 1;
		put(row.tls_version, tls->version);
		put(row.tls_cipher, tls->cipher);
	}
	row.session_mode = session_mode_;
	row.protocol_minor = minor;
	row.key_pid = key_pid_;
	row.connected_at = connected_at_;
	row.state_since = context_.outside().wall_us() - (context_.now() - since_);
	row.transactions = transactions_;
	row.queries = queries_;
	if (group_) {
		put(row.tenant, group_->tenant());
		put(row.database, group_->database());
		put(row.role, group_->role());
	}
	if (params_) {
		if (const Param *p = params_->find("application_name"))
			put(row.application_name, p->value);
	}
	put(row.pinned, pinned_by());
	row.commit_lsn = commit_lsn_;
}

std::string_view Session::pinned_by() const
{
	if (session_mode_)
		return "session mode";
	if (statements_.uses_own_names())
		return "long statement";
	if (statements_.has_long_unnamed())
		return "unnamed statement";
	if (!server_)
		return "";
	if (server_->foreign_identity())
		return "SET SESSION AUTHORIZATION";
	return server_->pins();
}

} // namespace pgpool::core
