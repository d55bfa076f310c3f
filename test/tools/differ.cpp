// differ: does the extended protocol mean through pgpool what it means at PostgreSQL?
//
// Random sequences of messages (diffgen.hpp) go to PostgreSQL itself (--direct) and through pgpool in transaction
// mode (--pool), and the replies must be equal byte for byte. Some other clients run short transactions in the
// same pool meanwhile, so that servers change hands. The two addresses name two databases of one cluster, each
// with tables of its own.
//
// Taken out of the comparison is only what has to differ: the OIDs of tables become their names, and 25P02 (in
// a failed transaction) lacks file, line and routine, because pgpool may have prepared the statement first.
// Allowed to differ, and counted: see excuse(). A connection is used for --span sequences; the numbers of both
// follow from --seed, so that --only N plays what led to sequence N. A difference is shrunk and ends the run.
#include <atomic>
#include <cinttypes>
#include <cstring>
#include <sstream>
#include <thread>

#include "diffgen.hpp"

using namespace rawpg;
using namespace differ;

namespace
{

struct Settings {
	Target direct, pool;
	Allow allow;
	uint64_t seed, sequences, first, span, limit_ms, crowd, tries, seconds;
	bool verbose, shrinks, any_names;
};

struct Totals {
	uint64_t sequences = 0, messages = 0, replies = 0, errors = 0, excused = 0, broken = 0, suspended = 0;
};

// One of the two that are compared.
struct Side {
	const char *name;
	Target target;
	Conn conn;
	std::map<uint32_t, std::string> tables; // by OID
	Strings replies;                        // of this sequence
	bool ended = false, silent = false;     // the connection; nothing came in time
};

Settings cfg;
Totals totals;
std::atomic<bool> stopping{false};

// What a client must have seen before the other one's Wait is over.
using Marks = std::vector<size_t>;

// ---- replies as they are compared
std::string visible(const Bytes &bytes)
{
	std::string result;
	char piece[8];
	for (char c : bytes) {
		if (c >= 32 && c < 127 && c != '\\') {
			result += c;
		} else {
			snprintf(piece, sizeof piece, "\\x%02x", static_cast<unsigned char>(c));
			result += piece;
		}
	}
	return result;
}

std::string error_text(const Bytes &body)
{
	std::string result, code = field(body, 'C');
	std::istringstream fields(body);
	for (std::string f; std::getline(fields, f, '\0') && !f.empty();) {
		bool place = f[0] == 'F' || f[0] == 'L' || f[0] == 'R';
		size_t name = cfg.any_names && code == "08P01" ? f.find("prepared statement \"") : std::string::npos;
		if (name != std::string::npos)
			f.erase(name, f.find(" requires") - name);
		if (!place || code != "25P02")
			result += visible(f) + " | ";
	}
	return result;
}

std::string row_description(const Side &side, const Bytes &body)
{
	Bytes result = body;
	std::string names;
	for (const size_t at : places_of_tables(body)) {
		const uint32_t oid = pgpool::proto::load32(&body[at]);
		if (oid != 0) {
			auto table = side.tables.find(oid);
			names += " " + (table == side.tables.end() ? "another table" : table->second);
			result.replace(at, 4, "oid ");
		}
	}
	return visible(result) + names;
}

std::string normal(const Side &side, const Message &m)
{
	std::string result(1, m.type);
	if (m.type == 'E' || m.type == 'N')
		return result + " " + error_text(m.body);
	return result + " " + (m.type == 'T' ? row_description(side, m.body) : visible(m.body));
}

// ---- playing
bool prepare(Side &side)
{
	side.conn.close();
	side.ended = side.silent = false;
	if (!side.conn.login(side.target, cfg.limit_ms)) {
		printf("FAILURE: login %s: %s\n", side.name, side.conn.error().c_str());
		return false;
	}
	std::string sql = "begin; delete from d_t; delete from d_u;";
	if (side.tables.empty() || cfg.allow.ddl)
		sql = "set client_min_messages = error; begin; drop table if exists d_t, d_u;"
		      "create table d_t (id int primary key, v text);"
		      "create table d_u (id int primary key deferrable initially deferred);";
	sql += "insert into d_t select n, 'v' || n from generate_series(1, 12) n; insert into d_u values (7); commit;";
	if (sql[0] == 's')
		sql += "reset client_min_messages;";
	Result r = side.conn.run(sql);
	if (r.ok)
		r = side.conn.run("select oid, relname from pg_class where relname in ('d_t', 'd_u')");
	if (!r.ok) {
		printf("FAILURE: %s: %s\n", side.name, r.error.c_str());
		return false;
	}
	side.tables.clear();
	for (const auto &row : r.rows)
		side.tables[static_cast<uint32_t>(strtoul(row[0]->c_str(), nullptr, 10))] = *row[1];
	return true;
}

// One more reply; false when none came in that time.
bool take(Side &side, uint64_t limit_ms, Message &m)
{
	Conn::Got got = side.ended ? Conn::Got::End : side.conn.next(m, limit_ms);
	if (got == Conn::Got::Message) {
		side.replies.push_back(normal(side, m));
		return true;
	}
	if (got == Conn::Got::End && !side.ended) {
		side.ended = true;
		side.replies.push_back("the connection ended");
	}
	return false;
}

// Plays ops on one side. The first side says at each Wait how many replies there are when no more come; the
// other one must have as many without any further message. `ready`: how many ReadyForQuery can come at most.
class Player
{
public:
	Player(Side &side, Marks &marks, bool leads) : side_(side), marks_(marks), leads_(leads) {}

	void play(const Ops &ops)
	{
		for (const Op &op : ops) {
			if (side_.silent)
				return;
			switch (op.kind) {
			case Op::Kind::Message:
				message(op);
				break;
			case Op::Kind::Write:
				write();
				break;
			case Op::Kind::Wait:
				write();
				leads_ ? wait_first(op.size > 0) : wait_second();
				break;
			case Op::Kind::Pause:
				write();
				std::this_thread::sleep_for(std::chrono::microseconds(op.size));
				break;
			case Op::Kind::End:
				end(op.size);
				break;
			}
		}
	}

private:
	void message(const Op &op)
	{
		if (op.bytes[0] == 'S' || op.bytes[0] == 'Q' || op.bytes[0] == 'F')
			ready_++;
		size_t first = std::min<size_t>(op.size, op.bytes.size());
		if (first > 0) {
			out_ += op.bytes.substr(0, first);
			write();
			std::this_thread::sleep_for(std::chrono::microseconds(100));
		}
		out_ += op.bytes.substr(first);
	}

	void write()
	{
		if (!out_.empty() && !side_.ended)
			side_.conn.send(out_, cfg.limit_ms);
		out_.clear();
	}

	bool next(uint64_t limit_ms)
	{
		Message m;
		if (!take(side_, limit_ms, m))
			return false;
		ready_seen_ += m.type == 'Z';
		return true;
	}

	// `surely`: all there is. Else some milliseconds of quiet are enough: to wait for less is no mistake.
	void wait_first(bool surely)
	{
		while (ready_seen_ < ready_ && next(surely ? 200 : 4))
			;
		if (surely)
			ready_ = ready_seen_; // of what was skipped none will come
		marks_.push_back(side_.replies.size());
	}

	void wait_second()
	{
		size_t wanted = marks_[wait_++];
		uint64_t until = now_ms() + cfg.limit_ms;
		while (side_.replies.size() < wanted && !side_.ended && !side_.silent) {
			uint64_t now = now_ms();
			if (!next(until > now ? until - now : 0) && !side_.ended) {
				side_.silent = true;
				side_.replies.push_back("silence, without a further message of the client");
			}
		}
	}

	// Whatever goes on is ended, and a row with this number comes when all before it was answered.
	void end(uint32_t number)
	{
		std::string text = "end " + std::to_string(number);
		out_ += copy_fail("end") + sync() + query("rollback") + query("select '" + text + "'");
		write();
		uint64_t until = now_ms() + cfg.limit_ms;
		bool seen = false;
		Message m;
		while (!side_.ended) {
			uint64_t now = now_ms();
			if (!take(side_, until > now ? until - now : 0, m)) {
				if (!side_.ended) {
					side_.silent = true;
					side_.replies.push_back("silence");
				}
				break;
			}
			seen |= m.type == 'D' && m.body.size() > text.size() &&
			        m.body.compare(m.body.size() - text.size(), text.size(), text) == 0;
			if (seen && m.type == 'Z')
				break;
		}
		ready_ = ready_seen_ = 0;
	}

	Side &side_;
	Marks &marks_;
	bool leads_;
	Bytes out_;
	size_t wait_ = 0, ready_ = 0, ready_seen_ = 0;
};

void play_both(Side &direct, Side &pool, const Ops &ops)
{
	Marks marks;
	direct.replies.clear();
	pool.replies.clear();
	Player(direct, marks, true).play(ops);
	Player(pool, marks, false).play(ops);
}

size_t first_difference(const Side &direct, const Side &pool)
{
	size_t i = 0;
	while (i < direct.replies.size() && i < pool.replies.size() && direct.replies[i] == pool.replies[i])
		i++;
	return i;
}

bool equal(const Side &direct, const Side &pool)
{
	return direct.replies == pool.replies && !direct.silent && !pool.silent;
}

// What pgpool is known to do otherwise, with the reason; the connections are not used any further then.
const char *excuse(const Side &direct, const Side &pool)
{
	size_t i = first_difference(direct, pool);
	if (i >= direct.replies.size() || i >= pool.replies.size())
		return nullptr;
	const std::string &d = direct.replies[i], &p = pool.replies[i];
	const bool refused = d[0] == 't' || d.find("| Mbind message ") != std::string::npos;
	if (refused && p.find("| C25P02 |") != std::string::npos)
		return "a failed transaction, in which the server lacks the statement";
	const char *const kGone = "unnamed prepared statement does not exist";
	if (!cfg.allow.unnamed_later && (d.find(kGone) != std::string::npos || p.find(kGone) != std::string::npos))
		return "the unnamed statement of an earlier batch";
	const char *const kSnapshot = "must be called before any query";
	if (d.find(kSnapshot) != std::string::npos || p.find(kSnapshot) != std::string::npos)
		return "a statement that is prepared takes a snapshot, one that is there does not";
	const char *const kStale = "cached plan must not change result type";
	if (cfg.allow.ddl && d.find(kStale) != std::string::npos)
		return "prepared anew after DDL";
	if (cfg.allow.ddl && d[0] == 'E' && p.find(kStale) != std::string::npos)
		return "of two errors the other one";
	return nullptr;
}

// ---- reports
void print_ops(const Ops &ops)
{
	for (const Op &op : ops) {
		switch (op.kind) {
		case Op::Kind::Message:
			printf("  %s%s\n", op.text.substr(0, 600).c_str(),
			       op.size > 0 ? (" # in two pieces, " + std::to_string(op.size) + " bytes first").c_str() : "");
			break;
		case Op::Kind::Write:
			printf("  flush-segment\n");
			break;
		case Op::Kind::Wait:
			printf("  sleep 5 # waits for what PostgreSQL answered until here\n");
			break;
		case Op::Kind::Pause:
			printf("  sleep %u # %u us\n", (op.size + 999) / 1000, op.size);
			break;
		case Op::Kind::End:
			printf("  f \"end\"\n  S\n  Q \"rollback\"\n  Q \"select 'end %u'\"\n", op.size);
			break;
		}
	}
}

void print_replies(const Side &direct, const Side &pool)
{
	size_t from = first_difference(direct, pool);
	for (size_t i = from > 60 ? from - 60 : 0; i < std::max(direct.replies.size(), pool.replies.size()); i++) {
		std::string d = i < direct.replies.size() ? direct.replies[i] : "(nothing)";
		std::string p = i < pool.replies.size() ? pool.replies[i] : "(nothing)";
		if (i > from + 8)
			break;
		printf("  %-10s %s\n", d == p ? "both" : "PostgreSQL", d.substr(0, 300).c_str());
		if (d != p)
			printf("  %-10s %s\n", "pgpool", p.substr(0, 300).c_str());
	}
}

// ---- shrinking: on fresh connections; which server serves is chance, so each candidate has some tries
bool differs(const Ops &ops)
{
	for (uint64_t i = 0; i < cfg.tries; i++) {
		Side direct{"direct", cfg.direct, {}, {}, {}}, pool{"pool", cfg.pool, {}, {}, {}};
		if (!prepare(direct) || !prepare(pool))
			return true;
		play_both(direct, pool, ops);
		if (!equal(direct, pool) && !excuse(direct, pool))
			return true;
	}
	return false;
}

Ops without(const Ops &ops, size_t from, size_t count)
{
	Ops rest(ops.begin(), ops.begin() + static_cast<ptrdiff_t>(from));
	rest.insert(rest.end(), ops.begin() + static_cast<ptrdiff_t>(from + count), ops.end());
	return rest;
}

// The last op, End, stays.
Ops shrink(Ops ops, uint64_t until_ms)
{
	for (size_t chunk = std::max<size_t>(1, ops.size() / 2); now_ms() < until_ms;) {
		bool dropped = false;
		for (size_t at = 0; at + 1 < ops.size() && now_ms() < until_ms;) {
			Ops fewer = without(ops, at, std::min(chunk, ops.size() - 1 - at));
			if (differs(fewer)) {
				ops = std::move(fewer);
				dropped = true;
			} else {
				at += chunk;
			}
		}
		if (chunk == 1 && !dropped)
			break;
		chunk = std::max<size_t>(1, chunk / 2);
	}
	for (Op &op : ops) {
		uint32_t size = op.kind == Op::Kind::Message ? std::exchange(op.size, 0) : 0;
		if (size > 0 && !differs(ops))
			op.size = size;
	}
	return ops;
}

void report(const Side &direct, const Side &pool, const Ops &life, size_t last_begin, uint64_t number)
{
	printf("FAILURE: sequence %" PRIu64 " of seed %" PRIu64 ": --seed=%" PRIu64 " --only=%" PRIu64 "\nmessages:\n",
	       number, cfg.seed, cfg.seed, number);
	Ops last(life.begin() + static_cast<ptrdiff_t>(last_begin), life.end());
	print_ops(last);
	printf("replies:\n");
	print_replies(direct, pool);
	fflush(stdout);
	if (!cfg.shrinks)
		return;
	cfg.limit_ms = std::min<uint64_t>(cfg.limit_ms, 1000); // a silence among the candidates
	const Ops &start = differs(last) ? last : life;
	if (&start == &life && !differs(life)) {
		printf("on fresh connections it does not show again\n");
		return;
	}
	Ops shortest = shrink(start, now_ms() + 60000);
	for (uint64_t i = 0; i < 20 * cfg.tries; i++) {
		Side a{"direct", cfg.direct, {}, {}, {}}, b{"pool", cfg.pool, {}, {}, {}};
		if (!prepare(a) || !prepare(b))
			return;
		play_both(a, b, shortest);
		if (equal(a, b) || excuse(a, b))
			continue;
		printf("shortest:\n");
		print_ops(shortest);
		printf("replies:\n");
		print_replies(a, b);
		return;
	}
}

// ---- the others in the pool
// Empty: all its replies were right.
std::string neighbour(uint64_t seed, std::atomic<uint64_t> &answered)
{
	Rng rng(seed);
	Conn conn;
	if (!conn.login(cfg.pool))
		return conn.error();
	for (uint64_t i = 0; !stopping; i++) {
		std::string tag = std::to_string(seed) + "-" + std::to_string(i),
		            name(1, static_cast<char>('a' + rng.below(4)));
		Bytes out = close_name('S', name) + parse("select $1::text, " + std::to_string(rng.below(5)), name) +
		            bind_to(name, "", {tag}) + execute() + sync();
		if (rng.chance(20)) // a text of the sequences, under another name
			out = parse("select id, v from d_t order by id") + bind_to() + execute(1) + sync() + out;
		if (rng.chance(10))
			out = query("begin") + out + query("commit");
		size_t due = 0;
		for (std::string_view left = out; !left.empty(); left.remove_prefix(size_of_first(left)))
			due += left[0] == 'S' || left[0] == 'Q';
		conn.send(out);
		bool seen = false;
		for (Message m; due > 0;) {
			if (conn.next(m) != Conn::Got::Message)
				return "a neighbour: " + conn.error();
			if (m.type == 'E')
				return "a neighbour read " + brief(m);
			due -= m.type == 'Z';
			seen |= m.type == 'D' && m.body.find(tag) != Bytes::npos;
		}
		if (!seen)
			return "a neighbour did not get its row";
		answered++;
		std::this_thread::sleep_for(std::chrono::microseconds(rng.below(3000)));
	}
	return {};
}

class Crowd
{
public:
	explicit Crowd(uint64_t count) : failures_(count)
	{
		for (uint64_t i = 0; i < count; i++)
			threads_.emplace_back([this, i] {
				failures_[i] = neighbour(cfg.seed + i, answered_);
				failed_ = failed_ || !failures_[i].empty();
			});
	}
	~Crowd() { stop(); }
	// Empty: all is well.
	std::string stop()
	{
		stopping = true;
		for (std::thread &t : threads_)
			t.join();
		threads_.clear();
		for (const std::string &f : failures_)
			if (!f.empty())
				return f;
		return {};
	}
	uint64_t answered() const { return answered_; }
	bool failed() const { return failed_; }

private:
	std::atomic<uint64_t> answered_{0};
	std::atomic<bool> failed_{false};
	Strings failures_;
	std::vector<std::thread> threads_;
};

// ---- the run
void count(const Ops &ops, const Side &pool)
{
	totals.sequences++;
	for (const Op &op : ops)
		totals.messages += op.kind == Op::Kind::Message;
	totals.replies += pool.replies.size();
	for (const std::string &reply : pool.replies) {
		totals.errors += reply[0] == 'E';
		totals.suspended += reply[0] == 's';
	}
}

// The sequences of one connection, up to the last one that is wanted.
bool life(Side &direct, Side &pool, uint64_t connection, uint64_t last)
{
	Generator generator(Rng(cfg.seed + connection * 0x9e3779b97f4a7c15).next(), cfg.allow);
	if (!prepare(direct) || !prepare(pool))
		return false;
	Ops all;
	for (uint64_t n = connection * cfg.span; n < (connection + 1) * cfg.span && n <= last; n++) {
		Ops ops = generator.sequence(static_cast<uint32_t>(n));
		size_t begin = all.size();
		all.insert(all.end(), ops.begin(), ops.end());
		play_both(direct, pool, ops);
		count(ops, pool);
		if (cfg.verbose) {
			printf("sequence %" PRIu64 "\n", n);
			print_ops(ops);
			for (const std::string &reply : pool.replies)
				printf("    %s\n", reply.substr(0, 200).c_str());
		}
		if (!equal(direct, pool)) {
			if (const char *why = excuse(direct, pool)) {
				totals.excused++;
				if (cfg.verbose)
					printf("excused: %s\n", why);
				return true;
			}
			report(direct, pool, all, begin, n);
			return false;
		}
		if (direct.ended) {
			totals.broken++;
			return true;
		}
	}
	return true;
}

// host=... port=... user=... dbname=... password=...
Target conninfo(const std::string &text)
{
	Target t;
	std::istringstream words(text);
	for (std::string word; words >> word;) {
		size_t at = word.find('=');
		std::string name = word.substr(0, at), value = at == std::string::npos ? "" : word.substr(at + 1);
		if (name == "host")
			t.host = value;
		else if (name == "port")
			t.port = static_cast<unsigned>(strtoul(value.c_str(), nullptr, 10));
		else if (name == "user")
			t.user = value;
		else if (name == "dbname")
			t.database = value;
		else if (name == "password")
			t.password = value;
		else {
			fprintf(stderr, "differ: not understood: %s\n", word.c_str());
			exit(2);
		}
	}
	t.params = {{"application_name", "pgpool"}}; // what DISCARD ALL goes back to
	return t;
}

void read_options(int argc, char **argv)
{
	Options opt(argc, argv);
	cfg.direct = conninfo(opt.text("direct", "", "\"host= port= user= dbname= password=\" of PostgreSQL"));
	cfg.pool = conninfo(opt.text("pool", "", "... of pgpool: another database, whose tables d_t and d_u are replaced"));
	cfg.seed = opt.number("seed", random_seed(), "random seed");
	cfg.sequences = opt.number("sequences", 1000, "how many sequences");
	cfg.first = opt.number("first", 0, "number of the first one");
	uint64_t only = opt.number("only", UINT64_MAX, "this sequence alone, and those that its connection sent before");
	cfg.span = std::max<uint64_t>(1, opt.number("span", 10, "sequences of one connection"));
	cfg.limit_ms = opt.number("limit-ms", 10000, "longest time to wait for a reply");
	cfg.seconds = opt.number("seconds", 0, "stop after this time; 0 = never");
	cfg.crowd = opt.number("neighbours", 3, "other clients in the pool");
	cfg.tries = std::max<uint64_t>(1, opt.number("tries", 4, "of each candidate while shrinking"));
	cfg.allow.ddl = opt.flag("ddl", "result types change now and then");
	cfg.allow.deallocate = opt.flag("deallocate", "DEALLOCATE of names of the protocol");
	cfg.allow.odd_names = opt.flag("odd-names", "names like pgpool's own, and above 63 bytes");
	cfg.allow.long_texts = opt.flag("long-texts", "statements above 64 KiB and 1 MiB");
	cfg.allow.fetch = opt.flag("fetch", "prepared FETCH");
	cfg.any_names = opt.flag("any-names",
	                         "names of statements in errors are not compared: two names of one text are one statement");
	cfg.allow.ahead_of_discard = opt.flag("ahead-of-discard", "pipelines that go on behind DISCARD ALL");
	cfg.allow.unnamed_later = opt.flag("unnamed-later", "the unnamed statement is used in later batches, too");
	cfg.allow.sync_in_copy = opt.flag("sync-in-copy", "Sync between the data of a copy");
	cfg.shrinks = !opt.flag("no-shrink", "a difference is not shrunk");
	cfg.verbose = opt.flag("verbose", "print all messages and replies");
	opt.finish();
	if (only != UINT64_MAX) {
		cfg.first = only;
		cfg.sequences = 1;
	}
}

} // namespace

int main(int argc, char **argv)
{
	read_options(argc, argv);
	uint64_t started = now_ms();
	printf("differ: seed %" PRIu64 "\n", cfg.seed);
	fflush(stdout);
	Side direct{"direct", cfg.direct, {}, {}, {}}, pool{"pool", cfg.pool, {}, {}, {}};
	bool good = prepare(direct) && prepare(pool);
	Crowd crowd(good ? cfg.crowd : 0);
	const uint64_t last = cfg.first + cfg.sequences - 1;
	for (uint64_t c = cfg.first / cfg.span; good && c <= last / cfg.span; c++) {
		good = life(direct, pool, c, last) && !crowd.failed();
		if (cfg.seconds > 0 && now_ms() - started > cfg.seconds * 1000)
			break;
	}
	std::string failure = crowd.stop();
	if (!failure.empty())
		printf("FAILURE: %s\n", failure.c_str());
	good = good && failure.empty();
	printf("%s differ: seed=%" PRIu64 " sequences=%" PRIu64 " messages=%" PRIu64 " replies=%" PRIu64 " errors=%" PRIu64
	       " suspended=%" PRIu64 " excused=%" PRIu64 " broken=%" PRIu64 " neighbours=%" PRIu64 " ms=%" PRIu64 "\n",
	       good ? "ok" : "FAILED", cfg.seed, totals.sequences, totals.messages, totals.replies, totals.errors,
	       totals.suspended, totals.excused, totals.broken, crowd.answered(), now_ms() - started);
	return good ? 0 : 1;
}
