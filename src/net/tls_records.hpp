// TLS on one socket: OpenSSL's calls, what their errors mean, and which way the socket must be ready to go on.
//
// Owns the SSL and the two flags that say that reading waits until the socket can be written, and writing until it can
// be read. A call that cannot go on now says EAGAIN, as the socket itself would. Must not know streams.
#pragma once

#include <cstddef>
#include <utility>

#include <sys/types.h>
#include <sys/uio.h>

#include "net/tls.hpp"

namespace pgpool::net
{

class TlsRecords
{
public:
	explicit TlsRecords(SslPtr ssl) : ssl_(std::move(ssl)) {}
	bool made() const { return ssl_ != nullptr; } // else there was no memory, and nothing may be called
	void want_alpn() { alpn_ = true; }

	// True: it is done. `why`: it has failed.
	[[nodiscard]] bool handshake(const TlsContext &context, const char *&why);
	// Not more than 0: nothing now, or, when `end` says why, nothing any more.
	ssize_t read(char *buffer, size_t size, const char *&end);
	// As sendmsg().
	ssize_t write(const iovec *pieces, int count);
	// The peer is told that no more comes. False: again, when the socket can be written.
	[[nodiscard]] bool shut_down();

	bool has_more() const { return SSL_pending(ssl_.get()) > 0; } // decrypted already, and invisible to epoll
	bool read_wants_write() const { return read_wants_write_; }
	bool write_wants_read() const { return write_wants_read_; }
	const core::TlsInfo &info() const { return info_; } // after the handshake

private:
	bool failed(int result, bool &other_way) const;
	const char *handshake_error(int error) const;
	bool is_client() const { return SSL_is_server(ssl_.get()) == 0; }

	SslPtr ssl_;
	core::TlsInfo info_;
	bool alpn_ = false; // it came without SSLRequest
	bool read_wants_write_ = false;
	bool write_wants_read_ = false;
};

} // namespace pgpool::net
