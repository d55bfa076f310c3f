// pgpool.explain_route(): what a statement is to the routing of reads, and why, in words.
//
// Owns the answer for a text; it asks the same grammar and the same facts as a worker, and has these made if they are
// not there. Whether a replica is fit at the moment it does not say. Must not know clients.
#include <cstdio>
#include <ctime>
#include <new>

#include "postgres/base/grammar.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "parser/parser.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(pgpool_explain_route);
}

namespace pgpool::postgres
{

namespace
{

constexpr int kPatienceMs = 10000, kLookMs = 20;

int64 monotonic_us()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000) + t.tv_nsec / 1000;
}

bool is_fresh(const region::FactsSlot *slot, Oid database)
{
	return slot->files.load() != 0 &&
	       slot->version.load() == region_view.header()->catalog_changes[database % region::kCatalogCounters].load();
}

// NULL: the manager does not have them made.
region::FactsSlot *have_facts_made(Oid database)
{
	const int64 until = monotonic_us() + kPatienceMs * INT64CONST(1000);
	region::FactsSlot *slot = region::want_facts(region_view.header()->facts, database, monotonic_us());

	while (slot && !is_fresh(slot, database)) {
		if (monotonic_us() > until)
			return nullptr;
		(void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kLookMs, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return slot;
}

char *read_file(Oid database, size_t &size)
{
	char path[64], buffer[8192];
	StringInfoData all;
	size_t n;

	initStringInfo(&all);
	region::facts_path(path, sizeof path, database);
	FILE *f = AllocateFile(path, "r");
	while (f && (n = fread(buffer, 1, sizeof buffer, f)) > 0)
		appendBinaryStringInfo(&all, buffer, static_cast<int>(n));
	if (f)
		FreeFile(f);
	size = static_cast<size_t>(all.len);
	return all.data;
}

// The last ones are kept: a session may ask for many statements.
const core::Facts *facts_of(Oid database, const region::FactsSlot *slot)
{
	static core::Facts *kept;
	static uint32 kept_file;
	const uint32 file = slot->files.load();
	size_t size;

	if (kept && kept->database() == database && kept_file == file)
		return kept;
	char *file_text = read_file(database, size);
	if (kept) {
		kept->~Facts();
		free(kept);
	}
	void *place = malloc(sizeof(core::Facts));
	kept = place ? new (place) core::Facts(std::string_view(file_text, size)) : nullptr;
	kept_file = file;
	pfree(file_text);
	return kept && kept->usable() && kept->database() == database ? kept : nullptr;
}

const char *name_of(core::Kind k)
{
	static const char *const kNames[] = {"read", "write",   "begin",    "begin read only", "set transaction read only",
	                                     "end",  "nothing", "set route"};
	return kNames[static_cast<int>(k)];
}

const char *target_of(const Finding &f)
{
	switch (f.kind) {
	case core::Kind::Read:
	case core::Kind::BeginReadOnly:
	case core::Kind::SetTransactionReadOnly:
		return "replica";
	case core::Kind::Write:
		return "primary";
	default:
		return nullptr;
	}
}

const char *words_of(const Finding &f)
{
	if (f.kind != core::Kind::Read && f.kind != core::Kind::Write)
		return nullptr;
	return f.object[0] ? psprintf("%s: %s", core::words_of(f.reason), f.object) : core::words_of(f.reason);
}

Datum text_or_null(const char *s, bool &null)
{
	null = s == nullptr || s[0] == '\0';
	return null ? static_cast<Datum>(0) : CStringGetTextDatum(s);
}

} // namespace

} // namespace pgpool::postgres

Datum pgpool_explain_route(PG_FUNCTION_ARGS)
{
	using namespace pgpool;
	using namespace pgpool::postgres;
	TupleDesc columns;

	require_region();
	if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "explain_route() returns a row");
	for (int i = 0; i < 4; i++) {
		if (PG_ARGISNULL(i))
			PG_RETURN_NULL();
	}
	const char *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const Oid database = get_database_oid(NameStr(*PG_GETARG_NAME(1)), false);
	const region::FactsSlot *slot = have_facts_made(database);
	if (!slot)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("what functions of the database do is not known"),
		                errdetail("The manager, or a background worker for it, did not look at the database in time."),
		                errhint("See pgpool.check() and max_worker_processes.")));
	core::Reading reading;
	reading.client_encoding = NameStr(*PG_GETARG_NAME(3));
	reading.server_encoding = GetDatabaseEncodingName();
	reading.trusts_stable = PG_GETARG_BOOL(2);
	reading.standard_conforming_strings = standard_conforming_strings;
	reading.backslash_quote = static_cast<uint8_t>(backslash_quote);
	const Finding f = classify_text(sql, strlen(sql), reading, facts_of(database, slot));
	Datum values[5];
	bool nulls[5];
	values[0] = text_or_null(target_of(f), nulls[0]);
	values[1] = text_or_null(postgres::name_of(f.kind), nulls[1]);
	values[2] = text_or_null(core::name_of(f.reason), nulls[2]);
	values[3] = text_or_null(f.object, nulls[3]);
	values[4] = text_or_null(postgres::words_of(f), nulls[4]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls)));
}
