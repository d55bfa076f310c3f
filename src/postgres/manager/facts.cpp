// A facts worker: a background worker that says of the names of one database which are harmless to reads.
//
// Owns its short life: it reads the counter of changes, then pg_proc, pg_operator, pg_type and pg_cast (and, in
// facts_trees.cpp, rules and policies), and writes PGDATA/pgpool/facts.<oid>. The manager starts it; a worker of pgpool
// cannot, for it is no process of PostgreSQL's, and the manager is connected to another database. The verdict of a name
// is the worst of all that have it. Must not know statements.
#include <cerrno>
#include <cstdio>
#include <ctime>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "region/facts.hpp"
#include "postgres/manager/facts.hpp"
#include "postgres/manager/facts_builtin.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PGDLLEXPORT void pgpool_facts_main(Datum argument);
}

namespace pgpool::postgres
{

namespace
{

struct OidVerdict {
	Oid oid;
	Verdict verdict;
};

struct NameVerdict {
	char key[2 * NAMEDATALEN + 4]; // what, schema, tab, name
	Verdict verdict;
};

HTAB *functions, *types, *names;

HTAB *table(const char *name, size_t key, size_t entry, int flags)
{
	HASHCTL how{};

	how.keysize = key;
	how.entrysize = entry;
	how.hcxt = TopTransactionContext;
	return hash_create(name, 4096, &how, HASH_ELEM | HASH_CONTEXT | flags);
}

void note_key(const char *key, Verdict v)
{
	bool found;
	auto *e = static_cast<NameVerdict *>(hash_search(names, key, HASH_ENTER, &found));

	e->verdict = found ? worse(e->verdict, v) : v;
}

void note_oid(HTAB *in, Oid oid, Verdict v)
{
	bool found;
	auto *e = static_cast<OidVerdict *>(hash_search(in, &oid, HASH_ENTER, &found));

	e->verdict = found ? worse(e->verdict, v) : v;
}

Verdict find_oid(HTAB *in, Oid oid, Verdict otherwise)
{
	auto *e = static_cast<OidVerdict *>(hash_search(in, &oid, HASH_FIND, nullptr));

	return e ? e->verdict : otherwise;
}

// ---- rows of the last query

uint64 run(const char *sql, const char *argument = nullptr)
{
	Oid type = TEXTOID;
	Datum value = argument ? CStringGetTextDatum(argument) : static_cast<Datum>(0);

	if (SPI_execute_with_args(sql, argument ? 1 : 0, &type, &value, nullptr, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "pgpool facts: %s", sql);
	return SPI_processed;
}

// Fields are copied before anything else runs.
const char *text_at(uint64 row, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	return value ? value : "";
}

Oid oid_at(uint64 row, int column)
{
	bool null;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &null);
	return null ? InvalidOid : DatumGetObjectId(value);
}

bool flag_at(uint64 row, int column)
{
	return text_at(row, column)[0] == 't';
}

// ---- functions

Verdict of_built_in(const char *name, char volatility)
{
	for (const BuiltIn &b : kBuiltIn) {
		size_t n = strlen(b.pattern);
		if (b.pattern[n - 1] == '*' ? strncmp(name, b.pattern, n - 1) == 0 : strcmp(name, b.pattern) == 0)
			return b.verdict;
	}
	return volatility == PROVOLATILE_VOLATILE ? Verdict::Unknown : Verdict::Harmless;
}

Verdict of_users(char volatility, Oid language, bool declared)
{
	if (declared)
		return Verdict::Harmless;
	if (volatility == PROVOLATILE_VOLATILE)
		return Verdict::Unknown;
	// only superusers make these
	return language == ClanguageId || language == INTERNALlanguageId ? Verdict::Harmless : Verdict::Stable;
}

// `declared`: lines as regprocedure writes them.
void collect_functions(const char *declared)
{
	uint64 n = run("SELECT p.oid, n.nspname, p.proname, p.provolatile, p.prolang, p.oid >= 16384 AND "
	               "p.oid::pg_catalog.regprocedure::pg_catalog.text = ANY (pg_catalog.string_to_array($1, E'\\n')) "
	               "FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace",
	               declared);
	for (uint64 i = 0; i < n; i++) {
		const Oid oid = oid_at(i, 1);
		const char volatility = text_at(i, 4)[0];
		note_oid(functions, oid,
		         oid < FirstNormalObjectId ? of_built_in(text_at(i, 3), volatility)
		                                   : of_users(volatility, oid_at(i, 5), flag_at(i, 6)));
	}
	// aggregates of users are what their functions are
	n = run(
	    "SELECT a.aggfnoid::pg_catalog.oid, f FROM pg_catalog.pg_aggregate a, pg_catalog.unnest(ARRAY[a.aggtransfn, "
	    "a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, "
	    "a.aggmfinalfn]::pg_catalog.oid[]) f WHERE a.aggfnoid::pg_catalog.oid >= 16384 AND f <> 0");
	for (uint64 i = 0; i < n; i++)
		note_oid(functions, oid_at(i, 1), find_oid(functions, oid_at(i, 2), Verdict::Unknown));
	// an argument that is left out is an expression, too
	n = run("SELECT p.oid, p.proargdefaults FROM pg_catalog.pg_proc p WHERE p.proargdefaults IS NOT NULL AND p.oid >= "
	        "16384");
	for (uint64 i = 0; i < n; i++) {
		Uses uses;
		look_into(text_at(i, 2), uses);
		note_oid(functions, oid_at(i, 1), uses.verdict);
	}
	n = run("SELECT p.oid, n.nspname, p.proname, p.oid >= 16384 AND p.pronargs >= 1 AND "
	        "p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'p', 'd') FROM pg_catalog.pg_proc p "
	        "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_catalog.pg_type t ON "
	        "t.oid = p.proargtypes[0]");
	for (uint64 i = 0; i < n; i++) {
		const Verdict v = verdict_of_function(oid_at(i, 1));
		note_name(Facts::Function, text_at(i, 2), text_at(i, 3), v);
		if (flag_at(i, 4) && v != Verdict::Harmless)
			note_name(Facts::Attribute, text_at(i, 2), text_at(i, 3), v);
	}
}

// ---- operators, types, casts

void collect_operators()
{
	uint64 n = run("SELECT o.oprcode::pg_catalog.oid, o.oprrest::pg_catalog.oid, o.oprjoin::pg_catalog.oid, n.nspname, "
	               "o.oprname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace");
	for (uint64 i = 0; i < n; i++) {
		Verdict v = Verdict::Harmless;
		for (int column = 1; column <= 3; column++)
			v = worse(v, verdict_of_function(oid_at(i, column)));
		note_name(Facts::Operator, text_at(i, 4), text_at(i, 5), v);
	}
}

void collect_types()
{
	uint64 n = run("SELECT t.oid, f FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid, "
	               "pg_catalog.unnest(ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, "
	               "r.rngcanonical, r.rngsubdiff]::pg_catalog.oid[]) f WHERE t.oid >= 16384 AND f > 0");
	for (uint64 i = 0; i < n; i++)
		note_oid(types, oid_at(i, 1), verdict_of_function(oid_at(i, 2)));
	n = run("SELECT contypid, conbin FROM pg_catalog.pg_constraint WHERE contypid <> 0 AND conbin IS NOT NULL");
	for (uint64 i = 0; i < n; i++) {
		Uses uses;
		look_into(text_at(i, 2), uses);
		note_oid(types, oid_at(i, 1), uses.verdict);
	}
	n = run("SELECT casttarget, castfunc, castcontext = 'i' FROM pg_catalog.pg_cast WHERE castfunc <> 0");
	note_name(Facts::Cast, nullptr, "implicit", Verdict::Harmless);
	for (uint64 i = 0; i < n; i++) {
		const Verdict v = verdict_of_function(oid_at(i, 2));
		note_oid(types, oid_at(i, 1), v);
		if (flag_at(i, 3))
			note_name(Facts::Cast, nullptr, "implicit", v);
	}
	// arrays, domains, composites and ranges are what they are made of
	n = run(
	    "SELECT oid, typelem FROM pg_catalog.pg_type WHERE typelem <> 0 UNION ALL "
	    "SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typbasetype <> 0 UNION ALL "
	    "SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range UNION ALL "
	    "SELECT t.oid, a.atttypid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid "
	    "WHERE t.typrelid <> 0 AND a.attnum > 0 AND a.atttypid >= 16384");
	for (bool changed = true; changed;) {
		changed = false;
		for (uint64 i = 0; i < n; i++) {
			const Verdict part = verdict_of_type(oid_at(i, 2)), whole = verdict_of_type(oid_at(i, 1));
			if (worse(part, whole) == whole)
				continue;
			note_oid(types, oid_at(i, 1), part);
			changed = true;
		}
	}
	n = run("SELECT t.oid, n.nspname, t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = "
	        "t.typnamespace");
	for (uint64 i = 0; i < n; i++) {
		const Verdict v = verdict_of_type(oid_at(i, 1));
		if (v == Verdict::Harmless)
			continue;
		// name(x) and x.name are other ways to write a cast
		note_name(Facts::Type, text_at(i, 2), text_at(i, 3), v);
		note_name(Facts::Function, text_at(i, 2), text_at(i, 3), v);
		note_name(Facts::Attribute, text_at(i, 2), text_at(i, 3), v);
	}
}

// ---- files

char *read_declared(Oid database)
{
	char path[64];
	StringInfoData all;
	char buffer[4096];
	size_t n;

	initStringInfo(&all);
	snprintf(path, sizeof path, "pgpool/declared.%u", database);
	FILE *f = AllocateFile(path, "r");
	if (!f)
		return all.data;
	while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
		appendBinaryStringInfo(&all, buffer, static_cast<int>(n));
	FreeFile(f);
	return all.data;
}

void write_facts(Oid database, uint64 version)
{
	char path[64], temporary[80];
	HASH_SEQ_STATUS all;

	region::facts_path(path, sizeof path, database);
	snprintf(temporary, sizeof temporary, "%s.new", path);
	(void)unlink(temporary);
	int fd = OpenTransientFilePerm(temporary, O_WRONLY | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("pgpool could not create file \"%s\": %m", temporary)));
	StringInfoData out;
	initStringInfo(&out);
	appendStringInfo(&out, "pgpool facts 1 %u " UINT64_FORMAT "\n", database, version);
	hash_seq_init(&all, names);
	while (auto *e = static_cast<NameVerdict *>(hash_seq_search(&all)))
		appendStringInfo(&out, "%c%c %s\n", e->key[0], static_cast<char>(e->verdict), e->key + 1);
	if (write(fd, out.data, static_cast<size_t>(out.len)) != out.len)
		ereport(ERROR, (errcode_for_file_access(), errmsg("pgpool could not write file \"%s\": %m", temporary)));
	CloseTransientFile(fd);
	if (rename(temporary, path) < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("pgpool could not rename file \"%s\": %m", temporary)));
}

void publish(Oid database, uint64 version)
{
	for (region::FactsSlot &s : region_view.header()->facts) {
		if (s.database.load() != database)
			continue;
		s.version.store(version);
		s.files.fetch_add(1);
	}
}

void collect(Oid database)
{
	functions = table("pgpool facts functions", sizeof(Oid), sizeof(OidVerdict), HASH_BLOBS);
	types = table("pgpool facts types", sizeof(Oid), sizeof(OidVerdict), HASH_BLOBS);
	names = table("pgpool facts names", sizeof NameVerdict::key, sizeof(NameVerdict), HASH_STRINGS);
	collect_functions(read_declared(database));
	collect_operators();
	collect_types();
	collect_relations();
}

} // namespace

Verdict worse(Verdict a, Verdict b)
{
	static const char kOrder[] = "hsunwx"; // the worst last
	return strchr(kOrder, static_cast<char>(a)) > strchr(kOrder, static_cast<char>(b)) ? a : b;
}

Verdict verdict_of_function(Oid function)
{
	return OidIsValid(function) ? find_oid(functions, function, Verdict::Unknown) : Verdict::Harmless;
}

Verdict verdict_of_type(Oid type)
{
	return find_oid(types, type, Verdict::Harmless);
}

// A name that has no place in a line is not listed: it is never looked up (facts.hpp).
void note_name(Facts::What what, const char *schema, const char *name, Verdict v)
{
	char key[sizeof NameVerdict::key];

	if (strpbrk(name, "\t\n") || (schema && strpbrk(schema, "\t\n")))
		return;
	memset(key, 0, sizeof key);
	snprintf(key, sizeof key, "%c%s", what, name);
	note_key(key, v);
	if (!schema)
		return;
	memset(key, 0, sizeof key);
	snprintf(key, sizeof key, "%c%s\t%s", what, schema, name);
	note_key(key, v);
}

} // namespace pgpool::postgres

void pgpool_facts_main(Datum argument)
{
	using namespace pgpool;
	using namespace pgpool::postgres;
	const Oid database = DatumGetObjectId(argument);

	if (!have_region())
		ereport(FATAL, (errmsg("pgpool is not preloaded")));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "repeatable read", PGC_SUSET, PGC_S_OVERRIDE);
	// before the catalog is read: what changes meanwhile makes this stale
	const uint64 version = region_view.header()->catalog_changes[database % region::kCatalogCounters].load();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "reading what functions do");
	collect(database);
	write_facts(database, version);
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	publish(database, version);
}
