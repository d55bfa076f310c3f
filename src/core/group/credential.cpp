// See credential.hpp.
#include "core/group/credential.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

bool Credential::proves_as(const Credential &other) const
{
	return has_key == other.has_key && memcmp(&*client_key, &*other.client_key, sizeof(proto::ScramKey)) == 0 &&
	       *md5 == *other.md5 && *password == *other.password;
}

void Credential::write(control::Proof &proof) const
{
	proof.has_key = has_key;
	memcpy(proof.client_key, client_key->bytes, sizeof(proof.client_key));
	const proto::SecretString text(has_key ? verifier->text() : *md5);
	memcpy(proof.verifier, text->data(), std::min(text->size(), sizeof(proof.verifier) - 1));
	memcpy(proof.password, password->data(), std::min(password->size(), sizeof(proof.password) - 1));
}

void Credential::read(const control::Proof &proof)
{
	const std::string_view text(proof.verifier, strnlen(proof.verifier, sizeof(proof.verifier)));
	has_key = proof.has_key != 0 && proto::ScramVerifier::parse(text, verifier.edit());
	memcpy(client_key.edit().bytes, proof.client_key, sizeof(proof.client_key));
	proto::assign(md5, proof.has_key ? std::string_view() : text);
	proto::assign(password, {proof.password, strnlen(proof.password, sizeof(proof.password))});
}

} // namespace pgpool::core
