// A scripted PostgreSQL backend that works byte by byte, as PostgresMain() does.
//
// Owns the state of one backend: login, simple and extended protocol, COPY, transactions, settings that roll
// back. It is the fake server of the core, and, fed with the bytes of one client alone, the reference model
// of what that client must be answered. It notes a problem when a client's command arrives while another
// client's work is not at rest. Commands (";" separates, "cN" names the client that sends):
//   SELECT cN.x | ROWS cN.x COUNT LENGTH | FAIL cN.x | SLEEP cN.x | COPYIN cN.x | COPYOUT cN.x COUNT | DIE cN.x
//   NOTICE cN.x | BEGIN | COMMIT | ROLLBACK | SET name value | SHOW name, and what pgpool itself sends.
// Longer than a header should be: the language of the simulator and its model are one thing.
#pragma once

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/startup.hpp"
#include "proto/wire.hpp"

namespace fake
{

using pgpool::proto::Writer;

inline std::string message(char type, std::string_view body = {})
{
	std::string out;
	Writer(out).begin(type).bytes(body).end();
	return out;
}

inline std::string text_message(char type, std::string_view text)
{
	return message(type, std::string(text) + '\0');
}

inline std::string query(std::string_view sql)
{
	return text_message('Q', sql);
}

inline std::string parse(std::string_view sql, std::string_view name = "")
{
	std::string out;
	Writer(out).begin('P').string(name).string(sql).u16(0).end();
	return out;
}

inline std::string bind_to(std::string_view statement = "", std::string_view portal = "")
{
	std::string out;
	Writer(out).begin('B').string(portal).string(statement).u16(0).u16(0).u16(0).end();
	return out;
}

inline std::string execute(uint32_t rows = 0, std::string_view portal = "")
{
	std::string out;
	Writer(out).begin('E').string(portal).u32(rows).end();
	return out;
}

inline std::string describe(char kind, std::string_view name = "")
{
	return text_message('D', kind + std::string(name));
}

using Settings = std::map<std::string, std::string>;

inline bool is_reported(const std::string &name)
{
	return name == "application_name" || name == "TimeZone" || name == "DateStyle" || name == "client_encoding";
}

inline std::string canonical(std::string_view name)
{
	for (const char *known : {"application_name", "TimeZone", "DateStyle", "client_encoding", "statement_timeout",
	                          "search_path", "idle_session_timeout"}) {
		if (pgpool::proto::equal_names(name, known))
			return known;
	}
	return std::string(name);
}

class Backend
{
public:
	Settings defaults{{"application_name", ""},    {"TimeZone", "UTC"},        {"DateStyle", "ISO, MDY"},
	                  {"client_encoding", "UTF8"}, {"statement_timeout", "0"}, {"search_path", "public"}};
	std::string out;             // what it sends
	std::string problem;         // a claim that did not hold
	std::string verifier;        // asks for SCRAM when not empty
	pgpool::proto::Error refuse; // instead of a greeting
	int32_t pid = 0;
	uint32_t database_oid = 5, role_oid = 10;
	bool dead = false;            // it closed its end
	bool greet = true;            // false: the model, which is logged in from the start
	std::vector<std::string> log; // commands that it executed
	std::string history;          // types of the last messages, after an error in lower case
	int cancelled = -1;           // client whose SLEEP was cancelled last
	size_t bytes_in = 0;

	void be_model(const Settings &settings)
	{
		phase_ = Phase::Ready;
		for (const auto &s : settings)
			defaults[canonical(s.first)] = s.second;
		now_ = reported_ = defaults;
	}
	void feed(std::string_view bytes)
	{
		in_ += bytes;
		bytes_in += bytes.size();
	}
	void run()
	{
		while (step()) {
		}
	}
	bool sleeping() const { return sleeping_; }
	void wake() { end_sleep(false); }
	void interrupt()
	{
		if (sleeping_)
			end_sleep(true);
	}
	char status() const { return block_; }
	bool copying() const { return copying_; }
	bool at_rest() const { return block_ == 'I' && !unsynced_ && !skipping_ && !copying_ && !sleeping_ && in_.empty(); }
	const std::string &unread() const { return in_; }
	std::string value(const std::string &name) { return now_[name]; }
	void die(const char *sqlstate = "57P01")
	{
		if (dead)
			return;
		pgpool::proto::append_error(out, pgpool::proto::Severity::Fatal, {sqlstate, "terminating connection", "", ""});
		dead = true;
		sleeping_ = false;
	}

	// One message. False: nothing to do.
	bool step()
	{
		if (dead || sleeping_)
			return false;
		if (phase_ == Phase::Startup)
			return startup();
		if (in_.size() < 5)
			return false;
		const uint32_t length = pgpool::proto::load32(&in_[1]);
		if (in_[0] == 0 || !strchr("QPBDECSHFXdcfp", in_[0]) || length < 4 || length > pgpool::proto::kMaxMessage + 4) {
			note("the backend lost its place in the stream");
			die("08P01");
			return false;
		}
		if (in_.size() <= length)
			return false;
		const char type = in_[0];
		const std::string body = in_.substr(5, length - 4);
		in_.erase(0, size_t{length} + 1);
		history += skipping_ ? static_cast<char>(tolower(type)) : type;
		if (history.size() > 40)
			history.erase(0, 20);
		if (phase_ == Phase::Password)
			password(body);
		else if (copying_)
			copy_message(type, body);
		else
			dispatch(type, body);
		return true;
	}

private:
	enum class Phase { Startup, Password, Ready };
	enum class Result { Done, Failed, Later };

	void note(const std::string &what)
	{
		if (problem.empty())
			problem = "backend " + std::to_string(pid) + ": " + what;
	}

	// ---- login

	bool startup()
	{
		if (in_.size() < 4 || in_.size() < pgpool::proto::load32(in_.data()))
			return false;
		pgpool::proto::Startup s;
		pgpool::proto::Error error;
		if (!pgpool::proto::read_startup(in_, s, error))
			note("a startup packet that cannot be read");
		in_.clear();
		for (const auto &setting : s.settings)
			defaults[canonical(setting.first)] = setting.second;
		defaults["application_name"] = s.application_name;
		now_ = defaults;
		phase_ = Phase::Password;
		if (verifier.empty()) {
			greeting();
			return true;
		}
		pgpool::proto::ScramVerifier v;
		(void)pgpool::proto::ScramVerifier::parse(verifier, v);
		scram_ = std::make_unique<pgpool::proto::ScramServer>(v, false, "");
		pgpool::proto::append_authentication(out, 10, pgpool::proto::ScramServer::mechanisms(false));
		return true;
	}

	void password(const std::string &body)
	{
		std::string answer;
		pgpool::proto::ScramKey key;
		if (!first_seen_) {
			first_seen_ = true;
			pgpool::proto::Reader r(body);
			const std::string mechanism(r.string());
			const std::string_view data = r.bytes(r.u32());
			if (scram_->first(mechanism, data, answer) == pgpool::proto::ScramStep::Continue)
				pgpool::proto::append_authentication(out, 11, answer);
			else
				die("28000");
			return;
		}
		if (scram_->final(body, answer, key) != pgpool::proto::ScramStep::Done) {
			die("28P01");
			return;
		}
		pgpool::proto::append_authentication(out, 12, answer);
		greeting();
	}

	void greeting()
	{
		if (!refuse.sqlstate.empty()) {
			pgpool::proto::append_error(out, pgpool::proto::Severity::Fatal, refuse);
			dead = true;
			return;
		}
		phase_ = Phase::Ready;
		pgpool::proto::append_authentication(out, 0);
		pgpool::proto::append_parameter(out, "server_version", "15.20");
		for (const auto &s : now_) {
			if (is_reported(s.first))
				pgpool::proto::append_parameter(out, s.first, s.second);
		}
		reported_ = now_;
		Writer(out).begin('K').u32(static_cast<uint32_t>(pid)).u32(77).end();
		pgpool::proto::append_ready(out, 'I');
	}

	// ---- the main loop

	void dispatch(char type, const std::string &body)
	{
		pgpool::proto::Reader r(body);
		if (type == 'X') {
			dead = true;
			return;
		}
		if (type == 'S') {
			end_of_batch();
			return;
		}
		if (skipping_ || type == 'd' || type == 'c' || type == 'f')
			return;
		extended_ = type != 'Q' && type != 'F';
		switch (type) {
		case 'Q':
			simple(std::string(r.string()));
			break;
		case 'F':
			function_call(r.u32());
			break;
		case 'H':
			break;
		case 'P': {
			const std::string name(r.string()), sql(r.string());
			claim(sql);
			unsynced_ = true;
			open();
			if (name.empty())
				statements_.erase(name);
			if (sql.substr(0, 8) == "BADPARSE")
				fail("42601", "syntax error");
			else if (refused(sql))
				fail("25P02", "current transaction is aborted");
			else if (statements_.count(name) != 0)
				fail("42P05", "prepared statement exists");
			else
				statements_[name] = sql, out += message('1');
			break;
		}
		case 'B': {
			const std::string portal(r.string()), name(r.string());
			if (statements_.count(name) != 0)
				claim(statements_[name]);
			unsynced_ = true;
			open();
			if (statements_.count(name) == 0) {
				fail("26000", "no such statement");
				break;
			}
			if (refused(statements_[name])) {
				fail("25P02", "current transaction is aborted");
				break;
			}
			portals_[portal] = {statements_[name], 0};
			out += message('2');
			break;
		}
		case 'D':
			describe_message(body);
			break;
		case 'E': {
			const std::string portal(r.string());
			const uint32_t limit = r.u32();
			unsynced_ = true;
			open();
			if (portals_.count(portal) == 0) {
				fail("34000", "no such portal");
				break;
			}
			portal_ = portal;
			execute_statement(portals_[portal].sql, limit);
			break;
		}
		case 'C':
			unsynced_ = true;
			if (body.size() < 2) {
				fail("08P01", "invalid message format");
				break;
			}
			if (body[0] == 'S')
				statements_.erase(body.substr(1, body.size() - 2));
			out += message('3');
			break;
		default:
			break;
		}
	}

	// In a failed transaction only its end is taken, and a text without a statement.
	bool refused(const std::string &sql) const
	{
		return !sql.empty() && block_ == 'E' && sql.substr(0, 8) != "ROLLBACK" && sql.substr(0, 6) != "COMMIT";
	}

	void describe_message(const std::string &body)
	{
		unsynced_ = true;
		open();
		if (body.size() < 2) {
			fail("08P01", "invalid message format");
			return;
		}
		const std::string name = body.substr(1, body.size() - 2);
		const bool known = body[0] == 'S' ? statements_.count(name) > 0 : portals_.count(name) > 0;
		if (!known) {
			fail("26000", "no such thing to describe");
			return;
		}
		const std::string &sql = body[0] == 'S' ? statements_[name] : portals_[name].sql;
		const bool rows = sql.substr(0, 6) == "SELECT" || sql.substr(0, 4) == "ROWS" || sql.substr(0, 4) == "SHOW";
		if (rows && block_ == 'E') {
			fail("25P02", "current transaction is aborted");
			return;
		}
		if (body[0] == 'S')
			out += message('t', std::string(2, '\0'));
		if (rows)
			row_description();
		else
			out += message('n');
	}

	void function_call(uint32_t oid)
	{
		open();
		if (oid == 666)
			fail("42883", "function 666");
		else
			out += message('V', std::string("\0\0\0\1x", 5));
		end_of_query();
	}

	void simple(const std::string &sql)
	{
		claim(sql);
		portals_.clear();
		statements_.erase("");
		pending_.clear();
		bool quoted = false;
		std::string one;
		for (const char c : sql) {
			quoted ^= c == '\'';
			if (c == ';' && !quoted) {
				pending_.push_back(one);
				one.clear();
			} else {
				one += c;
			}
		}
		if (one.find_first_not_of(' ') != std::string::npos)
			pending_.push_back(one);
		if (pending_.empty()) {
			out += message('I');
			end_of_query();
			return;
		}
		resume();
	}

	// What is left of a Query.
	void resume()
	{
		while (!pending_.empty()) {
			const std::string sql = pending_.front();
			pending_.pop_front();
			open();
			const Result r = statement(sql, 0);
			if (r == Result::Later || dead)
				return;
			if (r == Result::Failed)
				break;
		}
		pending_.clear();
		end_of_query();
	}

	void execute_statement(const std::string &sql, uint32_t limit)
	{
		open();
		statement(sql, limit);
	}

	void end_of_query()
	{
		unsynced_ = touched_ = false; // it committed what an unfinished pipeline did
		close_implicit();
		ready();
	}

	void end_of_batch()
	{
		skipping_ = unsynced_ = touched_ = false;
		close_implicit();
		ready();
	}

	void ready()
	{
		for (const auto &s : now_) {
			if (is_reported(s.first) && reported_[s.first] != s.second)
				pgpool::proto::append_parameter(out, s.first, s.second);
		}
		reported_ = now_;
		pgpool::proto::append_ready(out, block_);
	}

	// ---- transactions

	void open()
	{
		if (!open_) {
			open_ = true;
			saved_ = now_;
		}
	}
	void close_implicit()
	{
		if (block_ == 'I') {
			open_ = false;
			portals_.clear();
		}
	}
	void abort_transaction()
	{
		if (open_)
			now_ = saved_;
		if (block_ != 'I')
			block_ = 'E';
		else
			open_ = false;
		portals_.clear();
	}
	Result fail(const char *sqlstate, const std::string &text)
	{
		pgpool::proto::append_error(out, pgpool::proto::Severity::Error, {sqlstate, text, "", ""});
		abort_transaction();
		if (extended_)
			skipping_ = true;
		return Result::Failed;
	}

	// The client that a command names: from one to another only at rest.
	void claim(const std::string &sql)
	{
		const size_t at = sql.find(" c");
		if (at == std::string::npos || !isdigit(static_cast<unsigned char>(sql[at + 2])))
			return;
		const int client = atoi(&sql[at + 2]);
		if (client != owner_ && owner_ >= 0 && (block_ != 'I' || touched_ || skipping_ || copying_))
			note("a server not at rest went from client " + std::to_string(owner_) + " to " + std::to_string(client) +
			     " (" + block_ + (touched_ ? ", no Sync yet" : "") + (skipping_ ? ", skipping" : "") +
			     (copying_ ? ", in copy" : "") + "), messages " + history);
		owner_ = client;
		touched_ |= extended_;
	}

	// ---- statements

	void row_description()
	{
		std::string body;
		Writer(body).u16(1).string("x").u32(0).u16(0).u32(25).u16(65535).u32(0xffffffff).u16(0);
		out += message('T', body);
	}
	void row(std::string_view text)
	{
		std::string body;
		Writer(body).u16(1).u32(static_cast<uint32_t>(text.size())).bytes(text);
		out += message('D', body);
	}
	Result done(const std::string &tag)
	{
		out += text_message('C', tag);
		return Result::Done;
	}

	Result statement(const std::string &sql, uint32_t limit)
	{
		std::istringstream words(sql);
		std::string word, a, b;
		words >> word >> a >> b;
		log.push_back(sql);
		if (block_ == 'E' && word != "ROLLBACK" && word != "COMMIT")
			return fail("25P02", "current transaction is aborted");
		if (word == "SELECT" && a == "d.oid,")
			return identity();
		if (word == "SELECT" && a.substr(0, 21) == "pg_catalog.set_config")
			return set_config(sql);
		if (word == "SELECT" || word == "SHOW") {
			if (!extended_)
				row_description();
			row(word == "SHOW" ? now_[canonical(a)] : a);
			return done(word == "SHOW" ? word : "SELECT 1");
		}
		if (word == "ROWS")
			return rows(a, atoi(b.c_str()), words, limit);
		if (word == "BEGIN") {
			block_ = 'T';
			return done("BEGIN");
		}
		if (word == "COMMIT" || word == "ROLLBACK")
			return end_block(word == "COMMIT");
		if (word == "FAIL")
			return fail("22012", a);
		if (word == "NOTICE") {
			out += message('N', std::string("SNOTICE\0C00000\0M", 16) + a + std::string(2, '\0'));
			return done("NOTICE");
		}
		if (word == "SLEEP") {
			sleeping_ = true;
			return Result::Later;
		}
		if (word == "DIE") {
			die();
			return Result::Failed;
		}
		return more_statements(word, a, b);
	}

	Result more_statements(const std::string &word, std::string a, const std::string &b)
	{
		if (word == "COPYIN") {
			copying_ = true;
			copied_ = 0;
			out += message('G', std::string(3, '\0'));
			return Result::Later;
		}
		if (word == "COPYOUT") {
			out += message('H', std::string(3, '\0'));
			for (int i = 0; i < atoi(b.c_str()); i++)
				out += message('d', a);
			out += message('c');
			return done("COPY " + b);
		}
		if (word == "SET") {
			if (b == "bad")
				return fail("22023", "invalid value");
			now_[canonical(a)] = b;
			return done("SET");
		}
		if (word == "RESET") {
			a = a.substr(1, a.size() - 2);
			now_[canonical(a)] = defaults[canonical(a)];
			return done("RESET");
		}
		if (word == "DISCARD") {
			now_ = defaults;
			statements_.clear();
			return done("DISCARD ALL");
		}
		return fail("42601", "syntax error: " + word);
	}

	Result identity()
	{
		if (!extended_)
			row_description();
		std::string body;
		const std::string d = std::to_string(database_oid), r = std::to_string(role_oid);
		Writer(body).u16(2).u32(static_cast<uint32_t>(d.size())).bytes(d).u32(static_cast<uint32_t>(r.size())).bytes(r);
		out += message('D', body);
		return done("SELECT 1");
	}

	Result rows(const std::string &tag, int count, std::istringstream &words, uint32_t limit)
	{
		size_t length = 0;
		words >> length;
		if (!extended_)
			row_description();
		int &at = extended_ ? portals_[portal_].row : (simple_row_ = 0);
		for (uint32_t sent = 0; at < count; sent++, at++) {
			if (extended_ && limit > 0 && sent == limit) {
				out += message('s');
				return Result::Done;
			}
			row(tag + std::string(length, '.'));
		}
		return done("SELECT " + std::to_string(count));
	}

	Result end_block(bool commit)
	{
		const bool kept = commit && block_ != 'E';
		if (!kept && open_)
			now_ = saved_;
		block_ = 'I';
		open_ = false;
		portals_.clear();
		return done(kept ? "COMMIT" : "ROLLBACK");
	}

	static std::string literal(const std::string &sql, size_t &at)
	{
		std::string value;
		at = sql.find("E'", at);
		if (at == std::string::npos)
			return value;
		for (at += 2; at < sql.size() && sql[at] != '\''; at++) {
			if (sql[at] == '\\' && at + 3 < sql.size()) {
				value += static_cast<char>(strtol(sql.substr(at + 2, 2).c_str(), nullptr, 16));
				at += 3;
			} else {
				value += sql[at];
			}
		}
		at++;
		return value;
	}

	Result set_config(const std::string &sql)
	{
		size_t at = 0;
		while (sql.find("set_config(", at) != std::string::npos) {
			const std::string name = literal(sql, at);
			const std::string value = literal(sql, at);
			if (value == "bad")
				return fail("22023", "invalid value for parameter \"" + name + "\"");
			now_[canonical(name)] = value;
		}
		row_description();
		row("");
		return done("SELECT 1");
	}

	void end_sleep(bool by_cancel)
	{
		sleeping_ = false;
		if (by_cancel) {
			cancelled = owner_;
			fail("57014", "canceling statement due to user request");
			pending_.clear();
		} else {
			done("SLEEP");
		}
		if (!extended_)
			resume();
	}

	// ---- COPY FROM STDIN

	void copy_message(char type, const std::string &body)
	{
		switch (type) {
		case 'S':
		case 'H':
			return;
		case 'd':
			claim(" " + body);
			copied_++;
			if (body.find("bad") != std::string::npos)
				copy_failed("invalid data");
			return;
		case 'c':
			copying_ = false;
			done("COPY " + std::to_string(copied_));
			break;
		case 'f':
			copy_failed("COPY failed by the client");
			return;
		default:
			die("08P01");
			return;
		}
		if (!extended_)
			resume();
	}

	void copy_failed(const char *why)
	{
		copying_ = false;
		fail("22P04", why);
		pending_.clear();
		if (!extended_)
			end_of_query();
	}

	struct Portal {
		std::string sql;
		int row;
	};

	Phase phase_ = Phase::Startup;
	std::string in_;
	std::map<std::string, std::string> statements_;
	std::map<std::string, Portal> portals_;
	std::deque<std::string> pending_;
	Settings now_, reported_, saved_;
	std::unique_ptr<pgpool::proto::ScramServer> scram_;
	std::string portal_;
	int owner_ = -1;
	int simple_row_ = 0;
	int copied_ = 0;
	char block_ = 'I';
	bool open_ = false;    // a transaction, if only an implicit one
	bool touched_ = false; // by an extended message of a client; Parse and Close of pgpool's own come before it
	bool unsynced_ = false, skipping_ = false, copying_ = false, sleeping_ = false, extended_ = false;
	bool first_seen_ = false;
};

} // namespace fake
