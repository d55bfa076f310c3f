// isomix: the traffic of the isolation checker: what a client sends, and exactly what must come back.
//
// It owns the episodes (short scripts of steps; a step is some bytes and the messages they must produce, in
// order) and their random generation. It knows no socket and no clock. Every reply that an episode expects
// carries the client's tag and a sequence number that never repeats, so a reply that belongs to somebody
// else, or to an earlier question of the same client, cannot pass for the right one.
#pragma once

#include <cstring>
#include <deque>
#include <functional>

#include "rawpg.hpp"

namespace iso
{

using rawpg::Bytes;
using rawpg::Rng;
using Strings = std::vector<std::string>;

// One message (or a run of numbered rows) that must come next.
struct Expect {
	char type = 0;
	std::string id;      // D, d: the first column; T, N, E: must be part of it
	Strings more;        // D, d: the columns between the first and the payload
	std::string pattern; // D, d: the last column is this, repeated up to size
	size_t size = 0;
	uint32_t rows = 1, at = 0; // rows > 1 or numbered: the first column is id.at, id.(at+1) ...
	bool numbered = false;
	std::string text;           // C: command tag; E: SQLSTATE
	char status = 'I';          // Z
	bool early = false;         // may come before this step's bytes were sent
	std::vector<size_t> commit; // Z: these inserts are now committed
	std::vector<size_t> abort;  // Z: and these are gone
};

struct Insert {
	enum class State { Pending, Committed, Aborted, Unknown };
	uint64_t seq = 0;
	uint32_t rows = 1;
	State state = State::Pending;
	size_t step = SIZE_MAX, offset = 0; // where the bytes end that could commit it
};

struct Step {
	Bytes out;
	std::deque<Expect> expects;
	uint32_t wait_us = 0;   // before the first byte
	bool cancel = false;    // send a CancelRequest cancel_us after the last byte
	uint32_t cancel_us = 0; // and take 57014 for an answer
	char cancelled = 'I';   // status of ReadyForQuery when it was cancelled
};

struct Episode {
	std::string name;
	std::vector<Step> steps;
	std::vector<Insert> inserts;
	bool in_transaction = false; // leaving after a step means leaving an open transaction
};

// What the author of an episode must know about the client.
struct Self {
	std::string tag; // 32 hex digits
	uint64_t seq = 0;
	std::string user, database;
	std::map<std::string, std::string> settings; // canonical values of its startup parameters
	bool utf8_server = true, latin1 = false;
};

inline std::string next_id(Self &self)
{
	return "iso@" + self.tag + ":" + std::to_string(++self.seq);
}

// Writes an episode: bytes and expectations side by side.
class Script
{
public:
	explicit Script(const char *name)
	{
		ep.name = name;
		ep.steps.emplace_back();
	}
	Step &step() { return ep.steps.back(); }
	void next_step(uint32_t wait_us = 0)
	{
		if (!step().out.empty())
			ep.steps.emplace_back();
		step().wait_us = wait_us;
	}
	void send(const Bytes &bytes) { step().out += bytes; }
	Expect &want(char type)
	{
		step().expects.emplace_back();
		step().expects.back().type = type;
		return step().expects.back();
	}
	void want_all(const char *types)
	{
		for (; *types != '\0'; types++)
			want(*types);
	}
	void done(const std::string &tag) { want('C').text = tag; }
	void error(const std::string &sqlstate, const std::string &part)
	{
		Expect &e = want('E');
		e.text = sqlstate;
		e.id = part;
	}
	void notice(const std::string &id) { want('N').id = id; }
	// ReadyForQuery; everything that was inserted since the last resolution becomes what is said.
	void ready(char status, bool commits = true)
	{
		Expect &e = want('Z');
		e.status = status;
		if (status != 'I')
			return;
		(commits ? e.commit : e.abort).swap(open_);
		for (size_t i : e.commit) {
			ep.inserts[i].step = ep.steps.size() - 1;
			ep.inserts[i].offset = step().out.size();
		}
		e.abort.insert(e.abort.end(), lost_.begin(), lost_.end());
		lost_.clear();
	}
	void insert(uint64_t seq, uint32_t rows)
	{
		open_.push_back(ep.inserts.size());
		ep.inserts.emplace_back();
		ep.inserts.back().seq = seq;
		ep.inserts.back().rows = rows;
	}
	size_t mark() const { return open_.size(); }
	void roll_back_to(size_t mark)
	{
		lost_.insert(lost_.end(), open_.begin() + static_cast<long>(mark), open_.end());
		open_.resize(mark);
	}

	Episode ep;

private:
	std::vector<size_t> open_, lost_; // inserts whose fate is not settled; rolled back to a savepoint
};

class Author
{
public:
	Author(Rng &rng, Self &self) : rng_(rng), self_(self) {}

	Episode write(const std::string &kind);

	static const std::vector<std::pair<std::string, unsigned>> &kinds();

private:
	struct Select {
		std::string id, sql, tag;
		Expect row, shape;
	};
	Select select(size_t largest);
	size_t some_size(size_t largest);
	std::string insert_sql(Script &s);
	Bytes copy_lines(uint64_t seq, uint32_t rows);
	void ask(Script &s, const Select &q, char status);
	void ask_extended(Script &s, const Select &q, bool with_sync, char status);
	void broken_item(Script &s);
	void segment(Script &s, unsigned items, bool breaks);
	void transaction_part(Script &s, bool pipelined);

	Episode simple();
	Episode multi();
	Episode extended();
	Episode pipeline();
	Episode burst();
	Episode flush_pause();
	Episode early_next();
	Episode row_limit();
	Episode portals();
	Episode transaction();
	Episode copy_out();
	Episode copy_simple();
	Episode copy_extended();
	Episode notice();
	Episode exception();
	Episode settings();
	Episode identity();
	Episode big_send();
	Episode empty();
	Episode cancel();
	Episode named();

	Rng &rng_;
	Self &self_;
};

inline const std::vector<std::pair<std::string, unsigned>> &Author::kinds()
{
	static const std::vector<std::pair<std::string, unsigned>> all{
	    {"simple", 20},     {"multi", 8},       {"extended", 16},     {"pipeline", 12}, {"burst", 4},
	    {"flush-pause", 4}, {"early-next", 4},  {"row-limit", 5},     {"portals", 3},   {"transaction", 10},
	    {"copy-out", 4},    {"copy-simple", 5}, {"copy-extended", 5}, {"notice", 4},    {"exception", 4},
	    {"settings", 4},    {"identity", 4},    {"big-send", 2},      {"empty", 2},     {"cancel", 4},
	    {"idle-cancel", 1}, {"named", 0},
	};
	return all;
}

inline Episode Author::write(const std::string &kind)
{
	static const std::map<std::string, Episode (Author::*)()> writers{
	    {"simple", &Author::simple},
	    {"multi", &Author::multi},
	    {"extended", &Author::extended},
	    {"pipeline", &Author::pipeline},
	    {"burst", &Author::burst},
	    {"flush-pause", &Author::flush_pause},
	    {"early-next", &Author::early_next},
	    {"row-limit", &Author::row_limit},
	    {"portals", &Author::portals},
	    {"transaction", &Author::transaction},
	    {"copy-out", &Author::copy_out},
	    {"copy-simple", &Author::copy_simple},
	    {"copy-extended", &Author::copy_extended},
	    {"notice", &Author::notice},
	    {"exception", &Author::exception},
	    {"settings", &Author::settings},
	    {"identity", &Author::identity},
	    {"big-send", &Author::big_send},
	    {"empty", &Author::empty},
	    {"cancel", &Author::cancel},
	    {"idle-cancel", &Author::empty},
	    {"named", &Author::named},
	};
	Episode ep = (this->*writers.at(kind))();
	ep.name = kind;
	return ep;
}

inline size_t Author::some_size(size_t largest)
{
	uint64_t dice = rng_.below(100);
	size_t most = dice < 75 ? 200 : dice < 92 ? 20000 : dice < 98 ? 200000 : 2 << 20;
	return 1 + rng_.below(most < largest ? most : largest);
}

// A select whose rows name their owner: one row, or several numbered ones, or none.
inline Author::Select Author::select(size_t largest)
{
	Select q;
	q.id = next_id(self_);
	q.shape.type = 'T';
	q.shape.id = q.id;
	q.row.type = 'D';
	q.row.id = q.id;
	q.row.pattern = self_.tag.substr(0, 8) + "-" + std::to_string(self_.seq) + ";";
	size_t size = some_size(largest);
	uint64_t dice = rng_.below(100);
	uint32_t rows = dice < 70 ? 1 : dice < 75 ? 0 : dice < 97 ? 10 : 1 + static_cast<uint32_t>(rng_.below(3000));
	while (rows > 1 && size * rows > 600000)
		size = size / 2 + 1;
	size_t times = (size + q.row.pattern.size() - 1) / q.row.pattern.size();
	q.row.size = times * q.row.pattern.size();
	q.row.rows = rows;
	q.row.numbered = rows != 1;
	std::string accent;
	if (self_.utf8_server && rng_.chance(30)) {
		accent = ", chr(228)";
		q.row.more.push_back(self_.latin1 ? "\xe4" : "\xc3\xa4");
	}
	std::string payload = "repeat('" + q.row.pattern + "', " + std::to_string(times) + ")";
	if (rows == 1)
		q.sql = "select '" + q.id + "' as \"" + q.id + "\"" + accent + ", " + payload;
	else
		q.sql = "select '" + q.id + ".' || i as \"" + q.id + "\"" + accent + ", " + payload +
		        " from generate_series(0, " + std::to_string(static_cast<int>(rows) - 1) + ") i";
	q.tag = "SELECT " + std::to_string(rows);
	return q;
}

inline std::string Author::insert_sql(Script &s)
{
	next_id(self_);
	s.insert(self_.seq, 1);
	return "insert into isocheck values ('" + self_.tag + "', " + std::to_string(self_.seq) + ", '" +
	       self_.tag.substr(0, 8) + "')";
}

inline Bytes Author::copy_lines(uint64_t seq, uint32_t rows)
{
	Bytes lines;
	for (uint32_t i = 0; i < rows; i++)
		lines += self_.tag + "\t" + std::to_string(seq) + "\t" + self_.tag.substr(0, 8) + "\n";
	return lines;
}

inline void push(Script &s, const Expect &e)
{
	s.step().expects.push_back(e);
}

inline void Author::ask(Script &s, const Select &q, char status)
{
	s.send(rawpg::query(q.sql));
	push(s, q.shape);
	if (q.row.rows > 0)
		push(s, q.row);
	s.done(q.tag);
	s.ready(status);
}

inline void Author::ask_extended(Script &s, const Select &q, bool with_sync, char status)
{
	bool parameter = rng_.chance(40) && q.row.rows == 1;
	bool describes_statement = rng_.chance(20), describes_portal = rng_.chance(60);
	std::string sql = q.sql;
	std::vector<rawpg::Param> params;
	if (parameter) { // the id travels as a parameter instead
		sql = "select $1::text as \"" + q.id + "\"" + sql.substr(sql.find("\"" + q.id + "\"") + q.id.size() + 2);
		params.emplace_back(q.id);
	}
	s.send(rawpg::parse(sql));
	s.want('1');
	if (describes_statement) {
		s.send(rawpg::describe('S', ""));
		s.want('t');
		push(s, q.shape);
	}
	s.send(rawpg::bind_to("", "", params));
	s.want('2');
	if (describes_portal) {
		s.send(rawpg::describe('P', ""));
		push(s, q.shape);
	}
	s.send(rawpg::execute());
	if (q.row.rows > 0)
		push(s, q.row);
	s.done(q.tag);
	if (rng_.chance(10)) {
		s.send(rawpg::close_name('P', ""));
		s.want('3');
	}
	if (!with_sync)
		return;
	s.send(rawpg::sync());
	s.ready(status);
}

inline Episode Author::simple()
{
	Script s("");
	ask(s, select(2 << 20), 'I');
	return s.ep;
}

// Several statements in one Query: one implicit transaction, so an error takes the inserts with it.
inline Episode Author::multi()
{
	Script s("");
	std::string sql;
	unsigned count = static_cast<unsigned>(rng_.between(2, 5));
	bool breaks = rng_.chance(30);
	for (unsigned i = 0; i < count; i++) {
		if (rng_.chance(25)) {
			sql += insert_sql(s) + "; ";
			s.done("INSERT 0 1");
			continue;
		}
		Select q = select(30000);
		sql += q.sql + "; ";
		push(s, q.shape);
		if (q.row.rows > 0)
			push(s, q.row);
		s.done(q.tag);
	}
	if (breaks) {
		std::string id = next_id(self_);
		sql += "select '" + id + "'::text::int; select 'never'";
		s.error("22P02", id); // found while planning: no RowDescription
	}
	s.send(rawpg::query(sql));
	s.ready('I', !breaks);
	return s.ep;
}

inline Episode Author::extended()
{
	Script s("");
	ask_extended(s, select(2 << 20), true, 'I');
	return s.ep;
}

// An item that fails: at Parse, at Bind or at Execute. The rest up to Sync must be skipped.
inline void Author::broken_item(Script &s)
{
	std::string id = next_id(self_);
	switch (rng_.below(4)) {
	case 0:
		s.send(rawpg::parse("select \"" + id + "\"") + rawpg::bind_to() + rawpg::execute());
		s.error("42703", id);
		break;
	case 1:
		s.send(rawpg::parse("select $1::int") + rawpg::bind_to("", "", {id}) + rawpg::execute());
		s.want('1');
		s.error("22P02", id);
		break;
	case 2:
		s.send(rawpg::parse("select 1/(random()*0)::int /* " + id + " */") + rawpg::bind_to() +
		       rawpg::describe('P', "") + rawpg::execute());
		s.want_all("12T");
		s.error("22012", "");
		break;
	default:
		s.send(rawpg::parse("select ('" + id + "' || left(random()::text, 0))::int") + rawpg::bind_to() +
		       rawpg::execute());
		s.want_all("12");
		s.error("22P02", id);
	}
}

inline void Author::segment(Script &s, unsigned items, bool breaks)
{
	unsigned broken = breaks ? static_cast<unsigned>(rng_.below(items)) : items;
	for (unsigned i = 0; i < items; i++) {
		if (i == broken) {
			broken_item(s);
		} else if (i > broken) {
			// Skipped by the server: whatever comes before Sync has no answer.
			s.send(rawpg::parse("select 'skipped " + next_id(self_) + "'") + rawpg::bind_to() +
			       rawpg::describe('P', "") + rawpg::execute());
		} else if (rng_.chance(20)) {
			s.send(rawpg::parse(insert_sql(s)) + rawpg::bind_to() + rawpg::execute());
			s.want_all("12");
			s.done("INSERT 0 1");
		} else {
			ask_extended(s, select(3000), false, 'I');
		}
		if (rng_.chance(8) && i < broken)
			s.send(rawpg::flush());
	}
	s.send(rawpg::sync());
	s.ready('I', !breaks);
}

inline Episode Author::pipeline()
{
	Script s("");
	unsigned left = static_cast<unsigned>(rng_.between(1, 50));
	while (left > 0) {
		unsigned items = static_cast<unsigned>(rng_.between(1, left < 12 ? left : 12));
		segment(s, items, rng_.chance(25));
		left -= items;
		if (rng_.chance(5)) {
			s.send(rawpg::sync()); // a Sync alone is answered too
			s.ready('I');
		}
		if (rng_.chance(15))
			ask(s, select(300), 'I');
	}
	return s.ep;
}

// Many simple queries in one write.
inline Episode Author::burst()
{
	Script s("");
	for (uint64_t left = rng_.between(2, 50); left > 0; left--)
		ask(s, select(300), 'I');
	if (rng_.chance(50))
		ask_extended(s, select(300), true, 'I');
	return s.ep;
}

// Flush instead of Sync, and a pause with the server in mid-batch.
inline Episode Author::flush_pause()
{
	Script s("");
	Select q = select(3000);
	s.send(rawpg::parse(q.sql) + rawpg::describe('S', "") + rawpg::flush());
	s.want_all("1t");
	push(s, q.shape);
	s.next_step(static_cast<uint32_t>(rng_.below(50000)));
	s.send(rawpg::bind_to() + rawpg::execute() + rawpg::flush());
	s.want('2');
	if (q.row.rows > 0)
		push(s, q.row);
	s.done(q.tag);
	s.next_step(static_cast<uint32_t>(rng_.below(50000)));
	s.send(rawpg::sync());
	s.ready('I');
	return s.ep;
}

// A broken batch, and the next one sent when the error was seen but ReadyForQuery was not.
inline Episode Author::early_next()
{
	Script s("");
	broken_item(s);
	bool sync_late = rng_.chance(50);
	s.send(sync_late ? rawpg::flush() : rawpg::sync());
	s.next_step(static_cast<uint32_t>(rng_.below(5000)));
	if (sync_late)
		s.send(rawpg::query("select 'ignored until Sync'") + rawpg::sync());
	s.ready('I', false);
	s.step().expects.back().early = !sync_late;
	ask_extended(s, select(300), true, 'I');
	return s.ep;
}

// Execute with a row limit on the unnamed portal: PortalSuspended, and on with it.
inline Episode Author::row_limit()
{
	Script s("");
	Select q = select(3000);
	uint32_t rows = static_cast<uint32_t>(rng_.between(2, 40)), at = 0;
	q.sql =
	    "select '" + q.id + ".' || i as \"" + q.id + "\" from generate_series(0, " + std::to_string(rows - 1) + ") i";
	q.row.more.clear();
	q.row.pattern.clear();
	q.row.numbered = true;
	s.send(rawpg::parse(q.sql) + rawpg::bind_to());
	s.want_all("12");
	for (;;) {
		uint32_t limit = static_cast<uint32_t>(rng_.between(1, 10));
		s.send(rawpg::execute(limit));
		q.row.at = at;
		q.row.rows = limit < rows - at ? limit : rows - at;
		if (q.row.rows > 0)
			push(s, q.row);
		at += q.row.rows;
		// A limit that is met exactly says suspended; the next Execute then finds nothing.
		if (q.row.rows < limit)
			break;
		s.want('s');
		if (rng_.chance(50)) {
			s.send(rawpg::flush());
			s.next_step(static_cast<uint32_t>(rng_.below(3000)));
		}
	}
	s.done("SELECT " + std::to_string(q.row.rows));
	s.send(rawpg::sync());
	s.ready('I');
	return s.ep;
}

// Two named portals read in turns, over several Syncs of one transaction.
inline Episode Author::portals()
{
	Script s("");
	s.ep.in_transaction = true;
	s.send(rawpg::query("begin"));
	s.done("BEGIN");
	s.ready('T');
	Expect rows[2];
	for (int p = 0; p < 2; p++) {
		Expect &row = rows[p];
		row.type = 'D';
		row.id = next_id(self_);
		row.numbered = true;
		s.send(rawpg::parse("select '" + row.id + ".' || i from generate_series(0, 99) i") +
		       rawpg::bind_to("", "portal" + std::to_string(p)) + rawpg::sync());
		s.want_all("12");
		s.ready('T');
	}
	for (uint64_t turn = rng_.between(2, 8); turn > 0; turn--) {
		Expect &row = rows[rng_.below(2)];
		row.rows = static_cast<uint32_t>(rng_.between(1, 10));
		s.next_step(static_cast<uint32_t>(rng_.below(1000)));
		s.send(rawpg::execute(row.rows, &row == &rows[0] ? "portal0" : "portal1") + rawpg::sync());
		push(s, row);
		row.at += row.rows;
		s.want('s');
		s.ready('T');
	}
	s.send(rawpg::close_name('P', "portal0") + rawpg::sync());
	s.want('3');
	s.ready('T');
	bool commits = rng_.chance(50);
	s.send(rawpg::query(commits ? "commit" : "rollback"));
	s.done(commits ? "COMMIT" : "ROLLBACK");
	s.ready('I', commits);
	return s.ep;
}

inline void Author::transaction_part(Script &s, bool pipelined)
{
	if (!pipelined)
		s.next_step(static_cast<uint32_t>(rng_.chance(20) ? rng_.below(20000) : 0));
	switch (rng_.below(6)) {
	case 0:
		s.send(rawpg::query(insert_sql(s)));
		s.done("INSERT 0 1");
		s.ready('T');
		break;
	case 1: {
		size_t mark = s.mark();
		s.send(rawpg::query("savepoint one; " + insert_sql(s)));
		s.done("SAVEPOINT");
		s.done("INSERT 0 1");
		s.ready('T');
		std::string id = next_id(self_);
		s.send(rawpg::query("select \"" + id + "\""));
		s.error("42703", id);
		s.ready('E');
		s.send(rawpg::query("select 'refused'"));
		s.error("25P02", "");
		s.ready('E');
		s.send(rawpg::query("rollback to one"));
		s.done("ROLLBACK");
		s.ready('T');
		s.roll_back_to(mark);
		break;
	}
	case 2: {
		std::string value = std::to_string(2 * rng_.between(50, 5000) + 1) + "kB"; // odd: never shown in MB
		s.send(rawpg::query("set local work_mem = '" + value + "'; show work_mem"));
		s.done("SET");
		s.want('T');
		s.want('D').id = value;
		s.done("SHOW");
		s.ready('T');
		break;
	}
	case 3:
		ask_extended(s, select(20000), true, 'T');
		break;
	default:
		ask(s, select(20000), 'T');
	}
}

inline Episode Author::transaction()
{
	Script s("");
	s.ep.in_transaction = true;
	bool pipelined = rng_.chance(30);
	s.send(rawpg::query("begin"));
	s.done("BEGIN");
	s.ready('T');
	for (uint64_t parts = rng_.between(1, 6); parts > 0; parts--)
		transaction_part(s, pipelined);
	if (!pipelined)
		s.next_step();
	uint64_t dice = rng_.below(10);
	if (dice == 0) { // COMMIT of a failed transaction is a rollback
		std::string id = next_id(self_);
		s.send(rawpg::query("select \"" + id + "\""));
		s.error("42703", id);
		s.ready('E');
	}
	bool commits = dice > 0 && dice < 7;
	s.send(rawpg::query(commits || dice == 0 ? "commit" : "rollback"));
	s.done(commits ? "COMMIT" : "ROLLBACK");
	s.ready('I', commits);
	return s.ep;
}

inline Episode Author::copy_out()
{
	Script s("");
	Select q = select(30000);
	bool extended = rng_.chance(50);
	std::string sql = "copy (" + q.sql + ") to stdout";
	if (extended) {
		s.send(rawpg::parse(sql) + rawpg::bind_to() + rawpg::execute() + rawpg::sync());
		s.want_all("12");
	} else {
		s.send(rawpg::query(sql));
	}
	s.want('H');
	q.row.type = 'd';
	if (q.row.rows > 0)
		push(s, q.row);
	s.want('c');
	s.done("COPY " + std::to_string(q.row.rows));
	s.ready('I');
	return s.ep;
}

// The ways a COPY can end; Late is an error that the server sees only when CopyDone came.
enum class CopyEnd { Good, Fail, Bad, Late };

// COPY FROM in the simple protocol; what is still sent after an error is ignored by the server.
inline Episode Author::copy_simple()
{
	Script s("");
	uint64_t dice = rng_.below(10);
	CopyEnd end = dice < 5 ? CopyEnd::Good : dice < 6 ? CopyEnd::Fail : dice < 8 ? CopyEnd::Bad : CopyEnd::Late;
	bool in_transaction = rng_.chance(30);
	if (in_transaction) {
		s.ep.in_transaction = true;
		s.send(rawpg::query("begin"));
		s.done("BEGIN");
		s.ready('T');
	}
	std::string id = next_id(self_);
	uint32_t rows = static_cast<uint32_t>(rng_.between(1, 60));
	s.insert(self_.seq, rows);
	s.send(rawpg::query("copy isocheck from stdin"));
	s.want('G');
	if (rng_.chance(50))
		s.next_step(static_cast<uint32_t>(rng_.below(5000)));
	for (uint32_t i = 0; i < rows; i++)
		s.send(rawpg::copy_data(copy_lines(self_.seq, 1)));
	if (end == CopyEnd::Bad || end == CopyEnd::Late)
		s.send(rawpg::copy_data(self_.tag + "\t" + id + "\tx" + (end == CopyEnd::Bad ? "\n" : "")));
	if (end == CopyEnd::Bad)
		s.send(rawpg::copy_data(copy_lines(self_.seq, 5)));
	s.send(end == CopyEnd::Fail ? rawpg::copy_fail(id) : rawpg::copy_done());
	if (end == CopyEnd::Good)
		s.done("COPY " + std::to_string(rows));
	else
		s.error(end == CopyEnd::Fail ? "57014" : "22P02", id);
	s.ready(in_transaction ? (end == CopyEnd::Good ? 'T' : 'E') : 'I', end == CopyEnd::Good);
	if (in_transaction) {
		s.send(rawpg::query("commit"));
		s.done(end == CopyEnd::Good ? "COMMIT" : "ROLLBACK");
		s.ready('I', end == CopyEnd::Good);
	}
	if (rng_.chance(50))
		ask(s, select(300), 'I');
	return s.ep;
}

// COPY FROM in the extended protocol. A Sync that the server reads while it copies is ignored; libpq sends
// one together with Execute, so this must work.
inline Episode Author::copy_extended()
{
	Script s("");
	uint64_t dice = rng_.below(10);
	CopyEnd end = dice < 5 ? CopyEnd::Good : dice < 6 ? CopyEnd::Fail : dice < 8 ? CopyEnd::Bad : CopyEnd::Late;
	std::string id = next_id(self_);
	uint32_t rows = static_cast<uint32_t>(rng_.between(1, 60));
	s.insert(self_.seq, rows);
	s.send(rawpg::parse("copy isocheck from stdin") + rawpg::bind_to() + rawpg::execute());
	s.want_all("12G");
	uint64_t style = rng_.below(3);
	if (style == 1)
		s.send(rawpg::sync());
	if (style == 2)
		s.send(rawpg::flush());
	if (style > 0)
		s.next_step(static_cast<uint32_t>(rng_.below(5000)));
	for (uint32_t i = 0; i < rows; i++) {
		s.send(rawpg::copy_data(copy_lines(self_.seq, 1)));
		if (rng_.chance(2))
			s.send(rng_.chance(50) ? rawpg::sync() : rawpg::flush());
	}
	if (end == CopyEnd::Bad || end == CopyEnd::Late)
		s.send(rawpg::copy_data(self_.tag + "\t" + id + "\tx" + (end == CopyEnd::Bad ? "\n" : "")));
	if (end == CopyEnd::Bad)
		s.send(rawpg::copy_data(copy_lines(self_.seq, 5)));
	s.send(end == CopyEnd::Fail ? rawpg::copy_fail(id) : rawpg::copy_done());
	if (end == CopyEnd::Good)
		s.done("COPY " + std::to_string(rows));
	else
		s.error(end == CopyEnd::Fail ? "57014" : "22P02", id);
	s.send(rawpg::sync());
	s.ready('I', end == CopyEnd::Good);
	if (rng_.chance(50))
		ask_extended(s, select(300), true, 'I');
	return s.ep;
}

inline Episode Author::notice()
{
	Script s("");
	std::string body;
	for (uint64_t left = rng_.between(1, 5); left > 0; left--) {
		std::string id = next_id(self_);
		body += "raise notice '" + id + "'; ";
		s.notice(id);
	}
	s.send(rawpg::query("do $$ begin " + body + "end $$"));
	s.done("DO");
	s.ready('I');
	return s.ep;
}

inline Episode Author::exception()
{
	Script s("");
	std::string id = next_id(self_), sql = "do $$ begin raise exception '" + id + "'; end $$";
	if (rng_.chance(50)) {
		s.send(rawpg::query(sql));
	} else {
		s.send(rawpg::parse(sql) + rawpg::bind_to() + rawpg::execute() + rawpg::sync());
		s.want_all("12");
	}
	s.error("P0001", id);
	s.ready('I', false);
	return s.ep;
}

// The startup parameters hold, inside and outside of transactions, and SET LOCAL ends with its transaction.
inline Episode Author::settings()
{
	Script s("");
	bool in_transaction = rng_.chance(60);
	char status = in_transaction ? 'T' : 'I';
	s.ep.in_transaction = in_transaction;
	auto show_all = [&](char ready) {
		for (const auto &setting : self_.settings) {
			s.send(rawpg::query("show " + setting.first));
			s.want('T');
			s.want('D').id = setting.second;
			s.done("SHOW");
			s.ready(ready);
		}
	};
	if (in_transaction) {
		s.send(rawpg::query("begin"));
		s.done("BEGIN");
		s.ready('T');
	}
	show_all(status);
	if (!in_transaction)
		return s.ep;
	s.next_step();
	s.send(rawpg::query("set local timezone = 'Pacific/Fiji'; set local datestyle = 'SQL, YMD'; show timezone"));
	s.done("SET");
	s.done("SET");
	s.want('T');
	s.want('D').id = "Pacific/Fiji";
	s.done("SHOW");
	s.ready('T');
	s.next_step();
	bool commits = rng_.chance(50);
	s.send(rawpg::query(commits ? "commit" : "rollback"));
	s.done(commits ? "COMMIT" : "ROLLBACK");
	s.ready('I');
	show_all('I');
	return s.ep;
}

inline Episode Author::identity()
{
	Script s("");
	std::string id = next_id(self_);
	Select q;
	q.sql = "select '" + id + "' as \"" + id + "\", session_user, current_user, current_database()";
	q.tag = "SELECT 1";
	q.shape.type = 'T';
	q.shape.id = id;
	q.row.type = 'D';
	q.row.id = id;
	q.row.more = {self_.user, self_.user, self_.database};
	ask(s, q, 'I');
	return s.ep;
}

// Large messages towards the server: their digest must come back.
inline Episode Author::big_send()
{
	Script s("");
	std::string id = next_id(self_);
	Bytes payload;
	for (size_t size = rng_.chance(20) ? 1 + rng_.below(2 << 20) : 1 + rng_.below(70000); payload.size() < size;)
		payload += std::to_string(rng_.next());
	Expect row;
	row.type = 'D';
	row.id = id;
	row.more = {rawpg::md5_hex(payload)};
	if (rng_.chance(50)) {
		s.send(rawpg::query("select '" + id + "' as \"" + id + "\", md5('" + payload + "')"));
		s.want('T').id = id;
	} else {
		s.send(rawpg::parse("select $1::text, md5($2::text)") + rawpg::bind_to("", "", {id, payload}) +
		       rawpg::execute() + rawpg::sync());
		s.want_all("12");
	}
	push(s, row);
	s.done("SELECT 1");
	s.ready('I');
	return s.ep;
}

inline Episode Author::empty()
{
	Script s("");
	s.send(rawpg::query(rng_.chance(50) ? "" : " ; "));
	s.want('I');
	s.ready('I');
	if (rng_.chance(50)) {
		s.send(rawpg::parse("") + rawpg::bind_to() + rawpg::describe('P', "") + rawpg::execute() + rawpg::sync());
		s.want_all("12nI");
		s.ready('I');
	}
	ask(s, select(300), 'I');
	return s.ep;
}

// A query that its own client may cancel: it ends well or with 57014, nothing else.
inline Episode Author::cancel()
{
	Script s("");
	bool in_transaction = rng_.chance(30);
	if (in_transaction) {
		s.ep.in_transaction = true;
		s.send(rawpg::query("begin"));
		s.done("BEGIN");
		s.ready('T');
		s.next_step();
	}
	uint32_t sleep_us = static_cast<uint32_t>(rng_.below(40000));
	Select q;
	q.id = next_id(self_);
	q.tag = "SELECT 1";
	q.shape.type = 'T';
	q.shape.id = q.id;
	q.row.type = 'D';
	q.row.id = q.id;
	std::string rows = std::to_string(rng_.between(1, 200000));
	bool sleeps = rng_.chance(60);
	q.row.more = {sleeps ? "" : rows};
	q.sql = "select '" + q.id + "' as \"" + q.id + "\", " +
	        (sleeps ? "pg_sleep(" + std::to_string(sleep_us) + " / 1e6)"
	                : "(select count(*) from generate_series(1, " + rows + "))");
	if (rng_.chance(50))
		ask(s, q, in_transaction ? 'T' : 'I');
	else
		ask_extended(s, q, true, in_transaction ? 'T' : 'I');
	s.step().cancel = true;
	s.step().cancel_us = static_cast<uint32_t>(rng_.below(sleep_us + sleep_us / 2 + 1));
	s.step().cancelled = in_transaction ? 'E' : 'I';
	if (in_transaction) {
		s.next_step();
		s.send(rawpg::query("rollback"));
		s.done("ROLLBACK");
		s.ready('I', false);
	}
	s.next_step();
	ask(s, select(300), 'I');
	return s.ep;
}

// Named statements, only on request: parsed, used over several transactions, closed.
inline Episode Author::named()
{
	Script s("");
	std::string name = "statement" + std::to_string(rng_.below(3));
	Select q = select(3000);
	s.send(rawpg::parse(q.sql, name) + rawpg::sync());
	s.want('1');
	s.ready('I');
	for (uint64_t left = rng_.between(1, 4); left > 0; left--) {
		s.next_step(static_cast<uint32_t>(rng_.below(5000)));
		s.send(rawpg::bind_to(name) + rawpg::describe('P', "") + rawpg::execute() + rawpg::sync());
		s.want('2');
		push(s, q.shape);
		if (q.row.rows > 0)
			push(s, q.row);
		s.done(q.tag);
		s.ready('I');
	}
	s.next_step();
	s.send(rawpg::close_name('S', name) + rawpg::sync());
	s.want('3');
	s.ready('I');
	return s.ep;
}

} // namespace iso
