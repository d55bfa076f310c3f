// The servers of one target of a pool, each in the list that its state says.
//
// Owns the lists, their order, and how many servers are logging in for clients that wait. Who moves a server says from
// which state. Must not know who waits, nor limits.
#pragma once

#include <cstdint>

#include "core/base/list.hpp"
#include "core/server/server.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class PoolServers
{
public:
	using ServerList = List<ServerConn, &ServerConn::pool_hook>;

	void add(ServerConn *server)
	{
		connecting_ += is_for_waiters(server, server->state()) ? 1 : 0;
		if (server->state() == control::ServerState::Idle)
			idle_.push_front(server);
		else
			list_of(server->state()).push_back(server);
	}
	void remove(ServerConn *server, control::ServerState from)
	{
		connecting_ -= is_for_waiters(server, from) ? 1 : 0;
		list_of(from).remove(server);
	}
	// An idle one for a client that wants these settings; nullptr: none is idle.
	ServerConn *pick(const Params &wanted) const;

	bool empty() const { return idle_.empty() && active_.empty() && other_.empty(); }
	const ServerList &idle() const { return idle_; } // most recently used first
	const ServerList &active() const { return active_; }
	static ServerConn *next(ServerConn *server) { return ServerList::next(server); }
	uint32_t connecting() const { return connecting_; } // that will serve those who wait, when they have logged in
	template <class F> void each(F f)
	{
		for (auto *list : {&idle_, &active_, &other_})
			list->each(f);
	}

private:
	// Logging in, for the clients that wait.
	static bool is_for_waiters(const ServerConn *server, control::ServerState state)
	{
		return (state == control::ServerState::Connecting || state == control::ServerState::Login) &&
		       !server->is_listener();
	}
	ServerList &list_of(control::ServerState state)
	{
		return state == control::ServerState::Idle ? idle_ : state == control::ServerState::Active ? active_ : other_;
	}

	ServerList idle_, active_, other_;
	uint32_t connecting_ = 0;
};

} // namespace pgpool::core
