// See login.hpp.
#include "core/client/login.hpp"

#include <algorithm>
#include <cstring>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/pool/pools.hpp"
#include "core/client/questions.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "core/client/session.hpp"
#include "proto/bytes.hpp"
#include "proto/md5.hpp"
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

proto::Error to_error(const control::ErrorText &e)
{
	return {e.sqlstate, e.message, e.detail, e.hint};
}

} // namespace

Login::Login(Session &session) : session_(session), began_(session.context().now()) {}

Login::~Login()
{
	if (asked_)
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
	session_.minor =
	    static_cast<uint8_t>(std::min<uint16_t>(startup_.minor == 1 ? 0 : startup_.minor, proto::kNewestMinor));
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
	asked_ = true;
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
	asked_ = false;
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
		log_refusal();
		on_failed(to_error(answer_->error));
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
		log_refusal();
		on_failed(to_error(answer_->error));
		return;
	case AuthMethod::Trust:
	case AuthMethod::Certificate:
		if (!out.empty())
			session_.stream()->queue(out.data(), out.size());
		authenticated();
		return;
	case AuthMethod::Password:
		expect_ = Expect::Password;
		proto::append_authentication(out, proto::kAuthCleartext);
		break;
	case AuthMethod::Md5: {
		expect_ = Expect::Md5;
		session_.context().outside().random(md5_salt_, sizeof(md5_salt_));
		proto::append_authentication(out, proto::kAuthMd5, {md5_salt_, sizeof(md5_salt_)});
		break;
	}
	case AuthMethod::Scram: {
		proto::Secret<proto::ScramVerifier> verifier;
		if (!proto::ScramVerifier::parse(answer_->verifier, verifier.edit())) {
			fail(sqlstate::kInternal, "the manager sent a verifier that cannot be read");
			return;
		}
		const TlsInfo *tls = session_.stream()->tls();
		const std::string binding = tls ? tls->binding : std::string();
		scram_ = std::make_unique<proto::ScramServer>(*verifier, answer_->doomed != 0, binding);
		expect_ = Expect::SaslInitial;
		proto::append_authentication(out, proto::kAuthSasl, proto::ScramServer::mechanisms(!binding.empty()));
		break;
	}
	}
	session_.stream()->queue(out.data(), out.size());
	session_.stream()->flush();
}

// As PostgreSQL logs it.
void Login::log_refusal()
{
	session_.context().log_stranger(*session_.stream(), answer_->error.message +
	                                                        std::string(answer_->log_detail[0] ? ": " : "") +
	                                                        answer_->log_detail);
}

// ---- after the proof

// The client hears at once that its proof was right, as from PostgreSQL: before that, libpq takes a refusal for one of
// TLS and comes again in clear text (sslmode=prefer).
void Login::authenticated()
{
	if (!proved_) {
		std::string out;
		proto::append_authentication(out, proto::kAuthOk);
		session_.stream()->queue(out.data(), out.size());
		session_.stream()->flush();
	}
	// The database of a physical replication is not one: libpq's tools name "replication".
	if (answer_->error.sqlstate[0] != '\0' && !startup_.replication) {
		log_refusal();
		on_failed(to_error(answer_->error));
		return;
	}
	if (!startup_.refusal.sqlstate.empty()) {
		on_failed(startup_.refusal);
		return;
	}
	Context &context = session_.context();
	if (answer_->pool_slot == UINT32_MAX && !proved_) {
		proved_ = std::move(answer_);
		ask();
		return;
	}
	PoolGroup *group = session_.clients().pools().group(answer_->pool_slot, answer_->pool_generation);
	const region::TenantSlot &tenant = context.region().tenant(answer_->tenant_slot);
	if (!group || tenant.generation.load() != answer_->tenant_generation) {
		fail(sqlstate::kCannotConnectNow, "the pool was given to another role meanwhile", "", "Try again.");
		return;
	}
	session_.set_group(group, session_.session_port() || group->settings().pool_mode.load(std::memory_order_relaxed) ==
	                                                         region::PoolMode::Session);
	if (!within_limits())
		return;
	proto::Secret<proto::ScramVerifier> verifier;
	if (lacks_server_key() && proto::ScramVerifier::parse(answer_->verifier, verifier.edit()))
		derive(answer_->server_password, *verifier);
	else
		admitted();
}

// The server's password is stored, and its key is not known: neither by the client's proof nor from a former login.
bool Login::lacks_server_key()
{
	const Credential *have = session_.group()->credential();
	if (has_key_ || answer_->server_password[0] == '\0')
		return false;
	if (!have || !have->has_key || *have->password != answer_->server_password ||
	    *proto::SecretString(have->verifier->text()) != answer_->verifier)
		return true;
	has_key_ = true;
	client_key_ = have->client_key;
	return false;
}

void Login::admitted()
{
	learn_credential();
	prepare();
}

// max_clients of the tenant and of the role, over all workers: add first, then look (layout.hpp).
bool Login::within_limits()
{
	Context &context = session_.context();
	const region::View &region = context.region();
	const region::TenantSlot &tenant = region.tenant(answer_->tenant_slot);
	session_.count_in_tenant(answer_->tenant_slot);
	const int64_t in_tenant = region.tenant_clients(answer_->tenant_slot);
	const int64_t in_pool = region.pool_gauges(answer_->pool_slot).clients;
	const int32_t tenant_limit = tenant.max_clients.load();
	const int32_t role_limit = session_.group()->settings().max_clients.load();
	const bool by_role = role_limit > 0 && in_pool > role_limit;
	if (!by_role && (tenant_limit <= 0 || in_tenant <= tenant_limit))
		return true;
	bump(context.slot().refused);
	bump(region.tenant_counters(answer_->tenant_slot, context.worker()).refused);
	fail(sqlstate::kTooManyConnections,
	     std::string("too many clients ") + (by_role ? "of role \"" + session_.group()->role() + "\" " : "") +
	         "in tenant \"" + tenant.name + "\"",
	     std::string("max_clients of the ") + (by_role ? "role" : "tenant") + " is " +
	         std::to_string(by_role ? role_limit : tenant_limit) + ".",
	     by_role ? "Raise it with pgpool.set_user(..., max_clients => ...)."
	             : "Raise it with pgpool.alter_tenant(..., max_clients => ...).");
	return false;
}

void Login::learn_credential()
{
	auto c = std::make_unique<Credential>();
	c->route = answer_->route;
	c->method = answer_->route_method;
	c->route_error = to_error(answer_->route_error);
	const std::string_view stored(answer_->server_password); // two views: a string of both would be a copy that stays
	proto::assign(c->password, stored.empty() ? std::string_view(*password_) : stored);
	const std::string_view verifier(answer_->verifier);
	if (proto::is_md5_verifier(verifier))
		proto::assign(c->md5, verifier);
	else if (proto::ScramVerifier::parse(verifier, c->verifier.edit()) && has_key_) {
		c->has_key = true;
		c->client_key = client_key_;
	}
	// One who proved nothing must not take away what another one proved; the way to the server is always
	// the newest, as pg_hba.conf is now.
	const Credential *have = session_.group()->credential();
	if (have && !c->has_key && c->md5->empty() && c->password->empty()) {
		c->has_key = have->has_key;
		c->client_key = have->client_key;
		c->verifier = have->verifier;
		c->md5 = have->md5;
		c->password = have->password;
		if (c->route == control::ServerRoute::None) {
			c->route = have->route;
			c->method = have->method;
		}
	}
	session_.group()->learn(std::move(c));
}

std::string Login::startup_key() const
{
	std::string key;
	for (const proto::Setting &s : startup_.settings)
		key += s.first + '=' + s.second + '\0';
	for (const proto::Setting &s : startup_.overridden)
		key += '<' + s.first + '=' + s.second + '\0';
	return key;
}

// What the client's settings become, and how to greet it, a server says; once for all clients that start
// with the same settings. A client in session mode keeps that server.
void Login::prepare()
{
	stage_ = Stage::Preparing;
	PoolGroup *group = session_.group();
	if (group->greeting_holds() && !session_.session_mode()) {
		if (const Greeting::Started *known = group->greeting().started(startup_key())) {
			session_.adopt(known->params, known->idle_session_timeout);
			if (startup_.has_application_name)
				session_.params() = session_.params().with("application_name", startup_.application_name, true);
			remember_defaults();
			greet();
			return;
		}
	}
	if (group->dead()) {
		on_failed(group->death());
		return;
	}
	// Whoever waits for a server at login hears on_assigned() also when there is one at once.
	if (ServerConn *server = session_.pool().acquire(&session_))
		session_.on_assigned(server);
}

void Login::on_assigned()
{
	ServerConn *server = session_.server();
	if (!server->apply(wanted(), true, ground())) {
		server->flush();
		return;
	}
	Session &session = session_; // this object may end here
	on_prepared();
	if (session.server())
		session.server()->try_release();
}

void Login::on_settings(bool /*all*/)
{
	on_prepared();
}

void Login::on_lost(Loss loss, const proto::Error *why)
{
	session_.leave_lost_server(false);
	if (session_.dead())
		return;
	if (loss != Loss::Unused)
		on_failed(
		    why ? *why
		        : proto::Error{sqlstate::kConnectionFailure, "the server closed the connection unexpectedly", "", ""});
	else if (ServerConn *server = session_.pool().acquire(&session_))
		session_.on_assigned(server);
}

Standing Login::standing() const
{
	Standing s;
	s.to_be_served = false; // a cancel means what runs for the login
	return s;
}

bool Login::cut_off(int64_t now)
{
	return session_.cut_off(now);
}

bool Login::on_out_of_memory()
{
	return session_.on_out_of_memory();
}

StatementRewriter *Login::statements()
{
	return session_.statements();
}

void Login::on_hot_standby(bool on)
{
	session_.on_hot_standby(on);
}

void Login::on_tcp_settings(const Params &now)
{
	session_.on_tcp_settings(now);
}

// The settings that the client asked for, raw.
const Params &Login::wanted()
{
	if (!wanted_) {
		wanted_ = session_.group()->greeting().base();
		for (const proto::Setting &s : startup_.settings)
			wanted_ = wanted_.with(s.first, s.second, false);
		if (startup_.has_application_name)
			wanted_ = wanted_.with("application_name", startup_.application_name, true);
	}
	return wanted_;
}

// SQL for settings whose value changes a part of the present one.
std::string Login::ground() const
{
	const Params &base = session_.group()->greeting().base();
	const Param *style = base ? base->find("DateStyle") : nullptr;
	std::string sql;
	auto set = [&](std::string_view name, std::string_view value) {
		sql += "SELECT pg_catalog.set_config(";
		proto::append_literal(sql, name);
		sql += ',';
		proto::append_literal(sql, value);
		sql += ",false);";
	};
	for (const proto::Setting &s : startup_.settings) {
		const bool is_style = style && proto::equal_names(s.first, style->name);
		if (is_style)
			set(style->name, style->value);
		bool replaced = false;
		for (const proto::Setting &o : startup_.overridden) {
			if (!proto::equal_names(o.first, s.first))
				continue;
			set(o.first, o.second);
			replaced = true;
		}
		if (is_style || replaced)
			set(s.first, s.second);
	}
	return sql;
}

// The server's settings are now the client's.
void Login::on_prepared()
{
	PoolGroup *group = session_.group();
	session_.adopt(*session_.server());
	if (group->greeting_holds() && !session_.server()->stale())
		remember_startup();
	remember_defaults();
	session_.server()->set_defaults(session_.defaults());
	greet();
}

// But for application_name, which is another one for each of many clients.
void Login::remember_startup()
{
	PoolGroup *group = session_.group();
	Params params = session_.params();
	if (const Param *p = group->greeting().base()->find("application_name"))
		params = params.with(p->name, p->value, true, p->unknown, p->preset);
	group->greeting().remember(startup_key(), {params, session_.server()->agent().idle_session_timeout()});
}

// In the server's spelling.
void Login::remember_defaults()
{
	Params defaults = session_.context().params().empty();
	auto add = [&](const std::string &name) {
		if (const Param *p = session_.params()->find(name))
			defaults = defaults.with(p->name, p->value, false);
	};
	for (const proto::Setting &s : startup_.settings)
		add(s.first);
	if (startup_.has_application_name)
		add("application_name");
	session_.defaults() = defaults;
}

void Login::greet()
{
	Context &context = session_.context();
	PoolGroup *group = session_.group();
	session_.choose_key(session_.session_mode() ? session_.server()->pid() : 0);
	std::string out = group->greeting().notices();
	const auto &items = session_.params()->items;
	if (std::any_of(items.begin(), items.end(), [](const auto &p) { return is_tcp_setting(p->name); }))
		session_.on_tcp_settings(session_.params());
	if (!answer_->in_hot_standby)
		group->greeting().leave_hot_standby();
	session_.on_hot_standby(group->greeting().in_hot_standby());
	for (const auto &f : group->greeting().fixed())
		proto::append_parameter(out, f.first, f.second);
	for (const auto &p : session_.params()->items) {
		if (p->reported)
			proto::append_parameter(out, p->name, p->value);
	}
	proto::Writer(out).begin('K').u32(static_cast<uint32_t>(session_.key_pid())).bytes(session_.key()).end();
	proto::append_ready(out, 'I');
	session_.stream()->queue(out.data(), out.size());
	session_.stream()->flush();
	stage_ = Stage::Over;
	bump(context.slot().logins);
	bump(context.region().tenant_counters(answer_->tenant_slot, context.worker()).logins);
	if (context.settings().log_connections)
		context.outside().log("client of role \"" + group->role() + "\" logged in to database \"" + group->database() +
		                      "\" of tenant \"" + group->tenant() + "\"");
	// Queries that came early are served now; this object ends here.
	const proto::SecretString early = std::move(in_);
	Session &session = session_;
	session.login_done();
	if (!early->empty())
		session.on_data(early->data(), early->size());
	session.end_if_ended();
}

} // namespace pgpool::core
