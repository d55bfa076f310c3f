// See server.hpp. The client's settings are sent in server_apply.cpp; what is told of settings and pins is in
// server_agent.cpp, release and end in server_release.cpp, errors in server_errors.cpp.
#include "core/server/server.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "core/statements/rewriter.hpp"
#include "proto/bytes.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;
using region::bump;

namespace
{

constexpr int64_t kShowIdleAfter = 1000000; // us
constexpr int64_t kParkAfter = 1000000;     // of idleness, us: to park a client and to get it back takes some work
constexpr size_t kMostNotification = 16 << 20;
constexpr int64_t kConnectTime = 15000000; // for connecting and logging in at a backend, microseconds

// Messages of which more than the header is needed, and which are never long.
bool is_needed_whole(char type)
{
	return type == 'Z' || type == 'S' || type == 'C' || type == 'K' || type == 'A';
}

} // namespace

ServerConn::ServerConn(ServerOwner &owner, Group &group, ServerUser *listener, std::string encoding)
    : owner_(owner), group_(group), user_(listener),
      login_(std::make_unique<ServerLogin>(*this, group_, std::move(encoding))),
      settings_(group_.context().params(), group_.context().settings(), agent_),
      statements_(group_.statements(), replies_, settings_.now(), agent_, substitute_),
      connected_at_(group_.context().outside().wall_us()), opened_(group_.context().now()), since_(opened_),
      deadline_(opened_ + kConnectTime), epoch_(group_.epoch()), is_listener_(listener != nullptr)
{
}

ServerConn::~ServerConn() = default;

bool ServerConn::dial()
{
	const Credential *credential = group_.credential();
	by_tcp_ = credential->route == control::ServerRoute::Tcp;
	stream_ = group_.context().outside().dial({credential->route}, this);
	return stream_ != nullptr;
}

void ServerConn::on_connected()
{
	set_state(ServerState::Login);
	take_agent_slot();
	login_->start(agent_.name());
}

void ServerConn::take_agent_slot()
{
	if (by_tcp_) // the peer of a Unix socket can be known
		return;
	Context &context = group_.context();
	const uint32_t number = context.take_agent_slot();
	if (number != Context::kNoAgentSlot)
		agent_.take(number, context.region().agent(number));
}

void ServerConn::login_data(const char *data, size_t size)
{
	const ServerLogin::Outcome outcome = login_->on_data(data, size);
	pid_ = login_->pid();
	if (outcome == ServerLogin::Outcome::Failed)
		login_failed(login_->failure());
	if (outcome == ServerLogin::Outcome::Done)
		owner_.on_server_ready(this);
	if (outcome != ServerLogin::Outcome::Open)
		login_.reset();
}

void ServerConn::give_up_login(std::string why)
{
	login_failed({{proto::sqlstate::kConnectionFailure, std::move(why), "", ""},
	              control::ServerLimit::None,
	              false,
	              login_->names_sequence()});
}

void ServerConn::login_failed(const LoginFailure &failure)
{
	our_error_ = failure.why;
	owner_.on_server_failed(this, failure);
	end();
}

void ServerConn::set_state(ServerState to)
{
	since_ = group_.context().now();
	count_kept();
	owner_.on_moved(this, std::exchange(state_, to));
}

bool ServerConn::stale() const
{
	return epoch_ != group_.epoch() || group_.dead();
}

bool ServerConn::expired(int64_t now) const
{
	const int32_t lifetime = group_.settings().server_lifetime.load(std::memory_order_relaxed);
	return lifetime > 0 && (now - opened_) / 1000 >= lifetime;
}

// ---- serving a client

void ServerConn::assign(ServerUser &user, const Client &client, const Params &defaults)
{
	hand_to(user, client);
	agent_.serve(client.id, client.address, group_.settings().pin_sequences.load(std::memory_order_relaxed));
	set_defaults(defaults);
	statements_.assigned(group_.context().next_assignment(), *user.statements());
	substitute_.reset();
	sent_at_assign_ = stream_->sent();
	said_fatal_ = false;
	our_error_ = {};
	interrupt_later_ = false;
	pins_.assigned();
	transaction_began_ = query_began_ = 0;
	set_state(ServerState::Active);
	if (client_.session_mode)
		close_shared_statements();
}

// A client that has the server for itself finds it as a fresh one: pg_prepared_statements shows its own.
void ServerConn::close_shared_statements()
{
	std::string out;
	if (!statements_.close_surplus(0, out))
		return;
	stream_->queue(out.data(), out.size());
	send_silent_sync();
}

void ServerConn::set_defaults(const Params &defaults)
{
	if (settings_.defaults() == defaults)
		return;
	settings_.set_defaults(defaults);
	agent_.set_defaults(defaults.get());
}

void ServerConn::hand_to(ServerUser &user, const Client &client)
{
	user_ = &user;
	client_ = client;
}

// Nobody uses it from here on.
ServerUser *ServerConn::leave_user()
{
	client_ = {};
	return std::exchange(user_, nullptr);
}

void ServerConn::run(const std::string &sql, For purpose)
{
	agent_.hush(true);
	replies_.sent('Q', purpose);
	put_query(sql);
}

// The caller has written it into the account.
void ServerConn::put_query(const std::string &sql)
{
	std::string out;
	proto::append_query(out, sql);
	stream_->queue(out.data(), out.size());
	stream_->flush();
}

bool ServerConn::emit_fakes()
{
	static constexpr char kParseComplete[] = {'1', 0, 0, 0, 4};
	static constexpr char kCloseComplete[] = {'3', 0, 0, 0, 4};
	bool any = false;
	if (body_left_ > 0) // in the middle of a message
		return false;
	while (const char type = replies_.take_fake()) {
		statements_.on_fake(client_statements());
		any = true;
		if (client_.stream)
			client_.stream->queue(type == '1' ? kParseComplete : kCloseComplete, sizeof(kParseComplete));
	}
	return any;
}

void ServerConn::flush()
{
	if (query_began_ == 0 && !replies_.empty()) {
		query_began_ = group_.context().now();
		if (transaction_began_ == 0)
			transaction_began_ = query_began_;
	}
	client_was_heard_ = true;
	stream_->flush();
	if (stream_->unsent() > 0 && client_.stream)
		client_.stream->read(false);
}

bool ServerConn::has_enough() const
{
	return replies_.size() >= group_.context().bounds().outstanding || stream_->unsent() > kChunk;
}

bool ServerConn::is_behind() const
{
	return replies_.size() > group_.context().bounds().outstanding / 2 || stream_->unsent() > 0 ||
	       settings_.has_unproved();
}

void ServerConn::on_writable()
{
	if (user_)
		user_->on_server_writable();
	else if (state_ == ServerState::Closing)
		stream_->shutdown_write();
}

void ServerConn::client_writable()
{
	stream_->read(true);
	try_release();
}

void ServerConn::on_data(const char *data, size_t size)
{
	switch (state_) {
	case ServerState::Connecting:
	case ServerState::Login:
		login_data(data, size);
		break;
	case ServerState::Closing:
		break;
	default:
		service_data(data, size);
		break;
	}
}

// More: the header, or a message that is needed whole, is not all there.
ServerConn::Header ServerConn::read_header(const char *p, size_t have, size_t &total) const
{
	if (have < proto::kHeaderSize)
		return Header::More;
	const uint32_t length = proto::load32(p + 1);
	if (length < 4 || length > proto::kMaxMessage + 1)
		return Header::Broken;
	total = size_t{length} + 1;
	const bool short_one = total <= kChunk && client_.stream && replies_.front_names_statement();
	const bool row_of_ours = *p == 'D' && replies_.front_is(For::Handover);
	const bool whole = is_needed_whole(*p) || row_of_ours ||
	                   (*p == 'E' && (!client_.stream || replies_.front_is_ours() || short_one)) ||
	                   (*p == 't' && short_one && statements_.replay().on()) ||
	                   ((*p == 't' || *p == 'T') && total <= kChunk && replies_.wants_shape()) ||
	                   (*p == 't' && total <= kChunk && client_.stream && replies_.tells_unnamed_types());
	if (!whole || have >= total)
		return Header::Whole;
	if (*p == 'S' && total > settings_.most_value()) // its name will do
		return have > ServerSettings::kLongestName + proto::kHeaderSize ? Header::Whole : Header::More;
	return total > (*p == 'S'   ? settings_.most_value()
	                : *p == 'A' ? kMostNotification
	                            : kChunk)
	           ? Header::Broken
	           : Header::More;
}

// Splits what the backend sent, keeps the account, and forwards all that is the client's as few runs.
void ServerConn::service_data(const char *data, size_t size)
{
	std::string joined;
	if (!stash_.empty()) {
		if (!proto::try_append(stash_, {data, size})) {
			out_of_memory();
			return;
		}
		if (stash_.size() < stash_needs_)
			return;
		joined = std::exchange(stash_, {});
		stash_needs_ = 0;
		data = joined.data();
		size = joined.size();
	}
	const char *p = data;
	const char *run = data;
	const char *end = data + size;
	uint64_t forwarded = 0;
	auto put_run = [&](const char *upto) {
		if (client_.stream && upto > run) {
			client_.stream->queue(run, static_cast<size_t>(upto - run));
			forwarded += static_cast<uint64_t>(upto - run);
		}
		run = upto;
	};
	while (p < end) {
		const auto have = static_cast<size_t>(end - p);
		if (body_left_ == 0 && replies_.fake_due()) {
			put_run(p);
			emit_fakes();
		}
		if (body_left_ > 0) {
			const auto n = static_cast<uint32_t>(std::min<size_t>(body_left_, have));
			p += n;
			body_left_ -= n;
			if (!body_forward_)
				run = p;
			continue;
		}
		size_t total = 0;
		const Header header = read_header(p, have, total);
		if (header == Header::More) {
			stash_needs_ = total <= settings_.most_value() ? total : 0;
			break;
		}
		const char type = *p;
		if (client_.stream && (header == Header::Broken ||
		                       (type == 'Z' && (replies_.front_is_ours() || client_statements()->waits_for_round())))) {
			// What follows from it may answer or end the session: its replies go out first, this one with them.
			put_run(header == Header::Broken || replies_.front_is_ours() ? p : p + total);
			client_.stream->flush();
		}
		if (type == 'A')
			put_run(p); // it may be the one from which on another server's notifications count
		if (header == Header::Broken) {
			out_of_step("a message of impossible length");
			return;
		}
		const size_t n = std::min(total, have);
		bool forward = true;
		unread_ = have - n;
		if (!message(type, {p + proto::kHeaderSize, n - proto::kHeaderSize}, forward))
			return;
		if (!forward || substitute_.withholds())
			put_run(p);
		put_ours(type, forward);
		p += n;
		if (!forward)
			run = p;
		body_left_ = static_cast<uint32_t>(total - n);
		body_forward_ = forward;
	}
	put_run(p);
	unread_ = 0;
	if (p < end && !proto::try_append(stash_, {p, static_cast<size_t>(end - p)})) {
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
		if (user_ && replies_.front_is(For::Handover))
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
		return !gone_ && state_ != ServerState::Closing;
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

void ServerConn::send_sync(For purpose)
{
	static constexpr char kSync[] = {'S', 0, 0, 0, 4};
	replies_.sent('S', purpose);
	stream_->queue(kSync, sizeof(kSync));
	stream_->flush();
}

// What is sent behind it waits for nothing, so the agent must be able to count.
void ServerConn::send_silent_sync()
{
	agent_.announce_own();
	send_sync(For::Silence);
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
	const int64_t now = group_.context().now();
	region::PoolCounters &c = group_.counters();
	bump(c.queries);
	queries_++;
	if (query_began_ > 0)
		bump(c.query_us, static_cast<uint64_t>(std::max<int64_t>(0, now - query_began_)));
	query_began_ = replies_.empty() ? 0 : now;
	since_ = now;
	if (status == 'I') {
		bump(c.transactions);
		bump(c.transaction_us, static_cast<uint64_t>(std::max<int64_t>(0, now - transaction_began_)));
		transactions_++;
		transaction_began_ = query_began_;
	}
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

// ---- clock and view

// The agent looks when it answers.
void ServerConn::show_idle()
{
	agent_.show_idle();
	send_silent_sync();
}

void ServerConn::tick(int64_t now)
{
	const region::PoolSettings &s = group_.settings();
	switch (state_) {
	case ServerState::Connecting:
	case ServerState::Login:
		if (now > deadline_)
			give_up_login("the server did not accept a login in time");
		break;
	case ServerState::Cleaning:
		if (now > deadline_)
			close();
		break;
	case ServerState::Closing:
		if (now > deadline_)
			end_closing(now);
		break;
	case ServerState::Idle: {
		const int32_t limit = s.server_idle_timeout.load(std::memory_order_relaxed);
		if (stale() || expired(now) || (limit > 0 && (now - since_) / 1000 >= limit))
			close();
		else if (agent_.needs_show_idle() && now - since_ >= kShowIdleAfter)
			show_idle();
		break;
	}
	case ServerState::Active:
		tick_active(now);
		break;
	case ServerState::Listener:
		break;
	}
}

void ServerConn::tick_active(int64_t now)
{
	const region::PoolSettings &s = group_.settings();
	if (user_->cut_off(now))
		return;
	if (pins_.may_park_again(now))
		count_kept();
	if (may_park() && (now - since_ >= kParkAfter || owner_.wanted()))
		park();
	const Standing client = standing();
	if (!client.served)
		return;
	if (client_was_heard_) {
		client_was_heard_ = false;
		heard_at_ = now;
	}
	const int32_t limit = s.idle_in_transaction_timeout.load(std::memory_order_relaxed);
	const bool client_is_due = client.mid_message || (replies_.empty() && !replies_.at_rest());
	const int64_t idle = (now - std::max(since_, heard_at_)) / 1000;
	if (limit > 0 && client_is_due && idle >= limit)
		user_->end({proto::sqlstate::kIdleInTransaction, "terminating connection due to idle-in-transaction timeout",
		            "The transaction was idle for " + std::to_string(idle) + " ms.",
		            "The limit is pgpool.idle_in_transaction_timeout or idle_in_transaction_timeout of the "
		            "tenant, now " +
		                std::to_string(limit) + " ms."});
	else if (!client_is_due && replies_.at_rest() && pins_.counted() != ServerPins::Counted::Parkable)
		end_idle_pin(idle);
}

void ServerConn::fill(control::ServerRow &row) const
{
	row.pid = pid_;
	row.state = state_;
	row.pool_slot = group_.slot();
	row.by_tcp = by_tcp_;
	row.agent = agent_.there();
	row.client_id = client_.id;
	row.connected_at = connected_at_;
	row.state_since = group_.context().outside().wall_us() - (group_.context().now() - since_);
	row.transactions = transactions_;
	row.queries = queries_;
	auto put = [](auto &field, std::string_view text) {
		memcpy(field, text.data(), std::min(text.size(), sizeof(field) - 1));
	};
	put(row.tenant, group_.tenant());
	put(row.database, group_.database());
	put(row.role, group_.role());
	if (const Param *p = settings_.now()->find("application_name"))
		put(row.application_name, p->value);
}

} // namespace pgpool::core
