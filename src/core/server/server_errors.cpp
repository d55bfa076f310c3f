// Errors of what was sent to a backend, and what its client gets in place of a message. See server.hpp.
//
// What an error means for statements, BackendStatements knows. Must not know how messages are read.
#include "core/server/server.hpp"

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

namespace
{

// Whose error is looked at when it is over.
bool is_query_of_ours(For purpose)
{
	switch (purpose) {
	case For::Settings:
	case For::Setting:
	case For::Discard:
	case For::Handover:
	case For::Round:
	case For::Position:
	case For::Begin:
		return true;
	default:
		return false;
	}
}

} // namespace

// Queues what goes to the client before a message of this type, or in its place.
void ServerConn::put_ours(char type, bool forward)
{
	const Substitute::Due due = substitute_.take(type, forward);
	if (!client_.stream || (!due.before && !due.instead))
		return;
	for (const std::string *message : {due.before, due.instead}) {
		if (message)
			client_.stream->queue(message->data(), message->size());
	}
	client_.stream->flush(); // the next of them may come at once, into the same memory
}

// An error of something that was sent.
void ServerConn::error(const Replies::Verdict &v, std::string_view body, bool &forward)
{
	statements_.make_void(v, client_statements());
	if (is_query_of_ours(v.purpose))
		our_error_ = proto::read_error(body);
	if (!user_ || !v.forward)
		return;
	if (start_over(v, body)) {
		forward = false;
		return;
	}
	if (statements_.replace_error(v, body, *client_statements()))
		forward = false;
	bump(group_.counters().errors);
}

// True: the batch will be served again, and the client hears nothing of it.
bool ServerConn::start_over(const Replies::Verdict &v, std::string_view error)
{
	if (!statements_.may_start_over(v, error) ||
	    !user_->start_over(statements_.replay().bytes(), proto::error_field(error, 'C')))
		return false;
	if (on_node())
		group_.context().nodes().count_fallback(node_of(target()), Fallback::Refused);
	statements_.start_over(v, error, *client_statements());
	if (replies_.empty())
		send_sync(For::Replay);
	else
		replies_.disown(For::Replay);
	return true;
}

} // namespace pgpool::core
