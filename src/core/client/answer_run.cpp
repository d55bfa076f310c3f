// See answer_run.hpp.
#include "core/client/answer_run.hpp"

#include "core/pool/pool_group.hpp"
#include "proto/frontend.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kMostAnswers = 4096; // bytes that are sent together

} // namespace

AnswerRun::Stop AnswerRun::go(uint32_t most)
{
	while (at_ < end_) {
		if (input_.dropping()) {
			at_ += input_.drop_some(have());
			continue;
		}
		if (have() < proto::kHeaderSize)
			return Stop::Through;
		const char type = *at_;
		const uint32_t length = proto::load32(at_ + 1);
		if (!proto::is_frontend(type, length))
			return Stop::Impossible;
		if (type == 'X')
			return Stop::Terminate;
		if (answers_.size() >= kMostAnswers)
			return Stop::Answers;
		if (messages_++ >= most)
			return Stop::Turn;
		if (type == 'S') {
			input_.skip_to_sync(false);
			statements_.batch_ended();
			if (length != 4)
				proto::append_error(answers_, proto::Severity::Error,
				                    {proto::sqlstate::kProtocolViolation, "invalid message format", "", ""});
			proto::append_ready(answers_, 'I');
			input_.drop(length + 1);
		} else if (input_.skipping() || (type == 'H' && length == 4) || type == 'd' || type == 'c' || type == 'f') {
			input_.drop(length + 1);
		} else {
			const size_t total = size_t{length} + 1;
			if (have() < total)
				return have() >= kChunk ? Stop::Server : Stop::Through;
			if ((type != 'P' && type != 'C') || !answer_statement(total))
				return Stop::Server;
			at_ += total;
		}
	}
	return Stop::Through;
}

bool AnswerRun::answer_statement(size_t total)
{
	auto has_prepared = [this](Statement *s, Shape &shape) { return group_.has_prepared(s, shape); };
	return statements_.answer(group_.statements(), params_, {at_, total, total}, answers_, has_prepared);
}

proto::Error AnswerRun::refusal() const
{
	return proto::refuse_frontend(*at_, proto::load32(at_ + 1));
}

} // namespace pgpool::core
