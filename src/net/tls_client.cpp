// See tls_client.hpp.
#include "net/tls_client.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

bool is_address(const std::string &host)
{
	char binary[sizeof(in6_addr)];
	return inet_pton(AF_INET, host.c_str(), binary) == 1 || inet_pton(AF_INET6, host.c_str(), binary) == 1;
}

bool load_root(SSL_CTX *context, const std::string &root)
{
	return root.empty() ? SSL_CTX_set_default_verify_paths(context) == 1
	                    : SSL_CTX_load_verify_locations(context, root.c_str(), nullptr) == 1;
}

// What the certificate must name, and the name that a server with several certificates chooses by.
bool set_host(SSL *ssl, region::SslMode mode, const std::string &host)
{
	const bool address = is_address(host);
	if (host.empty())
		return false; // as a name to be checked it would fit all
	// An SNI name is no address (RFC 6066).
	if (!address && SSL_set_tlsext_host_name(ssl, host.c_str()) != 1)
		return false;
	if (mode != region::SslMode::VerifyFull)
		return true;
	X509_VERIFY_PARAM *must = SSL_get0_param(ssl);
	X509_VERIFY_PARAM_set_hostflags(must, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return address ? X509_VERIFY_PARAM_set1_ip_asc(must, host.c_str()) == 1
	               : X509_VERIFY_PARAM_set1_host(must, host.data(), host.size()) == 1;
}

} // namespace

SSL_CTX *TlsClients::context(bool verify, const std::string &root, std::string &why)
{
	SslContextPtr &kept = contexts_[verify ? "v" + root : "-"];
	if (kept)
		return kept.get();
	ERR_clear_error();
	SslContextPtr fresh = tls_context(TLS_client_method());
	if (!fresh || SSL_CTX_set_min_proto_version(fresh.get(), TLS1_2_VERSION) != 1) {
		why = tls_error("could not create a TLS context");
		return nullptr;
	}
	if (verify && !load_root(fresh.get(), root)) {
		why = tls_error("could not load root certificates") +
		      (root.empty() ? " of the system" : " (sslrootcert = " + root + ")");
		return nullptr;
	}
	SSL_CTX_set_verify(fresh.get(), verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
	kept = std::move(fresh);
	return kept.get();
}

SslPtr TlsClients::connect(int fd, region::SslMode mode, const std::string &root, const std::string &host,
                           std::string &why)
{
	SSL_CTX *c = context(verifies(mode, root), root, why);
	if (!c)
		return nullptr;
	ERR_clear_error();
	SslPtr ssl(SSL_new(c));
	if (!ssl || SSL_set_fd(ssl.get(), fd) != 1 || !set_host(ssl.get(), mode, host) || !offer_alpn(ssl.get())) {
		why = tls_error("could not begin TLS");
		return nullptr;
	}
	SSL_set_connect_state(ssl.get());
	return ssl;
}

} // namespace pgpool::net
