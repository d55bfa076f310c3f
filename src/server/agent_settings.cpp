// The agent: which settings a session has changed.
//
// Owns the flag GUC_REPORT in this process. With it on a setting, PostgreSQL itself sends ParameterStatus before
// ReadyForQuery when the value changed, whatever changed it: SET, set_config(), a function, ROLLBACK. The flags are
// set at the end of the login, so that the values of that moment are not all sent. A placeholder comes to be without
// the flag, so the first value of each is sent from here.
//
// The worker believes of a setting that it has its default until it hears of a value, and again when it hears "!name".
// `last_reported` says what it believes: NULL = the default. So a function with a SET clause costs no message, and
// SET to the value of the default is told. Must not know what the worker makes of it.
#include <cstring>

#include "server/agent.hpp"

extern "C" {
#include "libpq/pqformat.h"
#include "utils/guc_tables.h"
}

namespace pgpool::server::agent
{

namespace
{

// Marks settings that are reported because of the agent. PostgreSQL 15 to 18 have no use for the bit.
constexpr int kFlaggedByAgent = 0x00800000;
static_assert((kFlaggedByAgent & (GUC_UNIT | GUC_ALLOW_IN_PARALLEL | GUC_RUNTIME_COMPUTED | GUC_EXPLAIN)) == 0,
              "the bit has a meaning of its own");

int count_seen;
bool scan_wanted;

// Settings that went back to their default in the reports before the present ReadyForQuery.
config_generic *back_to_default[256];
int back_to_default_count;

// The isolation level and the like end with the transaction; `seed` is not a value but an act, and a pin.
bool to_be_flagged(const config_generic *setting)
{
	if (setting->context != PGC_USERSET && setting->context != PGC_SUSET)
		return false;
	return (setting->flags & GUC_REPORT) == 0 && strncmp(setting->name, "transaction_", 12) != 0 &&
	       strcmp(setting->name, "seed") != 0 && strncmp(setting->name, "pgpool.", 7) != 0;
}

// Higher sources never become the value that RESET goes back to.
bool set_by_session(const config_generic *setting)
{
	return setting->source > PGC_S_OVERRIDE;
}

void report(config_generic *setting)
{
	const char *value = GetConfigOption(setting->name, true, false);
	StringInfoData message;

	pq_beginmessage(&message, 'S');
	pq_sendstring(&message, setting->name);
	const char *text = value ? value : "";
	appendBinaryStringInfo(&message, text, static_cast<int>(strlen(text)) + 1); // as put_unconverted() does
	pq_endmessage(&message);
	compat::set_last_reported(setting, value ? value : "");
}

void flag(bool report_values)
{
	int count;
	config_generic **all = compat::settings(count);

	for (int i = 0; i < count; i++) {
		if (!to_be_flagged(all[i]))
			continue;
		if (report_values && set_by_session(all[i]))
			report(all[i]);
		all[i]->flags |= GUC_REPORT | kFlaggedByAgent;
	}
	count_seen = compat::settings_count();
}

} // namespace

void flag_settings()
{
	flag(false);
}

void flag_setting(config_generic *setting)
{
	if (setting && to_be_flagged(setting))
		setting->flags |= GUC_REPORT | kFlaggedByAgent;
}

void scan_settings()
{
	scan_wanted = true;
}

bool settings_changed()
{
	return scan_wanted || compat::settings_count() != count_seen;
}

// A statement of a function is started once in a transaction and may run again.
void flag_new_settings(bool in_transaction)
{
	flag(true);
	scan_wanted = in_transaction && scan_wanted;
}

// PostgreSQL calls when the value is not the one it reported last, or when it reported none.
Report kind_of_report(const char *name)
{
	config_generic *setting = compat::find_setting(name);

	if (!setting || (setting->flags & kFlaggedByAgent) == 0)
		return Report::Value;
	if (set_by_session(setting))
		return Report::Unconverted;
	if (back_to_default_count < static_cast<int>(lengthof(back_to_default)))
		back_to_default[back_to_default_count++] = setting;
	return setting->last_reported ? Report::Default : Report::Nothing;
}

void forget_defaults()
{
	while (back_to_default_count > 0)
		compat::set_last_reported(back_to_default[--back_to_default_count], nullptr);
}

} // namespace pgpool::server::agent
