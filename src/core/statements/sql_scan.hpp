// Where comments and names end in a text of SQL, as the server's lexer sees them (src/backend/parser/scan.l).
//
// Pure functions. Must not know what the text is read for.
#pragma once

#include <cstddef>
#include <string_view>

namespace pgpool::core
{

inline char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

inline bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

inline bool starts_word(char c)
{
	return (lower(c) >= 'a' && lower(c) <= 'z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

// A name without quotes; that of a dollar quote has no $ in it.
inline bool is_in_word(char c)
{
	return starts_word(c) || is_digit(c);
}

// Behind the comment that /* opens at `at`: they nest. npos: it is not closed.
inline size_t behind_comment(std::string_view text, size_t at)
{
	for (size_t depth = 0; at + 1 < text.size(); at++) {
		const std::string_view two = text.substr(at, 2);
		if (two != "/*" && two != "*/")
			continue;
		depth += two == "/*" ? 1 : -1;
		at++;
		if (depth == 0)
			return at + 1;
	}
	return std::string_view::npos;
}

// The end of the line of a comment that -- opens at `at`.
inline size_t behind_line(std::string_view text, size_t at)
{
	const size_t end = text.find_first_of("\r\n", at);
	return end == std::string_view::npos ? text.size() : end;
}

} // namespace pgpool::core
