// Columns of the views: the kinds that there are, what a row has of one, and its type in SQL.
//
// Owns the kinds and the lengths of names. A list of columns is an X-macro of FIELD(kind, member of the row, column,
// what it is) and MADE(type in SQL, column, what it is): the second is made where the row is shown
// (src/postgres/functions/rows.hpp). From a list come the members of the row, the columns of function and view, and the
// table of docs/reference.md. Must not know PostgreSQL.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pgpool::region
{

constexpr int kNameLen = 64;
constexpr int kTextLen = 256;

namespace column
{

struct Number {
	using Field = uint64_t;
	static constexpr const char *sql = "bigint";
};

struct Integer {
	using Field = int32_t;
	static constexpr const char *sql = "integer";
};

struct SomeNumber { // 0 is NULL
	using Field = uint64_t;
	static constexpr const char *sql = "bigint";
};

struct SomeInteger { // 0 is NULL
	using Field = int32_t;
	static constexpr const char *sql = "integer";
};

struct SomeLag { // less than 0 is NULL
	using Field = int64_t;
	static constexpr const char *sql = "bigint";
};

struct Milliseconds { // the row has microseconds
	using Field = uint64_t;
	static constexpr const char *sql = "double precision";
};

struct Ratio { // less than 0 is NULL
	using Field = double;
	static constexpr const char *sql = "double precision";
};

struct Flag {
	using Field = uint8_t;
	static constexpr const char *sql = "boolean";
};

struct Time { // microseconds since 1970; 0 is NULL
	using Field = int64_t;
	static constexpr const char *sql = "timestamptz";
};

struct Lsn { // 0 is NULL
	using Field = uint64_t;
	static constexpr const char *sql = "pg_lsn";
};

template <size_t N> struct Text { // "" is NULL; a reader does not trust it to have its NUL
	using Field = char[N];
	static constexpr const char *sql = "text";
};

using Name = Text<kNameLen>;

template <class Value> struct Named { // by the word that shown(Value) gives
	using Field = Value;
	static constexpr const char *sql = "text";
};

} // namespace column

// Members of a row, from its list.
#define PGPOOL_ROW_FIELD(kind, name, ...) ::pgpool::region::column::kind::Field name;
#define PGPOOL_ROW_MADE(...)

} // namespace pgpool::region
