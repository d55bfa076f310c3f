// SCRAM-SHA-256: see scram.hpp. The arithmetic first, then the server's side, then the client's.
//
// Every message is read by a Reader, the only code here that moves through bytes of the peer. Secrets live in
// ScramKey variables only and are wiped on every way out. Must not know sockets, roles or pg_hba.conf.
#include "proto/scram.hpp"

#include <cstring>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "proto/base64.hpp"
#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

namespace
{

constexpr size_t kNonceBytes = 18; // PostgreSQL's; 24 characters of base64
constexpr std::string_view kBindingType = "tls-server-end-point";
constexpr std::string_view kVerifierPrefix = "SCRAM-SHA-256$";

struct WipedKey : ScramKey {
	WipedKey() { std::memset(bytes, 0, sizeof bytes); }
	~WipedKey() { wipe(bytes, sizeof bytes); }
	WipedKey(const WipedKey &) = delete;
	WipedKey &operator=(const WipedKey &) = delete;
};

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

// Empty when libcrypto has no random bytes.
std::string make_nonce()
{
	uint8_t bytes[kNonceBytes];
	std::string out;

	if (crypto_ok(RAND_bytes(bytes, sizeof bytes) == 1))
		base64_append(bytes, sizeof bytes, out);
	return out;
}

// Canonical decimal, 1 to kScramMaxIterations.
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

// Splits off what stands before `separator`.
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

// Reads "a=value,b=value,...". Two failures of the syntax leave their detail in `problem`.
class Reader
{
public:
	Reader(std::string_view text, ScramProblem &problem) : rest_(text), problem_(problem) {}

	bool at_end() const { return rest_.empty(); }
	size_t left() const { return rest_.size(); }

	bool value(char name, std::string_view &out)
	{
		if (rest_.empty() || rest_[0] != name) {
			malformed(problem_,
			          std::string("Expected attribute \"") + name + "\" but found " + shown_char(rest_) + ".");
			return false;
		}
		return take(out);
	}

	// Any attribute, for the extensions that may stand there and be ignored.
	bool any(char &name, std::string_view &out)
	{
		name = rest_.empty() ? '\0' : rest_[0];
		if (!((name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z'))) {
			malformed(problem_, "Attribute expected, but found " +
			                        (rest_.empty() ? "end of string" : "invalid character " + shown_char(rest_)) + ".");
			return false;
		}
		return take(out);
	}

private:
	bool take(std::string_view &out)
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

	std::string_view rest_;
	ScramProblem &problem_;
};

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

bool ScramVerifier::mock(std::string_view role, std::string_view nonce, uint32_t iterations, ScramVerifier &out)
{
	constexpr uint32_t kSaltLength = 16; // PostgreSQL's
	ScramKey hash;
	std::string text(role);

	out = ScramVerifier{};
	text += nonce;
	if (!sha256(text.data(), text.size(), hash))
		return false;
	out.iterations = iterations;
	out.salt_length = kSaltLength;
	std::memcpy(out.salt, hash.bytes, kSaltLength);
	return true;
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

ScramServer::ScramServer(const ScramVerifier &verifier, bool doomed, std::string_view binding)
    : verifier_(verifier), doomed_(doomed), binding_(binding), server_nonce_(make_nonce())
{
}

ScramServer::~ScramServer()
{
	wipe(&verifier_, sizeof verifier_);
}

std::string ScramServer::mechanisms(bool binding)
{
	std::string out;
	if (binding)
		out.append(kScramPlusMechanism, sizeof kScramPlusMechanism);
	out.append(kScramMechanism, sizeof kScramMechanism);
	out += '\0';
	return out;
}

bool ScramServer::read_mechanism(std::string_view mechanism)
{
	plus_ = mechanism == kScramPlusMechanism;
	if ((plus_ && !binding_.empty()) || mechanism == kScramMechanism)
		return true;
	refuse(problem_, "08P01", "client selected an invalid SASL authentication mechanism", "");
	return false;
}

// The gs2 header up to its second comma: "n,," "y,," or "p=tls-server-end-point,,".
bool ScramServer::read_binding_flag(std::string_view &rest)
{
	std::string_view flag;

	if (rest[0] != 'n' && rest[0] != 'y' && rest[0] != 'p') {
		malformed(problem_, "Unexpected channel-binding flag " + shown_char(rest) + ".");
		return false;
	}
	if (plus_ != (rest[0] == 'p')) {
		malformed(problem_, plus_ ? "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not "
		                            "include channel binding data."
		                          : "The client selected SCRAM-SHA-256 without channel binding, but the "
		                            "SCRAM message includes channel binding data.");
		return false;
	}
	if (rest[0] == 'y' && !binding_.empty()) { // somebody took -PLUS out of our list
		refuse(problem_, "28000", "SCRAM channel binding negotiation error",
		       "The client supports SCRAM channel binding but thinks the server does not.  However, this "
		       "server does support channel binding.");
		return false;
	}
	flag_ = rest[0];
	if (plus_ && (rest.size() < 2 || rest[1] != '=')) {
		malformed(problem_, "Expected character \"=\" for attribute \"p\".");
		return false;
	}
	if (!plus_ && (rest.size() < 2 || rest[1] != ',')) {
		malformed(problem_, "Comma expected, but found character " + shown_char(rest.substr(1)) + ".");
		return false;
	}
	if (!split(rest, ',', flag))
		flag = std::exchange(rest, std::string_view());
	if (plus_ && flag.substr(2) != kBindingType) {
		refuse(problem_, "08P01", "unsupported SCRAM channel-binding type \"" + shown_text(flag.substr(2)) + "\"", "");
		return false;
	}
	if (!rest.empty() && rest[0] == 'a') {
		refuse(problem_, "0A000", "client uses authorization identity, but it is not supported", "");
		return false;
	}
	if (rest.empty() || rest[0] != ',') {
		malformed(problem_, "Unexpected attribute " + shown_char(rest) + " in client-first-message.");
		return false;
	}
	rest.remove_prefix(1);
	return true;
}

ScramStep ScramServer::first(std::string_view mechanism, std::string_view client_first, std::string &server_first)
{
	std::string_view rest = client_first, value;
	char name;

	server_first.clear();
	if (state_ != State::First)
		return internal(problem_, "SCRAM exchange out of order");
	state_ = State::Over; // until all is well
	if (server_nonce_.empty())
		return internal(problem_, "could not generate random nonce");
	if (!read_mechanism(mechanism) || !acceptable_size(client_first, problem_) || !read_binding_flag(rest))
		return ScramStep::Malformed;

	client_first_bare_ = rest;
	if (!rest.empty() && rest[0] == 'm')
		return refuse(problem_, "0A000", "client requires an unsupported SCRAM extension", "");
	Reader reader(rest, problem_);
	if (!reader.value('n', value)) // ignored: the startup packet names the role
		return ScramStep::Malformed;
	if (!reader.value('r', value))
		return ScramStep::Malformed;
	if (value.empty())
		return malformed(problem_, "The nonce is empty.");
	if (!is_nonce(value))
		return refuse(problem_, "08P01", "non-printable characters in SCRAM nonce", "");
	nonce_ = value;
	while (!reader.at_end())
		if (!reader.any(name, value))
			return ScramStep::Malformed;

	nonce_ += server_nonce_;
	server_first_ = "r=" + nonce_ + ",s=";
	base64_append(verifier_.salt, verifier_.salt_length, server_first_);
	server_first_ += ",i=" + std::to_string(verifier_.iterations);
	server_first = server_first_;
	state_ = State::Final;
	return ScramStep::Continue;
}

// c= repeats the gs2 header, so that nobody can have changed the flag on the way, and binds the certificate.
bool ScramServer::check_binding(std::string_view value)
{
	std::string header, expected;

	if (plus_)
		header.append("p=").append(kBindingType).append(",,").append(binding_);
	else
		header.append(1, flag_).append(",,");
	base64_append(header.data(), header.size(), expected);
	if (same(expected, value))
		return true;
	if (plus_)
		refuse(problem_, "28000", "SCRAM channel binding check failed", "");
	else
		refuse(problem_, "08P01", "unexpected SCRAM channel-binding attribute in client-final-message", "");
	return false;
}

// ClientKey = proof XOR HMAC(StoredKey, AuthMessage), and StoredKey = H(ClientKey). The server's signature is
// computed for every proof: the time says nothing about the outcome.
bool ScramServer::check_proof(std::string_view without_proof, const ScramKey &proof, ScramKey &client_key,
                              std::string &server_final)
{
	WipedKey key, stored;
	ScramKey signature;
	std::string auth_message = client_first_bare_ + "," + server_first_ + ",";

	auth_message += without_proof;
	if (!hmac(verifier_.stored_key, auth_message, key) || !hmac(verifier_.server_key, auth_message, signature)) {
		internal(problem_, "could not compute SCRAM signature");
		return false;
	}
	exclusive_or(key, proof);
	if (!sha256(key.bytes, kScramKeyLength, stored)) {
		internal(problem_, "could not hash SCRAM client key");
		return false;
	}
	const bool right = same(stored, verifier_.stored_key);
	if (!right || doomed_)
		return false;
	client_key = key;
	server_final = "v=";
	base64_append(signature.bytes, kScramKeyLength, server_final);
	return true;
}

ScramStep ScramServer::final(std::string_view client_final, std::string &server_final, ScramKey &client_key)
{
	std::string_view value;
	WipedKey proof;
	size_t before_proof;
	char name;

	server_final.clear();
	client_key = ScramKey{};
	if (state_ != State::Final)
		return internal(problem_, "SCRAM exchange out of order");
	state_ = State::Over;
	if (!acceptable_size(client_final, problem_))
		return ScramStep::Malformed;

	Reader reader(client_final, problem_);
	if (!reader.value('c', value) || !check_binding(value))
		return ScramStep::Malformed;
	if (!reader.value('r', value))
		return ScramStep::Malformed;
	if (!same(nonce_, value))
		return refuse(problem_, "08P01", "invalid SCRAM response", "Nonce does not match.");
	do {
		before_proof = client_final.size() - reader.left();
		if (!reader.any(name, value))
			return ScramStep::Malformed;
	} while (name != 'p');
	if (!decode_key(value, proof))
		return malformed(problem_, "Malformed proof in client-final-message.");
	if (client_final.size() - before_proof != 2 + value.size()) // a comma behind the proof counts
		return malformed(problem_, "Garbage found at the end of client-final-message.");

	// the comma before the proof is not part of what was signed
	if (!check_proof(client_final.substr(0, before_proof - 1), proof, client_key, server_final))
		return problem_.message.empty() ? ScramStep::WrongProof : ScramStep::Malformed;
	return ScramStep::Done;
}

ScramClient::ScramClient(const ScramKey &client_key, const ScramVerifier &verifier)
    : client_key_(client_key), verifier_(verifier), client_nonce_(make_nonce())
{
}

ScramClient::~ScramClient()
{
	wipe(&client_key_, sizeof client_key_);
	wipe(&verifier_, sizeof verifier_);
}

// PostgreSQL takes the role from the startup packet and ignores n=, which libpq leaves empty too.
std::string ScramClient::first()
{
	if (state_ != State::First || client_nonce_.empty()) {
		state_ = State::Over;
		internal(problem_, "could not generate random nonce");
		return std::string();
	}
	state_ = State::ServerFirst;
	return "n,,n=,r=" + client_nonce_;
}

bool ScramClient::check_salt(std::string_view salt, std::string_view iterations)
{
	uint8_t bytes[kScramMaxSalt];
	uint32_t count = 0;
	size_t length = 0;

	if (!base64_decode(salt, bytes, sizeof bytes, length) || length == 0) {
		malformed(problem_, "Malformed salt in server-first-message.");
		return false;
	}
	if (!read_iterations(iterations, count)) {
		malformed(problem_, "Malformed or too large iteration count in server-first-message.");
		return false;
	}
	if (count == verifier_.iterations && length == verifier_.salt_length &&
	    CRYPTO_memcmp(bytes, verifier_.salt, length) == 0)
		return true;
	salt_changed_ = true;
	refuse(problem_, "28P01", "the role's password was changed",
	       "The server's salt or iteration count is not the one the client proved its password for.");
	return false;
}

bool ScramClient::prove(const std::string &without_proof, ScramKey &proof)
{
	WipedKey stored;

	auth_message_.append(",").append(server_first_).append(",").append(without_proof);
	if (!sha256(client_key_.bytes, kScramKeyLength, stored) || !hmac(stored, auth_message_, proof)) {
		internal(problem_, "could not compute SCRAM proof");
		return false;
	}
	exclusive_or(proof, client_key_);
	return true;
}

ScramStep ScramClient::server_first(std::string_view message, std::string &client_final)
{
	std::string_view nonce, salt, iterations;
	ScramKey proof;

	client_final.clear();
	if (state_ != State::ServerFirst)
		return internal(problem_, "SCRAM exchange out of order");
	state_ = State::Over;
	if (!acceptable_size(message, problem_))
		return ScramStep::Malformed;

	Reader reader(message, problem_);
	if (!reader.value('r', nonce))
		return ScramStep::Malformed;
	if (!is_nonce(nonce) || nonce.size() <= client_nonce_.size() ||
	    nonce.substr(0, client_nonce_.size()) != client_nonce_)
		return refuse(problem_, "08P01", "invalid SCRAM response", "Nonce does not match.");
	if (!reader.value('s', salt) || !reader.value('i', iterations))
		return ScramStep::Malformed;
	if (message.back() == ',' || !reader.at_end())
		return malformed(problem_, "Garbage found at the end of server-first-message.");
	if (!check_salt(salt, iterations))
		return ScramStep::Malformed;

	server_first_ = message;
	auth_message_ = "n=,r=" + client_nonce_;
	std::string without_proof = "c=biws,r=";
	without_proof += nonce;
	if (!prove(without_proof, proof))
		return ScramStep::Malformed;
	client_final = without_proof + ",p=";
	base64_append(proof.bytes, kScramKeyLength, client_final);
	state_ = State::ServerFinal;
	return ScramStep::Continue;
}

ScramStep ScramClient::server_final(std::string_view message)
{
	std::string_view value;
	ScramKey expected, signature;

	if (state_ != State::ServerFinal)
		return internal(problem_, "SCRAM exchange out of order");
	state_ = State::Over;
	if (!acceptable_size(message, problem_))
		return ScramStep::Malformed;

	Reader reader(message, problem_);
	if (message[0] == 'e' && reader.value('e', value))
		return refuse(problem_, "08P01", "server reported an error in the SCRAM exchange", shown_text(value));
	if (!reader.value('v', value))
		return ScramStep::Malformed;
	if (value.size() + 2 != message.size())
		return malformed(problem_, "Garbage found at the end of server-final-message.");
	if (!decode_key(value, signature))
		return malformed(problem_, "Malformed signature in server-final-message.");
	if (!hmac(verifier_.server_key, auth_message_, expected))
		return internal(problem_, "could not compute SCRAM signature");
	return same(expected, signature) ? ScramStep::Done : ScramStep::WrongProof;
}

} // namespace pgpool::proto
