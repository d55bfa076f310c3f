// A server's connection, login and assignment, what it is sent, its clock and its row of the view. See server.hpp.
//
// What its backend says is in server_replies.cpp, errors in server_errors.cpp; how it gets its client's settings in
// server_apply.cpp; what is told of settings and pins in server_agent.cpp; release and end in server_release.cpp.
#include "core/server/server.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;

namespace
{

constexpr int64_t kShowIdleAfter = 1000000; // us
constexpr int64_t kParkAfter = 1000000;     // of idleness, us: to park a client and to get it back takes some work
constexpr int64_t kConnectTime = 15000000;  // for connecting and logging in at a backend, microseconds
constexpr int64_t kNodeLoginTime = 1000000; // to log in at a node: one that is slower is of no use

} // namespace

ServerConn::ServerConn(ServerOwner &owner, Group &group, ServerUser *listener, std::string encoding)
    : owner_(owner), group_(group), user_(listener),
      login_(std::make_unique<ServerLogin>(*this, group_, std::move(encoding))),
      settings_(group_.context().params(), group_.context().settings(), agent_),
      statements_(group_.statements(), replies_, settings_.now(), agent_, substitute_, !on_node()),
      times_(group_.context().now(), group_.context().outside().wall_us()), deadline_(times_.since() + kConnectTime),
      epoch_(group_.epoch()), is_listener_(listener != nullptr)
{
}

ServerConn::~ServerConn() = default;

bool ServerConn::dial()
{
	const Credential *credential = group_.credential();
	ServerAddress to{credential->route};
	if (on_node()) {
		to = {control::ServerRoute::Node, node_of(target())};
		node_ = &group_.context().region().node(to.node);
		node_generation_ = node_->generation.load();
	}
	by_tcp_ = to.route != control::ServerRoute::Unix;
	stream_ = group_.context().outside().dial(to, this);
	return stream_ != nullptr;
}

void ServerConn::on_connected()
{
	set_state(ServerState::Login);
	if (on_node())
		deadline_ = group_.context().now() + kNodeLoginTime;
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
	if (on_node())
		key_ = login_->key();
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
	times_.changed(group_.context().now());
	count_kept();
	owner_.on_moved(this, std::exchange(state_, to));
}

bool ServerConn::stale() const
{
	const bool of_old_row = node_ && (node_->generation.load(std::memory_order_relaxed) != node_generation_ ||
	                                  node_->used.load(std::memory_order_relaxed) == 0);
	return epoch_ != group_.epoch() || group_.dead() || of_old_row;
}

bool ServerConn::expired(int64_t now) const
{
	const int32_t lifetime = group_.settings().server_lifetime.load(std::memory_order_relaxed);
	return lifetime > 0 && times_.age_ms(now) >= lifetime;
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
	times_.assigned();
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

void ServerConn::flush()
{
	if (!times_.in_query() && !replies_.empty())
		times_.sent(group_.context().now());
	times_.heard();
	stream_->flush();
	if (stream_->unsent() > 0 && client_.stream)
		client_.stream->read(false);
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
	times_.said();
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
		if (stale() || expired(now) || (limit > 0 && (now - times_.since()) / 1000 >= limit))
			close();
		else if (agent_.needs_show_idle() && now - times_.since() >= kShowIdleAfter)
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
	if (may_park() && (now - times_.since() >= kParkAfter || owner_.wanted()))
		park();
	const Standing client = standing();
	if (!client.served)
		return;
	const int32_t limit = s.idle_in_transaction_timeout.load(std::memory_order_relaxed);
	const bool client_is_due = client.mid_message || (replies_.empty() && !replies_.at_rest());
	const int64_t idle = times_.silent_ms(now);
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
	times_.fill(row, group_.context().now(), group_.context().outside().wall_us());
	auto put = [](auto &field, std::string_view text) {
		memcpy(field, text.data(), std::min(text.size(), sizeof(field) - 1));
	};
	put(row.tenant, group_.tenant());
	put(row.database, group_.database());
	put(row.role, group_.role());
	if (const Param *p = settings_.now()->find("application_name"))
		put(row.application_name, p->value);
	put(row.node, node_name());
}

std::string ServerConn::node_name() const
{
	region::NodeNames names{};
	if (on_node())
		region::read_names(group_.context().region().node(node_of(target())), names);
	return names.name;
}

} // namespace pgpool::core
