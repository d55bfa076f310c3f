// Makes what repeats the lists of src/region: the SQL of the extension, and the tables of the documentation.
//
//   generate sql TEMPLATE     sql/pgpool.sql.in with each block repeated for the rows of its list
//   generate docs DOCUMENT    the document with the table between each pair of marks made anew
//
// In the template, `@each LIST@ ... @end@` stands for the text between them once for each row, in which @COLUMN@ is the
// row's, and `@,@` is a comma in all rows but the last. A mark alone on its line takes the line along. In a document,
// `<!-- table LIST -->` and `<!-- end -->` enclose a table. The result goes to the standard output.
//
// Owns how a row looks in SQL and in a table. Runs when pgpool is built: C++ and the lists, nothing else.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "region/rows.hpp"
#include "region/settings.hpp"
#include "region/views.hpp"

namespace
{

namespace region = pgpool::region;
using pgpool::region::Kind;
using pgpool::region::Limit;
using pgpool::region::Range;
using std::string;
using std::to_string;

using Row = std::map<string, string>;
using Rows = std::vector<Row>;

[[noreturn]] void fail(const string &why)
{
	std::cerr << "generate: " << why << "\n";
	exit(1);
}

string replaced(string text, const string &what, const string &by)
{
	for (size_t at = 0; (at = text.find(what, at)) != string::npos; at += by.size())
		text.replace(at, what.size(), by);
	return text;
}

// Whether each default is a value that may be set.
template <class Setting, int N> constexpr bool sound(const Setting (&rows)[N])
{
	for (const Setting &s : rows)
		if (s.range.preset < s.range.least || s.range.preset > s.range.most)
			return false;
	return true;
}
static_assert(sound(pgpool::region::kSettings) && sound(pgpool::region::kLimits));

// ---- how a row looks in SQL ---------------------------------------------------------------------------

bool is_time(const Range &r)
{
	return r.kind == Kind::Milliseconds || r.kind == Kind::Seconds;
}

string sql_type(const Range &r)
{
	switch (r.kind) {
	case Kind::Flag:
		return "boolean";
	case Kind::Choice:
		return "text";
	case Kind::Milliseconds:
	case Kind::Seconds:
		return "interval";
	default:
		return "integer";
	}
}

// 'a', 'b', 'c'; with a quote and a last separator of choice
string choices(const Range &r, const string &quote, const string &last)
{
	string all;

	for (int i = 0; i < r.choice_count; i++)
		all += (i == 0 ? "" : i == r.choice_count - 1 ? last : ", ") + quote + r.choices[i].name + quote;
	return all;
}

// What a value that is not NULL must be, or must not be.
string condition(const Limit &l, bool inside)
{
	const Range &r = l.range;
	string name = l.name, is = inside ? name + " " : name + " NOT ";

	if (r.kind == Kind::Choice)
		return is + "IN (" + choices(r, "'", ", ") + ")";
	if (is_time(r))
		return is + "BETWEEN '0' AND '24 days'";
	if (r.most == pgpool::region::kNoBound)
		return name + (inside ? " >= " : " < ") + to_string(r.least);
	return is + "BETWEEN " + to_string(r.least) + " AND " + to_string(r.most);
}

string rule(const Range &r)
{
	string zero = r.zero;

	if (r.kind == Kind::Choice)
		return "It is " + choices(r, "\"", " or ") + ".";
	if (r.most == pgpool::region::kNoBound)
		return "It is " + to_string(r.least) + (zero.empty() ? "" : " (" + zero + ")") + " or more.";
	if (r.least == 0 && !zero.empty())
		return "It is between 1 and " + to_string(r.most) + ", or 0 for " + zero + ".";
	return "It is between " + to_string(r.least) + " and " + to_string(r.most) + ".";
}

Row limit_row(const Limit &l)
{
	const Range &r = l.range;

	return {
	    {"name", l.name},
	    {"type", sql_type(r)},
	    {"check", r.kind == Kind::Flag ? "" : " CHECK (" + condition(l, true) + ")"},
	    {"outside", condition(l, false)},
	    {"values", choices(r, "'", ", ")},
	    {"rule", rule(r)},
	    {"comment", replaced(l.column, "'", "''")},
	};
}

#define PGPOOL_FIELD(kind, name, label, text) {{"name", #label}, {"type", region::column::kind::sql}, {"text", text}},
#define PGPOOL_MADE(type, name, text) {{"name", #name}, {"type", #type}, {"text", text}},

// Columns of the functions behind the views.
std::map<string, Rows> functions()
{
	return {
	    {"stat_workers", {PGPOOL_WORKER_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_tenants", {PGPOOL_TENANT_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_pools", {PGPOOL_POOL_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_clients", {PGPOOL_CLIENT_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_servers", {PGPOOL_SERVER_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_prepared", {PGPOOL_PREPARED_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_replicas", {PGPOOL_NODE_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	    {"stat_routing", {PGPOOL_ROUTING_COLUMNS(PGPOOL_FIELD, PGPOOL_MADE)}},
	};
}

std::map<string, Rows> lists()
{
	std::map<string, Rows> all = functions();

	all["later"] = {};
	for (const region::Choice &mode : region::kSslModes)
		all["sslmode"].push_back({{"name", mode.name}});
	for (const Limit &l : pgpool::region::kLimits) {
		Row row = limit_row(l);
		Kind kind = l.range.kind;
		all["limit"].push_back(row);
		all[&l - pgpool::region::kLimits < pgpool::region::kFirstLimits ? "early" : "later"].push_back(row);
		if (kind != Kind::Flag) {
			all["checked"].push_back(row);
			all[kind == Kind::Choice ? "choice" : is_time(l.range) ? "time" : "count"].push_back(row);
		}
		if (*l.column)
			all["commented"].push_back(row);
	}
	return all;
}

// ---- templates ----------------------------------------------------------------------------------------

// Where `mark` stands, or the line that it has for itself.
struct Span {
	size_t from, to;
};

Span span_of(const string &text, const string &mark, size_t at)
{
	Span s{at, at + mark.size()};

	if ((s.from == 0 || text[s.from - 1] == '\n') && s.to < text.size() && text[s.to] == '\n')
		s.to++;
	return s;
}

string repeated(const string &block, const Rows &rows)
{
	string all;

	for (const Row &row : rows) {
		bool last = &row == &rows.back();
		string one = replaced(block, last ? "@,@ " : "@,@", last ? "" : ",");
		one = replaced(one, "@,@", "");
		for (const auto &[name, value] : row)
			one = replaced(one, "@" + name + "@", value);
		all += one;
	}
	return all;
}

string sql(string text)
{
	const string begin = "@each ", end = "@end@";
	auto all = lists();

	for (size_t at = 0; (at = text.find(begin, at)) != string::npos;) {
		size_t close = text.find('@', at + 1), until = text.find(end, at);
		if (close == string::npos || until == string::npos)
			fail("a block without its end");
		string list = text.substr(at + begin.size(), close - at - begin.size());
		if (all.find(list) == all.end())
			fail("there is no list \"" + list + "\"");
		Span head = span_of(text, begin + list + "@", at), tail = span_of(text, end, until);
		string block = repeated(text.substr(head.to, tail.from - head.to), all[list]);
		text.replace(head.from, tail.to - head.from, block);
		at = head.from + block.size();
	}
	text = replaced(text, "@max_nodes@", to_string(region::kMaxNodes));
	text = replaced(text, "@last_node@", to_string(region::kMaxNodes - 1));
	text = replaced(text, "@made@", "Made from sql/pgpool.sql.in; what is to be changed is changed there.");
	for (size_t at = 0; (at = text.find('@', at)) != string::npos; at += 11)
		if (text.compare(at, 11, "@extschema@") != 0)
			fail("this is left: " + text.substr(at, 40));
	return text;
}

// ---- documents ----------------------------------------------------------------------------------------

// As SHOW writes it.
string with_unit(int64_t value, Kind kind)
{
	struct Unit {
		Kind kind;
		int64_t size;
		const char *name;
	};
	static const Unit kUnits[] = {
	    {Kind::Milliseconds, 86400000, "d"}, {Kind::Milliseconds, 3600000, "h"}, {Kind::Milliseconds, 60000, "min"},
	    {Kind::Milliseconds, 1000, "s"},     {Kind::Milliseconds, 1, "ms"},      {Kind::Seconds, 86400, "d"},
	    {Kind::Seconds, 3600, "h"},          {Kind::Seconds, 60, "min"},         {Kind::Seconds, 1, "s"},
	    {Kind::Kilobytes, 1024, "MB"},       {Kind::Kilobytes, 1, "kB"}};

	for (const Unit &u : kUnits)
		if (u.kind == kind && value != 0 && value % u.size == 0)
			return to_string(value / u.size) + u.name;
	return to_string(value);
}

string unit_name(Kind kind)
{
	return kind == Kind::Milliseconds ? "ms" : kind == Kind::Seconds ? "s" : kind == Kind::Kilobytes ? "kB" : "";
}

string default_cell(const Range &r)
{
	if (r.kind == Kind::Flag)
		return r.preset ? "on" : "off";
	if (r.kind == Kind::Choice) {
		for (int i = 0; i < r.choice_count; i++)
			if (r.choices[i].value == r.preset)
				return string("`") + r.choices[i].name + "`";
		fail("a default that is no choice");
	}
	return with_unit(r.preset, r.kind);
}

string values_cell(const Range &r)
{
	string zero = r.zero, text;

	if (r.kind == Kind::Flag)
		return "on, off";
	if (r.kind == Kind::Choice)
		return choices(r, "`", ", ");
	if (r.most != pgpool::region::kNoBound && r.kind != Kind::Seconds)
		text = to_string(r.least) + " to " + to_string(r.most);
	else if (r.least > 0)
		text = "at least " + to_string(r.least);
	if (!unit_name(r.kind).empty())
		text += (text.empty() ? "" : " ") + unit_name(r.kind);
	if (!zero.empty())
		text += (text.empty() ? "0: " : "; 0: ") + zero;
	return text;
}

string change_cell(pgpool::region::Change change)
{
	return change == pgpool::region::Change::Restart ? "restart" : "reload";
}

string line(const std::vector<string> &cells)
{
	string text = "|";

	for (const string &cell : cells)
		text += " " + cell + (cell.empty() ? "|" : " |");
	return text + "\n";
}

string settings_table()
{
	string table = "| setting | default | values | change | |\n|---|---|---|---|---|\n";

	for (const auto &s : pgpool::region::kSettings)
		table += line({string("`pgpool.") + s.name + "`", default_cell(s.range), values_cell(s.range),
		               change_cell(s.change), s.text});
	for (const auto &s : pgpool::region::kTextSettings)
		table += line({string("`pgpool.") + s.name + "`", string("`") + s.preset + "`", s.list ? "list" : "",
		               change_cell(s.change), s.text});
	for (const Limit &l : pgpool::region::kLimits)
		if (*l.setting)
			table += line({string("`pgpool.") + l.setting + "` (t)", default_cell(l.range), values_cell(l.range),
			               change_cell(pgpool::region::Change::Reload), l.text});
	return table;
}

// What holds where nothing is set.
string without_cell(const Range &r)
{
	return r.preset == 0 && *r.zero ? r.zero : default_cell(r);
}

string limits_table()
{
	string table = "| column and argument | type | values | without |\n|---|---|---|---|\n";

	for (const Limit &l : pgpool::region::kLimits) {
		Range r = l.range;
		string values = is_time(r) ? "up to 24 days; 0: off" : values_cell(r);
		table += line({string("`") + l.name + "`", sql_type(r), values,
		               *l.setting ? string("`pgpool.") + l.setting + "`" : without_cell(r)});
	}
	return table;
}

string view_table(const Rows &columns)
{
	string table = "| column | type | |\n|---|---|---|\n";

	for (const Row &c : columns)
		table += line({"`" + c.at("name") + "`", c.at("type"), c.at("text")});
	return table;
}

string docs(string text)
{
	const string begin = "<!-- table ", close = " -->\n", end = "<!-- end -->";
	std::map<string, string> tables = {{"settings", settings_table()}, {"limits", limits_table()}};
	for (const auto &[function, columns] : functions()) {
		Rows all = columns;
		if (function == "stat_pools")
			all.insert(all.end(), {PGPOOL_POOL_VIEW_COLUMNS(PGPOOL_MADE)});
		tables["pg_" + function] = view_table(all);
	}

	for (size_t at = 0; (at = text.find(begin, at)) != string::npos;) {
		size_t name = at + begin.size(), stop = text.find(close, at), until = text.find(end, at);
		if (stop == string::npos || until == string::npos || until < stop)
			fail("a table without its end");
		auto table = tables.find(text.substr(name, stop - name));
		if (table == tables.end())
			fail("there is no table \"" + text.substr(name, stop - name) + "\"");
		size_t from = stop + close.size();
		text.replace(from, until - from, table->second);
		at = from + table->second.size();
	}
	return text;
}

} // namespace

int main(int argc, char **argv)
{
	string what = argc == 3 ? argv[1] : "";

	if (what != "sql" && what != "docs")
		fail("usage: generate sql TEMPLATE, or generate docs DOCUMENT");
	std::ifstream file(argv[2]);
	std::stringstream text;
	if (!(text << file.rdbuf()))
		fail(string("cannot read ") + argv[2]);
	std::cout << (what == "sql" ? sql(text.str()) : docs(text.str())) << std::flush;
	return std::cout.good() ? 0 : 1;
}
