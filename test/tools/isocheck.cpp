// isocheck: does every client get its own replies, all of them, in order, and nobody else's?
//
// Many clients in one epoll loop send the episodes of isomix.hpp; every message that comes is compared with
// the one that must come next. Some episodes are sent in odd pieces, slowly, or are broken off: RST at any
// byte, half-close, half a message, an open transaction left behind, the own query cancelled. Afterwards the
// table `isocheck` must hold exactly the rows whose commit was confirmed, none that was rolled back.
// Fails on: a message that is not the expected one, a foreign tag anywhere, 57014 without a cancel of one's
// own in flight, a ParameterStatus view that is not one's own, a client that waits longer than --hang.
// The first failure ends the run; it prints expectation, message, seed, client, and the last messages.
// Its parts are listed in isocheck.hpp.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <sys/epoll.h>

#include "isocheck.hpp"

using namespace iso;

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
