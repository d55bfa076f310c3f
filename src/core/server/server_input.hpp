// What a backend sent, split into messages: where in the stream the server is, and what is kept of a message whose rest
// has not come.
//
// Owns the bytes that are kept and the place; what came at once is a Pass over it, which lasts as long as the event.
// What of a message must be there before it is looked at, and whether it is the client's, its caller says. Must not
// know what messages mean, nor streams.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/bytes.hpp"
#include "proto/wire.hpp"

namespace pgpool::core
{

class ServerInput
{
public:
	// Of a message that is about to be looked at. More: what is needed of it is not there.
	enum class Header { More, Whole, Broken };
	class Pass;

	bool between_messages() const { return left_ == 0; }
	bool mid_forwarded() const { return left_ > 0 && forwards_; } // the client has a part of one
	// Nothing of what came is still to be looked at. It is not while a message is looked at that others came behind.
	bool took_all() const { return kept_.empty() && left_ == 0 && unread_ == 0; }
	void drop() { kept_.clear(); } // of a connection that closes

private:
	std::string kept_;      // the start of a message
	size_t needs_ = 0;      // so much of it must be there, 0 = not known
	size_t unread_ = 0;     // behind the message that is looked at
	uint32_t left_ = 0;     // of the message whose header has been looked at
	bool forwards_ = false; // it goes to the client
};

// For each message: while more(): go_on() to the end of the one before; read_header(), begin_message(), end_message().
// Those that are forwarded, and only those, come out of take_run(), as few pieces in the memory in which they came.
class ServerInput::Pass
{
public:
	enum class Start { Ready, Wait, NoMemory }; // Wait: there is nothing to be done before more comes

	explicit Pass(ServerInput &input) : input_(input) {}
	Pass(const Pass &) = delete;
	Pass &operator=(const Pass &) = delete;

	[[nodiscard]] Start start(const char *data, size_t size); // lasts as long as this
	bool more() const { return at_ < end_; }
	bool go_on(); // True: the rest of a message, or some of it, was there

	// ---- a message, when there is none before it
	Header read_header(); // Whole: its type and length are there
	char type() const { return *at_; }
	size_t total() const { return total_; }                         // 0 = not known
	size_t have() const { return static_cast<size_t>(end_ - at_); } // of it, and behind it
	std::string_view begin_message();                               // what is there of its body
	void end_message(bool forward);

	// What is forwarded and was not taken, up to the message that is looked at; with `all`, which is there, up to its
	// end.
	std::string_view take_run(bool all = false);
	// The rest waits for more, of which so much is needed, if that is known. False: there is no memory.
	[[nodiscard]] bool keep_rest(size_t needs);

private:
	ServerInput &input_;
	std::string joined_; // with what was kept
	const char *run_ = nullptr;
	const char *at_ = nullptr;
	const char *end_ = nullptr;
	size_t total_ = 0;
};

inline bool ServerInput::Pass::go_on()
{
	if (input_.left_ == 0)
		return false;
	const auto n = static_cast<uint32_t>(std::min<size_t>(input_.left_, have()));
	at_ += n;
	input_.left_ -= n;
	if (!input_.forwards_)
		run_ = at_;
	return true;
}

inline ServerInput::Header ServerInput::Pass::read_header()
{
	total_ = 0;
	if (have() < proto::kHeaderSize)
		return Header::More;
	const uint32_t length = proto::load32(at_ + 1);
	if (length < 4 || length > proto::kMaxMessage + 1)
		return Header::Broken;
	total_ = size_t{length} + 1;
	return Header::Whole;
}

inline std::string_view ServerInput::Pass::begin_message()
{
	const size_t n = std::min(total_, have());
	input_.unread_ = have() - n;
	return {at_ + proto::kHeaderSize, n - proto::kHeaderSize};
}

inline void ServerInput::Pass::end_message(bool forward)
{
	const size_t n = std::min(total_, have());
	at_ += n;
	if (!forward)
		run_ = at_;
	input_.left_ = static_cast<uint32_t>(total_ - n);
	input_.forwards_ = forward;
}

inline std::string_view ServerInput::Pass::take_run(bool all)
{
	const char *upto = all ? at_ + total_ : at_;
	if (upto <= run_) // one was taken to its end
		return {};
	const char *run = run_;
	run_ = upto;
	return {run, static_cast<size_t>(upto - run)};
}

} // namespace pgpool::core
