// isocheck: the loop: bytes out, by the way they are chopped and broken off; bytes in; logins, cancel requests, time.
//
// See isocheck.hpp.
#include "isocheck.hpp"

#include <cinttypes>
#include <cstdio>
#include <sys/epoll.h>

namespace iso
{

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
	if (plan.chop == Chop::EachByte && c.out.size() < 3000)
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

void loop()
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

} // namespace iso
