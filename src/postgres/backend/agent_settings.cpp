// The agent: which settings a session has changed.
//
// Owns who reports a setting, in this process. PostgreSQL reports what has the flag GUC_REPORT before ReadyForQuery,
// whatever changed it: SET, set_config(), a function, ROLLBACK. It converts name and value to the client's encoding,
// and an error there comes back with each ReadyForQuery, for ever. So it gets the flag only for what is ASCII: numbers,
// switches, words. Strings are reported by the agent (also those that PostgreSQL reports by itself, from which the flag
// is taken): a hook on their assignment says that there is something to look at. Nothing here is an ERROR.
//
// The worker takes values byte for byte, in the server's encoding. It believes of a setting that it has its default
// until it hears of a value, and again when it hears "!name"; `told` and `last_reported` say what it believes, NULL =
// the default. So a function with a SET clause costs no message, and SET to the value of the default is told. What
// PostgreSQL reports by itself is converted, for the client; "=name" tells the worker what it is, where that differs.
// Must not know what the worker makes of it.
#include <array>
#include <cstring>
#include <utility>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "mb/pg_wchar.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres::agent
{

namespace
{

// Marks settings that are reported because of the agent. PostgreSQL 15 to 18 have no use for the bit.
constexpr int kFlaggedByAgent = 0x00800000;
static_assert((kFlaggedByAgent & (GUC_UNIT | GUC_ALLOW_IN_PARALLEL | GUC_RUNTIME_COMPUTED | GUC_EXPLAIN)) == 0,
              "the bit has a meaning of its own");

// A setting that the agent reports.
struct Watched {
	config_generic *setting;
	char *placeholder; // the name, if the library that defines it may still come: then `setting` is freed; else NULL
	char *told;
	bool native;  // PostgreSQL reports it by itself
	bool is_role; // which has a value and is not in force after SET SESSION AUTHORIZATION
};

Watched *watched;
int watched_count, watched_room;
bool strings_changed; // since they were looked at; stays when there was no memory to tell
bool look_always;     // one of them has no hook that says so

int count_seen;
bool scan_wanted;

// What PostgreSQL reports by itself, and which of these the worker takes for set by the session, as bits.
constexpr int kMostNatives = 32;
config_generic *natives[kMostNatives];
int native_count;
uint32 own_told;

// Settings that went back to their default in the reports before the present ReadyForQuery.
config_generic *back_to_default[256];
int back_to_default_count;

bool is_ascii(const char *text)
{
	while (*text && !IS_HIGHBIT_SET(*text))
		text++;
	return *text == '\0';
}

// ---- assignments of strings

void note_change(const char *, void *)
{
	strings_changed = true;
}

// A hook is not told for which setting it is called, so each that had one gets a function of its own.
constexpr size_t kMostHooks = 64;
GucStringAssignHook own_hooks[kMostHooks];
size_t own_hook_count;

template <size_t N> void note_and_assign(const char *value, void *extra)
{
	strings_changed = true;
	own_hooks[N](value, extra);
}

template <size_t... N> constexpr std::array<GucStringAssignHook, sizeof...(N)> make_hooks(std::index_sequence<N...>)
{
	return {note_and_assign<N>...};
}
constexpr auto kHooks = make_hooks(std::make_index_sequence<kMostHooks>());

void hook_assignment(config_generic *setting)
{
	auto *string = reinterpret_cast<config_string *>(setting);

	if (setting->vartype != PGC_STRING) {
		look_always = true;
	} else if (!string->assign_hook) {
		string->assign_hook = note_change;
	} else if (own_hook_count < kMostHooks) {
		own_hooks[own_hook_count] = string->assign_hook;
		string->assign_hook = kHooks[own_hook_count++];
	} else {
		look_always = true;
	}
}

// ---- which are reported, and by whom

// The isolation level and the like end with the transaction; `seed` is not a value but an act, and a pin.
bool to_be_reported(const config_generic *setting)
{
	if (setting->context != PGC_USERSET && setting->context != PGC_SUSET)
		return false;
	static const char *const kNever[] = {"transaction_isolation", "transaction_read_only", "transaction_deferrable",
	                                     "seed"};
	for (const char *name : kNever) // not what only begins so: transaction_timeout, a client's transaction_x.y
		if (strcmp(setting->name, name) == 0)
			return false;
	return strncmp(setting->name, "pgpool.", 7) != 0 || strcmp(setting->name, "pgpool.route") == 0;
}

// Neither name nor any value can be one that is not in some encoding.
bool always_ascii(const config_generic *setting)
{
	if (setting->vartype == PGC_STRING || !is_ascii(setting->name))
		return false;
	if (setting->vartype == PGC_ENUM)
		for (auto *word = reinterpret_cast<const config_enum *>(setting)->options; word->name; word++)
			if (!is_ascii(word->name))
				return false;
	return true;
}

// Higher sources never become the value that RESET goes back to.
bool set_by_session(const config_generic *setting)
{
	return setting->source > PGC_S_OVERRIDE;
}

const char *text_of(const Watched &w)
{
	const char *text;

	if (w.setting->vartype != PGC_STRING) {
		text = GetConfigOption(w.setting->name, true, false);
	} else {
		auto *string = reinterpret_cast<config_string *>(w.setting);
		text = w.native && string->show_hook ? string->show_hook() : *string->variable;
	}
	return text ? text : "";
}

bool remember(Watched &w, const char *value)
{
	char *copy = value ? strdup(value) : nullptr;

	if (value && !copy)
		return false;
	free(w.told);
	w.told = copy;
	return true;
}

void watch(config_generic *setting)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	bool native = (setting->flags & GUC_REPORT) != 0;

	if (watched_count == watched_room) {
		int room = Max(64, 2 * watched_room);
		watched = watched ? static_cast<Watched *>(repalloc(watched, room * sizeof(Watched)))
		                  : static_cast<Watched *>(palloc(room * sizeof(Watched)));
		watched_room = room;
	}
	char *placeholder = (setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0 ? pstrdup(setting->name) : nullptr;
	MemoryContextSwitchTo(before);
	Watched &w = watched[watched_count++] = {setting, placeholder, nullptr, native, strcmp(setting->name, "role") == 0};
	if (native)
		(void)remember(w, text_of(w)); // as PostgreSQL reported it
	hook_assignment(setting);
	setting->flags = (setting->flags & ~GUC_REPORT) | kFlaggedByAgent;
}

// It has had a value for a while, perhaps. False: no memory.
bool flag(config_generic *setting, bool report_value)
{
	if ((setting->flags & kFlaggedByAgent) != 0 || !to_be_reported(setting))
		return true;
	if (!always_ascii(setting)) {
		watch(setting);
		strings_changed |= report_value;
		return true;
	}
	if ((setting->flags & GUC_REPORT) != 0)
		return true;
	if (report_value && set_by_session(setting)) {
		const char *value = GetConfigOption(setting->name, true, false);
		if (!put_setting("", setting->name, value ? value : ""))
			return false;
		compat::set_last_reported(setting, value ? value : "");
	}
	setting->flags |= GUC_REPORT | kFlaggedByAgent;
	return true;
}

bool flag_all(bool report_values)
{
	int count;
	config_generic **all = compat::settings(count);

	for (int i = 0; i < count; i++)
		if (!flag(all[i], report_values))
			return false;
	count_seen = compat::settings_count();
	return true;
}

// Before any flag is taken.
void find_natives()
{
	int count;
	config_generic **all = compat::settings(count);

	for (int i = 0; i < count && native_count < kMostNatives; i++)
		if ((all[i]->flags & GUC_REPORT) != 0 && to_be_reported(all[i]))
			natives[native_count++] = all[i];
}

// ---- reports

// What has no character in the client's encoding becomes '?': PostgreSQL would raise an error here, without an end.
bool put_for_client(const char *name, const char *value)
{
	MemoryContext context = CurrentMemoryContext;
	char *volatile text = nullptr;

	if (is_ascii(value))
		return put_setting("", name, value);
	PG_TRY();
	{
		text = pstrdup(pg_server_to_client(value, static_cast<int>(strlen(value))));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		text = static_cast<char *>(MemoryContextAllocExtended(context, strlen(value) + 1, MCXT_ALLOC_NO_OOM));
		char *to = text;
		for (const char *from = value; to && *from; from++) // nobody has verified what came at startup
			*to++ = IS_HIGHBIT_SET(*from) ? '?' : *from;
		if (to)
			*to = '\0';
	}
	PG_END_TRY();
	bool done = text && put_setting("", name, text);
	if (done && strcmp(text, value) != 0)
		done = put_setting("=", name, value);
	if (text)
		pfree(text);
	return done;
}

// No role has the value "none", which is what a role goes back to, but where ALTER ROLE or ALTER DATABASE sets another.
bool in_force(const Watched &w)
{
	if (!set_by_session(w.setting))
		return false;
	if (!w.is_role || OidIsValid(GetCurrentRoleId()))
		return true;
	const char *default_role = GetConfigOptionResetString("role");
	return strcmp(text_of(w), "none") == 0 && default_role && strcmp(default_role, "none") != 0;
}

// False: no memory, it is to be told again.
bool tell(Watched &w)
{
	const char *value = w.native || in_force(w) ? text_of(w) : nullptr;

	if (w.told == value || (w.told && value && strcmp(w.told, value) == 0))
		return true;
	if (!value)
		return put_setting("!", w.setting->name, text_of(w)) && remember(w, nullptr);
	return (w.native ? put_for_client(w.setting->name, value) : put_setting("", w.setting->name, value)) &&
	       remember(w, value);
}

// A library has defined what was a placeholder, or forbidden it: the record is another one, or there is none.
bool is_gone(Watched &w)
{
	if (!w.placeholder || compat::find_setting(w.placeholder) == w.setting)
		return false;
	if (w.told && !put_setting("!", w.placeholder, ""))
		return false;
	free(w.told);
	pfree(w.placeholder);
	scan_wanted = true;
	return true;
}

void forget_gone()
{
	for (int i = 0; i < watched_count; i++)
		if (is_gone(watched[i]))
			watched[i--] = watched[--watched_count];
}

} // namespace

void flag_settings()
{
	if (native_count == 0)
		find_natives();
	scan_wanted = true; // until all have been, should there be no memory
	scan_wanted = !flag_all(false);
}

void flag_setting(config_generic *setting)
{
	if (setting)
		(void)flag(setting, false);
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
	forget_gone();
	if (flag_all(true))
		scan_wanted = in_transaction && scan_wanted;
	else
		scan_wanted = true;
}

void report_strings()
{
	if (!strings_changed && !look_always)
		return;
	strings_changed = false;
	for (int i = 0; i < watched_count; i++) {
		Watched &w = watched[i];
		if (w.placeholder && compat::find_setting(w.placeholder) != w.setting)
			scan_wanted = true; // not to be touched
		else if (!tell(w))
			strings_changed = true;
	}
}

// A value tells nothing of who set it, and what nobody set is another one after a reload, and at another server.
void report_own()
{
	uint32 own = 0;

	for (int i = 0; i < native_count; i++)
		if (set_by_session(natives[i]))
			own |= UINT32_C(1) << i;
	if (own == own_told)
		return;
	char names[kMostNatives * NAMEDATALEN] = "";
	for (int i = 0; i < native_count; i++)
		if (own & (UINT32_C(1) << i)) {
			strlcat(names, natives[i]->name, sizeof names);
			strlcat(names, ",", sizeof names);
		}
	if (put_setting("", "pgpool.own", names))
		own_told = own;
}

bool settings_untold()
{
	return strings_changed || settings_changed();
}

// PostgreSQL calls when the value is not the one it reported last, or when it reported none.
Report kind_of_report(const char *name)
{
	config_generic *setting = compat::find_setting(name);

	if (!setting || (setting->flags & kFlaggedByAgent) == 0 || set_by_session(setting))
		return Report::Value;
	if (back_to_default_count < static_cast<int>(lengthof(back_to_default)))
		back_to_default[back_to_default_count++] = setting;
	return setting->last_reported ? Report::Default : Report::Nothing;
}

void forget_defaults()
{
	while (back_to_default_count > 0)
		compat::set_last_reported(back_to_default[--back_to_default_count], nullptr);
}

} // namespace pgpool::postgres::agent
