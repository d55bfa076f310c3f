// See stream.hpp.
#include "net/stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <netdb.h>
#include <openssl/err.h>
#include <unistd.h>

#include "net/loop.hpp"
#include "proto/bytes.hpp"
#include "proto/scram.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int kReadsPerEvent = 4; // one bulk connection must not starve the others
// Pieces that are not longer than this together are sent as one: a few bytes are copied in less time than sendmsg()
// needs to look at an array, more of them in less than TLS needs for one more record.
constexpr size_t kJoin = 1024;
constexpr size_t kJoinTls = 8192;
constexpr int64_t kLingerTime = 1000000; // for the peer to read our last words, microseconds
constexpr int64_t kFlushTime = 60000000; // for them to go out, whatever write_timeout says

bool try_again(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

const char *reason_of(int error)
{
	return error == ETIMEDOUT ? core::kTimedOut : strerror(error);
}

// The length of what is in `joined` now; 0: it is one piece anyway, or too long.
size_t join(const iovec *pieces, int count, char *joined, size_t most)
{
	size_t size = 0;
	if (count == 1)
		return 0;
	for (int i = 0; i < count; i++)
		size += pieces[i].iov_len;
	if (size > most)
		return 0;
	for (int i = 0; i < count; i++) {
		memcpy(joined, pieces[i].iov_base, pieces[i].iov_len);
		joined += pieces[i].iov_len;
	}
	return size;
}

} // namespace

SocketStream::SocketStream(Loop &loop, int fd, State state) : loop_(loop), fd_(fd), state_(state)
{
	poll_.data = this;
}

SocketStream *SocketStream::make(Loop &loop, int fd, State state)
{
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
	const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return nullptr;
	if (address->sa_family != AF_UNIX)
		Loop::set_tcp_options(fd, loop.settings());
	const int rc = connect(fd, address, length);
	const int error = errno;
	SocketStream *s = make(loop, fd, State::Connecting);
	if (!s)
		return nullptr;
	s->owner_ = owner;
	if (rc != 0 && error != EINPROGRESS)
		s->fail(error == EAGAIN ? "the server's queue of connections is full" : strerror(error));
	s->watch();
	return s;
}

std::string SocketStream::peer() const
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	if (address_length_ == 0 || getnameinfo(reinterpret_cast<const sockaddr *>(address_), address_length_, host,
	                                        sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return "[local]";
	return std::string(host) + ":" + port;
}

// ---- what the loop is to watch for

bool SocketStream::may_read() const
{
	return reading_ && (state_ == State::Clear || state_ == State::Tls);
}

bool SocketStream::open() const
{
	return state_ == State::Sniffing || state_ == State::Clear || state_ == State::Tls;
}

bool SocketStream::may_write() const
{
	return open() || state_ == State::Flushing;
}

int SocketStream::events_wanted() const
{
	const int rest = half_closed_ ? 0 : UV_DISCONNECT;
	switch (state_) {
	case State::Connecting:
		return why_ ? 0 : UV_WRITABLE;
	case State::Answering:
		return UV_WRITABLE;
	case State::Handshake:
		return why_ ? 0 : tls_->read_wants_write ? UV_WRITABLE : UV_READABLE;
	case State::Flushing:
		return tls_ && tls_->write_wants_read ? UV_READABLE : UV_WRITABLE;
	case State::Lingering:
		return UV_READABLE;
	case State::Closed:
		return 0;
	case State::Sniffing:
	case State::Clear:
	case State::Tls:
		break;
	}
	int events = reading_ ? UV_READABLE : rest;
	if (unsent() > 0)
		events |= tls_ && tls_->write_wants_read ? UV_READABLE : UV_WRITABLE;
	if (reading_ && tls_ && tls_->read_wants_write)
		events |= UV_WRITABLE;
	return events;
}

void SocketStream::watch()
{
	if (state_ == State::Closed)
		return;
	const int events = events_wanted();
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
	if (status < 0) {
		watched_ = 0;
		// The error itself is read from the socket, after what it still holds.
		events = UV_READABLE | UV_WRITABLE;
	}
	switch (state_) {
	case State::Connecting:
		connected();
		break;
	case State::Handshake:
		handshake();
		break;
	case State::Lingering:
		if (drained())
			close(false);
		break;
	case State::Closed:
		break;
	case State::Sniffing:
	case State::Clear:
	case State::Answering:
	case State::Tls:
	case State::Flushing:
		ready(events);
	}
	if (status < 0 && state_ != State::Closed && !why_) {
		int error = 0;
		socklen_t length = sizeof(error);
		getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
		fail(error == ETIMEDOUT ? core::kTimedOut : "the connection was reset");
	}
	watch();
}

void SocketStream::ready(int events)
{
	const bool write_wants_read = tls_ && tls_->write_wants_read;
	const bool read_wants_write = tls_ && tls_->read_wants_write;
	if (events & (UV_WRITABLE | (write_wants_read ? UV_READABLE : 0)))
		send_kept();
	if ((events & (UV_READABLE | (read_wants_write ? UV_WRITABLE : 0))) && (state_ != State::Sniffing || sniffed()))
		readable();
	if ((events & UV_DISCONNECT) && open() && !reading_ && !half_closed_) {
		half_closed_ = true;
		if (owner_)
			owner_->on_half_closed();
	}
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

// ---- reading

// What SSL_read() and SSL_write() say by `result`. True: the connection cannot go on. `other_way`: the call waits for
// the socket in the direction that is not its own.
bool SocketStream::ssl_failed(int result, bool &other_way)
{
	const bool reads = &other_way == &tls_->read_wants_write;
	const int error = SSL_get_error(tls_->ssl.get(), result);
	other_way = error == (reads ? SSL_ERROR_WANT_WRITE : SSL_ERROR_WANT_READ);
	return error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

// Not more than 0: nothing now, or, when `end` says why, nothing any more.
ssize_t SocketStream::receive(char *buffer, size_t size, const char *&end)
{
	end = nullptr;
	if (!tls_) {
		const ssize_t n = recv(fd_, buffer, size, 0);
		if (n <= 0 && (n == 0 || !try_again(errno)))
			end = n == 0 ? "end of file" : reason_of(errno);
		return n;
	}
	ERR_clear_error();
	errno = 0;
	const int n = SSL_read(tls_->ssl.get(), buffer, static_cast<int>(size));
	if (n > 0)
		tls_->read_wants_write = false;
	else if (const int error = errno; ssl_failed(n, tls_->read_wants_write))
		end = error == ETIMEDOUT ? core::kTimedOut : "end of file";
	return n;
}

void SocketStream::readable()
{
	char *buffer = loop_.buffer();
	// The owner may end all this by what it does with the bytes.
	for (int i = 0; i < kReadsPerEvent && may_read(); i++) {
		const char *end;
		const ssize_t n = receive(buffer, core::kChunk, end);
		if (n > 0) {
			const bool last = !tls_ && n < static_cast<ssize_t>(core::kChunk);
			if (owner_)
				owner_->on_data(buffer, static_cast<size_t>(n));
			if (wipe_input_)
				proto::wipe(buffer, static_cast<size_t>(n));
			if (last)
				break;
			continue;
		}
		if (end) {
			half_closed_ = true;
			fail(end);
		}
		break;
	}
	// Decrypted bytes are invisible to epoll.
	if (state_ == State::Tls && reading_ && SSL_pending(tls_->ssl.get()) > 0)
		defer();
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
		tls_->direct = true;
		handshake();
	}
	return false;
}

void SocketStream::read(bool on)
{
	if (reading_ == on)
		return;
	reading_ = on;
	if (on && state_ == State::Tls && SSL_pending(tls_->ssl.get()) > 0)
		defer();
	watch();
}

// ---- writing

void SocketStream::queue(const char *data, size_t size)
{
	if (size == 0 || broken_)
		return;
	if (piece_count_ == kPieces)
		flush();
	if (broken_)
		return;
	if (unsent() > 0) {
		if (!proto::try_append(*out_, {data, size}))
			out_of_memory();
		return;
	}
	pieces_[piece_count_].iov_base = const_cast<char *>(data);
	pieces_[piece_count_].iov_len = size;
	piece_count_++;
}

ssize_t SocketStream::send_pieces(const iovec *pieces, int count)
{
	char joined[kJoinTls];
	const iovec one{joined, join(pieces, count, joined, tls_ ? kJoinTls : kJoin)};
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
	return send_tls(pieces, count);
}

ssize_t SocketStream::send_tls(const iovec *pieces, int count)
{
	ssize_t total = 0;
	for (int i = 0; i < count; i++) {
		const auto *p = static_cast<const char *>(pieces[i].iov_base);
		size_t left = pieces[i].iov_len;
		while (left > 0) {
			ERR_clear_error();
			const int n = SSL_write(tls_->ssl.get(), p, static_cast<int>(std::min<size_t>(left, 1 << 20)));
			if (n <= 0) {
				if (ssl_failed(n, tls_->write_wants_read)) {
					errno = EPIPE;
					return -1;
				}
				errno = EAGAIN;
				return total > 0 ? total : -1;
			}
			tls_->write_wants_read = false;
			p += n;
			left -= static_cast<size_t>(n);
			total += n;
		}
	}
	return total;
}

void SocketStream::flush()
{
	if (piece_count_ == 0 || state_ == State::Closed)
		return;
	size_t size = 0;
	for (int i = 0; i < piece_count_; i++)
		size += pieces_[i].iov_len;
	errno = EAGAIN;
	const ssize_t n = may_write() && unsent() == 0 ? send_pieces(pieces_, piece_count_) : -1;
	if (n == static_cast<ssize_t>(size)) {
		sent_ += size;
		piece_count_ = 0;
		return;
	}
	if (n < 0 && !try_again(errno) && errno != ENOBUFS) {
		piece_count_ = 0;
		broken_ = true;
		fail(errno == ETIMEDOUT ? core::kTimedOut : "the connection was reset");
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
		if (!proto::try_append(*out_, {static_cast<const char *>(pieces_[i].iov_base) + n, pieces_[i].iov_len - n})) {
			out_of_memory();
			return;
		}
	}
	piece_count_ = 0;
	blocked_since_ = loop_.now_us();
}

// What is lost is a part of a message, so nothing may follow it.
void SocketStream::out_of_memory()
{
	piece_count_ = 0;
	out_.reset();
	out_at_ = 0;
	broken_ = true;
	fail(core::kNoMemory);
}

void SocketStream::send_kept()
{
	if (unsent() == 0 && state_ != State::Flushing)
		return;
	while (unsent() > 0) {
		const iovec piece{out_->data() + out_at_, unsent()};
		const ssize_t n = send_pieces(&piece, 1);
		if (n < 0) {
			if (try_again(errno) || errno == ENOBUFS)
				return;
			broken_ = true;
			out_.reset();
			out_at_ = 0;
			fail(errno == ETIMEDOUT ? core::kTimedOut : "the connection was reset");
			return;
		}
		sent_ += static_cast<size_t>(n);
		out_at_ += static_cast<size_t>(n);
		blocked_since_ = loop_.now_us();
	}
	out_.reset();
	out_at_ = 0;
	blocked_since_ = 0;
	if (state_ == State::Flushing)
		linger();
	else if (state_ == State::Answering)
		begin_handshake();
	else if (owner_)
		owner_->on_writable();
}

void SocketStream::shutdown_write()
{
	if (state_ != State::Closed)
		shutdown(fd_, SHUT_WR);
}

// ---- TLS

bool SocketStream::can_tls() const
{
	return address_length_ > 0 && loop_.tls().enabled();
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
	tls_ = std::make_unique<Tls>();
	tls_->ssl = loop_.tls().accept(fd_);
	if (!tls_->ssl) {
		broken_ = true;
		fail("no memory for TLS");
	}
	watch();
}

void SocketStream::handshake()
{
	if (why_)
		return; // deferred() tells
	ERR_clear_error();
	errno = 0;
	const int n = SSL_do_handshake(tls_->ssl.get());
	if (n != 1) {
		const int error = SSL_get_error(tls_->ssl.get(), n);
		tls_->read_wants_write = error == SSL_ERROR_WANT_WRITE;
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
			broken_ = true;
			fail(handshake_error(error));
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
	tls_->read_wants_write = false;
	state_ = State::Tls;
	watch();
	if (SSL_pending(tls_->ssl.get()) > 0)
		defer();
}

// In OpenSSL's words, without anything that the peer chose.
const char *SocketStream::handshake_error(int error)
{
	const int system_error = errno;
	const unsigned long code = ERR_peek_error();
	const char *why = error == SSL_ERROR_SSL && code != 0 ? ERR_reason_error_string(code) : nullptr;
	ERR_clear_error();
	if (why)
		return why;
	return system_error != 0 ? strerror(system_error) : "EOF detected";
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
	if (tls_) {
		ERR_clear_error();
		const int n = SSL_shutdown(tls_->ssl.get());
		const bool again = n < 0 && SSL_get_error(tls_->ssl.get(), n) == SSL_ERROR_WANT_WRITE;
		ERR_clear_error();
		if (again)
			return; // Flushing goes on
		tls_->write_wants_read = false;
	}
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

void SocketStream::limit(const core::TcpLimits &limits)
{
	region::Settings s = loop_.settings();
	if (address_length_ == 0)
		return;
	auto prefer = [](int32_t &configured, int32_t own) { configured = own > 0 ? own : configured; };
	prefer(s.tcp_keepalives_idle, limits.idle);
	prefer(s.tcp_keepalives_interval, limits.interval);
	prefer(s.tcp_keepalives_count, limits.count);
	prefer(s.tcp_user_timeout, limits.user_timeout);
	Loop::set_tcp_options(fd_, s);
}

} // namespace pgpool::net
