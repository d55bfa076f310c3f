// Differences between PostgreSQL 15, 17 and 18, and the one way to include the server's headers.
//
// Owns every #if on PG_VERSION_NUM of the preloaded library: callers see one function per difference.
// Standard headers and ours come before it, server headers after it. Must not know anything of pgpool.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {
#include "postgres.h"

// libpq-be.h wants gssapi.h although it needs one pointer only; without the macro it declares void *gss
// of the same size.
#undef ENABLE_GSS

#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "common/base64.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
}

#if PG_VERSION_NUM < 150000
#error "pgpool needs PostgreSQL 15 or later"
#endif

namespace pgpool::compat
{

inline bool may_connect(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

inline bool owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

// Base64 with a final NUL; false if it does not fit.
inline bool base64(const uint8_t *from, int length, char *to, int room)
{
#if PG_VERSION_NUM >= 180000
	int n = pg_b64_encode(from, length, to, room - 1);
#else
	int n = pg_b64_encode(reinterpret_cast<const char *>(from), length, to, room - 1);
#endif
	if (n < 0)
		return false;
	to[n] = '\0';
	return true;
}

// Since 16 a role's name in pg_ident.conf may be a keyword, a group or a regular expression.
constexpr bool kIdentRolePatterns = PG_VERSION_NUM >= 160000;

} // namespace pgpool::compat

#if PG_VERSION_NUM >= 180000
#define PGPOOL_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "pgpool", .version = PGPOOL_VERSION)
#else
#define PGPOOL_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#ifndef PGPOOL_VERSION
#define PGPOOL_VERSION "0.1.0"
#endif

// A set-returning C function that fills a tuplestore.
inline ReturnSetInfo *pgpool_begin_rows(FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	return reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
}
