// rawpg: the command line of a tool, and the limits of its process. See rawpg.hpp.
#include "rawpg.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/resource.h>

namespace rawpg
{

Options::Options(int argc, char **argv) : program_(argv[0])
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, nullptr, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		std::string word = argv[i];
		if (word.size() < 3 || word.compare(0, 2, "--") != 0) {
			fprintf(stderr, "%s: not an option: %s\n", argv[0], word.c_str());
			exit(2);
		}
		size_t equal = word.find('=');
		if (equal != std::string::npos)
			given_.emplace_back(word.substr(2, equal - 2), word.substr(equal + 1));
		else if (i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0)
			given_.emplace_back(word.substr(2), std::string(argv[++i]));
		else
			given_.emplace_back(word.substr(2), std::nullopt);
		wants_help_ = wants_help_ || given_.back().first == "help";
	}
}

std::vector<std::string> Options::list(const std::string &name, const std::string &help)
{
	std::vector<std::string> result;
	for (const auto &one : given_)
		if (one.first == name && one.second)
			result.push_back(*one.second);
	known_.push_back(name);
	help_.push_back("  --" + name + "  " + help);
	return result;
}

std::string Options::text(const std::string &name, const std::string &preset, const std::string &help)
{
	auto all = list(name, help + (preset.empty() ? "" : " (" + preset + ")"));
	return all.empty() ? preset : all.back();
}

uint64_t Options::number(const std::string &name, uint64_t preset, const std::string &help)
{
	std::string value = text(name, std::to_string(preset), help);
	char *end = nullptr;
	uint64_t result = strtoull(value.c_str(), &end, 0);
	if (value.empty() || *end != '\0') {
		fprintf(stderr, "%s: --%s wants a number, not \"%s\"\n", program_.c_str(), name.c_str(), value.c_str());
		exit(2);
	}
	return result;
}

bool Options::flag(const std::string &name, const std::string &help)
{
	list(name, help);
	for (const auto &one : given_)
		if (one.first == name && !one.second)
			return true;
	return false;
}

Target Options::target()
{
	Target t;
	t.host = text("host", t.host, "loopback address or socket directory");
	t.port = static_cast<unsigned>(number("port", t.port, "port"));
	t.user = text("user", t.user, "role");
	t.database = text("database", t.database, "database");
	t.password = text("password", "", "password");
	std::string tls = text("tls", "off", "off, request or direct");
	t.tls = tls == "request" ? Tls::Request : tls == "direct" ? Tls::Direct : Tls::Off;
	t.sni = text("sni", "", "server name for TLS");
	if (text("protocol", "3.0", "3.0 or 3.2") == "3.2")
		t.protocol = kProtocol32;
	for (const std::string &pair : list("startup", "further startup parameter, NAME=VALUE (repeatable)"))
		if (pair.find('=') != std::string::npos)
			t.params.emplace_back(pair.substr(0, pair.find('=')), pair.substr(pair.find('=') + 1));
	return t;
}

void Options::finish()
{
	bool bad = false;
	for (const auto &one : given_) {
		bool known = one.first == "help";
		for (const auto &name : known_)
			known = known || name == one.first;
		if (!known)
			fprintf(stderr, "%s: unknown option --%s\n", program_.c_str(), one.first.c_str());
		bad = bad || !known;
	}
	if (wants_help_ || bad) {
		printf("%s\n", program_.c_str());
		for (const auto &line : help_)
			printf("%s\n", line.c_str());
		exit(bad ? 2 : 0);
	}
}

uint64_t raise_file_limit(uint64_t wanted)
{
	rlimit limit{};
	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < wanted) {
		rlimit more = limit;
		more.rlim_cur = wanted;
		more.rlim_max = wanted > limit.rlim_max ? wanted : limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &more) != 0) {
			more.rlim_cur = more.rlim_max = limit.rlim_max;
			setrlimit(RLIMIT_NOFILE, &more);
		}
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	return limit.rlim_cur;
}

} // namespace rawpg
