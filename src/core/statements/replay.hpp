// What a client sent since its batch began, as long as it may have to be sent again.
//
// A shared statement may be stale: prepared before the result type of its tables changed, or taken away behind
// our back. The backend says so at Bind or Describe. When that is the first thing that it answers in a batch
// outside a transaction block, nothing was executed and nothing was told to the client, so the batch is served
// once more with the statement parsed anew. A stale one only if the batch prepares it or asks for a description, too: a
// client that goes by one of its own, from before, would take the new columns for the old; it needs the error.
// A batch with another behind it cannot be served again. Where it prepares what it uses, a backend of the client's own
// would never call that stale, as it holds a lock from the Parse on: so what comes behind such a batch waits.
// Owns the copy of the bytes. Knows no more of messages than where the next one begins.
#pragma once

#include <string>
#include <string_view>

#include "core/account/replies.hpp"
#include "core/base/ports.hpp"
#include "core/statements/statement_store.hpp"
#include "proto/message.hpp"
#include "proto/wire.hpp"

namespace pgpool::core
{

class Replay
{
public:
	explicit Replay(StatementStore &store) : store_(store) {}
	~Replay() { stop(); }
	Replay(const Replay &) = delete;
	Replay &operator=(const Replay &) = delete;

	bool on() const { return statement_ != nullptr || on_node_; }
	// The whole batch, which a node serves: whatever the node refuses, the primary may do.
	bool on_node() const { return on_node_; }
	bool elsewhere() const { return on_node_ && again_; } // the primary may do it
	// Not `again`: in a block of which the client has heard. Its error is the client's, but no batch goes behind it
	// unseen.
	void begin_on_node(const Replies &replies, bool again)
	{
		stop();
		on_node_ = true;
		again_ = again;
		just_prepared_ = false;
		batch_ = replies.batch();
		first_ = replies.sent_so_far() + 1;
	}
	// The first message that the backend will answer uses `s`, which it has had for some time.
	// `just_prepared`: by the batch itself, so that the client cannot know anything else of it.
	void begin(Statement *s, std::string_view name, bool just_prepared, const Replies &replies)
	{
		if (on_node_) // that is more
			return;
		stop();
		just_prepared_ = just_prepared;
		batch_ = replies.batch();
		first_ = replies.sent_so_far() + 1;
		statement_ = StatementStore::keep(s);
		name_ = name;
	}
	// Of a batch longer than kChunk the client hears the error.
	void add(std::string_view bytes)
	{
		if (bytes_.size() + bytes.size() > kChunk)
			stop();
		else
			bytes_ += bytes;
	}
	void stop()
	{
		store_.release(statement_);
		statement_ = nullptr;
		on_node_ = false;
		bytes_.clear();
	}
	Statement *statement() const { return statement_; }
	const std::string &name() const { return name_; } // of the client's
	bool just_prepared() const { return just_prepared_; }
	// What comes now is behind the batch, which must be the last one that was sent as long as this is on.
	bool holds_back(const Replies &replies) const
	{
		return on() && (on_node_ ? replies.round_outstanding() : just_prepared_ && batch_ != replies.batch());
	}
	uint64_t first() const { return first_; } // place of that first message, see Replies
	// The client takes the columns as they will be: it asks for them, and names no format for each of the old ones.
	bool takes_any_columns() const
	{
		if (just_prepared_)
			return true;
		bool asks = false;
		for (size_t at = 0; at + proto::kHeaderSize <= bytes_.size();
		     at += size_t{proto::load32(&bytes_[at + 1])} + 1) {
			const std::string_view rest = std::string_view(bytes_).substr(at + proto::kHeaderSize);
			if (bytes_[at] == 'B' && result_formats(rest) > 1)
				return false;
			asks |= bytes_[at] == 'D';
		}
		return asks;
	}
	std::string_view bytes() const { return bytes_; }

private:
	static int result_formats(std::string_view bind)
	{
		proto::Reader r(bind);
		r.string(); // portal
		r.string(); // statement
		r.bytes(size_t{2} * r.u16());
		for (int parameters = r.u16(); parameters > 0; parameters--) {
			const auto length = static_cast<int32_t>(r.u32());
			r.bytes(length > 0 ? static_cast<size_t>(length) : 0);
		}
		return r.u16();
	}

	StatementStore &store_;
	Statement *statement_ = nullptr;
	std::string name_;
	bool on_node_ = false;
	bool again_ = false;
	bool just_prepared_ = false;
	uint64_t batch_ = 0;
	uint64_t first_ = 0;
	std::string bytes_;
};

} // namespace pgpool::core
