// The last commit of each database, told at COMMIT: what a read that is to see all that was acknowledged must not be
// behind.
//
// Owns one transaction callback. Whatever commits passes here: statements, DDL, COMMIT PREPARED, what a procedure
// commits, asynchronous commits, autovacuum and background workers of others. It comes after the commit record and
// before the client hears of it. Without nodes it is one load. Must not know who reads.
#include "postgres/base/shared.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
}

namespace pgpool::postgres
{

namespace
{

void at_commit(XactEvent event, void *)
{
	if (event != XACT_EVENT_COMMIT || region_view.header()->nodes_used.load() == 0)
		return;
	auto &last = region_view.header()->database_commit[MyDatabaseId % region::kCatalogCounters];
	// the end of the last one that wrote WAL, which may be of an earlier transaction
	uint64_t mine = XactLastCommitEnd, told = last.load(std::memory_order_relaxed);
	while (told < mine && !last.compare_exchange_weak(told, mine)) {
	}
}

} // namespace

void install_commits()
{
	RegisterXactCallback(at_commit, nullptr);
}

} // namespace pgpool::postgres
