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

void set(Startup &startup, std::string_view name, std::string_view value)
{
	for (Setting &s : startup.settings) {
		if (equal_names(s.first, name)) {
			startup.overridden.push_back(s);
			s.second = value;
			return;
		}
	}
	startup.settings.emplace_back(name, value);
}

void take(Startup &s, std::string_view name, std::string_view value)
{
	if (equal_names(name, "application_name")) {
		s.application_name = clean_application_name(value);
		s.has_application_name = true;
	} else {
		set(s, name, value);
	}
}

// The first one counts.
void refuse(Startup &s, Error why)
{
	if (s.refusal.sqlstate.empty())
		s.refusal = std::move(why);
}

void take_option(Startup &s, std::string_view dashes, std::string_view assignment)
{
	const size_t equals = assignment.find('=');
	std::string name(assignment.substr(0, equals));
	for (char &c : name)
		c = c == '-' ? '_' : c;
	if (equals == std::string_view::npos) {
		refuse(s,
		       {sqlstate::kSyntaxError, std::string(dashes) + std::string(assignment) + " requires a value", "", ""});
		return;
	}
	if (name.empty()) {
		refuse(s, {sqlstate::kUndefinedObject, "unrecognized configuration parameter \"\"", "", ""});
		return;
	}
	std::string_view value = assignment.substr(equals + 1);
	if (equal_names(name, "pgpool.tenant") || equal_names(name, "reference"))
		s.tenant = value;
	else
		take(s, name, value);
}

// As getopt() and process_postgres_switches() have it.
void refuse_word(Startup &s, std::string_view word)
{
	if (word.size() > 1 && word[0] == '-' && word != "-c" && word != "--")
		refuse(s, {sqlstate::kFeatureNotSupported, "startup option \"" + std::string(word) + "\" is not supported", "",
		           "pgpool takes -c name=value and --name=value in options."});
	else
		refuse(s, {sqlstate::kSyntaxError, "invalid command-line argument for server process: " + std::string(word), "",
		           "Try \"postgres --help\" for more information."});
}

// -c name=value, -cname=value, --name=value; and reference=x alone, as Supavisor's clients send it. What is behind one
// that is refused is read, too: it may name the tenant.
void read_options(Startup &s, std::string_view options)
{
	const std::vector<std::string> words = split_options(options);
	for (size_t i = 0; i < words.size(); i++) {
		std::string_view w = words[i], dashes = "-c ";
		if (w == "--") { // the end of them
			if (i + 1 < words.size())
				refuse_word(s, words[i + 1]);
			return;
		}
		if (w.substr(0, 2) == "--") {
			w.remove_prefix(2);
			dashes = "--";
		} else if (w == "-c" && i + 1 < words.size()) {
			w = words[++i];
		} else if (w.substr(0, 2) == "-c" && w.size() > 2) {
			w.remove_prefix(2);
		} else if (w.substr(0, 10) != "reference=" && w.substr(0, 14) != "pgpool.tenant=") {
			refuse_word(s, w);
			continue;
		}
		take_option(s, dashes, w);
	}
}

// As parse_bool(): any unique start of a word.
bool read_bool(std::string_view text, bool &to)
{
	struct Word {
		std::string_view name;
		size_t least;
		bool value;
	};
	for (const Word &w : {Word{"true", 1, true}, Word{"false", 1, false}, Word{"yes", 1, true}, Word{"no", 1, false},
	                      Word{"on", 2, true}, Word{"off", 2, false}, Word{"1", 1, true}, Word{"0", 1, false}}) {
		if (text.size() >= w.least && equal_names(text, w.name.substr(0, text.size()))) {
			to = w.value;
			return true;
		}
	}
	return false;
}

bool take_replication(Startup &s, std::string_view value, Error &error)
{
	if (value == "database") {
		s.replication = true;
		return true;
	}
	if (read_bool(value, s.replication))
		return true;
	error = {sqlstate::kInvalidParameter, "invalid value for parameter \"replication\": \"" + std::string(value) + "\"",
	         "", "Valid values are: \"false\", 0, \"true\", 1, \"database\"."};
	return false;
}

// False: the packet's layout is broken, or `use` said so.
template <class F> bool each_parameter(std::string_view packet, F use)
{
	Reader r(packet.substr(8));
	for (;;) {
		const std::string_view name = r.string();
		if (!r.ok())
			return false;
		if (name.empty())
			return r.left() == 0;
		const std::string_view value = r.string();
		if (!r.ok() || !use(name, value))
			return false;
	}
}

void take_parameter(Startup &s, std::string_view name, std::string_view value)
{
	if (name == "user")
		s.user = value;
	else if (name == "database")
		s.database = value;
	else if (name == "options" || name == "replication")
		return; // read before
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

	const Error layout{sqlstate::kProtocolViolation, "invalid startup packet layout: expected terminator as last byte",
	                   "", ""};
	// Settings in options come first, wherever they stand: a parameter of the packet is set after them.
	std::string_view options;
	const auto find_options = [&](std::string_view name, std::string_view value) {
		options = name == "options" ? value : options;
		return name != "replication" || take_replication(out, value, error);
	};
	const auto take_it = [&](std::string_view name, std::string_view value) {
		take_parameter(out, name, value);
		return true;
	};
	error = layout;
	if (!each_parameter(packet, find_options))
		return false;
	read_options(out, options);
	(void)each_parameter(packet, take_it);
	error = {};
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
