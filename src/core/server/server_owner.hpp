// Who has servers: it opens them, keeps them in lists by their state, and hears of each change.
//
// Owns the interface only; the pool of a target implements it (pool.hpp). Must not know how servers are chosen.
#pragma once

#include "core/base/target.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class ServerConn;
struct LoginFailure;

class ServerOwner
{
public:
	virtual void on_server_ready(ServerConn *server) = 0;                               // logged in, or released
	virtual void on_server_failed(ServerConn *server, const LoginFailure &failure) = 0; // it could not log in
	virtual void on_server_gone(ServerConn *server) = 0;
	virtual void on_moved(ServerConn *server, control::ServerState from) = 0; // from one state to another
	virtual bool wanted() const = 0; // somebody waits for a server, in whichever worker
	virtual Target target() const = 0;
	virtual region::TargetGauges &gauges() = 0; // of its servers

protected:
	~ServerOwner() = default; // no server owns it
};

} // namespace pgpool::core
