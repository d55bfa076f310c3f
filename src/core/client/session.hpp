// One client: what it sent, which server it has, what it may do next.
//
// Owns the client's stream, its cancel key and its session settings. A client without a login in progress
// is idle (no server, no buffer), waiting (in its pool's queue), or served. The login, which
// an idle client needs no more, is an object of its own (login.hpp).
//
// Bytes go to the server as they came: frames are split to keep the account of replies (replies.hpp), not
// to be copied (message_run.hpp). A server is asked for only when a whole message (or kChunk bytes of one) is there
// (answer_run.hpp).
//
// It has many methods, for here three interfaces meet (32 are theirs), and whatever its stream, its server, its pool
// and the clock say decides the same question, resume(): may what the client sent go on, and where? An object between
// would hear all of them, too. What has an answer of its own is taken out: its input, its statements, settings,
// departure, key.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/list.hpp"
#include "core/base/ports.hpp"
#include "core/client/cancel_key.hpp"
#include "core/client/client_input.hpp"
#include "core/client/client_settings.hpp"
#include "core/client/client_tally.hpp"
#include "core/client/departure.hpp"
#include "core/client/read_route.hpp"
#include "core/routing/nodes.hpp"
#include "core/routing/statement_kind.hpp"
#include "core/base/target.hpp"
#include "core/statements/rewriter.hpp"
#include "core/server/server_user.hpp"
#include "core/pool/waiter.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class Clients;
class Context;
class Login;
class MessageRun;
class Pool;
class PoolGroup;
class ServerConn;
class Subscription;
struct Classified;

class Session final : public StreamOwner, public ServerUser, public Waiter
{
public:
	Session(Clients &clients, Stream *stream, uint64_t serial, bool session_port);
	~Session() override;

	// StreamOwner
	void on_data(const char *data, size_t size) override;
	void on_writable() override;
	void on_closed(const char *why) override;
	void on_half_closed() override;

	// ---- for the login
	void end_if_ended();
	void login_done(); // greeted: from now on messages are served
	void set_group(PoolGroup *group, bool session_mode);
	void count_in_tenant(uint32_t tenant_slot, int32_t delta = 1);
	uint32_t tenant_slot() const { return tenant_slot_; }
	void start_login();

	// ---- for the pool
	void on_assigned(ServerConn *server) override;
	const Params &wanted_settings() const override { return settings_.now(); }
	int64_t since() const override { return since_; }
	void on_queued() override;
	void on_wait_failed(const proto::Error &why, bool fatal) override;
	// ---- for the server: see ServerUser
	Standing standing() const override;
	std::string_view pinned_by() const override;
	void on_replies(uint64_t forwarded) override;
	void on_ready(char status, uint64_t commit_lsn) override;
	void on_round(For purpose, const proto::Error &why) override;
	void on_row(std::string_view body) override;
	void on_hot_standby(bool on) override { settings_.told_hot_standby(on); }
	void on_tcp_settings(const Params &now) override;
	void on_server_writable() override;
	void on_settings(bool all) override;
	bool on_settings_refused() override;
	void hold() override { input_.miss(Missing::Probe); }
	void on_left() override { close(true); }
	void end(const proto::Error &why) override { fatal(why); }
	bool on_out_of_memory() override;
	bool cut_off(int64_t now) override;
	void check_timeouts(int64_t now) override;
	bool may_park() const override;
	bool park() override;
	void on_released() override;
	void on_lost(Loss loss, const proto::Error *why) override;
	StatementRewriter *statements() override { return &statements_; }
	bool start_over(std::string_view bytes, std::string_view sqlstate) override;
	// ---- for the engine: the others had their turn
	void on_turn();
	void on_alarm(); // it waits for a node

	// ---- for its subscription, in session_listening.cpp
	void on_park_failed();
	void on_parked(bool release);
	void on_came_back(std::string notifications);
	void on_return_failed();
	void leave_lost_server(bool adopts); // its last settings count
	void drop_server();

	// ---- for the engine
	void fatal(const proto::Error &error);
	void cancel(); // a cancel request with the right key came
	control::ClientState state() const;
	void close(bool flush); // ends the session; a server is cleaned up

	Context &context() { return context_; }
	Clients &clients() { return clients_; }
	Stream *stream() { return stream_; }
	PoolGroup *group() { return group_; }
	Pool &pool(); // of the target that serves it
	ServerConn *server() const { return server_; }
	Login *login() const { return login_.get(); }
	ClientSettings &settings() { return settings_; }
	const ClientTally &tally() const { return tally_; }
	CancelKey &key() { return key_; }
	uint64_t id() const { return id_; }
	uint8_t minor() const { return minor_; } // of the protocol
	void set_minor(uint8_t minor) { minor_ = minor; }
	bool session_mode() const { return session_mode_; }
	bool session_port() const { return session_port_; }
	bool dead() const { return dead_; }

	Hook<Session> all_hook, login_hook, turn_hook;

private:
	using Missing = ClientInput::Missing;
	using Pause = ClientInput::Pause;

	// What the client sends waits.
	bool kept() const { return input_.held() || statements_.waits() || wait_hook.linked; }
	void pause(Pause why);
	void on_applied();
	void on_applied_in_part();
	void on_settled();
	void on_serverless();
	void out_of_memory();
	void resume();
	void read_on();
	void send_answers(std::string &answers);
	void pause_behind();
	void process(std::string_view bytes);
	void answer(std::string_view bytes);
	void work_off_backlog();
	void forward(std::string_view bytes);
	void send(const MessageRun &run);
	void acquire(std::string_view bytes);
	void take(ServerConn *server);
	Client client() const;
	bool take_settings(std::string_view message);
	void tell_promotion();
	void leave_server();
	bool stash(std::string_view bytes); // false: there is no memory for it, the session is over
	void leave();
	void await_the_last();
	bool has_more_to_serve() const;
	bool may_leave_later() const;
	int64_t time_to_leave() const;
	bool stays_too_long(int64_t now) const;
	bool idles_too_long(int64_t now);
	void note_leaving();
	void come_back();
	void end_handover();

	void reply(std::string_view bytes);
	void refuse(const proto::Error &why);

	// ---- where its batches are served, in session_route.cpp
	bool choose_target(std::string_view bytes);
	Reading reading() const;
	Reason why_primary(BatchReader &batch, Block &block) const;
	bool read_batch(BatchReader &batch, Block &block, Reason &why) const;
	void learn_write(std::string_view bytes);
	NodeChoice choose_node();
	NodeChoice stay();
	ReadNeeds needs() const;
	bool may_await(uint32_t node);
	bool no_node(const NodeChoice &why, std::string_view bytes);
	bool is_monotonic() const;
	uint64_t fence() const;
	bool prepares_target();
	bool node_is_fit();
	void on_position();
	void begin_read();
	void end_batch(char status);
	uint64_t database_commit() const; // position of the last one in the client's database, by whoever
	bool falls_back() const;
	void avoid_node(Reason why);
	void go_elsewhere(Reason why);
	void leave_node();
	bool is_on_node() const;
	bool is_next_batch() const;

	// ---- blocks that begin on a node, in session_block.cpp
	Part part_of(const Classified &what, Block &block) const;
	bool is_in_block_on_node() const;
	bool moves_block() const { return route_ && route_->block.moves; }
	void go_on_in_block(std::string_view bytes);
	void move_block(Reason why, bool fails);
	void begin_again();
	void on_begun(const proto::Error &why);
	bool isolation_is_fit();
	void on_position_in_block(bool is_fit);
	bool put_in_own_words(std::string_view bytes, std::string &own) const;

	Context &context_;
	Clients &clients_;
	Stream *stream_;
	std::unique_ptr<Login> login_;
	std::unique_ptr<Subscription> subscription_; // it is parked, or about to be, or comes back
	PoolGroup *group_ = nullptr;
	ServerConn *server_ = nullptr;
	ClientSettings settings_;
	ClientInput input_;
	std::unique_ptr<ReadRoute> route_; // from the first batch on that may be a read for a node
	StatementRewriter statements_;
	Departure departure_;
	ClientTally tally_;
	uint64_t id_;
	int64_t since_; // monotonic: of the present state
	CancelKey key_;
	uint32_t tenant_slot_ = UINT32_MAX;
	Target target_ = Target::Primary; // where it waits for a server, or has one
	uint8_t minor_ = 0;
	bool session_port_;
	bool session_mode_ = false;
	bool dead_ = false;
};

} // namespace pgpool::core
