// isocheck: a client's connection, what it plays next and how it breaks that off, and what is said when it fails.
//
// See isocheck.hpp. Must not know which messages are right.
#include "isocheck.hpp"

#include <cinttypes>
#include <cstdio>
#include <sys/epoll.h>

namespace iso
{

Settings cfg;
Totals totals;
std::vector<std::unique_ptr<Client>> clients;
std::map<std::string, unsigned> owner_of_tag;
int epoll_fd = -1;
bool failed = false, stopping = false;
uint64_t started;

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

void fail(const Client &c, const std::string &what, const std::string &got)
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

void remember(Client &c, const Message &m)
{
	c.last.push_back({m.type, m.body.substr(0, kKept)});
	c.last_size.push_back(m.body.size());
	if (c.last.size() > 8) {
		c.last.pop_front();
		c.last_size.pop_front();
	}
}

// ---- connections
void watch(Channel &channel, uint32_t &now, uint32_t wanted, uint64_t id)
{
	if (channel.fd() < 0 || now == wanted)
		return;
	epoll_event event{};
	event.events = wanted;
	event.data.u64 = id;
	epoll_ctl(epoll_fd, now == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, channel.fd(), &event);
	now = wanted;
}

void drop_cancel(Client &c)
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

void leave(Client &c, bool reset)
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

void lost(Client &c, const std::string &why)
{
	if (!cfg.allow_disconnect) {
		fail(c, "the connection broke", why);
		return;
	}
	totals.lost++;
	leave(c, false);
	c.backoff_until = now_us() + 50000 + c.rng.below(100000);
}

void begin_connect(Client &c)
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

void send_startup(Client &c)
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
	c.plan.chop = dice < 5 ? Chop::EachByte : dice < 8 ? Chop::Random : Chop::Stall;
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

void begin_episode(Client &c)
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

void next_step_or_episode(Client &c)
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

} // namespace iso
