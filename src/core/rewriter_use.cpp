// What uses a statement: Bind and Describe; and Close. See rewriter_message.hpp.
#include "core/rewriter_message.hpp"

#include <algorithm>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

// What the unnamed statement is on this server: the one that it holds itself (nullptr), or a shared one.
Statement *StatementRewriter::Rewriting::use_unnamed()
{
	own_.unnamed.waits = false;
	if (own_.unnamed.in_names) {
		if (Statement *s = own_.names.find(""))
			return s;
	}
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

// What Bind and Describe of `name` must say to the backend: `s` is the shared statement, which the backend then
// has, or nullptr when it is to refuse `server_name`. Verbatim: the backend knows it under the client's own name.
Verdict StatementRewriter::Rewriting::resolve(std::string_view name, Statement *&s, std::string &server_name)
{
	// A Parse of an earlier batch may be skipped: then another client's statement may stand there.
	if (name.empty() && replies_.unnamed_outstanding() && own_.unnamed.batch != replies_.batch())
		return Verdict::Settle;
	s = name.empty() ? use_unnamed() : own_.names.find(name);
	if (!s && (name.empty() || rewriter_.uses_own_names()))
		return Verdict::Verbatim;
	if (!name.empty() && unsettled(name))
		return Verdict::Settle;
	const Verdict verdict = s ? use_statement(name, s) : Verdict::Done;
	server_name = s ? s->name : sent_name(name);
	return verdict;
}

// `s` becomes the statement that has the types that `name` was told.
Verdict StatementRewriter::Rewriting::use_statement(std::string_view name, Statement *&s)
{
	if (replies_.skipping())
		return Verdict::Done;
	Has has = table_.has(s, replies_.batch());
	// In a failed transaction it is refused for another reason.
	const Shape expected = replies_.status() == 'E' ? Shape{} : own_.names.shape(name);
	Shape now = shape_now(s, has == Has::Yes);
	if (has != Has::Unsettled && expected.types != 0 && now.known() && now.types != expected.types) {
		s = with_types_of(name, s, expected);
		has = table_.has(s, replies_.batch());
		now = shape_now(s, has == Has::Yes);
	}
	// What the server has may be from before a change of the catalog that undid the one since the client prepared it.
	if (has == Has::Yes && expected.known() && !s->looks_up && now.known() && now.columns != expected.columns) {
		pool_.renew_if_changed(s);
		has = table_.has(s, replies_.batch());
		now = shape_now(s, has == Has::Yes);
	}
	if (has == Has::Unsettled)
		return Verdict::Settle;
	const bool ask = expected.types != 0 && !s->looks_up && !now.known();
	if (has == Has::Yes && !ask) {
		bump(pool_.counters().statement_hits);
		s->hits++;
	} else {
		send_parse(s, has != Has::No, For::Statement);
		notes_.add(OnServer::Parse, s);
		ask_shape(s, expected.known() ? nullptr : &name);
	}
	if (ask) {
		await_shape();
		return Verdict::Settle;
	}
	const bool forgotten = now.known() && now.types != expected.types; // the types, after many others
	if (expected.known() && ((!s->looks_up && now.columns != expected.columns) || forgotten)) {
		refuse_columns(s, name);
		return Verdict::Done;
	}
	if (has == Has::Yes) {
		if (!expected.known())
			own_.names.set_shape(name, s, now);
		if (replies_.fresh())
			backend_.replay().begin(s, name, own_.prepared == s);
	}
	return Verdict::Done;
}

// What `s` looks like on this server, or would if it were parsed there now; not known: it must be asked.
Shape StatementRewriter::Rewriting::shape_now(const Statement *s, bool is_there)
{
	const Shape told = is_there ? table_.shape(s) : Shape{};
	return told.known() ? told : pool_.shape_of(s);
}

// The text of `s` has parameters of other types now than `name` was told, which keeps its own.
Statement *StatementRewriter::Rewriting::with_types_of(std::string_view name, Statement *s, const Shape &expected)
{
	Statement *typed = store_.with_types(s, expected.types);
	if (!typed)
		return s;
	store_.release(own_.names.set(name, {typed, expected}).statement);
	return typed;
}

// The client goes by columns that are no more, and the backend, which has the statement from a later time, would not
// notice.
void StatementRewriter::Rewriting::refuse_columns(Statement *s, std::string_view name)
{
	if (replies_.fresh())
		backend_.replay().begin(s, name, false);
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
	Statement *s;
	std::string server_name;
	const Verdict verdict = resolve(name, s, server_name);
	if (verdict == Verdict::Verbatim)
		own_.unnamed_portal.begins = false;
	if (portal.empty())
		own_.unnamed_portal.deallocates =
		    verdict == Verdict::Verbatim && name.empty() ? own_.unnamed.deallocates : std::string();
	if (verdict != Verdict::Done)
		return verdict;
	if (portal.empty())
		own_.unnamed_portal.begins = s && s->begins;
	if (s) {
		bump(pool_.counters().statement_uses);
		s->uses++;
	}
	const size_t names = whole - body.size();
	taken_.used = proto::kHeaderSize + names;
	out_ += 'B';
	char length[4];
	proto::store32(length, static_cast<uint32_t>(message_.total - 1 - name.size() + server_name.size()));
	out_.append(length, 4);
	out_.append(portal).push_back('\0');
	out_.append(server_name).push_back('\0');
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
		Statement *s;
		std::string server_name;
		const bool waits = own_.unnamed.waits;
		const Verdict verdict = resolve(name, s, server_name);
		own_.unnamed.waits = waits; // to describe it is not to use it
		if (verdict == Verdict::Done) {
			proto::Writer(out_).begin('D').u8('S').string(server_name).end();
			const bool none = s && s->looks_up && own_.names.shape(name).columns == kNoColumns;
			replies_.sent(none ? Replies::kNoResult : 'D');
		}
		return verdict;
	}
	if (name.empty() && !replies_.skipping())
		own_.forget_unnamed();
	if (name.empty() || (rewriter_.uses_own_names() && !own_.names.find(name)))
		return Verdict::Verbatim;
	if (unsettled(name))
		return Verdict::Settle;
	if (!replies_.skipping()) {
		const Meaning before = own_.names.set(name, {});
		// What is at work may turn out to be a copy, which any message_.at but its data ends: the backend must get one.
		if (replies_.executing())
			put_close(out_, kNowhere);
		replies_.sent(replies_.executing() ? Replies::kNotedClose : Replies::kFakeClose);
		notes_.add(OnServer::Nothing, nullptr, name, before);
	}
	return Verdict::Done;
}

} // namespace pgpool::core
