// ledger: money is conserved, whatever happens to the connections.
//
// Clients move amounts between 100 accounts: BEGIN, two updates, one journal row, COMMIT. Each transfer is
// recorded as ok (COMMIT was confirmed), failed (an error or a break before COMMIT was sent, or COMMIT
// refused) or indeterminate (the connection broke after COMMIT was sent). Afterwards: every ok transfer is in
// the journal, no failed one, none twice (the journal has no unique key, so a replay shows), the sum of the
// balances did not change, and every balance is the sum of its journal rows.
// Broken connections are expected here: a client logs in again, for at most --reconnect-seconds. The longest
// time in which no login and no COMMIT succeeded is "the port answers again within".
// With --record FILE the records are kept, and --verify --record FILE checks them later.
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <mutex>
#include <set>
#include <thread>

#include "rawpg.hpp"

using namespace rawpg;

namespace
{

struct Settings {
	Target target;
	uint64_t clients, seconds, transfers, seed, reconnect_ms, query_ms, think_us;
	bool extended;
	std::string record;
};

enum class Fate : char { Ok = 'o', Failed = 'f', Indeterminate = 'i' };

struct Entry {
	uint64_t seq;
	Fate fate;
};

struct Teller {
	unsigned number = 0;
	std::vector<Entry> entries;
	uint64_t breaks = 0, logins = 0, refused = 0;
	std::string trouble;                 // why this client gave up
	std::map<std::string, uint64_t> why; // reasons of failures
};

} // namespace

static Settings cfg;
static std::atomic<uint64_t> transfers_left{0};
static std::atomic<bool> stop{false};
static std::mutex gap_lock;
static uint64_t last_service, longest_gap;

constexpr int kAccounts = 100;
constexpr int64_t kBalance = 1000000;

// Somebody was served: what was the longest time without?
static void served()
{
	std::lock_guard<std::mutex> hold(gap_lock);
	uint64_t now = now_us();
	if (now > last_service && now - last_service > longest_gap)
		longest_gap = now - last_service;
	last_service = now;
}

static bool log_in(Conn &conn, Teller &teller)
{
	uint64_t until = now_ms() + cfg.reconnect_ms;
	for (uint64_t pause = 5;; pause = pause < 200 ? pause * 2 : 200) {
		uint64_t now = now_ms();
		if (now < until && conn.login(cfg.target, until - now < 10000 ? until - now : 10000)) {
			teller.logins++;
			served();
			return true;
		}
		conn.close();
		teller.refused++;
		if (now_ms() + pause >= until || stop) {
			if (!stop)
				teller.trouble = "no login within " + std::to_string(cfg.reconnect_ms) + " ms: " + conn.error();
			return false;
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(pause));
	}
}

// The simple protocol, or one statement as Parse/Bind/Execute/Sync.
static Result ask(Conn &conn, const std::string &sql)
{
	if (!cfg.extended)
		return conn.run(sql, cfg.query_ms);
	Result result;
	uint64_t until = now_ms() + cfg.query_ms;
	if (!conn.send(parse(sql) + bind_to() + execute() + sync())) {
		result.error = conn.error();
		return result;
	}
	Message m;
	while (now_ms() < until && conn.next(m, until - now_ms()) == Conn::Got::Message) {
		if (m.type == 'C')
			result.tag = m.body.c_str();
		if (m.type == 'E') {
			result.error = field(m.body, 'S') + " " + field(m.body, 'C') + ": " + field(m.body, 'M');
			result.sqlstate = field(m.body, 'C');
		}
		if (m.type == 'Z') {
			result.alive = true;
			result.status = m.body[0];
			result.ok = result.error.empty();
			return result;
		}
	}
	if (result.error.empty())
		result.error = conn.error().empty() ? "time is up" : conn.error();
	return result;
}

static Fate transfer(Conn &conn, Teller &teller, Rng &rng, uint64_t seq, bool &alive)
{
	unsigned source = static_cast<unsigned>(rng.below(kAccounts)),
	         target = static_cast<unsigned>(rng.below(kAccounts - 1));
	target += target >= source;
	std::string amount = std::to_string(1 + rng.below(100));
	std::string take = "update account set bal = bal - " + amount + " where id = " + std::to_string(source);
	std::string give = "update account set bal = bal + " + amount + " where id = " + std::to_string(target);
	std::string steps[] = {
	    "begin",
	    source < target ? take : give, // always in the order of the ids: no deadlocks
	    source < target ? give : take,
	    "insert into journal values (" + std::to_string(teller.number) + ", " + std::to_string(seq) + ", " +
	        std::to_string(source) + ", " + std::to_string(target) + ", " + amount + ")",
	};
	for (const std::string &sql : steps) {
		Result r = ask(conn, sql);
		if (r.ok && r.status == 'T')
			continue;
		teller.why[r.error.substr(0, 80)]++;
		alive = r.alive;
		if (alive && r.status != 'I')
			alive = ask(conn, "rollback").ok;
		return Fate::Failed;
	}
	Result r = ask(conn, "commit");
	alive = r.alive;
	if (r.ok && r.tag == "COMMIT")
		return Fate::Ok;
	teller.why["commit: " + (r.ok ? r.tag : r.error).substr(0, 80)]++;
	// An ERROR with ReadyForQuery after it, or ROLLBACK, says that nothing was committed.
	return r.alive ? Fate::Failed : Fate::Indeterminate;
}

static void work(Teller &teller)
{
	Rng rng(cfg.seed + teller.number * 7919ULL);
	Conn conn;
	bool alive = false;
	for (uint64_t seq = 1; !stop; seq++) {
		if (!alive && !log_in(conn, teller))
			break;
		if (transfers_left.fetch_sub(1) == 0)
			stop = true;
		alive = true;
		Fate fate = transfer(conn, teller, rng, seq, alive);
		teller.entries.push_back({seq, fate});
		if (fate == Fate::Ok)
			served();
		if (!alive) {
			teller.breaks++;
			conn.close();
		}
		if (cfg.think_us > 0)
			std::this_thread::sleep_for(std::chrono::microseconds(rng.below(2 * cfg.think_us)));
	}
	if (alive)
		conn.send(terminate());
}

// ---- tables and the final check
static bool do_all(Conn &conn, const std::vector<std::string> &statements)
{
	for (const std::string &sql : statements) {
		Result r = conn.run(sql);
		if (!r.ok) {
			printf("FAILURE: %s: %s\n", sql.c_str(), r.error.c_str());
			return false;
		}
	}
	return true;
}

static bool set_up(Conn &conn)
{
	return do_all(conn,
	              {"drop table if exists account, journal", "create table account(id int primary key, bal bigint)",
	               "create table journal(client int, seq bigint, src int, dst int, amt bigint)",
	               "insert into account select i, " + std::to_string(kBalance) + " from generate_series(0, " +
	                   std::to_string(kAccounts - 1) + ") i"});
}

static uint64_t mismatches;
static Teller checker;

// Reading may be repeated: the fault that is injected can hit the check as well.
static Result read_again(Conn &conn, const std::string &sql)
{
	for (int tries = 0;; tries++) {
		Result r = conn.run(sql);
		if (r.ok || tries == 10 || (!r.alive && !log_in(conn, checker)))
			return r;
	}
}

static void complain(const std::string &what)
{
	if (mismatches++ < 20)
		printf("FAILURE: %s\n", what.c_str());
}

static void check_books(Conn &conn)
{
	Result sum = read_again(conn, "select sum(bal), count(*) from account");
	std::string wanted = std::to_string(kBalance * kAccounts);
	if (sum.value() != wanted)
		complain("sum of the balances: expected " + wanted + ", found " + sum.value() + " " + sum.error);
	Result wrong =
	    read_again(conn, "select id, bal, " + std::to_string(kBalance) +
	                         " + coalesce((select sum(amt) from journal where dst = id), 0)"
	                         " - coalesce((select sum(amt) from journal where src = id), 0) from account order by id");
	if (!wrong.ok || wrong.rows.size() != kAccounts)
		complain("cannot read the accounts: " + wrong.error);
	for (const auto &row : wrong.rows)
		if (*row[1] != *row[2])
			complain("account " + *row[0] + ": balance " + *row[1] + ", journal says " + *row[2]);
}

static void check_journal(Conn &conn, const std::vector<Teller> &tellers, uint64_t &appeared)
{
	for (const Teller &teller : tellers) {
		Result r = read_again(
		    conn, "select seq, count(*) from journal where client = " + std::to_string(teller.number) + " group by 1");
		if (!r.ok) {
			complain("cannot read the journal: " + r.error);
			return;
		}
		std::map<uint64_t, std::string> found;
		for (const auto &row : r.rows) {
			found[strtoull(row[0]->c_str(), nullptr, 10)] = *row[1];
			if (*row[1] != "1")
				complain("client " + std::to_string(teller.number) + " seq " + *row[0] + " is in the journal " +
				         *row[1] + " times");
		}
		for (const Entry &entry : teller.entries) {
			bool there = found.erase(entry.seq) > 0;
			std::string name = "client " + std::to_string(teller.number) + " seq " + std::to_string(entry.seq);
			if (entry.fate == Fate::Ok && !there)
				complain(name + " was confirmed and is lost");
			if (entry.fate == Fate::Failed && there)
				complain(name + " failed and is in the journal");
			appeared += entry.fate == Fate::Indeterminate && there;
		}
		for (const auto &left : found)
			complain("client " + std::to_string(teller.number) + " never sent seq " + std::to_string(left.first));
	}
}

static bool write_records(const std::vector<Teller> &tellers)
{
	FILE *file = fopen(cfg.record.c_str(), "w");
	if (file == nullptr)
		return false;
	for (const Teller &teller : tellers)
		for (const Entry &entry : teller.entries)
			fprintf(file, "%u %" PRIu64 " %c\n", teller.number, entry.seq, static_cast<char>(entry.fate));
	return fclose(file) == 0;
}

static std::vector<Teller> read_records()
{
	std::map<unsigned, Teller> all;
	FILE *file = fopen(cfg.record.c_str(), "r");
	unsigned number;
	Entry entry;
	char fate;
	while (file != nullptr && fscanf(file, "%u %" SCNu64 " %c", &number, &entry.seq, &fate) == 3) {
		entry.fate = static_cast<Fate>(fate);
		all[number].number = number;
		all[number].entries.push_back(entry);
	}
	if (file != nullptr)
		fclose(file);
	std::vector<Teller> result;
	for (auto &one : all)
		result.push_back(std::move(one.second));
	return result;
}

static int report(const std::vector<Teller> &tellers)
{
	Conn conn;
	std::map<Fate, uint64_t> fates;
	uint64_t appeared = 0, breaks = 0, logins = 0, refused = 0;
	std::map<std::string, uint64_t> why;
	stop = false;
	if (!log_in(conn, checker)) {
		complain("cannot log in to verify: " + checker.trouble);
	} else {
		check_books(conn);
		check_journal(conn, tellers, appeared);
	}
	for (const Teller &teller : tellers) {
		breaks += teller.breaks;
		logins += teller.logins;
		refused += teller.refused;
		for (const Entry &entry : teller.entries)
			fates[entry.fate]++;
		for (const auto &reason : teller.why)
			why[reason.first] += reason.second;
		if (!teller.trouble.empty())
			complain("client " + std::to_string(teller.number) + ": " + teller.trouble);
	}
	for (const auto &reason : why)
		printf("%8" PRIu64 " x %s\n", reason.second, reason.first.c_str());
	printf("%s seed=%" PRIu64 " ok=%" PRIu64 " failed=%" PRIu64 " indeterminate=%" PRIu64 " (committed %" PRIu64
	       ") breaks=%" PRIu64 " logins=%" PRIu64 " refused_logins=%" PRIu64 " answers_again_within_ms=%" PRIu64 "\n",
	       mismatches == 0 ? "ok" : "FAILED", cfg.seed, fates[Fate::Ok], fates[Fate::Failed],
	       fates[Fate::Indeterminate], appeared, breaks, logins, refused, longest_gap / 1000);
	return mismatches == 0 ? 0 : 1;
}

static std::vector<Teller> run_tellers()
{
	std::vector<Teller> tellers(cfg.clients);
	std::vector<std::thread> threads;
	last_service = now_us();
	transfers_left = cfg.transfers;
	for (unsigned i = 0; i < tellers.size(); i++) {
		tellers[i].number = i;
		threads.emplace_back(work, std::ref(tellers[i]));
	}
	uint64_t until = now_ms() + cfg.seconds * 1000;
	while (!stop && now_ms() < until)
		std::this_thread::sleep_for(std::chrono::milliseconds(20));
	stop = true;
	for (auto &thread : threads)
		thread.join();
	return tellers;
}

int main(int argc, char **argv)
{
	Options opt(argc, argv);
	cfg.target = opt.target();
	cfg.clients = opt.number("clients", 20, "number of clients");
	cfg.seconds = opt.number("seconds", 30, "length of the run");
	cfg.transfers = opt.number("transfers", 10000000, "end after so many transfers");
	cfg.seed = opt.number("seed", random_seed(), "seed of everything random");
	cfg.reconnect_ms = opt.number("reconnect-seconds", 30, "give up when no login succeeds for so long") * 1000;
	cfg.query_ms = opt.number("query-seconds", 30, "longest time for one statement") * 1000;
	cfg.think_us = opt.number("think-us", 0, "mean pause between transfers");
	cfg.extended = opt.flag("extended", "extended instead of simple protocol");
	cfg.record = opt.text("record", "", "file with the fate of every transfer");
	uint64_t most = opt.number("most-ms", 0, "fail when the port was silent for longer");
	bool verify_only = opt.flag("verify", "no run, only check --record against the tables");
	opt.finish();
	printf("ledger: seed %" PRIu64 ", %" PRIu64 " clients, %s:%u\n", cfg.seed, cfg.clients, cfg.target.host.c_str(),
	       cfg.target.port);
	if (verify_only) {
		last_service = now_us();
		std::vector<Teller> tellers = read_records();
		if (tellers.empty())
			complain("no records in \"" + cfg.record + "\"");
		return report(tellers);
	}
	Conn conn;
	if (!conn.login(cfg.target) || !set_up(conn)) {
		printf("FAILURE: set-up: %s\n", conn.error().c_str());
		return 1;
	}
	conn.close();
	std::vector<Teller> tellers = run_tellers();
	if (!cfg.record.empty() && !write_records(tellers))
		complain("cannot write " + cfg.record);
	if (most > 0 && longest_gap > most * 1000)
		complain("the port was silent for " + std::to_string(longest_gap / 1000) + " ms, allowed are " +
		         std::to_string(most));
	return report(tellers);
}
