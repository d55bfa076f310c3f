// malformed: bytes that no honest client sends, in every state of a connection.
//
// It owns the order of the groups (wrong lengths, wrong types, broken startup packets, negotiation games, foreign
// protocols, SASL lies, mutated sessions, half-open connections), and plays negotiation and half-open connections
// itself; the other groups are cases (malformed_cases.cpp) that an engine runs side by side (malformed_engine.cpp). A
// case is right when the server answers with an error, or closes, or serves where the bytes were legal, and in any case
// is done with the connection within --limit-ms; a connection that says nothing is half-closed after a moment, so a
// server that waits for the rest of a message must notice the end. After each group a good login and a query must still
// work.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <thread>

#include "malformed.hpp"

using namespace malformed;

static void negotiation_game(uint64_t rounds, uint64_t most)
{
	for (int kind = 0; kind < 3; kind++) { // both in turns, SSL alone, GSS alone
		Conn conn;
		uint64_t n = 0;
		char answer = 0;
		if (!conn.connect(run.plain, run.limit_ms))
			continue;
		for (; n < rounds; n++) {
			bool ssl = kind == 1 || (kind == 0 && n % 2 == 1);
			if (!conn.send(request(ssl ? kSslRequest : kGssRequest), run.limit_ms) ||
			    conn.next_byte(answer, run.limit_ms) != Conn::Got::Message || answer != 'N')
				break;
		}
		printf("negotiation %s: %" PRIu64 " requests were answered with N, then came %c\n",
		       kind == 0   ? "in turns"
		       : kind == 1 ? "SSL"
		                   : "GSS",
		       n, answer == 0 ? '-' : answer);
		if (most > 0 && n > most) {
			run.failures++;
			printf("FAILURE: more than %" PRIu64 " negotiation requests were answered in one connection\n", most);
		}
	}
	good_login("negotiation");
}

static void mutations(uint64_t count, Rng &rng)
{
	std::vector<Bytes> whole = session();
	Case untouched{"the session as it was recorded", {{Bytes()}}, true, "", true};
	for (const Bytes &part : whole)
		untouched.stages[0].bytes += part;
	run_group("session", {untouched});
	for (uint64_t done = 0; done < count && run.failures < 50;) {
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
		if (!conn.login(run.plain, run.limit_ms)) {
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
	Bytes parts[3] = {Bytes(), run.plain.startup_packet().substr(0, 7), run.scram.startup_packet()};
	uint64_t refused = 0, began = now_ms(), before = median_login_ms(15);
	for (uint64_t i = 0; i < wanted; i++) {
		auto channel = std::make_unique<Channel>();
		size_t sent = 0;
		bool open = channel->open(run.plain);
		uint64_t until = now_ms() + run.limit_ms;
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
	run.failures += !good;
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
		run.failures += left > 0;
	}
	held.clear();
	std::this_thread::sleep_for(std::chrono::milliseconds(200));
	good_login("half-open connections");
}

int main(int argc, char **argv)
{
	Options opt(argc, argv);
	run.plain = opt.target();
	run.scram = run.plain;
	run.scram.user =
	    opt.text("scram-user", run.plain.user, "role that has to use SCRAM; --user should be a trusted one");
	run.scram.password = opt.text("scram-password", "", "its password (not needed by the cases)");
	run.limit_ms = opt.number("limit-ms", 10000, "every case must be over by then");
	run.parallel = opt.number("parallel", 48, "cases at the same time");
	run.seed = opt.number("seed", random_seed(), "seed of everything random");
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
	printf("malformed: seed %" PRIu64 ", %s:%u\n", run.seed, run.plain.host.c_str(), run.plain.port);
	Rng rng(run.seed);
	auto wanted = [&](const char *name) { return only.empty() || only == name; };
	good_login("nothing");
	if (run.failures == 0 && wanted("lengths"))
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
	       run.failures == 0 ? "ok" : "FAILED", run.seed, run.cases_run, run.outcomes[Outcome::Error],
	       run.outcomes[Outcome::Closed], run.outcomes[Outcome::Served], run.failures);
	return run.failures == 0 ? 0 : 1;
}
