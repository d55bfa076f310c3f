// How a server takes what its backend sends: messages are accounted for, and forwarded, kept back or made others. See
// server.hpp; server_input.hpp splits the bytes, server_errors.cpp has what an error means.
//
// Must not know how a server is assigned or released, but that it may be once all that came is taken.
#include "core/server/server.hpp"

#include <utility>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "core/statements/rewriter.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;
using region::bump;
using Header = ServerInput::Header;

namespace
{

constexpr size_t kMostNotification = 16 << 20;

// Messages of which more than the header is needed, and which are never long.
bool is_needed_whole(char type)
{
	return type == 'Z' || type == 'S' || type == 'C' || type == 'K' || type == 'A';
}

} // namespace

// How much of a message must be here before it is looked at: of most, the header.
ServerInput::Header ServerConn::read_header(ServerInput::Pass &in) const
{
	const Header header = in.read_header();
	if (header != Header::Whole)
		return header;
	const char type = in.type();
	const size_t total = in.total();
	const bool short_one = total <= kChunk && client_.stream && replies_.front_names_statement();
	const bool row_of_ours = type == 'D' && tells_rows();
	// What is read here, and what may become another message on its way: an error that is ours or names a shared
	// statement, the types that are told of one. Rows, and whatever is long, go through in pieces.
	const bool whole = is_needed_whole(type) || row_of_ours ||
	                   (type == 'E' && (!client_.stream || replies_.front_is_ours() || short_one)) ||
	                   (type == 't' && short_one && statements_.replay().on()) ||
	                   ((type == 't' || type == 'T') && total <= kChunk && replies_.wants_shape()) ||
	                   (total <= kChunk && statements_.replay().on_node() && type != 'D' && type != 'd') ||
	                   (type == 't' && total <= kChunk && client_.stream && replies_.tells_unnamed_types());
	if (!whole || in.have() >= total)
		return Header::Whole;
	if (type == 'S' && total > settings_.most_value()) // its name will do
		return in.have() > ServerSettings::kLongestName + proto::kHeaderSize ? Header::Whole : Header::More;
	return total > (type == 'S'   ? settings_.most_value()
	                : type == 'A' ? kMostNotification
	                              : kChunk)
	           ? Header::Broken
	           : Header::More;
}

// Splits what the backend sent, keeps the account, and forwards all that is the client's as few runs.
void ServerConn::service_data(const char *data, size_t size)
{
	ServerInput::Pass in(input_);
	switch (in.start(data, size)) {
	case ServerInput::Pass::Start::Ready:
		break;
	case ServerInput::Pass::Start::Wait:
		return;
	case ServerInput::Pass::Start::NoMemory:
		out_of_memory();
		return;
	}
	uint64_t forwarded = 0;
	// Its client may leave at any message, and what was forwarded by then is nobody's.
	auto put_run = [&](bool with_this = false) {
		const std::string_view run = in.take_run(with_this);
		if (!client_.stream || run.empty())
			return;
		client_.stream->queue(run.data(), run.size());
		forwarded += run.size();
	};
	size_t needs = 0;
	while (in.more()) {
		if (input_.between_messages() && replies_.fake_due()) {
			put_run();
			emit_fakes();
		}
		if (in.go_on())
			continue;
		const Header header = read_header(in);
		if (header == Header::More) {
			needs = in.total() <= settings_.most_value() ? in.total() : 0;
			break;
		}
		const char type = in.type();
		if (client_.stream && (header == Header::Broken ||
		                       (type == 'Z' && (replies_.front_is_ours() || client_statements()->waits_for_round())))) {
			// What follows from it may answer or end the session: its replies go out first, this one with them.
			const bool with_this = header == Header::Whole && !replies_.front_is_ours();
			if (with_this && substitute_.withholds()) {
				put_run();
				put_ours(type, true);
			}
			put_run(with_this);
			client_.stream->flush();
		}
		if (type == 'A')
			put_run(); // it may be the one from which on another server's notifications count
		if (header == Header::Broken) {
			out_of_step("a message of impossible length");
			return;
		}
		bool forward = true;
		if (!message(type, in.begin_message(), forward))
			return;
		// Ours goes before this message, so what is before both goes first.
		if (!forward || substitute_.withholds())
			put_run();
		put_ours(type, forward);
		in.end_message(forward);
	}
	put_run();
	if (!in.keep_rest(needs)) {
		out_of_memory();
		return;
	}
	bump(group_.counters().bytes_sent, forwarded);
	after_service(forwarded);
}

void ServerConn::out_of_memory()
{
	if (!user_ || !user_->on_out_of_memory())
		close();
}

// All that came has been taken.
void ServerConn::after_service(uint64_t forwarded)
{
	emit_fakes();
	if (user_ && replies_.at_rest())
		count_kept(); // before the client is told that it is done
	if (client_.stream) {
		client_.stream->flush();
		if (client_.stream->unsent() > 0)
			stream_->read(false);
	}
	if (user_)
		user_->on_replies(forwarded);
	if (state_ == ServerState::Cleaning)
		clean();
	else if (user_)
		try_release();
}

// One message of the backend. False: this connection is over, the caller must touch nothing.
bool ServerConn::message(char type, std::string_view body, bool &forward)
{
	const bool idle_before = replies_.at_rest();
	const Replies::Verdict v = replies_.received(type, type == 'Z' && !body.empty() ? body[0] : '\0');
	forward = v.forward && client_.stream;
	if (v.violation || type == 'K' || type == 'R') {
		out_of_step("a message that answers nothing");
		return false;
	}
	// A row of a result, and what else completes nothing, concerns no statement.
	if (v.answered != 0 || type == 't' || statements_.replay().on())
		statements_.on_reply(type, v, body, client_statements(), forward);
	switch (type) {
	case 'S':
		forward = parameter(body) && forward;
		break;
	case 'C':
		command_complete(body); // the client may be gone by now, but not what it did
		break;
	case 'E':
		if (!idle_before) {
			error(v, body, forward);
			break;
		}
		// Last words of a backend that serves no transaction: its client need not know.
		forward = false;
		said_fatal_ = true;
		our_error_ = proto::read_error(body);
		if (state_ == ServerState::Idle) {
			close();
			return false;
		}
		break;
	case 'D':
		if (user_ && tells_rows())
			user_->on_row(body);
		break;
	case 'A':
		forward = notification(body);
		break;
	case 'N':
		forward = client_.stream && v.forward;
		break;
	case 'Z':
		finished(v.purpose, replies_.status());
		return !is_over();
	default:
		break;
	}
	return true;
}

StatementRewriter *ServerConn::client_statements()
{
	return user_ ? user_->statements() : nullptr;
}

// Whatever the server is at: it is the client's, or that of all clients that listen here. True: it goes on as it is.
bool ServerConn::notification(std::string_view body)
{
	const Notification n(body);
	const bool for_client = user_ && user_->on_notification(n) && client_.stream;
	if (!for_client || body.size() < 4 || n.pid != pid_)
		return for_client;
	// Its own: programs know that by the process that they were told when they logged in.
	const auto pid = static_cast<uint32_t>(client_.key_pid);
	proto::Writer(substitute_.write()).begin('A').u32(pid).bytes(body.substr(4)).end();
	return false;
}

bool ServerConn::parameter(std::string_view body)
{
	proto::Reader r(body);
	const std::string_view name = r.string();
	const bool named = r.ok();
	const std::string_view value = r.string();
	return on_parameter(named ? name : body.substr(0, ServerSettings::kLongestName),
	                    r.ok() ? value : std::string_view(), r.ok());
}

void ServerConn::command_complete(std::string_view tag)
{
	if (tag.size() > 0 && tag.back() == '\0')
		tag.remove_suffix(1);
	if (tag == "DISCARD ALL" || tag == "DEALLOCATE ALL") {
		statements_.on_discarded(client_statements());
		if (tag == "DISCARD ALL" && !agent_.there())
			settings_.tell_discarded();
	}
}

// A ReadyForQuery.
void ServerConn::finished(For purpose, char status)
{
	settings_.end_round();
	if (purpose == For::Client)
		client_finished(status);
	else if (purpose == For::Replay && user_)
		user_->on_round(purpose, {});
	else if (purpose != For::Silence) // behind that, whatever was sent is still to come
		ours_finished(purpose);
	if (purpose != For::Client)
		interrupt_later();
}

// A cancel that came while the server worked for us: the client's query runs now.
void ServerConn::interrupt_later()
{
	if (!interrupt_later_ || replies_.round_is_ours())
		return;
	interrupt_later_ = false;
	if (!replies_.empty())
		interrupt();
}

void ServerConn::client_finished(char status)
{
	times_.answered(group_.context().now(), status, !replies_.empty(), group_.counters());
	if (user_)
		user_->on_ready(status, status == 'I' ? agent_.new_commit() : 0);
}

void ServerConn::ours_finished(For purpose)
{
	const proto::Error why = std::exchange(our_error_, {});
	if (state_ == ServerState::Cleaning && !replies_.empty())
		interrupt(); // of a pipeline, the next query runs now
	if (!settings_.one_by_one() && replies_.empty())
		agent_.hush(false); // also of what ran for a client that is gone
	switch (purpose) {
	case For::Settings:
		applied(why);
		break;
	case For::Setting:
		applied_one(why);
		break;
	case For::Discard:
		discarded(why);
		break;
	case For::Probe:
	case For::Handover:
	case For::Round:
	case For::Position:
	case For::Begin:
		if (user_)
			user_->on_round(purpose, why);
		break;
	default:
		break;
	}
}

void ServerConn::discarded(const proto::Error &why)
{
	discard_ = false;
	if (!why.sqlstate.empty()) {
		out_of_step("an error in DISCARD ALL");
		return;
	}
	settings_.tell_discarded();
	pins_.tell_settings(settings_.too_many());
	statements_.on_discarded(nullptr);
}

bool ServerConn::emit_fakes()
{
	static constexpr char kParseComplete[] = {'1', 0, 0, 0, 4};
	static constexpr char kCloseComplete[] = {'3', 0, 0, 0, 4};
	bool any = false;
	if (!input_.between_messages())
		return false;
	while (const char type = replies_.take_fake()) {
		statements_.on_fake(client_statements());
		any = true;
		if (statements_.replay().on_node())
			substitute_.withhold(type, {});
		else if (client_.stream)
			client_.stream->queue(type == '1' ? kParseComplete : kCloseComplete, sizeof(kParseComplete));
	}
	return any;
}

} // namespace pgpool::core
