// Listening sockets: TCP with SO_REUSEPORT, made here, and Unix sockets, got from the manager.
//
// Owns one listening descriptor and accepts from it. When no descriptor is to be had it rests for a
// moment instead of spinning. Must not know what a client is: accepted streams go to a callback.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <uv.h>

#include "net/stream.hpp"

namespace pgpool::net
{

class Loop;

class Listener
{
public:
	// The stream, whether it came by the session port, and the number of its descriptor.
	using Accept = std::function<void(SocketStream *, bool session_port, int fd)>;

	// Takes the descriptor.
	static Listener *watch(Loop &loop, int fd, bool session_port, Accept accept);
	// Every address that `addresses` (as listen_addresses) names and `out` does not have. `why` says what could not be
	// done; false: later it may be possible.
	[[nodiscard]] static bool bind_tcp(Loop &loop, const std::string &addresses, int port, int backlog,
	                                   bool session_port, const Accept &accept, std::vector<Listener *> &out,
	                                   std::string &why);
	void close(); // and frees itself
	void tick();  // ends a rest

private:
	Listener(Loop &loop, int fd, bool session_port, Accept accept);
	static void on_poll(uv_poll_t *handle, int status, int events);
	void accept_some();

	Loop &loop_;
	uv_poll_t poll_;
	int fd_;
	std::string address_; // as bound by bind_tcp()
	bool session_port_;
	bool resting_ = false;
	Accept accept_;
};

} // namespace pgpool::net
