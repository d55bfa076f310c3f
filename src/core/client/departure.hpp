// That a client sends no more: how far it has come with that, since when, and how long it may take.
//
// Two things may be true at once. Its end of file came, but not all that came before it is served (ended()): messages
// of it go to servers yet. Nothing is to be served any more, replies are still to come (leaving()): after Terminate, or
// when an ended one has come so far. A leaving one whose server executed nothing of what it sent is served again, and
// has ended. Owns these. Must not know servers and streams.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/ports.hpp"

namespace pgpool::core
{

class Departure
{
public:
	bool begun() const { return ended_ || leaving_; }
	bool ended() const { return ended_; }
	bool leaving() const { return leaving_; }

	void end() { ended_ = true; }
	void leave() { leaving_ = true; }
	void serve_again()
	{
		ended_ |= leaving_; // whatever said so is not said again
		leaving_ = false;
	}

	// It was known by `now` that it will send no more.
	void note(int64_t now)
	{
		if (left_at_ == 0)
			left_at_ = now;
	}
	// What it left behind may run until then, if it may for `time`; 0 = it did not leave, it is sent away.
	int64_t served_until(int64_t time) const
	{
		if (left_at_ == 0)
			return 0;
		return time == INT64_MAX ? time : left_at_ + time;
	}
	// All its statements together, each of which may take as long as `limit`.
	bool takes_too_long(int64_t now, int64_t limit) const { return (now - left_at_) / 2 > limit; }

	// Nobody reads what its server sends. False: no more of it, PostgreSQL ends a statement, too, when its output meets
	// a closed connection.
	[[nodiscard]] bool may_waste(uint64_t size)
	{
		unheard_ += size;
		return unheard_ <= kChunk;
	}

private:
	int64_t left_at_ = 0; // monotonic
	uint64_t unheard_ = 0;
	bool ended_ = false;
	bool leaving_ = false;
};

} // namespace pgpool::core
