// Prepared statements of a session: see session.hpp and prepared.hpp.
//
// In transaction mode a client's name never reaches a backend (in session mode nothing else does). Parse is answered
// here when the backend has the statement already; Bind and Describe get the name of ours, behind a Parse of ours where
// the backend lacks it; Close is answered here, too, but behind a statement at work. Every such message is an entry of
// Replies with a note, so that an error in the pipeline takes back exactly what it made the backend skip. What
// PostgreSQL would refuse is sent to the backend in a form that it refuses with the same error.
//
// A client that prepares gets the statement as the catalog is now: what the backend has from before a change,
// or from before something that is still at work, is closed and parsed anew.
#include "core/session.hpp"

#include <algorithm>

#include "core/engine.hpp"
#include "core/pool_group.hpp"
#include "core/server.hpp"
#include "core/sql_command.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// A longer statement goes to the backend under its own name and keeps the client there.
constexpr size_t kMostStatement = 1 << 20;
constexpr std::string_view kScratch = "_pgpool_scratch";
constexpr std::string_view kNowhere = "_pgpool_nowhere"; // never prepared
constexpr std::string_view kDeallocateTarget = "DEALLOCATE \"_pgpool_scratch\"";

// Part of the meaning of a statement whose plans are made for their parameters each time, as an unnamed one's.
constexpr char kCustom = 'c';

Statement *as_custom(Statement *s)
{
	if (s)
		s->custom = true;
	return s;
}

using OnServer = StatementNotes::OnServer;
using region::bump;

void put_parse(std::string &out, std::string_view name, std::string_view body)
{
	proto::Writer(out).begin('P').string(name).bytes(body).end();
}

// A Parse that the backend refuses in any state of the transaction: `words` are no SQL.
void put_unparsable(std::string &out, std::string_view words)
{
	proto::Writer(out).begin('P').string(kScratch).string(words).u16(0).end();
}

void put_close(std::string &out, std::string_view name)
{
	proto::Writer(out).begin('C').u8('S').string(name).end();
}

bool is_like_ours(std::string_view name)
{
	return name.substr(0, kStatementPrefix.size()) == kStatementPrefix;
}

// A client's own name, as the backend may hear it.
std::string sent_name(std::string_view name)
{
	std::string sent(name);
	if (is_like_ours(name))
		sent.replace(0, kDisguisedPrefix.size(), kDisguisedPrefix);
	return sent;
}

// One NUL-terminated string of `body`, which it is cut off. False: its end is not there.
bool take_string(std::string_view &body, std::string_view &s)
{
	const size_t end = body.find('\0');
	if (end == std::string_view::npos)
		return false;
	s = body.substr(0, end);
	body.remove_prefix(end + 1);
	return true;
}

} // namespace

const std::string &Session::statement_meaning() const
{
	return (server_ ? server_->params() : params_)->reading();
}

Session::Rewrite Session::rewrite(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	// A header with nothing behind it: the server will say what it thinks of it.
	if (total == proto::kHeaderSize)
		return Rewrite::Verbatim;
	// The server refuses it, too, and ends the copy.
	if (server_->replies().wants_copy_data())
		return Rewrite::Verbatim;
	if (have == proto::kHeaderSize)
		return Rewrite::More;
	server_->notes().note_batch(server_->replies().batch());
	switch (*message) {
	case 'Q':
		return rewrite_query(message, have, total, out, used);
	case 'P':
		return rewrite_parse(message, have, total, out, used);
	case 'B':
		return rewrite_bind(message, have, total, out, used);
	default:
		return rewrite_describe_or_close(message, have, total, out, used);
	}
}

// In a message that goes as it is. 0: it has none that must be disguised.
size_t Session::name_to_disguise(const char *message, size_t have, size_t total)
{
	static_assert(kStatementPrefix.substr(1) == kDisguisedPrefix.substr(1));
	std::string_view body(message, std::min(have, total));
	size_t at = proto::kHeaderSize;
	if (*message == 'B')
		at = body.find('\0', at) + 1; // behind the portal's name
	else if (*message == 'D' || *message == 'C')
		at += body.substr(at, 1) == "S" ? 1 : body.size();
	else if (*message != 'P')
		return 0;
	return at > 0 && at < body.size() && is_like_ours(body.substr(at)) ? at : 0;
}

std::string Session::name_of(std::string_view server_name)
{
	const std::string_view name = statements_.name_of(server_name);
	return std::string(name.empty() ? server_->notes().name_of(server_name) : name);
}

// A meaning of `name` that only replies to earlier messages will tell.
bool Session::unsettled(std::string_view name)
{
	// The command may be skipped behind an error, and then there is no ReadyForQuery to wait for.
	if (!server_->replies().done_up_to(names_in_doubt_)) {
		awaited_ = names_in_doubt_;
		return true;
	}
	return server_->notes().unsettled(name, server_->replies().batch());
}

// DEALLOCATE of a name that is the client's alone: the backend deallocates another one, which comes and goes
// with it, and so gives PostgreSQL's answer in any state of the transaction.
Session::Rewrite Session::rewrite_query(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	std::string_view body(message + proto::kHeaderSize, std::min(have, total) - proto::kHeaderSize);
	std::string_view text;
	if (session_mode_ || !may_be_sql_command(body))
		return Rewrite::Verbatim;
	if (have < total)
		return total <= kChunk ? Rewrite::More : Rewrite::Verbatim;
	Replies &replies = server_->replies();
	if (!take_string(body, text) || replies.skipping())
		return Rewrite::Verbatim;
	const SqlCommand command = read_sql_command(text);
	if (command.kind == SqlCommand::DeallocateAll || command.kind == SqlCommand::DiscardAll) {
		names_in_doubt_ = replies.sent_so_far() + 1;
		return Rewrite::Verbatim;
	}
	if (command.kind != SqlCommand::Deallocate || !command.alone)
		return Rewrite::Verbatim;
	if (unsettled(command.name))
		return Rewrite::Settle;
	if (!statements_.find(command.name))
		return Rewrite::Verbatim;
	send_deallocate_target(out);
	proto::append_query(out, kDeallocateTarget);
	used = total;
	replies.sent(Replies::kDeallocate);
	server_->notes().add(OnServer::Nothing, nullptr, command.name, statements_.set(command.name, {}));
	forget_unnamed();
	queries_++;
	return Rewrite::Done;
}

void Session::send_deallocate_target(std::string &out)
{
	put_close(out, kScratch);
	server_->replies().sent('C', For::Statement);
	put_parse(out, kScratch, std::string_view("\0\0\0", 3));
	server_->replies().sent('P', For::Statement);
}

void Session::forget_unnamed()
{
	if (std::exchange(unnamed_shared_, false))
		engine_.statements().release(statements_.set("", {}).statement);
	engine_.statements().release(unnamed_);
	unnamed_ = nullptr;
	unnamed_text_.clear();
	unnamed_waits_ = false;
	unnamed_at_ = 0;
	deallocating_.clear();
}

// What the client prepared as unnamed lasts until it prepares another, whoever serves it.
void Session::share_unnamed()
{
	unnamed_ = as_custom(engine_.statements().intern(unnamed_text_, statement_meaning() + kCustom));
	unnamed_text_ = {};
}

// What the unnamed statement is on this server: the one that it holds itself (nullptr), or a shared one.
Statement *Session::use_unnamed(std::string &out)
{
	unnamed_waits_ = false;
	if (unnamed_shared_) {
		if (Statement *s = statements_.find(""))
			return s;
	}
	if (unnamed_at_ == server_->serial())
		return nullptr;
	if (!unnamed_text_.empty())
		share_unnamed();
	if (unnamed_)
		return unnamed_;
	// Another client's may stand there: it must not be taken for ours.
	put_close(out, "");
	if (server_->replies().sent(Replies::kUnnamedClose, For::Statement)) {
		unnamed_at_ = server_->serial();
		unnamed_batch_ = server_->replies().batch();
	}
	return nullptr;
}

// It failed, or was skipped: on this server may be anything.
void Session::on_unnamed_void()
{
	if (!unnamed_shared_)
		forget_unnamed();
}

// When another server takes it over, it keeps the types that the client was told.
void Session::on_unnamed_types(std::string_view description)
{
	const bool whole =
	    description.size() >= 2 && description.size() == 2 + size_t{4} * proto::load16(description.data());
	if (!whole || server_->replies().unnamed_outstanding() || unnamed_text_.empty())
		return; // another Parse is on its way
	unnamed_text_.resize(unnamed_text_.find('\0') + 1);
	unnamed_text_ += description;
}

// The shared statement that serves an unnamed Parse; nullptr: the server's own unnamed one does.
Statement *Session::intern_unnamed(std::string_view body)
{
	if (server_->replies().executing())
		return nullptr;
	switch (group_->settings().cache_unnamed.load(std::memory_order_relaxed)) {
	case region::CacheUnnamed::Generic:
		return engine_.statements().intern_again(body, statement_meaning());
	case region::CacheUnnamed::Custom:
		if (server_->agent())
			return as_custom(engine_.statements().intern_again(body, statement_meaning() + kCustom));
		break;
	case region::CacheUnnamed::Off:
		break;
	}
	return nullptr;
}

Session::Rewrite Session::rewrite_unnamed_parse(std::string_view body, bool whole, std::string &out)
{
	std::string_view text, types = body;
	Replies &replies = server_->replies();
	if (replies.skipping())
		return Rewrite::Verbatim; // nothing changes
	if (!whole || !take_string(types, text)) {
		prepare_unnamed_raw(whole ? body : std::string_view());
		return Rewrite::Verbatim;
	}
	const SqlCommand command = may_be_sql_command(text) ? read_sql_command(text) : SqlCommand();
	const bool deallocates = command.kind == SqlCommand::Deallocate && command.alone;
	if (deallocates && unsettled(command.name))
		return Rewrite::Settle;
	if (deallocates && statements_.find(command.name)) {
		send_deallocate_target(out);
		std::string deallocate(kDeallocateTarget);
		deallocate.append(1, '\0').append(types);
		put_parse(out, "", deallocate);
		replies.sent(Replies::kUnnamedParse);
		prepare_unnamed_raw(body);
		deallocating_ = command.name;
		return Rewrite::Done;
	}
	Statement *s = intern_unnamed(body);
	if (!s) {
		prepare_unnamed_raw(body);
		return Rewrite::Verbatim;
	}
	const Rewrite verdict = prepare("", s, out);
	engine_.statements().release(s);
	return verdict;
}

// `body` is empty when it is not all at hand.
void Session::prepare_unnamed_raw(std::string_view body)
{
	forget_unnamed();
	unnamed_text_ = body;
	unnamed_waits_ = body.empty();
	unnamed_batch_ = server_->replies().batch();
	unnamed_at_ = server_->serial();
}

Session::Rewrite Session::rewrite_parse(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	const char *name_at = message + proto::kHeaderSize;
	std::string_view body(name_at, std::min(have, total) - proto::kHeaderSize);
	std::string_view name;
	if (session_mode_) {
		if (*name_at == '\0')
			prepare_unnamed_raw({});
		return have < std::min(total, proto::kHeaderSize + kStatementPrefix.size()) ? Rewrite::More : Rewrite::Verbatim;
	}
	if (*name_at == '\0') {
		if (have < total && total <= kChunk)
			return Rewrite::More; // whole, so that it can be remembered
		used = total;
		return rewrite_unnamed_parse(body.substr(1), have >= total, out);
	}
	if (have < total && (total <= kMostStatement || have < proto::kHeaderSize + kStatementPrefix.size())) {
		wanted_ = total <= kMostStatement ? static_cast<uint32_t>(total) : 0;
		return Rewrite::More;
	}
	Replies &replies = server_->replies();
	const bool has_name = take_string(body, name);
	if (has_name && unsettled(name))
		return Rewrite::Settle;
	if (has_name && statements_.find(name)) {
		// The backend shall say that the name is taken: give it one of that name.
		const std::string its_name = sent_name(name);
		put_parse(out, its_name, std::string_view("\0\0\0", 3));
		replies.sent('P', For::Statement);
		if (cleanup_.empty()) // behind the first one the backend skips
			cleanup_ = its_name;
		return Rewrite::Verbatim;
	}
	// From the first one on that goes under the client's own name all do, or none would know of the other.
	raw_names_ |= total > kMostStatement || !has_name;
	if (raw_names_)
		return Rewrite::Verbatim;
	used = total;
	if (replies.skipping())
		return Rewrite::Done;
	if (has_too_many(body))
		return refuse_another(out);
	Statement *s = intern(body);
	const Rewrite verdict = prepare(name, s, out);
	engine_.statements().release(s);
	return verdict;
}

// What is at work may change settings that decide what the text means.
Statement *Session::intern(std::string_view body)
{
	StatementStore &store = engine_.statements();
	return server_->replies().executing() ? store.intern_alone(body) : store.intern(body, statement_meaning());
}

bool Session::has_too_many(std::string_view another) const
{
	const region::Settings &settings = engine_.settings();
	return statements_.size() >= static_cast<size_t>(settings.max_client_statements) ||
	       statements_.bytes() + another.size() > static_cast<uint64_t>(settings.client_statement_memory) * 1024;
}

// The backend refuses something in our stead, so that transaction and pipeline end as after any error.
Session::Rewrite Session::refuse_another(std::string &out)
{
	const region::Settings &settings = engine_.settings();
	proto::Error why{"53400", "too many prepared statements", "", ""};
	why.detail = "The client has " + std::to_string(statements_.size()) + " prepared statements of " +
	             std::to_string(statements_.bytes()) + " bytes.";
	why.hint = "Close statements that are not needed, or raise ";
	if (statements_.size() >= static_cast<size_t>(settings.max_client_statements))
		why.hint += "pgpool.max_client_statements, now " + std::to_string(settings.max_client_statements) + ".";
	else
		why.hint += "pgpool.client_statement_memory, now " + std::to_string(settings.client_statement_memory) + " kB.";
	put_unparsable(out, why.message);
	server_->set_refusal(why);
	server_->replies().sent(Replies::kRefused);
	return Rewrite::Done;
}

// The client's `name` ("" = the unnamed statement) becomes `s`, and its Parse is answered.
Session::Rewrite Session::prepare(std::string_view name, Statement *s, std::string &out)
{
	using Has = ServerStatements::Has;
	Replies &replies = server_->replies();
	group_->renew_if_changed(s);
	const Has has = server_->statements().has(s, replies.batch());
	if (has == Has::Unsettled)
		return Rewrite::Settle;
	if (name.empty())
		forget_unnamed();
	const Meaning before = statements_.set(name, {StatementStore::keep(s), {}});
	prepared_ = s;
	unnamed_shared_ |= name.empty();
	// In a failed transaction most statements are refused, which only the backend can judge; what is at work may
	// fail, or change the catalog.
	const bool open_question = replies.status() == 'E' || replies.round_outstanding() || replies.executing();
	const bool renew = has == Has::Outdated || (has == Has::Yes && open_question);
	if (has == Has::No || renew) {
		send_parse(s, renew, For::Client, out);
		server_->notes().add(OnServer::Parse, s, name, before);
		ask_shape(s, &name, out);
	} else {
		replies.sent(Replies::kFakeParse);
		server_->notes().add(OnServer::Nothing, s, name, before);
		bump(group_->counters().statement_hits);
		s->hits++;
	}
	return Rewrite::Done;
}

// The caller adds the note, and asks for the columns.
void Session::send_parse(Statement *s, bool renew, For purpose, std::string &out)
{
	Replies &replies = server_->replies();
	if (renew) {
		put_close(out, s->name);
		replies.sent(Replies::kNotedClose, For::Statement);
		server_->notes().add(OnServer::Close, s);
		server_->statements().closing(s, replies.batch());
	} else {
		make_room(out);
	}
	if (s->custom)
		server_->announce_custom(s);
	put_parse(out, s->name, s->body);
	replies.sent(Replies::kNotedParse, purpose);
	server_->statements().parsing(s, replies.batch(), engine_.statements().clock());
	bump(group_->counters().statement_parses);
	s->parses++;
}

// Behind its Parse: what those are told who prepare it now.
void Session::ask_shape(Statement *s, const std::string_view *name, std::string &out)
{
	proto::Writer(out).begin('D').u8('S').string(s->name).end();
	server_->replies().sent(Replies::kShape, For::Statement);
	server_->notes().add_shape(s, name);
}

// What `s` looks like on this server, or would if it were parsed there now; not known: it must be asked.
Shape Session::shape_now(const Statement *s, bool is_there)
{
	const Shape told = is_there ? server_->statements().shape(s) : Shape{};
	if (told.known())
		return told;
	const bool current =
	    s->shape_of == group_->number() && s->shape_at >= s->valid_since && s->shape_at >= group_->catalog_clock();
	return current ? s->shape : Shape{};
}

// The text of `s` has parameters of other types now than `name` was told, which keeps its own.
Statement *Session::with_types_of(std::string_view name, Statement *s, const Shape &expected)
{
	StatementStore &store = engine_.statements();
	Statement *typed = store.with_types(s, expected.types);
	if (!typed)
		return s;
	store.release(statements_.set(name, {typed, expected}).statement);
	return typed;
}

// The client goes by columns that are no more, and the backend, which has the statement from a later time, would not
// notice.
void Session::refuse_columns(char type, Statement *s, std::string_view name, std::string &out)
{
	Replies &replies = server_->replies();
	if (replies.fresh())
		server_->replay().begin(s, name, false);
	if (type == 'D') {
		proto::Writer(out).begin('D').u8('S').string(s->name).end();
		replies.sent(Replies::kParameters);
	}
	put_unparsable(out, "cached plan must not change result type");
	replies.sent(Replies::kStale);
}

// What Bind and Describe of `name` must say to the backend: `s` is the shared statement, which the backend then
// has, or nullptr when it is to refuse `server_name`. Verbatim: the backend knows it under the client's own name.
Session::Rewrite Session::resolve(char type, std::string_view name, std::string &out, Statement *&s,
                                  std::string &server_name)
{
	// A Parse of an earlier batch may be skipped: then another client's statement may stand there.
	if (name.empty() && server_->replies().unnamed_outstanding() && unnamed_batch_ != server_->replies().batch())
		return Rewrite::Settle;
	s = name.empty() ? use_unnamed(out) : statements_.find(name);
	if (!s && (name.empty() || raw_names_))
		return Rewrite::Verbatim;
	if (!name.empty() && unsettled(name))
		return Rewrite::Settle;
	const Rewrite verdict = s ? use_statement(type, name, s, out) : Rewrite::Done;
	server_name = s ? s->name : sent_name(name);
	return verdict;
}

// `s` becomes the statement that has the types that `name` was told.
Session::Rewrite Session::use_statement(char type, std::string_view name, Statement *&s, std::string &out)
{
	using Has = ServerStatements::Has;
	Replies &replies = server_->replies();
	if (replies.skipping())
		return Rewrite::Done;
	Has has = server_->statements().has(s, replies.batch());
	// In a failed transaction it is refused for another reason.
	const Shape expected = replies.status() == 'E' ? Shape{} : statements_.shape(name);
	Shape now = shape_now(s, has == Has::Yes);
	if (has != Has::Unsettled && expected.types != 0 && now.known() && now.types != expected.types) {
		s = with_types_of(name, s, expected);
		has = server_->statements().has(s, replies.batch());
		now = shape_now(s, has == Has::Yes);
	}
	// What the server has may be from before a change of the catalog that undid the one since the client prepared it.
	if (has == Has::Yes && expected.known() && !s->looks_up && now.known() && now.columns != expected.columns) {
		group_->renew_if_changed(s);
		has = server_->statements().has(s, replies.batch());
		now = shape_now(s, has == Has::Yes);
	}
	if (has == Has::Unsettled)
		return Rewrite::Settle;
	const bool ask = expected.types != 0 && !s->looks_up && !now.known();
	if (has == Has::Yes && !ask) {
		bump(group_->counters().statement_hits);
		s->hits++;
	} else {
		send_parse(s, has != Has::No, For::Statement, out);
		server_->notes().add(OnServer::Parse, s);
		ask_shape(s, expected.known() ? nullptr : &name, out);
	}
	if (ask) {
		await_shape(out);
		return Rewrite::Settle;
	}
	const bool forgotten = now.known() && now.types != expected.types; // the types, after many others
	if (expected.known() && ((!s->looks_up && now.columns != expected.columns) || forgotten)) {
		refuse_columns(type, s, name, out);
		return Rewrite::Done;
	}
	if (has == Has::Yes) {
		if (!expected.known())
			statements_.set_shape(name, s, now);
		if (replies.fresh())
			server_->replay().begin(s, name, prepared_ == s);
	}
	return Rewrite::Done;
}

// Before one more statement goes to the backend, the least recently used ones leave it.
void Session::make_room(std::string &out)
{
	server_->close_statements(server_->most_statements() - 1, out);
}

Session::Rewrite Session::rewrite_bind(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	std::string_view body(message + proto::kHeaderSize, std::min(have, total) - proto::kHeaderSize);
	const size_t whole = body.size();
	std::string_view portal, name;
	if (!take_string(body, portal) || !take_string(body, name)) {
		const size_t enough = std::min(total, kMostStatement); // for the longest name of a statement that is shared
		wanted_ = static_cast<uint32_t>(enough);
		return have < enough ? Rewrite::More : Rewrite::Verbatim;
	}
	Statement *s;
	std::string server_name;
	const Rewrite verdict = resolve(*message, name, out, s, server_name);
	if (verdict == Rewrite::Verbatim)
		begin_bound_ = false;
	if (portal.empty())
		bound_deallocate_ = verdict == Rewrite::Verbatim && name.empty() ? deallocating_ : "";
	if (verdict != Rewrite::Done)
		return verdict;
	if (portal.empty())
		begin_bound_ = s && s->begins;
	if (s) {
		bump(group_->counters().statement_uses);
		s->uses++;
	}
	const size_t names = whole - body.size();
	used = proto::kHeaderSize + names;
	out += 'B';
	char length[4];
	proto::store32(length, static_cast<uint32_t>(total - 1 - name.size() + server_name.size()));
	out.append(length, 4);
	out.append(portal).push_back('\0');
	out.append(server_name).push_back('\0');
	server_->replies().sent('B');
	return Rewrite::Done;
}

Session::Rewrite Session::rewrite_describe_or_close(const char *message, size_t have, size_t total, std::string &out,
                                                    size_t &used)
{
	if (message[proto::kHeaderSize] != 'S')
		return Rewrite::Verbatim;
	if (have < total)
		return Rewrite::More;
	std::string_view body(message + proto::kHeaderSize + 1, total - proto::kHeaderSize - 1);
	std::string_view name;
	if (!take_string(body, name) || !body.empty())
		return Rewrite::Verbatim;
	Replies &replies = server_->replies();
	used = total;
	if (*message == 'D') {
		Statement *s;
		std::string server_name;
		const bool waits = unnamed_waits_;
		const Rewrite verdict = resolve(*message, name, out, s, server_name);
		unnamed_waits_ = waits; // to describe it is not to use it
		if (verdict == Rewrite::Done) {
			proto::Writer(out).begin('D').u8('S').string(server_name).end();
			const bool none = s && s->looks_up && statements_.shape(name).columns == kNoColumns;
			replies.sent(none ? Replies::kNoResult : 'D');
		}
		return verdict;
	}
	if (name.empty() && !replies.skipping())
		forget_unnamed();
	if (name.empty() || (raw_names_ && !statements_.find(name)))
		return Rewrite::Verbatim;
	if (unsettled(name))
		return Rewrite::Settle;
	if (!replies.skipping()) {
		const Meaning before = statements_.set(name, {});
		// What is at work may turn out to be a copy, which any message but its data ends: the backend must get one.
		if (replies.executing())
			put_close(out, kNowhere);
		replies.sent(replies.executing() ? Replies::kNotedClose : Replies::kFakeClose);
		server_->notes().add(OnServer::Nothing, nullptr, name, before);
	}
	return Rewrite::Done;
}

// Without a server, with nothing outstanding: Parse of what a server of this pool has, and Close. A client
// that only prepares needs no server; one that waits for one while it prepares could wait for itself.
bool Session::answer_statement(const char *message, size_t total, std::string &answers)
{
	std::string_view body(message + proto::kHeaderSize, total - proto::kHeaderSize);
	std::string_view name;
	if (*message == 'C') {
		if (body.empty() || body[0] != 'S' || raw_names_)
			return false;
		body.remove_prefix(1);
		if (!take_string(body, name) || !body.empty() || name.empty())
			return false;
		engine_.statements().release(statements_.set(name, {}).statement);
		proto::Writer(answers).begin('3').end();
	} else {
		if (raw_names_ || !take_string(body, name) || name.empty() || statements_.find(name) || has_too_many(body))
			return false;
		Statement *s = engine_.statements().intern(body, statement_meaning());
		group_->renew_if_changed(s);
		Shape shape;
		if (!group_->has_prepared(s, shape)) {
			engine_.statements().release(s);
			return false;
		}
		statements_.set(name, {s, shape});
		prepared_ = s;
		bump(group_->counters().statement_hits);
		s->hits++;
		proto::Writer(answers).begin('1').end();
	}
	return true;
}

// Behind the client's Sync: the statement goes that only served to have a name refused.
void Session::after_sync(std::string &out)
{
	put_close(out, cleanup_);
	server_->replies().sent('C', For::Statement);
	proto::Writer(out).begin('S').end();
	server_->replies().sent('S', For::Statement);
	cleanup_.clear();
}

} // namespace pgpool::core
