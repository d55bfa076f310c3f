// See message.hpp.
#include "proto/message.hpp"

#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

void append_error(std::string &out, Severity severity, const Error &error)
{
	const char *word = severity == Severity::Fatal ? "FATAL" : severity == Severity::Error ? "ERROR" : "WARNING";
	Writer w(out);
	w.begin(severity == Severity::Warning ? 'N' : 'E')
	    .u8('S')
	    .string(word)
	    .u8('V')
	    .string(word)
	    .u8('C')
	    .string(error.sqlstate);
	w.u8('M').string(error.message);
	if (!error.detail.empty())
		w.u8('D').string(error.detail);
	if (!error.hint.empty())
		w.u8('H').string(error.hint);
	w.u8(0).end();
}

std::string_view error_field(std::string_view body, char field)
{
	Reader r(body);
	while (r.left() > 0) {
		const char type = static_cast<char>(r.u8());
		const std::string_view value = type ? r.string() : std::string_view();
		if (type == 0 || !r.ok())
			break;
		if (type == field)
			return value;
	}
	return {};
}

Error read_error(std::string_view body)
{
	Error e;
	Reader r(body);
	while (r.left() > 0) {
		const uint8_t field = r.u8();
		if (field == 0)
			break;
		std::string_view value = r.string();
		if (!r.ok())
			break;
		switch (field) {
		case 'C':
			e.sqlstate = value;
			break;
		case 'M':
			e.message = value;
			break;
		case 'D':
			e.detail = value;
			break;
		case 'H':
			e.hint = value;
			break;
		default:
			break;
		}
	}
	if (e.sqlstate.size() != 5)
		e.sqlstate = sqlstate::kInternal;
	if (e.message.empty())
		e.message = "the server sent an error without a message";
	return e;
}

void append_ready(std::string &out, char status)
{
	Writer(out).begin('Z').u8(static_cast<uint8_t>(status)).end();
}

void append_parameter(std::string &out, std::string_view name, std::string_view value)
{
	Writer(out).begin('S').string(name).string(value).end();
}

void append_authentication(std::string &out, uint32_t code, std::string_view rest)
{
	Writer(out).begin('R').u32(code).bytes(rest).end();
}

void append_query(std::string &out, std::string_view sql)
{
	Writer(out).begin('Q').string(sql).end();
}

void append_literal(std::string &sql, std::string_view value)
{
	static const char digits[] = "0123456789abcdef";
	sql += "E'";
	for (const char c : value) {
		const auto byte = static_cast<unsigned char>(c);
		if (c == '\'' || c == '\\' || byte < 0x20 || byte > 0x7e) {
			sql += "\\x";
			sql += digits[byte >> 4];
			sql += digits[byte & 15];
		} else {
			sql += c;
		}
	}
	sql += '\'';
}

void append_identifier(std::string &sql, std::string_view name)
{
	sql += '"';
	for (const char c : name) {
		if (c == '"')
			sql += '"';
		sql += c;
	}
	sql += '"';
}

void append_setting_name(std::string &sql, std::string_view name)
{
	for (;;) {
		const size_t dot = name.find('.');
		append_identifier(sql, name.substr(0, dot));
		if (dot == std::string_view::npos)
			return;
		sql += '.';
		name.remove_prefix(dot + 1);
	}
}

} // namespace pgpool::proto
