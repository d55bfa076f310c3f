// Names of settings as the scripted backends have them: how each is spelled, and which are reported.
//
// Owns no state. Uses no GoogleTest: the fuzzers include it, too.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "proto/startup.hpp"

namespace fake
{

using Settings = std::map<std::string, std::string>;

inline bool is_reported(const std::string &name)
{
	return name == "application_name" || name == "TimeZone" || name == "DateStyle" || name == "client_encoding" ||
	       name == "session_authorization";
}

inline std::string canonical(std::string_view name)
{
	for (const char *known : {"application_name", "TimeZone", "DateStyle", "client_encoding", "statement_timeout",
	                          "search_path", "idle_session_timeout"}) {
		if (pgpool::proto::equal_names(name, known))
			return known;
	}
	return std::string(name);
}

} // namespace fake
