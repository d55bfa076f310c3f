// See login.hpp.
#include "core/client/login.hpp"

#include <algorithm>
#include <cstring>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/client/questions.hpp"
#include "core/pool/pool_group.hpp"
#include "core/client/session.hpp"
#include "proto/bytes.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::AuthMethod;
using region::bump;
namespace sqlstate = proto::sqlstate;

namespace
{

template <size_t n> void put(char (&field)[n], std::string_view text)
{
	memcpy(field, text.data(), std::min(text.size(), n - 1));
}

// A part of a name may be somebody else's: false, and there is none, if it has no room.
template <size_t n> bool put_whole(char (&field)[n], std::string_view text)
{
	put(field, text.size() < n ? text : std::string_view(""));
	return text.size() < n;
}

} // namespace

Login::Login(Session &session) : Deputy(session), began_(session.context().now()) {}

Login::~Login()
{
	if (question_ != 0)
		session_.clients().questions().forget(question_);
	if (derivation_ != 0)
		session_.clients().questions().forget_derivation(derivation_);
}

void Login::fail(const char *state, std::string message, std::string detail, std::string hint)
{
	on_failed({state, std::move(message), std::move(detail), std::move(hint)});
}

void Login::on_failed(const proto::Error &why)
{
	stage_ = Stage::Over;
	bump(session_.context().slot().login_failures);
	if (answer_ && answer_->tenant_slot != UINT32_MAX)
		bump(session_.context()
		         .region()
		         .tenant_counters(answer_->tenant_slot, session_.context().worker())
		         .login_failures);
	session_.fatal(why);
}

// Nothing can be told in clear to one who was promised TLS.
void Login::on_handshake_failed(const char *why)
{
	stage_ = Stage::Over;
	bump(session_.context().slot().login_failures);
	session_.context().log_stranger(*session_.stream(), "could not accept SSL connection: " + std::string(why));
	session_.close(false);
}

void Login::on_timeout()
{
	const std::string limit = std::to_string(session_.context().settings().login_timeout) + " ms";
	if (session_.stream()->handshaking()) {
		on_handshake_failed(("the handshake was not complete after pgpool.login_timeout, " + limit).c_str());
		return;
	}
	std::string detail = "The login was not complete after " + limit + ".";
	std::string hint = "The limit is pgpool.login_timeout.";
	if (stage_ == Stage::Preparing && !session_.server()) { // it waits for one
		const proto::Error lack = session_.pool().lack(limit);
		detail = "The login was not complete: " + lack.message + ". " + lack.detail;
		hint += lack.hint.empty() ? "" : " " + lack.hint;
	}
	fail(sqlstate::kQueryCanceled, "canceling authentication due to timeout", detail, hint);
}

void Login::on_data(const char *data, size_t size)
{
	if (!proto::try_append(in_, {data, size})) {
		fail(sqlstate::kOutOfMemory, "out of memory");
		return;
	}
	while (!session_.dead()) {
		if (stage_ == Stage::Startup) {
			if (!startup_packet())
				return;
		} else if (stage_ == Stage::Exchange) {
			if (in_->size() < proto::kHeaderSize)
				return;
			const uint32_t length = proto::load32(in_->data() + 1);
			const char type = in_->front();
			if (type != 'p') {
				fail(sqlstate::kProtocolViolation, std::string("expected password response, got message type ") +
				                                       std::to_string(static_cast<unsigned char>(type)));
				return;
			}
			if (length < 4 || length - 4 > proto::kMaxAuthMessage) {
				fail(sqlstate::kProtocolViolation,
				     "invalid length of a password or SASL message: " + std::to_string(length));
				return;
			}
			if (in_->size() <= length)
				return;
			proto::SecretString body;
			proto::assign(body, std::string_view(*in_).substr(proto::kHeaderSize, length - 4));
			proto::drop_front(in_, size_t{length} + 1);
			exchange_message(*body);
		} else {
			// Nothing is due from the client; what a hasty one sends waits, within bounds.
			if (in_->size() > kChunk)
				fail(sqlstate::kProtocolViolation, "too much data before the login was answered");
			return;
		}
	}
}

// ---- the first packets

// True: a packet was taken, look again.
bool Login::startup_packet()
{
	uint32_t size;
	switch (proto::classify_startup(*in_, size)) {
	case proto::StartupKind::Incomplete:
		return false;
	case proto::StartupKind::Invalid:
		session_.close(false);
		return false; // as the server: no answer
	case proto::StartupKind::Ssl:
		return encryption_request(true);
	case proto::StartupKind::Gss:
		return encryption_request(false);
	case proto::StartupKind::Cancel:
		cancel_request(size);
		return false;
	case proto::StartupKind::Startup:
		begin(size);
		return false;
	}
	return false;
}

bool Login::encryption_request(bool tls)
{
	bool &asked = tls ? ssl_asked_ : gss_asked_;
	Stream *stream = session_.stream();
	if (asked || stream->tls()) {
		fail(sqlstate::kProtocolViolation,
		     tls ? "a second SSLRequest, or one within TLS" : "a second GSSENCRequest, or one within TLS");
		return false;
	}
	asked = true;
	const bool yes = tls && stream->can_tls();
	if (in_->size() > 8) {
		// Somebody may have put bytes of his own before the encrypted ones.
		fail(sqlstate::kProtocolViolation,
		     tls ? "received unencrypted data after SSL request"
		         : "received unencrypted data after GSSAPI encryption request",
		     "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.");
		return false;
	}
	proto::assign(in_, {});
	stream->queue(yes ? "S" : "N", 1);
	stream->flush();
	if (yes)
		stream->start_tls();
	return true;
}

void Login::cancel_request(uint32_t size)
{
	proto::CancelRequest request;
	if (proto::read_cancel({in_->data(), size}, request)) {
		bump(session_.context().slot().cancels);
		stage_ = Stage::Over;
		session_.stream()->read(false);
		session_.clients().cancel(&session_, request.pid, request.key);
		return; // never an answer, right key or wrong
	}
	session_.close(false);
}

void Login::begin(uint32_t size)
{
	proto::Error error;
	const std::string packet = in_->substr(0, size);
	proto::drop_front(in_, size);
	if (!proto::read_startup(packet, startup_, error)) {
		on_failed(error);
		return;
	}
	session_.set_minor(
	    static_cast<uint8_t>(std::min<uint16_t>(startup_.minor == 1 ? 0 : startup_.minor, proto::kNewestMinor)));
	if (startup_.replication) {
		startup_.refusal = {sqlstate::kFeatureNotSupported, "replication connections are not pooled", "",
		                    "Connect to the server's own port, " +
		                        std::to_string(session_.context().settings().server_port) + "."};
	}
	if (startup_.user.size() > 255 || startup_.database.size() > 255 || startup_.tenant.size() >= region::kNameLen) {
		fail(sqlstate::kInvalidAuthorization, "user, database or tenant name is too long", "",
		     "Names have at most 63 bytes.");
		return;
	}
	proto::Error why;
	Context &context = session_.context();
	if (context.refuses(why)) {
		on_failed(why);
		return;
	}
	if (session_.clients().more_than(context.settings().max_client_connections)) {
		bump(context.slot().refused);
		fail(sqlstate::kTooManyConnections, "sorry, too many clients already",
		     "pgpool.max_client_connections is " + std::to_string(context.settings().max_client_connections) + ".",
		     "Raise pgpool.max_client_connections and reload.");
		return;
	}
	ask();
}

// ---- the manager's word

void Login::ask()
{
	auto q = control::make<control::AuthLookup>(control::Type::AuthLookup);
	const std::string_view address = session_.stream()->address();
	q.address_length = static_cast<uint32_t>(std::min(address.size(), sizeof(q.address)));
	memcpy(q.address, address.data(), q.address_length);
	if (const TlsInfo *tls = session_.stream()->tls()) {
		q.tls = 1;
		q.certificate_valid = tls->certificate_valid;
		(void)put_whole(q.sni, tls->sni);
		const bool cn = put_whole(q.certificate_cn, tls->certificate_cn);
		const bool dn = put_whole(q.certificate_dn, tls->certificate_dn);
		q.certificate_name_long = !cn || !dn;
	}
	q.session_port = session_.session_port();
	put(q.user, startup_.user);
	put(q.database, startup_.database);
	put(q.tenant, startup_.tenant);
	q.proved = proved_ != nullptr;
	stage_ = Stage::Asking;
	question_ = session_.clients().questions().ask(&session_, q);
}

void Login::on_manager()
{
	if (stage_ == Stage::Asking) {
		session_.clients().questions().forget(question_);
		ask();
	}
}

void Login::on_answer(const control::AuthAnswer &answer)
{
	if (stage_ != Stage::Asking)
		return;
	question_ = 0;
	answer_.reset(new control::AuthAnswer(answer));
	if (proved_)
		on_admitted();
	else
		start_exchange();
	// The client may have sent its part already.
	if (!session_.dead() && stage_ == Stage::Exchange && !in_->empty())
		on_data("", 0);
	if (!busy())
		session_.end_if_ended(); // nothing more will come from it
}

// The second answer, which has a place for the pool. What was proved must still be what is asked for.
void Login::on_admitted()
{
	const control::AuthAnswer &was = *proved_;
	if (answer_->method == AuthMethod::Refuse) {
		refuse();
	} else if (answer_->method != was.method || answer_->doomed || answer_->role_oid != was.role_oid ||
	           strcmp(answer_->verifier, was.verifier) != 0) {
		wrong_password();
	} else {
		authenticated();
	}
}

// ---- the exchange of proofs

void Login::start_exchange()
{
	std::string out;
	stage_ = Stage::Exchange;
	session_.stream()->wipe_input(true);
	proto::append_negotiation(out, startup_);
	switch (answer_->method) {
	case AuthMethod::Refuse:
		refuse();
		return;
	case AuthMethod::Trust:
	case AuthMethod::Certificate:
		if (!out.empty())
			session_.stream()->queue(out.data(), out.size());
		authenticated();
		return;
	case AuthMethod::Password:
	case AuthMethod::Md5:
	case AuthMethod::Scram:
		break;
	}
	const TlsInfo *tls = session_.stream()->tls();
	const ProofExchange::Verdict verdict =
	    exchange_.begin(*answer_, tls ? tls->binding : std::string(), session_.context().outside(), out);
	if (verdict == ProofExchange::Verdict::Refused) {
		on_failed(exchange_.refusal()); // and nothing else is told
		return;
	}
	session_.stream()->queue(out.data(), out.size());
	session_.stream()->flush();
}

void Login::exchange_message(std::string_view body)
{
	std::string out;
	const ProofExchange::Verdict verdict = exchange_.message(*answer_, body, out);
	if (!out.empty()) {
		session_.stream()->queue(out.data(), out.size());
		session_.stream()->flush();
	}
	switch (verdict) {
	case ProofExchange::Verdict::More:
		return;
	case ProofExchange::Verdict::Proved:
		authenticated();
		return;
	case ProofExchange::Verdict::Derive:
		if (derive(exchange_.password()))
			return;
		[[fallthrough]];
	case ProofExchange::Verdict::Wrong:
		wrong_password();
		return;
	case ProofExchange::Verdict::Refused:
		on_failed(exchange_.refusal());
		return;
	}
}

// Whether it is the password of the role's verifier, a thread will say: on_derived(). False: there is no such verifier.
bool Login::derive(std::string_view password)
{
	proto::Secret<proto::ScramVerifier> verifier;
	if (!proto::ScramVerifier::parse(answer_->verifier, verifier.edit()))
		return false;
	stage_ = Stage::Deriving;
	derivation_ = session_.clients().questions().derive(&session_, password, *verifier);
	return true;
}

void Login::on_derived(bool right, const proto::ScramKey &key)
{
	derivation_ = 0;
	stage_ = Stage::Exchange;
	if (right)
		exchange_.learn_key(key);
	if (session_.group())
		admitted(); // it was the password for the server
	else if (right && !answer_->doomed)
		authenticated();
	else
		wrong_password();
	if (!busy())
		session_.end_if_ended();
}

void Login::wrong_password()
{
	const std::string user = answer_->role;
	session_.context().log_stranger(*session_.stream(), "password authentication failed for user \"" + user + "\"" +
	                                                        (answer_->log_detail[0] ? ": " : "") + answer_->log_detail);
	fail(sqlstate::kInvalidPassword, "password authentication failed for user \"" + user + "\"");
}

// By the manager's word. As PostgreSQL logs it.
void Login::refuse()
{
	session_.context().log_stranger(*session_.stream(), answer_->error.message +
	                                                        std::string(answer_->log_detail[0] ? ": " : "") +
	                                                        answer_->log_detail);
	on_failed(to_error(answer_->error));
}

proto::Error Login::to_error(const control::ErrorText &e)
{
	return {e.sqlstate, e.message, e.detail, e.hint};
}

} // namespace pgpool::core
