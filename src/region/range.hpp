// What values a setting takes: the kind of value, its unit, bounds, default, and what 0 means.
//
// Owns the kinds. From a Range come the definition of a setting of the server, the types and checks of SQL and the
// tables of docs/reference.md. Must not know PostgreSQL.
#pragma once

#include <cstdint>
#include <string_view>

namespace pgpool::region
{

enum class Kind { Count, Milliseconds, Seconds, Kilobytes, Flag, Choice };

struct Choice {
	const char *name;
	int32_t value;
};

template <class Value> constexpr Choice named(const char *name, Value value)
{
	return {name, static_cast<int32_t>(value)};
}

struct Range {
	Kind kind;
	int64_t preset, least, most;
	const char *zero; // what 0 means, "" = just 0
	const Choice *choices;
	int choice_count;
};

constexpr int64_t kNoBound = INT32_MAX;

constexpr Range count(int64_t least, int64_t most, int64_t preset, const char *zero = "")
{
	return {Kind::Count, preset, least, most, zero, nullptr, 0};
}

constexpr Range milliseconds(int64_t preset, const char *zero = "off")
{
	return {Kind::Milliseconds, preset, 0, kNoBound, zero, nullptr, 0};
}

constexpr Range seconds(int64_t preset, const char *zero = "off")
{
	return {Kind::Seconds, preset, 0, kNoBound, zero, nullptr, 0};
}

// Workers get the time in milliseconds.
constexpr Range seconds_of_pools(int64_t preset)
{
	return {Kind::Seconds, preset, 0, kNoBound / 1000, "off", nullptr, 0};
}

constexpr Range kilobytes(int64_t least, int64_t most, int64_t preset)
{
	return {Kind::Kilobytes, preset, least, most, "", nullptr, 0};
}

constexpr Range flag(bool preset)
{
	return {Kind::Flag, preset, 0, 1, "", nullptr, 0};
}

template <int N, class Value> constexpr Range choice(const Choice (&choices)[N], Value preset)
{
	return {Kind::Choice, static_cast<int64_t>(preset), 0, N - 1, "", choices, N};
}

template <int N, class Value> const char *name_of(const Choice (&choices)[N], Value value)
{
	for (const Choice &c : choices)
		if (c.value == static_cast<int32_t>(value))
			return c.name;
	return "unknown";
}

// FNV-1a of what lists say, beginning with a number.
constexpr uint32_t fingerprint(uint32_t number, std::string_view text)
{
	uint32_t hash = 2166136261u + number;

	for (char c : text)
		hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
	return hash;
}

// The row of a list for a name that the list itself has given.
template <class Row, int N> constexpr const Row &row_named(const Row (&rows)[N], std::string_view name)
{
	int i = 0;

	while (name != rows[i].name)
		i++;
	return rows[i];
}

} // namespace pgpool::region
