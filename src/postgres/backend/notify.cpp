// What backends tell the pooler at COMMIT: "look again", and "these pools' idle servers are stale".
//
// Owns one transaction callback and the list of what the running transaction has announced. The message is the
// manager's latch: a set latch cannot be lost, and setting it cannot fail, which matters after COMMIT. Must not
// know the tables or what the manager does then.
#include "postgres/base/shared.hpp"

extern "C" {
#include "access/xact.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kMaxStale = 32;

struct Stale {
	Oid database, role; // InvalidOid = any
};

Stale stale[kMaxStale];
int stale_count;
bool announced;

void raise_epochs()
{
	for (uint32 i = 0; i < region_view.header()->max_pools; i++) {
		region::PoolSlot &p = region_view.pool(i);

		if (p.state.load() != region::SlotState::Used)
			continue;
		for (int k = 0; k < stale_count; k++) {
			if ((stale[k].database != InvalidOid && stale[k].database != p.database_oid) ||
			    (stale[k].role != InvalidOid && stale[k].role != p.role_oid))
				continue;
			p.epoch.fetch_add(1);
			break;
		}
	}
}

void at_end_of_transaction(XactEvent event, void *)
{
	if (!announced)
		return;
	switch (event) {
	case XACT_EVENT_COMMIT:
	case XACT_EVENT_PREPARE: // too early for it, but nobody tells us of COMMIT PREPARED
		if (stale_count > 0)
			raise_epochs();
		wake_manager_now();
		break;
	case XACT_EVENT_ABORT:
		break;
	default:
		return;
	}
	announced = false;
	stale_count = 0;
}

} // namespace

void wake_manager_now()
{
	region_view.header()->changes_told.fetch_add(1);
	PGPROC *manager = BackendPidGetProc(region_view.header()->manager_pid.load());

	if (manager)
		SetLatch(&manager->procLatch);
}

void wake_manager_at_commit()
{
	static bool registered;

	if (!have_region())
		return;
	if (!registered) {
		RegisterXactCallback(at_end_of_transaction, nullptr);
		registered = true;
	}
	announced = true;
}

void raise_epochs_at_commit(Oid database, Oid role)
{
	wake_manager_at_commit();
	if (!have_region())
		return;
	if (stale_count == kMaxStale) {
		stale[0] = {InvalidOid, InvalidOid};
		stale_count = 1;
		return;
	}
	stale[stale_count++] = {database, role};
}

} // namespace pgpool::postgres
