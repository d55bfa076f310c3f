// TLS of the port: the server's own certificate and protocol settings.
//
// Owns the SSL_CTX (made anew at every reload; a bad one leaves the old in force) and what is read from a
// finished handshake. No session cache, no tickets, no renegotiation: a resumed session could slip past
// the checks of another tenant. Must not know PostgreSQL; errors are returned as text.
#pragma once

#include <memory>
#include <string>

#include <openssl/ssl.h>

#include "core/base/ports.hpp"
#include "region/settings.hpp"

namespace pgpool::net
{

struct SslFree {
	void operator()(SSL *ssl) const { SSL_free(ssl); }
	void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
};
using SslPtr = std::unique_ptr<SSL, SslFree>;
using SslContextPtr = std::unique_ptr<SSL_CTX, SslFree>;

// With what holds for both sides of a connection: no resumption, no renegotiation, how records are written.
SslContextPtr tls_context(const SSL_METHOD *method);
// PostgreSQL's protocol, and no other, to servers that know of ALPN.
bool offer_alpn(SSL *ssl);
// What a handshake that is done has agreed on.
core::TlsInfo describe(SSL *ssl);

class TlsContext
{
public:
	// False: `why` says what is wrong, what was loaded before stays.
	[[nodiscard]] bool load(const region::Settings &settings, std::string &why);
	bool enabled() const { return context_ != nullptr; }
	// A server-side SSL on this socket; nullptr: no memory.
	SslPtr accept(int fd) const;
	const std::string &binding() const { return binding_; }
	// ALPN "postgresql" must have been when TLS came without SSLRequest.
	static bool agreed_on_alpn(SSL *ssl);

private:
	SslContextPtr context_;
	std::string binding_; // tls-server-end-point
};

std::string tls_error(const char *what); // drains OpenSSL's queue

} // namespace pgpool::net
