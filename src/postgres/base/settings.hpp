// The pgpool.* settings as C variables, and the snapshot of them for workers.
//
// Owns nothing at run time: settings.cpp defines the variables. Must not know who reads them.
#pragma once

#include <type_traits>

#include "region/settings.hpp"

namespace pgpool::postgres
{

// A flag is a bool, for PostgreSQL writes it; all else is an int, in the unit of its list.
template <bool flag> using Variable = std::conditional_t<flag, bool, int>;

struct Gucs {
#define PGPOOL_VARIABLE(name, ...) Variable<region::setting_named(#name).range.kind == region::Kind::Flag> name;
	PGPOOL_SETTINGS(PGPOOL_VARIABLE)
#undef PGPOOL_VARIABLE
#define PGPOOL_VARIABLE(name, ...) char *name;
	PGPOOL_TEXT_SETTINGS(PGPOOL_VARIABLE)
#undef PGPOOL_VARIABLE
	struct { // limits of pools where tenant and role name none
#define PGPOOL_VARIABLE(type, name, ...) Variable<region::limit_named(#name).range.kind == region::Kind::Flag> name;
		PGPOOL_LIMITS(PGPOOL_VARIABLE)
#undef PGPOOL_VARIABLE
	} preset;
};

extern Gucs gucs;

void define_settings();
int resolved_max_server_connections();
void fill_settings(region::Settings &to, uint32_t generation);

// Value of any setting of the server, "" if there is none of that name.
const char *server_setting(const char *name);
int server_setting_int(const char *name, int otherwise);

} // namespace pgpool::postgres
