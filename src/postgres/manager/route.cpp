// The server route: how a worker can log in to the server as a role, by what the client proved.
//
// Owns the choice between Unix socket and TCP by asking pg_hba.conf for the worker's own connection. Nothing
// is sent that the client (or the stored password of the tenant's role) did not entitle to: without a proof
// there is no route, and the error says which line is in the way. Must not know sockets or slots.
#include <cstring>

#include <pwd.h>
#include <unistd.h>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "libpq/crypt.h"
#include "libpq/hba.h"
}

namespace pgpool::postgres
{

namespace
{

using control::AuthAnswer;
using control::AuthMethod;
using control::ServerMethod;

// What the client's exchange leaves in the worker's hands.
bool client_proved(const AuthAnswer &a, PasswordType type)
{
	switch (a.method) {
	case AuthMethod::Password:
		return a.verifier[0] && get_password_type(a.verifier) == type;
	case AuthMethod::Scram:
		return type == PASSWORD_TYPE_SCRAM_SHA_256;
	case AuthMethod::Md5:
		return type == PASSWORD_TYPE_MD5;
	default:
		return false;
	}
}

bool method_for(const AuthAnswer &a, const Rule &rule, bool by_unix, ServerMethod &to)
{
	const char *unused;
	bool stored = a.server_password[0] != '\0';
	char *secret;
	PasswordType type;

	switch (rule.method) {
	case uaTrust:
		to = ServerMethod::Trust;
		return true;
	case uaPassword:
		to = ServerMethod::Password;
		return stored;
	case uaMD5:
	case uaSCRAM:
		secret = get_role_password(a.role, &unused);
		if (secret == nullptr)
			return false;
		type = get_password_type(secret);
		explicit_bzero(secret, strlen(secret));
		if (rule.method == uaSCRAM && type != PASSWORD_TYPE_SCRAM_SHA_256)
			return false;
		to = type == PASSWORD_TYPE_MD5 ? ServerMethod::Md5 : ServerMethod::Scram;
		return stored || client_proved(a, type);
	case uaPeer: {
		const passwd *me = by_unix ? getpwuid(geteuid()) : nullptr;
		to = ServerMethod::Peer;
		return me != nullptr && map_admits(rule.map, me->pw_name, a.role, a.role_oid);
	}
	default:
		return false;
	}
}

const char *describe(const Rule *rule)
{
	if (rule == nullptr)
		return "the server does not listen there";
	if (rule->method == uaImplicitReject)
		return "no line matches";
	return psprintf("line %d, method %s", rule->line, hba_authname(rule->method));
}

const char *remedy(const AuthAnswer &a)
{
	if (a.method == AuthMethod::Md5 || client_proved(a, PASSWORD_TYPE_MD5))
		return "Set the role's password anew with password_encryption = 'scram-sha-256', or add \"local all all md5\" "
		       "to pg_hba.conf before the line that matches, then reload.";
	if (client_proved(a, PASSWORD_TYPE_SCRAM_SHA_256))
		return "Add \"local all all scram-sha-256\" to pg_hba.conf before the line that matches, then reload.";
	return "The client sent no password: map the server's operating system user to the role (\"peer map=...\"), "
	       "or store one with pgpool.set_user(..., server_password => ...).";
}

} // namespace

void choose_route(AuthAnswer &a)
{
	const region::Settings &s = current_settings();
	Rule by_unix{}, by_tcp{};

	a.route = control::ServerRoute::None;
	if (s.server_socket_directory[0]) {
		by_unix = rule_for({a.role, a.database, nullptr, nullptr});
		if (method_for(a, by_unix, true, a.route_method)) {
			a.route = control::ServerRoute::Unix;
			return;
		}
	}
	if (s.server_loopback[0]) {
		by_tcp = rule_for({a.role, a.database, nullptr, s.server_loopback});
		if (method_for(a, by_tcp, false, a.route_method)) {
			a.route = control::ServerRoute::Tcp;
			return;
		}
	}
	put_error(a.route_error, "28000", "pg_hba.conf has no way for pgpool to log in as role \"%s\" to database \"%s\"",
	          a.role, a.database);
	snprintf(a.route_error.detail, sizeof a.route_error.detail, "By Unix socket: %s. By TCP from %s: %s.",
	         describe(s.server_socket_directory[0] ? &by_unix : nullptr),
	         s.server_loopback[0] ? s.server_loopback : "this host",
	         describe(s.server_loopback[0] ? &by_tcp : nullptr));
	strlcpy(a.route_error.hint, remedy(a), sizeof a.route_error.hint);
}

} // namespace pgpool::postgres
