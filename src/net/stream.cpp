// The bytes of a stream: what the loop watches its socket for, reading and writing. See stream.hpp; how it begins and
// ends is in stream_life.cpp.
#include "net/stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/loop.hpp"
#include "proto/bytes.hpp"
#include "proto/scram.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

// Pieces that are not longer than this together are sent as one: a few bytes are copied in less time than sendmsg()
// needs to look at an array, more of them in less than TLS needs for one more record.
constexpr size_t kJoin = 1024;
constexpr size_t kJoinTls = 8192;

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
	case State::Placeless:
		return 0;
	case State::Connecting:
		return why_ ? 0 : UV_WRITABLE;
	case State::Answering:
		return UV_WRITABLE;
	case State::Handshake:
		return why_ ? 0 : tls_->read_wants_write() ? UV_WRITABLE : UV_READABLE;
	case State::Flushing:
		return tls_ && tls_->write_wants_read() ? UV_READABLE : UV_WRITABLE;
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
		events |= tls_ && tls_->write_wants_read() ? UV_READABLE : UV_WRITABLE;
	if (reading_ && tls_ && tls_->read_wants_write())
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
	case State::Placeless:
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
	const bool write_wants_read = tls_ && tls_->write_wants_read();
	const bool read_wants_write = tls_ && tls_->read_wants_write();
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

// ---- reading

// Not more than 0: nothing now, or, when `end` says why, nothing any more.
ssize_t SocketStream::receive(char *buffer, size_t size, const char *&end)
{
	if (tls_)
		return tls_->read(buffer, size, end);
	end = nullptr;
	const ssize_t n = recv(fd_, buffer, size, 0);
	if (n <= 0 && (n == 0 || !try_again(errno)))
		end = n == 0 ? "end of file" : reason_of(errno);
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
	if (state_ == State::Tls && reading_ && tls_->has_more())
		defer();
}

void SocketStream::read(bool on)
{
	if (reading_ == on)
		return;
	reading_ = on;
	if (on && state_ == State::Tls && tls_->has_more())
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
	return tls_->write(pieces, count);
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

} // namespace pgpool::net
