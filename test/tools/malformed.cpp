// malformed: bytes that no honest client sends, in every state of a connection.
//
// It owns the cases (wrong lengths, wrong types, broken startup packets, negotiation games, foreign protocols,
// SASL lies, mutated sessions, half-open connections) and a small engine that runs many of them side by side.
// A case is right when the server answers with an error, or closes, or serves where the bytes were legal, and
// in any case is done with the connection within --limit-ms; a connection that says nothing is half-closed
// after a moment, so a server that waits for the rest of a message must notice the end. After each group a
// good login and a query must still work.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sys/epoll.h>
#include <thread>
#include <unistd.h>

#include "rawpg.hpp"

using namespace rawpg;

namespace
{

// Bytes to send, after the answer that is named was seen: a message type, '?' for one byte, 0 for none.
struct Stage {
	Bytes bytes;
	char after = 0;
	uint32_t wait_ms = 0;
};

struct Case {
	std::string name;
	std::vector<Stage> stages;
	bool must_serve = false;   // legal: ReadyForQuery has to come
	std::string must_not_come; // this text in the answer is a failure
	bool hasty = false;        // half-close at once
};

enum class Outcome { Running, Error, Closed, Served, Bad };

struct Probe {
	Case test;
	Channel channel;
	bool connected = false, half_closed = false, raw_answer = false;
	size_t stage = 0, sent = 0;
	uint64_t began = 0, heard = 0, send_at = 0, answered = 0;
	Bytes answer;
	Splitter in;
	bool saw_error = false, saw_ready = false;
	char last_seen = 0;
	std::string why;
	Outcome outcome = Outcome::Running;
};

} // namespace

static Target plain, scram;
static uint64_t limit_ms, parallel, seed, failures, cases_run;
static std::map<Outcome, uint64_t> outcomes;

static void report(const Probe &p, const std::string &what)
{
	if (failures++ >= 10)
		return;
	printf("FAILURE: %s: %s\n  seed %" PRIu64 "\n  stage %zu of %zu, answer:\n%s  sent:\n", p.test.name.c_str(),
	       what.c_str(), seed, p.stage, p.test.stages.size(), hexdump(p.answer, 256).c_str());
	for (const Stage &stage : p.test.stages)
		printf("%s", hexdump(stage.bytes, 256).c_str());
}

// ---- the engine
static void finish(Probe &p, Outcome outcome)
{
	p.channel.close();
	p.outcome = outcome;
	if (outcome != Outcome::Bad && p.test.must_serve && !p.saw_ready) {
		p.outcome = Outcome::Bad;
		p.why = "legal bytes, but no ReadyForQuery";
	}
	if (!p.test.must_not_come.empty() && p.answer.find(p.test.must_not_come) != Bytes::npos) {
		p.outcome = Outcome::Bad;
		p.why = "what must not come came: " + p.test.must_not_come;
	}
	outcomes[p.outcome]++;
	cases_run++;
	if (p.outcome == Outcome::Bad)
		report(p, p.why);
}

static void hear(Probe &p)
{
	char buffer[16384];
	for (;;) {
		size_t got = 0;
		Channel::Io io = p.channel.read(buffer, sizeof buffer, got);
		if (io == Channel::Io::Again)
			return;
		if (io != Channel::Io::Ok) {
			finish(p, p.saw_error ? Outcome::Error : p.saw_ready ? Outcome::Served : Outcome::Closed);
			return;
		}
		p.heard = now_ms();
		if (p.answer.size() < 1 << 16)
			p.answer.append(buffer, got);
		size_t skip = 0;
		if (p.stage < p.test.stages.size() && p.test.stages[p.stage].after == '?') {
			p.last_seen = '?';
			skip = 1;
		}
		p.in.append(buffer + skip, got - skip);
		Message m;
		while (p.in.next(m)) {
			p.saw_error = p.saw_error || m.type == 'E';
			p.saw_ready = p.saw_ready || m.type == 'Z';
			p.last_seen = m.type;
		}
	}
}

static void speak(Probe &p)
{
	uint64_t now = now_ms();
	while (p.stage < p.test.stages.size()) {
		const Stage &stage = p.test.stages[p.stage];
		if (stage.after != 0 && p.last_seen != stage.after)
			return;
		if (p.send_at == 0)
			p.send_at = now + stage.wait_ms;
		if (now < p.send_at)
			return;
		size_t sent = 0;
		Channel::Io io = p.channel.write(stage.bytes.data() + p.sent, stage.bytes.size() - p.sent, sent);
		p.sent += sent;
		if (io == Channel::Io::Again)
			return;
		if (io != Channel::Io::Ok)
			p.sent = stage.bytes.size(); // the server has left; reading says how
		if (p.sent < stage.bytes.size())
			continue;
		p.stage++;
		p.sent = 0;
		p.send_at = 0;
		p.last_seen = 0;
		p.heard = now;
	}
}

static void step(Probe &p)
{
	if (p.outcome != Outcome::Running)
		return;
	if (!p.connected) {
		Channel::Io io = p.channel.finish_connect();
		if (io == Channel::Io::Error) {
			p.why = "connect: " + p.channel.why();
			finish(p, Outcome::Bad);
			return;
		}
		p.connected = io == Channel::Io::Ok;
	}
	if (p.connected) {
		speak(p);
		hear(p);
		if (p.outcome == Outcome::Running)
			speak(p);
	}
	if (p.outcome != Outcome::Running)
		return;
	uint64_t now = now_ms(), quiet = now - p.heard;
	bool all_sent = p.stage == p.test.stages.size();
	if (p.connected && !p.half_closed && ((all_sent && (p.test.hasty || quiet > 150)) || quiet > limit_ms / 2)) {
		p.channel.half_close();
		p.half_closed = true;
		p.heard = now;
	}
	if (now - p.heard > limit_ms) {
		p.why = "not done after " + std::to_string(limit_ms) + " ms";
		finish(p, Outcome::Bad);
	}
}

static void open_probe(std::vector<std::unique_ptr<Probe>> &running, Case &test, int epoll_fd)
{
	auto p = std::make_unique<Probe>();
	p->test = std::move(test);
	p->began = p->heard = now_ms();
	if (!p->channel.open(plain)) {
		p->why = p->channel.why();
		finish(*p, Outcome::Bad);
		return;
	}
	epoll_event event{};
	event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	event.data.ptr = p.get();
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, p->channel.fd(), &event);
	running.push_back(std::move(p));
}

static void good_login(const std::string &after)
{
	Conn conn;
	std::string why;
	if (conn.login(plain, limit_ms)) {
		Result r = conn.run("select 'probe'", limit_ms);
		conn.send(terminate());
		if (r.ok && r.value() == "probe")
			return;
		why = r.error;
	}
	failures++;
	printf("FAILURE: after %s a good login does not work: %s %s\n", after.c_str(), conn.error().c_str(), why.c_str());
}

static void run_group(const std::string &name, std::vector<Case> cases)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	std::vector<std::unique_ptr<Probe>> running;
	std::map<Outcome, uint64_t> before = outcomes;
	uint64_t began = now_ms(), failed_before = failures;
	size_t next = 0, count = cases.size();
	epoll_event events[256];
	while (next < count || !running.empty()) {
		while (next < count && running.size() < parallel)
			open_probe(running, cases[next++], epoll_fd);
		epoll_wait(epoll_fd, events, 256, 5);
		for (auto &p : running)
			step(*p);
		running.erase(std::remove_if(running.begin(), running.end(),
		                             [](const auto &p) { return p->outcome != Outcome::Running; }),
		              running.end());
		if (failures > failed_before + 50)
			break; // enough to look at
	}
	close(epoll_fd);
	good_login(name);
	printf("%s %s: %zu cases, %" PRIu64 " errors, %" PRIu64 " closed, %" PRIu64 " served, %" PRIu64 " bad, %.1f s\n",
	       failures == failed_before ? "ok" : "FAILED", name.c_str(), count,
	       outcomes[Outcome::Error] - before[Outcome::Error], outcomes[Outcome::Closed] - before[Outcome::Closed],
	       outcomes[Outcome::Served] - before[Outcome::Served], outcomes[Outcome::Bad] - before[Outcome::Bad],
	       static_cast<double>(now_ms() - began) / 1000);
}

// ---- cases
static const uint32_t kLengths[] = {0xffffffff, 0, 3, 4, 5, 0x7fffffff, 0x80000000, 0x40000000, 0x10000};

static Bytes with_length(Bytes bytes, size_t at, uint32_t length)
{
	Bytes four;
	Writer(four).u32(length);
	return bytes.replace(at, 4, four);
}

static Bytes sasl_first(uint32_t inner, const Bytes &data)
{
	Bytes body;
	Writer(body).string("SCRAM-SHA-256").u32(inner).bytes(data);
	return message('p', body);
}

static const char kClientFirst[] = "n,,n=,r=abcdefghijklmnopqrstuvwx";

// What brings a connection into a state; the bad bytes are one more stage.
static std::vector<std::pair<std::string, std::vector<Stage>>> states()
{
	std::vector<std::pair<std::string, std::vector<Stage>>> all;
	Bytes first = sasl_first(sizeof kClientFirst - 1, kClientFirst);
	all.push_back({"nothing sent", {}});
	all.push_back({"after SSLRequest", {{request(kSslRequest)}, {Bytes(), '?'}}});
	all.push_back({"after GSSENCRequest", {{request(kGssRequest)}, {Bytes(), '?'}}});
	all.push_back({"startup unanswered", {{scram.startup_packet()}}});
	all.push_back({"SASL offered", {{scram.startup_packet()}, {Bytes(), 'R'}}});
	all.push_back({"in the SASL exchange", {{scram.startup_packet()}, {first, 'R'}, {Bytes(), 'R'}}});
	all.push_back({"logged in", {{plain.startup_packet()}, {Bytes(), 'Z'}}});
	return all;
}

static Case in_state(const std::pair<std::string, std::vector<Stage>> &state, const std::string &name,
                     const Bytes &bytes)
{
	Case c;
	c.name = name + " (" + state.first + ")";
	c.stages = state.second;
	if (!c.stages.empty() && c.stages.back().bytes.empty())
		c.stages.back().bytes = bytes;
	else if (state.first == "startup unanswered")
		c.stages.back().bytes += bytes; // in one segment
	else
		c.stages.push_back({bytes});
	return c;
}

static std::vector<Bytes> samples()
{
	return {query("select 1"), parse("select 1"), bind_to(),
	        describe('S', ""), execute(),         close_name('S', ""),
	        rawpg::sync(),     flush(),           copy_data("x"),
	        copy_done(),       copy_fail("x"),    function_call(2311, {"x"}),
	        terminate(),       password("x"),     message('p', "SCRAM-SHA-256")};
}

static std::vector<Case> length_cases()
{
	std::vector<Case> cases;
	for (const auto &state : states()) {
		for (const Bytes &sample : samples())
			for (uint32_t length : kLengths)
				cases.push_back(in_state(
				    state, std::string("length ") + std::to_string(static_cast<int>(length)) + " of " + sample[0],
				    with_length(sample, 1, length)));
		for (uint32_t length : kLengths)
			cases.push_back(in_state(state, "startup length " + std::to_string(static_cast<int>(length)),
			                         with_length(plain.startup_packet(), 0, length)));
	}
	return cases;
}

static std::vector<Case> type_cases()
{
	std::vector<Case> cases;
	for (const auto &state : states())
		for (int type = 0; type < 256; type++)
			cases.push_back(
			    in_state(state, "type " + std::to_string(type), message(static_cast<char>(type), Bytes(8, '\0'))));
	return cases;
}

// Counts and inner lengths of Parse, Bind, FunctionCall that do not add up.
static std::vector<Case> inner_cases()
{
	std::vector<Case> cases;
	auto logged_in = states().back();
	auto add = [&](const std::string &name, const Bytes &bytes) {
		cases.push_back(in_state(logged_in, name, bytes + rawpg::sync()));
	};
	Bytes two(2, '\0'), names("\0\0", 2);
	for (uint32_t count : {1U, 2U, 0x7fffU, 0x8000U, 0xffffU}) {
		Bytes n, text = "count " + std::to_string(count);
		Writer(n).u16(static_cast<uint16_t>(count));
		add("Parse types, " + text, message('P', Bytes("\0select 1\0", 10) + n));
		add("Bind formats, " + text, parse("select $1::text") + message('B', names + n));
		add("Bind parameters, " + text, parse("select $1::text") + message('B', names + two + n));
		add("Bind results, " + text, parse("select 1") + message('B', names + two + two + n));
		add("FunctionCall arguments, " + text, message('F', Bytes(4, '\0') + two + n));
	}
	for (uint32_t length : {0xfffffffeU, 0x80000000U, 0x7fffffffU, 2U, 5U}) {
		Bytes n;
		Writer(n).u16(1).u32(length);
		add("Bind parameter length", parse("select $1::text") + message('B', names + two + n + "a" + two));
		add("FunctionCall argument length", message('F', Bytes(4, '\0') + two + n + "a" + two));
	}
	for (const char *type : {"Q", "P", "B", "D", "E", "C", "F", "f"})
		for (const Bytes &body :
		     {Bytes(), Bytes("x"), Bytes("S"), Bytes("select 1"), Bytes(3, '\0'), Bytes(70000, 'x')})
			add(std::string("body without terminator of ") + type, message(type[0], body));
	// The backend skips the queries, for no Sync comes.
	Case skipped = in_state(logged_in, "Flush with a body", message('H', "x") + query("begin") + terminate());
	skipped.hasty = true;
	cases.push_back(std::move(skipped));
	return cases;
}

static Bytes padded_startup(size_t size)
{
	Pairs pairs{{"user", plain.user}, {"database", plain.database}, {"application_name", ""}};
	size_t bare = startup_packet(pairs).size();
	if (size >= bare) {
		pairs[2].second.assign(size - bare, 'x');
		return startup_packet(pairs);
	}
	Bytes cut = startup_packet(pairs).substr(0, size);
	return size >= 4 ? with_length(cut, 0, static_cast<uint32_t>(size)) : cut;
}

static std::vector<Case> startup_cases()
{
	std::vector<Case> cases;
	auto add = [&](const std::string &name, const Bytes &bytes, bool serves = false) {
		cases.push_back({name, {{bytes}}, serves, "", false});
	};
	for (size_t size : {4, 7, 8, 9, 12, 300, 2000, 9999, 10000, 10001, 10002, 10003, 10004, 65536})
		add("startup of " + std::to_string(size) + " bytes", padded_startup(size), size >= 300 && size <= 9999);
	Bytes version;
	Writer(version).u32(kProtocol30);
	const std::string &user = plain.user;
	Bytes zero(1, '\0'), named = version + Bytes("user") + zero + user + zero;
	add("no final zero", packet(named));
	add("no zero at all", packet(version + Bytes("user")));
	add("name without value", packet(named + Bytes("database") + zero));
	add("bytes after the final zero", packet(named + zero + "garbage"));
	add("only zeros", packet(version + Bytes(100, '\0')));
	add("empty user", startup_packet({{"user", ""}}));
	add("no user", startup_packet({{"database", plain.database}}));
	add("user twice", startup_packet({{"user", user}, {"user", scram.user}, {"database", plain.database}}));
	add("zero inside a name", startup_packet({{std::string("us\0er", 5), user}}));
	for (size_t size : {63, 64, 65, 300, 9000})
		add("long user", startup_packet({{"user", std::string(size, 'u')}, {"database", std::string(size, 'd')}}));
	add("unknown parameter", startup_packet({{"user", user}, {"database", plain.database}, {"no_such_setting", "1"}}));
	add("protocol option", startup_packet({{"user", user}, {"database", plain.database}, {"_pq_.nonsense", "1"}}),
	    true);
	add("hostile search_path",
	    startup_packet({{"user", user}, {"database", plain.database}, {"search_path", "public.<;"}}));
	for (uint32_t protocol : {0U, 1U, 0x20000U, 0x30001U, 0x30002U, 0x3ffffU, 0x40000U, 0xffffffffU, 80877105U})
		add("protocol " + std::to_string(protocol),
		    startup_packet({{"user", user}, {"database", plain.database}}, protocol));
	Bytes whole = plain.startup_packet();
	for (size_t at = 1; at < whole.size(); at++)
		cases.push_back({"startup split at " + std::to_string(at),
		                 {{whole.substr(0, at)}, {whole.substr(at), 0, 5}},
		                 true,
		                 "",
		                 false});
	for (int n = 0; n < 3; n++) {
		Case slow{"startup, a byte every 50 ms", {}, true, "", false};
		for (char c : whole)
			slow.stages.push_back({Bytes(1, c), 0, 50});
		cases.push_back(slow);
	}
	for (size_t size : {0, 4, 8, 12, 13, 20, 300})
		add("cancel request of " + std::to_string(size) + " key bytes", cancel_request(12345, Bytes(size, 'k')));
	return cases;
}

static std::vector<Case> foreign_cases(Rng &rng)
{
	std::vector<Case> cases;
	auto add = [&](const std::string &name, const Bytes &bytes) {
		cases.push_back({name, {{bytes}}, false, "", false});
	};
	add("HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: probe\r\n\r\n");
	add("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	add("SSH", "SSH-2.0-OpenSSH_9.2p1\r\n");
	add("TLS record", unhex("16030100a5010000a10303") + rng.bytes(160));
	add("Redis", "*1\r\n$4\r\nPING\r\n");
	add("ones", Bytes(64, '\xff'));
	add("PROXY protocol", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
	for (int i = 0; i < 300; i++)
		add("random bytes", rng.bytes(1 + rng.below(3000)));
	for (int i = 0; i < 100; i++) {
		Bytes bytes;
		Writer(bytes).u32(static_cast<uint32_t>(rng.below(12000))).u32(kProtocol30);
		add("random after the version", bytes + rng.bytes(1 + rng.below(12000)));
	}
	return cases;
}

static char answer_to(uint32_t code)
{
	Conn conn;
	Target t = plain;
	t.tls = Tls::Off;
	char answer = '-';
	if (conn.connect(t, limit_ms) && conn.send(request(code)))
		conn.next_byte(answer, limit_ms);
	return answer;
}

// What is sent in clear together with SSLRequest must never be executed after the server said 'S'.
static std::vector<Case> clear_cases()
{
	std::vector<Case> cases;
	Bytes rest = plain.startup_packet() + query("select 'in the ' || 'clear'");
	char answer = answer_to(kSslRequest), gss = answer_to(kGssRequest);
	printf("SSLRequest is answered with %c, GSSENCRequest with %c\n", answer, gss);
	const char *forbidden = answer == 'S' ? "in the clear" : "";
	cases.push_back({"SSLRequest and startup in one write", {{request(kSslRequest) + rest}}, false, forbidden, false});
	cases.push_back(
	    {"SSLRequest, startup without waiting", {{request(kSslRequest)}, {rest, 0, 1}}, false, forbidden, false});
	cases.push_back(
	    {"startup in clear after the answer", {{request(kSslRequest)}, {rest, '?'}}, false, forbidden, false});
	cases.push_back({"GSSENCRequest and startup in one write", {{request(kGssRequest) + rest}}, false, "", false});
	cases.push_back(
	    {"both requests and startup", {{request(kGssRequest) + request(kSslRequest) + rest}}, false, forbidden, false});
	cases.push_back({"startup after GSSENCRequest",
	                 {{request(kGssRequest)}, {plain.startup_packet(), '?'}},
	                 gss == 'N',
	                 "",
	                 false});
	return cases;
}

static void negotiation_game(uint64_t rounds, uint64_t most)
{
	for (int kind = 0; kind < 3; kind++) { // both in turns, SSL alone, GSS alone
		Conn conn;
		uint64_t n = 0;
		char answer = 0;
		if (!conn.connect(plain, limit_ms))
			continue;
		for (; n < rounds; n++) {
			bool ssl = kind == 1 || (kind == 0 && n % 2 == 1);
			if (!conn.send(request(ssl ? kSslRequest : kGssRequest), limit_ms) ||
			    conn.next_byte(answer, limit_ms) != Conn::Got::Message || answer != 'N')
				break;
		}
		printf("negotiation %s: %" PRIu64 " requests were answered with N, then came %c\n",
		       kind == 0   ? "in turns"
		       : kind == 1 ? "SSL"
		                   : "GSS",
		       n, answer == 0 ? '-' : answer);
		if (most > 0 && n > most) {
			failures++;
			printf("FAILURE: more than %" PRIu64 " negotiation requests were answered in one connection\n", most);
		}
	}
	good_login("negotiation");
}

static std::vector<Case> sasl_cases(Rng &rng)
{
	std::vector<Case> cases;
	auto offered = states()[4], exchange = states()[5];
	Bytes first = kClientFirst;
	uint32_t n = static_cast<uint32_t>(first.size());
	for (uint32_t inner : {0xfffffffeU, 0xffffffffU, 0U, 1U, n - 1, n, n + 1, n + 100, 0x7fffffffU, 0x80000000U})
		cases.push_back(in_state(offered, "SASL inner length " + std::to_string(static_cast<int>(inner)),
		                         sasl_first(inner, first)));
	for (const char *text : {"", ",", "n", "n,,", "n,,n=", "n,,n=,", "n,,n=,r=", "y,,n=,r=abc",
	                         "p=tls-server-end-point,,n=,r=abc", "n,a=x,n=,r=abc", "n,,m=x,n=,r=abc",
	                         "n,,r=abc,n=", "x,,n=,r=abc", "n,,n=,r=abc,x", "n,,n=,r=\x01\x02", "n,,n=,r=abc,r=abc"})
		cases.push_back(in_state(offered, std::string("client-first ") + text,
		                         sasl_first(static_cast<uint32_t>(strlen(text)), text)));
	Bytes zero(1, '\0');
	for (const Bytes &mechanism :
	     {Bytes(), Bytes("SCRAM-SHA-1"), Bytes("SCRAM-SHA-256-PLUS"), Bytes(5000, 'x'), Bytes("PLAIN")})
		cases.push_back(
		    in_state(offered, "mechanism", message('p', mechanism + zero + Bytes("\0\0\0\x05", 4) + "n,,n=")));
	cases.push_back(in_state(offered, "long nonce", sasl_first(60009, "n,,n=,r=" + Bytes(60001, 'a'))));
	cases.push_back(in_state(offered, "huge client-first", sasl_first(1000000, Bytes(1000000, 'a'))));
	for (const char *text : {"", "c", "c=biws", "c=biws,r=abc", "c=biws,r=abc,p=", "c=biws,r=abc,p=!!!!", "p=abc",
	                         "c=,r=,p=", "c=eSws,r=x,p=AAAA", "x=1"})
		cases.push_back(in_state(exchange, std::string("client-final ") + text, message('p', text)));
	cases.push_back(in_state(exchange, "long proof", message('p', "c=biws,r=abc,p=" + Bytes(65000, 'A'))));
	for (int i = 0; i < 100; i++)
		cases.push_back(
		    in_state(rng.chance(50) ? offered : exchange, "random", message('p', rng.bytes(rng.below(300)))));
	return cases;
}

// ---- mutations of a whole session
static std::vector<Bytes> session()
{
	Target t = plain;
	t.params.emplace_back("options", "-c statement_timeout=2000");
	return {t.startup_packet(),
	        query("select 1, 'two'"),
	        parse("select $1::text, $2::int"),
	        bind_to("", "", {"a", "42"}),
	        describe('P', ""),
	        execute(10),
	        rawpg::sync(),
	        query("copy (select 1) to stdout"),
	        parse("select i from generate_series(1, 5) i", "named"),
	        describe('S', "named"),
	        flush(),
	        bind_to("named", "portal"),
	        execute(2, "portal"),
	        execute(2, "portal"),
	        close_name('P', "portal"),
	        close_name('S', "named"),
	        rawpg::sync(),
	        function_call(2311, {"x"}),
	        query("begin"),
	        query("select 1/0"),
	        query("rollback"),
	        copy_data("x"),
	        copy_done(),
	        terminate()};
}

static Case mutated(const std::vector<Bytes> &whole, Rng &rng)
{
	std::vector<Bytes> parts = whole;
	bool spare_startup = rng.chance(80); // or most would end there
	auto pick = [&] { return spare_startup ? 1 + rng.below(parts.size() - 1) : rng.below(parts.size()); };
	for (uint64_t left = rng.between(1, 4); left > 0; left--) {
		size_t i = pick(), j = pick();
		switch (rng.below(6)) {
		case 0:
			if (!parts[i].empty())
				parts[i][rng.below(parts[i].size())] ^= static_cast<char>(1 << rng.below(8));
			break;
		case 1:
			parts[i].resize(rng.below(parts[i].size() + 1));
			break;
		case 2:
			parts.insert(parts.begin() + static_cast<long>(i), Bytes(parts[j]));
			break;
		case 3:
			std::swap(parts[i], parts[j]);
			break;
		case 4:
			if (parts[i].size() >= 5)
				parts[i] = with_length(parts[i], i == 0 ? 0 : 1,
				                       rng.chance(50) ? kLengths[rng.below(9)] : static_cast<uint32_t>(rng.below(200)));
			break;
		default:
			parts[i].insert(rng.below(parts[i].size() + 1), rng.bytes(1 + rng.below(8)));
		}
	}
	Case c{"mutation", {{Bytes()}}, false, "", true};
	for (const Bytes &part : parts)
		c.stages[0].bytes += part;
	return c;
}

static void mutations(uint64_t count, Rng &rng)
{
	std::vector<Bytes> whole = session();
	Case untouched{"the session as it was recorded", {{Bytes()}}, true, "", true};
	for (const Bytes &part : whole)
		untouched.stages[0].bytes += part;
	run_group("session", {untouched});
	for (uint64_t done = 0; done < count && failures < 50;) {
		std::vector<Case> batch;
		for (; batch.size() < 5000 && done < count; done++)
			batch.push_back(mutated(whole, rng));
		run_group("mutations", std::move(batch));
	}
}

// ---- half-open connections
static uint64_t median_login_ms(int times)
{
	std::vector<uint64_t> all;
	for (int i = 0; i < times; i++) {
		uint64_t began = now_us();
		Conn conn;
		if (!conn.login(plain, limit_ms)) {
			printf("  login: %s\n", conn.error().c_str());
			return UINT64_MAX / 2;
		}
		all.push_back(now_us() - began);
		conn.send(terminate());
	}
	std::sort(all.begin(), all.end());
	return all[all.size() / 2] / 1000;
}

static void half_open(uint64_t wanted, uint64_t login_ms, uint64_t cut_seconds)
{
	uint64_t files = raise_file_limit(wanted + 100);
	if (files < wanted + 100) {
		printf("the file limit of %" PRIu64 " allows only %" PRIu64 " half-open connections\n", files, files - 100);
		wanted = files - 100;
	}
	std::vector<std::unique_ptr<Channel>> held;
	Bytes parts[3] = {Bytes(), plain.startup_packet().substr(0, 7), scram.startup_packet()};
	uint64_t refused = 0, began = now_ms(), before = median_login_ms(15);
	for (uint64_t i = 0; i < wanted; i++) {
		auto channel = std::make_unique<Channel>();
		size_t sent = 0;
		bool open = channel->open(plain);
		uint64_t until = now_ms() + limit_ms;
		while (open && channel->finish_connect() == Channel::Io::Again && now_ms() < until)
			std::this_thread::sleep_for(std::chrono::milliseconds(1));
		refused += !open;
		if (open && !parts[i % 3].empty())
			channel->write(parts[i % 3].data(), parts[i % 3].size(), sent);
		held.push_back(std::move(channel));
	}
	uint64_t during = median_login_ms(15);
	bool good = during <= login_ms && refused == 0;
	printf("%s half-open: %" PRIu64 " held (%" PRIu64 " refused), median login %" PRIu64 " ms before, %" PRIu64
	       " ms during, limit %" PRIu64 " ms\n",
	       good ? "ok" : "FAILED", wanted, refused, before, during, login_ms);
	failures += !good;
	if (cut_seconds > 0) {
		uint64_t left = held.size();
		for (; left > 0 && now_ms() < began + (cut_seconds + 3) * 1000;
		     std::this_thread::sleep_for(std::chrono::milliseconds(100))) {
			left = 0;
			for (auto &channel : held) {
				char buffer[1024];
				size_t got = 0;
				Channel::Io io = channel->fd() < 0 ? Channel::Io::End : channel->read(buffer, sizeof buffer, got);
				if (io == Channel::Io::End || io == Channel::Io::Error)
					channel->close();
				left += channel->fd() >= 0;
			}
		}
		printf("%s half-open: %" PRIu64 " left after %.1f s\n", left == 0 ? "ok" : "FAILED", left,
		       static_cast<double>(now_ms() - began) / 1000);
		failures += left > 0;
	}
	held.clear();
	std::this_thread::sleep_for(std::chrono::milliseconds(200));
	good_login("half-open connections");
}

int main(int argc, char **argv)
{
	Options opt(argc, argv);
	plain = opt.target();
	scram = plain;
	scram.user = opt.text("scram-user", plain.user, "role that has to use SCRAM; --user should be a trusted one");
	scram.password = opt.text("scram-password", "", "its password (not needed by the cases)");
	limit_ms = opt.number("limit-ms", 10000, "every case must be over by then");
	parallel = opt.number("parallel", 48, "cases at the same time");
	seed = opt.number("seed", random_seed(), "seed of everything random");
	uint64_t count = opt.number("mutations", 20000, "mutated sessions");
	uint64_t held = opt.number("half-open", 5000, "half-open connections");
	uint64_t login_ms = opt.number("login-ms", 500, "fail when a login beside them takes longer (median)");
	uint64_t cut_seconds =
	    opt.number("login-timeout", 0, "half-open connections must be cut after so many seconds; 0: not checked");
	uint64_t rounds = opt.number("negotiations", 10000, "SSLRequest and GSSENCRequest sent over and over");
	uint64_t most =
	    opt.number("negotiations-most", 0, "fail when more of them are answered in one connection; 0: any number");
	std::string only = opt.text(
	    "only", "", "one group: lengths types inner startup foreign clear negotiation sasl mutations half-open");
	opt.finish();
	printf("malformed: seed %" PRIu64 ", %s:%u\n", seed, plain.host.c_str(), plain.port);
	Rng rng(seed);
	auto wanted = [&](const char *name) { return only.empty() || only == name; };
	good_login("nothing");
	if (failures == 0 && wanted("lengths"))
		run_group("lengths", length_cases());
	if (wanted("types"))
		run_group("types", type_cases());
	if (wanted("inner"))
		run_group("inner", inner_cases());
	if (wanted("startup"))
		run_group("startup", startup_cases());
	if (wanted("foreign"))
		run_group("foreign", foreign_cases(rng));
	if (wanted("clear"))
		run_group("clear", clear_cases());
	if (wanted("negotiation"))
		negotiation_game(rounds, most);
	if (wanted("sasl"))
		run_group("sasl", sasl_cases(rng));
	if (wanted("mutations"))
		mutations(count, rng);
	if (wanted("half-open") && held > 0)
		half_open(held, login_ms, cut_seconds);
	printf("%s seed=%" PRIu64 " cases=%" PRIu64 " errors=%" PRIu64 " closed=%" PRIu64 " served=%" PRIu64
	       " failures=%" PRIu64 "\n",
	       failures == 0 ? "ok" : "FAILED", seed, cases_run, outcomes[Outcome::Error], outcomes[Outcome::Closed],
	       outcomes[Outcome::Served], failures);
	return failures == 0 ? 0 : 1;
}
