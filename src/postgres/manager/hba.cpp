// pg_hba.conf and pg_ident.conf, asked for connections that are not this process's own.
//
// Owns the calls into the server's own parser and matcher of pg_hba.conf, with a Port made for the purpose, and
// the matching of user name maps. Must not know tenants, verifiers or the region. Rules with host names look
// the names up while they are checked, as in a backend; that can hold up other logins.
//
// A background worker is forked after the postmaster read the files, but the memory of the parsed lines was
// deleted right after the fork, while hba.c still points to it. So the lines are loaded anew before the first
// question, and see adopt_stale_contexts() for how hba.c is kept from deleting a foreign memory context.
#include <cstring>

#include <netinet/in.h>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "common/ip.h"
#include "executor/spi.h"
#include "libpq/hba.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres
{

namespace
{

bool loaded;
SPIPlanPtr plan_map;
MemoryContext stale_contexts;

// load_hba() deletes the context of the lines it replaces. The postmaster's is gone already; its header lies
// in the list of free contexts that aset.c keeps for reuse. Taking all of that list makes every such address
// a live context of ours, so the delete hits one that nobody else uses. The list holds at most 100, and this
// must come before anything else makes a context of that kind: first in the process.
void adopt_stale_contexts()
{
	stale_contexts = AllocSetContextCreate(TopMemoryContext, "pgpool stale contexts", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < 100; i++)
		(void)AllocSetContextCreate(stale_contexts, "pgpool stale context", ALLOCSET_SMALL_SIZES);
}

const char kMap[] =
    "SELECT 1 FROM pg_catalog.pg_ident_file_mappings m, "
    "LATERAL (SELECT CASE WHEN m.sys_name LIKE '/%' THEN regexp_match($2, substr(m.sys_name, 2)) "
    "  WHEN m.sys_name = $2 THEN ARRAY[''] END AS hit) s "
    "WHERE m.error IS NULL AND m.map_name = $1 AND s.hit IS NOT NULL AND "
    "(CASE WHEN m.sys_name LIKE '/%' AND position('\\1' IN m.pg_username) > 0 "
    "  THEN overlay(m.pg_username PLACING coalesce(s.hit[1], '') FROM position('\\1' IN m.pg_username) FOR 2) "
    "  ELSE m.pg_username END = $3 "
    " OR ($5 AND (m.pg_username = 'all' "
    "  OR (m.pg_username LIKE '/%' AND $3 ~ substr(m.pg_username, 2)) "
    "  OR (m.pg_username LIKE '+%' AND EXISTS (SELECT 1 FROM pg_catalog.pg_roles r "
    "      WHERE r.rolname = substr(m.pg_username, 2) AND pg_has_role($4, r.oid, 'MEMBER'))))))";

void address_for(const Peer &peer, SockAddr &to)
{
	if (peer.client && peer.client->address_length > 0) {
		to.salen = Min(peer.client->address_length, sizeof peer.client->address);
		memcpy(&to.addr, peer.client->address, to.salen);
	} else if (!peer.client && peer.loopback && strcmp(peer.loopback, "::1") == 0) {
		auto *a = reinterpret_cast<sockaddr_in6 *>(&to.addr);
		a->sin6_family = AF_INET6;
		a->sin6_addr = in6addr_loopback;
		to.salen = sizeof *a;
	} else if (!peer.client && peer.loopback) {
		auto *a = reinterpret_cast<sockaddr_in *>(&to.addr);
		a->sin_family = AF_INET;
		a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		to.salen = sizeof *a;
	} else {
		to.addr.ss_family = AF_UNIX;
		to.salen = sizeof(sa_family_t);
	}
}

} // namespace

void rules_start()
{
	adopt_stale_contexts();
}

void load_rules()
{
	if (PostmasterContext == nullptr)
		PostmasterContext = AllocSetContextCreate(TopMemoryContext, "Postmaster", ALLOCSET_DEFAULT_SIZES);
	if (!load_hba()) {
		ereport(LOG, (errmsg(loaded ? "pgpool keeps the former rules of pg_hba.conf"
		                            : "pgpool refuses all clients until pg_hba.conf is mended and reloaded")));
		return;
	}
	loaded = true;
	if (stale_contexts) {
		MemoryContextDelete(stale_contexts);
		stale_contexts = nullptr;
	}
}

bool rules_loaded()
{
	return loaded;
}

void numeric_address(const control::AuthLookup &client, char *to, size_t room)
{
	sockaddr_storage address;
	socklen_t length = Min(client.address_length, sizeof client.address);

	to[0] = '\0';
	if (length == 0)
		return;
	memset(&address, 0, sizeof address);
	memcpy(&address, client.address, length);
	if (address.ss_family == AF_UNIX)
		return;
	if (pg_getnameinfo_all(&address, static_cast<int>(length), to, static_cast<int>(room), nullptr, 0,
	                       NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		elog(ERROR, "could not print the address of a client");
	// the zone of a link-local address is no part of type inet
	if (char *zone = strchr(to, '%'))
		*zone = '\0';
}

Rule rule_for(const Peer &peer)
{
	Port *port = static_cast<Port *>(palloc0(sizeof(Port)));
	char host[NI_MAXHOST] = "";
	Rule r{};

	address_for(peer, port->raddr);
	port->sock = PGINVALID_SOCKET;
	port->user_name = pstrdup(peer.role);
	port->database_name = pstrdup(peer.database);
	if (peer.client) {
		const control::AuthLookup &c = *peer.client;

		numeric_address(c, host, sizeof host);
		port->ssl_in_use = c.tls != 0;
		port->peer_cert_valid = c.certificate_valid != 0;
		port->peer_cn = c.certificate_cn[0] ? pstrdup(c.certificate_cn) : nullptr;
		port->peer_dn = c.certificate_dn[0] ? pstrdup(c.certificate_dn) : nullptr;
	}
	port->remote_host = pstrdup(host[0] ? host : "[local]");
	port->remote_port = pstrdup("");
	hba_getauthmethod(port);
	r.method = port->hba->auth_method;
	r.line = port->hba->linenumber;
	r.client_certificate = port->hba->clientcert;
	r.by_dn = port->hba->clientcertname == clientCertDN;
	r.map = port->hba->usermap ? pstrdup(port->hba->usermap) : "";
	return r;
}

// The server's check_usermap() reads lines that it parsed in the postmaster, whose memory is gone (see above),
// and before 16 a reload would walk them. The view parses the file by itself.
bool map_admits(const char *map, const char *system_name, const char *role, Oid role_oid)
{
	const char *const texts[] = {system_name, role};
	Oid types[5] = {TEXTOID, TEXTOID, TEXTOID, OIDOID, BOOLOID};
	Datum values[5];

	if (*map == '\0')
		return strcmp(system_name, role) == 0;
	for (const char *text : texts)
		if (!pg_verify_mbstr(GetDatabaseEncoding(), text, static_cast<int>(strlen(text)), true))
			return false; // bytes that no line of the file has
	values[0] = CStringGetTextDatum(map);
	values[1] = CStringGetTextDatum(system_name);
	values[2] = CStringGetTextDatum(role);
	values[3] = ObjectIdGetDatum(role_oid);
	values[4] = BoolGetDatum(compat::kIdentRolePatterns && OidIsValid(role_oid));
	if (plan_map == nullptr) {
		SPIPlanPtr fresh = SPI_prepare(kMap, 5, types);
		if (fresh == nullptr || SPI_keepplan(fresh) != 0)
			elog(ERROR, "could not prepare the query on pg_ident_file_mappings");
		plan_map = fresh;
	}
	if (SPI_execute_plan(plan_map, values, nullptr, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_ident_file_mappings");
	return SPI_processed > 0;
}

} // namespace pgpool::postgres
