// The client's side of an exchange: pgpool logs in at a server with the ClientKey of a role. See scram.hpp.
//
// Owns the order of its two messages, and the check that the server knows the verifier, too.
#include <openssl/crypto.h>

#include "proto/base64.hpp"
#include "proto/scram.hpp"
#include "proto/scram_parts.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

using namespace scram;

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

	Attributes reader(message, problem_);
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

	Attributes reader(message, problem_);
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
