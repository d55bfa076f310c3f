// A scripted PostgreSQL backend that works byte by byte, as PostgresMain() does.
//
// Owns the state of one backend: login, simple and extended protocol, COPY, transactions, settings that roll
// back. It is the fake server of the core, and, fed with the bytes of one client alone, the reference model
// of what that client must be answered. It notes a problem when a client's command arrives while another
// client's work is not at rest. Its commands in place of SQL are in test/README.md.
// Longer than a header should be: the language of the simulator and its model are one thing.
#pragma once

#include <algorithm>
#include <climits>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/startup.hpp"
#include "setting_names.hpp"
#include "wire/messages.hpp"

namespace fake
{

using namespace wire;

// What all backends of a server have in common.
struct Catalog {
	int version = 1;
	int forgotten = 0; // how often statements were taken away unseen
	std::function<void()> changed;
	struct Notification {
		uint32_t database;
		int32_t pid;
		std::string channel, payload;
	};
	std::vector<Notification> notifications; // of all commits
	struct Listening {
		int client; // by its own command
		bool begins;
		std::string channel;
		size_t from; // of `notifications`
	};
	std::vector<Listening> listening;
};

class Backend
{
public:
	std::shared_ptr<Catalog> catalog = std::make_shared<Catalog>();
	Settings defaults{{"application_name", ""},    {"TimeZone", "UTC"},        {"DateStyle", "ISO, MDY"},
	                  {"client_encoding", "UTF8"}, {"statement_timeout", "0"}, {"search_path", "public"}};
	std::string out;             // what it sends
	std::string problem;         // a claim that did not hold
	std::string verifier;        // asks for SCRAM when not empty
	pgpool::proto::Error refuse; // instead of a greeting
	bool slow = false;           // does nothing yet
	std::string refuse_routine;  // of PostgreSQL's, which says so
	std::function<void(Backend &)> on_startup;
	std::string user, database; // of the startup packet
	std::string demand;         // sent in place of a greeting, which comes after an answer
	std::string proof;          // that answer
	int32_t pid = 0;
	uint32_t database_oid = 5, role_oid = 10;
	// ---- on a node
	int node = -1;                            // its slot, -1: this is the primary
	uint64_t system = 4711;                   // identifier of the cluster
	bool in_recovery = true;                  // it was not promoted
	uint64_t replayed = 0;                    // position
	std::string isolation = "read committed"; // by default
	std::string refused_reads;                // with this SQLSTATE
	bool dies_reading = false;
	std::function<void(const std::string &)> executes; // each statement
	bool deaf = false;                                 // to cancel requests and to the end of the stream
	std::string refused_value;                         // of a setting
	const char *refused_with = "22023";
	int refusals = INT_MAX; // so often
	int cancels_reset = 0;
	bool refuses_notify = false;
	int proofs_ended = 0;         // of the questions who it is, by a timeout
	std::string agent_named;      // the slot, as the worker says it
	bool reports_bytes = false;   // a value that it reports by itself is another text to the client
	std::string refused_channel;  // to LISTEN to
	bool agent = false;           // pgpool's library is in it, and reports every setting
	bool dead = false;            // it closed its end
	std::vector<std::string> log; // commands that it executed
	std::string history;          // types of the last messages, after an error in lower case
	int cancelled = -1;           // client whose SLEEP was cancelled last
	size_t bytes_in = 0;
	// Of a model: errors that came of what others did, by the number of the reply that they were. By itself a model
	// has no stale statement, and forgets none.
	std::map<size_t, std::string> forced;
	size_t replies = 0; // that were taken out of `out`

	void be_model(const Settings &settings)
	{
		phase_ = Phase::Ready;
		model_ = true;
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
		if (sleeping_ && !deaf)
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
		if (dead || sleeping_ || slow)
			return false;
		if (phase_ == Phase::Startup)
			return startup();
		if (phase_ == Phase::Ready && at_rest() && !open_ && hear())
			return true;
		const size_t size = size_of_first(in_);
		if (size == 0)
			return false;
		if (in_[0] == 0 || !strchr("QPBDECSHFXdcfp", in_[0]) || size < pgpool::proto::kHeaderSize ||
		    size > size_t{pgpool::proto::kMaxMessage} + pgpool::proto::kHeaderSize) {
			note("the backend lost its place in the stream");
			die("08P01");
			return false;
		}
		if (in_.size() < size)
			return false;
		const char type = in_[0];
		const std::string body = in_.substr(pgpool::proto::kHeaderSize, size - pgpool::proto::kHeaderSize);
		in_.erase(0, size);
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

	// ---- login, in backend_login.hpp

	bool startup();
	void password(const std::string &body);
	void greeting();

	// ---- the main loop

	void dispatch(char type, const std::string &body)
	{
		pgpool::proto::Reader r(body);
		if (type == 'X') {
			dead = true;
			return;
		}
		if (type == 'S') {
			if (!body.empty()) {
				extended_ = skipping_ = false;
				fail("08P01", "invalid message format");
			}
			end_of_batch();
			return;
		}
		if (skipping_ || type == 'd' || type == 'c' || type == 'f')
			return;
		if (type != 'D')
			locked_.clear();
		extended_ = type != 'Q' && type != 'F';
		switch (type) {
		case 'Q':
			simple(std::string(r.string()));
			break;
		case 'F':
			function_call(r.u32());
			break;
		case 'H':
			if (!body.empty())
				fail("08P01", "invalid message format");
			break;
		case 'P':
			parse_message(r);
			break;
		case 'B':
			bind_message(r);
			break;
		case 'D':
			describe_message(body);
			break;
		case 'E': {
			const std::string portal(r.string());
			const uint32_t limit = r.u32();
			unsynced_ = true;
			open();
			if (portals_.count(portal) == 0) {
				fail("34000", "portal \"" + portal + "\" does not exist");
				break;
			}
			portal_ = portal;
			if (std::exchange(portals_[portal].ran, true) && !returns_rows(portals_[portal].sql))
				fail("55000", "portal \"" + portal + "\" cannot be run");
			else
				statement(std::string(portals_[portal].sql), limit);
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

	void parse_message(pgpool::proto::Reader &r)
	{
		const std::string name(r.string()), sql(r.string());
		claim(sql);
		unsynced_ = true;
		open();
		if (name.empty())
			statements_.erase(name);
		if (!name.empty() && forced_here("53400"))
			fail("53400", "too many prepared statements");
		else if (sql.substr(0, 8) == "BADPARSE" || sql.substr(0, 3) == "too" || sql.substr(0, 6) == "cached")
			fail("42601", "syntax error");
		else if (refused(sql))
			fail("25P02", "current transaction is aborted");
		else if (statements_.count(name) != 0)
			fail("42P05", "prepared statement \"" + name + "\" already exists");
		else
			statements_[name] = {sql, catalog->version}, locked_ = name, out += message('1');
	}

	void bind_message(pgpool::proto::Reader &r)
	{
		const std::string portal(r.string()), name(r.string());
		if (statements_.count(name) != 0)
			claim(statements_[name].sql);
		unsynced_ = true;
		open();
		if (!knows(name)) {
			fail_unknown(name);
			return;
		}
		const Prepared &s = statements_[name];
		if (refused(s.sql)) {
			fail("25P02", "current transaction is aborted");
			return;
		}
		if (stale(s))
			return;
		portals_[portal] = {s.sql, 0, s.version, false};
		out += message('2');
	}

	struct Prepared {
		std::string sql;
		int version; // of the catalog
	};

	std::string locked_; // what was parsed just now: nobody else can have changed its tables

	bool knows(const std::string &name) const { return statements_.count(name) != 0 && !forced_here("26000"); }
	void fail_unknown(const std::string &name)
	{
		fail("26000", name.empty() ? "unnamed prepared statement does not exist"
		                           : "prepared statement \"" + name + "\" does not exist");
	}

	// The next reply is an error that others caused.
	bool forced_here(const char *sqlstate) const
	{
		if (forced.empty())
			return false;
		size_t n = replies;
		for (std::string_view left = out; !left.empty(); n++)
			left.remove_prefix(size_of_first(left));
		const auto it = forced.find(n);
		return it != forced.end() && it->second == sqlstate;
	}

	// True: it was refused.
	bool stale(const Prepared &s)
	{
		if (s.sql.substr(0, 5) != "SHAPE" || !(model_ ? forced_here("0A000") : s.version != catalog->version))
			return false;
		Writer w(out);
		w.begin('E').string("SERROR").string("VERROR").string("C0A000");
		w.string("Mcached plan must not change result type").string("RRevalidateCachedQuery").u8(0).end();
		abort_transaction();
		skipping_ = true;
		return true;
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
		const bool is_statement = body[0] == 'S';
		if (is_statement && !knows(name)) {
			fail_unknown(name);
			return;
		}
		if (!is_statement && portals_.count(name) == 0) {
			fail("34000", "portal \"" + name + "\" does not exist");
			return;
		}
		const std::string &sql = is_statement ? statements_[name].sql : portals_[name].sql;
		const int version = is_statement ? statements_[name].version : portals_[name].version;
		if ((returns_rows(sql) && block_ == 'E') || forced_here("25P02")) {
			fail("25P02", "current transaction is aborted");
			return;
		}
		if (is_statement) {
			out += message('t', std::string(2, '\0'));
			if ((std::exchange(locked_, "") != name || model_) && stale(statements_[name]))
				return;
		}
		if (returns_rows(sql))
			row_description(sql.substr(0, 5) == "SHAPE" ? "v" + std::to_string(version) : "x");
		else
			out += message('n');
	}

	static bool returns_rows(const std::string &sql)
	{
		for (const char *word : {"SELECT", "ROWS", "SHOW", "SHAPE", "TYPES"}) {
			if (sql.substr(0, strlen(word)) == word)
				return true;
		}
		return false;
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
		char quote = '\0';
		std::string one;
		for (const char c : sql) {
			if (quote == '\0' && (c == '\'' || c == '"'))
				quote = c;
			else if (c == quote)
				quote = '\0';
			if (c == ';' && quote == '\0') {
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
		if (block_ == 'I')
			hear();
		const std::string pins =
		    pin_ + (pin_.empty() || channels_.empty() ? "" : ", ") + (channels_.empty() ? "" : "LISTEN");
		if (agent && pins != reported_pins_)
			pgpool::proto::append_parameter(out, "pgpool.pins", reported_pins_ = pins);
		if (const std::string own = names_of_own(); agent && own != reported_own_)
			pgpool::proto::append_parameter(out, "pgpool.own", reported_own_ = own);
		for (const auto &s : now_) {
			const bool by_itself = is_reported(s.first);
			const bool is_default = agent && !by_itself && s.second == defaults[s.first];
			if ((by_itself || agent) && reported_[s.first] != s.second)
				pgpool::proto::append_parameter(out, (is_default ? "!" : "") + s.first,
				                                by_itself && reports_bytes ? "?" : s.second);
			if (by_itself && reports_bytes && reported_[s.first] != s.second)
				pgpool::proto::append_parameter(out, "=" + s.first, s.second);
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
			saved_own_ = own_;
		}
	}
	void close_implicit()
	{
		if (block_ == 'I') {
			if (open_)
				commit_notify();
			open_ = false;
			portals_.clear();
		}
	}
	void restore()
	{
		now_ = saved_;
		own_ = saved_own_;
	}
	// Of those that it reports by itself.
	std::string names_of_own() const
	{
		std::string names;
		for (const std::string &name : own_)
			names += is_reported(name) ? name + "," : "";
		return names;
	}
	void abort_transaction()
	{
		if (open_)
			restore();
		forget_notify();
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

	// The client that a command names; 0 = none.
	static int sender(const std::string &sql)
	{
		const size_t at = sql.find(" c");
		return at == std::string::npos || !isdigit(static_cast<unsigned char>(sql[at + 2])) ? 0 : atoi(&sql[at + 2]);
	}

	// From one client to another only at rest.
	void claim(const std::string &sql)
	{
		const int client = sender(sql);
		if (client == 0)
			return;
		if (client != owner_ && owner_ >= 0 && (block_ != 'I' || touched_ || skipping_ || copying_))
			note("a server not at rest went from client " + std::to_string(owner_) + " to " + std::to_string(client) +
			     " (" + block_ + (touched_ ? ", no Sync yet" : "") + (skipping_ ? ", skipping" : "") +
			     (copying_ ? ", in copy" : "") + "), messages " + history);
		owner_ = client;
		touched_ |= extended_;
	}

	// ---- statements

	void row_description(const std::string &column = "x")
	{
		std::string body;
		Writer(body).u16(1).string(column).u32(0).u16(0).u32(25).u16(65535).u32(0xffffffff).u16(0);
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
		const size_t comment = sql.substr(0, 2) == "/*" ? sql.find("*/") + 2 : 0;
		std::istringstream words(sql.substr(comment));
		std::string word, a, b;
		words >> word >> a >> b;
		log.push_back(sql);
		if (executes)
			executes(sql);
		if (block_ == 'E' && word != "ROLLBACK" && word != "COMMIT")
			return fail("25P02", "current transaction is aborted");
		if (sql == "SELECT 1/0")
			return fail("22012", "division by zero");
		if (word == "SELECT" && a == "d.oid," && proofs_ended-- > 0)
			return fail("57014", "canceling statement due to statement timeout");
		if (word == "SELECT" && a == "d.oid,")
			return identity();
		if (word == "SELECT" && a.substr(0, 26) == "pg_catalog.pg_wal_lsn_diff")
			return position();
		if (word == "SELECT" && (a == "pg_listening_channels()" || a == "pg_catalog.pg_listening_channels()"))
			return listening();
		if (word == "SELECT" && a.substr(0, 21) == "pg_catalog.set_config")
			return set_config(sql);
		if (word == "SELECT" || word == "SHOW") {
			if (!extended_)
				row_description();
			if (dies_reading) {
				die();
				return Result::Failed;
			}
			if (!refused_reads.empty())
				return fail(refused_reads.c_str(), "not here");
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
		return more_statements(sql, word, a, b);
	}

	Result more_statements(const std::string &sql, const std::string &word, std::string a, const std::string &b)
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
		if (word == "SET" && (a == "LOCAL" || a == "TRANSACTION"))
			return done("SET");
		if (word == "SET") {
			if (b == "bad")
				return fail(refused_with, "invalid value");
			now_[canonical(a)] = b == "TO" ? unquoted(sql.substr(sql.rfind(' ') + 1)) : b;
			own_.insert(canonical(a));
			return done("SET");
		}
		if (word == "RESET") {
			if (cancels_reset > 0 && cancels_reset-- > 0)
				return fail("57014", "canceling statement due to user request");
			if (a[0] == '"')
				a = a.substr(1, a.size() - 2);
			now_[canonical(a)] = defaults[canonical(a)];
			own_.erase(canonical(a));
			return done("RESET");
		}
		if (word == "PIN") {
			pin_ = a == "off" ? "" : a;
			return done("PIN");
		}
		if (word == "LISTEN" || word == "UNLISTEN") {
			if (word == "UNLISTEN" && a == "*") {
				to_listen_.push_back({sender(sql), false, "*", 0});
				return done(word);
			}
			std::string channel;
			if (const char *why = channel_name(sql.substr(sql.find(word) + word.size() + 1), channel))
				return fail("42601", why);
			if (channel == refused_channel && word == "LISTEN")
				return fail("22P05", "character has no equivalent");
			to_listen_.push_back({sender(sql), word == "LISTEN", channel, 0});
			return done(word);
		}
		if (word == "NOTIFY") {
			if (refuses_notify)
				return fail("54000", "too many notifications in the NOTIFY queue");
			const std::string channel = unquoted(a.substr(0, a.find(',')));
			to_notify_.push_back({database_oid, pid, channel, b.size() > 2 ? b.substr(1, b.size() - 2) : ""});
			return done("NOTIFY");
		}
		return statements_about_statements(sql, word, a == "PREPARE" ? b : a);
	}

	Result statements_about_statements(const std::string &sql, const std::string &word, std::string a)
	{
		if (word == "SHAPE" || word == "TYPES") {
			if (!extended_)
				row_description(word == "SHAPE" ? "v" + std::to_string(catalog->version) : "x");
			row(word == "SHAPE" ? a : "v" + std::to_string(extended_ ? portals_[portal_].version : catalog->version));
			return done("SELECT 1");
		}
		if (word == "ALTER") {
			catalog->version++;
			if (catalog->changed)
				catalog->changed();
			return done("ALTER");
		}
		if (word == "DISCARD" && block_ != 'I')
			return fail("25001", "DISCARD ALL cannot run inside a transaction block");
		if (word == "DISCARD") {
			to_listen_.push_back({sender(sql), false, "*", 0});
			now_ = defaults;
			own_.clear();
			if (model_) // the default is that of pgpool's own login
				now_["application_name"] = "";
		}
		if (word == "DISCARD" || word == "FORGET" || (word == "DEALLOCATE" && a == "ALL")) {
			catalog->forgotten += word == "FORGET";
			if (word != "FORGET" || !model_)
				statements_.erase(statements_.upper_bound(""), statements_.end()); // all that have a name
			return done(word == "FORGET" ? word : word + " ALL");
		}
		if (word == "DEALLOCATE") {
			if (a[0] == '"')
				a = a.substr(1, a.size() - 2);
			if (statements_.erase(a) == 0)
				return fail("26000", "prepared statement \"" + a + "\" does not exist");
			return done(word);
		}
		return fail("42601", "syntax error: " + word);
	}

	Result row_of(const std::vector<std::string> &values)
	{
		if (!extended_)
			row_description();
		std::string body;
		Writer w(body);
		w.u16(static_cast<uint16_t>(values.size()));
		for (const std::string &v : values)
			w.u32(static_cast<uint32_t>(v.size())).bytes(v);
		out += message('D', body);
		return done("SELECT 1");
	}
	Result identity()
	{
		std::vector<std::string> values{std::to_string(database_oid), std::to_string(role_oid)};
		if (node >= 0) {
			values.emplace_back(in_recovery ? "t" : "f");
			values.push_back(std::to_string(system));
		}
		return row_of(values);
	}
	Result position() { return row_of({std::to_string(replayed), in_recovery ? "t" : "f", isolation}); }

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
			restore();
		if (kept)
			commit_notify();
		forget_notify();
		block_ = 'I';
		open_ = false;
		portals_.clear();
		return done(kept ? "COMMIT" : "ROLLBACK");
	}

	// ---- notifications

	// One identifier, as the scanner of PostgreSQL takes it, and perhaps the mark of who sends. nullptr: without an
	// error.
	static const char *channel_name(const std::string &text, std::string &name)
	{
		constexpr size_t kMost = 63;
		size_t at = text.find_first_not_of(' ');
		if (at == std::string::npos)
			return "syntax error at end of input";
		if (text[at] == '"') {
			for (at++; at < text.size() && (text[at] != '"' || text.substr(at, 2) == "\"\""); at++) {
				name += text[at];
				at += text[at] == '"';
			}
			if (at++ == text.size())
				return "unterminated quoted identifier";
			if (name.empty())
				return "zero-length delimited identifier";
		} else {
			for (; at < text.size() && (isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_'); at++)
				name += static_cast<char>(tolower(static_cast<unsigned char>(text[at])));
			if (name.empty() || isdigit(static_cast<unsigned char>(name[0])))
				return "syntax error";
		}
		name.resize(std::min(name.size(), kMost));
		at = at < text.size() ? text.find_first_not_of(' ', at) : std::string::npos;
		return at == std::string::npos || sender(text.substr(at - 1)) > 0 ? nullptr : "syntax error";
	}

	static std::string unquoted(const std::string &name)
	{
		return name.size() > 1 && (name[0] == '"' || name[0] == '\'') ? name.substr(1, name.size() - 2) : name;
	}

	void commit_notify()
	{
		hear(); // what was before is under the old ones
		for (Catalog::Listening &l : to_listen_) {
			l.from = heard_ = catalog->notifications.size();
			if (l.begins)
				channels_.insert(l.channel);
			else if (l.channel == "*")
				channels_.clear();
			else
				channels_.erase(l.channel);
			if (l.client > 0)
				catalog->listening.push_back(l);
		}
		for (const Catalog::Notification &n : to_notify_)
			catalog->notifications.push_back(n);
		forget_notify();
	}
	void forget_notify()
	{
		to_listen_.clear();
		to_notify_.clear();
	}
	// True: there were some.
	bool hear()
	{
		bool any = false;
		if (model_)
			return any; // what it hears depends on all clients
		for (; !channels_.empty() && heard_ < catalog->notifications.size(); heard_++) {
			const Catalog::Notification &n = catalog->notifications[heard_];
			if (n.database != database_oid || channels_.count(n.channel) == 0)
				continue;
			Writer(out).begin('A').u32(static_cast<uint32_t>(n.pid)).string(n.channel).string(n.payload).end();
			any = true;
		}
		return any;
	}
	Result listening()
	{
		if (!extended_)
			row_description();
		for (const std::string &c : channels_)
			row(c);
		return done("SELECT " + std::to_string(channels_.size()));
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
			if (value == "bad" || (!value.empty() && value == refused_value && refusals-- > 0))
				return fail(refused_with, "invalid value for parameter \"" + name + "\"");
			now_[canonical(name)] = value;
			own_.insert(canonical(name));
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
		int version;
		bool ran = false;
	};

	Phase phase_ = Phase::Startup;
	std::set<std::string> channels_;
	std::vector<Catalog::Listening> to_listen_; // when the transaction commits
	std::vector<Catalog::Notification> to_notify_;
	size_t heard_ = 0; // notifications
	std::string pin_, reported_pins_, reported_own_;
	std::string in_;
	std::map<std::string, Prepared> statements_;
	std::map<std::string, Portal> portals_;
	std::deque<std::string> pending_;
	Settings now_, reported_, saved_;
	std::set<std::string> own_, saved_own_; // settings that somebody has set
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
	bool model_ = false;
};

} // namespace fake

#include "backend_login.hpp"
