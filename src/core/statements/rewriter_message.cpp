// What prepares: Parse, and DEALLOCATE and DISCARD in a Query. See rewriter_message.hpp; what is used, and Close, are
// in rewriter_use.cpp.
#include "core/statements/rewriter_message.hpp"

#include <algorithm>

#include "core/statements/sql_command.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

Verdict StatementRewriter::rewrite(BackendStatements &backend, const Message &m, std::string &out, Taken &taken)
{
	// A header with nothing behind it: the server will say what it thinks of it.
	if (m.total == proto::kHeaderSize)
		return Verdict::Verbatim;
	// The server refuses it, too, and ends the copy.
	if (backend.replies().wants_copy_data())
		return Verdict::Verbatim;
	if (m.have == proto::kHeaderSize)
		return Verdict::More;
	if (m.type() == 'Q') {
		const std::string_view text(m.at + proto::kHeaderSize, std::min(m.have, m.total) - proto::kHeaderSize);
		if (naming_ == Naming::Session || !may_be_sql_command(text))
			return Verdict::Verbatim;
	}
	backend.notes().note_batch(backend.replies().batch());
	Rewriting message(*this, backend, m, out, taken);
	const Verdict verdict = m.type() == 'Q'   ? message.query()
	                        : m.type() == 'P' ? message.parse()
	                        : m.type() == 'B' ? message.bind()
	                                          : message.describe_or_close();
	if (verdict == Verdict::Settle)
		waits_ = own_->awaited > 0 ? Waits::Replies : Waits::Round;
	return verdict;
}

// DEALLOCATE of a name that is the client's alone: the backend deallocates another one, which comes and goes
// with it, and so gives PostgreSQL's answer in any state of the transaction.
Verdict StatementRewriter::Rewriting::query()
{
	std::string_view body(message_.at + proto::kHeaderSize,
	                      std::min(message_.have, message_.total) - proto::kHeaderSize);
	std::string_view text;
	if (message_.have < message_.total)
		return message_.total <= kChunk ? Verdict::More : Verdict::Verbatim;
	if (!take_string(body, text) || replies_.skipping())
		return Verdict::Verbatim;
	const SqlCommand command = read_sql_command(text);
	if (command.kind == SqlCommand::DeallocateAll || command.kind == SqlCommand::DiscardAll) {
		// It may fail, and it may be one of several: all names wait until the answer to this very message is here.
		own_.in_doubt = replies_.sent_so_far() + 1;
		return Verdict::Verbatim;
	}
	if (command.kind != SqlCommand::Deallocate || !command.alone)
		return Verdict::Verbatim;
	if (unsettled(command.name))
		return Verdict::Settle;
	if (!own_.names.find(command.name))
		return Verdict::Verbatim;
	send_deallocate_target();
	proto::append_query(out_, kDeallocateTarget);
	taken_.used = message_.total;
	replies_.sent(Replies::kDeallocate);
	notes_.add(OnServer::Nothing, nullptr, command.name, own_.names.set(command.name, {}));
	own_.forget_unnamed();
	return Verdict::Done;
}

void StatementRewriter::Rewriting::send_deallocate_target()
{
	put_close(out_, kScratch);
	replies_.sent('C', For::Statement);
	put_parse(out_, kScratch, std::string_view("\0\0\0", 3));
	replies_.sent('P', For::Statement);
}

// The shared statement that serves an unnamed Parse; nullptr: the server's own unnamed one does.
Statement *StatementRewriter::Rewriting::intern_unnamed(std::string_view body)
{
	// What is at work may change how a text is read. A named statement goes by a copy of its own then (intern()); one
	// that is used once is not worth it.
	if (replies_.executing())
		return nullptr;
	switch (pool_.cache_unnamed()) {
	case region::CacheUnnamed::Generic:
		return store_.intern_again(body, backend_.reading());
	case region::CacheUnnamed::Custom:
		if (backend_.plans_for_parameters())
			return as_custom(store_.intern_again(body, backend_.reading() + kCustom));
		break;
	case region::CacheUnnamed::Off:
		break;
	}
	return nullptr;
}

Verdict StatementRewriter::Rewriting::unnamed_parse(std::string_view body, bool is_short)
{
	std::string_view text, types = body;
	if (replies_.skipping())
		return Verdict::Verbatim; // nothing changes
	if (!is_short || !take_string(types, text)) {
		prepare_unnamed_raw(is_short ? body : std::string_view());
		return Verdict::Verbatim;
	}
	const SqlCommand command = may_be_sql_command(text) ? read_sql_command(text) : SqlCommand();
	const bool deallocates = command.kind == SqlCommand::Deallocate && command.alone;
	if (deallocates && unsettled(command.name))
		return Verdict::Settle;
	if (deallocates && own_.names.find(command.name)) {
		send_deallocate_target();
		std::string deallocate(kDeallocateTarget);
		deallocate.append(1, '\0').append(types);
		put_parse(out_, "", deallocate);
		replies_.sent(Replies::kUnnamedParse);
		prepare_unnamed_raw(body);
		own_.unnamed.deallocates = command.name;
		return Verdict::Done;
	}
	Statement *s = intern_unnamed(body);
	if (!s) {
		prepare_unnamed_raw(body);
		return Verdict::Verbatim;
	}
	const Verdict verdict = prepare("", s);
	store_.release(s);
	return verdict;
}

// `body` is empty when it is too long to remember.
void StatementRewriter::Rewriting::prepare_unnamed_raw(std::string_view body)
{
	own_.forget_unnamed();
	own_.unnamed.text = body;
	own_.unnamed.waits = body.empty();
	own_.unnamed.batch = replies_.batch();
	own_.unnamed.at = backend_.assignment();
}

Verdict StatementRewriter::Rewriting::parse()
{
	const char *name_at = message_.at + proto::kHeaderSize;
	std::string_view body(name_at, std::min(message_.have, message_.total) - proto::kHeaderSize);
	std::string_view name;
	if (rewriter_.naming_ == Naming::Session) {
		if (*name_at == '\0')
			prepare_unnamed_raw({});
		return message_.have < std::min(message_.total, proto::kHeaderSize + kStatementPrefix.size())
		           ? Verdict::More
		           : Verdict::Verbatim;
	}
	if (*name_at == '\0') {
		const bool is_short = message_.total <= kChunk; // and not whether a long one happens to be all at hand
		if (message_.have < message_.total && is_short)
			return Verdict::More; // whole, so that it can be remembered
		taken_.used = message_.total;
		return unnamed_parse(body.substr(1), is_short);
	}
	if (message_.have < message_.total &&
	    (message_.total <= kMostStatement || message_.have < proto::kHeaderSize + kStatementPrefix.size())) {
		taken_.needed = message_.total <= kMostStatement ? static_cast<uint32_t>(message_.total) : 0;
		return Verdict::More;
	}
	const bool has_name = take_string(body, name);
	if (has_name && unsettled(name))
		return Verdict::Settle;
	if (has_name && own_.names.find(name)) {
		// The backend shall say that the name is taken: give it one of that name.
		const std::string its_name = sent_name(name);
		put_parse(out_, its_name, std::string_view("\0\0\0", 3));
		replies_.sent('P', For::Statement);
		if (own_.cleanup.empty()) // behind the first one the backend skips
			own_.cleanup = its_name;
		return Verdict::Verbatim;
	}
	// From the first one on that goes under the client's own name all do, or none would know of the other.
	if (message_.total > kMostStatement || !has_name)
		rewriter_.naming_ = Naming::Own;
	if (rewriter_.uses_own_names())
		return Verdict::Verbatim;
	taken_.used = message_.total;
	// The backend would throw it away: the client's name must not change, and nothing needs be sent.
	if (replies_.skipping())
		return Verdict::Done;
	if (!rewriter_.has_room_for(pool_, body))
		return refuse_another();
	Statement *s = intern(body);
	const Verdict verdict = prepare(name, s);
	store_.release(s);
	return verdict;
}

// What is at work may change settings that decide what the text means.
Statement *StatementRewriter::Rewriting::intern(std::string_view body)
{
	return replies_.executing() ? store_.intern_alone(body) : store_.intern(body, backend_.reading());
}

// The backend refuses something in our stead, so that transaction and pipeline end as after any error.
Verdict StatementRewriter::Rewriting::refuse_another()
{
	const region::Settings &settings = pool_.limits();
	proto::Error why{"53400", "too many prepared statements", "", ""};
	why.detail = "The client has " + std::to_string(own_.names.size()) + " prepared statements of " +
	             std::to_string(own_.names.bytes()) + " bytes.";
	why.hint = "Close statements that are not needed, or raise ";
	if (own_.names.size() >= static_cast<size_t>(settings.max_client_statements))
		why.hint += "pgpool.max_client_statements, now " + std::to_string(settings.max_client_statements) + ".";
	else
		why.hint += "pgpool.client_statement_memory, now " + std::to_string(settings.client_statement_memory) + " kB.";
	put_unparsable(out_, why.message);
	backend_.set_refusal(why);
	replies_.sent(Replies::kRefused);
	return Verdict::Done;
}

// The client's `name` ("" = the unnamed statement) becomes `s`, and its Parse is answered.
Verdict StatementRewriter::Rewriting::prepare(std::string_view name, Statement *s)
{
	pool_.renew_if_changed(s);
	const Has has = table_.has(s, replies_.batch());
	if (has == Has::Unsettled)
		return Verdict::Settle;
	if (name.empty())
		own_.forget_unnamed();
	const Meaning before = own_.names.set(name, {StatementStore::keep(s), {}, own_.batch});
	own_.unnamed.in_names |= name.empty();
	// In a failed transaction most statements are refused, which only the backend can judge; what is at work may
	// fail, or change the catalog.
	const bool open_question = replies_.status() == 'E' || replies_.round_outstanding() || replies_.executing();
	// An answer of ours would say "prepared" where PostgreSQL might say no; so the backend parses it, too.
	const bool renew = has == Has::Outdated || (has == Has::Yes && open_question);
	if (has == Has::No || renew) {
		send_parse(s, renew, For::Client);
		notes_.add(OnServer::Parse, s, name, before);
		ask_shape(s, &name);
	} else {
		replies_.sent(Replies::kFakeParse);
		notes_.add(OnServer::Nothing, s, name, before);
		bump(pool_.counters().statement_hits);
		s->hits++;
	}
	return Verdict::Done;
}

// The caller adds the note, and asks for the columns.
void StatementRewriter::Rewriting::send_parse(Statement *s, bool renew, For purpose)
{
	if (renew) {
		put_close(out_, s->name);
		replies_.sent(Replies::kNotedClose, For::Statement);
		notes_.add(OnServer::Close, s);
		table_.closing(s, replies_.batch());
	} else {
		// Before the Parse, not after it: the backend never has more than it may.
		backend_.close_surplus(backend_.most() - 1, out_); // the least recently used ones make room
	}
	if (s->custom)
		backend_.plan_for_parameters(s);
	put_parse(out_, s->name, s->body);
	replies_.sent(Replies::kNotedParse, purpose);
	table_.parsing(s, replies_.batch(), store_.clock());
	bump(pool_.counters().statement_parses);
	s->parses++;
}

// Behind its Parse: what those are told who prepare it now.
void StatementRewriter::Rewriting::ask_shape(Statement *s, const std::string_view *name)
{
	proto::Writer(out_).begin('D').u8('S').string(s->name).end();
	replies_.sent(Replies::kShape, For::Statement);
	notes_.add_shape(s, name);
}

// A meaning of `name` that only replies to earlier messages will tell.
bool StatementRewriter::Rewriting::unsettled(std::string_view name)
{
	// The command may be skipped behind an error, and then there is no ReadyForQuery to wait for.
	if (!replies_.done_up_to(own_.in_doubt)) {
		own_.awaited = own_.in_doubt;
		return true;
	}
	return notes_.unsettled(name, replies_.batch());
}

} // namespace pgpool::core
