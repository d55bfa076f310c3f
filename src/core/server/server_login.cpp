// See server_login.hpp.
#include "core/server/server_login.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "core/server/server.hpp"
#include "proto/bytes.hpp"
#include "proto/md5.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int kMostProofs = 20; // questions, if a timeout ends them
constexpr size_t kMostNotices = 16384;

// Whose names they are, and of which server.
#define PGPOOL_NAMED_BY                                                                                                \
	"WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() "                                            \
	"AND r.rolname OPERATOR(pg_catalog.=) session_user"
constexpr char kWho[] = "SELECT d.oid, r.oid FROM pg_catalog.pg_database d, pg_catalog.pg_roles r " PGPOOL_NAMED_BY;
constexpr char kWhoOnNode[] =
    "SELECT d.oid, r.oid, pg_catalog.pg_is_in_recovery(), system_identifier "
    "FROM pg_catalog.pg_database d, pg_catalog.pg_roles r, pg_catalog.pg_control_system() " PGPOOL_NAMED_BY;
#undef PGPOOL_NAMED_BY

// Of a refused login. By the routine, for the message is in the server's language.
control::ServerLimit limit_of(std::string_view error)
{
	if (proto::error_field(error, 'C') != proto::sqlstate::kTooManyConnections)
		return control::ServerLimit::None;
	const std::string_view routine = proto::error_field(error, 'R');
	return routine == "InitializeSessionUserId" ? control::ServerLimit::Role
	       : routine == "CheckMyDatabase"       ? control::ServerLimit::Database
	                                            : control::ServerLimit::Server;
}

} // namespace

ServerLogin::ServerLogin(ServerConn &server, Group &group, std::string encoding)
    : server_(server), group_(group), encoding_(std::move(encoding))
{
}

ServerLogin::~ServerLogin() = default;

void ServerLogin::start(const std::string &agent)
{
	names_sequence_ = group_.names_sequence();
	std::string out(4, '\0');
	proto::Writer w(out);
	w.u32(3u << 16);
	w.string("user").string(group_.role()).string("database").string(group_.database());
	if (server_.is_listener()) {
		w.string("application_name").string("pgpool");
		// Notifications come as its clients expect them, and nothing ends its work.
		w.string("client_encoding").string(encoding_);
		w.string("statement_timeout").string("0").string("lock_timeout").string("0");
	}
	// The agent lets it end no server, and tells it; the session acts on it.
	if (agent.empty())
		w.string("idle_session_timeout").string("0");
	else
		w.string("pgpool.agent").string(agent);
	w.u8(0);
	proto::store32(out.data(), static_cast<uint32_t>(out.size()));
	send(out);
}

void ServerLogin::send(std::string_view bytes)
{
	server_.stream()->queue(bytes.data(), bytes.size());
	server_.stream()->flush();
}

ServerLogin::Outcome ServerLogin::on_data(const char *data, size_t size)
{
	if (!proto::try_append(in_, {data, size}))
		fail({proto::sqlstate::kOutOfMemory, "out of memory", "", ""});
	size_t at = 0;
	while (!failure_ && in_.size() - at >= proto::kHeaderSize) {
		const uint32_t length = proto::load32(&in_[at + 1]);
		if (length < 4 || length > kChunk) {
			fail({proto::sqlstate::kProtocolViolation,
			      "the server sent a message with an impossible length during login", "", ""});
			break;
		}
		if (in_.size() - at <= length)
			break;
		const std::string body = in_.substr(at + proto::kHeaderSize, length - 4);
		const char type = in_[at];
		at += size_t{length} + 1;
		if (proof_ >= Proof::Asked)
			proof_message(type, body);
		else
			message(type, body);
	}
	if (failure_)
		return Outcome::Failed;
	in_.erase(0, at);
	return proof_ == Proof::Done && in_.empty() ? Outcome::Done : Outcome::Open;
}

void ServerLogin::message(char type, std::string_view body)
{
	switch (type) {
	case 'R':
		authentication(body);
		break;
	case 'S':
		parameter(body);
		break;
	case 'K': {
		proto::Reader r(body);
		pid_ = static_cast<int32_t>(r.u32());
		key_ = r.bytes(r.left());
		break;
	}
	case 'E':
		failure_ = LoginFailure{proto::read_error(body), limit_of(body), true, names_sequence_};
		break;
	case 'Z':
		ready();
		break;
	case 'N':
		if (notices_.size() + body.size() <= kMostNotices)
			proto::Writer(notices_).begin('N').bytes(body).end();
		break;
	case 'v':
		break;
	default:
		fail({proto::sqlstate::kProtocolViolation, "the server sent an unexpected message during login", "", ""});
	}
}

void ServerLogin::parameter(std::string_view body)
{
	proto::Reader r(body);
	const std::string_view name = r.string();
	const std::string_view value = r.string();
	if (!r.ok())
		return;
	if (name == "pgpool.identity") { // the agent's word
		const size_t space = std::min(value.find(' '), value.size() - 1);
		proof_ = proves(value.substr(0, space), value.substr(space + 1)) ? Proof::Told : Proof::Wrong;
		return;
	}
	(void)server_.on_parameter(name, value, true);
}

void ServerLogin::authentication(std::string_view body)
{
	const Credential *credential = group_.credential();
	proto::Reader r(body);
	const uint32_t code = r.u32();
	proto::SecretString out, text;
	switch (code) {
	case proto::kAuthOk:
		return;
	case proto::kAuthCleartext:
		// Only what the client itself sent in clear or what the tenant's administrator stored.
		if (!may_send("a password", Secrecy::Verified))
			return;
		text = credential->password;
		break;
	case proto::kAuthMd5: {
		if (!may_send("an md5 hash", Secrecy::Encrypted))
			return;
		uint8_t salt[proto::kMd5SaltLength];
		const std::string_view bytes = r.bytes(sizeof(salt));
		if (!r.ok())
			break;
		memcpy(salt, bytes.data(), sizeof(salt));
		proto::SecretString verifier = credential->md5;
		if (verifier->empty() && !credential->password->empty())
			(void)proto::md5_verifier(*credential->password, group_.role(), verifier.edit());
		if (!verifier->empty())
			(void)proto::md5_response(*verifier, salt, text.edit());
		break;
	}
	case proto::kAuthSasl:
	case proto::kAuthSaslContinue:
	case proto::kAuthSaslFinal:
		sasl(code, r.bytes(r.left()));
		return;
	default:
		fail({proto::sqlstate::kInvalidAuthorization,
		      "the server asks for an authentication method that pgpool does not support (code " +
		          std::to_string(code) + ")",
		      "", "Change the line of pg_hba.conf that holds for pgpool's own connections to scram-sha-256."});
		return;
	}
	if (text->empty()) {
		fail({proto::sqlstate::kInvalidAuthorization, "the server asks for a password that pgpool does not have",
		      "What the client proved does not fit the method that pg_hba.conf sets for pgpool's own connection.",
		      "Use scram-sha-256 for both, or store a password with pgpool.set_user(..., server_password => ...)."});
		return;
	}
	out.edit().reserve(proto::kHeaderSize + text->size() + 1); // it must not leave what it grows out of
	proto::Writer(out.edit()).begin('p').string(*text).end();
	send(*out);
}

// What another could use who reads it on the way.
bool ServerLogin::may_send(const char *what, Secrecy least)
{
	if (server_.stream()->secrecy() >= least)
		return true;
	fail({proto::sqlstate::kInvalidAuthorization,
	      std::string("the server asks for ") + what + ", and the connection to it is not safe enough for that",
	      least == Secrecy::Verified
	          ? "To another machine it is sent only over TLS with sslmode verify-ca or verify-full."
	          : "To another machine it is sent only over TLS.",
	      "Let pg_hba.conf there ask for scram-sha-256, or change sslmode with pgpool.alter_replica()."});
	return false;
}

void ServerLogin::sasl(uint32_t code, std::string_view rest)
{
	const Credential *credential = group_.credential();
	std::string out, text;
	if (code == proto::kAuthSasl) {
		if (!credential->has_key) {
			fail({proto::sqlstate::kInvalidAuthorization, "the server asks for a SCRAM proof that pgpool does not have",
			      "The client did not log in with SCRAM or a password.",
			      "Let pg_hba.conf ask clients for scram-sha-256, or store a password with "
			      "pgpool.set_user(..., server_password => ...)."});
			return;
		}
		scram_ = std::make_unique<proto::ScramClient>(*credential->client_key, *credential->verifier);
		text = scram_->first();
		proto::Writer w(out);
		w.begin('p').string(proto::kScramMechanism).u32(static_cast<uint32_t>(text.size())).bytes(text).end();
	} else if (!scram_) {
		fail({proto::sqlstate::kProtocolViolation, "the server sent a SCRAM message out of turn", "", ""});
		return;
	} else {
		const proto::ScramStep step =
		    code == proto::kAuthSaslContinue ? scram_->server_first(rest, text) : scram_->server_final(rest);
		if (step == proto::ScramStep::Done) {
			scram_.reset();
			return;
		}
		if (step != proto::ScramStep::Continue) {
			fail({proto::sqlstate::kInvalidPassword,
			      "password authentication failed for user \"" + group_.role() + "\"",
			      scram_->salt_changed() ? "The password was changed since the client logged in."
			                             : scram_->problem().message,
			      "Log in again with the present password."});
			return;
		}
		proto::Writer(out).begin('p').bytes(text).end();
	}
	send(out);
}

// Logged in, under these names. Whose names they are now, only the backend can tell: by the agent in it, or when asked.
void ServerLogin::ready()
{
	server_.settings().logged_in();
	if (proof_ == Proof::None)
		ask_for_proof();
	else if (proof_ == Proof::Told)
		proof_ = Proof::Done;
	else
		not_the_same();
}

void ServerLogin::ask_for_proof()
{
	proof_ = Proof::Asked;
	proof_asked_++;
	std::string out;
	proto::append_query(out, server_.on_node() ? kWhoOnNode : kWho);
	send(out);
}

bool ServerLogin::proves(std::string_view database, std::string_view role) const
{
	return database == std::to_string(group_.shared().database_oid) && role == std::to_string(group_.shared().role_oid);
}

// A node must be a standby of this very cluster: another system has other data, and one that was promoted goes ways of
// its own.
bool ServerLogin::proves_standby(std::string_view in_recovery, std::string_view system)
{
	if (system != std::to_string(group_.context().region().header()->system_identifier.load()))
		fail({proto::sqlstate::kInvalidAuthorization, "it is a server of another cluster",
		      "Its system identifier is " + std::string(system) + ".", "Correct host and port of the replica."});
	else if (in_recovery != "t")
		fail({proto::sqlstate::kInvalidAuthorization, "it is no standby", "", ""});
	return !failure_;
}

void ServerLogin::not_the_same()
{
	if (failure_)
		return;
	fail({proto::sqlstate::kInvalidAuthorization,
	      "role \"" + group_.role() + "\" or database \"" + group_.database() +
	          "\" is not the one that the client logged in to",
	      "It was dropped or renamed, and its name was given to another one.", "Connect again."});
}

void ServerLogin::proof_message(char type, std::string_view body)
{
	switch (type) {
	case 'D': {
		proto::Reader r(body);
		std::string_view column[4]; // none of them is NULL
		const uint16_t columns = server_.on_node() ? 4 : 2;
		if (r.u16() != columns)
			break;
		for (uint16_t i = 0; i < columns; i++)
			column[i] = r.bytes(r.u32());
		if (r.ok() && proves(column[0], column[1]) && (!server_.on_node() || proves_standby(column[2], column[3])))
			proof_ = Proof::Answered;
		break;
	}
	case 'S':
		parameter(body);
		break;
	case 'E': {
		// By a timeout that the role has by default: another time it may be quick enough.
		const proto::Error why = proto::read_error(body);
		const bool ended_early =
		    why.sqlstate == proto::sqlstate::kQueryCanceled || why.sqlstate == proto::sqlstate::kLockNotAvailable;
		if (ended_early && proof_asked_ < kMostProofs)
			proof_ = Proof::Canceled;
		else
			fail(why);
		break;
	}
	case 'Z':
		if (proof_ == Proof::Answered)
			proof_ = Proof::Done;
		else if (proof_ == Proof::Canceled)
			ask_for_proof();
		else
			not_the_same();
		break;
	default:
		break;
	}
}

void ServerLogin::fail(const proto::Error &why)
{
	failure_ = LoginFailure{why, control::ServerLimit::None, false, names_sequence_};
}

} // namespace pgpool::core
