// The manager's parts, as its main loop sees them.
//
// Owns the declarations shared by manager*.cpp, auth.cpp, hba.cpp, route.cpp, tenants.cpp and slots.cpp, which
// run in the manager alone, in one thread; all but links and listeners need a transaction with a snapshot.
#pragma once

#include "postgres/base/shared.hpp"

extern "C" {
#include "libpq/libpq-be.h"
}

namespace pgpool::postgres
{

// ---- tenants.cpp: rows of the configuration tables -----------------------------------------------

struct Limits { // -1 = not set here; times in milliseconds
#define PGPOOL_LIMIT_VALUE(type, name, ...) int64 name;
	PGPOOL_LIMITS(PGPOOL_LIMIT_VALUE)
#undef PGPOOL_LIMIT_VALUE
};

struct Tenant {
	int64 id;
	char name[region::kNameLen];
	char database[region::kNameLen]; // "" = the client's choice
	Limits limits;
	int64 nodes; // bits of the nodes that it may read from, -1 = not set here
	bool require_tls, only_listed_users, banned, address_allowed;
	bool one_of_several; // that were asked for
	char banned_until[64];
	char ban_reason[region::kTextLen];
};

struct TenantUser {
	Limits limits;
	int64 nodes;
	char server_password[256]; // "" = none; whoever has one wipes it
};

bool extension_present();
// `address` is numeric or "" for a Unix socket; it decides address_allowed alone.
bool tenant_by_name(const char *name, const char *address, Tenant &to);
bool tenant_by_database(const char *database, const char *address, Tenant &to);
bool tenant_by_sni(const char *sni, const char *address, Tenant &to);
bool tenant_by_id(int64 id, Tenant &to);
bool tenant_user(int64 tenant, const char *role, TenantUser &to);

struct Node {
	int slot;
	region::NodeNames names; // with zeros behind them
	int port, weight, max_lag_ms;
	int64 max_lag_bytes;
	region::SslMode sslmode;
};
int node_rows(Node (&to)[region::kMaxNodes]); // how many there are

// ---- roles.cpp: what the catalog says of role and database ---------------------------------------

struct Role {
	Oid oid; // InvalidOid = there is none
	bool can_login, superuser;
	int connection_limit;
};

struct Database {
	Oid oid, owner;
	bool allows_connections;
	int connection_limit; // -1 = none, -2 = a broken DROP DATABASE
};

Role role_by_name(const char *name);
Role role_by_oid(Oid oid, char *name); // name has kNameLen bytes
Database database_by_name(const char *name);
Database database_by_oid(Oid oid, char *name);
// The verifier to present: the role's, or a mock of the same form with doomed set.
void choose_verifier(const char *role, bool md5_allowed, bool any_kind, control::AuthAnswer &a);
// The role's own verifier without an exchange, for a login to the server with a stored password.
void copy_verifier(const char *role, control::AuthAnswer &a);

// ---- digest.cpp: what a fresh login would be -----------------------------------------------------

uint64 login_digest(Oid role, const Database &database);

// ---- configuration.cpp: the part of it that is in the configuration files -------------------------

bool configuration_renewed(); // since it was asked last

// ---- hba.cpp: pg_hba.conf and pg_ident.conf ------------------------------------------------------

struct Peer { // for whom pg_hba.conf is asked
	const char *role, *database;
	const control::AuthLookup *client; // NULL = the worker's own connection:
	const char *loopback;              // by TCP to this address, NULL = by Unix socket
};

struct Rule {
	UserAuth method;
	int line;
	ClientCertMode client_certificate;
	bool by_dn;
	const char *map; // "" = none; in the present memory context
};

void rules_start(); // before all else in the process
void load_rules();  // at start and at each reload; on failure the old rules stay
bool rules_loaded();
Rule rule_for(const Peer &peer);
bool map_admits(const char *map, const char *system_name, const char *role, Oid role_oid);
void numeric_address(const control::AuthLookup &client, char *to, size_t room); // "" for a Unix socket

// ---- auth.cpp, route.cpp -------------------------------------------------------------------------

void put_error(control::ErrorText &to, const char *sqlstate, const char *format, ...)
    __attribute__((format(__printf__, 3, 4)));
void answer_lookup(const control::AuthLookup &q, control::AuthAnswer &a);
void choose_route(control::AuthAnswer &a);

// ---- slots.cpp: tenants and pools in the region --------------------------------------------------

void slots_start();
// False: there is no place. Without may_take only those are given that there are already.
bool assign_slots(const Tenant &t, const TenantUser *u, const Role &role, const Database &database, bool may_take,
                  control::AuthAnswer &a);
bool refresh_slots(); // true if anything changed
void renew_slots();   // no login is what it was
void retire_slots();  // gives back what nobody has used for a while; needs no transaction

// ---- nodes.cpp, positions.cpp: nodes in the region -----------------------------------------------

bool refresh_nodes();    // true if anything changed
void look_at_primary();  // whether this node is one; needs no transaction
void begin_commits();    // what has committed until now was told by nobody
bool positions_wanted(); // by a worker, each millisecond
void read_positions();   // needs no transaction

// ---- manager_links.cpp: the workers' connections -------------------------------------------------

void links_start();
int links_fd(); // an epoll descriptor
// Reads what has come; true if there are lookups to answer.
bool links_read();
void links_answer();
void links_poke();
void links_settings();  // a new snapshot to all
void links_listeners(); // new Unix sockets to all
const region::Settings &current_settings();

// ---- manager_listeners.cpp: Unix sockets for clients ---------------------------------------------

constexpr int kMaxListeners = 16;
struct Listeners {
	int transaction_count, session_count;
	int fd[2 * kMaxListeners]; // the transaction port's first
};
const Listeners &listeners_open(int former_manager);
const Listeners &listeners();

// ---- facts_wanted.cpp: what is known of functions, for routing --------------------------------------

bool facts_wanted();        // by anybody
void facts_start_workers(); // where they are not there, or of an older catalog; at most one a second

void reload_if_asked();
void manager_problem(const char *format, ...) __attribute__((format(__printf__, 1, 2))); // to the region and the log

} // namespace pgpool::postgres
