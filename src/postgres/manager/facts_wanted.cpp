// Which databases' facts are wanted and not there, or of the catalog as it was: facts workers are started for them.
//
// Owns when one is started, at most one at a time for a database and one a second, and the file with the functions that
// were declared for it. Must not know what a facts worker looks at.
#include <cstdio>
#include <ctime>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "region/facts.hpp"
#include "postgres/manager/manager.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "postmaster/bgworker.h"
#include "storage/fd.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int64 kPauseUs = 1000000, kPauseAfterFailureUs = 10000000;

struct Running {
	BackgroundWorkerHandle *handle; // in TopMemoryContext, NULL = none
	int64 looked_at;                // whether one is to be started
	uint32 files_before;
	uint64 declared; // digest of what it was given
	bool failed;
} running[region::kMaxFacts];

int64 monotonic_us()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000) + t.tv_nsec / 1000;
}

bool is_running(Running &r, const region::FactsSlot &slot)
{
	pid_t pid;

	if (!r.handle)
		return false;
	if (GetBackgroundWorkerPid(r.handle, &pid) != BGWH_STOPPED)
		return true;
	r.failed = slot.files.load() == r.files_before;
	pfree(r.handle);
	r.handle = nullptr;
	return false;
}

bool is_due(uint32 i, int64 now)
{
	const region::FactsSlot &slot = region_view.header()->facts[i];
	const Running &r = running[i];

	return slot.database.load() != 0 && slot.wanted_until.load() > now &&
	       now - r.looked_at >= (r.failed ? kPauseAfterFailureUs : kPauseUs);
}

// In a transaction with SPI.
char *declared_for(Oid database)
{
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(database);

	if (!extension_present())
		return pstrdup("");
	if (SPI_execute_with_args("SELECT coalesce(string_agg(f.function, E'\\n' ORDER BY f.function), '') "
	                          "FROM pgpool.replica_function f JOIN pg_catalog.pg_database d ON d.datname = f.database "
	                          "WHERE d.oid = $1",
	                          1, &type, &value, nullptr, true, 1) != SPI_OK_SELECT ||
	    SPI_processed != 1)
		elog(ERROR, "pgpool could not read the functions that are allowed on replicas");
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

void write_declared(Oid database, const char *lines)
{
	char path[64];

	snprintf(path, sizeof path, "pgpool/declared.%u", database);
	int fd = OpenTransientFilePerm(path, O_WRONLY | O_CREAT | O_TRUNC, S_IRUSR | S_IWUSR);
	if (fd < 0 || write(fd, lines, strlen(lines)) != static_cast<ssize_t>(strlen(lines)))
		ereport(ERROR, (errcode_for_file_access(), errmsg("pgpool could not write file \"%s\": %m", path)));
	CloseTransientFile(fd);
}

void start(Running &r, Oid database)
{
	BackgroundWorker w;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	memset(&w, 0, sizeof w);
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_ConsistentState;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	w.bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(w.bgw_library_name, "pgpool", sizeof w.bgw_library_name);
	strlcpy(w.bgw_function_name, "pgpool_facts_main", sizeof w.bgw_function_name);
	snprintf(w.bgw_name, sizeof w.bgw_name, "pgpool facts of database %u", database);
	strlcpy(w.bgw_type, "pgpool facts", sizeof w.bgw_type);
	r.failed = !RegisterDynamicBackgroundWorker(&w, &r.handle);
	if (r.failed) {
		r.handle = nullptr;
		manager_problem("there is no background worker left to look at database %u: raise max_worker_processes; reads "
		                "that call functions go to the primary",
		                database);
	}
	MemoryContextSwitchTo(old);
}

} // namespace

bool facts_wanted()
{
	const int64 now = monotonic_us();

	for (uint32 i = 0; i < region::kMaxFacts; i++) {
		if (is_due(i, now))
			return true;
	}
	return false;
}

// In a transaction.
void facts_start_workers()
{
	const int64 now = monotonic_us();

	for (uint32 i = 0; i < region::kMaxFacts; i++) {
		region::FactsSlot &slot = region_view.header()->facts[i];
		Running &r = running[i];
		const Oid database = slot.database.load();

		if (!is_due(i, now) || is_running(r, slot))
			continue;
		r.looked_at = now;
		const char *declared = declared_for(database);
		const uint64 digest = hash_bytes_extended(reinterpret_cast<const unsigned char *>(declared),
		                                          static_cast<int>(strlen(declared)), database);
		const uint64 changes = region_view.header()->catalog_changes[database % region::kCatalogCounters].load();
		if (slot.files.load() != 0 && slot.version.load() == changes && r.declared == digest)
			continue;
		r.declared = digest;
		r.files_before = slot.files.load();
		write_declared(database, declared);
		start(r, database);
	}
}

} // namespace pgpool::postgres
