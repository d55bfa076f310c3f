// See scram_parts.hpp.
#include "proto/scram_parts.hpp"

#include <utility>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "proto/base64.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto::scram
{

namespace
{

constexpr size_t kNonceBytes = 18; // PostgreSQL's; 24 characters of base64

} // namespace

// After a failure libcrypto's queue is emptied, else the next TLS call of this thread would report it.
bool crypto_ok(bool ok)
{
	if (!ok)
		ERR_clear_error();
	return ok;
}

bool hmac(const ScramKey &key, std::string_view text, ScramKey &out)
{
	unsigned length = 0;
	return crypto_ok(HMAC(EVP_sha256(), key.bytes, kScramKeyLength,
	                      reinterpret_cast<const unsigned char *>(text.data()), text.size(), out.bytes,
	                      &length) != nullptr &&
	                 length == kScramKeyLength);
}

bool sha256(const void *data, size_t size, ScramKey &out)
{
	unsigned length = 0;
	return crypto_ok(EVP_Digest(data, size, out.bytes, &length, EVP_sha256(), nullptr) == 1 &&
	                 length == kScramKeyLength);
}

bool same(const ScramKey &a, const ScramKey &b)
{
	return CRYPTO_memcmp(a.bytes, b.bytes, kScramKeyLength) == 0;
}

bool same(std::string_view a, std::string_view b)
{
	return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void exclusive_or(ScramKey &a, const ScramKey &b)
{
	for (size_t i = 0; i < kScramKeyLength; i++)
		a.bytes[i] ^= b.bytes[i];
}

bool decode_key(std::string_view text, ScramKey &out)
{
	size_t length = 0;
	return base64_decode(text, out.bytes, kScramKeyLength, length) && length == kScramKeyLength;
}

std::string make_nonce()
{
	uint8_t bytes[kNonceBytes];
	std::string out;

	if (crypto_ok(RAND_bytes(bytes, sizeof bytes) == 1))
		base64_append(bytes, sizeof bytes, out);
	return out;
}

bool read_iterations(std::string_view text, uint32_t &out)
{
	uint32_t value = 0;

	if (text.empty() || text.size() > 7 || text[0] == '0')
		return false;
	for (const char c : text) {
		if (c < '0' || c > '9')
			return false;
		value = value * 10 + static_cast<uint32_t>(c - '0');
	}
	out = value;
	return value <= kScramMaxIterations;
}

bool split(std::string_view &rest, char separator, std::string_view &head)
{
	const size_t at = rest.find(separator);
	if (at == std::string_view::npos)
		return false;
	head = rest.substr(0, at);
	rest.remove_prefix(at + 1);
	return true;
}

bool is_nonce(std::string_view text)
{
	for (const char c : text)
		if (c < 0x21 || c > 0x7e || c == ',')
			return false;
	return !text.empty();
}

// As PostgreSQL's sanitize_char() and sanitize_str(): what of the peer may stand in a log line.
std::string shown_char(std::string_view rest)
{
	if (rest.empty())
		return "end of message";
	const char c = rest[0];
	if (c >= 0x21 && c <= 0x7e)
		return std::string("\"") + c + "\"";
	static constexpr char kHex[] = "0123456789abcdef";
	const unsigned byte = static_cast<unsigned char>(c);
	return std::string("\"0x") + kHex[byte >> 4] + kHex[byte & 15] + "\"";
}

std::string shown_text(std::string_view text)
{
	std::string out(text.substr(0, 30));
	for (char &c : out)
		if (c < 0x21 || c > 0x7e)
			c = '?';
	return out;
}

ScramStep refuse(ScramProblem &problem, const char *sqlstate, std::string message, std::string detail)
{
	problem.sqlstate = sqlstate;
	problem.message = std::move(message);
	problem.detail = std::move(detail);
	return ScramStep::Malformed;
}

ScramStep malformed(ScramProblem &problem, std::string detail)
{
	return refuse(problem, "08P01", "malformed SCRAM message", std::move(detail));
}

ScramStep internal(ScramProblem &problem, const char *message)
{
	return refuse(problem, "XX000", message, "");
}

bool acceptable_size(std::string_view message, ScramProblem &problem)
{
	if (message.empty())
		malformed(problem, "The message is empty.");
	else if (message.size() > kScramMaxMessage)
		malformed(problem, "The message is too long.");
	else if (message.find('\0') != std::string_view::npos)
		malformed(problem, "Message length does not match input length.");
	else
		return true;
	return false;
}

bool Attributes::value(char name, std::string_view &out)
{
	if (rest_.empty() || rest_[0] != name) {
		malformed(problem_, std::string("Expected attribute \"") + name + "\" but found " + shown_char(rest_) + ".");
		return false;
	}
	return take(out);
}

bool Attributes::any(char &name, std::string_view &out)
{
	name = rest_.empty() ? '\0' : rest_[0];
	if (!((name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z'))) {
		malformed(problem_, "Attribute expected, but found " +
		                        (rest_.empty() ? "end of string" : "invalid character " + shown_char(rest_)) + ".");
		return false;
	}
	return take(out);
}

bool Attributes::take(std::string_view &out)
{
	if (rest_.size() < 2 || rest_[1] != '=') {
		malformed(problem_, std::string("Expected character \"=\" for attribute \"") + rest_[0] + "\".");
		return false;
	}
	const size_t end = rest_.find(',');
	out = rest_.substr(2, end == std::string_view::npos ? end : end - 2);
	rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
	return true;
}

} // namespace pgpool::proto::scram
