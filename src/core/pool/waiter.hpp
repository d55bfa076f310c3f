// Who waits for a server of a pool. Owns its place in the queue.
#pragma once

#include <cstdint>

#include "core/base/list.hpp"
#include "core/settings/params.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class ServerConn;

class Waiter
{
public:
	virtual const Params &wanted_settings() const = 0; // a server that has them is preferred
	virtual int64_t since() const = 0;                 // it waits, once it is in the queue; monotonic
	virtual void on_queued() = 0;                      // no server is there yet
	virtual void on_assigned(ServerConn *server) = 0;
	virtual void on_wait_failed(const proto::Error &why, bool fatal) = 0;

	Hook<Waiter> wait_hook;

protected:
	~Waiter() = default; // no pool owns it
};

} // namespace pgpool::core
