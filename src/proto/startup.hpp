// The first packet of a client: which kind it is, and what a StartupMessage asks for.
//
// Owns the decoding of startup packets (PostgreSQL documentation, "Start-up", "StartupMessage",
// "SSLRequest", "GSSENCRequest", "CancelRequest") and of the options string, in the way that
// backend_startup.c and pg_split_opts() do. Knows no session and no socket.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/message.hpp"

namespace pgpool::proto
{

enum class StartupKind { Incomplete, Invalid, Ssl, Gss, Cancel, Startup };

// Looks at the bytes received so far. `size` is the whole packet's, known from its length word on.
// Invalid: the length is impossible, or the version is not one that has a name here.
StartupKind classify_startup(std::string_view received, uint32_t &size);

struct CancelRequest {
	int32_t pid;
	std::string_view key;
};
[[nodiscard]] bool read_cancel(std::string_view packet, CancelRequest &out);

using Setting = std::pair<std::string, std::string>; // name in the client's spelling, value

struct Startup {
	uint16_t minor = 0; // as asked for; answer NegotiateProtocolVersion when it is more than kNewestMinor
	std::string user;
	std::string database; // "" = not given
	std::string tenant;   // from options: pgpool.tenant=x or reference=x
	bool replication = false;
	std::string application_name;
	bool has_application_name = false;
	// All else, options taken apart. The last value of a name wins, and a parameter of the packet before one in
	// options.
	std::vector<Setting> settings;
	std::vector<Setting> overridden;  // values that another one came for: each must be a valid one
	std::vector<std::string> unknown; // _pq_.* names
	Error refusal; // what it asks for is not to be had; told after the proof, as PostgreSQL does. SQLSTATE "" = nothing
};

constexpr uint16_t kNewestMinor = 2;

// False: `error` says what is wrong with the packet.
[[nodiscard]] bool read_startup(std::string_view packet, Startup &out, Error &error);

// NegotiateProtocolVersion, when `s` asks for more than we know; nothing otherwise.
void append_negotiation(std::string &out, const Startup &s);

// What PostgreSQL makes of an application_name: bytes outside printable ASCII become '?'.
std::string clean_application_name(std::string_view name);

bool equal_names(std::string_view a, std::string_view b); // ASCII case is ignored, as in guc_name_compare()

} // namespace pgpool::proto
