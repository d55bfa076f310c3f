// Changes of the catalog, told to the workers: a statement that was prepared before may mean something else now.
//
// Owns the object access hook, which every command that creates, alters or drops something calls, and what follows at
// the end of the transaction. A change raises the counter of the database: at once, as the transaction itself may
// prepare next; and when the transaction or a part of it ends, as then others see the change, or nobody does any
// more. Transactions without such a command cost a switch per call of the hook. Must not know what is prepared.
#include "postgres/base/shared.hpp"

extern "C" {
#include "catalog/objectaccess.h"
#include "utils/resowner.h"
}

namespace pgpool::postgres
{

namespace
{

object_access_hook_type previous_access;
bool changed; // by the running transaction

// A callback of transactions would come before the other backends are sent their invalidations, and what one of them
// parsed meanwhile would be taken for new. This one is called before that and after it, and for subtransactions; for
// portals, too, which is harmless.
void on_release(ResourceReleasePhase phase, bool commit, bool top_level, void *)
{
	if (!changed || (commit && !top_level))
		return;
	catalog_changed();
	if (top_level && phase == RESOURCE_RELEASE_AFTER_LOCKS)
		changed = false;
}

void on_access(ObjectAccessType access, Oid class_oid, Oid object, int column, void *argument)
{
	static bool registered;

	if (previous_access)
		previous_access(access, class_oid, object, column, argument);
	switch (access) {
	case OAT_POST_CREATE:
	case OAT_POST_ALTER:
	case OAT_DROP:
		break;
	default:
		return;
	}
	if (!registered) {
		RegisterResourceReleaseCallback(on_release, nullptr);
		registered = true;
	}
	changed = true;
	catalog_changed();
}

} // namespace

void catalog_changed()
{
	region_view.header()->catalog_changes[MyDatabaseId % region::kCatalogCounters].fetch_add(1);
}

void install_access_hook()
{
	previous_access = object_access_hook;
	object_access_hook = on_access;
}

} // namespace pgpool::postgres
