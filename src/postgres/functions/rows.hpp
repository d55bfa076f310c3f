// The rows of a function that returns a set: values put one after the other, by the kinds of region/columns.hpp.
//
// Owns the translation of a kind into a value of PostgreSQL. Must not know whose rows they are.
#pragma once

#include "region/columns.hpp"
#include "region/rows.hpp"
#include "postgres/base/compat.hpp"

extern "C" {
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
}

namespace pgpool::postgres
{

class RowBuilder
{
public:
	explicit RowBuilder(FunctionCallInfo fcinfo) : to_(pgpool_begin_rows(fcinfo)) {}

	void put(Datum value, bool null = false)
	{
		if (count_ < kMostColumns) {
			nulls_[count_] = null;
			values_[count_] = value;
		}
		count_++;
	}
	void null() { put(static_cast<Datum>(0), true); }
	void text(const char *s) { put(CStringGetTextDatum(s)); }

	void put(region::column::Number, uint64_t n) { put(Int64GetDatum(static_cast<int64>(n))); }
	void put(region::column::SomeNumber, uint64_t n) { put(Int64GetDatum(static_cast<int64>(n)), n == 0); }
	void put(region::column::SomeLag, int64_t n) { put(Int64GetDatum(n), n < 0); }
	void put(region::column::Integer, int32_t n) { put(Int32GetDatum(n)); }
	void put(region::column::SomeInteger, int32_t n) { put(Int32GetDatum(n), n == 0); }
	void put(region::column::Milliseconds, uint64_t us) { put(Float8GetDatum(static_cast<double>(us) / 1000.0)); }
	void put(region::column::Ratio, double r) { put(Float8GetDatum(r), r < 0); }
	void put(region::column::Flag, uint8_t b) { put(BoolGetDatum(b != 0)); }
	void put(region::column::Time, int64_t us) { put(TimestampTzGetDatum(us - kEpochShift), us == 0); }
	void put(region::column::Lsn, uint64_t lsn) { put(LSNGetDatum(lsn), lsn == 0); }
	void put(region::column::SessionMode, uint8_t b) { text(b ? "session" : "transaction"); }
	void put(region::column::Route, uint8_t b) { text(b ? "tcp" : "unix"); }
	template <class Value> void put(region::column::Named<Value>, Value v) { text(shown(v)); }
	template <size_t N> void put(region::column::Text<N>, const char (&s)[N])
	{
		char copy[N];

		strlcpy(copy, s, Min(N, strnlen(s, N) + 1));
		if (copy[0])
			text(copy);
		else
			null();
	}

	// The row is whole: with as many values as the function has columns, or the SQL is of another build.
	void end()
	{
		if (count_ != to_->setDesc->natts)
			elog(ERROR, "function returns %d columns, but its declaration has %d", count_, to_->setDesc->natts);
		tuplestore_putvalues(to_->setResult, to_->setDesc, values_, nulls_);
		count_ = 0;
	}

	static constexpr int64 kEpochShift = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

private:
	static constexpr int kMostColumns = 64;

	ReturnSetInfo *to_;
	int count_ = 0;
	Datum values_[kMostColumns];
	bool nulls_[kMostColumns];
};

// A member of a row that is a column as it is.
#define PGPOOL_PUT(kind, name, ...) to.put(region::column::kind{}, row.name);

} // namespace pgpool::postgres
