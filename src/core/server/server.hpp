// One server: a connection of ours to a PostgreSQL backend.
//
// Owns the stream to the backend, the login there (server_login.hpp), the account of outstanding replies and the
// session settings that the backend has. It belongs to one pool for its whole life and serves one client at a time. The
// release rule lives here, in may_release(): when in doubt, the connection is closed.
//
// Life: Connecting -> Login (and proof of the role's and database's OIDs) -> Idle <-> Active -> Cleaning
// -> Idle or Closing. One that listens for parked clients (listeners.hpp) is a Listener from its login to its end,
// and serves none. A Closing server keeps its place in the pool until the backend has closed its end.
//
// What can be said without the others is an object of its own: bytes, pins, times, settings, statements, replies, the
// login, the agent. What is left is above 40 methods and 25 members, for the release rule and the end look at all of
// these at once, and each event of the backend may be the one that ends the service of a client: parts of that would
// call each other both ways. So it is one class in several files, by what happens: see server.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/statements/backend_statements.hpp"
#include "core/agent/agent_link.hpp"
#include "core/base/list.hpp"
#include "core/settings/params.hpp"
#include "core/base/claim.hpp"
#include "core/base/ports.hpp"
#include "core/account/replies.hpp"
#include "core/server/server_input.hpp"
#include "core/server/server_login.hpp"
#include "core/server/server_owner.hpp"
#include "core/server/server_pins.hpp"
#include "core/server/server_settings.hpp"
#include "core/server/server_times.hpp"
#include "core/statements/substitute.hpp"
#include "core/server/server_user.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class Group;

class ServerConn final : public StreamOwner
{
public:
	// With a listener it is a Listener for good, with this client_encoding.
	ServerConn(ServerOwner &owner, Group &group, ServerUser *listener = nullptr, std::string encoding = {});
	~ServerConn() override;

	[[nodiscard]] bool dial(); // false: no socket to be had

	// StreamOwner
	void on_connected() override;
	void on_data(const char *data, size_t size) override;
	void on_writable() override;
	void on_closed(const char *why) override;

	// ---- for the pool and the user
	void assign(ServerUser &user, const Client &client, const Params &defaults);
	void hand_to(ServerUser &user, const Client &client); // of the same client
	// Queues what makes the settings the client's. False: the client's bytes must wait for ServerUser::on_settings().
	// `ground` is SQL to run before.
	[[nodiscard]] bool apply(const Params &want, bool must_wait, std::string_view ground = {});
	// The same one by one, so that those that are refused are known. The client waits.
	[[nodiscard]] bool apply_each(const Params &want);
	void set_defaults(const Params &defaults); // what RESET goes back to for its client
	void give_back();                          // to the pool, but the client keeps the settings that it wanted
	void roll_back();                          // the same between two batches of a block
	void queue(const char *data, size_t size) { stream_->queue(data, size); }
	void flush(); // and turns the client's reading off when the backend does not take it
	// The backend was gone when the client's first bytes were written: none of them left.
	bool refused_all() const { return stream_->broken() && stream_->sent() == sent_at_assign_; }
	// So much of the client's is on its way that more would only take memory.
	bool has_enough() const;
	bool is_behind() const; // still, after it had enough
	void abandon();         // after refused_all(): the client goes elsewhere
	void client_writable();
	// What a client leaves behind that goes.
	struct Left {
		bool mid_message;
		bool own_names;       // statements under names that are not ours
		int64_t served_until; // what runs may run so long; 0 = it did not leave, it is sent away
	};
	void client_gone(const Left &left);
	void forsake();                                                    // its client ends in the middle of something
	bool between_replies() const { return input_.between_messages(); } // as the client has them
	void interrupt();
	uint64_t cancel_id() const { return cancel_id_; }
	void on_cancel_over(CancelEnd end);
	void close(); // politely; the pool hears on_server_gone() when the backend is gone
	bool try_release();
	// Its client only listens and is at rest: see subscription.hpp.
	bool may_park() const;
	void park();
	void cannot_park();                            // for a while
	void run(const std::string &sql, For purpose); // a query of ours
	bool is_listener() const { return is_listener_; }
	Target target() const { return owner_.target(); }
	bool on_node() const { return is_node(target()); } // not on the primary
	void tick(int64_t now);
	// ---- for the watch over nodes
	bool has_said() { return times_.has_said(); } // something since the last call
	// For how many calls in a row it has owed a reply and has said nothing.
	uint32_t count_quiet() { return times_.count_quiet(state_ == control::ServerState::Active && !replies_.empty()); }
	void on_silence(); // of its node: whose client has heard nothing is served elsewhere
	void fill(control::ServerRow &row) const;
	std::string node_name() const; // "": the primary

	bool mid_message() const { return input_.mid_forwarded(); } // towards the client

	Replies &replies() { return replies_; }
	const Replies &replies() const { return replies_; }
	const Params &params() const { return settings_.now(); }
	ServerSettings &settings() { return settings_; }
	const ServerLogin *login() const { return login_.get(); } // while it lasts, and when the pool hears of its end
	BackendStatements &statements() { return statements_; }
	bool emit_fakes(); // queues replies of ours that are due; true: there were some
	control::ServerState state() const { return state_; }
	void set_state(control::ServerState to); // and the pool's list
	ServerUser *user() const { return user_; }
	Stream *stream() { return stream_; }
	int32_t pid() const { return pid_; }
	int64_t since() const { return times_.since(); } // of its state, or of its client's last answer
	AgentLink &agent() { return agent_; }
	const AgentLink &agent() const { return agent_; }
	const ServerPins &pins() const { return pins_; }
	// Since when its client has kept it between transactions without a word; 0 = it does not, or can be parked.
	int64_t kept_since() const;
	void end_surplus_pin(int64_t now, int32_t most);
	bool stale() const;
	uint32_t opened_in_epoch() const { return epoch_; }
	bool expired(int64_t now) const;

	// ---- for its login
	// A ParameterStatus. False: it is not for the client.
	bool on_parameter(std::string_view name, std::string_view value, bool whole);

	Hook<ServerConn> pool_hook, all_hook;
	std::optional<Claim> claim;

private:
	void take_agent_slot();
	void login_data(const char *data, size_t size);
	void login_failed(const LoginFailure &failure);
	void give_up_login(std::string why);

	// ---- service
	ServerInput::Header read_header(ServerInput::Pass &in) const;
	void service_data(const char *data, size_t size);
	void out_of_memory();
	void after_service(uint64_t forwarded);
	bool message(char type, std::string_view body, bool &forward);
	void error(const Replies::Verdict &v, std::string_view body, bool &forward);
	bool start_over(const Replies::Verdict &v, std::string_view error);
	void close_shared_statements();
	StatementRewriter *client_statements();
	bool tells_rows() const { return replies_.front_is(For::Handover) || replies_.front_is(For::Position); } // its user
	void put_ours(char type, bool forward);
	bool notification(std::string_view body);
	bool parameter(std::string_view body);

	void tell_preset();
	void applied_one(const proto::Error &error);
	void show_idle();
	void send_sync(For purpose);
	void send_silent_sync();
	void put_query(const std::string &sql);
	Standing standing() const { return user_ ? user_->standing() : Standing(); }
	bool kept(const Standing &client) const;
	bool only_listens(const Standing &client) const;
	void count_kept();
	void tick_active(int64_t now);
	void end_idle_pin(int64_t idle_ms);
	void command_complete(std::string_view tag);
	void finished(For purpose, char status);
	void client_finished(char status);
	void ours_finished(For purpose);
	void interrupt_later();
	void discarded(const proto::Error &why);
	bool client_at_rest(const Standing &client) const;
	bool may_release(const Standing &client) const;
	void release();
	void probe();
	void clean();
	void cleaned();
	void applied(const proto::Error &why); // sqlstate is empty: they are in force
	void out_of_step(const char *what);
	void lost(const proto::Error *why);
	ServerUser *leave_user();
	bool serves_again();
	void end_for(Loss loss); // of the user
	Loss loss_now() const;
	void end_closing(int64_t now);
	void end_what_runs(int64_t until);
	void interrupt_backend();
	void end();

	bool is_over() const { return end_ == End::Gone || state_ == control::ServerState::Closing; }

	ServerOwner &owner_;
	Group &group_;
	Stream *stream_ = nullptr;
	ServerUser *user_ = nullptr;
	Client client_; // of the user
	std::unique_ptr<ServerLogin> login_;
	Replies replies_;
	Substitute substitute_;
	AgentLink agent_;
	ServerSettings settings_;
	BackendStatements statements_;
	ServerPins pins_;
	proto::Error our_error_; // of the query of ours that is answered, or the backend's last words
	ServerInput input_;
	uint64_t sent_at_assign_ = 0;
	ServerTimes times_;
	int64_t deadline_ = 0; // of Connecting, Login, Cleaning and Closing
	uint32_t epoch_ = 0;
	const region::NodeSlot *node_ = nullptr; // that it is on
	uint32_t node_generation_ = 0;           // of its row, when it was dialled
	int32_t pid_ = 0;
	std::string key_;        // on a node: that a cancel request needs
	uint64_t cancel_id_ = 0; // of a cancel request that is on its way to the node, 0 = none
	control::ServerState state_ = control::ServerState::Connecting;
	// Of the backend: SIGTERM was sent, for it did not go by itself; the pool knows that it is gone.
	enum class End : uint8_t { None, Terminated, Gone } end_ = End::None;
	bool by_tcp_ = false;
	bool discard_ = false; // DISCARD ALL before the next client
	const bool is_listener_;
	bool said_fatal_ = false;
	bool interrupt_later_ = false;
};

inline void fill(control::ServerRow &row, const ServerConn &server)
{
	server.fill(row);
}

} // namespace pgpool::core
