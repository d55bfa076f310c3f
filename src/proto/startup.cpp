// See startup.hpp.
#include "proto/startup.hpp"

#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

namespace
{

constexpr uint32_t kSslCode = (1234u << 16) | 5679;
constexpr uint32_t kGssCode = (1234u << 16) | 5680;
constexpr uint32_t kCancelCode = (1234u << 16) | 5678;

char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

// Splits at white space; a backslash takes the next byte literally.
std::vector<std::string> split_options(std::string_view s)
{
	std::vector<std::string> words;
	size_t i = 0;
	auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
	while (i < s.size()) {
		while (i < s.size() && is_space(s[i]))
			i++;
		if (i == s.size())
			break;
		std::string word;
		for (; i < s.size() && !is_space(s[i]); i++) {
			if (s[i] == '\\' && i + 1 < s.size())
				i++;
			word += s[i];
		}
		words.push_back(std::move(word));
	}
	return words;
}

void set(std::vector<Setting> &settings, std::string_view name, std::string_view value)
{
	for (Setting &s : settings) {
		if (equal_names(s.first, name)) {
			s.second = value;
			return;
		}
	}
	settings.emplace_back(name, value);
}

void take(Startup &s, std::string_view name, std::string_view value)
{
	if (equal_names(name, "application_name")) {
		s.application_name = clean_application_name(value);
		s.has_application_name = true;
	} else {
		set(s.settings, name, value);
	}
}

// The first one counts.
void refuse(Startup &s, Error why)
{
	if (s.refusal.sqlstate.empty())
		s.refusal = std::move(why);
}

void take_option(Startup &s, std::string_view assignment)
{
	const size_t equals = assignment.find('=');
	if (equals == std::string_view::npos || equals == 0) {
		refuse(s, {sqlstate::kInvalidParameter, "-c " + std::string(assignment) + " requires a value", "",
		           "Write options as -c name=value."});
		return;
	}
	std::string name(assignment.substr(0, equals));
	for (char &c : name)
		c = c == '-' ? '_' : c;
	std::string_view value = assignment.substr(equals + 1);
	if (equal_names(name, "pgpool.tenant") || equal_names(name, "reference"))
		s.tenant = value;
	else
		take(s, name, value);
}

// -c name=value, -cname=value, --name=value; and reference=x alone, as Supavisor's clients send it.
void read_options(Startup &s, std::string_view options)
{
	const std::vector<std::string> words = split_options(options);
	for (size_t i = 0; i < words.size(); i++) {
		std::string_view w = words[i];
		if (w.substr(0, 2) == "--") {
			w.remove_prefix(2);
		} else if (w == "-c" && i + 1 < words.size()) {
			w = words[++i];
		} else if (w.substr(0, 2) == "-c" && w.size() > 2) {
			w.remove_prefix(2);
		} else if (w.substr(0, 10) != "reference=" && w.substr(0, 14) != "pgpool.tenant=") {
			refuse(s, {sqlstate::kFeatureNotSupported, "startup option \"" + std::string(w) + "\" is not supported", "",
			           "pgpool takes -c name=value and --name=value in options."});
			continue;
		}
		take_option(s, w);
	}
}

void take_parameter(Startup &s, std::string_view name, std::string_view value)
{
	if (name == "user")
		s.user = value;
	else if (name == "database")
		s.database = value;
	else if (name == "replication")
		s.replication = value;
	else if (name == "options")
		read_options(s, value);
	else if (name.substr(0, 5) == "_pq_.")
		s.unknown.emplace_back(name);
	else if (equal_names(name, "pgpool.tenant") || name == "reference")
		s.tenant = value;
	else
		take(s, name, value);
}

} // namespace

bool equal_names(std::string_view a, std::string_view b)
{
	if (a.size() != b.size())
		return false;
	for (size_t i = 0; i < a.size(); i++) {
		if (lower(a[i]) != lower(b[i]))
			return false;
	}
	return true;
}

std::string clean_application_name(std::string_view name)
{
	std::string clean(name.substr(0, kMostName));
	for (char &c : clean) {
		const auto byte = static_cast<unsigned char>(c);
		if (byte < 0x20 || byte > 0x7e)
			c = '?';
	}
	return clean;
}

StartupKind classify_startup(std::string_view received, uint32_t &size)
{
	size = 0;
	if (received.size() < 4)
		return StartupKind::Incomplete;
	size = load32(received.data());
	if (size < 8 || size > kMaxStartup)
		return StartupKind::Invalid;
	if (received.size() < 8)
		return StartupKind::Incomplete;
	const uint32_t code = load32(received.data() + 4);
	if (code == kSslCode || code == kGssCode) {
		if (size != 8)
			return StartupKind::Invalid;
		return code == kSslCode ? StartupKind::Ssl : StartupKind::Gss;
	}
	if (received.size() < size)
		return StartupKind::Incomplete;
	return code == kCancelCode ? StartupKind::Cancel : StartupKind::Startup;
}

bool read_cancel(std::string_view packet, CancelRequest &out)
{
	Reader r(packet.substr(8));
	out.pid = static_cast<int32_t>(r.u32());
	out.key = r.bytes(r.left());
	return r.ok() && out.key.size() >= 4 && out.key.size() <= 256;
}

bool read_startup(std::string_view packet, Startup &out, Error &error)
{
	const uint32_t version = load32(packet.data() + 4);
	if (version >> 16 != 3) {
		error = {sqlstate::kFeatureNotSupported,
		         "unsupported frontend protocol " + std::to_string(version >> 16) + "." +
		             std::to_string(version & 0xffff) + ": server supports 3.0 to 3." + std::to_string(kNewestMinor),
		         "", ""};
		return false;
	}
	out.minor = static_cast<uint16_t>(version & 0xffff);

	Reader r(packet.substr(8));
	const Error layout{sqlstate::kProtocolViolation, "invalid startup packet layout: expected terminator as last byte",
	                   "", ""};
	for (;;) {
		std::string_view name = r.string();
		if (!r.ok()) {
			error = layout;
			return false;
		}
		if (name.empty())
			break;
		std::string_view value = r.string();
		if (!r.ok()) {
			error = layout;
			return false;
		}
		take_parameter(out, name, value);
	}
	if (r.left() != 0) {
		error = layout;
		return false;
	}
	if (out.user.empty()) {
		error = {sqlstate::kInvalidAuthorization, "no PostgreSQL user name specified in startup packet", "", ""};
		return false;
	}
	return true;
}

void append_negotiation(std::string &out, const Startup &s)
{
	if (s.minor <= kNewestMinor && s.minor != 1 && s.unknown.empty())
		return;
	// 3.1 was never used: who asks for it gets 3.0.
	const uint32_t minor = s.minor > kNewestMinor ? kNewestMinor : s.minor == 1 ? 0 : s.minor;
	Writer w(out);
	w.begin('v').u32((3u << 16) | minor).u32(static_cast<uint32_t>(s.unknown.size()));
	for (const std::string &name : s.unknown)
		w.string(name);
	w.end();
}

} // namespace pgpool::proto
