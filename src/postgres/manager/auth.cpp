// Authentication: one AuthLookup of a worker becomes one AuthAnswer.
//
// Owns the order of the checks and their texts: tenant, its network rules, pg_hba.conf, the role's verifier,
// then what PostgreSQL checks after authentication. What must not be told before a proof (unknown role, tenant
// or database) is answered by an exchange that is doomed. Must not know sockets or how the exchange is done.
#include <cstdarg>
#include <cstring>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "libpq/hba.h"
#include "libpq/libpq.h"
}

namespace pgpool::postgres
{

void put_error(control::ErrorText &to, const char *sqlstate, const char *format, ...)
{
	va_list args;

	strlcpy(to.sqlstate, sqlstate, sizeof to.sqlstate);
	va_start(args, format);
	vsnprintf(to.message, sizeof to.message, format, args);
	va_end(args);
	to.detail[0] = to.hint[0] = '\0';
}

namespace
{

using control::AuthAnswer;
using control::AuthLookup;
using control::AuthMethod;

// How a client came to its tenant.
enum class Way { Named, ByDatabase, Default };

struct Context {
	const AuthLookup &q;
	AuthAnswer &a;
	char address[NI_MAXHOST];        // "" = Unix socket
	char database[region::kNameLen]; // as the client gave it, no longer than PostgreSQL takes it for; "" = none
	Tenant tenant;
	bool tenant_known;
	Way way;
	char wanted[region::kNameLen]; // the tenant's name as the client gave it
};

// The first error after authentication wins: the checks come in PostgreSQL's order.
bool free_of_error(const Context &c)
{
	return c.a.error.sqlstate[0] == '\0';
}

void refuse(Context &c)
{
	c.a.method = AuthMethod::Refuse;
}

bool exchanges_proof(const AuthAnswer &a)
{
	return a.method == AuthMethod::Password || a.method == AuthMethod::Md5 || a.method == AuthMethod::Scram;
}

const char *given_database(const Context &c)
{
	return c.database[0] ? c.database : c.a.role;
}

// "role.tenant" is split at the last dot, unless it is the name of a role and no such tenant exists.
bool split_user(Context &c)
{
	const char *dot = strrchr(c.q.user, '.');

	if (dot == nullptr || dot == c.q.user || dot[1] == '\0')
		return false;
	c.tenant_known = tenant_by_name(dot + 1, c.address, c.tenant);
	if (!c.tenant_known && OidIsValid(role_by_name(c.a.role).oid))
		return false;
	strlcpy(c.wanted, dot + 1, sizeof c.wanted);
	strlcpy(c.a.role, c.q.user, Min(sizeof c.a.role, static_cast<size_t>(dot - c.q.user + 1)));
	if (strcmp(c.database, c.q.user) == 0)
		c.database[0] = '\0'; // libpq's default, where PostgreSQL's is the role's name
	return true;
}

void find_tenant(Context &c)
{
	strlcpy(c.a.role, c.q.user, sizeof c.a.role);
	c.way = Way::Named;
	if (c.q.tenant[0]) {
		strlcpy(c.wanted, c.q.tenant, sizeof c.wanted);
		c.tenant_known = tenant_by_name(c.q.tenant, c.address, c.tenant);
		return;
	}
	if (split_user(c))
		return;
	c.tenant_known = c.q.sni[0] && tenant_by_sni(c.q.sni, c.address, c.tenant);
	if (c.tenant_known)
		return;
	// the rules of a database are those of the tenant that owns it, however a client gets there
	c.way = Way::ByDatabase;
	c.tenant_known = tenant_by_database(given_database(c), c.address, c.tenant);
	if (c.tenant_known)
		return;
	c.way = Way::Default;
	strlcpy(c.wanted, "default", sizeof c.wanted);
	c.tenant_known = tenant_by_name("default", c.address, c.tenant);
}

// A tenant with a database of its own: a client that named none, or some other name that drivers put there by default,
// gets it. One without serves those that no other tenant owns.
bool find_database(Context &c)
{
	const char *given = given_database(c);

	if (!c.tenant_known || c.tenant.database[0] == '\0') {
		Tenant owner;
		strlcpy(c.a.database, given, sizeof c.a.database);
		return !c.tenant_known || c.way == Way::Default || !tenant_by_database(given, c.address, owner);
	}
	strlcpy(c.a.database, c.tenant.database, sizeof c.a.database);
	// Drivers that are given none say the user's name, as they know it: with the tenant, or as the role.
	return strcmp(given, c.tenant.database) == 0 || strncmp(given, c.q.user, sizeof c.database - 1) == 0 ||
	       strcmp(given, c.a.role) == 0 || strcmp(given, c.tenant.name) == 0;
}

// As any rule of a tenant, told after the proof: before, it would tell that there is such a tenant.
void check_network(Context &c)
{
	if (!c.tenant.address_allowed) {
		put_error(c.a.error, "28000", "address %s is not allowed for tenant \"%s\"", c.address, c.tenant.name);
		strlcpy(c.a.error.hint, "The tenant's allow_list names the networks that may connect.", sizeof c.a.error.hint);
	} else if (c.tenant.require_tls && !c.q.tls && c.address[0]) {
		put_error(c.a.error, "28000", "tenant \"%s\" requires TLS", c.tenant.name);
		strlcpy(c.a.error.hint, "Connect with sslmode=require or stricter.", sizeof c.a.error.hint);
	}
}

// With the database as the client gave it: which one a tenant has is not for strangers.
void rejected(Context &c, bool by_line)
{
	put_error(c.a.error, "28000", "%s host \"%s\", user \"%s\", database \"%s\", %s",
	          by_line ? "pg_hba.conf rejects connection for" : "no pg_hba.conf entry for",
	          c.address[0] ? c.address : "[local]", c.a.role, given_database(c),
	          c.q.tls ? "SSL encryption" : "no encryption");
	if (strcmp(given_database(c), c.a.database) != 0)
		snprintf(c.a.log_detail, sizeof c.a.log_detail, "It was for database \"%s\".", c.a.database);
}

void not_supported(Context &c, const Rule &rule)
{
	put_error(c.a.error, "0A000", "authentication method \"%s\" is not supported by pgpool", hba_authname(rule.method));
	snprintf(c.a.error.detail, sizeof c.a.error.detail, "Line %d of pg_hba.conf asks for it.", rule.line);
	strlcpy(c.a.error.hint,
	        rule.method == uaPeer
	            ? "On pgpool's Unix socket use scram-sha-256 or trust, or connect to the server's own socket."
	            : "pgpool supports trust, reject, scram-sha-256, md5, password and cert.",
	        sizeof c.a.error.hint);
}

// clientcert=... of the line, and the method cert. False: c.a.error says why.
bool certificate_passes(Context &c, const Rule &rule)
{
	bool cert = rule.method == uaCert;

	if (rule.client_certificate == clientCertOff && !cert)
		return true;
	if (!c.q.certificate_valid) {
		put_error(c.a.error, "28000", "connection requires a valid client certificate");
		if (server_setting("ssl_ca_file")[0] == '\0')
			strlcpy(c.a.error.hint, "Set ssl_ca_file, so that client certificates can be verified.",
			        sizeof c.a.error.hint);
		return false;
	}
	if (rule.client_certificate != clientCertFull && !cert)
		return true;
	const char *name = rule.by_dn ? c.q.certificate_dn : c.q.certificate_cn;
	if (name[0] && map_admits(rule.map, name, c.a.role, role_by_name(c.a.role).oid))
		return true;
	if (name[0] == '\0' && c.q.certificate_name_long)
		snprintf(c.a.log_detail, sizeof c.a.log_detail,
		         "Line %d of pg_hba.conf: the name in the certificate is too long.", rule.line);
	else
		snprintf(c.a.log_detail, sizeof c.a.log_detail,
		         "Line %d of pg_hba.conf: certificate name \"%s\" does not match the role.", rule.line, name);
	// the server looks at the name after the exchange, and then calls it a failure of that
	if (exchanges_proof(c.a)) {
		c.a.doomed = 1;
		return true;
	}
	put_error(c.a.error, "28000",
	          cert ? "certificate authentication failed for user \"%s\""
	               : "\"trust\" authentication failed for user \"%s\"",
	          c.a.role);
	return false;
}

// Sets method and verifier; false if the client is refused, with the error set.
bool choose_method(Context &c)
{
	Rule rule = rule_for({c.a.role, c.a.database, &c.q, nullptr});

	switch (rule.method) {
	case uaReject:
	case uaImplicitReject:
		rejected(c, rule.method == uaReject);
		return false;
	case uaTrust:
		c.a.method = AuthMethod::Trust;
		break;
	case uaCert:
		c.a.method = AuthMethod::Certificate;
		break;
	case uaPassword:
		c.a.method = AuthMethod::Password;
		choose_verifier(c.a.role, true, true, c.a);
		break;
	case uaMD5:
	case uaSCRAM:
		choose_verifier(c.a.role, rule.method == uaMD5, false, c.a);
		break;
	default:
		not_supported(c, rule);
		return false;
	}
	return certificate_passes(c, rule);
}

void unknown_tenant(Context &c)
{
	if (exchanges_proof(c.a)) {
		c.a.doomed = 1;
		snprintf(c.a.log_detail, sizeof c.a.log_detail, "Tenant \"%s\" does not exist.", c.wanted);
		return;
	}
	put_error(c.a.error, "3D000", "tenant \"%s\" does not exist", c.wanted);
	strlcpy(c.a.error.hint, "Tenants are made with pgpool.create_tenant().", sizeof c.a.error.hint);
	refuse(c);
}

// Several tenants own the database, each with rules of its own, and the client named none.
void check_ownership(Context &c)
{
	if (!free_of_error(c) || c.way != Way::ByDatabase || !c.tenant.one_of_several)
		return;
	put_error(c.a.error, "28000", "database \"%s\" belongs to several tenants", c.a.database);
	strlcpy(c.a.error.detail, "The client named none of them.", sizeof c.a.error.detail);
	strlcpy(c.a.error.hint, "Log in as \"role.tenant\", or give the tenant as startup option pgpool.tenant.",
	        sizeof c.a.error.hint);
}

void check_tenant(Context &c, const TenantUser *user)
{
	if (free_of_error(c) && c.tenant.banned) {
		put_error(c.a.error, "28000", "tenant \"%s\" is banned", c.tenant.name);
		bool for_ever = strcmp(c.tenant.banned_until, "infinity") == 0;
		snprintf(c.a.error.detail, sizeof c.a.error.detail, "Reason: %s. Until: %s.",
		         c.tenant.ban_reason[0] ? c.tenant.ban_reason : "none given",
		         for_ever ? "it is unbanned" : c.tenant.banned_until);
	}
	if (free_of_error(c) && c.tenant.only_listed_users && user == nullptr) {
		put_error(c.a.error, "28000", "role \"%s\" is not admitted to tenant \"%s\"", c.a.role, c.tenant.name);
		strlcpy(c.a.error.hint, "The tenant admits listed users only; they are added with pgpool.set_user().",
		        sizeof c.a.error.hint);
	}
}

void check_role(Context &c, const Role &role)
{
	if (!role.can_login)
		put_error(c.a.error, "28000", "role \"%s\" is not permitted to log in", c.a.role);
	else if (role.connection_limit == 0 && !role.superuser)
		put_error(c.a.error, "53300", "too many connections for role \"%s\"", c.a.role);
}

void check_database(Context &c, const Role &role, const Database &database, bool fits_tenant)
{
	if (!free_of_error(c))
		return;
	if (!fits_tenant) {
		put_error(c.a.error, "3D000", "tenant \"%s\" has no database \"%s\"", c.tenant.name, given_database(c));
		if (c.tenant.database[0])
			snprintf(c.a.error.detail, sizeof c.a.error.detail, "The database of the tenant is \"%s\".",
			         c.tenant.database);
		else
			strlcpy(c.a.error.detail, "It belongs to another tenant.", sizeof c.a.error.detail);
	} else if (!OidIsValid(database.oid))
		put_error(c.a.error, "3D000", "database \"%s\" does not exist", c.a.database);
	else if (database.connection_limit == -2) {
		put_error(c.a.error, "55000", "cannot connect to invalid database \"%s\"", c.a.database);
		strlcpy(c.a.error.hint, "Use DROP DATABASE to drop invalid databases.", sizeof c.a.error.hint);
	} else if (!database.allows_connections)
		put_error(c.a.error, "55000", "database \"%s\" is not currently accepting connections", c.a.database);
	else if (!compat::may_connect(database.oid, role.oid)) {
		put_error(c.a.error, "42501", "permission denied for database \"%s\"", c.a.database);
		strlcpy(c.a.error.detail, "User does not have CONNECT privilege.", sizeof c.a.error.detail);
	} else if (database.connection_limit == 0 && !role.superuser)
		put_error(c.a.error, "53300", "too many connections for database \"%s\"", c.a.database);
}

void after_authentication(Context &c, bool fits_tenant)
{
	Role role = role_by_name(c.a.role);

	if (!OidIsValid(role.oid)) {
		if (!exchanges_proof(c.a)) {
			put_error(c.a.error, "28000", "role \"%s\" does not exist", c.a.role);
			refuse(c);
		}
		return; // doomed already
	}
	Database database = database_by_name(c.a.database);
	TenantUser user;
	bool listed = tenant_user(c.tenant.id, c.a.role, user);

	c.a.role_oid = role.oid;
	c.a.database_oid = database.oid;
	// The first error stands: whose the database is and from where the client comes, what PostgreSQL would say in its
	// order, the other rules of the tenant.
	check_ownership(c);
	if (free_of_error(c))
		check_network(c);
	if (free_of_error(c))
		check_role(c, role);
	check_database(c, role, database, fits_tenant);
	check_tenant(c, listed ? &user : nullptr);
	if (!c.a.doomed && free_of_error(c) && listed && user.server_password[0]) {
		strlcpy(c.a.server_password, user.server_password, sizeof c.a.server_password);
		// a client by trust or certificate has no exchange, yet the worker needs salt and iterations for its own
		if (!exchanges_proof(c.a))
			copy_verifier(c.a.role, c.a);
	}
	explicit_bzero(user.server_password, sizeof user.server_password);
	if (c.a.doomed || !free_of_error(c))
		return;
	choose_route(c.a);
	// strangers that know names must not fill the places: without an exchange there is nothing to wait for
	bool may_take = c.q.proved || !exchanges_proof(c.a);
	if (!assign_slots(c.tenant, listed ? &user : nullptr, role, database, may_take, c.a)) {
		put_error(c.a.error, "53300", "all places for tenants and pools of pgpool are taken");
		snprintf(c.a.error.detail, sizeof c.a.error.detail, "pgpool.max_tenants is %d, pgpool.max_pools is %d.",
		         gucs.max_tenants, gucs.max_pools);
		strlcpy(c.a.error.hint, "Raise the one that is too low and restart.", sizeof c.a.error.hint);
	}
}

} // namespace

void answer_lookup(const AuthLookup &q, AuthAnswer &a)
{
	Context c{q, a, "", "", {}, false, Way::Named, ""};

	a.tenant_slot = a.pool_slot = UINT32_MAX;
	a.method = AuthMethod::Refuse;
	strlcpy(a.role, q.user, sizeof a.role);
	strlcpy(c.database, q.database, sizeof c.database);
	if (!extension_present()) {
		put_error(a.error, "57P03", "extension pgpool is not created in database \"%s\"", gucs.database);
		strlcpy(a.error.hint, "Run CREATE EXTENSION pgpool in that database.", sizeof a.error.hint);
		return;
	}
	if (!rules_loaded()) {
		put_error(a.error, "57P03", "pgpool could not load pg_hba.conf");
		strlcpy(a.error.hint, "See the server log, mend the file and reload.", sizeof a.error.hint);
		return;
	}
	numeric_address(q, c.address, sizeof c.address);
	find_tenant(c);
	bool fits_tenant = find_database(c);
	if (!choose_method(c)) {
		refuse(c);
		return;
	}
	if (!c.tenant_known)
		unknown_tenant(c);
	else
		after_authentication(c, fits_tenant);
}

} // namespace pgpool::postgres
