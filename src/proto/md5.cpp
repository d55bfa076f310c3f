// MD5 password authentication: see md5.hpp. Must not know sockets or roles.
#include "proto/md5.hpp"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

namespace
{

constexpr std::string_view kPrefix = "md5";
constexpr size_t kDigestLength = 16;
constexpr size_t kVerifierLength = 3 + 2 * kDigestLength;

void wipe_string(std::string &text)
{
	OPENSSL_cleanse(text.data(), text.size());
	text.clear();
}

// "md5" and the digest of a and b, one behind the other.
bool digest(std::string_view a, std::string_view b, std::string &out)
{
	static constexpr char kHex[] = "0123456789abcdef";
	uint8_t bytes[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	out.clear();
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	const bool ok = context != nullptr && EVP_DigestInit_ex(context, EVP_md5(), nullptr) == 1 &&
	                EVP_DigestUpdate(context, a.data(), a.size()) == 1 &&
	                EVP_DigestUpdate(context, b.data(), b.size()) == 1 &&
	                EVP_DigestFinal_ex(context, bytes, &length) == 1 && length == kDigestLength;
	EVP_MD_CTX_free(context);
	if (!ok) {
		ERR_clear_error(); // else the next TLS call of this thread would report our failure
		return false;
	}
	out.reserve(kVerifierLength);
	out = kPrefix;
	for (size_t i = 0; i < kDigestLength; i++) {
		out += kHex[bytes[i] >> 4];
		out += kHex[bytes[i] & 15];
	}
	OPENSSL_cleanse(bytes, sizeof bytes);
	return true;
}

bool same(std::string_view a, std::string_view b)
{
	return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

} // namespace

bool is_md5_verifier(std::string_view text)
{
	return text.size() == kVerifierLength && text.substr(0, kPrefix.size()) == kPrefix &&
	       text.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

bool md5_verifier(std::string_view password, std::string_view user, std::string &out)
{
	return digest(password, user, out);
}

bool md5_response(std::string_view verifier, const uint8_t (&salt)[kMd5SaltLength], std::string &out)
{
	out.clear();
	if (!is_md5_verifier(verifier))
		return false;
	return digest(verifier.substr(kPrefix.size()),
	              std::string_view(reinterpret_cast<const char *>(salt), kMd5SaltLength), out);
}

bool md5_response_matches(std::string_view verifier, const uint8_t (&salt)[kMd5SaltLength], std::string_view response)
{
	std::string expected;
	const bool matches = md5_response(verifier, salt, expected) && same(expected, response);
	wipe_string(expected);
	return matches;
}

bool md5_password_matches(std::string_view verifier, std::string_view user, std::string_view password)
{
	std::string computed;
	const bool matches = !password.empty() && is_md5_verifier(verifier) && md5_verifier(password, user, computed) &&
	                     same(computed, verifier);
	wipe_string(computed);
	return matches;
}

} // namespace pgpool::proto
