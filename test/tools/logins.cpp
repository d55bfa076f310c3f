// logins: many logins by libpq, each judged by what the pool says of it.
//
// It owns the account of logins per case: a case is a name and a connection string; a login that takes longer than
// --seconds hangs. What the pool took the connection for is asked over the connection itself, from
// pgpool.pg_stat_clients (the role must be allowed to read it); libpq and the pool must agree on TLS.
#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <libpq-fe.h>

#include "rawpg.hpp"

namespace
{

struct Case {
	std::string name, conninfo;
	std::atomic<uint64_t> done{0}, tls{0}, wrong{0};
	std::atomic<uint64_t> longest_ms{0};
};

struct Run {
	std::vector<std::unique_ptr<Case>> cases;
	uint64_t logins = 0, seconds = 0;
	std::atomic<uint64_t> next{0};
	std::mutex lock;
	std::map<std::string, uint64_t> problems;

	void problem(Case &c, std::string text)
	{
		c.wrong++;
		for (char &ch : text)
			ch = ch == '\n' ? ' ' : ch;
		const std::lock_guard<std::mutex> hold(lock);
		problems[c.name + ": " + text]++;
	}
};

// What the pool says of this connection, t or f; else what went wrong.
std::string judged(PGconn *conn)
{
	const std::string sql =
	    "SELECT count(*) || ' ' || coalesce(bool_and(ssl)::text, '') FROM pgpool.pg_stat_clients WHERE pid = " +
	    std::to_string(PQbackendPID(conn));
	PGresult *r = PQexec(conn, sql.c_str());
	std::string said =
	    PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 1 ? PQgetvalue(r, 0, 0) : PQerrorMessage(conn);
	PQclear(r);
	return said == "1 true" ? "t" : said == "1 false" ? "f" : said;
}

void one(Run &run, Case &c)
{
	const uint64_t start = rawpg::now_ms();
	const std::string info = c.conninfo + " connect_timeout=" + std::to_string(run.seconds);
	PGconn *conn = PQconnectdb(info.c_str());
	const uint64_t took = rawpg::now_ms() - start;
	c.done++;
	for (uint64_t l = c.longest_ms; took > l && !c.longest_ms.compare_exchange_weak(l, took);) {
	}
	if (PQstatus(conn) != CONNECTION_OK) {
		run.problem(c, PQerrorMessage(conn));
	} else {
		const std::string own = PQsslInUse(conn) ? "t" : "f", said = judged(conn);
		c.tls += own == "t";
		if (said != own)
			run.problem(c, "TLS is " + own + " for libpq, and for the pool " + said);
	}
	PQfinish(conn);
}

} // namespace

int main(int argc, char **argv)
{
	rawpg::Options opt(argc, argv);
	Run run;
	const std::vector<std::string> cases = opt.list("case", "NAME:CONNINFO, any number of them, used in turn");
	run.logins = opt.number("logins", 100, "logins altogether");
	run.seconds = opt.number("seconds", 30, "a login that takes longer hangs");
	const uint64_t threads = opt.number("threads", 8, "at the same time");
	opt.finish();
	for (const std::string &text : cases) {
		const size_t at = text.find(':');
		run.cases.push_back(std::make_unique<Case>());
		run.cases.back()->name = text.substr(0, at);
		run.cases.back()->conninfo = text.substr(at + 1);
	}
	if (run.cases.empty()) {
		fprintf(stderr, "logins: no --case\n");
		return 2;
	}
	std::vector<std::thread> all;
	for (uint64_t i = 0; i < threads; i++)
		all.emplace_back([&run] {
			for (uint64_t n; (n = run.next++) < run.logins;)
				one(run, *run.cases[n % run.cases.size()]);
		});
	for (std::thread &t : all)
		t.join();
	uint64_t done = 0, tls = 0, wrong = 0;
	for (const auto &c : run.cases) {
		printf("%s: %llu logins, %llu with TLS, %llu wrong, the longest %llu ms\n", c->name.c_str(),
		       static_cast<unsigned long long>(c->done), static_cast<unsigned long long>(c->tls),
		       static_cast<unsigned long long>(c->wrong), static_cast<unsigned long long>(c->longest_ms));
		done += c->done;
		tls += c->tls;
		wrong += c->wrong;
	}
	for (const auto &p : run.problems)
		printf("%llu times %s\n", static_cast<unsigned long long>(p.second), p.first.c_str());
	printf("total=%llu tls=%llu wrong=%llu\n", static_cast<unsigned long long>(done),
	       static_cast<unsigned long long>(tls), static_cast<unsigned long long>(wrong));
	return wrong == 0 ? 0 : 1;
}
