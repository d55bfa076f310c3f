// See session.hpp.
#include "core/client/session.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/client/login.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "core/statements/sql_command.hpp"
#include "core/client/subscription.hpp"
#include "proto/bytes.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

namespace
{

bool is_known_type(char type)
{
	return type != 0 && strchr("QPBDECSHFXdcf", type) != nullptr;
}

// For a copy of the messages in `size` bytes that came, rewritten: names, and a message of ours, are all that is added.
bool has_room(std::string &copy, size_t size)
{
	return proto::try_reserve(copy, copy.size() + size + 1024);
}

bool may_be_long(char type)
{
	return strchr("QPBFd", type) != nullptr;
}

bool is_possible(char type, uint32_t length)
{
	return is_known_type(type) && length >= 4 &&
	       length - 4 <= (may_be_long(type) ? proto::kMaxMessage : proto::kMaxSmallMessage);
}

// Of the first message of `bytes`: see leaves_role().
bool is_leaving_role(std::string_view bytes)
{
	if (bytes.size() <= proto::kHeaderSize || (bytes[0] != 'Q' && bytes[0] != 'P'))
		return false;
	proto::Reader r(bytes.substr(proto::kHeaderSize));
	if (bytes[0] == 'P')
		r.string();
	const std::string_view text = r.string();
	return r.ok() && leaves_role(text);
}

constexpr size_t kAnswers = 4096;             // of our own are sent together
constexpr size_t kMostRewritten = 4 * kChunk; // in one turn: a few bytes may stand for a long statement

} // namespace

Session::Session(Clients &clients, Stream *stream, uint64_t serial, bool session_port)
    : context_(clients.context()), clients_(clients), stream_(stream), id_(uint64_t{context_.worker()} << 48 | serial),
      connected_at_(context_.outside().wall_us()), since_(context_.now()), session_port_(session_port)
{
	stream_->set_owner(this);
}

Session::~Session() = default;

// ---- events of the stream

void Session::on_data(const char *data, size_t size)
{
	if (dead_ || leaving_)
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
		process(data, size);
		return;
	}
	if (!input_.add({data, size}))
		out_of_memory();
	else if (input_.has_enough())
		resume();
}

bool Session::stash(const char *p, const char *end)
{
	if (input_.replace({p, static_cast<size_t>(end - p)}))
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
		process(all.data(), all.size());
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
	if (!ended_ && !leaving_)
		stream_->read(true);
}

void Session::on_turn()
{
	input_.end_pause(Pause::Turn);
	resume();
}

// One message more. False: what the client sent now is enough for one turn.
bool Session::has_turn(uint32_t &messages)
{
	if (messages++ < context_.bounds().messages)
		return true;
	pause(Pause::Turn);
	return false;
}

// ---- messages

void Session::process(const char *data, size_t size)
{
	const char *p = data;
	const char *end = data + size;
	if (server_ && subscription_) {
		if (stash(p, end))
			come_back();
		return;
	}
	if (server_) {
		forward(p, end);
		return;
	}
	switch (before_server(p, end)) {
	case Next::More:
		stash(p, end);
		break;
	case Next::Server:
		acquire(p, end);
		break;
	case Next::Ended:
		break;
	}
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

bool Session::check_header(char type, uint32_t length)
{
	if (is_possible(type, length))
		return true;
	if (!is_known_type(type)) {
		fatal({proto::sqlstate::kProtocolViolation,
		       "invalid frontend message type " + std::to_string(static_cast<unsigned char>(type)), "", ""});
		return false;
	}
	fatal({proto::sqlstate::kProtocolViolation,
	       "invalid message length " + std::to_string(length) + " in message of type \"" + type + "\"", "", ""});
	return false;
}

// What can be answered without a server, because nothing is outstanding: Sync, Flush, Terminate, what is
// left of a failed copy, and everything that is skipped after an error of ours.
Session::Next Session::before_server(const char *&p, const char *end)
{
	std::string answers;
	const Next next = answer_here(p, end, answers);
	if (next == Next::Ended)
		return next;
	send_answers(answers);
	return input_.pause() == Pause::None ? next : Next::More; // who does not read gets no server
}

Session::Next Session::answer_here(const char *&p, const char *end, std::string &answers)
{
	uint32_t messages = 0;
	while (p < end) {
		if (input_.dropping()) {
			p += input_.drop_some(static_cast<size_t>(end - p));
			continue;
		}
		if (end - p < static_cast<ptrdiff_t>(proto::kHeaderSize))
			return Next::More;
		const char type = *p;
		const uint32_t length = proto::load32(p + 1);
		if (answers.size() >= kAnswers || !is_possible(type, length) || type == 'X')
			send_answers(answers);
		if (!check_header(type, length))
			return Next::Ended;
		if (type == 'X') {
			close(true);
			return Next::Ended;
		}
		if (input_.pause() != Pause::None || !has_turn(messages))
			return Next::More;
		if (type == 'S') {
			input_.skip_to_sync(false);
			statements_.batch_ended();
			if (length != 4)
				proto::append_error(answers, proto::Severity::Error,
				                    {proto::sqlstate::kProtocolViolation, "invalid message format", "", ""});
			proto::append_ready(answers, 'I');
			input_.drop(length + 1);
		} else if (input_.skipping() || (type == 'H' && length == 4) || type == 'd' || type == 'c' || type == 'f') {
			input_.drop(length + 1);
		} else {
			const auto have = static_cast<size_t>(end - p);
			if (have <= length)
				return have >= kChunk ? Next::Server : Next::More;
			if ((type != 'P' && type != 'C') || !answer_statement(p, size_t{length} + 1, answers))
				return Next::Server;
			p += size_t{length} + 1;
		}
	}
	return Next::More;
}

void Session::acquire(const char *p, const char *end)
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
	ServerConn *server = pool().acquire(this);
	if (!server) {
		if (dead_)
			return;
		if (stash(p, end))
			since_ = context_.now();
		return;
	}
	take(server);
	if (!take_settings({p, static_cast<size_t>(end - p)})) {
		input_.miss(Missing::Settings);
		if (stash(p, end))
			server_->flush();
		return;
	}
	since_ = context_.now();
	if (subscription_) {
		if (stash(p, end))
			come_back();
		return;
	}
	forward(p, end);
}

// As a client that logs in or is served, the subscription comes later.
void Session::take(ServerConn *server)
{
	server_ = server;
	if (login_)
		server->assign(*login_, {nullptr, stream_->address(), id_, 0, session_mode_}, defaults_);
	else
		server->assign(*this, client(), defaults_);
}

Client Session::client() const
{
	return {stream_, stream_->address(), id_, key_pid_, session_mode_};
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

// Those that were refused are known when each is applied by itself.
bool Session::take_settings(std::string_view message)
{
	tell_promotion();
	if (!settings_doubtful_)
		return server_->apply(params_, false);
	settings_doubtful_ = !server_->apply_each(is_leaving_role(message) ? params_.without("role") : params_);
	return !settings_doubtful_;
}

void Session::on_applied()
{
	settings_doubtful_ = false;
	if (subscription_) {
		come_back();
		return;
	}
	input_.miss(Missing::Nothing);
	resume();
}

// Splits [p, end) into messages, writes each into the account of replies and sends all as one run; as
// soon as one message must be rewritten, as one copy.
void Session::forward(const char *p, const char *end)
{
	const char *start = p;
	const char *run = p;
	const char *replay_from = start;
	BackendStatements &backend = server_->statements();
	std::string &out = context_.copy();
	out.clear();
	using Verdict = StatementRewriter::Verdict;
	Verdict verdict = Verdict::Verbatim;
	uint32_t messages = 0;
	while (p < end && !waits_for_proof()) {
		const auto have = static_cast<size_t>(end - p);
		if (input_.mid_message()) {
			p += input_.go_on(have);
			continue;
		}
		if (have < proto::kHeaderSize)
			break;
		const char type = *p;
		const uint32_t length = proto::load32(p + 1);
		if (!is_known_type(type) || length < 4 || length - 4 > proto::kMaxSmallMessage) {
			if (!check_header(type, length))
				return;
		}
		if (type == 'X') {
			if (server_->settings()
			        .unproved()) // another server may have to run it all, and then there is this to be read
				server_->settings().keep_unproved(
				    {start, static_cast<size_t>(p - start) + std::min(have, size_t{length} + 1)});
			send(out, run, p);
			leave();
			return;
		}
		if (!may_forward_another(out, messages) || statements_.waits_behind(backend))
			break;
		const size_t total = size_t{length} + 1;
		const StatementRewriter::Message message{p, have, total};
		if (type == 'P' || type == 'B' || type == 'D' || type == 'C' || (type == 'Q' && length > 5)) {
			StatementRewriter::Taken taken;
			const size_t mark = out.size();
			const bool replayed = backend.replay().on();
			if (!has_room(out, static_cast<size_t>(end - run)))
				return out_of_memory();
			out.append(run, static_cast<size_t>(p - run));
			verdict = statements_.rewrite(backend, message, out, taken);
			if (!replayed && backend.replay().on())
				replay_from = p;
			if (verdict == Verdict::Done) {
				queries_ += type == 'Q';
				p += taken.used;
				input_.begin(total, taken.used);
				run = p;
				continue;
			}
			if (out.size() == mark + static_cast<size_t>(p - run))
				out.resize(mark);
			else
				run = p; // something went before it
			if (verdict == Verdict::More)
				input_.need(taken.needed);
			if (verdict != Verdict::Verbatim)
				break;
			if (const size_t at = StatementRewriter::name_to_disguise(message)) {
				out.append(run, static_cast<size_t>(p + at - run)).append(kDisguisedPrefix.substr(0, 1));
				run = p + at + 1;
			}
		}
		if (type == 'E' && have == proto::kHeaderSize && total > have)
			break; // which portal?
		statements_.account(backend, message);
		queries_ += type == 'Q' || type == 'E' || type == 'F';
		const size_t n = std::min(total, have);
		p += n;
		input_.begin(total, n);
		if (type == 'S' && statements_.has_cleanup()) {
			out.append(run, static_cast<size_t>(p - run));
			run = p;
			statements_.clean_up(backend, out);
		}
	}
	remember({start, static_cast<size_t>(p - start)}, {replay_from, static_cast<size_t>(p - replay_from)});
	if (p < end && !stash(p, end))
		return; // nothing was sent of what the account has
	ask_for_replies(out, run, p);
	send(out, run, p);
	if (server_ && server_->refused_all() && !session_mode_)
		retry(start, end);
	else
		pause_behind();
}

// As long as it may have to be served again.
void Session::remember(std::string_view all, std::string_view of_batch)
{
	if (server_->settings().unproved())
		server_->settings().keep_unproved(all);
	if (server_->statements().replay().on())
		server_->statements().replay().add(of_batch);
}

// What may have to be sent again is no more than so much.
bool Session::waits_for_proof()
{
	const bool waits = server_->settings().has_much_unproved();
	if (waits)
		pause(Pause::Backlog);
	return waits;
}

// The backend keeps replies to itself until there are many, or it is asked for them.
void Session::ask_for_replies(std::string &out, const char *&run, const char *end)
{
	if (input_.pause() != Pause::Backlog || input_.mid_message() || !server_->replies().unsynced())
		return;
	out.append(run, static_cast<size_t>(end - run));
	run = end;
	proto::Writer(out).begin('H').end();
}

bool Session::may_forward_another(const std::string &rewritten, uint32_t &messages)
{
	if (server_->has_enough()) {
		pause(Pause::Backlog);
		return false;
	}
	if (rewritten.size() > kMostRewritten)
		messages = UINT32_MAX;
	return has_turn(messages);
}

// What was forwarded may have been answered here.
void Session::pause_behind()
{
	if (stream_->unsent() > kChunk)
		pause(Pause::Reader);
	else if (input_.pause() == Pause::Backlog && server_ && !server_->is_behind())
		pause(Pause::Turn);
}

// What was rewritten, and the run behind it.
void Session::send(std::string &out, const char *run, const char *end)
{
	const auto tail = static_cast<size_t>(end - run);
	bump(group_->counters().bytes_received, out.size() + tail);
	if (!out.empty())
		server_->queue(out.data(), out.size());
	server_->queue(run, tail);
	server_->flush();
	// Replies of ours go out with the server's next ones, if there are any to come.
	if (server_->replies().only_fakes() && server_->emit_fakes())
		stream_->flush();
}

// The server was dead when it was assigned: no byte of the transaction left, so another one can have it.
void Session::retry(const char *p, const char *end)
{
	if (!stash(p, end))
		return;
	leave_server();
	resume();
}

// Nothing of what it got was executed.
void Session::leave_server()
{
	ServerConn *server = std::exchange(server_, nullptr);
	input_.start_over();
	statements_.on_unused(server->statements());
	server->abandon();
}

// False: a server must.
bool Session::answer_statement(const char *message, size_t total, std::string &answers)
{
	auto has_prepared = [this](Statement *s, Shape &shape) { return group_->has_prepared(s, shape); };
	return statements_.answer(group_->statements(), params_, {message, total, total}, answers, has_prepared);
}

// The batch that began with `bytes` is served again, as if it came now, when on_settled() says so.
bool Session::start_over(std::string_view bytes)
{
	if (input_.mid_message() || leaving_ || !input_.put_back(bytes))
		return false;
	statements_.await_round();
	return true;
}

// After whatever the backend said.
void Session::on_replies(uint64_t forwarded)
{
	if ((leaving_ || ended_) && stream_->broken())
		on_unheard(forwarded);
	if (dead_ || !server_)
		return;
	if (statements_.has_what_it_awaits(server_->replies()))
		on_settled();
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
	if (commit_lsn > 0)
		commit_lsn_ = commit_lsn;
	transactions_ += status == 'I';
	if (statements_.waits_for_round())
		on_settled();
}

void Session::on_round(For purpose, const proto::Error & /*why*/)
{
	if (purpose == For::Replay)
		on_settled();
	else if (input_.missing() == Missing::Probe)
		on_applied();
}

Standing Session::standing() const
{
	Standing s;
	s.served = !login_;
	s.mid_message = input_.mid_message();
	s.leaving = leaving_;
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
