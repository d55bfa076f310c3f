// The exchange of proofs within a client's login: SCRAM, md5, a password in clear. See login.hpp.
//
// Owns each message of it, and that no hash runs on the event loop. Must not know what follows from the proof.
#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/pool/pools.hpp"
#include "core/client/questions.hpp"
#include "core/client/login.hpp"
#include "core/client/session.hpp"
#include "proto/md5.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace sqlstate = proto::sqlstate;

void Login::exchange_message(std::string_view body)
{
	std::string out;
	switch (expect_) {
	case Expect::Password:
	case Expect::Md5: {
		proto::Reader r(body);
		const std::string_view text = r.string();
		if (!r.ok() || r.left() != 0) {
			fail(sqlstate::kProtocolViolation, "invalid password packet size");
			return;
		}
		if (expect_ == Expect::Md5)
			check_md5(text);
		else
			check_password(text);
		return;
	}
	case Expect::SaslInitial:
		sasl_initial(body);
		return;
	case Expect::SaslLateInitial: {
		const proto::ScramStep step = scram_->first(late_mechanism_, body, out);
		expect_ = Expect::SaslFinal;
		sasl_step(step, out);
		return;
	}
	case Expect::SaslFinal: {
		const proto::ScramStep step = scram_->final(body, out, client_key_.edit());
		has_key_ = step == proto::ScramStep::Done;
		sasl_step(step, out);
		return;
	}
	}
}

void Login::sasl_initial(std::string_view body)
{
	proto::Reader r(body);
	const std::string mechanism(r.string());
	const uint32_t length = r.u32();
	std::string out;
	if (!r.ok()) {
		fail(sqlstate::kProtocolViolation, "malformed SASLInitialResponse");
		return;
	}
	if (length == UINT32_MAX) {
		// No initial response: an empty challenge asks for it.
		late_mechanism_ = mechanism;
		expect_ = Expect::SaslLateInitial;
		proto::append_authentication(out, proto::kAuthSaslContinue);
		session_.stream()->queue(out.data(), out.size());
		session_.stream()->flush();
		return;
	}
	if (length != r.left()) {
		fail(sqlstate::kProtocolViolation, "malformed SASLInitialResponse: its length is not that of its data");
		return;
	}
	const proto::ScramStep step = scram_->first(mechanism, r.bytes(length), out);
	expect_ = Expect::SaslFinal;
	sasl_step(step, out);
}

void Login::sasl_step(proto::ScramStep step, const std::string &message)
{
	std::string out;
	switch (step) {
	case proto::ScramStep::Continue:
		proto::append_authentication(out, proto::kAuthSaslContinue, message);
		session_.stream()->queue(out.data(), out.size());
		session_.stream()->flush();
		return;
	case proto::ScramStep::Done:
		proto::append_authentication(out, proto::kAuthSaslFinal, message);
		session_.stream()->queue(out.data(), out.size());
		session_.stream()->flush();
		authenticated();
		return;
	case proto::ScramStep::WrongProof:
		wrong_password();
		return;
	case proto::ScramStep::Malformed: {
		const proto::ScramProblem &p = scram_->problem();
		fail(p.sqlstate, p.message, p.detail);
		return;
	}
	}
}

void Login::check_password(std::string_view password)
{
	const std::string_view verifier(answer_->verifier);
	proto::Secret<proto::ScramVerifier> scram;
	if (password.empty()) {
		// Refused for every role alike, so nothing is told by it.
		fail(sqlstate::kInvalidPassword, "empty password returned by client");
		return;
	}
	proto::assign(password_, password);
	if (proto::is_md5_verifier(verifier))
		password_checked(proto::md5_password_matches(verifier, answer_->role, password));
	else if (proto::ScramVerifier::parse(verifier, scram.edit()))
		derive(password, *scram);
	else
		password_checked(false);
}

void Login::derive(std::string_view password, const proto::ScramVerifier &verifier)
{
	stage_ = Stage::Deriving;
	derivation_ = session_.clients().questions().derive(&session_, password, verifier);
}

void Login::on_derived(bool right, const proto::ScramKey &key)
{
	derivation_ = 0;
	stage_ = Stage::Exchange;
	has_key_ = right;
	if (right)
		client_key_ = key;
	if (session_.group())
		admitted(); // it was the password for the server
	else
		password_checked(right);
	if (!busy())
		session_.end_if_ended();
}

void Login::password_checked(bool right)
{
	if (right && !answer_->doomed)
		authenticated();
	else
		wrong_password();
}

void Login::check_md5(std::string_view response)
{
	uint8_t salt[proto::kMd5SaltLength];
	memcpy(salt, md5_salt_, sizeof(salt));
	if (answer_->doomed || !proto::md5_response_matches(answer_->verifier, salt, response))
		wrong_password();
	else
		authenticated();
}

void Login::wrong_password()
{
	const std::string user = answer_->role;
	session_.context().log_stranger(*session_.stream(), "password authentication failed for user \"" + user + "\"" +
	                                                        (answer_->log_detail[0] ? ": " : "") + answer_->log_detail);
	fail(sqlstate::kInvalidPassword, "password authentication failed for user \"" + user + "\"");
}

} // namespace pgpool::core
