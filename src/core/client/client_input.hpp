// What a client sent and is not done with: the bytes that wait and why they do, and where in a message the stream is.
//
// Two kinds of reasons may hold at once: something is missing that the message needs (Missing), and the client or its
// server is to have a rest although nothing is (Pause). A slow reader may be in the middle of a handover, so they are
// two. Who waits in the queue of a pool, and for which replies, is known there (Pool, StatementRewriter);
// Session::kept() asks all of them. Owns bytes and counts. Must not know messages, servers or streams.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "proto/bytes.hpp"

namespace pgpool::core
{

class ClientInput
{
public:
	enum class Missing : uint8_t {
		Nothing,
		Settings, // the server does not have the client's yet
		Probe,    // whether the account of replies is right, a query of ours will tell
		Handover, // the server works for the subscription
		Replay,   // no node is yet where the client's own writes are
		Position, // whether the node is where the client's own writes are
		Begin,    // the block that it goes on with begins on the primary
		Release   // what comes next may be for another target: the node's server goes back first
	};
	enum class Pause : uint8_t {
		None,
		Reader,  // it does not read what it was answered
		Backlog, // the backend has much of it to answer, or does not take more
		Turn     // the other clients have theirs now
	};

	// ---- the bytes that wait
	bool empty() const { return bytes_.empty(); }
	size_t size() const { return bytes_.size(); }
	std::string_view bytes() const { return bytes_; }
	// Behind those that wait, in their place, before them. False: there is no memory.
	[[nodiscard]] bool add(std::string_view more) { return proto::try_append(bytes_, more); }
	[[nodiscard]] bool replace(std::string_view by)
	{
		bytes_.clear();
		return proto::try_append(bytes_, by);
	}
	[[nodiscard]] bool put_back(std::string_view first) { return proto::try_prepend(bytes_, first); }
	std::string take()
	{
		needed_ = 0;
		return std::exchange(bytes_, {});
	}
	// The message at the front cannot be looked at before so much of it is here.
	void need(uint32_t size) { needed_ = size; }
	bool has_enough() const { return bytes_.size() >= needed_; }

	// ---- the message that goes through now
	bool mid_message() const { return left_ > 0; }
	void begin(size_t total, size_t done) { left_ = static_cast<uint32_t>(total - done); }
	// So much of the `have` bytes that come is its.
	size_t go_on(size_t have) { return count_down(left_, have); }
	// It is not to go on: what is still to come of it is dropped.
	void drop_rest() { drop(std::exchange(left_, 0)); }

	// ---- what is dropped
	bool dropping() const { return dropped_ > 0; }
	void drop(uint32_t size) { dropped_ += size; }
	size_t drop_some(size_t have) { return count_down(dropped_, have); }
	// After an error of ours: all messages up to Sync.
	bool skipping() const { return skipping_; }
	void skip_to_sync(bool on) { skipping_ = on; }

	// ---- why it waits
	Missing missing() const { return missing_; }
	void miss(Missing what) { missing_ = what; }
	Pause pause() const { return pause_; }
	void set_pause(Pause why) { pause_ = why; }
	// True: that was why.
	bool end_pause(Pause why) { return pause_ == why && std::exchange(pause_, Pause::None) != Pause::None; }
	bool held() const { return missing_ != Missing::Nothing || pause_ != Pause::None; }
	// Served by another server, as if it came now.
	void start_over()
	{
		left_ = 0;
		missing_ = Missing::Nothing;
		pause_ = Pause::None;
	}

private:
	static size_t count_down(uint32_t &left, size_t have)
	{
		const auto n = static_cast<uint32_t>(std::min<size_t>(left, have));
		left -= n;
		return n;
	}

	std::string bytes_; // the start of a message, or all that waits
	uint32_t needed_ = 0;
	uint32_t left_ = 0;
	uint32_t dropped_ = 0;
	bool skipping_ = false;
	Missing missing_ = Missing::Nothing;
	Pause pause_ = Pause::None;
};

} // namespace pgpool::core
