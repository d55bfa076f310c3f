// isocheck: does every client get its own replies, all of them, in order, and nobody else's?
//
// Many clients in one epoll loop send the episodes of isomix.hpp; every message that comes is compared with
// the one that must come next. Some episodes are sent in odd pieces, slowly, or are broken off: RST at any
// byte, half-close, half a message, an open transaction left behind, the own query cancelled. Afterwards the
// table `isocheck` must hold exactly the rows whose commit was confirmed, none that was rolled back.
// Fails on: a message that is not the expected one, a foreign tag anywhere, 57014 without a cancel of one's
// own in flight, a ParameterStatus view that is not one's own, a client that waits longer than --hang.
// The first failure ends the run; it prints expectation, message, seed, client, and the last messages.
// Longer than other files, as each tool is built from its own .cpp and rawpg.cpp alone.
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <set>
#include <sys/epoll.h>

#include "isomix.hpp"

using namespace rawpg;
using namespace iso;

namespace
{

struct Settings {
	Target target;
	std::vector<std::string> users, databases;
	uint64_t clients, replies, seconds, seed, bad, hang_ms, tls_percent, least;
	bool allow_wait_timeout, allow_disconnect, with_params, with_cancel, with_rst, with_half_close, with_split,
	    with_idle;
	std::vector<std::pair<std::string, unsigned>> mix;
	unsigned mix_sum = 0;
};

struct Totals {
	uint64_t replies = 0, messages = 0, bytes = 0, episodes = 0, logins = 0, resets = 0, leaves = 0;
	uint64_t half_closes = 0, cut_messages = 0, open_transactions = 0, cancels = 0, cancelled = 0, late_cancels = 0;
	uint64_t split_sends = 0, stalls = 0, slow_reads = 0, wait_timeouts = 0, parameter_status = 0, lost = 0;
	std::map<std::string, uint64_t> by_kind;
};

// How an episode is broken off.
enum class Break { None, ResetSending, CloseSending, ResetReceiving, HalfClose, HalfCloseCut, LeaveAfter };
enum class Chop { Whole, Bytes, Random, Stall };

struct Plan {
	Break how = Break::None;
	size_t step = 0, bytes = 0; // of the step: sent, or received since it began
	Chop chop = Chop::Whole;
	uint64_t stall_at = 0, stall_us = 0;
	uint64_t read_stall_us = 0;
};

enum class Phase { Backoff, Connecting, TlsAsk, TlsShake, LoggingIn, Running, Closing, Done };
const char *const kPhases[] = {"backoff",    "connecting", "tls ask", "tls handshake",
                               "logging in", "running",    "closing", "done"};

struct Client {
	explicit Client(uint64_t seed) : rng(seed) {}
	unsigned number = 0;
	Rng rng;
	Self self;
	Target target;
	Phase phase = Phase::Backoff;
	Channel channel, cancel_channel;
	std::unique_ptr<Login> login;
	Splitter in;
	std::map<std::string, std::string> parameters;
	std::set<std::string> reported;
	Bytes out; // login bytes, or the current step's
	size_t sent = 0;
	Episode episode;
	Plan plan;
	size_t step = 0;
	std::deque<Expect> expects;
	bool step_done = false;
	uint64_t received = 0; // since the step began
	uint64_t send_after = 0, read_after = 0, progress = 0, backoff_until = 0;
	uint64_t login_began = 0;
	uint64_t cancel_at = 0;
	enum class Cancel { None, Planned, Connecting, Sent, Over } cancel = Cancel::None;
	bool cancelled = false, skipping = false, given_up = false;
	uint32_t watching = 0, cancel_watching = 0;
	std::vector<Insert> ledger;
	std::deque<Message> last; // bodies cut short
	std::deque<size_t> last_size;
};

} // namespace

static Settings cfg;
static Totals totals;
static std::vector<std::unique_ptr<Client>> clients;
static std::map<std::string, unsigned> owner_of_tag;
static int epoll_fd = -1;
static bool failed = false, stopping = false;
static uint64_t started;

constexpr size_t kKept = 192; // bytes kept of each of the last messages

// ---- reports
static std::string text_of(const Expect &e)
{
	std::string t(1, e.type);
	if (!e.id.empty())
		t += " id \"" + e.id + (e.numbered ? "." + std::to_string(e.at) + "\"" : "\"");
	if (e.rows != 1)
		t += " rows left " + std::to_string(e.rows);
	if (e.size > 0)
		t += " payload of " + std::to_string(e.size) + " bytes";
	if (!e.text.empty())
		t += " \"" + e.text + "\"";
	if (e.type == 'Z')
		t += std::string(" status ") + e.status;
	return t;
}

static std::string state_of(const Client &c)
{
	char line[512];
	snprintf(line, sizeof line,
	         "client %u tag %s phase %s episode %s step %zu of %zu, sent %zu of %zu, received %" PRIu64
	         " in this step, unparsed %zu, expects %zu, cancel %d, break %d, pid %u",
	         c.number, c.self.tag.c_str(), kPhases[static_cast<int>(c.phase)], c.episode.name.c_str(), c.step,
	         c.episode.steps.size(), c.sent, c.out.size(), c.received, c.in.pending(), c.expects.size(),
	         static_cast<int>(c.cancel), static_cast<int>(c.plan.how), c.login ? c.login->pid : 0);
	return line;
}

static void fail(const Client &c, const std::string &what, const std::string &got)
{
	if (failed)
		return;
	failed = true;
	printf("FAILURE: %s\n  seed     %" PRIu64 "\n  state    %s\n", what.c_str(), cfg.seed, state_of(c).c_str());
	for (size_t i = 0; i < c.expects.size() && i < 4; i++)
		printf("  %s %s\n", i == 0 ? "expected" : "    then", text_of(c.expects[i]).c_str());
	if (c.expects.empty())
		printf("  expected nothing\n");
	printf("  came     %s\n  last messages, oldest first:\n", got.c_str());
	for (size_t i = 0; i < c.last.size(); i++)
		printf("   %s of %zu\n%s", brief(c.last[i]).c_str(), c.last_size[i], hexdump(c.last[i].body, kKept).c_str());
	printf("  bytes of this step:\n%s", hexdump(c.out, 768).c_str());
	fflush(stdout);
}

static void remember(Client &c, const Message &m)
{
	c.last.push_back({m.type, m.body.substr(0, kKept)});
	c.last_size.push_back(m.body.size());
	if (c.last.size() > 8) {
		c.last.pop_front();
		c.last_size.pop_front();
	}
}

// ---- connections
static void watch(Channel &channel, uint32_t &now, uint32_t wanted, uint64_t id)
{
	if (channel.fd() < 0 || now == wanted)
		return;
	epoll_event event{};
	event.events = wanted;
	event.data.u64 = id;
	epoll_ctl(epoll_fd, now == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, channel.fd(), &event);
	now = wanted;
}

static void drop_cancel(Client &c)
{
	c.cancel_channel.close();
	c.cancel_watching = 0;
	c.cancel = Client::Cancel::None;
}

// What happened to the inserts of an episode that did not end.
static void settle(Client &c)
{
	for (Insert &insert : c.episode.inserts) {
		if (insert.state == Insert::State::Pending) {
			bool may = insert.step < c.step || (insert.step == c.step && c.sent >= insert.offset);
			insert.state = may ? Insert::State::Unknown : Insert::State::Aborted;
		}
		c.ledger.push_back(insert);
	}
	c.episode.inserts.clear();
}

static void leave(Client &c, bool reset)
{
	settle(c);
	reset ? c.channel.reset() : c.channel.close();
	// Half of the time a cancel that is under way is left to itself: it may come when the server already
	// works for somebody else.
	if (c.cancel != Client::Cancel::Sent || c.rng.chance(50))
		drop_cancel(c);
	c.watching = 0;
	c.expects.clear();
	c.in.clear();
	c.out.clear();
	c.sent = 0;
	remember(c, {'-', "connection left"});
	c.phase = stopping ? Phase::Done : Phase::Backoff;
	c.backoff_until = now_us() + (c.rng.chance(50) ? 0 : c.rng.below(20000));
	c.progress = now_us();
}

static void lost(Client &c, const std::string &why)
{
	if (!cfg.allow_disconnect) {
		fail(c, "the connection broke", why);
		return;
	}
	totals.lost++;
	leave(c, false);
	c.backoff_until = now_us() + 50000 + c.rng.below(100000);
}

static void begin_connect(Client &c)
{
	c.cancelled = c.skipping = c.given_up = false;
	c.plan = Plan();
	c.login_began = c.progress = now_us();
	c.read_after = c.send_after = 0;
	c.target.tls =
	    c.rng.chance(cfg.tls_percent) ? (cfg.target.tls == Tls::Off ? Tls::Request : cfg.target.tls) : Tls::Off;
	drop_cancel(c);
	if (!c.channel.open(c.target)) {
		lost(c, c.channel.why());
		return;
	}
	c.login = std::make_unique<Login>(c.target);
	c.phase = Phase::Connecting;
	watch(c.channel, c.watching, EPOLLOUT, c.number * 2);
}

static void send_startup(Client &c)
{
	c.phase = Phase::LoggingIn;
	c.out = c.target.startup_packet();
	c.sent = 0;
}

// ---- choosing what to do
static void break_somewhere(Client &c)
{
	Plan &plan = c.plan;
	plan.step = c.rng.below(c.episode.steps.size());
	if (c.episode.steps.back().expects.front().early)
		plan.step = c.episode.steps.size() - 1; // the answer of one step may come in the next one
	size_t size = c.episode.steps[plan.step].out.size();
	plan.bytes = c.rng.below(size + 1);
	std::vector<Break> ways;
	if (cfg.with_rst)
		ways = {Break::ResetSending, Break::ResetSending, Break::ResetReceiving, Break::ResetReceiving,
		        Break::CloseSending};
	if (cfg.with_half_close) {
		ways.push_back(Break::HalfClose);
		ways.push_back(Break::HalfCloseCut);
	}
	ways.push_back(Break::LeaveAfter);
	if (c.episode.in_transaction)
		ways.push_back(Break::LeaveAfter);
	plan.how = ways[c.rng.below(ways.size())];
	if (plan.how == Break::ResetReceiving)
		plan.bytes = c.rng.chance(70) ? c.rng.below(400) : c.rng.below(100000);
	if (plan.how == Break::HalfCloseCut && size > 1)
		plan.bytes = 1 + c.rng.below(size - 1);
}

static void misbehave(Client &c)
{
	if (c.rng.chance(50)) {
		break_somewhere(c);
		return;
	}
	if (!cfg.with_split)
		return;
	uint64_t dice = c.rng.below(10);
	if (dice < 2) {
		c.plan.read_stall_us = c.rng.below(200000);
		totals.slow_reads++;
		return;
	}
	c.plan.chop = dice < 5 ? Chop::Bytes : dice < 8 ? Chop::Random : Chop::Stall;
	c.plan.stall_us = c.rng.below(200000);
	(c.plan.chop == Chop::Stall ? totals.stalls : totals.split_sends)++;
}

static void begin_step(Client &c)
{
	Step &step = c.episode.steps[c.step];
	c.out = step.out;
	c.sent = 0;
	c.received = 0;
	c.cancelled = false;
	c.expects = step.expects;
	c.send_after = now_us() + step.wait_us;
	c.plan.stall_at = c.plan.chop == Chop::Stall ? c.rng.below(c.out.size() + 1) : SIZE_MAX;
	c.read_after = c.plan.read_stall_us > 0 ? now_us() + step.wait_us + c.plan.read_stall_us : 0;
	if (c.cancel == Client::Cancel::Over)
		c.cancel = Client::Cancel::None;
	if (step.cancel && cfg.with_cancel)
		c.cancel = Client::Cancel::Planned;
	c.cancel_at = 0;
	c.progress = now_us();
}

static void begin_episode(Client &c)
{
	uint64_t dice = c.rng.below(cfg.mix_sum);
	size_t kind = 0;
	while (dice >= cfg.mix[kind].second)
		dice -= cfg.mix[kind++].second;
	Author author(c.rng, c.self);
	c.episode = author.write(cfg.mix[kind].first);
	c.plan = Plan();
	c.step = 0;
	if (c.rng.chance(cfg.bad))
		misbehave(c);
	totals.episodes++;
	totals.by_kind[c.episode.name]++;
	begin_step(c);
	if (c.episode.name == "idle-cancel" && cfg.with_cancel) {
		// A cancel of nothing: the question that follows must not notice.
		c.cancel = Client::Cancel::Planned;
		c.cancel_at = now_us();
		c.send_after = UINT64_MAX;
	}
}

// ---- sending
static bool break_now(Client &c)
{
	const Plan &plan = c.plan;
	if (plan.how == Break::None || plan.step != c.step || c.phase != Phase::Running)
		return false;
	switch (plan.how) {
	case Break::ResetSending:
	case Break::CloseSending:
		if (c.sent < plan.bytes)
			return false;
		plan.how == Break::ResetSending ? totals.resets++ : totals.leaves++;
		totals.cut_messages += c.sent < c.out.size();
		totals.open_transactions += c.episode.in_transaction;
		leave(c, plan.how == Break::ResetSending);
		return true;
	case Break::ResetReceiving:
		if (c.received < plan.bytes && !(c.expects.empty() && c.sent == c.out.size()))
			return false;
		totals.resets++;
		leave(c, true);
		return true;
	case Break::HalfClose:
	case Break::HalfCloseCut:
		if (c.sent < (plan.how == Break::HalfClose ? c.out.size() : plan.bytes))
			return false;
		totals.half_closes++;
		c.channel.half_close();
		c.phase = Phase::Closing;
		return true;
	default:
		return false;
	}
}

// How much may go out now, by the way this episode is chopped and broken.
static size_t allowance(Client &c)
{
	size_t left = c.out.size() - c.sent;
	const Plan &plan = c.plan;
	if (c.phase != Phase::Running)
		return left;
	bool cuts = plan.how == Break::ResetSending || plan.how == Break::CloseSending || plan.how == Break::HalfCloseCut;
	if (cuts && plan.step == c.step)
		left = plan.bytes > c.sent ? plan.bytes - c.sent : 0;
	if (plan.chop == Chop::Bytes && c.out.size() < 3000)
		return left > 0 ? 1 : 0;
	if (plan.chop == Chop::Random && left > 0)
		return 1 + c.rng.below(left < 2000 ? left : 2000);
	if (plan.chop == Chop::Stall && c.sent < plan.stall_at && plan.stall_at < c.out.size()) {
		size_t to_stall = plan.stall_at - c.sent;
		return left < to_stall ? left : to_stall;
	}
	return left;
}

static void pump_out(Client &c)
{
	for (int round = 0; round < 32; round++) {
		if (break_now(c) || c.phase == Phase::Closing || c.phase == Phase::Backoff || c.phase == Phase::Done)
			return;
		if (c.sent == c.out.size() || now_us() < c.send_after)
			return;
		size_t most = allowance(c), sent = 0;
		Channel::Io io = c.channel.write(c.out.data() + c.sent, most, sent);
		if (io == Channel::Io::Again)
			return;
		if (io != Channel::Io::Ok) {
			// The reason may stand in the socket still unread; reading finds the end.
			c.sent = c.out.size();
			return;
		}
		c.sent += sent;
		c.progress = now_us();
		if (c.phase == Phase::Running && c.plan.chop == Chop::Random)
			c.send_after = now_us() + c.rng.below(2000);
		if (c.phase == Phase::Running && c.plan.chop == Chop::Stall && c.sent == c.plan.stall_at)
			c.send_after = now_us() + c.plan.stall_us;
		if (c.sent == c.out.size() && c.cancel == Client::Cancel::Planned && c.phase == Phase::Running)
			c.cancel_at = now_us() + c.episode.steps[c.step].cancel_us;
	}
}

// ---- checking
static bool own_tags_only(Client &c, const Message &m)
{
	for (size_t at = m.body.find("iso@"); at != Bytes::npos; at = m.body.find("iso@", at + 4)) {
		if (m.body.compare(at + 4, 32, c.self.tag) == 0)
			continue;
		auto owner = owner_of_tag.find(m.body.substr(at + 4, 32));
		fail(c, "foreign tag" + (owner == owner_of_tag.end() ? "" : ", of client " + std::to_string(owner->second)),
		     brief(m));
		return false;
	}
	return true;
}

static bool take_parameter(Client &c, const Message &m)
{
	totals.parameter_status++;
	size_t end = m.body.find('\0');
	std::string name = m.body.substr(0, end);
	if (end == Bytes::npos || m.body.back() != '\0' || c.reported.count(name) == 0) {
		fail(c, "a ParameterStatus that no login reported", brief(m));
		return false;
	}
	c.parameters[name] = m.body.substr(end + 1, m.body.size() - end - 2);
	return true;
}

static bool payload_is(const char *data, size_t size, const Expect &e)
{
	size_t unit = e.pattern.size();
	return size == e.size && memcmp(data, e.pattern.data(), unit) == 0 && memcmp(data, data + unit, size - unit) == 0;
}

static Strings row_text(const Expect &e)
{
	Strings cells{e.numbered ? e.id + "." + std::to_string(e.at) : e.id};
	cells.insert(cells.end(), e.more.begin(), e.more.end());
	return cells;
}

static bool row_matches(const Expect &e, const Message &m)
{
	auto cells = columns(m.body);
	Strings wanted = row_text(e);
	if (!cells || cells->size() != wanted.size() + (e.pattern.empty() ? 0 : 1))
		return false;
	for (size_t i = 0; i < wanted.size(); i++)
		if (!(*cells)[i] || *(*cells)[i] != wanted[i])
			return false;
	return e.pattern.empty() || (cells->back() && payload_is(cells->back()->data(), cells->back()->size(), e));
}

static bool copy_row_matches(const Expect &e, const Message &m)
{
	Bytes head;
	for (const std::string &cell : row_text(e))
		head += cell + "\t";
	if (m.body.size() != head.size() + e.size + 1 || m.body.compare(0, head.size(), head) != 0 || m.body.back() != '\n')
		return false;
	return payload_is(m.body.data() + head.size(), e.size, e);
}

static bool matches(Client &c, const Expect &e, const Message &m)
{
	if (e.type != m.type)
		return false;
	switch (m.type) {
	case 'D':
		return row_matches(e, m);
	case 'd':
		return copy_row_matches(e, m);
	case 'T':
		return e.id.empty() || m.body.find(e.id + '\0') != Bytes::npos;
	case 'N':
		return field(m.body, 'M') == e.id;
	case 'E':
		return field(m.body, 'C') == e.text && field(m.body, 'M').find(e.id) != std::string::npos &&
		       field(m.body, 'S') == "ERROR";
	case 'C':
		return e.text.empty() || m.body == e.text + '\0';
	case 'Z': {
		char wanted = c.skipping ? c.episode.steps[c.step].cancelled : e.status;
		return m.body.size() == 1 && m.body[0] == wanted;
	}
	default:
		return true;
	}
}

static void on_ready(Client &c, const Expect &e, char status)
{
	if (!c.skipping) {
		for (size_t i : e.commit)
			c.episode.inserts[i].state = Insert::State::Committed;
		for (size_t i : e.abort)
			c.episode.inserts[i].state = Insert::State::Aborted;
	}
	c.skipping = false;
	if (status != 'I')
		return;
	for (const auto &setting : c.self.settings) {
		auto known = c.parameters.find(setting.first);
		if (known != c.parameters.end() && known->second != setting.second)
			fail(c,
			     "ParameterStatus view of " + setting.first + " is \"" + known->second + "\" instead of \"" +
			         setting.second + "\"",
			     "Z");
	}
}

// An error that replaces the rest of the replies up to ReadyForQuery. True: taken care of.
static bool take_exception(Client &c, const Message &m)
{
	std::string state = field(m.body, 'C'), severity = field(m.body, 'S');
	bool own_cancel = c.cancel == Client::Cancel::Sent || c.cancel == Client::Cancel::Over;
	bool running =
	    c.sent == c.out.size() && !c.expects.empty() && (c.phase == Phase::Running || c.phase == Phase::Closing);
	if (state == "57014" && own_cancel && running && c.episode.steps[c.step].cancel && !c.cancelled) {
		totals.cancelled++;
		totals.replies++;
		c.cancelled = c.skipping = true;
		while (c.expects.front().type != 'Z')
			c.expects.pop_front();
		return true;
	}
	if (state == "53300" && cfg.allow_wait_timeout && c.phase == Phase::Running) {
		totals.wait_timeouts++;
		c.step = c.episode.steps.size(); // whatever was to be committed is unknown now
		leave(c, false);
		return true;
	}
	bool broken = state.compare(0, 2, "08") == 0 || state.compare(0, 2, "57") == 0 || severity == "FATAL";
	if (c.phase == Phase::Closing && broken && state != "57014") {
		c.given_up = true; // the server says that we left; now only the end may come, and nothing foreign
		return true;
	}
	if (cfg.allow_disconnect && (broken || severity == "PANIC")) {
		lost(c, brief(m));
		return true;
	}
	return false;
}

static void next_step_or_episode(Client &c)
{
	if (c.phase != Phase::Running || !c.expects.empty() || c.sent < c.out.size())
		return;
	if (c.plan.how == Break::LeaveAfter && c.plan.step == c.step) {
		totals.leaves++;
		totals.open_transactions += c.episode.in_transaction && c.step + 1 < c.episode.steps.size();
		if (c.rng.chance(40)) {
			Bytes bye = terminate();
			size_t sent = 0;
			c.channel.write(bye.data(), bye.size(), sent);
		}
		leave(c, c.rng.chance(40));
		return;
	}
	// A cancel that is under way must be over before the next question, or it could hit that one.
	if (c.cancel == Client::Cancel::Planned)
		drop_cancel(c);
	if (c.cancel == Client::Cancel::Connecting || c.cancel == Client::Cancel::Sent)
		return;
	if (c.step + 1 < c.episode.steps.size()) {
		c.step++;
		begin_step(c);
		return;
	}
	settle(c);
	if (stopping) {
		c.channel.close();
		c.watching = 0;
		c.phase = Phase::Done;
		return;
	}
	begin_episode(c);
}

static void take(Client &c, const Message &m)
{
	totals.messages++;
	totals.bytes += m.body.size() + 5;
	remember(c, m);
	if (!own_tags_only(c, m) || (m.type == 'S' && !take_parameter(c, m)) || m.type == 'S')
		return;
	if (c.phase == Phase::Closing && c.given_up)
		return;
	if (c.expects.empty() || !matches(c, c.expects.front(), m)) {
		if (m.type == 'E' && take_exception(c, m))
			return;
		fail(c, c.expects.empty() ? "a message that nobody asked for" : "not the expected message", brief(m));
		return;
	}
	Expect &e = c.expects.front();
	if (c.sent == 0 && !e.early) {
		fail(c, "an answer before the question was sent", brief(m));
		return;
	}
	if (e.type == 'Z')
		on_ready(c, e, m.body[0]);
	if (e.rows > 1) {
		e.rows--;
		e.at++;
		return;
	}
	totals.replies += (e.type == 'D' || e.type == 'd' || e.type == 'E' || e.type == 'N') ? 1 : 0;
	c.expects.pop_front();
	next_step_or_episode(c);
}

// ---- login
static void logged_in(Client &c)
{
	totals.logins++;
	c.parameters = c.login->parameters;
	c.reported.clear();
	for (const auto &p : c.parameters)
		c.reported.insert(p.first);
	c.self.utf8_server = c.parameters["server_encoding"] == "UTF8";
	c.phase = Phase::Running;
	c.out.clear();
	c.sent = 0;
	if (c.parameters.count("session_authorization") && c.parameters["session_authorization"] != c.self.user)
		fail(c, "logged in as somebody else", c.parameters["session_authorization"]);
	for (const auto &setting : c.self.settings)
		if (c.parameters.count(setting.first) && c.parameters[setting.first] != setting.second)
			fail(c, "login reports " + setting.first + " = " + c.parameters[setting.first],
			     "instead of " + setting.second);
	if (!failed)
		begin_episode(c);
}

static void take_login(Client &c, const Message &m)
{
	Bytes more;
	remember(c, m);
	switch (c.login->feed(m, more)) {
	case Login::Step::Failed:
		if (c.login->sqlstate() == "53300" && cfg.allow_wait_timeout)
			totals.wait_timeouts++;
		else
			lost(c, "login: " + c.login->error());
		if (!failed && c.phase == Phase::LoggingIn)
			leave(c, false);
		return;
	case Login::Step::Done:
		logged_in(c);
		return;
	default:
		if (!more.empty()) {
			c.out = more;
			c.sent = 0;
		}
	}
}

static void pump_connect(Client &c)
{
	Channel::Io io = Channel::Io::Ok;
	if (c.phase == Phase::Connecting) {
		io = c.channel.finish_connect();
		if (io == Channel::Io::Ok && c.target.tls == Tls::Off) {
			send_startup(c);
		} else if (io == Channel::Io::Ok && c.target.tls == Tls::Direct) {
			c.phase = Phase::TlsShake;
		} else if (io == Channel::Io::Ok) {
			c.phase = Phase::TlsAsk;
			Bytes ask = request(kSslRequest);
			size_t sent = 0;
			io = c.channel.write(ask.data(), ask.size(), sent);
		}
	} else if (c.phase == Phase::TlsAsk) {
		char answer = 0;
		size_t got = 0;
		io = c.channel.read(&answer, 1, got);
		if (io == Channel::Io::Ok && answer != 'S')
			fail(c, "the server does no TLS", std::string(1, answer));
		if (io == Channel::Io::Ok)
			c.phase = Phase::TlsShake;
	}
	if (c.phase == Phase::TlsShake) {
		io = c.channel.handshake(c.target);
		if (io == Channel::Io::Ok)
			send_startup(c);
	}
	if (io == Channel::Io::Error || io == Channel::Io::End)
		lost(c, "connecting: " + c.channel.why());
}

static void pump_in(Client &c)
{
	char buffer[65536];
	for (int round = 0; round < 16 && !failed; round++) {
		if (c.channel.fd() < 0 || now_us() < c.read_after)
			return;
		size_t got = 0, most = sizeof buffer;
		if (c.plan.how == Break::ResetReceiving && c.plan.step == c.step && c.phase == Phase::Running)
			most = c.plan.bytes > c.received && c.plan.bytes - c.received < most ? c.plan.bytes - c.received : most;
		Channel::Io io = c.channel.read(buffer, most, got);
		if (io == Channel::Io::Again)
			return;
		if (io != Channel::Io::Ok) {
			if (c.phase == Phase::Closing)
				leave(c, false); // as it must be after a half-close
			else
				lost(c, io == Channel::Io::End ? "end of file" : c.channel.why());
			return;
		}
		c.progress = now_us();
		c.received += got;
		c.in.append(buffer, got);
		if (break_now(c) && c.phase != Phase::Closing)
			return;
		Message m;
		while (!failed && c.channel.fd() >= 0 && c.in.next(m))
			c.phase == Phase::LoggingIn ? take_login(c, m) : take(c, m);
		if (c.in.broken())
			fail(c, "bytes that are no message", hex(c.in.rest().substr(0, 32)));
	}
}

// ---- cancel requests
static void start_cancel(Client &c)
{
	Target plain = c.target;
	plain.tls = Tls::Off;
	if (!c.cancel_channel.open(plain)) {
		drop_cancel(c);
		return;
	}
	c.cancel = Client::Cancel::Connecting;
	totals.cancels++;
	totals.late_cancels += c.expects.empty();
	watch(c.cancel_channel, c.cancel_watching, EPOLLOUT, c.number * 2 + 1);
}

static void pump_cancel(Client &c)
{
	if (c.cancel_channel.fd() < 0)
		return;
	if (c.cancel == Client::Cancel::Connecting) {
		Channel::Io io = c.cancel_channel.finish_connect();
		if (io == Channel::Io::Again)
			return;
		Bytes bytes = cancel_request(c.login->pid, c.login->key);
		size_t sent = 0;
		if (io != Channel::Io::Ok || c.cancel_channel.write(bytes.data(), bytes.size(), sent) != Channel::Io::Ok) {
			drop_cancel(c);
			c.cancel = Client::Cancel::Over;
			return;
		}
		c.cancel = Client::Cancel::Sent;
		watch(c.cancel_channel, c.cancel_watching, EPOLLIN, c.number * 2 + 1);
		return;
	}
	char buffer[256];
	size_t got = 0;
	Channel::Io io = c.cancel_channel.read(buffer, sizeof buffer, got);
	if (io == Channel::Io::Ok)
		fail(c, "a cancel request was answered", hex(Bytes(buffer, got)));
	if (io == Channel::Io::Again || io == Channel::Io::Ok)
		return;
	bool idle = c.send_after == UINT64_MAX;
	drop_cancel(c);
	c.cancel = Client::Cancel::Over;
	if (idle)
		c.send_after = 0;
	c.progress = now_us();
	next_step_or_episode(c);
}

// ---- the loop
static void pump(Client &c)
{
	uint64_t now = now_us();
	if (c.phase == Phase::Done)
		return;
	if (c.phase == Phase::Backoff && now >= c.backoff_until) {
		if (stopping)
			c.phase = Phase::Done;
		else
			begin_connect(c);
	}
	if (c.phase == Phase::Connecting || c.phase == Phase::TlsAsk || c.phase == Phase::TlsShake)
		pump_connect(c);
	if (c.phase == Phase::LoggingIn || c.phase == Phase::Running || c.phase == Phase::Closing) {
		pump_out(c);
		next_step_or_episode(c); // an answer can be complete before the last byte was sent
		pump_in(c);
		next_step_or_episode(c);
	}
	if (c.cancel == Client::Cancel::Planned && c.cancel_at != 0 && now >= c.cancel_at && c.channel.fd() >= 0)
		start_cancel(c);
	bool waits = c.phase != Phase::Done && c.phase != Phase::Backoff;
	if (!failed && waits && now > c.progress && now - c.progress > cfg.hang_ms * 1000)
		fail(c, "no progress for " + std::to_string(cfg.hang_ms) + " ms", "nothing");
	if (c.channel.fd() < 0)
		return;
	uint32_t wanted = now_us() < c.read_after ? 0U : EPOLLIN;
	bool shaking = c.phase == Phase::TlsShake || c.phase == Phase::TlsAsk;
	if (c.phase == Phase::Connecting || (shaking && c.channel.wants_write()) ||
	    (!shaking && c.phase != Phase::Closing && c.sent < c.out.size() && now_us() >= c.send_after &&
	     allowance(c) > 0))
		wanted |= EPOLLOUT;
	watch(c.channel, c.watching, wanted | EPOLLRDHUP, c.number * 2);
}

// Milliseconds until some client wants to do something by itself.
static int patience()
{
	uint64_t now = now_us(), soonest = now + 200000;
	auto consider = [&](uint64_t at) {
		if (at > now && at < soonest)
			soonest = at;
	};
	for (const auto &c : clients) {
		if (c->phase == Phase::Backoff)
			consider(c->backoff_until <= now ? now + 1 : c->backoff_until);
		if (c->phase == Phase::Running && c->sent < c->out.size())
			consider(c->send_after);
		consider(c->read_after);
		if (c->cancel == Client::Cancel::Planned)
			consider(c->cancel_at);
	}
	return static_cast<int>((soonest - now + 999) / 1000);
}

static void loop()
{
	uint64_t until = started + cfg.seconds * 1000000, end = 0, last_report = started, last_scan = 0;
	epoll_event events[256];
	while (!failed) {
		int count = epoll_wait(epoll_fd, events, 256, patience());
		for (int i = 0; i < count && !failed; i++) {
			Client &c = *clients[events[i].data.u64 / 2];
			if (events[i].data.u64 % 2 == 0)
				pump(c);
			else
				pump_cancel(c);
		}
		uint64_t now = now_us();
		unsigned busy = 0;
		if (now - last_scan >= 1000) {
			last_scan = now;
			for (auto &c : clients) {
				if (!failed)
					pump(*c);
				busy += c->phase != Phase::Done;
			}
			if (busy == 0)
				return;
		}
		if (!stopping && (totals.replies >= cfg.replies || now >= until)) {
			stopping = true;
			end = now + cfg.hang_ms * 2000;
		}
		if (stopping && now >= end) {
			for (auto &c : clients)
				if (c->phase != Phase::Done)
					fail(*c, "did not come to an end", "nothing");
		}
		if (now - last_report > 10000000) {
			last_report = now;
			printf("%" PRIu64 " s: %" PRIu64 " replies, %" PRIu64 " logins\n", (now - started) / 1000000,
			       totals.replies, totals.logins);
		}
	}
}

// ---- before and after
static Target setup_target(size_t i)
{
	Target t = cfg.target;
	t.user = cfg.users[0];
	t.database = cfg.databases[i % cfg.databases.size()];
	return t;
}

static bool prepare()
{
	for (size_t i = 0; i < cfg.databases.size(); i++) {
		Conn conn;
		Target t = setup_target(i);
		if (!conn.login(t)) {
			printf("cannot log in as %s to %s: %s\n", t.user.c_str(), t.database.c_str(), conn.error().c_str());
			return false;
		}
		Result r = conn.run("create table if not exists isocheck(tag text, seq bigint, payload text)");
		if (r.ok)
			conn.run("grant all on isocheck to public"); // fails when another run's role owns it: then it was done
		if (!r.ok) {
			printf("cannot make the table isocheck: %s\n", r.error.c_str());
			return false;
		}
	}
	return true;
}

// Each insert must be in the table as often as its fate says.
static bool check_inserts(Client &c, Conn &conn, std::map<Insert::State, uint64_t> &counts)
{
	Result r = conn.run("select seq, count(*), min(payload), max(payload) from isocheck where tag = '" + c.self.tag +
	                    "' group by 1");
	if (!r.ok) {
		fail(c, "cannot read the table: " + r.error, "");
		return false;
	}
	std::map<uint64_t, uint64_t> found;
	for (const auto &row : r.rows) {
		found[strtoull(row[0]->c_str(), nullptr, 10)] = strtoull(row[1]->c_str(), nullptr, 10);
		if (*row[2] != c.self.tag.substr(0, 8) || *row[2] != *row[3])
			fail(c, "a row with a foreign payload", *row[0] + " " + *row[2]);
	}
	for (const Insert &insert : c.ledger) {
		auto at = found.find(insert.seq);
		uint64_t have = at == found.end() ? 0 : at->second;
		counts[insert.state]++;
		if (at != found.end())
			found.erase(at);
		bool right = have == (insert.state == Insert::State::Committed ? insert.rows : 0) ||
		             (insert.state == Insert::State::Unknown && have == insert.rows);
		if (!right) {
			fail(c,
			     "insert " + std::to_string(insert.seq) + " of " + std::to_string(insert.rows) + " rows, " +
			         (insert.state == Insert::State::Committed ? "committed"
			          : insert.state == Insert::State::Aborted ? "rolled back"
			                                                   : "unknown"),
			     std::to_string(have) + " rows in the table");
			return false;
		}
	}
	if (!found.empty())
		fail(c, "rows that nobody inserted", std::to_string(found.begin()->first));
	conn.run("delete from isocheck where tag = '" + c.self.tag + "'");
	return !failed;
}

static void verify()
{
	std::map<Insert::State, uint64_t> counts;
	std::vector<std::unique_ptr<Conn>> conns;
	for (size_t i = 0; i < cfg.databases.size(); i++) {
		conns.push_back(std::make_unique<Conn>());
		for (int tries = 0; !conns.back()->login(setup_target(i)); tries++) {
			if (tries >= 100) {
				fail(*clients[0], "cannot log in to verify", conns.back()->error());
				return;
			}
			struct timespec pause {
				0, 100000000
			};
			nanosleep(&pause, nullptr);
		}
	}
	for (auto &c : clients)
		for (size_t i = 0; i < cfg.databases.size(); i++)
			if (cfg.databases[i] == c->self.database && !failed && !check_inserts(*c, *conns[i], counts))
				return;
	printf("inserts: %" PRIu64 " committed, %" PRIu64 " rolled back, %" PRIu64 " unknown, all as they must be\n",
	       counts[Insert::State::Committed], counts[Insert::State::Aborted], counts[Insert::State::Unknown]);
}

static void make_clients()
{
	static const char *const zones[] = {"Europe/Berlin", "UTC", "Asia/Tokyo", "America/New_York", "Australia/Sydney"};
	static const char *const dates[] = {"ISO, MDY", "German, DMY", "SQL, DMY", "ISO, YMD", "Postgres, MDY"};
	Rng rng(cfg.seed);
	for (unsigned i = 0; i < cfg.clients; i++) {
		auto c = std::make_unique<Client>(rng.next());
		c->number = i;
		c->self.tag = hex(c->rng.bytes(16));
		owner_of_tag[c->self.tag] = i;
		c->self.user = cfg.users[i % cfg.users.size()];
		c->self.database = cfg.databases[i / cfg.users.size() % cfg.databases.size()];
		c->target = cfg.target;
		c->target.user = c->self.user;
		c->target.database = c->self.database;
		if (cfg.with_params) {
			c->self.settings = {{"application_name", "iso-" + c->self.tag.substr(0, 8)},
			                    {"client_encoding", i % 2 == 0 ? "UTF8" : "LATIN1"},
			                    {"DateStyle", dates[c->rng.below(5)]},
			                    {"TimeZone", zones[c->rng.below(5)]},
			                    {"IntervalStyle", c->rng.chance(50) ? "postgres" : "iso_8601"}};
			c->self.latin1 = i % 2 != 0;
			for (const auto &setting : c->self.settings)
				c->target.params.emplace_back(setting);
		}
		c->backoff_until = now_us() + c->rng.below(20000);
		c->progress = now_us();
		clients.push_back(std::move(c));
	}
}

static void read_mix(Options &opt)
{
	std::string wanted = opt.text("mix", "", "NAME=WEIGHT,... instead of the usual weights");
	bool named = opt.flag("named", "named prepared statements too");
	for (auto kind : Author::kinds()) {
		if (kind.first == "named" && named)
			kind.second = 8;
		size_t at = ("," + wanted).find("," + kind.first + "=");
		if (!wanted.empty())
			kind.second =
			    at == std::string::npos ? 0 : static_cast<unsigned>(atoi(wanted.c_str() + at + kind.first.size() + 1));
		if (opt.flag("no-" + kind.first, "leave these episodes out") ||
		    (kind.first == "idle-cancel" && !cfg.with_cancel) || (kind.first == "cancel" && !cfg.with_cancel))
			kind.second = 0;
		cfg.mix_sum += kind.second;
		cfg.mix.push_back(kind);
	}
	if (cfg.mix_sum == 0) {
		fprintf(stderr, "isocheck: nothing is left of the mix\n");
		exit(2);
	}
}

static void read_options(int argc, char **argv)
{
	Options opt(argc, argv);
	cfg.target = opt.target();
	cfg.users = opt.list("also-user", "further role (repeatable; the same password)");
	cfg.users.insert(cfg.users.begin(), cfg.target.user);
	cfg.databases = opt.list("also-database", "further database (repeatable)");
	cfg.databases.insert(cfg.databases.begin(), cfg.target.database);
	cfg.clients = opt.number("clients", 50, "number of clients");
	cfg.replies = opt.number("replies", 200000, "end after so many checked replies");
	cfg.seconds = opt.number("seconds", 600, "end after so many seconds");
	cfg.least = opt.number("min-replies", 1, "fail when fewer replies were checked");
	cfg.seed = opt.number("seed", random_seed(), "seed of everything random");
	cfg.bad = opt.number("bad", 20, "percent of the episodes that misbehave");
	cfg.hang_ms = opt.number("hang", 30000, "milliseconds without progress that are a failure");
	cfg.tls_percent =
	    opt.number("tls-percent", cfg.target.tls == Tls::Off ? 0 : 100, "percent of the connections that use TLS");
	cfg.allow_wait_timeout = opt.flag("allow-wait-timeout", "53300 may come");
	cfg.allow_disconnect = opt.flag("allow-disconnect", "the server may close (for runs with injected faults)");
	cfg.with_params = !opt.flag("no-params", "no startup parameters");
	cfg.with_cancel = !opt.flag("no-cancel", "no CancelRequest at all");
	cfg.with_rst = !opt.flag("no-rst", "no RST and no close in mid-message");
	cfg.with_half_close = !opt.flag("no-half-close", "no half-close");
	cfg.with_split = !opt.flag("no-split", "no split sends, stalls and slow reads");
	read_mix(opt);
	opt.finish();
}

int main(int argc, char **argv)
{
	read_options(argc, argv);
	printf("isocheck: seed %" PRIu64 ", %" PRIu64 " clients, %s:%u\n", cfg.seed, cfg.clients, cfg.target.host.c_str(),
	       cfg.target.port);
	raise_file_limit(cfg.clients * 3 + 100);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!prepare())
		return 1;
	started = now_us();
	make_clients();
	loop();
	double seconds = static_cast<double>(now_us() - started) / 1e6;
	if (!failed)
		verify();
	const Totals &t = totals;
	printf("episodes:");
	for (const auto &kind : t.by_kind)
		printf(" %s %" PRIu64, kind.first.c_str(), kind.second);
	printf("\nmisbehaviour: %" PRIu64 " resets, %" PRIu64 " leaves, %" PRIu64 " half-closes, %" PRIu64
	       " cut messages, %" PRIu64 " open transactions, %" PRIu64 " split sends, %" PRIu64 " stalls, %" PRIu64
	       " slow readers\n",
	       t.resets, t.leaves, t.half_closes, t.cut_messages, t.open_transactions, t.split_sends, t.stalls,
	       t.slow_reads);
	printf("cancels: %" PRIu64 " sent, %" PRIu64 " after the end, %" PRIu64 " answered with 57014\n", t.cancels,
	       t.late_cancels, t.cancelled);
	if (t.replies < cfg.least && !failed) {
		printf("FAILURE: only %" PRIu64 " of %" PRIu64 " replies\n", t.replies, cfg.least);
		failed = true;
	}
	printf("%s seed=%" PRIu64 " replies=%" PRIu64 " messages=%" PRIu64 " bytes=%" PRIu64 " episodes=%" PRIu64
	       " logins=%" PRIu64 " wait_timeouts=%" PRIu64 " lost=%" PRIu64 " parameter_status=%" PRIu64 " seconds=%.1f\n",
	       failed ? "FAILED" : "ok", cfg.seed, t.replies, t.messages, t.bytes, t.episodes, t.logins, t.wait_timeouts,
	       t.lost, t.parameter_status, seconds);
	return failed ? 1 : 0;
}
