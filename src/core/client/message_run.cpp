// See message_run.hpp.
#include "core/client/message_run.hpp"

#include <algorithm>

#include "core/server/server.hpp"
#include "proto/bytes.hpp"
#include "proto/frontend.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

using Verdict = StatementRewriter::Verdict;

constexpr size_t kMostRewritten = 4 * kChunk; // in one turn: a few bytes may stand for a long statement

bool may_name_statement(char type, uint32_t length)
{
	return type == 'P' || type == 'B' || type == 'D' || type == 'C' || (type == 'Q' && length > 5);
}

} // namespace

MessageRun::MessageRun(ServerConn &server, ClientInput &input, StatementRewriter &statements, ClientTally &tally,
                       std::string &copy, std::string_view bytes)
    : server_(server), backend_(server.statements()), input_(input), statements_(statements), tally_(tally),
      copy_(copy), start_(bytes.data()), end_(start_ + bytes.size()), at_(start_), run_(start_), replay_from_(start_)
{
	copy_.clear();
}

// For a copy of what came, rewritten: names, and a message of ours, are all that is added.
bool MessageRun::has_room()
{
	return proto::try_reserve(copy_, copy_.size() + static_cast<size_t>(end_ - run_) + 1024);
}

void MessageRun::copy_to(const char *to)
{
	copy_.append(run_, static_cast<size_t>(to - run_));
	run_ = to;
}

// The order matters: Terminate is seen whatever the backend has to do, or a client that leaves would be held by it, but
// not before the batch that it stands behind cannot have to be served again; and the rewriter is asked last, for with
// waits_behind() it begins to wait, and who has no turn must not wait for two things.
MessageRun::Stop MessageRun::go(uint32_t most)
{
	uint32_t messages = 0;
	while (at_ < end_) {
		if (server_.settings().has_much_unproved()) // what may have to be sent again is no more than so much
			return Stop::Enough;
		if (input_.mid_message()) {
			at_ += input_.go_on(have());
			continue;
		}
		if (have() < proto::kHeaderSize)
			break;
		const char type = *at_;
		const uint32_t length = proto::load32(at_ + 1);
		const bool is_small = proto::is_frontend_type(type) && length >= 4 && length - 4 <= proto::kMaxSmallMessage;
		if (!is_small && !proto::is_frontend(type, length))
			return Stop::Impossible;
		const size_t total = size_t{length} + 1;
		if (type == 'X') {
			if (statements_.waits_behind(backend_))
				break;
			// Another server may have to run it all, and then there is this to be read.
			if (server_.settings().unproved())
				server_.settings().keep_unproved({start_, static_cast<size_t>(at_ - start_) + std::min(have(), total)});
			return Stop::Terminate;
		}
		if (server_.has_enough())
			return Stop::Enough;
		if (copy_.size() > kMostRewritten || messages++ >= most)
			return Stop::Turn;
		if (statements_.waits_behind(backend_))
			break;
		const StatementRewriter::Message message{at_, have(), total};
		if (may_name_statement(type, length)) {
			if (!has_room())
				return Stop::NoMemory;
			const Verdict verdict = rewrite(message);
			if (verdict == Verdict::Done)
				continue;
			if (verdict != Verdict::Verbatim)
				break;
		}
		if (type == 'E' && have() == proto::kHeaderSize && total > have())
			break; // which portal?
		statements_.account(backend_, message);
		tally_.on_sent(type);
		const size_t n = std::min(total, have());
		at_ += n;
		input_.begin(total, n);
		if (type == 'S' && statements_.has_cleanup()) {
			copy_to(at_);
			statements_.clean_up(backend_, copy_);
		}
	}
	return Stop::Through;
}

// What stands before the message is in the copy before the rewriter adds to it, and is taken back when it did not.
Verdict MessageRun::rewrite(const StatementRewriter::Message &message)
{
	StatementRewriter::Taken taken;
	const size_t mark = copy_.size();
	const bool replayed = backend_.replay().on();
	copy_.append(run_, static_cast<size_t>(at_ - run_));
	const Verdict verdict = statements_.rewrite(backend_, message, copy_, taken);
	if (!replayed && backend_.replay().on())
		replay_from_ = at_;
	if (verdict == Verdict::Done) {
		tally_.on_sent(message.type());
		at_ += taken.used;
		input_.begin(message.total, taken.used);
		run_ = at_;
		return verdict;
	}
	if (copy_.size() == mark + static_cast<size_t>(at_ - run_))
		copy_.resize(mark);
	else
		run_ = at_; // something went before it
	if (verdict == Verdict::More)
		input_.need(taken.needed);
	if (verdict == Verdict::Verbatim) {
		if (const size_t at = StatementRewriter::name_to_disguise(message)) {
			copy_to(at_ + at);
			copy_.append(kDisguisedPrefix.substr(0, 1));
			run_++;
		}
	}
	return verdict;
}

proto::Error MessageRun::refusal() const
{
	return proto::refuse_frontend(*at_, proto::load32(at_ + 1));
}

void MessageRun::remember()
{
	if (server_.settings().unproved())
		server_.settings().keep_unproved({start_, static_cast<size_t>(at_ - start_)});
	if (backend_.replay().on())
		backend_.replay().add({replay_from_, static_cast<size_t>(at_ - replay_from_)});
}

void MessageRun::ask_for_replies()
{
	if (input_.mid_message() || !server_.replies().unsynced())
		return;
	copy_to(at_);
	proto::Writer(copy_).begin('H').end();
}

} // namespace pgpool::core
