// What a user says of the way of a statement: hints in comments, words of settings, PgCat's command.
//
// Owns their spellings, pgpool's own and those of other poolers. A hint counts in the comments at the beginning of a
// text only: what follows the first word may be a literal. Made without libstdc++: both libraries have it. Must not
// know the rest of SQL.
#pragma once

#include <cstddef>
#include <strings.h>

#include "core/routing/statement_kind.hpp"

namespace pgpool::core
{

// A text between two pointers, read from its beginning.
struct Words {
	const char *at, *end;

	bool blank() const { return *at == ' ' || *at == '\t' || *at == '\n' || *at == '\r' || *at == '\f' || *at == '\v'; }
	void skip_blanks()
	{
		while (at < end && blank())
			at++;
	}
	bool takes(const char *word)
	{
		const size_t n = __builtin_strlen(word);
		if (static_cast<size_t>(end - at) < n || strncasecmp(at, word, n) != 0)
			return false;
		at += n;
		return true;
	}
	// ... as a whole word, and the blanks behind it
	bool takes_word(const char *word)
	{
		const char *before = at;
		if (!takes(word) || (at < end && is_letter(*at))) {
			at = before;
			return false;
		}
		skip_blanks();
		return true;
	}
	static bool is_letter(char c)
	{
		return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
		       (c & 0x80) != 0;
	}
	// Over one comment, which is put into `inside`. False: there is none that ends.
	bool take_comment(Words &inside)
	{
		if (end - at < 2)
			return false;
		if (at[0] == '-' && at[1] == '-') {
			inside.at = at + 2;
			while (at < end && *at != '\n' && *at != '\r')
				at++;
			inside.end = at;
			return true;
		}
		if (at[0] != '/' || at[1] != '*')
			return false;
		int depth = 0;
		for (const char *p = at; p + 1 < end; p++) {
			if (p[0] == '/' && p[1] == '*') {
				depth++;
				p++;
			} else if (p[0] == '*' && p[1] == '/') {
				p++;
				if (--depth == 0) {
					inside = {at + 2, p - 1};
					at = p + 1;
					return true;
				}
			}
		}
		return false;
	}
};

// The words of pgpool.route, pgdog.role, PgCat's SERVER ROLE and target_session_attrs.
inline bool route_of_word(Words word, Route &to)
{
	static constexpr struct {
		const char *word;
		Route route;
	} kWords[] = {{"auto", Route::Auto},         {"any", Route::Auto},           {"default", Route::Auto},
	              {"primary", Route::Primary},   {"read-write", Route::Primary}, {"replica", Route::Replica},
	              {"read-only", Route::Replica}, {"standby", Route::Replica},    {"prefer-standby", Route::Replica}};
	for (const auto &w : kWords) {
		if (word.takes_word(w.word)) {
			to = w.route;
			return true;
		}
	}
	return false;
}

// The first that says something counts.
inline constexpr const char *kRouteSettings[] = {"pgpool.route", "pgdog.role", "odyssey.target_session_attrs"};

inline bool is_route_setting(const char *name)
{
	for (const char *s : kRouteSettings) {
		if (strcasecmp(name, s) == 0)
			return true;
	}
	return false;
}

constexpr const char *name_of(Route r)
{
	return r == Route::Primary ? "primary" : r == Route::Replica ? "replica" : "auto";
}

// /* pgpool: primary */, /* pgdog_role: replica */, /*NO LOAD BALANCE*/ of Pgpool-II. Others may stand before and
// behind them in one comment. `text` is at the first word afterwards.
inline Route take_hints(Words &text)
{
	Route hint = Route::Auto;
	Words inside{nullptr, nullptr};
	for (text.skip_blanks(); text.at < text.end && text.take_comment(inside); text.skip_blanks()) {
		inside.skip_blanks();
		if (inside.takes_word("NO LOAD BALANCE"))
			hint = Route::Primary;
		for (bool begins = true; inside.at < inside.end;) {
			if (begins && (inside.takes("pgpool:") || inside.takes("pgdog_role:"))) {
				inside.skip_blanks();
				(void)route_of_word(inside, hint);
			} else {
				begins = !Words::is_letter(*inside.at);
				inside.at++;
			}
		}
	}
	return hint;
}

// SET SERVER ROLE TO 'primary', which is no SQL. At the first word of the text.
inline bool is_server_role(Words text, Route &to)
{
	if (!text.takes_word("SET") || !text.takes_word("SERVER") || !text.takes_word("ROLE"))
		return false;
	if (!text.takes_word("TO") && !text.takes("="))
		return false;
	text.skip_blanks();
	const bool quoted = text.takes("'");
	if (!route_of_word(text, to))
		return false;
	while (text.at < text.end && Words::is_letter(*text.at))
		text.at++;
	if (quoted && !text.takes("'"))
		return false;
	for (text.skip_blanks(); text.takes(";");)
		text.skip_blanks();
	return text.at == text.end;
}

} // namespace pgpool::core
