// See packet.hpp.
#include "net/packet.hpp"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/loop.hpp"
#include "proto/scram.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int kPacketsPerEvent = 64;
constexpr size_t kMostDescriptors = 32;

bool unix_address(const char *path, sockaddr_un &address)
{
	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(address.sun_path))
		return false;
	memcpy(address.sun_path, path, strlen(path));
	return true;
}

int connected_socket(const char *path)
{
	sockaddr_un address;
	if (!unix_address(path, address))
		return -1;
	const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0) {
		::close(fd);
		return -1;
	}
	return fd;
}

} // namespace

PacketSocket::PacketSocket(Loop &loop, int fd, OnPacket on_packet, OnClosed on_closed)
    : loop_(loop), fd_(fd), on_packet_(std::move(on_packet)), on_closed_(std::move(on_closed))
{
	poll_.data = this;
}

PacketSocket *PacketSocket::connect(Loop &loop, const char *path, OnPacket on_packet, OnClosed on_closed)
{
	const int fd = connected_socket(path);
	return fd < 0 ? nullptr : adopt(loop, fd, std::move(on_packet), std::move(on_closed));
}

PacketSocket *PacketSocket::adopt(Loop &loop, int fd, OnPacket on_packet, OnClosed on_closed)
{
	auto *p = new PacketSocket(loop, fd, std::move(on_packet), std::move(on_closed));
	if (uv_poll_init(loop.uv(), &p->poll_, fd) != 0) {
		::close(fd);
		delete p;
		return nullptr;
	}
	p->watch();
	return p;
}

void PacketSocket::watch()
{
	if (!closed_)
		uv_poll_start(&poll_, UV_READABLE | (out_.empty() && !more_ ? 0 : UV_WRITABLE), on_poll);
}

void PacketSocket::on_poll(uv_poll_t *handle, int status, int events)
{
	auto *p = static_cast<PacketSocket *>(handle->data);
	p->loop_.guarded([=] {
		if (status < 0) {
			p->lost();
			return;
		}
		if (events & UV_READABLE)
			p->readable();
		if ((events & UV_WRITABLE) && !p->closed_)
			p->writable();
	});
}

void PacketSocket::readable()
{
	// Not the loop's buffer: an answer may lead to reads of streams. Aligned for the structs in it.
	alignas(16) static thread_local char packet[control::kMaxPacket];
	struct Wipe { // whatever an owner makes of it: there may have been a verifier in it, or a password
		size_t size;
		~Wipe() { proto::wipe(packet, size); }
	};
	for (int i = 0; i < kPacketsPerEvent && !closed_; i++) {
		alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int) * kMostDescriptors)];
		iovec piece{packet, sizeof(packet)};
		msghdr m{};
		m.msg_iov = &piece;
		m.msg_iovlen = 1;
		m.msg_control = ancillary;
		m.msg_controllen = sizeof(ancillary);
		const ssize_t n = recvmsg(fd_, &m, MSG_CMSG_CLOEXEC);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		std::vector<int> fds;
		for (cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : nullptr; c; c = CMSG_NXTHDR(&m, c)) {
			if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
				continue;
			const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			fds.resize(count);
			memcpy(fds.data(), CMSG_DATA(c), count * sizeof(int));
		}
		const Wipe wipe{n > 0 ? static_cast<size_t>(n) : 0};
		control::Head head;
		if (n >= static_cast<ssize_t>(sizeof(head)))
			memcpy(&head, packet, sizeof(head));
		if (n < static_cast<ssize_t>(sizeof(head)) || head.magic != control::kMagic ||
		    head.version != region::kVersion || head.size != static_cast<uint32_t>(n)) {
			for (int fd : fds)
				::close(fd);
			lost();
			return;
		}
		on_packet_(*this, *reinterpret_cast<const control::Head *>(packet), fds);
	}
}

void PacketSocket::send(const void *packet, size_t size)
{
	if (closed_)
		return;
	if (out_.empty() && ::send(fd_, packet, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size))
		return;
	out_.emplace_back(static_cast<const char *>(packet), size);
	watch();
}

void PacketSocket::writable()
{
	while (!out_.empty()) {
		const ssize_t n = ::send(fd_, out_.front().data(), out_.front().size(), MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			lost();
			return;
		}
		out_.pop_front();
	}
	if (more_ && !more_())
		more_ = nullptr;
	watch();
}

void PacketSocket::feed(std::function<bool()> more)
{
	more_ = std::move(more);
	watch();
}

void PacketSocket::lost()
{
	if (closed_)
		return;
	const OnClosed on_closed = on_closed_;
	close();
	on_closed(*this);
}

void PacketSocket::close()
{
	if (closed_)
		return;
	closed_ = true;
	more_ = nullptr;
	uv_close(reinterpret_cast<uv_handle_t *>(&poll_),
	         [](uv_handle_t *h) { delete static_cast<PacketSocket *>(h->data); });
	::close(fd_);
}

bool PacketSocket::send_once(const char *path, const void *packet, size_t size)
{
	const int fd = connected_socket(path);
	if (fd < 0)
		return false;
	const bool ok = ::send(fd, packet, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
	::close(fd);
	return ok;
}

PacketListener *PacketListener::listen(Loop &loop, const char *path, std::function<void(int fd)> on_accept,
                                       std::string &why)
{
	sockaddr_un address;
	const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	unlink(path);
	if (fd < 0 || !unix_address(path, address) ||
	    bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 || ::listen(fd, 128) != 0) {
		why = std::string("could not listen on control socket \"") + path + "\": " + strerror(errno);
		if (fd >= 0)
			::close(fd);
		return nullptr;
	}
	auto *l = new PacketListener;
	l->loop_ = &loop;
	l->fd_ = fd;
	l->on_accept_ = std::move(on_accept);
	l->poll_.data = l;
	uv_poll_init(loop.uv(), &l->poll_, fd);
	uv_poll_start(&l->poll_, UV_READABLE, [](uv_poll_t *h, int, int) {
		auto *self = static_cast<PacketListener *>(h->data);
		self->loop_->guarded([self] {
			int client;
			while ((client = accept4(self->fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
				self->on_accept_(client);
		});
	});
	return l;
}

} // namespace pgpool::net
