// diffgen: the traffic of the differential test: random messages whose replies do not depend on time or place.
//
// It owns the alphabet (a few names, a few texts, right and wrong) and the way from a seed to sequences of
// messages: the same seed gives the same ones on every machine. It knows no socket and expects no reply: what
// is right is what PostgreSQL says (differ.cpp). It guesses what a name means at the moment, only so that
// many of the messages are valid. What depends on the clock, on process ids or on the session's settings and
// what a session does not keep in transaction mode (README.md) has no place here.
#pragma once

#include <array>
#include <cstdio>

#include "rawpg.hpp"

namespace differ
{

using rawpg::Bytes;
using rawpg::Param;
using rawpg::Rng;
using Strings = std::vector<std::string>;

// What stands behind an option, because pgpool is allowed to differ, or because it is rare and slow.
struct Allow {
	bool ddl = false;              // result types change: PostgreSQL refuses a plan that pgpool prepares anew
	bool deallocate = false;       // DEALLOCATE of a name of the protocol
	bool odd_names = false;        // names that look like pgpool's own, and longer than PostgreSQL keeps them
	bool long_texts = false;       // above 64 KiB, and above 1 MiB
	bool fetch = false;            // prepared FETCH: its columns are those that the cursor had when it was prepared
	bool unnamed_later = false;    // the unnamed statement in a later batch than its first use
	bool sync_in_copy = false;     // which a copy discards, unless it has failed
	bool ahead_of_discard = false; // messages behind DISCARD ALL before it was answered
};

struct Op {
	enum class Kind { Message, Write, Wait, Pause, End };
	Kind kind = Kind::Message;
	Bytes bytes;      // Message
	std::string text; // how a report shows it: a line for replay
	// Message: written in two pieces, and this is the first one's size; Wait: 1 = by all means, else until it is quiet
	// for some milliseconds; Pause: microseconds; End: number
	uint32_t size = 0;
};
using Ops = std::vector<Op>;

// One text of the alphabet and what the generator must know of it.
struct Text {
	const char *sql;
	unsigned params = 0;
	char copy = 0; // 'i': from stdin
};

// Bind and Execute of these succeed, most of the time.
constexpr std::array kPlain = {
    Text{"select 1"},
    Text{"select $1::int4 + 1", 1},
    Text{"select $1::text, $2::int4 as n", 2},
    Text{"select n, repeat('x', n) from generate_series(1, 7) n"},
    Text{"select id, v from d_t order by id"},
    Text{"select id, v from d_t where id > $1 order by id", 1},
    Text{"select count(*), sum(id) from d_t"},
    Text{"insert into d_t values ($1, $2)", 2},
    Text{"insert into d_u values ($1)", 1},
    Text{"update d_t set v = v || 'x' where id = $1", 1},
    Text{"delete from d_t where id = $1 returning id, v", 1},
    Text{"values ($1::int4, 'x'), (2, 'y')", 1},
    Text{"select 12 / $1::int4", 1},
    Text{"select 1 / (n - 3) from generate_series(1, 5) n"},
    Text{""},
    Text{"-- nothing"},
    Text{";"},
    Text{"do $$ begin raise notice 'noted'; end $$"},
    Text{"do $$ begin raise exception 'raised' using errcode = 'P0042'; end $$"},
    Text{"show transaction_isolation"},
    Text{"explain (costs off) select 1"},
    Text{"select repeat('y', 9000)"},
    Text{"select $1", 1},
    Text{"select E'\\x41', 'it''s', null::int4, true"},
    Text{"declare cur cursor for select n from generate_series(1, 9) n"},
    Text{"close cur"},
    Text{"copy (select id, v from d_t order by id) to stdout"},
    Text{"copy (select n from generate_series(1, 3) n) to stdout"},
};

constexpr std::array kTransaction = {
    Text{"begin"},
    Text{"commit"},
    Text{"rollback"},
    Text{"savepoint s"},
    Text{"rollback to s"},
    Text{"release s"},
    Text{"begin isolation level serializable"},
    Text{"start transaction read only"},
    Text{"commit and chain"},
    Text{"rollback and chain"},
    Text{"end"},
    Text{"abort"},
};

constexpr std::array kWrong = {
    Text{"selec 1"},
    Text{"select nope"},
    Text{"select 1 from nowhere"},
    Text{"select 1; select 2"},
    Text{"select 'open"},
    Text{"select $2::int4", 2},
    Text{"select $0"},
    Text{"insert into d_t values (1, 'taken')"},
    Text{"rollback to nowhere"},
};

constexpr std::array kQueries = {
    Text{"fetch 2 from cur"},
    Text{"fetch 1 from nowhere"},
    Text{"select 1; select 2"},
    Text{"begin; select 1"},
    Text{"select 1; commit; select 2"},
    Text{"begin; selec"},
    Text{"begin; select 1/0; select 2"},
    Text{"insert into d_t values (50, 'q'); select 1/0"},
    Text{"insert into d_t values (51, 'q'); select count(*) from d_t"},
    Text{"savepoint s; select 1; rollback to s"},
    Text{";;"},
    Text{"select 1;; select 2;"},
    Text{"begin; declare cur cursor for select n from generate_series(1, 9) n; fetch 1 from cur"},
    Text{"insert into d_u values (1), (1)"},
    Text{"select 1; do $$ begin raise notice 'noted'; end $$; select 2"},
};

constexpr std::array kDdl = {
    Text{"alter table d_t alter v type varchar(99)"},
    Text{"alter table d_t alter v type text"},
    Text{"alter table d_t add w int"},
    Text{"alter table d_t drop w"},
    Text{"create index d_i on d_t (v)"},
    Text{"drop index d_i"},
};

class Generator
{
public:
	Generator(uint64_t seed, const Allow &allow) : rng_(seed), allow_(allow) {}

	// Ends in a state that the next one can begin with: no copy, no transaction, nothing to come.
	Ops sequence(uint32_t number)
	{
		ops_.clear();
		for (uint64_t steps = rng_.between(1, 9); steps > 0; steps--) {
			step();
			if (rng_.chance(15))
				put(Op::Kind::Write);
			if (rng_.chance(4))
				put(Op::Kind::Pause, static_cast<uint32_t>(rng_.between(100, 1500)));
		}
		put(Op::Kind::End, number);
		return std::move(ops_);
	}

private:
	void put(Op::Kind kind, uint32_t size = 0) { ops_.push_back({kind, {}, {}, size}); }

	void add(Bytes bytes, std::string text)
	{
		Op op{Op::Kind::Message, std::move(bytes), std::move(text), 0};
		if (rng_.chance(5))
			op.size = static_cast<uint32_t>(rng_.between(1, op.bytes.size()));
		ops_.push_back(std::move(op));
	}

	static std::string quoted(const Bytes &bytes)
	{
		std::string result = "\"";
		char piece[8];
		for (char c : bytes.substr(0, 400)) {
			if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126) {
				snprintf(piece, sizeof piece, "\\x%02x", static_cast<unsigned char>(c));
				result += piece;
			} else {
				result += c;
			}
		}
		return result + (bytes.size() > 400 ? "...\"" : "\"");
	}

	template <typename Array> const Text &any(const Array &texts) { return texts[rng_.below(texts.size())]; }

	const Text &text()
	{
		static const Text kFetch{"fetch 2 from cur"};
		if (allow_.fetch && rng_.chance(3))
			return kFetch;
		uint64_t n = rng_.below(100);
		return n < 72 ? any(kPlain) : n < 86 ? any(kTransaction) : any(kWrong);
	}

	Bytes statement_name()
	{
		if (allow_.odd_names && rng_.chance(12)) {
			if (rng_.chance(50))
				return rng_.chance(50) ? "_pgpool_1" : "_pgpool_scratch";
			return Bytes(63, 'n') + (rng_.chance(50) ? "1" : "2");
		}
		return rng_.chance(25) ? Bytes() : Bytes(1, static_cast<char>('a' + rng_.below(rng_.chance(90) ? 3 : 8)));
	}

	// Of a statement that is to be used.
	Bytes used_name()
	{
		Bytes name = statement_name();
		while (name.empty() && unnamed_ == Unnamed::Gone && !allow_.unnamed_later)
			name = statement_name();
		return name;
	}

	Bytes portal_name()
	{
		uint64_t n = rng_.below(20);
		return n < 12 ? "" : n < 16 ? "p" : n < 19 ? "q" : "cur";
	}

	// The unnamed portal that a failed Query leaves behind in a failed transaction points to freed memory: Execute of
	// it can crash a backend (PostgreSQL 15). So it is used only behind a Bind in the same batch.
	Bytes used_portal()
	{
		Bytes name = portal_name();
		return name.empty() && !bound_ ? "p" : name;
	}

	// ---- single messages
	void parse(const Bytes &name, const Text &t)
	{
		bool kept = name.empty() && rng_.chance(30); // for the next batch, too
		if (kept)
			sync();
		std::vector<uint32_t> types;
		std::string shown = "P " + quoted(name) + " " + quoted(t.sql);
		if (rng_.chance(8)) {
			constexpr uint32_t kTypes[] = {0, 23, 25, 20, 999999};
			for (uint64_t n = rng_.between(1, 2); n > 0; n--) {
				types.push_back(kTypes[rng_.below(5)]);
				shown += " " + std::to_string(types.back());
			}
		}
		add(rawpg::parse(t.sql, name, types), shown);
		remember(name, t);
		if (kept)
			unnamed_ = Unnamed::Fresh;
	}

	void long_parse(const Bytes &name)
	{
		size_t size = rng_.chance(80) ? rng_.between(60000, 140000) : rng_.between(1040000, 1060000);
		Bytes sql = "select 1 /* " + Bytes(size, 'l') + " */";
		add(rawpg::parse(sql, name), "# P " + quoted(name) + ", a text of " + std::to_string(sql.size()) + " bytes");
		remember(name, kPlain[0]);
	}

	void bind(const Bytes &portal, const Bytes &name)
	{
		if (name.empty() && unnamed_ == Unnamed::Fresh)
			unnamed_ = Unnamed::Used;
		bound_ = bound_ || portal.empty();
		static const Param kValues[] = {"1", "2", "7", "0", "11", "x", std::nullopt, ""};
		uint64_t count = known(name).params;
		if (rng_.chance(4))
			count = rng_.below(4);
		std::vector<Param> params;
		std::string shown = "B " + quoted(portal) + " " + quoted(name);
		for (; count > 0; count--) {
			params.push_back(kValues[rng_.below(rng_.chance(80) ? 5 : 8)]);
			shown += " " + (params.back() ? quoted(*params.back()) : std::string("null"));
		}
		std::vector<uint16_t> formats, results;
		if (rng_.chance(4))
			formats.assign(rng_.between(1, 3), static_cast<uint16_t>(rng_.below(2)));
		if (rng_.chance(10))
			results.assign(rng_.between(1, 3), static_cast<uint16_t>(rng_.below(3) % 2));
		Bytes bytes = rawpg::bind_to(name, portal, params, formats, results);
		if (!formats.empty() || !results.empty())
			shown = "raw " + rawpg::hex(bytes) + " # " + shown + ", with formats";
		add(bytes, shown);
	}

	void describe(char kind, const Bytes &name)
	{
		add(rawpg::describe(kind, name), std::string("D ") + kind + " " + quoted(name));
	}

	void execute(const Bytes &portal, uint32_t rows = 0)
	{
		add(rawpg::execute(rows, portal), "E " + quoted(portal) + " " + std::to_string(rows));
	}

	void close(char kind, const Bytes &name)
	{
		add(rawpg::close_name(kind, name), std::string("C ") + kind + " " + quoted(name));
	}

	void query(const Bytes &sql)
	{
		add(rawpg::query(sql), "Q " + quoted(sql));
		bound_ = false;
		unnamed_ = Unnamed::Gone;
	}

	void sync()
	{
		add(rawpg::sync(), "S");
		bound_ = false;
		if (unnamed_ == Unnamed::Used)
			unnamed_ = Unnamed::Gone;
		if (rng_.chance(15))
			put(Op::Kind::Wait);
	}

	void flush()
	{
		add(rawpg::flush(), "H");
		if (rng_.chance(10))
			put(Op::Kind::Wait);
	}

	// ---- what a name was last prepared as
	Text &known(const Bytes &name)
	{
		size_t n = name.empty() ? 0 : 1 + static_cast<size_t>(name[0] - 'A') % (known_.size() - 1);
		return known_[n];
	}

	void remember(const Bytes &name, const Text &t)
	{
		known(name) = t;
		if (name.empty())
			unnamed_ = Unnamed::Used;
	}

	// ---- steps of a sequence
	void step()
	{
		uint64_t n = rng_.below(100);
		if (n < 34)
			unit();
		else if (n < 54)
			single();
		else if (n < 66)
			sync();
		else if (n < 70)
			flush();
		else if (n < 82)
			simple();
		else if (n < 87)
			suspended();
		else if (n < 92)
			copy();
		else if (n < 95)
			replaced();
		else if (n < 98)
			forget();
		else
			rare();
	}

	// What a driver sends, with parts left out.
	void unit()
	{
		Bytes name = statement_name(), portal = portal_name();
		bool closes_first = !name.empty() && rng_.chance(30);
		if (closes_first)
			close('S', name);
		if (closes_first || name.empty() || rng_.chance(50))
			parse(name, text());
		if (rng_.chance(30))
			describe('S', name);
		if (rng_.chance(10))
			name.empty() && unnamed_ != Unnamed::Fresh ? flush() : sync();
		bind(portal, name);
		if (rng_.chance(40))
			describe('P', portal);
		execute(portal, rng_.chance(80) ? 0 : static_cast<uint32_t>(rng_.below(4)));
		if (known(name).copy == 'i')
			copy_data();
		if (rng_.chance(10))
			close('P', portal);
		if (rng_.chance(70))
			sync();
	}

	void single()
	{
		switch (rng_.below(7)) {
		case 0:
			return parse(statement_name(), text());
		case 1:
			return bind(portal_name(), used_name());
		case 2:
			return describe('S', used_name());
		case 3:
			return describe('P', used_portal());
		case 4:
			return execute(used_portal(), static_cast<uint32_t>(rng_.below(3)));
		case 5:
			return close('S', statement_name());
		default:
			return close('P', portal_name());
		}
	}

	void simple()
	{
		uint64_t n = rng_.below(100);
		if (n < 40)
			query(any(kTransaction).sql);
		else if (n < 70)
			query(any(kQueries).sql);
		else if (n < 90)
			query(any(kWrong).sql);
		else
			query("select id from d_t order by id");
		if (rng_.chance(15))
			put(Op::Kind::Wait);
	}

	// A portal that is executed in pieces, with other things between them.
	void suspended()
	{
		Bytes name = statement_name(), portal = rng_.chance(70) ? "p" : portal_name();
		bool in_block = rng_.chance(60);
		if (in_block)
			query("begin");
		if (name.empty() || rng_.chance(60))
			parse(name, kPlain[rng_.between(3, 5)]);
		bind(portal, name);
		for (uint64_t n = rng_.between(1, 4); n > 0; n--) {
			execute(portal, static_cast<uint32_t>(rng_.between(1, 3)));
			if (!portal.empty() && rng_.chance(20))
				single();
			if (!portal.empty() && rng_.chance(in_block ? 40 : 10))
				sync();
		}
		if (rng_.chance(50))
			execute(portal);
		sync();
	}

	void copy()
	{
		static const Text kCopyIn{"copy d_t from stdin", 0, 'i'};
		if (rng_.chance(40)) {
			query(kCopyIn.sql);
			copy_data();
			return;
		}
		Bytes name = statement_name();
		close('S', name);
		parse(name, kCopyIn);
		bind("", name);
		execute("");
		copy_data();
		sync();
		close('S', name); // whoever executes it by chance sends no data, and breaks the connection
		sync();
		remember(name, kPlain[0]);
	}

	void copy_data()
	{
		if (rng_.chance(10))
			put(Op::Kind::Pause, 500);
		for (uint64_t n = rng_.below(4); n > 0; n--) {
			uint64_t kind = rng_.below(20);
			std::string row = std::to_string(rng_.between(100, 140)) + "\tc\n";
			if (kind == 0)
				row = "no number\tc\n";
			else if (kind == 1)
				row = row.substr(0, 2); // the rest is in no message
			add(rawpg::copy_data(row), "d " + quoted(row));
			if (allow_.sync_in_copy && rng_.chance(5))
				add(rawpg::sync(), "S");
			if (rng_.chance(5))
				add(rawpg::flush(), "H");
		}
		if (rng_.chance(20))
			add(rawpg::copy_fail("enough"), "f \"enough\"");
		else
			add(rawpg::copy_done(), "c");
	}

	// One name that means one thing and then another, in one pipeline or in two; errors take some of it back.
	void replaced()
	{
		Bytes name = statement_name();
		for (uint64_t n = rng_.between(2, 4); n > 0; n--) {
			close('S', name);
			if (rng_.chance(25))
				bind("", "missing");
			parse(name, text());
			if (rng_.chance(60)) {
				bind("", name);
				execute("");
			}
			if (rng_.chance(40))
				sync();
		}
		sync();
	}

	void forget()
	{
		const char *sql = rng_.chance(60) ? "deallocate all" : "discard all";
		if (!allow_.ahead_of_discard) {
			sync(); // or it is skipped
			put(Op::Kind::Wait, 1);
		}
		if (rng_.chance(60)) {
			query(sql);
		} else {
			Bytes name = allow_.ahead_of_discard ? statement_name() : Bytes(); // a named one would be used again
			parse(name, {sql});
			bind("", name);
			execute("");
			sync();
		}
		if (!allow_.ahead_of_discard)
			put(Op::Kind::Wait, 1);
	}

	void rare()
	{
		if (allow_.ddl && rng_.chance(40)) {
			query(any(kDdl).sql);
		} else if (allow_.deallocate && rng_.chance(40)) {
			query(rng_.chance(50) ? "deallocate a" : "deallocate b");
		} else if (allow_.long_texts && rng_.chance(10)) {
			Bytes name = statement_name();
			long_parse(name);
			bind("", name);
			execute("");
			sync();
		} else if (rng_.chance(50)) {
			Param a = "12", b = "30";
			add(rawpg::function_call(177, {a, b}), "F 177 \"12\" \"30\""); // int4pl
		} else {
			query("select pg_sleep(0.002)");
		}
	}

	enum class Unnamed { Gone, Fresh, Used };

	Rng rng_;
	Allow allow_;
	Unnamed unnamed_ = Unnamed::Gone;
	bool bound_ = false; // the unnamed portal, in this batch
	Ops ops_;
	std::array<Text, 60> known_{};
};

} // namespace differ
