// The agent: what RESET goes back to.
//
// A client's startup parameters are the defaults of its session, but the backend started with others. The worker
// writes them to the slot; around RESET, SET ... TO DEFAULT and DISCARD ALL they are the reset values of this backend,
// and only there, so nothing has to be done for the clients that never say RESET. What a RESET set then counts as set
// by the session: the next client's settings replace it. Nothing of it can be written by a client's SQL, and nothing is
// set that the client's role could not set itself.
#include <cstring>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "tcop/utility.h"
#include "utils/guc_tables.h"
}

namespace pgpool::postgres::agent
{

namespace
{

constexpr int kMostDefaults = 64;

struct Saved {
	config_generic *setting;
	GucSource source;
	char *value;
};

ProcessUtility_hook_type previous_utility;
bool broken;

bool resets(const Node *statement)
{
	if (IsA(statement, DiscardStmt))
		return reinterpret_cast<const DiscardStmt *>(statement)->target == DISCARD_ALL;
	if (!IsA(statement, VariableSetStmt))
		return false;
	VariableSetKind kind = reinterpret_cast<const VariableSetStmt *>(statement)->kind;
	return kind == VAR_RESET || kind == VAR_RESET_ALL || kind == VAR_SET_DEFAULT;
}

// With these, reset values mean something else, or may not be looked at. The role's is that of any setting.
bool has_own_rules(const config_generic *setting)
{
	if (strcmp(setting->name, "role") == 0)
		return false;
	return (setting->context != PGC_USERSET && setting->context != PGC_SUSET) ||
	       (setting->flags & (GUC_SUPERUSER_ONLY | GUC_NO_RESET_ALL)) != 0;
}

// As at a login: what its role may set, the client may have as its default. Whoever may set less got an error then.
int set_as_client(const char *name, const char *value)
{
	Oid role = GetAuthenticatedUserId();
	GucContext context = superuser_arg(role) ? PGC_SUSET : PGC_USERSET;

	return set_config_option_ext(name, value, context, PGC_S_CLIENT, role, GUC_ACTION_SET, true, DEBUG5, false);
}

// What the session has already: whoever may change it, it stays.
int set_as_it_is(const char *name, const char *value, GucSource source)
{
	return set_config_option(name, value, PGC_SUSET, source, GUC_ACTION_SET, true, DEBUG5, false);
}

// A copy: the worker may have given the slot to another client's server meanwhile.
uint32_t read_defaults(char *copy)
{
	uint32_t length = Min(slot->defaults_length, region::kDefaultsLen);

	memcpy(copy, slot->defaults, length);
	std::atomic_thread_fence(std::memory_order_acquire);
	check_slot();
	return slot->defaults_length == 0 ? 0 : length;
}

// The client's values become reset values; what cannot be set is left as it is. May throw: `count` are to be restored.
void install(const char *at, const char *end, Saved *saved, volatile int &count)
{
	while (at < end && count < kMostDefaults) {
		const char *name = at;
		const char *value = name + strnlen(name, end - name) + 1;
		if (value >= end)
			break;
		at = value + strnlen(value, end - value) + 1;
		if (at > end)
			break;
		config_generic *setting = compat::find_setting(name);
		if (!setting || has_own_rules(setting))
			continue;
		const char *present = GetConfigOptionResetString(setting->name);
		saved[count] = {setting, setting->reset_source, pstrdup(present ? present : "")};
		count = count + 1;
		// A value that a client set may be the backend's default, which the new reset value would replace.
		const char *value_now = GetConfigOption(setting->name, true, false);
		if (setting->source <= PGC_S_CLIENT && value_now)
			(void)set_as_it_is(setting->name, value_now, PGC_S_SESSION);
		(void)set_as_client(setting->name, value);
	}
}

void restore_one(const Saved &saved)
{
	config_generic *setting = saved.setting;
	GucSource source = saved.source;

	if (setting->source == PGC_S_CLIENT)
		setting->source = PGC_S_SESSION;
	setting->reset_source = PGC_S_DEFAULT; // a lower source never replaces a higher one
	if (set_as_it_is(setting->name, source == PGC_S_DEFAULT ? nullptr : saved.value, source) == 0)
		broken = true;
}

// After an error, too: the others are restored whatever happens to one, and nobody else gets a session that lacks one.
// The transaction is not aborted then, and check hooks run in it, some of which read catalogs. It cannot be left to the
// abort: that does not touch reset values, and where PL/pgSQL catches the error its next statement may be a RESET. It
// is safe, as the error came from RESET or DISCARD ALL, which raise none with a lightweight lock held, nor does a
// cancel. A hook that fails is caught, and the server is closed.
void restore(const Saved *saved, int count)
{
	MemoryContext context = CurrentMemoryContext;

	for (int i = 0; i < count; i++) {
		PG_TRY();
		{
			restore_one(saved[i]);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			FlushErrorState();
			broken = true;
		}
		PG_END_TRY();
	}
}

void on_utility(PlannedStmt *statement, const char *text, bool read_only_tree, ProcessUtilityContext context,
                ParamListInfo parameters, QueryEnvironment *environment, DestReceiver *receiver,
                QueryCompletion *completion)
{
	ProcessUtility_hook_type volatile next = previous_utility ? previous_utility : standard_ProcessUtility;
	Saved saved[kMostDefaults];
	volatile int count = 0;
	char *defaults = nullptr;
	uint32_t length = 0;

	check_slot();
	if (slot->defaults_length != 0 && resets(statement->utilityStmt)) {
		defaults = static_cast<char *>(palloc(region::kDefaultsLen));
		length = read_defaults(defaults);
	}
	if (length == 0) {
		next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
		return;
	}
	MemoryContext caller = CurrentMemoryContext;
	PG_TRY();
	{
		install(defaults, defaults + length, saved, count);
		next(statement, text, read_only_tree, context, parameters, environment, receiver, completion);
	}
	PG_CATCH();
	{
		bool was_broken = broken;
		broken = true; // should there be no memory for the copy
		MemoryContextSwitchTo(caller);
		ErrorData *error = CopyErrorData(); // what restore() may meet takes all pending ones away
		FlushErrorState();
		broken = was_broken;
		restore(saved, count);
		ReThrowError(error);
	}
	PG_END_TRY();
	restore(saved, count);
}

} // namespace

bool defaults_broken()
{
	return broken;
}

void install_defaults()
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}

} // namespace pgpool::postgres::agent
