// See stream.hpp.
#include "net/stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <openssl/err.h>
#include <unistd.h>

#include "net/loop.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int kReadsPerEvent = 4;        // one bulk connection must not starve the others
constexpr size_t kJoin = 1024;           // pieces that are not longer than this together are sent as one
constexpr int64_t kLingerTime = 1000000; // for the peer to read our last words, microseconds

// The length of what is in `joined` now; 0: it is one piece anyway, or too long.
size_t join(const iovec *pieces, int count, char *joined)
{
	size_t size = 0;
	if (count == 1)
		return 0;
	for (int i = 0; i < count; i++)
		size += pieces[i].iov_len;
	if (size > kJoin)
		return 0;
	for (int i = 0; i < count; i++) {
		memcpy(joined, pieces[i].iov_base, pieces[i].iov_len);
		joined += pieces[i].iov_len;
	}
	return size;
}

} // namespace

SocketStream::SocketStream(Loop &loop, int fd) : loop_(loop), fd_(fd)
{
	poll_.data = this;
}

SocketStream *SocketStream::adopt(Loop &loop, int fd, const sockaddr *address, socklen_t address_length)
{
	auto *s = new SocketStream(loop, fd);
	if (uv_poll_init(loop.uv(), &s->poll_, fd) != 0) {
		::close(fd);
		delete s;
		return nullptr;
	}
	if (address && address_length <= sizeof(s->address_)) {
		memcpy(s->address_, address, address_length);
		s->address_length_ = static_cast<uint8_t>(address_length);
	}
	s->watch();
	return s;
}

SocketStream *SocketStream::dial(Loop &loop, const sockaddr *address, socklen_t length, core::StreamOwner *owner)
{
	const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return nullptr;
	if (address->sa_family != AF_UNIX)
		Loop::set_tcp_options(fd, loop.settings());
	const int rc = connect(fd, address, length);
	const int error = errno;
	SocketStream *s = adopt(loop, fd, nullptr, 0);
	if (!s)
		return nullptr;
	s->owner_ = owner;
	s->connecting_ = true;
	if (rc != 0 && error != EINPROGRESS)
		s->fail(error == EAGAIN ? "the server's queue of connections is full" : strerror(error));
	s->watch();
	return s;
}

// ---- what the loop is to watch for

void SocketStream::watch()
{
	if (closed_)
		return;
	int events = 0;
	if (connecting_) {
		events = UV_WRITABLE;
	} else if (tls_ && tls_->handshake) {
		events = tls_->want_write ? UV_WRITABLE : UV_READABLE;
	} else {
		events = reading_ || lingering_ ? UV_READABLE : half_closed_ ? 0 : UV_DISCONNECT;
		if (unsent() > 0)
			events |= UV_WRITABLE;
	}
	if (events == watched_)
		return;
	watched_ = events;
	if (events == 0)
		uv_poll_stop(&poll_);
	else
		uv_poll_start(&poll_, events, on_poll);
}

void SocketStream::on_poll(uv_poll_t *handle, int status, int events)
{
	auto *s = static_cast<SocketStream *>(handle->data);
	s->loop_.guarded([=] { s->handle(status, events); });
}

void SocketStream::handle(int status, int events)
{
	if (connecting_) {
		connected();
	} else if (status < 0) {
		watched_ = 0;
		// The error itself is read from the socket, after what it still holds.
		if (reading_ && !(tls_ && tls_->handshake))
			readable();
		if (!closed_ && !why_)
			fail("the connection was reset");
	} else if (tls_ && tls_->handshake) {
		handshake();
	} else {
		if (events & UV_WRITABLE)
			send_kept();
		if ((events & UV_READABLE) && !closed_)
			readable();
		if ((events & UV_DISCONNECT) && !closed_ && !reading_ && !half_closed_) {
			half_closed_ = true;
			if (owner_)
				owner_->on_half_closed();
		}
	}
	watch();
}

void SocketStream::connected()
{
	int error = 0;
	socklen_t length = sizeof(error);
	getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
	connecting_ = false;
	if (why_)
		return; // deferred() tells
	if (error != 0) {
		fail(strerror(error));
		return;
	}
	if (owner_)
		owner_->on_connected();
}

// ---- reading

ssize_t SocketStream::receive(char *buffer, size_t size, bool &end)
{
	end = false;
	if (!tls_) {
		const ssize_t n = recv(fd_, buffer, size, 0);
		end = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
		return n;
	}
	ERR_clear_error();
	const int n = SSL_read(tls_->ssl.get(), buffer, static_cast<int>(size));
	if (n > 0)
		return n;
	const int error = SSL_get_error(tls_->ssl.get(), n);
	end = error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
	return -1;
}

void SocketStream::readable()
{
	if (sniff_ && !sniffed())
		return;
	char *buffer = loop_.buffer();
	for (int i = 0; i < kReadsPerEvent && !closed_ && (reading_ || lingering_); i++) {
		bool end;
		const ssize_t n = receive(buffer, core::kChunk, end);
		if (n > 0) {
			if (owner_)
				owner_->on_data(buffer, static_cast<size_t>(n));
			if (!tls_ && n < static_cast<ssize_t>(core::kChunk))
				break;
			continue;
		}
		if (end) {
			half_closed_ = true;
			fail("end of file");
		}
		break;
	}
	// Decrypted bytes are invisible to epoll.
	if (!closed_ && reading_ && tls_ && SSL_pending(tls_->ssl.get()) > 0)
		defer();
}

// True: go on reading, as clear text.
bool SocketStream::sniffed()
{
	char first;
	const ssize_t n = recv(fd_, &first, 1, MSG_PEEK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	sniff_ = false;
	if (n == 1 && first == 0x16 && can_tls()) {
		start_tls();
		if (tls_) {
			tls_->direct = true;
			handshake();
		}
		return false;
	}
	return true;
}

void SocketStream::read(bool on)
{
	if (reading_ == on)
		return;
	reading_ = on;
	if (on && tls_ && SSL_pending(tls_->ssl.get()) > 0)
		defer();
	watch();
}

// ---- writing

void SocketStream::queue(const char *data, size_t size)
{
	if (size == 0 || broken_)
		return;
	if (unsent() > 0) {
		out_->append(data, size);
		return;
	}
	if (piece_count_ == kPieces)
		flush();
	if (unsent() > 0) {
		out_->append(data, size);
		return;
	}
	pieces_[piece_count_].iov_base = const_cast<char *>(data);
	pieces_[piece_count_].iov_len = size;
	piece_count_++;
}

ssize_t SocketStream::send_pieces(const iovec *pieces, int count)
{
	// A few bytes are copied in less time than sendmsg() needs to look at an array, or TLS for one more record.
	char joined[kJoin];
	const iovec one{joined, join(pieces, count, joined)};
	if (one.iov_len > 0) {
		pieces = &one;
		count = 1;
	}
	if (!tls_) {
		if (count == 1)
			return send(fd_, pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL);
		msghdr m{};
		m.msg_iov = const_cast<iovec *>(pieces);
		m.msg_iovlen = static_cast<size_t>(count);
		return sendmsg(fd_, &m, MSG_NOSIGNAL);
	}
	ssize_t total = 0;
	for (int i = 0; i < count; i++) {
		const auto *p = static_cast<const char *>(pieces[i].iov_base);
		size_t left = pieces[i].iov_len;
		while (left > 0) {
			ERR_clear_error();
			const int n = SSL_write(tls_->ssl.get(), p, static_cast<int>(std::min<size_t>(left, 1 << 20)));
			if (n <= 0) {
				const int error = SSL_get_error(tls_->ssl.get(), n);
				if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ) {
					errno = EAGAIN;
					return total > 0 ? total : -1;
				}
				errno = EPIPE;
				return -1;
			}
			p += n;
			left -= static_cast<size_t>(n);
			total += n;
		}
	}
	return total;
}

void SocketStream::flush()
{
	if (piece_count_ == 0 || closed_)
		return;
	size_t size = 0;
	for (int i = 0; i < piece_count_; i++)
		size += pieces_[i].iov_len;
	ssize_t n = -1;
	if (tls_ && tls_->handshake)
		errno = EAGAIN;
	else
		n = send_pieces(pieces_, piece_count_);
	if (n == static_cast<ssize_t>(size)) {
		sent_ += size;
		piece_count_ = 0;
		return;
	}
	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ENOBUFS) {
		piece_count_ = 0;
		broken_ = true;
		fail("the connection was reset");
		return;
	}
	sent_ += n > 0 ? static_cast<size_t>(n) : 0;
	keep(n > 0 ? static_cast<size_t>(n) : 0);
	watch();
}

// Copies what was not sent of the pieces.
void SocketStream::keep(size_t skip)
{
	if (!out_)
		out_ = std::make_unique<std::string>();
	for (int i = 0; i < piece_count_; i++) {
		const size_t n = std::min(skip, pieces_[i].iov_len);
		skip -= n;
		out_->append(static_cast<const char *>(pieces_[i].iov_base) + n, pieces_[i].iov_len - n);
	}
	piece_count_ = 0;
	blocked_since_ = loop_.now_us();
}

void SocketStream::send_kept()
{
	while (unsent() > 0) {
		const iovec piece{out_->data() + out_at_, unsent()};
		const ssize_t n = send_pieces(&piece, 1);
		if (n < 0) {
			if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS)
				return;
			broken_ = true;
			out_.reset();
			out_at_ = 0;
			fail("the connection was reset");
			return;
		}
		sent_ += static_cast<size_t>(n);
		out_at_ += static_cast<size_t>(n);
		blocked_since_ = loop_.now_us();
	}
	out_.reset();
	out_at_ = 0;
	blocked_since_ = 0;
	if (lingering_)
		linger();
	else if (owner_)
		owner_->on_writable();
}

void SocketStream::shutdown_write()
{
	if (!closed_)
		shutdown(fd_, SHUT_WR);
}

// ---- TLS

bool SocketStream::can_tls() const
{
	return address_length_ > 0 && loop_.tls().enabled();
}

void SocketStream::start_tls()
{
	SslPtr ssl = loop_.tls().accept(fd_);
	if (!ssl) {
		fail("no memory for TLS");
		return;
	}
	tls_ = std::make_unique<Tls>();
	tls_->ssl = std::move(ssl);
	watch();
}

void SocketStream::handshake()
{
	ERR_clear_error();
	const int n = SSL_do_handshake(tls_->ssl.get());
	if (n != 1) {
		const int error = SSL_get_error(tls_->ssl.get(), n);
		tls_->want_write = error == SSL_ERROR_WANT_WRITE;
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
			ERR_clear_error();
			broken_ = true;
			fail("the TLS handshake failed");
		}
		watch();
		return;
	}
	if (tls_->direct && !TlsContext::agreed_on_alpn(tls_->ssl.get())) {
		broken_ = true;
		fail("direct TLS without the ALPN protocol \"postgresql\"");
		return;
	}
	tls_->info = loop_.tls().describe(tls_->ssl.get());
	tls_->handshake = false;
	watch();
	if (SSL_pending(tls_->ssl.get()) > 0)
		defer();
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
	if (why_ || closed_)
		return;
	why_ = why;
	reading_ = false;
	defer();
}

void SocketStream::deferred()
{
	deferred_ = false;
	if (closed_) {
		destroy();
		return;
	}
	if (why_) {
		connecting_ = false;
		watch();
		if (lingering_)
			close(false);
		else if (owner_)
			owner_->on_closed(why_);
		return;
	}
	if (reading_ && !(tls_ && tls_->handshake))
		readable();
	if (!closed_)
		watch();
}

void SocketStream::close(bool with_flush)
{
	if (closed_)
		return;
	owner_ = nullptr;
	piece_count_ = 0;
	if (with_flush && !broken_ && !lingering_) {
		lingering_ = true;
		reading_ = false;
		linger_until_ = loop_.now_us() + int64_t{loop_.settings().write_timeout} * 1000;
		loop_.lingering().push_back(this);
		if (unsent() == 0)
			linger();
		else
			watch();
		return;
	}
	closed_ = true;
	loop_.lingering().remove(this);
	if (!deferred_)
		destroy();
}

// All is sent: the peer gets an end of file, and a while to read what came before it. Closing at once
// would make a reset of it if the peer has sent something that nobody read.
void SocketStream::linger()
{
	if (tls_ && !tls_->handshake)
		SSL_shutdown(tls_->ssl.get());
	shutdown(fd_, SHUT_WR);
	ERR_clear_error();
	if (half_closed_ || why_) {
		close(false);
		return;
	}
	ssize_t n;
	while ((n = recv(fd_, loop_.scratch(), core::kChunk, 0)) > 0)
		;
	if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
		close(false);
		return;
	}
	linger_until_ = loop_.now_us() + kLingerTime;
	watch();
}

void SocketStream::linger_tick(int64_t now)
{
	if (now > linger_until_)
		close(false);
}

void SocketStream::destroy()
{
	tls_.reset();
	uv_close(reinterpret_cast<uv_handle_t *>(&poll_),
	         [](uv_handle_t *h) { delete static_cast<SocketStream *>(h->data); });
	::close(fd_);
}

} // namespace pgpool::net
