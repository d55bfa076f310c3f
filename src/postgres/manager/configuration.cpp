// Whether a reload changes what a fresh login starts with.
//
// Owns a number over the settings of the configuration files that a session can have: of others, nobody's servers need
// be renewed. From the files and not from this process, where settings of its database and role stand before them. The
// postmaster may have read them before their last change; so what is new and young is not believed, and the next reload
// counts in any case. Must not know pools.
#include <sys/stat.h>

#include "postgres/manager/manager.hpp"

extern "C" {
#include "common/hashfn.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kYoungMs = 10000; // longer than it takes the manager to hear of a reload

struct Configuration {
	uint64 digest;
	TimestampTz changed_at;
};

bool is_of_sessions(const char *name)
{
	const config_generic *setting = compat::find_setting(name);

	return !setting || setting->context >= PGC_SU_BACKEND;
}

uint64 of_text(const char *text, uint64 seed)
{
	return text ? hash_bytes_extended(reinterpret_cast<const unsigned char *>(text), static_cast<int>(strlen(text)),
	                                  seed)
	            : seed;
}

void look_at_file(Configuration &c, const char *file)
{
	struct stat info;

	if (file && stat(file, &info) == 0)
		c.changed_at = Max(c.changed_at, time_t_to_timestamptz(info.st_mtim.tv_sec) + info.st_mtim.tv_nsec / 1000);
}

// False: a file cannot be read, and so has changed nothing.
bool read_configuration(Configuration &c)
{
	ConfigVariable *first = nullptr, *last = nullptr;
	const char *file = nullptr;

	c = {1, 0};
	look_at_file(c, ConfigFileName);
	look_at_file(c, PG_AUTOCONF_FILENAME);
	if (!ParseConfigFile(ConfigFileName, true, nullptr, 0, 0, DEBUG2, &first, &last) ||
	    !ParseConfigFile(PG_AUTOCONF_FILENAME, false, nullptr, 0, 0, DEBUG2, &first, &last))
		return false;
	for (const ConfigVariable *v = first; v; v = v->next) {
		if (v->filename && (!file || strcmp(file, v->filename) != 0))
			look_at_file(c, file = v->filename);
		if (is_of_sessions(v->name))
			c.digest = of_text(v->value, of_text(v->name, c.digest));
	}
	FreeConfigVariables(first);
	return true;
}

} // namespace

// What was seen last is in the region: a manager that starts anew may have missed a reload.
bool configuration_renewed()
{
	region::Header &header = *region_view.header();
	bool first = header.configuration_digest == 0; // the postmaster has just read them
	TimestampTz young = first ? PgStartTime : TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -kYoungMs);
	bool in_doubt = header.configuration_doubtful;
	Configuration c;

	if (!read_configuration(c)) {
		header.configuration_doubtful = true;
		return false;
	}
	bool differs = c.digest != header.configuration_digest;
	header.configuration_digest = c.digest;
	header.configuration_doubtful = differs && c.changed_at >= young;
	return differs || in_doubt;
}

} // namespace pgpool::postgres
