// The servers of one target of a pool in one worker, the queue of clients that wait for them, its share of the limit.
//
// A pool is spread over all workers; the region holds the limit and how many servers each worker has (layout.hpp says
// how the limit is kept exactly). A client gets an idle server of this worker, the most recently used first, one with
// its own settings before any; else a new one if the limit allows; else it waits, first come first served. When another
// worker holds the places, it is asked to yield one.
// Owns the servers and the queue. What all targets share is its group's (pool_group.hpp).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/list.hpp"
#include "core/server.hpp"
#include "core/session.hpp"
#include "proto/message.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Engine;
class Listener;
class PoolGroup;

class Pool
{
public:
	explicit Pool(PoolGroup &group);
	Pool(const Pool &) = delete;
	Pool &operator=(const Pool &) = delete;

	// ---- for sessions
	// nullptr: it waits and hears on_assigned() or on_wait_failed().
	ServerConn *acquire(Session *session);
	void stop_waiting(Session *session);
	// Why no server was had in that time.
	proto::Error lack(const std::string &limit) const;

	// ---- for servers
	void on_server_ready(ServerConn *server);                               // logged in, or released
	void on_server_failed(ServerConn *server, const LoginFailure &failure); // it could not log in
	void on_server_gone(ServerConn *server);
	void change_state(ServerConn *server, control::ServerState to);
	bool wanted() const; // somebody waits for a server, in whichever worker

	// ---- for the group and the engine
	PoolGroup &group() { return group_; }
	void tick(int64_t now);
	void refresh(bool renamed);
	void on_new_proof(); // of the role's identity
	void grow();
	void yield(uint32_t worker, uint32_t waited_ms);
	bool close_one_idle();
	void close_idle();
	bool give_up_idle(const Claim &to);            // false: there is none, or our own clients wait
	void on_place_free();                          // that was asked for
	ServerConn *open_listener(Listener *listener); // nullptr: it cannot be had
	bool has_servers() const { return servers() > 0; }
	bool has_waiters() const { return !waiters_.empty(); }
	template <class F> void each_server(F f)
	{
		for (auto *list : {&idle_, &active_, &other_})
			list->each(f);
	}

private:
	bool reserve();
	void open_server();
	bool dial(ServerConn *server);
	void park_one();
	void serve();
	ServerConn *pick(const Session *session);
	void count();
	void fail_waiters(const proto::Error &why, bool fatal = true);
	void fail_late_waiters(int64_t now);
	void ask_others(int64_t now);
	void ask_for_place(int64_t now);
	void end_surplus_pin(int64_t now);
	size_t servers() const { return idle_.size() + active_.size() + other_.size(); }
	uint32_t open_everywhere() const;
	struct Refusal {
		proto::Error why;
		bool fatal; // to a session that waits
		uint32_t look = 0;
	};
	void doubt(Refusal refusal);

	using ServerList = List<ServerConn, &ServerConn::pool_hook>;
	ServerList &list_of(control::ServerState state);

	PoolGroup &group_;
	Engine &engine_;
	region::PoolCounters &mine_;
	ServerList idle_; // most recently used first
	ServerList active_, other_;
	List<Session, &Session::wait_hook> waiters_;
	uint32_t connecting_ = 0;
	uint32_t owed_ = 0;    // busy servers that were promised to another worker
	uint32_t yielded_ = 0; // servers whose place goes to yielded_to_ when the backend is gone
	uint32_t yielded_to_ = 0;
	int64_t hold_until_ = 0; // no new server before: the place was promised
	int64_t logged_at_ = 0;
	bool serving_ = false;
	int64_t retry_at_ = 0; // after a failed login
	std::optional<Refusal> refusal_;
	// The server's own limit that refused the last one, and when. Logins are tried one at a time then.
	control::ServerLimit refused_by_ = control::ServerLimit::None;
	int64_t refused_at_ = 0;
	int64_t asked_at_ = 0;
	proto::Error last_failure_;
};

} // namespace pgpool::core
