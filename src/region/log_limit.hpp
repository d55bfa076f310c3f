// How often a line may be logged that strangers can cause at will.
//
// Owns a token bucket and the count of what it held back. Plain, so that workers and the manager can have one. Must not
// know what is logged.
#pragma once

#include <cstdint>

namespace pgpool::region
{

class LogLimit
{
public:
	// `most` lines at once, then one each `each` microseconds.
	explicit LogLimit(int64_t most = 20, int64_t each = 200000) : most_(most), each_(each) {}

	// True: log it. Times in microseconds of whatever clock.
	bool take(int64_t now)
	{
		const int64_t since = now - at_;
		if (since >= most_ * each_ || since < 0 || at_ == 0) {
			tokens_ = most_;
			at_ = now;
		} else if (since >= each_) {
			tokens_ = tokens_ + since / each_ > most_ ? most_ : tokens_ + since / each_;
			at_ += since / each_ * each_;
		}
		if (tokens_ == 0) {
			held_back_++;
			return false;
		}
		tokens_--;
		return true;
	}

	void hold_back() { held_back_++; } // one that could have been logged

	// How many were held back since it was asked last.
	uint64_t held_back()
	{
		const uint64_t n = held_back_;
		held_back_ = 0;
		return n;
	}

private:
	int64_t most_, each_;
	int64_t at_ = 0, tokens_ = 0;
	uint64_t held_back_ = 0;
};

} // namespace pgpool::region
