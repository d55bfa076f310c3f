// See proof_exchange.hpp.
#include "core/client/proof_exchange.hpp"

#include <cstdint>
#include <cstring>
#include <utility>

#include "proto/md5.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::AuthMethod;
namespace sqlstate = proto::sqlstate;

ProofExchange::Verdict ProofExchange::refuse(const char *state, std::string message, std::string detail)
{
	refusal_ = {state, std::move(message), std::move(detail), ""};
	return Verdict::Refused;
}

ProofExchange::Verdict ProofExchange::begin(const control::AuthAnswer &answer, const std::string &binding,
                                            Outside &outside, std::string &out)
{
	if (answer.method == AuthMethod::Scram) {
		proto::Secret<proto::ScramVerifier> verifier;
		if (!proto::ScramVerifier::parse(answer.verifier, verifier.edit()))
			return refuse(sqlstate::kInternal, "the manager sent a verifier that cannot be read");
		scram_ = std::make_unique<proto::ScramServer>(*verifier, answer.doomed != 0, binding);
		expect_ = Expect::SaslInitial;
		proto::append_authentication(out, proto::kAuthSasl, proto::ScramServer::mechanisms(!binding.empty()));
	} else if (answer.method == AuthMethod::Md5) {
		expect_ = Expect::Md5;
		outside.random(md5_salt_, sizeof(md5_salt_));
		proto::append_authentication(out, proto::kAuthMd5, {md5_salt_, sizeof(md5_salt_)});
	} else {
		expect_ = Expect::Password;
		proto::append_authentication(out, proto::kAuthCleartext);
	}
	return Verdict::More;
}

ProofExchange::Verdict ProofExchange::message(const control::AuthAnswer &answer, std::string_view body,
                                              std::string &out)
{
	std::string said;
	switch (expect_) {
	case Expect::Password:
	case Expect::Md5: {
		proto::Reader r(body);
		const std::string_view text = r.string();
		if (!r.ok() || r.left() != 0)
			return refuse(sqlstate::kProtocolViolation, "invalid password packet size");
		return expect_ == Expect::Md5 ? check_md5(answer, text) : check_password(answer, text);
	}
	case Expect::SaslInitial:
		return sasl_initial(body, out);
	case Expect::SaslLateInitial: {
		const proto::ScramStep step = scram_->first(late_mechanism_, body, said);
		expect_ = Expect::SaslFinal;
		return sasl_step(step, said, out);
	}
	case Expect::SaslFinal: {
		const proto::ScramStep step = scram_->final(body, said, key_.edit());
		has_key_ = step == proto::ScramStep::Done;
		return sasl_step(step, said, out);
	}
	}
	return Verdict::Wrong;
}

ProofExchange::Verdict ProofExchange::sasl_initial(std::string_view body, std::string &out)
{
	proto::Reader r(body);
	const std::string mechanism(r.string());
	const uint32_t length = r.u32();
	if (!r.ok())
		return refuse(sqlstate::kProtocolViolation, "malformed SASLInitialResponse");
	if (length == UINT32_MAX) {
		// No initial response: an empty challenge asks for it.
		late_mechanism_ = mechanism;
		expect_ = Expect::SaslLateInitial;
		proto::append_authentication(out, proto::kAuthSaslContinue);
		return Verdict::More;
	}
	if (length != r.left())
		return refuse(sqlstate::kProtocolViolation,
		              "malformed SASLInitialResponse: its length is not that of its data");
	std::string said;
	const proto::ScramStep step = scram_->first(mechanism, r.bytes(length), said);
	expect_ = Expect::SaslFinal;
	return sasl_step(step, said, out);
}

ProofExchange::Verdict ProofExchange::sasl_step(proto::ScramStep step, const std::string &said, std::string &out)
{
	switch (step) {
	case proto::ScramStep::Continue:
		proto::append_authentication(out, proto::kAuthSaslContinue, said);
		return Verdict::More;
	case proto::ScramStep::Done:
		proto::append_authentication(out, proto::kAuthSaslFinal, said);
		return Verdict::Proved;
	case proto::ScramStep::WrongProof:
		return Verdict::Wrong;
	case proto::ScramStep::Malformed:
		break;
	}
	const proto::ScramProblem &p = scram_->problem();
	return refuse(p.sqlstate, p.message, p.detail);
}

ProofExchange::Verdict ProofExchange::check_password(const control::AuthAnswer &answer, std::string_view password)
{
	// Refused for every role alike, so nothing is told by it.
	if (password.empty())
		return refuse(sqlstate::kInvalidPassword, "empty password returned by client");
	proto::assign(password_, password);
	if (!proto::is_md5_verifier(answer.verifier))
		return Verdict::Derive;
	return proto::md5_password_matches(answer.verifier, answer.role, password) && !answer.doomed ? Verdict::Proved
	                                                                                             : Verdict::Wrong;
}

ProofExchange::Verdict ProofExchange::check_md5(const control::AuthAnswer &answer, std::string_view response) const
{
	uint8_t salt[proto::kMd5SaltLength];
	memcpy(salt, md5_salt_, sizeof(salt));
	return !answer.doomed && proto::md5_response_matches(answer.verifier, salt, response) ? Verdict::Proved
	                                                                                      : Verdict::Wrong;
}

} // namespace pgpool::core
