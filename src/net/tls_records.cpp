// See tls_records.hpp.
#include "net/tls_records.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <openssl/err.h>

#include "net/no_postgres.hpp"

namespace pgpool::net
{

// What SSL_read() and SSL_write() say by `result`. True: the connection cannot go on. `other_way`: the call waits for
// the socket in the direction that is not its own.
bool TlsRecords::failed(int result, bool &other_way) const
{
	const bool reads = &other_way == &read_wants_write_;
	const int error = SSL_get_error(ssl_.get(), result);
	other_way = error == (reads ? SSL_ERROR_WANT_WRITE : SSL_ERROR_WANT_READ);
	return error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

bool TlsRecords::handshake(const TlsContext &context, const char *&why)
{
	ERR_clear_error();
	errno = 0;
	const int n = SSL_do_handshake(ssl_.get());
	if (n != 1) {
		const int error = SSL_get_error(ssl_.get(), n);
		read_wants_write_ = error == SSL_ERROR_WANT_WRITE;
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			why = handshake_error(error);
		return false;
	}
	if (alpn_ && !TlsContext::agreed_on_alpn(ssl_.get())) {
		why = "direct TLS without the ALPN protocol \"postgresql\"";
		return false;
	}
	info_ = describe(ssl_.get());
	if (!is_client())
		info_.binding = context.binding();
	read_wants_write_ = false;
	return true;
}

// In OpenSSL's words, without anything that the peer chose.
const char *TlsRecords::handshake_error(int error) const
{
	const int system_error = errno;
	const long verified = SSL_get_verify_result(ssl_.get());
	if (is_client() && (SSL_get_verify_mode(ssl_.get()) & SSL_VERIFY_PEER) != 0 && verified != X509_V_OK) {
		ERR_clear_error();
		return X509_verify_cert_error_string(verified);
	}
	const unsigned long code = ERR_peek_error();
	const char *why = error == SSL_ERROR_SSL && code != 0 ? ERR_reason_error_string(code) : nullptr;
	ERR_clear_error();
	if (why)
		return why;
	return system_error != 0 ? strerror(system_error) : "EOF detected";
}

ssize_t TlsRecords::read(char *buffer, size_t size, const char *&end)
{
	end = nullptr;
	ERR_clear_error();
	errno = 0;
	const int n = SSL_read(ssl_.get(), buffer, static_cast<int>(size));
	if (n > 0)
		read_wants_write_ = false;
	else if (const int error = errno; failed(n, read_wants_write_))
		end = error == ETIMEDOUT ? core::kTimedOut : "end of file";
	return n;
}

ssize_t TlsRecords::write(const iovec *pieces, int count)
{
	ssize_t total = 0;
	for (int i = 0; i < count; i++) {
		const auto *p = static_cast<const char *>(pieces[i].iov_base);
		size_t left = pieces[i].iov_len;
		while (left > 0) {
			ERR_clear_error();
			const int n = SSL_write(ssl_.get(), p, static_cast<int>(std::min<size_t>(left, 1 << 20)));
			if (n <= 0) {
				if (failed(n, write_wants_read_)) {
					errno = EPIPE;
					return -1;
				}
				errno = EAGAIN;
				return total > 0 ? total : -1;
			}
			write_wants_read_ = false;
			p += n;
			left -= static_cast<size_t>(n);
			total += n;
		}
	}
	return total;
}

bool TlsRecords::shut_down()
{
	ERR_clear_error();
	const int n = SSL_shutdown(ssl_.get());
	const bool again = n < 0 && SSL_get_error(ssl_.get(), n) == SSL_ERROR_WANT_WRITE;
	ERR_clear_error();
	if (!again)
		write_wants_read_ = false;
	return !again;
}

} // namespace pgpool::net
