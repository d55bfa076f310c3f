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
	// True: log it. Times in microseconds of whatever clock.
	bool take(int64_t now)
	{
		const int64_t since = now - at_;
		if (since >= kMost * kEach || since < 0 || at_ == 0) {
			tokens_ = kMost;
			at_ = now;
		} else if (since >= kEach) {
			tokens_ = tokens_ + since / kEach > kMost ? kMost : tokens_ + since / kEach;
			at_ += since / kEach * kEach;
		}
		if (tokens_ == 0) {
			held_back_++;
			return false;
		}
		tokens_--;
		return true;
	}

	// How many were held back since it was asked last.
	uint64_t held_back()
	{
		const uint64_t n = held_back_;
		held_back_ = 0;
		return n;
	}

private:
	static constexpr int64_t kMost = 20;     // at once
	static constexpr int64_t kEach = 200000; // then five in a second
	int64_t at_ = 0, tokens_ = 0;
	uint64_t held_back_ = 0;
};

} // namespace pgpool::region
