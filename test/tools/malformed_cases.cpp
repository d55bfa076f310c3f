// malformed: the cases, in groups. See malformed.hpp.
//
// Owns what is sent in which state of a connection, and what is legal of it. Must not know how cases are run.
#include "malformed.hpp"

#include <cstdio>
#include <cstring>
#include <utility>

namespace malformed
{

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
	all.push_back({"startup unanswered", {{run.scram.startup_packet()}}});
	all.push_back({"SASL offered", {{run.scram.startup_packet()}, {Bytes(), 'R'}}});
	all.push_back({"in the SASL exchange", {{run.scram.startup_packet()}, {first, 'R'}, {Bytes(), 'R'}}});
	all.push_back({"logged in", {{run.plain.startup_packet()}, {Bytes(), 'Z'}}});
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

std::vector<Case> length_cases()
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
			                         with_length(run.plain.startup_packet(), 0, length)));
	}
	return cases;
}

std::vector<Case> type_cases()
{
	std::vector<Case> cases;
	for (const auto &state : states())
		for (int type = 0; type < 256; type++)
			cases.push_back(
			    in_state(state, "type " + std::to_string(type), message(static_cast<char>(type), Bytes(8, '\0'))));
	return cases;
}

// Counts and inner lengths of Parse, Bind, FunctionCall that do not add up.
std::vector<Case> inner_cases()
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
	Pairs pairs{{"user", run.plain.user}, {"database", run.plain.database}, {"application_name", ""}};
	size_t bare = startup_packet(pairs).size();
	if (size >= bare) {
		pairs[2].second.assign(size - bare, 'x');
		return startup_packet(pairs);
	}
	Bytes cut = startup_packet(pairs).substr(0, size);
	return size >= 4 ? with_length(cut, 0, static_cast<uint32_t>(size)) : cut;
}

std::vector<Case> startup_cases()
{
	std::vector<Case> cases;
	auto add = [&](const std::string &name, const Bytes &bytes, bool serves = false) {
		cases.push_back({name, {{bytes}}, serves, "", false});
	};
	for (size_t size : {4, 7, 8, 9, 12, 300, 2000, 9999, 10000, 10001, 10002, 10003, 10004, 65536})
		add("startup of " + std::to_string(size) + " bytes", padded_startup(size), size >= 300 && size <= 9999);
	Bytes version;
	Writer(version).u32(kProtocol30);
	const std::string &user = run.plain.user;
	Bytes zero(1, '\0'), named = version + Bytes("user") + zero + user + zero;
	add("no final zero", packet(named));
	add("no zero at all", packet(version + Bytes("user")));
	add("name without value", packet(named + Bytes("database") + zero));
	add("bytes after the final zero", packet(named + zero + "garbage"));
	add("only zeros", packet(version + Bytes(100, '\0')));
	add("empty user", startup_packet({{"user", ""}}));
	add("no user", startup_packet({{"database", run.plain.database}}));
	add("user twice", startup_packet({{"user", user}, {"user", run.scram.user}, {"database", run.plain.database}}));
	add("zero inside a name", startup_packet({{std::string("us\0er", 5), user}}));
	for (size_t size : {63, 64, 65, 300, 9000})
		add("long user", startup_packet({{"user", std::string(size, 'u')}, {"database", std::string(size, 'd')}}));
	add("unknown parameter",
	    startup_packet({{"user", user}, {"database", run.plain.database}, {"no_such_setting", "1"}}));
	add("protocol option", startup_packet({{"user", user}, {"database", run.plain.database}, {"_pq_.nonsense", "1"}}),
	    true);
	add("hostile search_path",
	    startup_packet({{"user", user}, {"database", run.plain.database}, {"search_path", "public.<;"}}));
	for (uint32_t protocol : {0U, 1U, 0x20000U, 0x30001U, 0x30002U, 0x3ffffU, 0x40000U, 0xffffffffU, 80877105U})
		add("protocol " + std::to_string(protocol),
		    startup_packet({{"user", user}, {"database", run.plain.database}}, protocol));
	Bytes whole = run.plain.startup_packet();
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

std::vector<Case> foreign_cases(Rng &rng)
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
	Target t = run.plain;
	t.tls = Tls::Off;
	char answer = '-';
	if (conn.connect(t, run.limit_ms) && conn.send(request(code)))
		conn.next_byte(answer, run.limit_ms);
	return answer;
}

// What is sent in clear together with SSLRequest must never be executed after the server said 'S'.
std::vector<Case> clear_cases()
{
	std::vector<Case> cases;
	Bytes rest = run.plain.startup_packet() + query("select 'in the ' || 'clear'");
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
	                 {{request(kGssRequest)}, {run.plain.startup_packet(), '?'}},
	                 gss == 'N',
	                 "",
	                 false});
	return cases;
}

std::vector<Case> sasl_cases(Rng &rng)
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

std::vector<Bytes> session()
{
	Target t = run.plain;
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

Case mutated(const std::vector<Bytes> &whole, Rng &rng)
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

} // namespace malformed
