// What uses a statement: Bind and Describe; and Close. See rewriter_message.hpp.
#include "core/statements/rewriter_message.hpp"

#include <algorithm>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

// What the unnamed statement is on this server: the one that it holds itself (nullptr), or a shared one.
Statement *StatementRewriter::Rewriting::use_unnamed(const ClientStatements::Item *item)
{
	own_.unnamed.waits = false;
	// From the best known to the least: shared under the name ""; this very backend has the client's own one; its text
	// is remembered and shared now; nothing, and then nothing must be there either.
	if (own_.unnamed.in_names && item)
		return item->statement;
	if (own_.unnamed.at == backend_.assignment())
		return nullptr;
	if (!own_.unnamed.text.empty())
		own_.share_unnamed(backend_.reading());
	if (own_.unnamed.shared)
		return own_.unnamed.shared;
	// Another client's may stand there: it must not be taken for ours.
	put_close(out_, "");
	if (replies_.sent(Replies::kUnnamedClose, For::Statement)) {
		own_.unnamed.at = backend_.assignment();
		own_.unnamed.batch = replies_.batch();
	}
	return nullptr;
}

// What Bind and Describe of `name` must say to the backend. Verbatim: it knows that under the client's own name.
Verdict StatementRewriter::Rewriting::resolve(std::string_view name, Use &use)
{
	// A Parse of an earlier batch may be skipped: then another client's statement may stand there.
	if (name.empty() && replies_.unnamed_outstanding() && own_.unnamed.batch != replies_.batch())
		return Verdict::Settle;
	use.item = own_.names.item(name);
	use.statement = name.empty() ? use_unnamed(use.item) : use.item ? use.item->statement : nullptr;
	if (!use.statement && (name.empty() || rewriter_.uses_own_names()))
		return Verdict::Verbatim;
	if (!name.empty() && unsettled(name))
		return Verdict::Settle;
	const Verdict verdict = use.statement ? use_statement(name, use) : Verdict::Done;
	if (!use.statement)
		use.disguised = sent_name(name);
	use.name = use.statement ? use.statement->name : use.disguised;
	return verdict;
}

// What the statement is on this server, and what it looks like there or would if it were parsed there now.
void StatementRewriter::Rewriting::look(Use &use)
{
	const ServerStatements::There there = table_.look(use.statement, replies_.batch());
	use.has = there.has;
	use.now = there.has == Has::Yes && there.shape.known() ? there.shape : pool_.shape_of(use.statement);
}

// The statement becomes the one that has the types that `name` was told.
Verdict StatementRewriter::Rewriting::use_statement(std::string_view name, Use &use)
{
	if (replies_.skipping())
		return Verdict::Done;
	look(use);
	// In a failed transaction it is refused for another reason.
	const Shape expected = replies_.status() == 'E' || !use.item ? Shape{} : use.item->shape;
	// A driver encodes parameters by the types that it was told. Where the backend would read them by others, the text
	// with those types is another statement.
	const bool others = expected.types != 0 && use.now.known() && use.now.types != expected.types;
	if (use.has != Has::Unsettled && others) {
		keep_types(name, use, expected);
		look(use);
	}
	Statement *s = use.statement;
	// What the server has may be from before a change of the catalog that undid the one since the client prepared it.
	if (use.has == Has::Yes && expected.known() && !s->looks_up && use.now.known() &&
	    use.now.columns != expected.columns) {
		pool_.renew_if_changed(s);
		look(use);
	}
	if (use.has == Has::Unsettled)
		return Verdict::Settle;
	// The client goes by columns, and nobody knows those of today: a Bind would run what it should perhaps be refused.
	// EXECUTE and FETCH (looks_up) have the columns of something else, which PostgreSQL does not compare either.
	const bool ask = expected.types != 0 && !s->looks_up && !use.now.known();
	if (use.has == Has::Yes && !ask) {
		bump(pool_.counters().statement_hits);
		s->hits++;
	} else {
		send_parse(s, use.has != Has::No, For::Statement);
		notes_.add(OnServer::Parse, s);
		ask_shape(s, expected.known() ? nullptr : &name);
	}
	if (ask) {
		await_shape();
		return Verdict::Settle;
	}
	const bool forgotten = use.now.known() && use.now.types != expected.types; // the types, after many others
	if (expected.known() && ((!s->looks_up && use.now.columns != expected.columns) || forgotten)) {
		refuse_columns(use, name);
		return Verdict::Done;
	}
	// Only what the backend had can turn out stale or lost; a Parse in front of it is of today. And only with nothing
	// of the client's before it, for that would run a second time.
	if (use.has == Has::Yes) {
		if (!expected.known() && use.item)
			use.item->learn(s, use.now);
		if (replies_.fresh())
			backend_.replay().begin(s, name, just_prepared(use), replies_);
	}
	return Verdict::Done;
}

// By the batch that uses it.
bool StatementRewriter::Rewriting::just_prepared(const Use &use) const
{
	return use.item && use.item->batch == own_.batch;
}

// The text has parameters of other types now than `name` was told, which keeps its own.
void StatementRewriter::Rewriting::keep_types(std::string_view name, Use &use, const Shape &expected)
{
	Statement *typed = store_.with_types(use.statement, expected.types);
	if (!typed)
		return;
	store_.release(own_.names.set(name, {typed, expected, use.item->batch}).statement);
	use.statement = typed;
	use.item = own_.names.item(name);
}

// The client goes by columns that are no more, and the backend, which has the statement from a later time, would not
// notice. Who has prepared it in this batch goes by none yet, however long it waited for the server.
void StatementRewriter::Rewriting::refuse_columns(const Use &use, std::string_view name)
{
	const Statement *s = use.statement;
	if (replies_.fresh())
		backend_.replay().begin(use.statement, name, just_prepared(use), replies_);
	if (message_.type() == 'D') {
		proto::Writer(out_).begin('D').u8('S').string(s->name).end();
		replies_.sent(Replies::kParameters);
	}
	put_unparsable(out_, "cached plan must not change result type");
	replies_.sent(Replies::kStale);
}

// The backend is asked what a statement's result looks like now: what uses it waits, and all behind it.
void StatementRewriter::Rewriting::await_shape()
{
	proto::Writer(out_).begin('H').end();
	replies_.sent('H');
	own_.awaited = replies_.sent_so_far();
}

Verdict StatementRewriter::Rewriting::bind()
{
	std::string_view body(message_.at + proto::kHeaderSize,
	                      std::min(message_.have, message_.total) - proto::kHeaderSize);
	const size_t whole = body.size();
	std::string_view portal, name;
	if (!take_string(body, portal) || !take_string(body, name)) {
		const size_t enough =
		    std::min(message_.total, kMostStatement); // for the longest name of a statement that is shared
		taken_.needed = static_cast<uint32_t>(enough);
		return message_.have < enough ? Verdict::More : Verdict::Verbatim;
	}
	Use use;
	const Verdict verdict = resolve(name, use);
	if (verdict == Verdict::Verbatim)
		own_.unnamed_portal.begins = false;
	if (portal.empty()) {
		own_.unnamed_portal.deallocates.clear();
		if (verdict == Verdict::Verbatim && name.empty())
			own_.unnamed_portal.deallocates = own_.unnamed.deallocates;
	}
	if (verdict != Verdict::Done)
		return verdict;
	if (portal.empty())
		own_.unnamed_portal.begins = use.statement && use.statement->begins;
	if (use.statement) {
		bump(pool_.counters().statement_uses);
		use.statement->uses++;
	}
	const size_t names = whole - body.size();
	taken_.used = proto::kHeaderSize + names;
	out_ += 'B';
	char length[4];
	proto::store32(length, static_cast<uint32_t>(message_.total - 1 - name.size() + use.name.size()));
	out_.append(length, 4);
	out_.append(portal).push_back('\0');
	out_.append(use.name).push_back('\0');
	replies_.sent('B');
	return Verdict::Done;
}

Verdict StatementRewriter::Rewriting::describe_or_close()
{
	if (message_.at[proto::kHeaderSize] != 'S')
		return Verdict::Verbatim;
	if (message_.have < message_.total)
		return Verdict::More;
	std::string_view body(message_.at + proto::kHeaderSize + 1, message_.total - proto::kHeaderSize - 1);
	std::string_view name;
	if (!take_string(body, name) || !body.empty())
		return Verdict::Verbatim;
	taken_.used = message_.total;
	if (message_.type() == 'D') {
		Use use;
		const bool waits = own_.unnamed.waits;
		const Verdict verdict = resolve(name, use);
		own_.unnamed.waits = waits; // to describe it is not to use it
		if (verdict == Verdict::Done) {
			proto::Writer(out_).begin('D').u8('S').string(use.name).end();
			const Statement *s = use.statement;
			const bool none = s && s->looks_up && use.item && use.item->shape.columns == kNoColumns;
			replies_.sent(none ? Replies::kNoResult : 'D');
		}
		return verdict;
	}
	if (name.empty() && !replies_.skipping())
		own_.forget_unnamed();
	// Under own names the backend knows those that were prepared since; older ones are shared still.
	if (name.empty() || (rewriter_.uses_own_names() && !own_.names.find(name)))
		return Verdict::Verbatim;
	if (unsettled(name))
		return Verdict::Settle;
	if (!replies_.skipping()) {
		const Meaning before = own_.names.set(name, {});
		// What is at work may turn out to be a copy, which any message but its data ends: the backend must get one.
		if (replies_.executing())
			put_close(out_, kNowhere);
		replies_.sent(replies_.executing() ? Replies::kNotedClose : Replies::kFakeClose);
		notes_.add(OnServer::Nothing, nullptr, name, before);
	}
	return Verdict::Done;
}

} // namespace pgpool::core
