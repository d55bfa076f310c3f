// See sql_literals.hpp.
#include "core/statements/sql_literals.hpp"

#include <algorithm>
#include <string>

#include "core/statements/sql_scan.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr std::string_view kWords[] = {"now", "today", "tomorrow", "yesterday"};

bool is_letter(char c)
{
	return lower(c) >= 'a' && lower(c) <= 'z';
}

// One of the words stands there, and no letter before or behind it makes it another one.
bool has_word(std::string_view text)
{
	for (size_t i = 0; i < text.size(); i++) {
		if (i > 0 && is_letter(text[i - 1]))
			continue;
		for (const std::string_view word : kWords) {
			const std::string_view here = text.substr(i, word.size());
			const bool ends = i + word.size() >= text.size() || !is_letter(text[i + word.size()]);
			if (ends && std::equal(here.begin(), here.end(), word.begin(), word.end(),
			                       [](char a, char b) { return lower(a) == b; }))
				return true;
		}
	}
	return false;
}

class Scanner
{
public:
	explicit Scanner(std::string_view text) : text_(text) {}

	// True at the first literal that may read the clock.
	bool finds_one()
	{
		while (at_ < text_.size()) {
			const char c = text_[at_];
			if (starts("--"))
				at_ = behind_line(text_, at_);
			else if (starts("/*"))
				at_ = behind_comment(text_, at_);
			else if (c == '"')
				at_ = behind(text_.find('"', at_ + 1));
			else if (c == '\'' ? string() : c == '$' && dollar_string())
				return true;
			else if (c != '\'' && c != '$')
				skip_word();
		}
		return false;
	}

private:
	bool starts(std::string_view s) const { return text_.substr(at_, s.size()) == s; }
	size_t behind(size_t end) const { return end == std::string_view::npos ? end : end + 1; }

	void skip_word()
	{
		const bool name = starts_word(text_[at_]);
		at_++;
		while (name && at_ < text_.size() && (is_in_word(text_[at_]) || text_[at_] == '$'))
			at_++;
	}

	// At the quote. Pieces on several lines are one literal.
	bool string()
	{
		const bool alone = at_ < 2 || !(is_in_word(text_[at_ - 2]) || text_[at_ - 2] == '$'); // not the end of a name
		const char prefix = at_ > 0 && (alone || text_[at_ - 1] == '&') ? lower(text_[at_ - 1]) : '\0';
		Reading read;
		if (prefix == '&')
			return true; // U&'...': letters may be written as numbers, behind a character of one's choice
		do {
			at_++;
			if (!piece(prefix == 'e', read))
				return true;
		} while (continues());
		return has_word(read.plain) || (read.escaped != read.plain && has_word(read.escaped));
	}

	// Without E it depends on standard_conforming_strings which one holds; with E it is the second.
	struct Reading {
		std::string plain, escaped;
	};

	// Up to the end of a piece. False: nobody can tell what it means.
	bool piece(bool escapes, Reading &read)
	{
		for (; at_ < text_.size(); at_++) {
			const char c = text_[at_];
			const char next = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
			if (c == '\'' && next != '\'') {
				at_++;
				return true;
			}
			if (c == '\\') {
				// Without E it depends on standard_conforming_strings whether it is one.
				if (is_digit(next) || lower(next) == 'x' || lower(next) == 'u' || (next == '\'' && !escapes))
					return false;
				if (std::string_view("bfnrt").find(next) == std::string_view::npos) {
					at_ += next == '\'' || next == '\\' ? 1 : 0;
					continue;
				}
				read.plain += next;
				read.escaped += ' ';
				at_++;
				continue;
			}
			read.plain += c;
			read.escaped += c;
			at_ += c == '\'' ? 1 : 0;
		}
		return true;
	}

	// Another piece follows: at_ is at its quote.
	bool continues()
	{
		const size_t end = at_;
		for (;;) {
			at_ = std::min(text_.find_first_not_of(" \t\r\n\f\v", at_), text_.size());
			if (!starts("--"))
				break;
			at_ = behind_line(text_, at_);
		}
		if (starts("'"))
			return true;
		at_ = end;
		return false;
	}

	bool dollar_string()
	{
		size_t end = at_ + 1;
		while (end < text_.size() && is_in_word(text_[end]) && !(end == at_ + 1 && is_digit(text_[end])))
			end++;
		if (end >= text_.size() || text_[end] != '$') {
			at_++; // a parameter
			return false;
		}
		const std::string_view tag = text_.substr(at_, end + 1 - at_);
		const size_t begin = end + 1, close = std::min(text_.find(tag, begin), text_.size());
		at_ = close + tag.size();
		return has_word(text_.substr(begin, close - begin));
	}

	std::string_view text_;
	size_t at_ = 0;
};

} // namespace

bool literals_read_the_clock(std::string_view text)
{
	return Scanner(text).finds_one();
}

} // namespace pgpool::core
