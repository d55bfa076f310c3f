// See listener.hpp.
#include "net/listener.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/loop.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int kAcceptsPerEvent = 16;

// -1: `why`, and errno.
int bound_socket(const addrinfo *a, int backlog, std::string &why)
{
	const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	const int on = 1;
	if (fd < 0) {
		why = std::string("could not create a socket: ") + strerror(errno);
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, backlog) != 0) {
		const int error = errno;
		char host[NI_MAXHOST] = "?";
		getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
		why = std::string("could not listen on address \"") + host + "\": " + strerror(error);
		::close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

std::vector<std::string> split(const std::string &list)
{
	std::vector<std::string> parts;
	size_t at = 0;
	while (at <= list.size()) {
		size_t comma = list.find(',', at);
		comma = comma == std::string::npos ? list.size() : comma;
		std::string part = list.substr(at, comma - at);
		part.erase(0, part.find_first_not_of(" \t"));
		part.erase(part.find_last_not_of(" \t") + 1);
		if (!part.empty())
			parts.push_back(part);
		at = comma + 1;
	}
	return parts;
}

} // namespace

Listener::Listener(Loop &loop, int fd, bool session_port, Accept accept)
    : loop_(loop), fd_(fd), session_port_(session_port), accept_(std::move(accept))
{
	poll_.data = this;
}

Listener *Listener::watch(Loop &loop, int fd, bool session_port, Accept accept)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	auto *l = new Listener(loop, fd, session_port, std::move(accept));
	if (uv_poll_init(loop.uv(), &l->poll_, fd) != 0) {
		::close(fd);
		delete l;
		return nullptr;
	}
	uv_poll_start(&l->poll_, UV_READABLE, on_poll);
	return l;
}

bool Listener::bind_tcp(Loop &loop, const std::string &addresses, int port, int backlog, bool session_port,
                        const Accept &accept, std::vector<Listener *> &out, std::string &why)
{
	bool all = true;
	for (const std::string &name : split(addresses)) {
		addrinfo hints{};
		hints.ai_family = AF_UNSPEC;
		hints.ai_socktype = SOCK_STREAM;
		hints.ai_flags = AI_PASSIVE;
		addrinfo *found = nullptr;
		const int rc = getaddrinfo(name == "*" ? nullptr : name.c_str(), std::to_string(port).c_str(), &hints, &found);
		if (rc != 0) {
			why = "could not translate \"" + name + "\" of pgpool.listen_addresses: " + gai_strerror(rc);
			continue;
		}
		size_t bound = 0;
		std::string absent, taken;
		for (const addrinfo *a = found; a; a = a->ai_next) {
			const std::string address(reinterpret_cast<const char *>(a->ai_addr), a->ai_addrlen);
			const auto is_it = [&](const Listener *l) { return l->address_ == address; };
			if (std::any_of(out.begin(), out.end(), is_it)) {
				bound++;
				continue;
			}
			std::string problem;
			const int fd = bound_socket(a, backlog, problem);
			if (fd < 0)
				(errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL ? absent : taken) = problem;
			Listener *l = fd < 0 ? nullptr : watch(loop, fd, session_port, accept);
			if (l) {
				l->address_ = address;
				out.push_back(l);
				bound++;
			} else if (fd >= 0) {
				taken = "could not watch a socket";
			}
		}
		freeaddrinfo(found);
		// One address of a name may be missing: a machine without IPv6 has only the other.
		const std::string &problem = !taken.empty() || bound > 0 ? taken : absent;
		if (!problem.empty()) {
			why = problem + " (port " + std::to_string(port) + ")";
			all = false;
		}
	}
	return all;
}

void Listener::on_poll(uv_poll_t *handle, int, int)
{
	auto *l = static_cast<Listener *>(handle->data);
	l->loop_.guarded([l] { l->accept_some(); });
}

void Listener::accept_some()
{
	for (int i = 0; i < kAcceptsPerEvent; i++) {
		sockaddr_storage address;
		socklen_t length = sizeof(address);
		const int fd = accept4(fd_, reinterpret_cast<sockaddr *>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
				resting_ = true;
				uv_poll_stop(&poll_);
			}
			return;
		}
		const bool tcp = address.ss_family != AF_UNIX;
		if (tcp)
			Loop::set_tcp_options(fd, loop_.settings());
		SocketStream *s =
		    SocketStream::adopt(loop_, fd, tcp ? reinterpret_cast<sockaddr *>(&address) : nullptr, length);
		if (!s)
			continue;
		if (tcp)
			s->sniff();
		accept_(s, session_port_, fd);
	}
}

void Listener::tick()
{
	if (resting_) {
		resting_ = false;
		uv_poll_start(&poll_, UV_READABLE, on_poll);
	}
}

void Listener::close()
{
	uv_close(reinterpret_cast<uv_handle_t *>(&poll_), [](uv_handle_t *h) { delete static_cast<Listener *>(h->data); });
	::close(fd_);
}

} // namespace pgpool::net
