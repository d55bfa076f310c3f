// The verifier as text, and the keys of a password: see scram.hpp.
//
// The two sides of an exchange are scram_server.cpp and scram_client.cpp, what they have in common is scram_parts.cpp.
#include "proto/scram.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "proto/base64.hpp"
#include "proto/scram_parts.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

using namespace scram;

namespace
{

constexpr std::string_view kVerifierPrefix = "SCRAM-SHA-256$";

} // namespace

void wipe(void *data, size_t length)
{
	OPENSSL_cleanse(data, length);
}

bool ScramVerifier::parse(std::string_view text, ScramVerifier &out)
{
	std::string_view iterations, salt, stored;
	size_t salt_length = 0;

	out = ScramVerifier{};
	if (text.substr(0, kVerifierPrefix.size()) != kVerifierPrefix)
		return false;
	text.remove_prefix(kVerifierPrefix.size());
	if (split(text, ':', iterations) && split(text, '$', salt) && split(text, ':', stored) &&
	    read_iterations(iterations, out.iterations) && base64_decode(salt, out.salt, kScramMaxSalt, salt_length) &&
	    salt_length > 0 && decode_key(stored, out.stored_key) && decode_key(text, out.server_key)) {
		out.salt_length = static_cast<uint32_t>(salt_length);
		return true;
	}
	wipe(&out, sizeof out);
	return false;
}

std::string ScramVerifier::text() const
{
	std::string out(kVerifierPrefix);
	out += std::to_string(iterations);
	out += ':';
	base64_append(salt, salt_length, out);
	out += '$';
	base64_append(stored_key.bytes, kScramKeyLength, out);
	out += ':';
	base64_append(server_key.bytes, kScramKeyLength, out);
	return out;
}

bool scram_keys_from_password(std::string_view password, const ScramVerifier &verifier, ScramKey &client_key)
{
	WipedKey salted, key, stored;

	client_key = ScramKey{};
	if (password.empty() || password.size() > kScramMaxMessage || verifier.iterations < 1 ||
	    verifier.iterations > kScramMaxIterations)
		return false;
	if (password.find('\0') != std::string_view::npos) // HMAC pads with NUL: "x" and "x\0" are one key
		return false;
	if (!crypto_ok(PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), verifier.salt,
	                                 static_cast<int>(verifier.salt_length), static_cast<int>(verifier.iterations),
	                                 EVP_sha256(), kScramKeyLength, salted.bytes) == 1))
		return false;
	if (!hmac(salted, "Client Key", key) || !sha256(key.bytes, kScramKeyLength, stored) ||
	    !same(stored, verifier.stored_key))
		return false;
	client_key = key;
	return true;
}

} // namespace pgpool::proto
