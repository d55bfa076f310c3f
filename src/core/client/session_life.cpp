// A session's login, and what it is told by servers, its pool and who sends it away. See session.hpp; its end is in
// session_end.cpp.
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

// ---- what server and pool say

void Session::on_released()
{
	settings_.adopt(*server_);
	server_ = nullptr;
	on_serverless();
}

void Session::on_serverless()
{
	since_ = context_.now();
	const bool next_target = input_.missing() == Missing::Release;
	if (next_target)
		input_.miss(Missing::Nothing);
	if (next_target || input_.pause() == Pause::Backlog)
		pause(Pause::Turn);
	if (departure_.leaving())
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
	settings_.on_refused();
	departure_.serve_again();
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

// The server that serves it now may have told another client.
void Session::tell_promotion()
{
	if (!settings_.ends_hot_standby(group_->greeting().in_hot_standby()))
		return;
	std::string out;
	proto::append_parameter(out, kInHotStandby, "off");
	reply(out);
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
		statements_.settled();
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
	if (is_node(target_) && !group_->dead()) {
		context_.nodes().count_fallback(node_of(target_), Fallback::Failed);
		go_elsewhere(Reason::ReplicaFailed);
		return;
	}
	if (is_fatal || session_mode_ || moves_block()) { // its block is nowhere
		fatal(why);
		return;
	}
	refuse(why);
	if (dead_)
		return;
	resume();
	if (departure_.leaving() && !server_ && !dead_ && !kept())
		close(true);
}

// The message that waited is dropped, what came behind it is still to be served.
void Session::refuse(const proto::Error &why)
{
	if (route_) {
		route_->end_wait();
		route_->tried = 0;
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
	if (departure_.ended()) {
		close(true); // nobody is to wait once more for it
		return;
	}
	if (input_.size() >= proto::kHeaderSize)
		input_.drop(proto::load32(input_.bytes().data() + 1) + 1);
}

// ---- what the engine says

void Session::cancel()
{
	if (server_) {
		server_->interrupt();
		return;
	}
	const proto::Error why{proto::sqlstate::kQueryCanceled, "canceling statement due to user request", "", ""};
	if (wait_hook.linked && !login_) {
		pool().stop_waiting(this);
		target_ = Target::Primary; // nor is it served elsewhere
		on_wait_failed(why, false);
	} else if (input_.missing() == Missing::Replay) {
		clients_.stop_awaiting(route_.get());
		input_.miss(Missing::Nothing);
		on_wait_failed(why, false);
	}
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
	return group_->pool(target_);
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
	stream_->read(!departure_.ended());
}

// As the views name it.
control::ClientState Session::state() const
{
	using control::ClientState;
	if (login_)
		return ClientState::Login;
	if (wait_hook.linked || input_.missing() == Missing::Replay)
		return ClientState::Waiting;
	if (departure_.leaving())
		return ClientState::Closing;
	if (!server_)
		return subscription_ ? ClientState::Listening : ClientState::Idle;
	if (!server_->replies().empty())
		return ClientState::Active;
	return server_->replies().at_rest() ? ClientState::Idle : ClientState::IdleInTransaction;
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
	return server_->pins().why();
}

} // namespace pgpool::core
