// Words of the protocol: messages of a client as bytes, and names of settings.
//
// Owns no state. Uses no GoogleTest: the fuzzers include it, too.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proto/startup.hpp"
#include "proto/wire.hpp"

namespace fake
{

using pgpool::proto::Writer;

inline std::string message(char type, std::string_view body = {})
{
	std::string out;
	Writer(out).begin(type).bytes(body).end();
	return out;
}

inline std::string text_message(char type, std::string_view text)
{
	return message(type, std::string(text) + '\0');
}

inline std::string query(std::string_view sql)
{
	return text_message('Q', sql);
}

inline std::string parse(std::string_view sql, std::string_view name = "")
{
	std::string out;
	Writer(out).begin('P').string(name).string(sql).u16(0).end();
	return out;
}

inline std::string bind_to(std::string_view statement = "", std::string_view portal = "")
{
	std::string out;
	Writer(out).begin('B').string(portal).string(statement).u16(0).u16(0).u16(0).end();
	return out;
}

inline std::string execute(uint32_t rows = 0, std::string_view portal = "")
{
	std::string out;
	Writer(out).begin('E').string(portal).u32(rows).end();
	return out;
}

inline std::string describe(char kind, std::string_view name = "")
{
	return text_message('D', kind + std::string(name));
}

inline std::string close_statement(std::string_view name)
{
	return text_message('C', 'S' + std::string(name));
}

inline std::string startup_packet(const std::vector<std::pair<std::string, std::string>> &parameters,
                                  uint32_t version = 3u << 16)
{
	std::string out(4, '\0');
	Writer w(out);
	w.u32(version);
	for (const auto &p : parameters)
		w.string(p.first).string(p.second);
	w.u8(0);
	pgpool::proto::store32(out.data(), static_cast<uint32_t>(out.size()));
	return out;
}

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
