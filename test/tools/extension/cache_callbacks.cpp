// A library for session_preload_libraries that takes as many callbacks of the relation cache as cache_callbacks.count
// says. A backend has ten for all extensions, and ends when one more is asked for. Must not know pgpool.
extern "C" {
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"
#include "utils/inval.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

void _PG_init(void)
{
	static int count;

	DefineCustomIntVariable("cache_callbacks.count", "Callbacks to take.", nullptr, &count, 0, 0, 100, PGC_SUSET, 0,
	                        nullptr, nullptr, nullptr);
	for (int i = 0; i < count; i++)
		CacheRegisterRelcacheCallback([](Datum, Oid) {}, 0);
}
