// The servers of one target of a pool in one worker, the queue of clients that wait for them, its share of the limit.
//
// A pool is spread over all workers; the region holds the limit and how many servers each worker has (layout.hpp says
// how the limit is kept exactly). A client gets an idle server of this worker, the most recently used first, one with
// its own settings before any; else a new one if the limit allows; else it waits, first come first served. When another
// worker holds the places, it is asked to yield one (places.hpp).
// Owns the servers and the queue. What all targets share is its group's (pool_group.hpp), what failed logins mean is
// said by attempts.hpp. A client is in the queue or not; a server is in the lists of pool_servers.hpp from dial() to
// its end. The gauges in the region are written at the end of an event: nothing that is limited depends on them.
#pragma once

#include <cstdint>
#include <string>

#include "core/pool/attempts.hpp"
#include "core/base/list.hpp"
#include "core/pool/places.hpp"
#include "core/pool/pool_servers.hpp"
#include "core/server/server.hpp"
#include "core/server/server_owner.hpp"
#include "core/pool/waiter.hpp"
#include "proto/message.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Context;
class PoolGroup;
class Pools;

class Pool final : public ServerOwner
{
public:
	Pool(PoolGroup &group, Target target);
	~Pool();
	Pool(const Pool &) = delete;
	Pool &operator=(const Pool &) = delete;

	// ---- for sessions
	// nullptr: it waits and hears on_assigned() or on_wait_failed().
	ServerConn *acquire(Waiter *waiter);
	void stop_waiting(Waiter *waiter);
	// Why no server was had in that time.
	proto::Error lack(const std::string &limit) const;

	// ---- for servers
	void on_server_ready(ServerConn *server) override;
	void on_server_failed(ServerConn *server, const LoginFailure &failure) override;
	void on_server_gone(ServerConn *server) override;
	void on_moved(ServerConn *server, control::ServerState from) override;
	bool wanted() const override;

	// ---- for the group and the engine
	PoolGroup &group() { return group_; }
	Target target() const override { return target_; }
	region::TargetGauges &gauges() override { return gauges_; }
	void tick(int64_t now);
	void refresh(bool renamed);
	void on_new_proof(); // of the role's identity
	void grow();
	void yield(uint32_t worker, uint32_t waited_ms);
	void try_node(); // that it is of, and that has failed
	bool close_one_idle();
	void close_idle();
	bool give_up_idle(const Claim &to); // false: there is none, or our own clients wait
	void on_place_free();               // that was asked for
	// With this client_encoding. nullptr: it cannot be had.
	ServerConn *open_listener(ServerUser *listener, const std::string &encoding);
	bool has_servers() const { return !servers_.empty(); }
	void write_gauges(); // what the views and the other workers see
	bool has_waiters() const { return !waiters_.empty(); }
	template <class F> void each_server(F f) { servers_.each(f); }

	Hook<Pool> gauges_hook; // its gauges are not those of the region

private:
	bool dial(ServerConn *server);
	void park_one();
	void serve();
	void count();
	int64_t waited() const; // the first in the queue, microseconds
	void fail_waiters(const proto::Error &why, bool fatal = true);
	void fail_late_waiters(int64_t now);
	void node_works();
	void node_failed(const LoginFailure &failure);
	void leave_node(int64_t now);
	void ask_others(int64_t now);
	void ask_for_place(int64_t now);
	void doubt(const proto::Error &why, bool fatal);
	void end_surplus_pin(int64_t now);

	PoolGroup &group_;
	Pools &all_;
	Context &context_;
	region::PoolCounters &mine_; // of all targets
	const Target target_;
	region::TargetGauges &gauges_;
	PoolServers servers_;
	List<Waiter, &Waiter::wait_hook> waiters_;
	bool serving_ = false; // serve() is at work
	Attempts attempts_;
	Places places_;
};

} // namespace pgpool::core
