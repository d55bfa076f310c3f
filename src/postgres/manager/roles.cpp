// Roles and databases as the catalog has them, and the verifier that a role's login is checked against.
//
// Owns the rule of what is presented for a role without a usable password: the same exchange, with a mock
// verifier that is stable per name, exactly as the server does it. Must not know tenants or pg_hba.conf.
#include <cstring>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/user.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "libpq/crypt.h"
#include "utils/syscache.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kMockSalt = 16;

Role role_of(HeapTuple tuple, char *name)
{
	Role r{};

	if (!HeapTupleIsValid(tuple))
		return r;
	auto form = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple));
	r.oid = form->oid;
	r.can_login = form->rolcanlogin;
	r.superuser = form->rolsuper;
	r.connection_limit = form->rolconnlimit;
	if (name)
		strlcpy(name, NameStr(form->rolname), region::kNameLen);
	ReleaseSysCache(tuple);
	return r;
}

Database database_of(HeapTuple tuple, char *name)
{
	Database d{};

	if (!HeapTupleIsValid(tuple))
		return d;
	auto form = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
	d.oid = form->oid;
	d.owner = form->datdba;
	d.allows_connections = form->datallowconn;
	d.connection_limit = form->datconnlimit;
	if (name)
		strlcpy(name, NameStr(form->datname), region::kNameLen);
	ReleaseSysCache(tuple);
	return d;
}

void mock_scram(const char *role, char *to, size_t room)
{
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	uint8 keys[2][PG_SHA256_DIGEST_LENGTH];
	char salt64[64], stored64[64], server64[64];
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	bool ok = ctx && pg_cryptohash_init(ctx) >= 0 &&
	          pg_cryptohash_update(ctx, reinterpret_cast<const uint8 *>(role), strlen(role)) >= 0 &&
	          pg_cryptohash_update(ctx, reinterpret_cast<const uint8 *>(GetMockAuthenticationNonce()), 32) >= 0 &&
	          pg_cryptohash_final(ctx, digest, sizeof digest) >= 0;

	pg_cryptohash_free(ctx);
	if (!ok || !pg_strong_random(keys, sizeof keys))
		elog(ERROR, "could not make a mock verifier");
	if (!compat::base64(digest, kMockSalt, salt64, sizeof salt64) ||
	    !compat::base64(keys[0], sizeof keys[0], stored64, sizeof stored64) ||
	    !compat::base64(keys[1], sizeof keys[1], server64, sizeof server64))
		elog(ERROR, "could not encode a mock verifier");
	snprintf(to, room, "SCRAM-SHA-256$%d:%s$%s:%s", server_setting_int("scram_iterations", 4096), salt64, stored64,
	         server64);
}

void forget(char *&secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	secret = nullptr;
}

// False: there is none that fits.
bool take_secret(char *secret, control::AuthAnswer &a)
{
	bool fits = secret && strlen(secret) < sizeof a.verifier;

	if (fits)
		strlcpy(a.verifier, secret, sizeof a.verifier);
	forget(secret);
	return fits;
}

void mock_md5(char *to, size_t room)
{
	uint8 key[16];

	if (!pg_strong_random(key, sizeof key))
		elog(ERROR, "could not make a mock verifier");
	strlcpy(to, "md5", room);
	for (size_t i = 0; i < sizeof key; i++)
		snprintf(to + 3 + 2 * i, room - 3 - 2 * i, "%02x", key[i]);
}

} // namespace

Role role_by_name(const char *name)
{
	return role_of(SearchSysCache1(AUTHNAME, CStringGetDatum(name)), nullptr);
}

Role role_by_oid(Oid oid, char *name)
{
	return role_of(SearchSysCache1(AUTHOID, ObjectIdGetDatum(oid)), name);
}

Database database_by_name(const char *name)
{
	Oid oid = get_database_oid(name, true);

	return OidIsValid(oid) ? database_by_oid(oid, nullptr) : Database{};
}

Database database_by_oid(Oid oid, char *name)
{
	return database_of(SearchSysCache1(DATABASEOID, ObjectIdGetDatum(oid)), name);
}

void choose_verifier(const char *role, bool md5_allowed, bool any_kind, control::AuthAnswer &a)
{
	const char *detail = nullptr;
	char *secret = get_role_password(role, &detail);
	PasswordType type = secret ? get_password_type(secret) : static_cast<PasswordType>(Password_encryption);
	bool md5 = md5_allowed && type == PASSWORD_TYPE_MD5;

	if (!any_kind)
		a.method = md5 ? control::AuthMethod::Md5 : control::AuthMethod::Scram;
	if (secret && !any_kind && !md5 && type != PASSWORD_TYPE_SCRAM_SHA_256) {
		detail = psprintf("User \"%s\" does not have a valid SCRAM secret.", role);
		forget(secret);
	} else if (secret && type == PASSWORD_TYPE_PLAINTEXT) {
		// whatever stands there is neither kind of verifier
		detail = psprintf("Password of user \"%s\" is in unrecognized format.", role);
		forget(secret);
	}
	if (take_secret(secret, a))
		return;
	a.doomed = 1;
	strlcpy(a.log_detail, detail ? detail : "", sizeof a.log_detail);
	if (md5)
		mock_md5(a.verifier, sizeof a.verifier);
	else
		mock_scram(role, a.verifier, sizeof a.verifier);
}

void copy_verifier(const char *role, control::AuthAnswer &a)
{
	const char *unused = nullptr;
	char *secret = get_role_password(role, &unused);

	(void)take_secret(secret, a);
}

} // namespace pgpool::postgres
