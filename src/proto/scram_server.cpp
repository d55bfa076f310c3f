// The server's side of an exchange: a client proves that it knows a password. See scram.hpp.
//
// Owns the order of its two messages, the checks of channel binding, and the check of the proof.
#include <utility>

#include "proto/base64.hpp"
#include "proto/scram.hpp"
#include "proto/scram_parts.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

using namespace scram;

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
	Attributes reader(rest, problem_);
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

	Attributes reader(client_final, problem_);
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

} // namespace pgpool::proto
