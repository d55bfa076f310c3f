// malformed: runs many cases side by side, and says which were not right. See malformed.hpp.
//
// Owns the connections of a group, and the rule when a case is done. Must not know what the cases are about.
#include "malformed.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <sys/epoll.h>
#include <unistd.h>

namespace malformed
{

namespace
{

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

Run run;

static void report(const Probe &p, const std::string &what)
{
	if (run.failures++ >= 10)
		return;
	printf("FAILURE: %s: %s\n  seed %" PRIu64 "\n  stage %zu of %zu, answer:\n%s  sent:\n", p.test.name.c_str(),
	       what.c_str(), run.seed, p.stage, p.test.stages.size(), hexdump(p.answer, 256).c_str());
	for (const Stage &stage : p.test.stages)
		printf("%s", hexdump(stage.bytes, 256).c_str());
}

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
	run.outcomes[p.outcome]++;
	run.cases_run++;
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
	if (p.connected && !p.half_closed && ((all_sent && (p.test.hasty || quiet > 150)) || quiet > run.limit_ms / 2)) {
		p.channel.half_close();
		p.half_closed = true;
		p.heard = now;
	}
	if (now - p.heard > run.limit_ms) {
		p.why = "not done after " + std::to_string(run.limit_ms) + " ms";
		finish(p, Outcome::Bad);
	}
}

static void open_probe(std::vector<std::unique_ptr<Probe>> &running, Case &test, int epoll_fd)
{
	auto p = std::make_unique<Probe>();
	p->test = std::move(test);
	p->began = p->heard = now_ms();
	if (!p->channel.open(run.plain)) {
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

void good_login(const std::string &after)
{
	Conn conn;
	std::string why;
	if (conn.login(run.plain, run.limit_ms)) {
		Result r = conn.run("select 'probe'", run.limit_ms);
		conn.send(terminate());
		if (r.ok && r.value() == "probe")
			return;
		why = r.error;
	}
	run.failures++;
	printf("FAILURE: after %s a good login does not work: %s %s\n", after.c_str(), conn.error().c_str(), why.c_str());
}

void run_group(const std::string &name, std::vector<Case> cases)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	std::vector<std::unique_ptr<Probe>> running;
	std::map<Outcome, uint64_t> before = run.outcomes;
	uint64_t began = now_ms(), failed_before = run.failures;
	size_t next = 0, count = cases.size();
	epoll_event events[256];
	while (next < count || !running.empty()) {
		while (next < count && running.size() < run.parallel)
			open_probe(running, cases[next++], epoll_fd);
		epoll_wait(epoll_fd, events, 256, 5);
		for (auto &p : running)
			step(*p);
		running.erase(std::remove_if(running.begin(), running.end(),
		                             [](const auto &p) { return p->outcome != Outcome::Running; }),
		              running.end());
		if (run.failures > failed_before + 50)
			break; // enough to look at
	}
	close(epoll_fd);
	good_login(name);
	printf("%s %s: %zu cases, %" PRIu64 " errors, %" PRIu64 " closed, %" PRIu64 " served, %" PRIu64 " bad, %.1f s\n",
	       run.failures == failed_before ? "ok" : "FAILED", name.c_str(), count,
	       run.outcomes[Outcome::Error] - before[Outcome::Error],
	       run.outcomes[Outcome::Closed] - before[Outcome::Closed],
	       run.outcomes[Outcome::Served] - before[Outcome::Served], run.outcomes[Outcome::Bad] - before[Outcome::Bad],
	       static_cast<double>(now_ms() - began) / 1000);
}

} // namespace malformed
