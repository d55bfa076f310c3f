// Outstanding replies of one server connection: which replies are to come, and whose they are.
//
// Owns the accounting behind the release rule. Every message that was sent and will be answered is one
// entry of a FIFO that says what it is for: the client, or one of our purposes (swallow it). The rules, from the
// protocol documentation ("Message Flow") and the server's own main loop (postgres.c, PostgresMain):
//
//   - Query, FunctionCall and Sync are answered up to and including a ReadyForQuery; Parse, Bind,
//     Describe, Execute and Close by one message of theirs.
//   - After an error in Parse .. Close the server discards everything up to the next Sync, Query and
//     FunctionCall included. An error under a Query, FunctionCall or Sync discards nothing.
//   - In copy-in mode the server discards Sync and Flush up to CopyDone or CopyFail; after a failed copy CopyData,
//     CopyDone and CopyFail are discarded. Whether a Sync that went before or into a copy was discarded when the copy
//     fails, nobody can tell from here: doubtful() is then true, until an empty query of ours has been answered
//     (probe()): replies that are due come before its own. As the account of what failed may have been wrong
//     meanwhile, such a server connection is closed afterwards.
// A transaction's state comes from the ReadyForQuery's byte alone. Knows no socket, no session. It has more than 40
// methods, since each question that is asked of the one queue has a name; most are a line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pgpool::core
{

// What a message was sent for. All but the client's are ours.
enum class For : uint8_t {
	Client,
	Statement, // a Parse, Describe or Close of ours in the client's batch, and a Sync behind that
	Settings,  // what makes the settings the client's, in one query
	Setting,   // the same one by one
	Probe,     // of an account in doubt
	Rollback,  // what makes a server fit for the next client
	Sync,
	Discard,
	Silence,  // a Sync whose reply says nothing new
	Replay,   // the Sync behind which the batch is served again
	Handover, // a query of a subscription, on its client's server
	Round,    // a query of a listener
	Position, // how far a node has replayed
	Begin,    // what begins a block on the primary that came from a node
	Nobody,   // the client's that is gone
};

class Replies
{
public:
	// Entries that come with a note of their sender (statement_notes.hpp): Parse and Close of a shared
	// statement, and replies that are emitted here, in their turn, without the server's doing.
	static constexpr char kNotedParse = 'p';
	static constexpr char kNotedClose = 'k';
	static constexpr char kFakeParse = 'y';
	static constexpr char kFakeClose = 'z';
	// Describe of a shared statement, of ours, behind each Parse of it.
	static constexpr char kShape = 'l';
	// Describe of a statement whose parameters are told, and the columns not: an error of ours comes in their place.
	static constexpr char kParameters = 'h';
	// Describe of a statement that has no result for its client, whatever the backend says.
	static constexpr char kNoResult = 'q';
	// Describe of the unnamed statement that the backend holds itself.
	static constexpr char kUnnamedTypes = 'j';
	// A Query that takes a name away: it succeeds when CommandComplete comes, else the note is void.
	static constexpr char kDeallocate = 'x';
	// Without a note: a Parse that the server refuses in our stead, and Parse of the unnamed statement.
	static constexpr char kRefused = 'r';
	static constexpr char kStale = 'v';    // as one whose columns are no longer those that the client knows
	static constexpr char kBadFlush = 'i'; // a Flush with a body: refused as a bad Parse is, or eaten by a copy
	static constexpr char kUnnamedParse = 'u';
	static constexpr char kUnnamedClose = 'o'; // ours, so that the client does not use what somebody left there
	// An Execute that changes nothing that a Parse behind it looks at: BEGIN; DEALLOCATE, which has a note.
	static constexpr char kBegin = 'e';
	static constexpr char kDeallocateExecute = 'w';
	// A message of this type went (or is about to go) to the server. False: it has no reply.
	bool sent(char type, For purpose = For::Client);
	// The reply that is due now and is ours to make: '1' or '3'; 0 = none. It is taken.
	char take_fake();
	bool fake_due() const;
	// Nothing is to come from the server, but replies of ours may be due.
	bool only_fakes() const { return size() == fakes_; }
	// A statement of the client's may be at work or is about to be.
	bool executing() const { return executing_ > 0; }
	// Since there was last nothing outstanding, the client has sent nothing that the server answers.
	bool fresh() const { return fresh_ && status_ == 'I' && !skipping_ && !copy_in_ && !doubtful_; }
	// RowDescription is what a Describe of ours asks for.
	bool wants_shape() const { return front() == kShape; }
	bool tells_unnamed_types() const { return !empty() && entries_[head_].kind == kUnnamedTypes; }
	// An error that comes now may be about a shared statement.
	bool front_names_statement() const { return front() == 'B' || front() == 'D'; }
	// All that is to come is the ReadyForQuery of one Sync.
	bool only_sync() const { return size() == 1 && front() == 'S'; }
	// A ReadyForQuery is to come: what the status will be is not known yet.
	bool round_outstanding() const { return rounds_ > 0; }
	// The client need send nothing more for that to come.
	bool ends_by_itself() const { return rounds_ > 0 && !wants_copy_data(); }
	// Places in the stream of messages: all up to the one that was sent when sent_so_far() was `place` are done.
	uint64_t sent_so_far() const { return pushed_; }
	bool done_up_to(uint64_t place) const { return pushed_ - size() >= place; }
	// A Parse or Close of the unnamed statement is not answered yet.
	bool unnamed_outstanding() const { return unnamed_ > 0; }
	// Messages of one batch fail together.
	uint64_t batch() const { return batch_; }

	struct Verdict {
		bool forward = true;       // the client's (or asynchronous); else ours
		For purpose = For::Client; // of the message that this reply completes
		char answered = 0;         // type of the message that this reply completes, 0 = none
		uint32_t voided = 0;       // entries with a note that an error made void
		bool unnamed_void = false; // so was what was to become of the unnamed statement
		bool no_result = false;    // the client is told NoData in its place
		bool violation = false;    // no message can have this reply: the stream is out of step
	};
	// A message of this type came from the server. `status` is ReadyForQuery's byte.
	Verdict received(char type, char status = 0);

	// Everything outstanding was answered; nothing but asynchronous messages may come.
	bool empty() const { return head_ == entries_.size(); }
	size_t size() const { return entries_.size() - head_; }
	bool copy_in() const { return copy_in_; }
	// The server waits for the data of a copy, so that any other message is an error.
	bool wants_copy_data() const { return copy_in_ && !copy_ending_; }
	bool doubtful() const { return doubtful_; }
	bool was_doubtful() const { return was_doubtful_; }
	// All seems answered, but in doubt: an empty query is the way to know.
	bool wants_probe() const { return doubtful_ && empty() && status_ == 'I' && !unsynced_ && !skipping_ && !copy_in_; }
	void probe(); // it is sent
	// The last message of the extended protocol has no Sync behind it yet.
	bool unsynced() const { return unsynced_; }
	char status() const { return status_; } // of the last ReadyForQuery: I, T or E
	// The server discards all up to Sync.
	bool skipping() const { return skipping_; }
	// No transaction, no reply to come, no Sync to come: the next message begins something new.
	bool at_rest() const { return empty() && status_ == 'I' && !unsynced_ && !skipping_ && !doubtful_ && !copy_in_; }
	// All up to the next ReadyForQuery, which is ours. A Parse of ours in the client's batch is not: it
	// is answered together with the client's messages behind it.
	bool round_is_ours() const;
	bool front_is(For purpose) const { return !empty() && entries_[head_].purpose == purpose; }
	// The front entry is ours: the server works for us.
	bool front_is_ours() const { return !empty() && is_ours(entries_[head_]); }

	// What the client still waits for is for `purpose`: it is gone, or all will be sent again.
	void disown(For purpose);

private:
	struct Entry {
		char kind; // as it was sent
		For purpose;
	};
	static bool is_ours(Entry e) { return e.purpose != For::Client; }
	static bool is_describe(char kind) { return kind == kParameters || kind == kNoResult || kind == kUnnamedTypes; }
	static char type(Entry e)
	{
		const char t = e.kind;
		return t == kBegin || t == kDeallocateExecute ? 'E' : is_describe(t) ? 'D' : t;
	}

	char front() const { return empty() ? '\0' : type(entries_[head_]); }
	void push(char type, For purpose);
	void pop();
	void drop_markers();
	Verdict answer(char wanted, char or_else = 0);
	Verdict error();
	void settle_deallocate();
	void start_copy();
	void end_copy(bool failed);

	std::vector<Entry> entries_; // a queue: entries before head_ are gone
	size_t head_ = 0;
	uint64_t batch_ = 0;
	uint32_t rounds_ = 0;
	uint64_t pushed_ = 0;
	uint32_t fakes_ = 0;
	uint32_t unnamed_ = 0;
	uint32_t executing_ = 0;
	bool fresh_ = true;
	bool skipping_ = false;
	bool unsynced_ = false;
	bool copy_in_ = false;
	bool copy_ending_ = false;  // CopyDone or CopyFail went since the copy began
	bool dropped_sync_ = false; // a Sync went into the copy
	bool doubtful_ = false;
	bool was_doubtful_ = false;
	bool probing_ = false;
	bool probe_seen_ = false; // the reply to it has begun
	char status_ = 'I';
};

} // namespace pgpool::core
