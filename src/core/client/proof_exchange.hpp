// The exchange of proofs within a client's login: SCRAM, md5, a password in clear.
//
// Owns each message of it, and what is learned by it for the way to the server: the client's password or key. Must not
// know sessions and streams, nor what follows from the proof. A hash that takes long is the login's to have done.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/ports.hpp"
#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class ProofExchange
{
public:
	enum class Verdict {
		More,   // the client has to say
		Proved, // it is who it says
		Wrong,  // or nobody
		Derive, // password() is to be looked at, beside the event loop
		Refused // see refusal()
	};

	// By the method of `answer`, one that asks for a proof. What the client is to get comes behind `out`, whatever the
	// verdict is. `binding`: see proto::ScramServer.
	[[nodiscard]] Verdict begin(const control::AuthAnswer &answer, const std::string &binding, Outside &outside,
	                            std::string &out);
	// The next message, in the exchange that began with this answer.
	[[nodiscard]] Verdict message(const control::AuthAnswer &answer, std::string_view body, std::string &out);
	const proto::Error &refusal() const { return refusal_; }

	std::string_view password() const { return *password_; } // "" = it gave none in clear
	bool has_key() const { return has_key_; }
	const proto::Secret<proto::ScramKey> &key() const { return key_; }
	// Of the same role, from elsewhere.
	void learn_key(const proto::ScramKey &key)
	{
		has_key_ = true;
		key_ = key;
	}

private:
	enum class Expect { Password, Md5, SaslInitial, SaslLateInitial, SaslFinal };

	Verdict refuse(const char *sqlstate, std::string message, std::string detail = {});
	Verdict sasl_initial(std::string_view body, std::string &out);
	Verdict sasl_step(proto::ScramStep step, const std::string &said, std::string &out);
	Verdict check_password(const control::AuthAnswer &answer, std::string_view password);
	Verdict check_md5(const control::AuthAnswer &answer, std::string_view response) const;

	Expect expect_ = Expect::Password;
	bool has_key_ = false;
	char md5_salt_[4];
	std::unique_ptr<proto::ScramServer> scram_;
	proto::Secret<proto::ScramKey> key_;
	std::string late_mechanism_;
	proto::SecretString password_; // clear text, of the method password
	proto::Error refusal_;
};

} // namespace pgpool::core
