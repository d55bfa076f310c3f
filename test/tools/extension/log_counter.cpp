// A library for shared_preload_libraries that counts the lines of the server's log in shared memory, as extensions do
// that keep or forward the log. Whatever of it runs in a process that has left shared memory ends that process.
//
// Its hooks and handlers are set in the postmaster, so every process inherits them. Must not know pgpool.
extern "C" {
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/elog.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
PG_FUNCTION_INFO_V1(log_lines);
PGDLLEXPORT Datum log_lines(PG_FUNCTION_ARGS);
}

#include <csignal>
#include <cstdlib>

namespace
{

struct Counters {
	pg_atomic_uint64 lines, signals, exits;
};

Counters *counters;
shmem_request_hook_type next_request;
shmem_startup_hook_type next_startup;
emit_log_hook_type next_emit;

void request()
{
	if (next_request)
		next_request();
	RequestAddinShmemSpace(sizeof(Counters));
}

void startup()
{
	if (next_startup)
		next_startup();
	bool found;
	counters = static_cast<Counters *>(ShmemInitStruct("log_counter", sizeof(Counters), &found));
	if (!found) {
		pg_atomic_init_u64(&counters->lines, 0);
		pg_atomic_init_u64(&counters->signals, 0);
		pg_atomic_init_u64(&counters->exits, 0);
	}
}

void count_line(ErrorData *edata)
{
	if (counters)
		pg_atomic_fetch_add_u64(&counters->lines, 1);
	if (next_emit)
		next_emit(edata);
}

void count_signal(int)
{
	if (counters)
		pg_atomic_fetch_add_u64(&counters->signals, 1);
}

void count_exit()
{
	if (counters)
		pg_atomic_fetch_add_u64(&counters->exits, 1);
}

} // namespace

void _PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	next_request = shmem_request_hook;
	shmem_request_hook = request;
	next_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
	next_emit = emit_log_hook;
	emit_log_hook = count_line;
	signal(SIGPROF, count_signal); // as a profiler
	atexit(count_exit);
}

Datum log_lines(PG_FUNCTION_ARGS)
{
	(void)fcinfo;
	PG_RETURN_INT64(static_cast<int64>(pg_atomic_read_u64(&counters->lines)));
}
