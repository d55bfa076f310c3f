// See tls.hpp.
#include "net/tls.hpp"

#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr unsigned char kAlpn[] = "\x0apostgresql";

int select_alpn(SSL *, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                unsigned in_length, void *)
{
	unsigned char *selected = nullptr;
	if (SSL_select_next_proto(&selected, out_length, kAlpn, sizeof(kAlpn) - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = selected;
	return SSL_TLSEXT_ERR_OK;
}

// The result is looked at after the handshake: pg_hba.conf decides whether a certificate is needed.
int accept_any_outcome(int ok, X509_STORE_CTX *)
{
	return ok;
}

int version_of(region::TlsVersion v)
{
	switch (v) {
	case region::TlsVersion::V1_0:
		return TLS1_VERSION;
	case region::TlsVersion::V1_1:
		return TLS1_1_VERSION;
	case region::TlsVersion::V1_2:
		return TLS1_2_VERSION;
	case region::TlsVersion::V1_3:
		return TLS1_3_VERSION;
	case region::TlsVersion::Any:
		break;
	}
	return 0;
}

bool load_certificate(SSL_CTX *context, const region::Settings &s, std::string &why)
{
	struct stat st;
	// A key with a passphrase must not make OpenSSL ask for it on a terminal.
	SSL_CTX_set_default_passwd_cb(context, [](char *, int, int, void *) { return -1; });
	if (SSL_CTX_use_certificate_chain_file(context, s.tls_cert_file) != 1) {
		why = tls_error("could not load server certificate file") + " (ssl_cert_file = " + s.tls_cert_file + ")";
		return false;
	}
	// The rule of PostgreSQL: nobody but the owner, or root's group, may read the key.
	if (stat(s.tls_key_file, &st) != 0 || !S_ISREG(st.st_mode) ||
	    (st.st_mode & (st.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO)) != 0) {
		why = std::string("private key file \"") + s.tls_key_file +
		      "\" cannot be used: it must be a file with mode 0600, or 0640 if owned by root";
		return false;
	}
	if (SSL_CTX_use_PrivateKey_file(context, s.tls_key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(context) != 1) {
		why = tls_error("could not load private key file") + " (ssl_key_file = " + s.tls_key_file + ")";
		return false;
	}
	return true;
}

bool load_authorities(SSL_CTX *context, const region::Settings &s, std::string &why)
{
	if (s.tls_ca_file[0] != '\0') {
		STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(s.tls_ca_file);
		if (!names || SSL_CTX_load_verify_locations(context, s.tls_ca_file, nullptr) != 1) {
			why = tls_error("could not load root certificate file") + " (ssl_ca_file = " + s.tls_ca_file + ")";
			return false;
		}
		SSL_CTX_set_client_CA_list(context, names);
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, accept_any_outcome);
	}
	if (s.tls_crl_file[0] != '\0' || s.tls_crl_dir[0] != '\0') {
		X509_STORE *store = SSL_CTX_get_cert_store(context);
		if (X509_STORE_load_locations(store, s.tls_crl_file[0] ? s.tls_crl_file : nullptr,
		                              s.tls_crl_dir[0] ? s.tls_crl_dir : nullptr) != 1) {
			why = tls_error("could not load certificate revocation lists (ssl_crl_file, ssl_crl_dir)");
			return false;
		}
		X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	}
	return true;
}

bool set_protocol(SSL_CTX *context, const region::Settings &s, std::string &why)
{
	SSL_CTX_set_options(context, SSL_OP_SINGLE_DH_USE | SSL_OP_SINGLE_ECDH_USE);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_alpn_select_cb(context, select_alpn, nullptr);
	if (s.tls_prefer_server_ciphers)
		SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
	if (SSL_CTX_set_min_proto_version(context, version_of(s.tls_min)) != 1 ||
	    SSL_CTX_set_max_proto_version(context, version_of(s.tls_max)) != 1) {
		why = tls_error("could not set ssl_min_protocol_version or ssl_max_protocol_version");
		return false;
	}
	if (s.tls_ciphers[0] != '\0' && SSL_CTX_set_cipher_list(context, s.tls_ciphers) != 1) {
		why = tls_error("could not set the cipher list") + " (ssl_ciphers = " + s.tls_ciphers + ")";
		return false;
	}
	if (s.tls_ecdh_curve[0] != '\0' && SSL_CTX_set1_groups_list(context, s.tls_ecdh_curve) != 1) {
		why = tls_error("could not set the curve") + " (ssl_ecdh_curve = " + s.tls_ecdh_curve + ")";
		return false;
	}
	SSL_CTX_set_dh_auto(context, 1);
	return true;
}

// RFC 5929: the hash of the certificate's own signature algorithm, SHA-256 instead of MD5 and SHA-1.
std::string end_point_hash(SSL_CTX *context)
{
	X509 *certificate = SSL_CTX_get0_certificate(context);
	int digest_nid = NID_undef;
	if (!certificate || X509_get_signature_info(certificate, &digest_nid, nullptr, nullptr, nullptr) != 1)
		return {};
	if (digest_nid == NID_md5 || digest_nid == NID_sha1)
		digest_nid = NID_sha256;
	const EVP_MD *digest = EVP_get_digestbynid(digest_nid);
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned length = 0;
	if (!digest || X509_digest(certificate, digest, hash, &length) != 1)
		return {};
	return {reinterpret_cast<char *>(hash), length};
}

std::string common_name(X509_NAME *subject)
{
	const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return {};
	unsigned char *text = nullptr;
	const int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (length < 0)
		return {};
	std::string name(reinterpret_cast<char *>(text), static_cast<size_t>(length));
	OPENSSL_free(text);
	return name.find('\0') == std::string::npos ? name : std::string(); // CVE-2009-4034
}

std::string distinguished_name(X509_NAME *subject)
{
	BIO *bio = BIO_new(BIO_s_mem());
	if (!bio)
		return {};
	std::string name;
	char *data = nullptr;
	if (X509_NAME_print_ex(bio, subject, 0, XN_FLAG_RFC2253) >= 0) {
		const long length = BIO_get_mem_data(bio, &data);
		if (data && length > 0)
			name.assign(data, static_cast<size_t>(length));
	}
	BIO_free(bio);
	return name.find('\0') == std::string::npos ? name : std::string();
}

} // namespace

std::string tls_error(const char *what)
{
	std::string text = what;
	const unsigned long code = ERR_get_error();
	if (code != 0) {
		char buffer[256];
		ERR_error_string_n(code, buffer, sizeof(buffer));
		text += std::string(": ") + buffer;
	}
	ERR_clear_error();
	return text;
}

SslContextPtr tls_context(const SSL_METHOD *method)
{
	SslContextPtr context(SSL_CTX_new(method));
	if (!context)
		return context;
	SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context.get(),
	                 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	// libpq's buffer: a larger record can leave bytes in it that nobody waits for.
	SSL_CTX_set_max_send_fragment(context.get(), 8192);
	return context;
}

bool offer_alpn(SSL *ssl)
{
	return SSL_set_alpn_protos(ssl, kAlpn, sizeof(kAlpn) - 1) == 0;
}

bool TlsContext::load(const region::Settings &settings, std::string &why)
{
	if (!settings.tls_enabled) {
		context_.reset();
		binding_.clear();
		return true;
	}
	ERR_clear_error();
	SslContextPtr fresh = tls_context(TLS_server_method());
	if (!fresh) {
		why = tls_error("could not create a TLS context");
		return false;
	}
	if (!load_certificate(fresh.get(), settings, why) || !load_authorities(fresh.get(), settings, why) ||
	    !set_protocol(fresh.get(), settings, why))
		return false;
	context_ = std::move(fresh);
	binding_ = end_point_hash(context_.get());
	return true;
}

SslPtr TlsContext::accept(int fd) const
{
	SslPtr ssl(context_ ? SSL_new(context_.get()) : nullptr);
	if (ssl && SSL_set_fd(ssl.get(), fd) != 1)
		ssl.reset();
	if (ssl)
		SSL_set_accept_state(ssl.get());
	return ssl;
}

bool TlsContext::agreed_on_alpn(SSL *ssl)
{
	const unsigned char *selected = nullptr;
	unsigned length = 0;
	SSL_get0_alpn_selected(ssl, &selected, &length);
	return length == sizeof(kAlpn) - 2;
}

core::TlsInfo describe(SSL *ssl)
{
	core::TlsInfo info;
	info.version = SSL_get_version(ssl);
	info.cipher = SSL_get_cipher_name(ssl);
	if (const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name))
		info.sni = name;
	if (X509 *peer = SSL_get1_peer_certificate(ssl)) {
		info.certificate_valid = SSL_get_verify_result(ssl) == X509_V_OK;
		info.certificate_cn = common_name(X509_get_subject_name(peer));
		info.certificate_dn = distinguished_name(X509_get_subject_name(peer));
		X509_free(peer);
	}
	return info;
}

} // namespace pgpool::net
