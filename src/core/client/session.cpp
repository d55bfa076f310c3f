// See session.hpp.
#include "core/client/session.hpp"

#include <algorithm>
#include <utility>

#include "core/client/answer_run.hpp"
#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/client/login.hpp"
#include "core/pool/pool_group.hpp"
#include "core/client/message_run.hpp"
#include "core/server/server.hpp"
#include "core/client/subscription.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

Session::Session(Clients &clients, Stream *stream, uint64_t serial, bool session_port)
    : context_(clients.context()), clients_(clients), stream_(stream), tally_(context_.outside().wall_us()),
      id_(uint64_t{context_.worker()} << 48 | serial), since_(context_.now()), session_port_(session_port)
{
	stream_->set_owner(this);
}

Session::~Session() = default;

// ---- events of the stream

void Session::on_data(const char *data, size_t size)
{
	if (dead_ || departure_.leaving())
		return;
	if (login_) {
		login_->on_data(data, size);
		return;
	}
	if (kept()) {
		// Reading stays on, as long as there is room: to turn it off and on again for each wait would cost
		// two system calls.
		if (!input_.add({data, size}))
			out_of_memory();
		else if (input_.size() >= kChunk)
			stream_->read(false);
		return;
	}
	if (input_.empty()) {
		process({data, size});
		return;
	}
	if (!input_.add({data, size}))
		out_of_memory();
	else if (input_.has_enough())
		resume();
}

bool Session::stash(std::string_view bytes)
{
	if (input_.replace(bytes))
		return true;
	out_of_memory();
	return false;
}

void Session::on_writable()
{
	if (server_)
		server_->client_writable();
	if (!dead_ && input_.end_pause(Pause::Reader))
		resume();
}

// ---- what is kept

void Session::pause(Pause why)
{
	input_.set_pause(why);
	if (why == Pause::Turn)
		clients_.later(this);
	else
		stream_->read(false);
}

// What was kept is served, as if it came now, unless there is another reason to keep it.
void Session::resume()
{
	if (dead_ || kept())
		return;
	std::string all = input_.take();
	const bool much = all.size() >= kChunk;
	if (!much)
		read_on();
	if (!all.empty())
		process(all);
	if (dead_)
		return;
	// Not before there is room, for one turn may take less than the next reads bring; but what is left of a message
	// that is needed whole waits for nothing else.
	const bool backed_up = input_.pause() == Pause::Reader || input_.pause() == Pause::Backlog ||
	                       (server_ && server_->stream()->unsent() > 0);
	if (much && !backed_up && (!kept() || input_.size() < kChunk))
		read_on();
	if (!kept())
		end_if_ended();
}

void Session::read_on()
{
	if (!departure_.begun())
		stream_->read(true);
}

void Session::on_turn()
{
	input_.end_pause(Pause::Turn);
	resume();
}

// ---- messages

void Session::process(std::string_view bytes)
{
	if (server_ && subscription_) {
		if (stash(bytes))
			come_back();
	} else if (is_on_node() && is_next_batch()) {
		if (stash(bytes)) // it may be for another target
			input_.miss(Missing::Release);
	} else if (is_in_block_on_node()) {
		go_on_in_block(bytes);
	} else if (server_) {
		forward(bytes);
	} else if (moves_block()) {
		acquire(bytes);
	} else {
		answer(bytes);
	}
}

// Without a server: what can be answered here is, for the rest one is acquired.
void Session::answer(std::string_view bytes)
{
	using Stop = AnswerRun::Stop;
	AnswerRun run(*group_, settings_.now(), input_, statements_, bytes);
	Stop stop;
	do {
		stop = run.go(context_.bounds().messages);
		if (stop == Stop::Turn)
			pause(Pause::Turn);
		send_answers(run.answers());
	} while (stop == Stop::Answers && input_.pause() == Pause::None);
	if (stop == Stop::Terminate)
		close(true);
	else if (stop == Stop::Impossible)
		fatal(run.refusal());
	else if (stop == Stop::Server && input_.pause() == Pause::None) // who does not read gets no server
		acquire(run.rest());
	else
		stash(run.rest());
}

void Session::send_answers(std::string &answers)
{
	if (answers.empty())
		return;
	reply(answers);
	answers.clear();
	if (stream_->unsent() > kChunk)
		pause(Pause::Reader);
}

void Session::acquire(std::string_view bytes)
{
	proto::Error why;
	if (group_->dead()) {
		fatal(group_->death());
		return;
	}
	if (context_.refuses(why) || context_.evicts(tenant_slot_, why)) {
		fatal(why);
		return;
	}
	std::string own_words;
	if (group_->routes_reads() && put_in_own_words(bytes, own_words))
		bytes = own_words;
	if (!choose_target(bytes))
		return;
	ServerConn *server = pool().acquire(this);
	if (!server) {
		if (dead_)
			return;
		if (stash(bytes))
			since_ = context_.now();
		return;
	}
	take(server);
	if (!take_settings(bytes)) {
		input_.miss(Missing::Settings);
		if (stash(bytes))
			server_->flush();
		return;
	}
	since_ = context_.now();
	if (prepares_target()) {
		stash(bytes);
		return;
	}
	if (subscription_) {
		if (stash(bytes))
			come_back();
		return;
	}
	forward(bytes);
}

// As a client that logs in or is served, the subscription comes later.
void Session::take(ServerConn *server)
{
	server_ = server;
	if (login_)
		server->assign(*login_, {nullptr, stream_->address(), id_, 0, session_mode_}, settings_.defaults());
	else
		server->assign(*this, client(), settings_.defaults());
}

Client Session::client() const
{
	return {stream_, stream_->address(), id_, key_.pid(), session_mode_};
}

void Session::on_assigned(ServerConn *server)
{
	take(server);
	since_ = context_.now();
	if (login_) {
		login_->on_assigned();
		return;
	}
	if (!take_settings(input_.bytes())) {
		input_.miss(Missing::Settings);
		server_->flush();
		return;
	}
	on_applied();
}

bool Session::take_settings(std::string_view message)
{
	tell_promotion();
	// On a node no agent stops what comes behind a setting that fails, and what begins a block is none of the client's.
	return settings_.apply(*server_, message, is_on_node() || moves_block());
}

void Session::on_applied()
{
	settings_.on_applied();
	if (subscription_) {
		come_back();
		return;
	}
	if (prepares_target())
		return;
	input_.miss(Missing::Nothing);
	resume();
}

void Session::forward(std::string_view bytes)
{
	using Stop = MessageRun::Stop;
	if (is_on_node())
		begin_read();
	else if (route_)
		route_->is_reader = false;
	MessageRun run(*server_, input_, statements_, tally_, context_.copy(), bytes);
	switch (run.go(context_.bounds().messages)) {
	case Stop::Through:
		break;
	case Stop::Enough:
		pause(Pause::Backlog);
		break;
	case Stop::Turn:
		pause(Pause::Turn);
		break;
	case Stop::Terminate:
		send(run);
		leave();
		return;
	case Stop::Impossible:
		fatal(run.refusal());
		return;
	case Stop::NoMemory:
		out_of_memory();
		return;
	}
	run.remember();
	if (!run.rest().empty() && !stash(run.rest()))
		return; // nothing was sent of what the account has
	if (input_.pause() == Pause::Backlog)
		run.ask_for_replies();
	send(run);
	// The server was dead when it was assigned: no byte of the transaction left, so another one can have it.
	if (server_ && server_->refused_all() && !session_mode_) {
		if (!stash(run.all()))
			return;
		leave_server();
		resume();
	} else {
		pause_behind();
	}
}

// What was forwarded may have been answered here.
void Session::pause_behind()
{
	if (stream_->unsent() > kChunk)
		pause(Pause::Reader);
	else if (input_.pause() == Pause::Backlog && server_ && !server_->is_behind())
		pause(Pause::Turn);
}

void Session::send(const MessageRun &run)
{
	const std::string &copied = run.copied();
	const std::string_view verbatim = run.verbatim();
	bump(group_->counters().bytes_received, copied.size() + verbatim.size());
	if (!copied.empty())
		server_->queue(copied.data(), copied.size());
	server_->queue(verbatim.data(), verbatim.size());
	server_->flush();
	// Replies of ours go out with the server's next ones, if there are any to come.
	if (server_->replies().only_fakes() && server_->emit_fakes())
		stream_->flush();
}

// Nothing of what it got was executed.
void Session::leave_server()
{
	ServerConn *server = std::exchange(server_, nullptr);
	input_.start_over();
	statements_.on_unused(server->statements());
	server->abandon();
}

// The batch that began with `bytes` is served again, as if it came now, when on_settled() says so.
bool Session::start_over(std::string_view bytes, std::string_view sqlstate)
{
	if (input_.mid_message() || !input_.put_back(bytes))
		return false;
	departure_.serve_again();
	statements_.await_round();
	if (!is_on_node())
		return true;
	if (sqlstate == proto::sqlstate::kReadOnly)
		learn_write(bytes);
	else
		avoid_node(Reason::ReplicaFailed);
	return true;
}

// After whatever the backend said.
void Session::on_replies(uint64_t forwarded)
{
	if (departure_.begun() && stream_->broken() && !departure_.may_waste(forwarded))
		close(false);
	if (dead_ || !server_)
		return;
	if (statements_.has_what_it_awaits(server_->replies()))
		on_settled();
	if (!dead_ && input_.missing() == Missing::Release && is_in_block_on_node()) {
		input_.miss(Missing::Nothing); // it is for the same target
		resume();
	}
	if (server_ && !dead_)
		work_off_backlog();
}

void Session::work_off_backlog()
{
	if (input_.pause() != Pause::Backlog || server_->is_behind())
		return;
	input_.set_pause(Pause::None);
	resume();
}

void Session::on_ready(char status, uint64_t commit_lsn)
{
	tally_.on_ready(status, commit_lsn);
	end_batch(status);
	if (statements_.waits_for_round())
		on_settled();
}

void Session::on_round(For purpose, const proto::Error &why)
{
	if (purpose == For::Replay)
		on_settled();
	else if (purpose == For::Position)
		on_position();
	else if (purpose == For::Begin)
		on_begun(why);
	else if (input_.missing() == Missing::Probe)
		on_applied();
}

Standing Session::standing() const
{
	Standing s;
	s.served = !login_;
	s.mid_message = input_.mid_message();
	s.leaving = departure_.leaving();
	s.pinned = statements_.pins();
	return s;
}

void Session::on_settled()
{
	statements_.settled();
	resume();
}

void Session::reply(std::string_view bytes)
{
	stream_->queue(bytes.data(), bytes.size());
	stream_->flush();
}

} // namespace pgpool::core
