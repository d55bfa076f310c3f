// See session.hpp.
#include "core/session.hpp"

#include <algorithm>
#include <cstring>

#include "core/engine.hpp"
#include "core/login.hpp"
#include "core/pool.hpp"
#include "core/server.hpp"
#include "core/subscription.hpp"
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

bool may_be_long(char type)
{
	return strchr("QPBFd", type) != nullptr;
}

} // namespace

Session::Session(Engine &engine, Stream *stream, uint64_t serial, bool session_port)
    : engine_(engine), stream_(stream), id_(uint64_t{engine.worker()} << 48 | serial),
      connected_at_(engine.outside().wall_us()), since_(engine.now()), session_port_(session_port)
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
	if (holding_ || settling_ || wait_hook.linked) {
		// Reading stays on, as long as there is room: to turn it off and on again for each wait would cost
		// two system calls.
		inbuf_.append(data, size);
		if (inbuf_.size() >= kChunk)
			stream_->read(false);
		return;
	}
	if (inbuf_.empty()) {
		process(data, size);
	} else {
		std::string all = std::move(inbuf_);
		inbuf_.clear();
		all.append(data, size);
		process(all.data(), all.size());
	}
}

void Session::on_writable()
{
	if (server_)
		server_->client_writable();
}

void Session::on_half_closed()
{
	on_closed("the client closed the connection");
}

// End of file. Replies that are still to come are delivered to a client that only closed its own half;
// it cannot be told from one that is gone, so they have kHalfCloseGrace to arrive.
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
	if (login_ && login_->busy() && !stream_->broken()) {
		// What it sent already is served, as by a backend, which reads the end of file last.
		ended_ = true;
		stream_->read(false);
		return;
	}
	if (server_ && !stream_->broken() && !server_->replies().empty() && body_left_ == 0 && !leaving_ && !holding_ &&
	    !settling_) {
		leaving_ = true;
		since_ = engine_.now();
		stream_->read(false);
		return;
	}
	close(false);
}

// ---- messages

void Session::process(const char *data, size_t size)
{
	const char *p = data;
	const char *end = data + size;
	if (server_ && subscription_) {
		stash(p, end);
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

bool Session::check_header(char type, uint32_t length)
{
	if (!is_known_type(type)) {
		fatal({proto::sqlstate::kProtocolViolation,
		       "invalid frontend message type " + std::to_string(static_cast<unsigned char>(type)), "", ""});
		return false;
	}
	if (length < 4 || length - 4 > (may_be_long(type) ? proto::kMaxMessage : proto::kMaxSmallMessage)) {
		fatal({proto::sqlstate::kProtocolViolation,
		       "invalid message length " + std::to_string(length) + " in message of type \"" + type + "\"", "", ""});
		return false;
	}
	return true;
}

// What can be answered without a server, because nothing is outstanding: Sync, Flush, Terminate, what is
// left of a failed copy, and everything that is skipped after an error of ours.
Session::Next Session::before_server(const char *&p, const char *end)
{
	while (p < end) {
		if (discard_left_ > 0) {
			const auto n = static_cast<uint32_t>(std::min<size_t>(discard_left_, static_cast<size_t>(end - p)));
			p += n;
			discard_left_ -= n;
			continue;
		}
		if (end - p < static_cast<ptrdiff_t>(proto::kHeaderSize))
			return Next::More;
		const char type = *p;
		const uint32_t length = proto::load32(p + 1);
		if (!check_header(type, length))
			return Next::Ended;
		if (type == 'X') {
			close(true);
			return Next::Ended;
		}
		if (type == 'S') {
			skipping_ = false;
			prepared_ = nullptr;
			std::string ready;
			proto::append_ready(ready, 'I');
			reply(ready);
			discard_left_ = length + 1;
		} else if (skipping_ || type == 'H' || type == 'd' || type == 'c' || type == 'f') {
			discard_left_ = length + 1;
		} else {
			const auto have = static_cast<size_t>(end - p);
			if (have <= length)
				return have >= kChunk ? Next::Server : Next::More;
			if ((type != 'P' && type != 'C') || !answer_statement(p, size_t{length} + 1))
				return Next::Server;
			p += size_t{length} + 1;
		}
	}
	return Next::More;
}

void Session::acquire(const char *p, const char *end)
{
	proto::Error why;
	if (pool_->dead()) {
		fatal(pool_->death());
		return;
	}
	if (engine_.refuses(why) || engine_.evicts(tenant_slot_, why)) {
		fatal(why);
		return;
	}
	if (!pool_->acquire(this)) {
		if (dead_)
			return;
		stash(p, end);
		since_ = engine_.now();
		return;
	}
	if (!server_->apply(params_, false)) {
		holding_ = true;
		stash(p, end);
		server_->flush();
		return;
	}
	since_ = engine_.now();
	if (subscription_) {
		stash(p, end);
		come_back();
		return;
	}
	forward(p, end);
}

void Session::on_assigned(ServerConn *server)
{
	server_ = server;
	since_ = engine_.now();
	if (login_) {
		if (!server_->apply(login_->wanted(), true, login_->ground())) {
			server_->flush();
			return;
		}
		login_->on_prepared();
		if (server_)
			server_->try_release();
		return;
	}
	if (!server_->apply(params_, false)) {
		holding_ = true;
		server_->flush();
		return;
	}
	on_applied();
}

void Session::on_applied()
{
	if (login_) {
		login_->on_prepared();
		return;
	}
	if (subscription_) {
		come_back();
		return;
	}
	holding_ = false;
	std::string all = std::move(inbuf_);
	inbuf_.clear();
	stream_->read(true);
	forward(all.data(), all.data() + all.size());
}

void Session::hold()
{
	holding_ = true;
}

// Splits [p, end) into messages, writes each into the account of replies and sends all as one run; as
// soon as one message must be rewritten, as one copy.
void Session::forward(const char *p, const char *end)
{
	const char *start = p;
	const char *run = p;
	const char *replay_from = start;
	std::string &out = engine_.copy();
	out.clear();
	Rewrite verdict = Rewrite::Verbatim;
	while (p < end) {
		const auto have = static_cast<size_t>(end - p);
		if (body_left_ > 0) {
			const auto n = static_cast<uint32_t>(std::min<size_t>(body_left_, have));
			p += n;
			body_left_ -= n;
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
			send(out, run, p);
			leave();
			return;
		}
		const size_t total = size_t{length} + 1;
		if (type == 'P' || type == 'B' || type == 'D' || type == 'C' || (type == 'Q' && length > 5)) {
			size_t used = 0;
			const size_t mark = out.size();
			const bool replayed = server_->replay().on();
			out.append(run, static_cast<size_t>(p - run));
			verdict = rewrite(p, have, total, out, used);
			if (!replayed && server_->replay().on())
				replay_from = p;
			if (verdict == Rewrite::Done) {
				p += used;
				body_left_ = static_cast<uint32_t>(total - used);
				run = p;
				continue;
			}
			if (out.size() == mark + static_cast<size_t>(p - run))
				out.resize(mark);
			else
				run = p; // something went before it
			if (verdict != Rewrite::Verbatim)
				break;
			if (const size_t at = name_to_disguise(p, have, total)) {
				out.append(run, static_cast<size_t>(p + at - run)).append(kDisguisedPrefix.substr(0, 1));
				run = p + at + 1;
			}
		}
		if (type == 'E' && have == proto::kHeaderSize && total > have)
			break; // which portal?
		account(p, have);
		const size_t n = std::min(total, have);
		p += n;
		body_left_ = static_cast<uint32_t>(total - n);
		if (type == 'S' && !cleanup_.empty()) {
			out.append(run, static_cast<size_t>(p - run));
			run = p;
			after_sync(out);
		}
	}
	if (server_->replay().on())
		server_->replay().add({replay_from, static_cast<size_t>(p - replay_from)});
	if (verdict == Rewrite::Settle)
		settle(p, end);
	else if (p < end)
		stash(p, end);
	send(out, run, p);
	if (server_ && server_->refused_all() && !session_mode_)
		retry(start, end);
}

// What was rewritten, and the run behind it.
void Session::send(std::string &out, const char *run, const char *end)
{
	const auto tail = static_cast<size_t>(end - run);
	bump(pool_->counters().bytes_received, out.size() + tail);
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
	ServerConn *dead = server_;
	server_ = nullptr;
	body_left_ = 0;
	settling_ = false;
	inbuf_.clear();
	if (unnamed_at_ == dead->serial()) // it was prepared there, and will be again
		forget_unnamed();
	dead->abandon();
	const std::string all(p, static_cast<size_t>(end - p));
	process(all.data(), all.size());
}

// The type of a message as Replies knows it.
char Session::kind_of(const char *message, size_t have) const
{
	const bool unnamed = have > proto::kHeaderSize && message[proto::kHeaderSize] == '\0';
	if (*message == 'P' && unnamed)
		return Replies::kUnnamedParse;
	if (*message != 'E' || !unnamed)
		return *message;
	return !bound_deallocate_.empty() ? Replies::kDeallocateExecute : begin_bound_ ? Replies::kBegin : 'E';
}

// A message that goes as it is.
void Session::account(const char *message, size_t have)
{
	const char kind = kind_of(message, have);
	const bool noted = server_->replies().sent(kind) && kind == Replies::kDeallocateExecute;
	if (*message == 'S' || *message == 'Q')
		prepared_ = nullptr;
	if (*message == 'Q' || *message == 'E' || *message == 'F')
		queries_++;
	if (*message == 'Q')
		forget_unnamed(); // as the server does
	if (!noted)
		return;
	StatementNotes &notes = server_->notes();
	notes.note_batch(server_->replies().batch());
	notes.add(StatementNotes::OnServer::Nothing, nullptr, bound_deallocate_,
	          statements_.set(bound_deallocate_, nullptr));
	bound_deallocate_.clear();
}

void Session::on_discarded()
{
	// The unnamed statement stays, and what was prepared behind the command.
	for (ClientStatements::Item &item : statements_.take_all()) {
		if (item.name.empty() || server_->notes().will_be(item.name, item.statement)) {
			statements_.set(item.name, item.statement);
			statements_.set_columns(item.name, item.statement, item.columns);
		} else {
			engine_.statements().release(item.statement);
		}
	}
	server_->notes().forget_before();
	raw_names_ = false;
}

void Session::forget_statements()
{
	for (ClientStatements::Item &item : statements_.take_all())
		engine_.statements().release(item.statement);
	unnamed_shared_ = false;
	forget_unnamed();
}

// The batch that began with `bytes` is served again, as if it came now, when on_settled() says so.
void Session::start_over(std::string_view bytes)
{
	settling_ = true;
	inbuf_.insert(0, bytes);
}

// The backend is asked what a statement's result looks like now: what uses it waits, and all behind it.
void Session::await_columns(std::string &out)
{
	proto::Writer(out).begin('H').end();
	server_->replies().sent('H');
	awaited_ = server_->replies().sent_so_far();
}

// After whatever the backend said.
void Session::on_replies()
{
	if (awaited_ > 0 && server_->replies().done_up_to(awaited_))
		on_settled();
}

// A message means what the replies to an earlier batch decide: it waits for them, and all behind it.
void Session::settle(const char *p, const char *end)
{
	settling_ = true;
	stash(p, end);
}

void Session::on_settled()
{
	settling_ = false;
	awaited_ = 0;
	std::string all = std::move(inbuf_);
	inbuf_.clear();
	stream_->read(true);
	process(all.data(), all.size());
}

void Session::leave()
{
	if (server_->replies().empty() || server_->replies().unsynced()) {
		close(true);
		return;
	}
	leaving_ = true;
	since_ = engine_.now();
	stream_->read(false);
}

void Session::reply(std::string_view bytes)
{
	stream_->queue(bytes.data(), bytes.size());
	stream_->flush();
}

} // namespace pgpool::core
