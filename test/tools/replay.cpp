// replay: sends a script of messages to one or two addresses and shows, or compares, every reply.
//
// test/README.md explains the scripts: a line is a message or an action; what is sent goes out in one write at the next
// action. Replies are printed one a line with what cannot be equal taken out: process ids, keys, and the OIDs of tables
// in RowDescription. With --b the lines of both addresses must be equal.
// --sweep needs no script: messages of every size around the usual buffer sizes must come back unharmed.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "rawpg.hpp"

using namespace rawpg;
using Strings = std::vector<std::string>;

static uint64_t limit_ms = 10000;
static bool with_login = false;

// ---- reading a script
static std::string unescape(const std::string &text)
{
	std::string result;
	for (size_t i = 0; i < text.size(); i++) {
		if (text[i] == '@') {
			size_t end = text.find('@', i + 1);
			size_t size = end == std::string::npos ? 0 : strtoul(text.c_str() + i + 1, nullptr, 10);
			if (size > 0) {
				for (size_t n = 0; n < size; n++)
					result += static_cast<char>('a' + n % 26);
				i = end;
				continue;
			}
		}
		if (text[i] != '\\' || i + 1 == text.size()) {
			result += text[i];
			continue;
		}
		char c = text[++i];
		if (c == 'x' && i + 2 < text.size()) {
			result += unhex(text.substr(i + 1, 2));
			i += 2;
		} else {
			result += c == 'n' ? '\n' : c == 't' ? '\t' : c;
		}
	}
	return result;
}

struct Word {
	std::string text;
	bool quoted = false;
};

static std::vector<Word> words_of(const std::string &line)
{
	std::vector<Word> words;
	size_t at = 0;
	while (at < line.size()) {
		if (isspace(static_cast<unsigned char>(line[at]))) {
			at++;
			continue;
		}
		if (line[at] == '#')
			break;
		size_t end = at + 1;
		if (line[at] == '"') {
			while (end < line.size() && line[end] != '"')
				end += line[end] == '\\' ? 2 : 1;
			words.push_back({unescape(line.substr(at + 1, end - at - 1)), true});
			at = end + 1;
			continue;
		}
		while (end < line.size() && !isspace(static_cast<unsigned char>(line[end])))
			end++;
		words.push_back({line.substr(at, end - at), false});
		at = end;
	}
	return words;
}

static std::vector<Param> params_of(const std::vector<Word> &w, size_t from)
{
	std::vector<Param> result;
	for (; from < w.size(); from++)
		result.push_back(!w[from].quoted && w[from].text == "null" ? Param() : Param(w[from].text));
	return result;
}

// The bytes of a message line; nothing when it is none.
static std::optional<Bytes> message_of(const std::vector<Word> &w)
{
	auto text = [&](size_t i) { return i < w.size() ? w[i].text : std::string(); };
	auto number = [&](size_t i) { return static_cast<uint32_t>(strtoul(text(i).c_str(), nullptr, 0)); };
	const std::string &verb = w[0].text;
	if (verb == "raw") {
		Bytes all;
		for (size_t i = 1; i < w.size(); i++)
			all += unhex(w[i].text);
		return all;
	}
	if (verb.size() != 1)
		return std::nullopt;
	std::vector<uint32_t> types;
	switch (verb[0]) {
	case 'Q':
		return query(text(1));
	case 'P':
		for (size_t i = 3; i < w.size(); i++)
			types.push_back(number(i));
		return parse(text(2), text(1), types);
	case 'B':
		return bind_to(text(2), text(1), params_of(w, 3));
	case 'D':
		return describe(text(1)[0], text(2));
	case 'E':
		return execute(number(2), text(1));
	case 'C':
		return close_name(text(1)[0], text(2));
	case 'F':
		return function_call(number(1), params_of(w, 2));
	case 'f':
		return copy_fail(text(1));
	case 'd':
		return copy_data(text(1));
	case 'S':
	case 'H':
	case 'c':
	case 'X':
		return message(verb[0], {});
	default:
		return std::nullopt;
	}
}

// ---- replies, one a line
static std::string visible(const Bytes &bytes)
{
	std::string result;
	char piece[8];
	for (char c : bytes) {
		if (c >= 32 && c < 127 && c != '\\') {
			result += c;
		} else {
			snprintf(piece, sizeof piece, "\\x%02x", static_cast<unsigned char>(c));
			result += piece;
		}
	}
	return result;
}

static std::string normal(const Message &m)
{
	Bytes body = m.body;
	if (m.type == 'K')
		return "K";
	if (m.type == 'A' && body.size() >= 4)
		body.replace(0, 4, "pid ");
	if (m.type == 'T') {
		for (const size_t at : places_of_tables(body)) {
			if (pgpool::proto::load32(&body[at]) != 0)
				body.replace(at, 4, "oid ");
		}
	}
	return std::string(1, m.type) + " " + visible(body);
}

class Run
{
public:
	explicit Run(const Target &target) : target_(target) {}
	Strings lines;
	bool timed_out = false;

	void connect()
	{
		conn_.close();
		if (!conn_.login(target_, limit_ms))
			lines.push_back("login: " + conn_.error());
		if (with_login)
			for (const auto &p : conn_.parameters)
				lines.push_back("S " + p.first + "=" + p.second);
	}

	void play(const std::string &path)
	{
		std::ifstream file(path);
		std::string line;
		connect();
		bool closed = false;
		while (std::getline(file, line)) {
			std::vector<Word> w = words_of(line);
			if (w.empty())
				continue;
			uint64_t times = 1;
			if (w[0].text == "repeat" && w.size() > 2) {
				times = strtoull(w[1].text.c_str(), nullptr, 10);
				w.erase(w.begin(), w.begin() + 2);
			}
			std::optional<Bytes> bytes = message_of(w);
			for (; bytes && times > 0; times--)
				out_ += *bytes;
			if (!bytes)
				action(w, line);
			closed = w[0].text == "rst" || w[0].text == "X";
		}
		if (!closed)
			out_ += terminate();
		push();
		read_until(0, 1);
		conn_.close();
	}

private:
	void push()
	{
		if (!out_.empty() && conn_.channel().fd() >= 0)
			conn_.send(out_, limit_ms);
		out_.clear();
	}

	// Type 0: until the end of the connection.
	void read_until(char type, uint64_t count)
	{
		uint64_t until = now_ms() + limit_ms;
		while (count > 0 && conn_.channel().fd() >= 0) {
			Message m;
			uint64_t now = now_ms();
			Conn::Got got = conn_.next(m, until > now ? until - now : 0);
			if (got != Conn::Got::Message) {
				lines.push_back(got == Conn::Got::End ? "end"
				                                      : std::string("nothing for ") + std::to_string(limit_ms) + " ms");
				timed_out = timed_out || got == Conn::Got::Timeout;
				return;
			}
			lines.push_back(normal(m));
			count -= m.type == type;
		}
	}

	void action(const std::vector<Word> &w, const std::string &line)
	{
		const std::string &verb = w[0].text;
		if (verb == "split") {
			for (char c : out_)
				conn_.send(Bytes(1, c), limit_ms);
			out_.clear();
			return;
		}
		push();
		if (verb == "wait" && w.size() > 1)
			read_until(w[1].text[0], w.size() > 2 ? strtoull(w[2].text.c_str(), nullptr, 10) : 1);
		else if (verb == "sleep" && w.size() > 1)
			std::this_thread::sleep_for(
			    std::chrono::milliseconds(std::min(60000UL, strtoul(w[1].text.c_str(), nullptr, 10))));
		else if (verb == "rst")
			conn_.channel().reset();
		else if (verb == "halfclose")
			conn_.channel().half_close();
		else if (verb == "reconnect")
			connect();
		else if (verb != "flush-segment") {
			fprintf(stderr, "replay: not understood: %s\n", line.c_str());
			exit(2);
		}
	}

	Target target_;
	Conn conn_;
	Bytes out_;
};

static bool play(const std::string &path, const std::vector<Target> &targets, bool shows)
{
	std::vector<Strings> all;
	bool good = true;
	for (const Target &target : targets) {
		Run run(target);
		run.play(path);
		if (run.timed_out)
			printf("FAILURE: %s: %s:%u did not answer\n", path.c_str(), target.host.c_str(), target.port);
		good = good && !run.timed_out;
		all.push_back(run.lines);
	}
	bool same = all.size() < 2 || all[0] == all[1];
	if (shows || !good)
		for (const std::string &line : all[0])
			printf("%s\n", line.c_str());
	for (size_t i = 0; !same && i < std::max(all[0].size(), all[1].size()); i++) {
		std::string a = i < all[0].size() ? all[0][i] : "(nothing)", b = i < all[1].size() ? all[1][i] : "(nothing)";
		printf("%s %s\n", a == b ? "  both" : "  A   ", a.substr(0, 300).c_str());
		if (a != b)
			printf("  B    %s\n", b.substr(0, 300).c_str());
	}
	printf("%s %s: %zu replies\n", good && same ? "ok" : "FAILED", path.c_str(), all[0].size());
	return good && same;
}

// ---- sizes
static std::string letters(size_t size)
{
	std::string text(size, 'a');
	for (size_t i = 0; i < size; i++)
		text[i] = static_cast<char>('a' + (i * 7 + i / 26) % 26);
	return text;
}

// Sends and waits for ReadyForQuery; the only row's first column must be this.
static bool echoes(Conn &conn, const Bytes &bytes, const std::string &wanted, const char *form, size_t size)
{
	std::string row = "(no row)", error;
	Message m;
	if (conn.send(bytes)) {
		while (conn.next(m, limit_ms) == Conn::Got::Message && m.type != 'Z') {
			auto cells = m.type == 'D' ? columns(m.body) : std::nullopt;
			if (cells && !cells->empty() && cells->front())
				row = *cells->front();
			if (m.type == 'E')
				error = field(m.body, 'M');
		}
	}
	if (m.type == 'Z' && row == wanted)
		return true;
	printf("FAILURE: %s of %zu bytes: expected %zu letters, came %zu: %s %s\n", form, size, wanted.size(), row.size(),
	       error.c_str(), conn.error().c_str());
	printf("%s", hexdump(row, 128).c_str());
	return false;
}

static bool sweep(const Target &target, const std::set<size_t> &sizes)
{
	Conn conn;
	if (!conn.login(target)) {
		printf("FAILURE: login: %s\n", conn.error().c_str());
		return false;
	}
	uint64_t count = 0;
	for (size_t size : sizes) { // the size of the whole message: of Query, of Bind, of DataRow
		size_t query_head = query("select ''").size(), bind_head = bind_to("", "", {Bytes()}).size();
		std::string text = letters(size > query_head ? size - query_head : 0);
		if (!echoes(conn, query("select '" + text + "'"), text, "Query", size))
			return false;
		text = letters(size > bind_head ? size - bind_head : 0);
		if (!echoes(conn, parse("select $1::text") + bind_to("", "", {text}) + execute() + sync(), text, "Bind", size))
			return false;
		text = std::string(size > 11 ? size - 11 : 0, 'x');
		if (!echoes(conn, query("select repeat('x', " + std::to_string(text.size()) + ")"), text, "DataRow", size))
			return false;
		count += 3;
	}
	conn.send(terminate());
	printf("ok sweep %s:%u: %" PRIu64 " messages of %zu sizes\n", target.host.c_str(), target.port, count,
	       sizes.size());
	return true;
}

static std::set<size_t> sweep_sizes(uint64_t margin, bool every)
{
	std::set<size_t> sizes;
	for (size_t size = 1; size <= (every ? 65600 : 40); size++)
		sizes.insert(size);
	for (size_t k = 1; k <= 32; k++)
		for (uint64_t d = 0; d <= 2 * margin; d++)
			sizes.insert(k * 4096 + d - margin);
	for (size_t big : {262144, 1048576})
		for (uint64_t d = 0; d <= 2 * margin; d++)
			sizes.insert(big + d - margin);
	return sizes;
}

static void set_address(Target &target, const std::string &address)
{
	size_t colon = address.rfind(':');
	if (colon == std::string::npos)
		return;
	target.host = address.substr(0, colon);
	target.port = static_cast<unsigned>(strtoul(address.c_str() + colon + 1, nullptr, 10));
}

int main(int argc, char **argv)
{
	Options opt(argc, argv);
	Target a = opt.target(), b = a;
	std::string address_a = opt.text("a", "", "HOST:PORT, first address"),
	            address_b = opt.text("b", "", "HOST:PORT, to compare with");
	Strings scripts = opt.list("script", "file (repeatable)");
	std::string folder = opt.text("dir", "", "folder: all its .msg files");
	limit_ms = opt.number("limit-ms", limit_ms, "longest time to wait for a reply");
	with_login = opt.flag("with-login", "the parameters reported at login too");
	bool shows = opt.flag("show", "print the replies although two addresses are compared");
	bool sweeps = opt.flag("sweep", "echo sizes around multiples of 4096");
	bool every = opt.flag("sweep-all", "echo every size from 1 to 65600");
	uint64_t margin = opt.number("margin", 2, "how far around");
	opt.finish();
	set_address(a, address_a);
	set_address(b, address_b);
	std::vector<Target> targets{a};
	if (!address_b.empty())
		targets.push_back(b);
	if (DIR *dir = folder.empty() ? nullptr : opendir(folder.c_str())) {
		while (dirent *entry = readdir(dir))
			if (strlen(entry->d_name) > 4 && strcmp(entry->d_name + strlen(entry->d_name) - 4, ".msg") == 0)
				scripts.push_back(folder + "/" + entry->d_name);
		closedir(dir);
	}
	std::sort(scripts.begin(), scripts.end());
	bool good = !scripts.empty() || sweeps || every;
	for (const std::string &script : scripts)
		good = play(script, targets, shows || targets.size() == 1) && good;
	if (sweeps || every)
		for (const Target &target : targets)
			good = sweep(target, sweep_sizes(margin, every)) && good;
	printf("%s replay: %zu scripts\n", good ? "ok" : "FAILED", scripts.size());
	return good ? 0 : 1;
}
