// Random programs for simulated clients.
//
// Owns what a client may do, in the language of backend.hpp. Chunks are written one by one; an empty one stands for
// waiting until all is answered. Knows nothing of the pooler, nor of what the answers will be. What pgpool does not
// promise is not done here: SQL that names statements behind other SQL or in a named statement, DEALLOCATE of an
// unnamed statement that is executed twice, and DISCARD ALL of a client with settings of its own.
#pragma once

#include <deque>
#include <random>
#include <string>
#include <vector>

#include "setting_names.hpp"
#include "wire/messages.hpp"

namespace fake
{

using namespace wire;

class Dice
{
public:
	explicit Dice(uint64_t seed) : rng_(seed) {}
	uint64_t pick(uint64_t from, uint64_t to) { return from + rng_() % (to - from + 1); }
	bool chance(uint64_t percent) { return rng_() % 100 < percent; }
	template <class T> T &one_of(std::vector<T> &v) { return v[rng_() % v.size()]; }

private:
	std::mt19937_64 rng_;
};

class Program : Dice
{
public:
	Program(int id, uint64_t seed) : Dice(seed), id_(id) {}

	Settings settings;
	std::deque<std::string> chunks;
	bool listens = false; // it uses LISTEN and NOTIFY
	bool reads = false;   // most of what it does, and it waits for the answers

	void make()
	{
		std::vector<std::pair<std::string, std::string>> parameters{{"user", "anna"}, {"database", "shop"}};
		if (chance(70))
			settings["application_name"] = "app" + std::to_string(pick(1, 3));
		if (chance(30))
			settings["TimeZone"] = zone();
		if (chance(30))
			settings["statement_timeout"] = std::to_string(pick(1, 2));
		parameters.insert(parameters.end(), settings.begin(), settings.end());
		chunks.push_back(startup_packet(parameters));
		wait();
		fond_of_statements_ = chance(40);
		for (uint64_t i = pick(1, listens || reads ? 30 : 12); i > 0; i--) {
			if (reads && chance(70))
				add_read();
			else
				add_step();
		}
	}
	void end()
	{
		wait();
		chunks.push_back(kSync_ + query("ROLLBACK" + tag()));
	}

private:
	std::string tag() { return " c" + std::to_string(id_) + "." + std::to_string(++commands_); }
	std::string zone() { return "zone" + std::to_string(pick(1, 3)); }
	void wait() { chunks.emplace_back(); }
	void put(std::string bytes)
	{
		if (!chunks.empty() && !chunks.back().empty() && chance(50))
			chunks.back() += bytes;
		else
			chunks.push_back(std::move(bytes));
		if (chance(40))
			wait();
	}

	std::string notification()
	{
		const std::string channel = chance(50) ? "news" : "more";
		switch (pick(0, 5)) {
		case 0:
			return "UNLISTEN " + (chance(50) ? "*" : channel) + tag();
		case 1:
		case 2:
			return "LISTEN " + channel + tag();
		default: {
			const std::string t = tag();
			return "NOTIFY " + channel + ", '" + t.substr(1) + "'" + t;
		}
		}
	}

	void add_read()
	{
		const std::string sql =
		    chance(70) ? "SELECT" + tag() : (chance(50) ? "SHOW TimeZone" : "SHOW application_name") + tag();
		put(chance(50) ? query(sql) : parse(sql) + bind_to() + execute() + kSync_);
		wait();
	}
	std::string statement()
	{
		if (listens && chance(30))
			return notification();
		switch (pick(0, 13)) {
		case 0:
			return "FAIL" + tag();
		case 1:
			return "ROWS" + tag() + " " + std::to_string(pick(0, 20)) + " " + std::to_string(pick(0, 300));
		case 2:
			return "COPYOUT" + tag() + " " + std::to_string(pick(0, 5));
		case 3:
			return "SET TimeZone " + zone() + tag();
		case 4:
			return "SHOW TimeZone" + tag();
		case 5:
			return "SHOW application_name" + tag();
		case 6:
			return "SHOW statement_timeout" + tag();
		case 7:
			return "BEGIN" + tag();
		case 8:
			return (chance(50) ? "COMMIT" : "ROLLBACK") + tag();
		case 9:
			return chance(20) ? "ROWS" + tag() + " 3 40000" : "SELECT" + tag();
		case 10:
			return "NOTICE" + tag();
		case 11:
			return chance(50) ? "ALTER" + tag() : "FORGET" + tag();
		case 12:
			return of_the_catalog();
		default:
			return chance(50) ? "SELECT" + tag() : "SELECT shared"; // the same text for all clients
		}
	}
	std::string of_the_catalog()
	{
		return (chance(50) ? "SHAPE" : "TYPES") + (chance(70) ? std::string(" shared") : tag());
	}

	std::string some_name(int kinds) { return "s" + std::to_string(pick(1, kinds)); }
	std::string name(int kinds) { return chance(50) ? "" : some_name(kinds); }

	std::string extended_message()
	{
		switch (pick(0, 10)) {
		case 0:
			return parse(chance(10) ? "BADPARSE" + tag() : statement(), name(3));
		case 1:
			return bind_to(name(3), name(2));
		case 2:
			return chance(50) ? describe('S', name(3)) : describe('P', name(2));
		case 3:
			return execute(static_cast<uint32_t>(pick(0, 3)), name(2));
		case 4:
			return text_message('C', (chance(70) ? 'S' : 'P') + name(3));
		case 5:
			return kFlush_;
		case 6:
			return chance(30) ? query(statement()) : kFlush_;
		case 7: // a driver with a cache of statements
			return parse(chance(70) ? of_the_catalog() : "SELECT shared", some_name(3));
		default: {
			const std::string s = name(3), p = name(2);
			return parse(statement(), s) + (chance(40) ? describe('S', s) : "") + bind_to(s, p) +
			       (chance(60) ? describe('P', p) : "") +
			       execute(static_cast<uint32_t>(chance(30) ? pick(1, 3) : 0), p);
		}
		}
	}

	void add_copy()
	{
		const bool bad = chance(40), is_extended = chance(50);
		const std::string sql = "COPYIN" + tag();
		put(is_extended ? parse(sql) + bind_to() + execute() + (chance(50) ? kSync_ : "") : query(sql));
		const auto rows = pick(0, 4);
		for (uint64_t i = 0; i < rows; i++) {
			put(message('d', tag().substr(1) + std::string(pick(0, 50), 'x')));
			if (!bad && chance(15))
				put(chance(50) ? kSync_ : kFlush_);
		}
		if (bad)
			put(message('d', tag().substr(1) + " bad") + (chance(50) ? message('d', tag().substr(1)) : ""));
		put(chance(75) ? message('c') : text_message('f', "no"));
		if (is_extended || chance(10))
			put(kSync_);
	}

	// DEALLOCATE, as a Query or by an unnamed statement.
	void add_deallocate()
	{
		const std::string comment = " --" + tag();
		const std::string sql =
		    chance(60) ? (chance(50) ? "DEALLOCATE s" : "DEALLOCATE PREPARE \"s") + std::to_string(pick(1, 3)) : "";
		if (!sql.empty()) {
			const std::string text = sql + (sql.find('"') == std::string::npos ? "" : "\"") + comment;
			put(chance(50) ? query(text) : parse(text) + bind_to() + execute() + close_name('S', "") + kSync_);
		} else if (chance(20) && settings.empty()) {
			put(query("DISCARD ALL" + comment));
		} else {
			put(query("DEALLOCATE ALL" + comment));
		}
	}

	// What is prepared already is used, and nothing else goes on: the client shall not see that it was gone or stale.
	void use_statement()
	{
		const std::string s = some_name(3);
		wait();
		chunks.push_back((chance(50) ? describe('S', s) : "") + bind_to(s) + (chance(50) ? describe('P') : "") +
		                 execute() + kSync_);
		wait();
	}

	void add_step()
	{
		if (listens && chance(60)) {
			put(query(chance(80) ? notification() : statement() + ";" + notification()));
			return;
		}
		if (fond_of_statements_ && chance(60)) {
			if (chance(25))
				add_deallocate();
			else if (chance(50))
				put(parse(of_the_catalog(), some_name(3)) + kSync_);
			else
				use_statement();
			return;
		}
		switch (pick(0, 9)) {
		case 0:
			add_copy();
			break;
		case 1:
			put(query("BEGIN" + tag()));
			for (uint64_t i = pick(0, 4); i > 0; i--)
				put(query(statement()));
			put(query((chance(50) ? "COMMIT" : "ROLLBACK") + tag()));
			break;
		case 2:
			put(query(statement() + ";" + statement() + (chance(50) ? ";" + statement() : "")));
			break;
		case 3:
			for (uint64_t i = pick(1, 6); i > 0; i--)
				put(extended_message());
			put(kSync_);
			break;
		case 4:
			put(extended_message() + kSync_ + extended_message() + kSync_);
			break;
		case 5: {
			std::string body;
			Writer(body).u32(chance(30) ? 666 : 1).u16(0).u16(0).u16(0);
			put(message('F', body));
			break;
		}
		case 6:
			wait();
			chunks.push_back(kSync_ + query("ROLLBACK" + tag()));
			wait();
			chunks.push_back(query("SLEEP" + tag()));
			wait();
			break;
		case 7:
			put(chance(50) ? kSync_ : message('d', "stray") + message('c'));
			break;
		default:
			put(query(statement()));
			break;
		}
	}

	const std::string kSync_ = message('S'), kFlush_ = message('H');
	int id_;
	int commands_ = 0;
	bool fond_of_statements_ = false;
};

} // namespace fake
