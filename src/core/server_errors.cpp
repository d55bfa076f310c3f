// Errors of what was sent to a backend, and what a client is told in their place. See server.hpp.
//
// Some are pgpool's own in the form of one that the backend refuses; some name a shared statement; some mean that the
// batch can be served again unseen. Must not know how messages are read.
#include "core/server.hpp"

#include <utility>

#include "core/engine.hpp"
#include "core/pool_group.hpp"
#include "core/session.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

namespace
{

// Fields of ErrorResponse that no language changes. plancache.c, RevalidateCachedQuery(): "cached plan must not
// change result type".
bool is_stale_plan(std::string_view error)
{
	return proto::error_field(error, 'C') == "0A000" && proto::error_field(error, 'R') == "RevalidateCachedQuery";
}

// As PostgreSQL says it: drivers go by the routine (JDBC and postgres.js prepare anew and try again).
const std::string &stale_plan_error()
{
	static const std::string *const error = [] {
		auto *e = new std::string; // for good: nothing is to be destroyed at exit
		proto::Writer w(*e);
		w.begin('E').string("SERROR").string("VERROR").string("C0A000").string(
		    "Mcached plan must not change result type");
		w.string("Fplancache.c").string("RRevalidateCachedQuery").u8(0).end();
		return e;
	}();
	return *error;
}

// Whose error is looked at when it is over.
bool is_query_of_ours(For purpose)
{
	switch (purpose) {
	case For::Settings:
	case For::Setting:
	case For::Discard:
	case For::Handover:
	case For::Round:
		return true;
	default:
		return false;
	}
}

bool is_unknown_statement(std::string_view error)
{
	return proto::error_field(error, 'C') == "26000";
}

} // namespace

void ServerConn::set_refusal(const proto::Error &why)
{
	refusal_.clear();
	proto::append_error(refusal_, proto::Severity::Error, why);
}

// Describe of a stale statement is answered by ParameterDescription and then the error.
void ServerConn::withhold(std::string_view parameter_description)
{
	withheld_.clear();
	proto::Writer(withheld_).begin('t').bytes(parameter_description).end();
	withheld_due_ = true;
}

// Queues what goes to the client before a message of this type, or in its place.
void ServerConn::put_ours(char type, bool forward)
{
	const std::string *replacement = std::exchange(replacement_due_, nullptr);
	const bool due = (forward || replacement || type == 'E') && type != 't';
	const bool description = due && std::exchange(withheld_due_, false);
	if (!session_ || (!description && !replacement))
		return;
	if (description)
		session_->stream()->queue(withheld_.data(), withheld_.size());
	if (replacement)
		session_->stream()->queue(replacement->data(), replacement->size());
	session_->stream()->flush(); // the next of them may come at once, into the same memory
}

// An error of something that was sent.
void ServerConn::error(const Replies::Verdict &v, std::string_view body, bool &forward)
{
	notes_.make_void(v.voided, client_statements());
	if (is_query_of_ours(v.purpose))
		our_error_ = proto::read_error(body);
	if (!session_)
		return;
	if (v.unnamed_void)
		session_->on_unnamed_void();
	if (!v.forward)
		return;
	if (replay_.on() && start_over(v, body)) {
		forward = false;
		return;
	}
	if (v.answered == Replies::kStale) {
		forward = false;
		replacement_due_ = &stale_plan_error();
	} else if (v.answered == Replies::kRefused) {
		forward = false;
		replacement_due_ = &refusal_;
	}
	replay_.stop();
	const bool taken = v.answered == 'P' && proto::error_field(body, 'C') == "42P05";
	if ((taken || v.answered == 'B' || v.answered == 'D') && rename(body)) {
		forward = false;
		replacement_due_ = &replacement_;
	}
	bump(group_.counters().errors);
}

// Errors that name the statement (exec_bind_message() of postgres.c, prepare.c): no such one, taken, another number of
// parameters. The client is told its own name. In any other error a name of that form is a value of the client's.
// True: replacement_ is the message.
bool ServerConn::rename(std::string_view body)
{
	const std::string_view code = proto::error_field(body, 'C');
	if (code != "26000" && code != "42P05" && code != "08P01")
		return false;
	const std::string_view text = proto::error_field(body, 'M');
	size_t at = text.find(kStatementPrefix);
	const bool disguised = at == std::string_view::npos;
	if (disguised)
		at = text.find(kDisguisedPrefix);
	const bool whole = body.size() >= 2 && body.substr(body.size() - 2) == std::string_view("\0\0", 2);
	if (at == std::string_view::npos || !whole)
		return false;
	const std::string_view name =
	    text.substr(at, text.find_first_not_of("0123456789", at + kStatementPrefix.size()) - at);
	const std::string own = disguised
	                            ? std::string(kStatementPrefix) + std::string(name.substr(kStatementPrefix.size()))
	                            : session_->name_of(name);
	replacement_.clear();
	proto::Writer w(replacement_);
	w.begin('E').bytes(body.substr(0, static_cast<size_t>(text.data() - body.data()) + at)).bytes(own);
	w.bytes(body.substr(static_cast<size_t>(name.data() + name.size() - body.data()))).end();
	return true;
}

// The backend refused the shared statement that the batch began with, or we did. True: the batch will be served
// again, and the client hears nothing of it.
bool ServerConn::start_over(const Replies::Verdict &v, std::string_view error)
{
	const bool refused = v.answered == Replies::kStale;
	const bool lost = is_unknown_statement(error);
	const bool stale = refused || is_stale_plan(error);
	replay_.statement()->suspect |= stale && !refused;
	if ((!lost && !(stale && replay_.takes_any_columns())) || session_->mid_message() || session_->leaving_ ||
	    !(replies_.empty() || replies_.only_sync()) || !session_->start_over(replay_.bytes()))
		return false;
	StatementStore &store = group_.engine().statements();
	if (!refused)
		replay_.statement()->valid_since = store.advance();
	if (lost)
		statements_.distrust(store.clock());
	if (stale) // it will be told the columns as they are; the types of its parameters stay
		session_->statements().forget_columns(replay_.name());
	if (replies_.empty())
		send_sync(For::Replay);
	else
		replies_.disown(For::Replay);
	withheld_due_ = false;
	replay_.stop();
	return true;
}

} // namespace pgpool::core
