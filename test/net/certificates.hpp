// An authority and the certificates that it signs, made in memory; the authority's own is in a file, as clients want
// it.
#pragma once

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace fake
{

struct Free {
	void operator()(EVP_PKEY *p) const { EVP_PKEY_free(p); }
	void operator()(X509 *p) const { X509_free(p); }
};

struct Certificate {
	std::unique_ptr<EVP_PKEY, Free> key{EVP_EC_gen("P-256")};
	std::unique_ptr<X509, Free> x509{X509_new()};
};

inline void name_it(X509_NAME *name, const std::string &common)
{
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char *>(common.c_str()), -1,
	                           -1, 0);
}

inline void extend(X509 *x509, int nid, const std::string &value)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
	if (!e)
		throw std::runtime_error("bad extension " + value);
	X509_add_ext(x509, e, -1);
	X509_EXTENSION_free(e);
}

class Authority
{
public:
	explicit Authority(const std::string &name) : file(make_file())
	{
		name_it(X509_get_subject_name(own_.x509.get()), name);
		extend(own_.x509.get(), NID_basic_constraints, "critical,CA:TRUE");
		complete(own_, 3600);
		FILE *f = fopen(file.c_str(), "w");
		PEM_write_X509(f, own_.x509.get());
		fclose(f);
	}
	~Authority() { unlink(file.c_str()); }
	Authority(const Authority &) = delete;
	Authority &operator=(const Authority &) = delete;

	// `names` as in "DNS:a,IP:127.0.0.1"; valid for so many seconds more, which may be over.
	Certificate sign(const std::string &names, long seconds = 3600) const
	{
		Certificate c;
		name_it(X509_get_subject_name(c.x509.get()), "server");
		extend(c.x509.get(), NID_subject_alt_name, names);
		complete(c, seconds);
		return c;
	}

	const std::string file;

private:
	static std::string make_file()
	{
		char path[] = "/tmp/pgpool_ca_XXXXXX";
		const int fd = mkstemp(path);
		if (fd < 0)
			throw std::runtime_error("no temporary file");
		close(fd);
		return path;
	}
	void complete(const Certificate &c, long seconds) const
	{
		X509 *x = c.x509.get();
		X509_set_version(x, 2);
		ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial_);
		X509_gmtime_adj(X509_getm_notBefore(x), -7200);
		X509_gmtime_adj(X509_getm_notAfter(x), seconds);
		X509_set_issuer_name(x, X509_get_subject_name(own_.x509.get()));
		X509_set_pubkey(x, c.key.get());
		X509_sign(x, own_.key.get(), EVP_sha256());
	}

	Certificate own_;
	mutable long serial_ = 0;
};

} // namespace fake
