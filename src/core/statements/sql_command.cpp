// See sql_command.hpp.
#include "core/statements/sql_command.hpp"

#include <algorithm>

#include "core/statements/sql_scan.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

class Lexer
{
public:
	explicit Lexer(std::string_view text) : rest_(text) {}

	void skip_blank()
	{
		for (;;) {
			while (!rest_.empty() && is_space(rest_[0]))
				rest_.remove_prefix(1);
			if (rest_.substr(0, 2) == "--")
				rest_.remove_prefix(behind_line(rest_, 0));
			else if (rest_.substr(0, 2) != "/*" || !skip_comment())
				return;
		}
	}

	// An identifier or keyword in lower case, or a quoted identifier as it is.
	bool word(std::string &out, bool &quoted)
	{
		out.clear();
		quoted = !rest_.empty() && rest_[0] == '"';
		if (quoted)
			return quoted_word(out);
		if (rest_.empty() || !starts_word(rest_[0]))
			return false;
		size_t n = 0;
		while (n < rest_.size() && (is_in_word(rest_[n]) || rest_[n] == '$'))
			n++;
		for (const char c : rest_.substr(0, n))
			out += lower(c);
		rest_.remove_prefix(n);
		return true;
	}

	bool keyword(std::string_view wanted)
	{
		const std::string_view before = rest_;
		std::string s;
		bool quoted;
		skip_blank();
		if (word(s, quoted) && !quoted && s == wanted)
			return true;
		rest_ = before;
		return false;
	}

	bool at_end()
	{
		skip_blank();
		while (!rest_.empty() && rest_[0] == ';') {
			rest_.remove_prefix(1);
			skip_blank();
		}
		return rest_.empty();
	}

private:
	bool skip_comment()
	{
		const size_t end = behind_comment(rest_, 0);
		if (end == std::string_view::npos)
			return false;
		rest_.remove_prefix(end);
		return true;
	}

	bool quoted_word(std::string &out)
	{
		for (size_t i = 1; i < rest_.size(); i++) {
			if (rest_[i] == '"' && (i + 1 == rest_.size() || rest_[i + 1] != '"')) {
				rest_.remove_prefix(i + 1);
				return !out.empty();
			}
			i += rest_[i] == '"';
			out += rest_[i];
		}
		return false;
	}

	std::string_view rest_;
};

} // namespace

bool may_be_sql_command(std::string_view text)
{
	const auto it = std::find_if_not(text.begin(), text.end(), is_space);
	return it == text.end() || *it == 'd' || *it == 'D' || *it == '-' || *it == '/';
}

SqlCommand read_sql_command(std::string_view text)
{
	SqlCommand command;
	Lexer lexer(text);
	if (lexer.keyword("discard")) {
		if (lexer.keyword("all"))
			command.kind = SqlCommand::DiscardAll;
	} else if (lexer.keyword("deallocate")) {
		bool quoted = false;
		lexer.skip_blank();
		const bool named = lexer.word(command.name, quoted);
		// PREPARE may stand before the name, and may be the name.
		if (named && !quoted && command.name == "prepare") {
			Lexer behind = lexer;
			std::string name;
			behind.skip_blank();
			if (behind.word(name, quoted)) {
				command.name = name;
				lexer = behind;
			}
		}
		if (named)
			command.kind = !quoted && command.name == "all" ? SqlCommand::DeallocateAll : SqlCommand::Deallocate;
		if (command.name.size() > proto::kMostName)
			command.kind = SqlCommand::Other; // cut at a character, which depends on the encoding
	}
	command.alone = command.kind != SqlCommand::Other && lexer.at_end();
	return command;
}

bool leaves_role(std::string_view text)
{
	Lexer lexer(text);
	bool leaves = false;
	if (lexer.keyword("reset")) {
		leaves = lexer.keyword("role") || lexer.keyword("all");
	} else if (lexer.keyword("discard")) {
		leaves = lexer.keyword("all");
	} else if (lexer.keyword("set")) {
		lexer.keyword("session");
		leaves = lexer.keyword("role") && lexer.keyword("none");
	}
	return leaves && lexer.at_end();
}

bool looks_up_its_columns(std::string_view text)
{
	Lexer lexer(text);
	return !lexer.at_end() && (lexer.keyword("fetch") || lexer.keyword("execute") || lexer.keyword("show"));
}

} // namespace pgpool::core
