// See replies.hpp.
#include "core/account/replies.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// Stands in the queue for CopyDone and CopyFail, which have no reply: it bounds the Syncs that a copy eats.
constexpr char kCopyEnd = 'c';

bool is_noted(char type)
{
	return type == Replies::kNotedParse || type == Replies::kNotedClose || type == Replies::kDeallocate ||
	       type == Replies::kDeallocateExecute || type == Replies::kShape;
}

bool is_fake(char type)
{
	return type == Replies::kFakeParse || type == Replies::kFakeClose;
}

bool ends_in_ready(char type)
{
	return type == 'Q' || type == 'F' || type == 'S' || type == Replies::kDeallocate;
}

bool is_unnamed(char type)
{
	return type == Replies::kUnnamedParse || type == Replies::kUnnamedClose;
}

bool executes(char type)
{
	return type == 'Q' || type == 'F' || type == 'E';
}

} // namespace

void Replies::push(char type, For purpose)
{
	if (head_ > 64 && head_ * 2 > entries_.size()) {
		entries_.erase(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(head_));
		head_ = 0;
	}
	rounds_ += ends_in_ready(type);
	fakes_ += is_fake(type);
	unnamed_ += is_unnamed(type);
	pushed_++;
	executing_ += purpose == For::Client && executes(type);
	if (purpose == For::Client && !is_fake(type))
		fresh_ = false;
	entries_.push_back({type, purpose});
}

void Replies::pop()
{
	rounds_ -= ends_in_ready(front());
	fakes_ -= is_fake(front());
	unnamed_ -= is_unnamed(front());
	executing_ -= !front_is_ours() && executes(entries_[head_].kind);
	if (++head_ == entries_.size()) {
		entries_.clear();
		head_ = 0;
	}
}

void Replies::drop_markers()
{
	while (front() == kCopyEnd)
		pop();
}

bool Replies::sent(char type, For purpose)
{
	switch (type) {
	case 'S':
		batch_++;
		// The backend reads it as part of the copy and throws it away: an entry would wait for ever.
		if (copy_in_ && !copy_ending_) {
			dropped_sync_ = true;
			return false;
		}
		unsynced_ = false;
		skipping_ = false;
		break;
	case kDeallocate:
		if (!unsynced_)
			batch_++; // whether it succeeds is known before any message behind it is answered
		break;
	case 'Q':
	case 'F':
		break;
	case 'P':
	case kRefused:
	case kStale:
	case kBadFlush:
	case kUnnamedParse:
	case kUnnamedClose:
	case 'B':
	case 'D':
	case 'E':
	case kBegin:
	case kDeallocateExecute:
	case 'C':
	case kNotedParse:
	case kNotedClose:
	case kShape:
	case kParameters:
	case kNoResult:
	case kUnnamedTypes:
	case kFakeParse:
	case kFakeClose:
		unsynced_ |= purpose == For::Client; // what ours stand before decides
		break;
	case 'c':
	case 'f':
		// Only a copy that runs, or may begin with what is outstanding, has an end.
		if (!copy_in_ && empty())
			return false;
		if (copy_in_)
			copy_ending_ = true;
		type = kCopyEnd;
		break;
	case 'H':
		unsynced_ |= !copy_in_ || copy_ending_;
		return false;
	default: // CopyData, Terminate: no reply
		return false;
	}
	// The backend discards it unread: it gets no reply, and must have no entry.
	if (skipping_)
		return false;
	// Any other message ends a copy with an error, at a place in the stream that we cannot know.
	if (copy_in_ && !copy_ending_)
		doubtful_ = true;
	push(type, purpose);
	return true;
}

Replies::Verdict Replies::answer(char wanted, char or_else)
{
	Verdict v;
	if (front() == or_else && or_else != 0)
		wanted = or_else;
	if (front() != wanted) {
		v.violation = true;
		return v;
	}
	const Entry e = entries_[head_];
	v.forward = !is_ours(e) && e.kind != kParameters;
	v.purpose = e.purpose;
	v.no_result = e.kind == kNoResult;
	v.answered = e.kind == kDeallocateExecute ? kDeallocateExecute : wanted;
	pop();
	drop_markers();
	return v;
}

Replies::Verdict Replies::error()
{
	Verdict v;
	if (empty())
		return v; // asynchronous: the server is about to close the connection
	// A Parse of ours stands for the client's, as does what asks about it: its error is the client's.
	v.forward = !front_is_ours() || front() == kNotedParse || front() == kShape;
	v.purpose = entries_[head_].purpose;
	if (copy_in_)
		end_copy(true);
	if (front() == kDeallocate) {
		v.voided = 1;
		settle_deallocate();
	}
	if (ends_in_ready(front()))
		return v;
	v.answered = front();
	// Query and FunctionCall in the pipeline, too: the backend skips by the next Sync, whatever stands before it.
	while (!empty() && front() != 'S') {
		v.voided += is_noted(entries_[head_].kind) || is_fake(front());
		v.unnamed_void |= is_unnamed(front());
		pop();
	}
	v.unnamed_void &= unnamed_ == 0; // unless there is another one behind
	// Its Sync has not been sent yet: all that is sent until then is discarded.
	skipping_ = empty();
	return v;
}

// Its note has been used: from here on it is any Query.
void Replies::settle_deallocate()
{
	executing_ += !front_is_ours();
	entries_[head_].kind = 'Q';
}

void Replies::start_copy()
{
	copy_in_ = true;
	copy_ending_ = false;
	dropped_sync_ = false;
	// Syncs that were sent behind the statement, up to the end of its data, are eaten by the copy.
	size_t kept = head_ + 1;
	size_t i = kept;
	for (; i < entries_.size() && type(entries_[i]) != kCopyEnd; i++) {
		if (type(entries_[i]) == 'S') {
			dropped_sync_ = true;
			rounds_--;
		} else if (type(entries_[i]) != kBadFlush) { // the copy eats that, too
			doubtful_ = true;
			entries_[kept++] = entries_[i];
		}
	}
	// The end of the data went before its beginning was known here: what is behind that is read as usual.
	copy_ending_ = i < entries_.size();
	entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(kept), entries_.begin() + static_cast<ptrdiff_t>(i));
	// The Sync of the pipeline was eaten: the backend waits for another one.
	if (front() == 'E' && dropped_sync_ && rounds_ == 0)
		unsynced_ = true;
}

void Replies::end_copy(bool failed)
{
	if (failed && dropped_sync_)
		doubtful_ = true;
	copy_in_ = false;
	copy_ending_ = false;
}

Replies::Verdict Replies::received(char type, char status)
{
	drop_markers();
	Verdict v;
	switch (type) {
	case '1':
		return front() == kUnnamedParse ? answer(kUnnamedParse) : answer('P', kNotedParse);
	case '2':
		return answer('B');
	case '3':
		return front() == kUnnamedClose ? answer(kUnnamedClose) : answer('C', kNotedClose);
	case 'n':
		return answer('D', kShape);
	case 'T':
		if (front() == 'D' || front() == kShape)
			return answer('D', kShape);
		break;
	case 's':
		return answer('E');
	case 'I':
		probe_seen_ |= probing_;
		[[fallthrough]];
	case 'C':
		if (copy_in_)
			end_copy(false);
		// In a Query a command tag completes one statement of several, so only ReadyForQuery ends it.
		if (front() == 'E')
			return answer('E');
		if (front() == kDeallocate) {
			v.answered = kDeallocate;
			settle_deallocate();
		}
		break;
	case 'G':
		start_copy();
		break;
	case 'E':
		return error();
	case 'Z':
		status_ = status;
		if (probing_ && !probe_seen_)
			return v; // of a Sync that the copy did not eat
		if (probing_) {
			probing_ = doubtful_ = false;
			was_doubtful_ = true;
		}
		if (!ends_in_ready(front())) {
			// In doubt, a further ReadyForQuery is one that a copy did not eat: it ends the skipping, too.
			v.violation = !doubtful_;
			skipping_ = false;
			if (empty())
				unsynced_ = false;
			return v;
		}
		v = answer(front());
		if (empty() && !skipping_)
			unsynced_ = false; // a Query ends what came before it as a Sync does
		if (at_rest())
			fresh_ = true;
		return v;
	case 'A':
	case 'N':
	case 'S':
		// Asynchronous ones belong to whomever the server works for, else to the client.
		break;
	default:
		break; // DataRow, CopyData and the like: part of the front's reply
	}
	// An error with nothing to come is a backend's last words. In doubt, the account may have dropped what this
	// answers.
	if (empty())
		v.violation = type != 'A' && type != 'N' && type != 'S' && type != 'E' && !doubtful_;
	else
		v.forward = !front_is_ours();
	return v;
}

bool Replies::round_is_ours() const
{
	for (size_t i = head_; i < entries_.size(); i++) {
		if (ends_in_ready(type(entries_[i])))
			return is_ours(entries_[i]);
	}
	return false;
}

bool Replies::fake_due() const
{
	return is_fake(front());
}

char Replies::take_fake()
{
	drop_markers();
	const char f = front();
	if (!fake_due())
		return 0;
	pop();
	return f == kFakeParse ? '1' : '3';
}

void Replies::probe()
{
	sent('Q', For::Probe);
	probing_ = true;
	probe_seen_ = false;
}

void Replies::disown(For purpose)
{
	for (size_t i = head_; i < entries_.size(); i++) {
		if (!is_ours(entries_[i]))
			entries_[i].purpose = purpose;
	}
	executing_ = 0; // what runs is nobody's
}

} // namespace pgpool::core
