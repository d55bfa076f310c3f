// What proves a role's identity to the server, as its clients have proved it to us.
//
// Owns the secrets: never logged, never in the region, wiped when they are replaced. Must not know servers and clients.
#pragma once

#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

struct Credential {
	control::ServerRoute route = control::ServerRoute::None;
	control::ServerMethod method = control::ServerMethod::Trust;
	bool has_key = false;
	proto::Secret<proto::ScramKey> client_key;
	proto::Secret<proto::ScramVerifier> verifier;
	proto::SecretString md5;      // stored hash, "md5..."
	proto::SecretString password; // clear text
	proto::Error route_error;

	bool proves_nothing() const { return !has_key && md5->empty() && password->empty(); }
	bool proves_as(const Credential &other) const;
	// For the other workers, and from them. The way to the server is each worker's own, from its own logins.
	void write(control::Proof &proof) const;
	void read(const control::Proof &proof);
};

} // namespace pgpool::core
