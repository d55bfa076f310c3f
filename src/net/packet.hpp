// The control socket: packets of region/control.hpp over AF_UNIX SOCK_SEQPACKET.
//
// Owns one connection with its queue of packets that the socket did not take, and the listening socket of
// a worker. Packets of another build are refused. Must not know what a packet means.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include <uv.h>

#include "region/control.hpp"

namespace pgpool::net
{

class Loop;

class PacketSocket
{
public:
	// A packet and the descriptors that came with it, which the callee owns.
	using OnPacket = std::function<void(PacketSocket &, const control::Head &, const std::vector<int> &fds)>;
	using OnClosed = std::function<void(PacketSocket &)>;

	static PacketSocket *connect(Loop &loop, const char *path, OnPacket on_packet, OnClosed on_closed); // or nullptr
	static PacketSocket *adopt(Loop &loop, int fd, OnPacket on_packet, OnClosed on_closed);
	void send(const void *packet, size_t size);
	// `more` is called each time that the peer has taken what was sent, at most once in a turn of the loop, until it
	// says false: an answer of any length needs the memory of a part.
	void feed(std::function<bool()> more);
	void close(); // frees itself later, on_closed is not called

	// A packet to somebody whose answer is not wanted.
	static bool send_once(const char *path, const void *packet, size_t size);

private:
	PacketSocket(Loop &loop, int fd, OnPacket on_packet, OnClosed on_closed);
	static void on_poll(uv_poll_t *handle, int status, int events);
	void readable();
	void writable();
	void watch();
	void lost();

	Loop &loop_;
	uv_poll_t poll_;
	int fd_;
	bool closed_ = false;
	OnPacket on_packet_;
	OnClosed on_closed_;
	std::deque<std::string> out_;
	std::function<bool()> more_;
};

// Listens on `path`, replacing what an earlier life left there.
class PacketListener
{
public:
	// nullptr: `why` says why not.
	static PacketListener *listen(Loop &loop, const char *path, std::function<void(int fd)> on_accept,
	                              std::string &why);

private:
	Loop *loop_ = nullptr;
	uv_poll_t poll_;
	int fd_ = -1;
	std::function<void(int)> on_accept_;
};

} // namespace pgpool::net
