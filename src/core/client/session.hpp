// One client: what it sent, which server it has, what it may do next.
//
// Owns the client's stream, its cancel key and its session settings. A client without a login in progress
// is idle (no server, no buffer), waiting (in its pool's queue), or served. The login, which
// an idle client needs no more, is an object of its own (login.hpp).
//
// Bytes go to the server as they came: frames are split to keep the account of replies (replies.hpp), not
// to be copied. A server is asked for only when a whole message (or kChunk bytes of one) is there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/client/client_input.hpp"
#include "core/base/list.hpp"
#include "core/settings/params.hpp"
#include "core/base/ports.hpp"
#include "core/statements/rewriter.hpp"
#include "core/server/server_user.hpp"
#include "core/pool/waiter.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class Clients;
class Context;
class Login;
class Pool;
class PoolGroup;
class ServerConn;
class Subscription;

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
	void choose_key(int32_t pid); // 0: a random one
	std::string_view key() const { return {key_, key_length_}; }

	// ---- for the pool
	void on_assigned(ServerConn *server) override;
	const Params &wanted_settings() const override { return params_; }
	int64_t since() const override { return since_; }
	void on_queued() override;
	void on_wait_failed(const proto::Error &why, bool fatal) override;
	// ---- for the server: see ServerUser
	Standing standing() const override;
	std::string_view pinned_by() const override;
	void on_replies(uint64_t forwarded) override;
	void on_ready(char status, uint64_t commit_lsn) override;
	void on_round(For purpose, const proto::Error &why) override;
	void on_hot_standby(bool on) override { knows_hot_standby_ = on; }
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
	bool start_over(std::string_view bytes) override;
	// ---- for the engine: the others had their turn
	void on_turn();

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
	bool idles_too_long(int64_t now);
	void fill(control::ClientRow &row) const;
	void close(bool flush); // ends the session; a server is cleaned up

	Context &context() { return context_; }
	Clients &clients() { return clients_; }
	Stream *stream() { return stream_; }
	PoolGroup *group() { return group_; }
	Pool &pool(); // of the target that serves it
	ServerConn *server() const { return server_; }
	Login *login() const { return login_.get(); }
	Params &params() { return params_; }
	void adopt(const ServerConn &server); // the settings that it has there
	void adopt(const Params &params, int32_t idle_session_timeout);
	Params &defaults() { return defaults_; }
	uint64_t id() const { return id_; }
	int32_t key_pid() const { return key_pid_; }
	bool matches_key(std::string_view key) const;
	bool session_mode() const { return session_mode_; }
	bool session_port() const { return session_port_; }
	bool dead() const { return dead_; }
	Client client() const;
	uint8_t minor = 0;

	Hook<Session> all_hook, login_hook, turn_hook;

private:
	enum class Next { More, Server, Ended };
	using Missing = ClientInput::Missing;
	using Pause = ClientInput::Pause;

	// What the client sends waits.
	bool kept() const { return input_.held() || statements_.waits() || wait_hook.linked; }
	void pause(Pause why);
	void on_applied();
	void on_applied_in_part();
	void on_settled();
	void on_serverless();
	void on_unheard(uint64_t size);
	void out_of_memory();
	int64_t served_until() const;
	void resume();
	void read_on();
	void send_answers(std::string &answers);
	bool has_turn(uint32_t &messages);
	bool may_forward_another(const std::string &rewritten, uint32_t &messages);
	bool waits_for_proof();
	void ask_for_replies(std::string &out, const char *&run, const char *end);
	void pause_behind();
	void remember(std::string_view all, std::string_view of_batch);
	void process(const char *data, size_t size);
	Next before_server(const char *&p, const char *end);
	Next answer_here(const char *&p, const char *end, std::string &answers);
	void work_off_backlog();
	bool check_header(char type, uint32_t length);
	void forward(const char *p, const char *end);
	void send(std::string &out, const char *run, const char *end);
	void acquire(const char *p, const char *end);
	void take(ServerConn *server);
	bool take_settings(std::string_view message);
	void tell_promotion();
	void leave_server();
	bool stash(const char *p, const char *end); // false: there is no memory for it, the session is over
	void leave();
	void await_the_last();
	bool has_more_to_serve() const;
	bool may_leave_later() const;
	bool finishes() const;
	int64_t patience() const; // query_wait_timeout, in microseconds
	int64_t time_to_leave() const;
	bool stays_too_long(int64_t now) const;
	void note_leaving();
	void retry(const char *p, const char *end);
	void come_back();
	void end_handover();

	bool answer_statement(const char *message, size_t total, std::string &answers);
	void reply(std::string_view bytes);
	std::string described() const;
	void log_timed_out();

	Context &context_;
	Clients &clients_;
	Stream *stream_;
	std::unique_ptr<Login> login_;
	std::unique_ptr<Subscription> subscription_; // it is parked, or about to be, or comes back
	PoolGroup *group_ = nullptr;
	ServerConn *server_ = nullptr;
	Params params_;
	Params defaults_; // what it started with
	ClientInput input_;
	StatementRewriter statements_;
	uint64_t id_;
	int64_t connected_at_; // wall clock
	int64_t since_;        // monotonic: of the present state
	int64_t left_at_ = 0;  // when it was first known that it will send no more
	uint64_t transactions_ = 0, queries_ = 0;
	uint64_t unheard_ = 0;
	int32_t idle_session_timeout_ = 0; // ms, while it has no server; a setting
	uint64_t commit_lsn_ = 0;          // end of the last commit that wrote
	uint32_t tenant_slot_ = UINT32_MAX;
	int32_t key_pid_ = 0;
	uint8_t key_length_ = 0;
	char key_[32];
	bool session_port_;
	bool session_mode_ = false;
	bool ended_ = false;   // end of file came, but not all that came before it is served
	bool leaving_ = false; // Terminate or end of file came; replies are still to come
	bool knows_hot_standby_ = false;
	bool settings_doubtful_ = false; // one of them was refused by a server: each is applied by itself
	bool dead_ = false;
};

} // namespace pgpool::core
