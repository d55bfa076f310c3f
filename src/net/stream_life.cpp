// How a stream begins and ends: sockets and addresses, the way to TLS, the last words. See stream.hpp.
//
// Owns all changes of its state but those that come with bytes (stream.cpp).
#include "net/stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include "net/loop.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int64_t kLingerTime = 1000000; // for the peer to read our last words, microseconds
constexpr int64_t kFlushTime = 60000000; // for them to go out, whatever write_timeout says

int open_socket(int family)
{
	return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

bool is_local(const sockaddr_storage &address)
{
	const auto *v4 = reinterpret_cast<const sockaddr_in *>(&address);
	const auto *v6 = reinterpret_cast<const sockaddr_in6 *>(&address);
	return address.ss_family == AF_UNIX ||
	       (address.ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) ||
	       (address.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr));
}

} // namespace

SocketStream::SocketStream(Loop &loop, int fd, State state) : loop_(loop), fd_(fd), state_(state)
{
	poll_.data = this;
}

SocketStream *SocketStream::make(Loop &loop, int fd, State state)
{
	if (fd < 0)
		return nullptr;
	auto *s = new SocketStream(loop, fd, state);
	if (uv_poll_init(loop.uv(), &s->poll_, fd) != 0) {
		::close(fd);
		delete s;
		return nullptr;
	}
	return s;
}

SocketStream *SocketStream::adopt(Loop &loop, int fd, const sockaddr *address, socklen_t address_length)
{
	SocketStream *s = make(loop, fd, State::Clear);
	if (!s)
		return nullptr;
	if (address && address_length <= sizeof(s->address_)) {
		memcpy(s->address_, address, address_length);
		s->address_length_ = static_cast<uint8_t>(address_length);
	}
	s->watch();
	return s;
}

SocketStream *SocketStream::dial(Loop &loop, const sockaddr *address, socklen_t length, core::StreamOwner *owner)
{
	SocketStream *s = make(loop, open_socket(address->sa_family), State::Connecting);
	if (!s)
		return nullptr;
	s->owner_ = owner;
	s->connect(address, length);
	return s;
}

void SocketStream::connect(const sockaddr *address, socklen_t length)
{
	if (address->sa_family != AF_UNIX)
		Loop::set_tcp_options(fd_, loop_.settings());
	const int rc = ::connect(fd_, address, length);
	const int error = errno;
	if (rc != 0 && error != EINPROGRESS)
		fail(error == EAGAIN ? "the server's queue of connections is full" : strerror(error));
	watch();
}

// The socket is only for its number: whoever has no descriptor left hears it at once, as from dial().
SocketStream *SocketStream::lead(Loop &loop, Pilot &pilot)
{
	SocketStream *s = make(loop, open_socket(AF_UNIX), State::Placeless);
	if (!s)
		return nullptr;
	s->owner_ = &pilot;
	s->led_ = true;
	return s;
}

// The new socket takes the number of the one before, and with it the handle of libuv.
void SocketStream::connect_to(const sockaddr *address, socklen_t length)
{
	uv_poll_stop(&poll_);
	watched_ = piece_count_ = 0;
	tls_.reset();
	out_.reset();
	out_at_ = 0;
	blocked_since_ = 0;
	why_ = nullptr;
	reading_ = true;
	broken_ = half_closed_ = false;
	state_ = State::Connecting;
	const int fresh = open_socket(address->sa_family);
	if (fresh < 0 || dup3(fresh, fd_, O_CLOEXEC) < 0)
		fail(strerror(errno));
	else
		connect(address, length);
	if (fresh >= 0)
		::close(fresh);
}

void SocketStream::arrive(core::StreamOwner *owner)
{
	led_ = false;
	owner_ = owner;
	sent_ = 0;
}

std::string SocketStream::peer() const
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	if (address_length_ == 0 || getnameinfo(reinterpret_cast<const sockaddr *>(address_), address_length_, host,
	                                        sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return "[local]";
	return std::string(host) + ":" + port;
}

// A dialled stream does not know where it went.
static bool is_tcp(int fd)
{
	int family = 0;
	socklen_t length = sizeof(family);
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) == 0 && family != AF_UNIX;
}

void SocketStream::limit(const core::TcpLimits &limits)
{
	region::Settings s = loop_.settings();
	if (!is_tcp(fd_))
		return;
	auto prefer = [](int32_t &configured, int32_t own) { configured = own > 0 ? own : configured; };
	prefer(s.tcp_keepalives_idle, limits.idle);
	prefer(s.tcp_keepalives_interval, limits.interval);
	prefer(s.tcp_keepalives_count, limits.count);
	prefer(s.tcp_user_timeout, limits.user_timeout);
	Loop::set_tcp_options(fd_, s);
}

void SocketStream::connected()
{
	int error = 0;
	socklen_t length = sizeof(error);
	if (why_)
		return; // deferred() tells
	getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error != 0) {
		fail(strerror(error));
		return;
	}
	state_ = State::Clear;
	if (owner_)
		owner_->on_connected();
}

// ---- TLS

bool SocketStream::can_tls() const
{
	return address_length_ > 0 && loop_.tls().enabled();
}

core::Secrecy SocketStream::secrecy() const
{
	sockaddr_storage to{};
	socklen_t length = sizeof(to);
	if (getpeername(fd_, reinterpret_cast<sockaddr *>(&to), &length) == 0 && is_local(to))
		return core::Secrecy::Local;
	const core::TlsInfo *info = tls();
	return !info ? core::Secrecy::Clear : info->certificate_valid ? core::Secrecy::Verified : core::Secrecy::Encrypted;
}

// True: go on reading, as clear text.
bool SocketStream::sniffed()
{
	char first;
	if (!reading_)
		return false;
	const ssize_t n = recv(fd_, &first, 1, MSG_PEEK);
	if (n < 0 && try_again(errno))
		return false;
	state_ = State::Clear;
	if (n != 1 || first != 0x16 || !can_tls())
		return true;
	start_tls();
	if (state_ == State::Handshake) {
		tls_->want_alpn();
		handshake();
	}
	return false;
}

void SocketStream::start_tls()
{
	flush();
	if (unsent() == 0) {
		begin_handshake();
		return;
	}
	state_ = State::Answering;
	watch();
}

void SocketStream::begin_handshake()
{
	state_ = State::Handshake;
	tls_ = std::make_unique<TlsRecords>(loop_.tls().accept(fd_));
	if (!tls_->made()) {
		broken_ = true;
		fail("no memory for TLS");
	}
	watch();
}

void SocketStream::start_tls(SslPtr client)
{
	state_ = State::Handshake;
	tls_ = std::make_unique<TlsRecords>(std::move(client));
	handshake(); // a client speaks first
}

void SocketStream::handshake()
{
	if (why_)
		return; // deferred() tells
	const char *why = nullptr;
	if (tls_->handshake(loop_.tls(), why)) {
		state_ = State::Tls;
		if (tls_->has_more())
			defer();
		if (led_)
			owner_->on_connected();
	} else if (why) {
		broken_ = true;
		fail(why);
	}
	watch();
}

// ---- the end

void SocketStream::defer()
{
	if (!deferred_) {
		deferred_ = true;
		loop_.defer(this);
	}
}

void SocketStream::fail(const char *why)
{
	if (why_ || state_ == State::Closed)
		return;
	why_ = why;
	reading_ = false;
	defer();
}

void SocketStream::deferred()
{
	deferred_ = false;
	if (state_ == State::Closed) {
		destroy();
		return;
	}
	if (why_) {
		watch();
		if (state_ == State::Flushing || state_ == State::Lingering)
			close(false);
		else if (owner_)
			owner_->on_closed(why_);
		return;
	}
	if (may_read())
		readable();
	watch();
}

void SocketStream::close(bool with_flush)
{
	const int32_t limit = loop_.settings().write_timeout;
	if (state_ == State::Closed)
		return;
	if (led_) {
		static_cast<Pilot *>(owner_)->on_abandoned();
		with_flush = false; // nobody is there to read it
	}
	led_ = false;
	owner_ = nullptr;
	piece_count_ = 0;
	// Before TLS is up there is nothing that could be told, and a stranger is not waited for.
	if (with_flush && !broken_ && open()) {
		state_ = State::Flushing;
		reading_ = false;
		linger_until_ = loop_.now_us() + (limit > 0 ? std::min(int64_t{limit} * 1000, kFlushTime) : kFlushTime);
		loop_.lingering().push_back(this);
		if (unsent() == 0)
			linger();
		watch();
		return;
	}
	state_ = State::Closed;
	loop_.lingering().remove(this);
	if (!deferred_)
		destroy();
}

// Takes what the peer sent and nobody reads. True: it sends no more.
bool SocketStream::drained()
{
	ssize_t n;
	for (int i = 0; i < kReadsPerEvent; i++) {
		n = recv(fd_, loop_.scratch(), core::kChunk, 0);
		if (n <= 0)
			return n == 0 || !try_again(errno);
	}
	return false;
}

// All is sent: the peer gets an end of file, and a while to read what came before it. Closing at once
// would make a reset of it if the peer has sent something that nobody read.
void SocketStream::linger()
{
	if (tls_ && !tls_->shut_down())
		return; // Flushing goes on
	shutdown(fd_, SHUT_WR);
	if (half_closed_ || why_ || drained()) {
		close(false);
		return;
	}
	state_ = State::Lingering;
	linger_until_ = loop_.now_us() + kLingerTime;
}

void SocketStream::linger_tick(int64_t now)
{
	if (now > linger_until_)
		close(false);
}

void SocketStream::destroy()
{
	// Unread bytes would turn our last words into a reset.
	if (!half_closed_ && !why_ && sent_ > 0)
		(void)drained();
	tls_.reset();
	uv_close(reinterpret_cast<uv_handle_t *>(&poll_),
	         [](uv_handle_t *h) { delete static_cast<SocketStream *>(h->data); });
	::close(fd_);
}

} // namespace pgpool::net
