// holdidle: opens many logged-in clients and holds them idle; what do they cost?
//
// It logs in --clients clients, a limited number of logins at a time, from several loopback addresses when
// one has too few ports, prints "ready N" and the login rate, and holds them until standard input closes or
// --seconds are over. With --pid P it prints what the resident and the proportional memory of these processes
// grew by, per client. A client that the server closes while it is idle is a failure.
// Raises its own file limit as far as it may, and says so when fewer clients are possible.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "rawpg.hpp"

using namespace rawpg;

namespace
{

enum class Phase { Closed, Connecting, TlsAsk, TlsShake, LoggingIn, Idle };

// Only what an idle client needs; the login is freed when it is over.
struct Client {
	Channel channel;
	Phase phase = Phase::Closed;
	uint64_t began = 0;
	struct Entering {
		explicit Entering(const Target &t) : target(t), login(target) {}
		Target target;
		Login login;
		Splitter in;
	};
	std::unique_ptr<Entering> entering;
};

struct Memory {
	uint64_t rss = 0, pss = 0; // KiB
};

} // namespace

static Target target;
static uint64_t limit_ms, failures, idle, closed_idle;
static std::string first_error;
static std::vector<std::unique_ptr<Client>> clients;
static std::vector<uint64_t> login_us;
static int epoll_fd = -1;

static Memory memory_of(const std::string &pid)
{
	Memory memory;
	FILE *file = fopen(("/proc/" + pid + "/smaps_rollup").c_str(), "r");
	char line[256];
	while (file != nullptr && fgets(line, sizeof line, file) != nullptr) {
		sscanf(line, "Rss: %" SCNu64, &memory.rss);
		sscanf(line, "Pss: %" SCNu64, &memory.pss);
	}
	if (file != nullptr)
		fclose(file);
	else
		printf("cannot read the memory of process %s\n", pid.c_str());
	return memory;
}

static void give_up(Client &c, const std::string &why)
{
	failures++;
	if (first_error.empty())
		first_error = why;
	c.channel.close();
	c.entering.reset();
	c.phase = Phase::Closed;
}

static void watch(Client &c, size_t index, uint32_t events, bool add)
{
	epoll_event event{};
	event.events = events;
	event.data.u64 = index;
	epoll_ctl(epoll_fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c.channel.fd(), &event);
}

static void start(size_t index)
{
	Client &c = *clients[index];
	Target t = target;
	// 20,000 clients for each address: ephemeral ports end at about 28,000.
	if (t.host[0] != '/' && index >= 20000)
		t.source = "127.0.0." + std::to_string(2 + index / 20000);
	c.began = now_us();
	c.entering = std::make_unique<Client::Entering>(t);
	if (!c.channel.open(t)) {
		give_up(c, c.channel.why());
		return;
	}
	c.phase = Phase::Connecting;
	watch(c, index, EPOLLOUT, true);
}

static bool put(Client &c, const Bytes &bytes)
{
	size_t sent = 0; // a login message always fits an empty socket buffer
	if (c.channel.write(bytes.data(), bytes.size(), sent) == Channel::Io::Ok && sent == bytes.size())
		return true;
	give_up(c, "send: " + c.channel.why());
	return false;
}

static void connected(Client &c, size_t index)
{
	if (c.channel.finish_connect() != Channel::Io::Ok) {
		give_up(c, c.channel.why());
		return;
	}
	watch(c, index, EPOLLIN, false);
	c.phase = target.tls == Tls::Off ? Phase::LoggingIn : target.tls == Tls::Request ? Phase::TlsAsk : Phase::TlsShake;
	if (c.phase == Phase::LoggingIn)
		put(c, c.entering->target.startup_packet());
	else if (c.phase == Phase::TlsAsk)
		put(c, request(kSslRequest));
}

static void shake(Client &c, size_t index)
{
	Channel::Io io = c.channel.handshake(c.entering->target);
	if (io == Channel::Io::Ok) {
		c.phase = Phase::LoggingIn;
		watch(c, index, EPOLLIN, false);
		put(c, c.entering->target.startup_packet());
	} else if (io == Channel::Io::Again) {
		watch(c, index, c.channel.wants_write() ? EPOLLOUT : EPOLLIN, false);
	} else {
		give_up(c, c.channel.why());
	}
}

static void take(Client &c, const Message &m)
{
	Bytes out;
	Login::Step step = c.entering->login.feed(m, out);
	if (step == Login::Step::Failed) {
		give_up(c, c.entering->login.error());
		return;
	}
	if (!out.empty() && !put(c, out))
		return;
	if (step != Login::Step::Done)
		return;
	login_us.push_back(now_us() - c.began);
	c.phase = Phase::Idle;
	idle++;
	c.entering.reset();
}

static void readable(Client &c, size_t index)
{
	if (c.phase == Phase::TlsAsk) {
		char answer = 0;
		size_t got = 0;
		if (c.channel.read(&answer, 1, got) != Channel::Io::Ok || answer != 'S') {
			give_up(c, "the server does no TLS");
			return;
		}
		c.phase = Phase::TlsShake;
	}
	if (c.phase == Phase::TlsShake) {
		shake(c, index);
		return;
	}
	char buffer[8192];
	for (;;) {
		size_t got = 0;
		Channel::Io io = c.channel.read(buffer, sizeof buffer, got);
		if (io == Channel::Io::Again)
			return;
		if (io != Channel::Io::Ok) {
			closed_idle += c.phase == Phase::Idle;
			idle -= c.phase == Phase::Idle;
			give_up(c, "connection closed " + c.channel.why());
			return;
		}
		if (c.phase != Phase::LoggingIn)
			continue; // a notice to an idle client
		c.entering->in.append(buffer, got);
		Message m;
		while (c.phase == Phase::LoggingIn && c.entering->in.next(m))
			take(c, m);
		if (c.phase == Phase::Closed)
			return;
	}
}

static void poll_once(int wait_ms)
{
	epoll_event events[512];
	int count = epoll_wait(epoll_fd, events, 512, wait_ms);
	for (int i = 0; i < count; i++) {
		size_t index = events[i].data.u64;
		Client &c = *clients[index];
		if (c.phase == Phase::Connecting)
			connected(c, index);
		else if (c.phase != Phase::Closed)
			readable(c, index);
	}
}

static void log_all_in(uint64_t in_flight)
{
	uint64_t until = now_ms() + limit_ms;
	size_t next = 0;
	while (idle + failures < clients.size() && now_ms() < until) {
		while (next < clients.size() && next - idle - failures < in_flight)
			start(next++);
		poll_once(100);
	}
	for (auto &c : clients)
		if (c->phase != Phase::Idle && c->phase != Phase::Closed)
			give_up(*c, "login: time is up");
}

static void hold(uint64_t seconds)
{
	uint64_t until = seconds > 0 ? now_ms() + seconds * 1000 : UINT64_MAX;
	bool input = seconds == 0;
	while (now_ms() < until) {
		poll_once(100);
		pollfd p{0, POLLIN, 0};
		char drop[256];
		if (input && poll(&p, 1, 0) > 0 && read(0, drop, sizeof drop) <= 0)
			return;
	}
}

static void show_memory(const std::vector<std::string> &pids, const std::vector<Memory> &before, const char *when)
{
	for (size_t i = 0; i < pids.size(); i++) {
		Memory now = memory_of(pids[i]);
		double n = idle > 0 ? static_cast<double>(idle) : 1;
		double rss = (static_cast<double>(now.rss) - static_cast<double>(before[i].rss)) * 1024;
		double pss = (static_cast<double>(now.pss) - static_cast<double>(before[i].pss)) * 1024;
		printf("%s pid %s: RSS %" PRIu64 " -> %" PRIu64 " KiB, %.0f bytes a client; PSS %" PRIu64 " -> %" PRIu64
		       " KiB, %.0f bytes a client\n",
		       when, pids[i].c_str(), before[i].rss, now.rss, rss / n, before[i].pss, now.pss, pss / n);
	}
}

int main(int argc, char **argv)
{
	Options opt(argc, argv);
	target = opt.target();
	uint64_t wanted = opt.number("clients", 10000, "number of clients");
	uint64_t seconds = opt.number("seconds", 0, "how long to hold them; 0: until standard input closes");
	uint64_t in_flight = opt.number("in-flight", 100, "logins at the same time");
	uint64_t seed = opt.number("seed", random_seed(), "only printed: nothing here is random");
	limit_ms = opt.number("limit-seconds", 120, "longest time for all logins") * 1000;
	std::vector<std::string> pids = opt.list("pid", "process whose memory is measured (repeatable)");
	opt.finish();
	uint64_t files = raise_file_limit(wanted + 64);
	if (files < wanted + 64) {
		printf("the file limit of %" PRIu64 " allows only %" PRIu64 " clients\n", files, files - 64);
		wanted = files - 64;
	}
	printf("holdidle: seed %" PRIu64 ", %" PRIu64 " clients, %s:%u\n", seed, wanted, target.host.c_str(), target.port);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (uint64_t i = 0; i < wanted; i++)
		clients.push_back(std::make_unique<Client>());
	std::vector<Memory> before;
	for (const std::string &pid : pids)
		before.push_back(memory_of(pid));
	uint64_t began = now_us();
	log_all_in(in_flight);
	double took = static_cast<double>(now_us() - began) / 1e6;
	uint64_t ready = idle;
	printf("ready %" PRIu64 "\n", ready);
	std::sort(login_us.begin(), login_us.end());
	if (!login_us.empty())
		printf("%.0f logins/s, median %.1f ms, 99 %% %.1f ms\n", static_cast<double>(ready) / took,
		       static_cast<double>(login_us[login_us.size() / 2]) / 1000,
		       static_cast<double>(login_us[login_us.size() * 99 / 100]) / 1000);
	show_memory(pids, before, "ready");
	fflush(stdout);
	hold(seconds);
	show_memory(pids, before, "held");
	for (auto &c : clients)
		c->channel.close();
	bool good = failures == 0 && closed_idle == 0;
	if (!good)
		printf("FAILURE: expected %" PRIu64 " clients, %" PRIu64 " failed (%" PRIu64 " of them when idle), first: %s\n",
		       wanted, failures, closed_idle, first_error.c_str());
	printf("%s seed=%" PRIu64 " ready=%" PRIu64 " failed=%" PRIu64 " closed_idle=%" PRIu64 "\n", good ? "ok" : "FAILED",
	       seed, ready, failures, closed_idle);
	return good ? 0 : 1;
}
