// A client's login after the proof: its place, what it teaches the pool, its settings, the greeting. See login.hpp.
//
// Owns the limits of clients, what a server is asked to know of the settings, and how it ends in Session::login_done().
#include "core/client/login.hpp"

#include <algorithm>
#include <utility>

#include "core/client/clients.hpp"
#include "core/client/session.hpp"
#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/pool/pools.hpp"
#include "core/server/server.hpp"
#include "proto/md5.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;
namespace sqlstate = proto::sqlstate;

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
		refuse();
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
	if (!lacks_server_key() || !derive(answer_->server_password))
		admitted();
}

// The server's password is stored, and its key is not known: neither by the client's proof nor from a former login.
bool Login::lacks_server_key()
{
	const Credential *have = session_.group()->credential();
	if (exchange_.has_key() || answer_->server_password[0] == '\0')
		return false;
	if (!have || !have->has_key || *have->password != answer_->server_password ||
	    *proto::SecretString(have->verifier->text()) != answer_->verifier)
		return true;
	exchange_.learn_key(*have->client_key);
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
	proto::assign(c->password, stored.empty() ? exchange_.password() : stored);
	const std::string_view verifier(answer_->verifier);
	if (proto::is_md5_verifier(verifier))
		proto::assign(c->md5, verifier);
	else if (proto::ScramVerifier::parse(verifier, c->verifier.edit()) && exchange_.has_key()) {
		c->has_key = true;
		c->client_key = exchange_.key();
	}
	// One who proved nothing must not take away what another one proved; the way to the server is always
	// the newest, as pg_hba.conf is now.
	const Credential *have = session_.group()->credential();
	if (have && c->proves_nothing()) {
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

// What the client's settings become, and how to greet it, a server says; once for all clients that start
// with the same settings. A client in session mode keeps that server.
void Login::prepare()
{
	stage_ = Stage::Preparing;
	PoolGroup *group = session_.group();
	if (group->greeting_holds() && !session_.session_mode()) {
		if (const Greeting::Started *known = group->greeting().started(settings_.key())) {
			session_.settings().adopt(settings_.with_name(known->params), known->idle_session_timeout);
			session_.settings().set_defaults(
			    settings_.defaults(session_.settings().now(), session_.context().params().empty()));
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
	const Params &base = session_.group()->greeting().base();
	if (!server->apply(settings_.wanted(base), true, settings_.ground(base))) {
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

// The server's settings are now the client's.
void Login::on_prepared()
{
	PoolGroup *group = session_.group();
	ServerConn *server = session_.server();
	session_.settings().adopt(*server);
	if (group->greeting_holds() && !server->stale())
		group->greeting().remember(settings_.key(),
		                           {StartSettings::without_name(session_.settings().now(), group->greeting().base()),
		                            server->agent().idle_session_timeout()});
	session_.settings().set_defaults(
	    settings_.defaults(session_.settings().now(), session_.context().params().empty()));
	server->set_defaults(session_.settings().defaults());
	greet();
}

void Login::greet()
{
	Context &context = session_.context();
	PoolGroup *group = session_.group();
	session_.clients().give_key(&session_, session_.session_mode() ? session_.server()->pid() : 0);
	std::string out = group->greeting().notices();
	const auto &items = session_.settings().now()->items;
	if (std::any_of(items.begin(), items.end(), [](const auto &p) { return is_tcp_setting(p->name); }))
		session_.on_tcp_settings(session_.settings().now());
	if (!answer_->in_hot_standby)
		group->greeting().leave_hot_standby();
	session_.on_hot_standby(group->greeting().in_hot_standby());
	for (const auto &f : group->greeting().fixed())
		proto::append_parameter(out, f.first, f.second);
	for (const auto &p : session_.settings().now()->items) {
		if (p->reported)
			proto::append_parameter(out, p->name, p->value);
	}
	proto::Writer(out).begin('K').u32(static_cast<uint32_t>(session_.key().pid())).bytes(session_.key().secret()).end();
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
