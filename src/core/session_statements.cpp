// Prepared statements of a session: see session.hpp and prepared.hpp.
//
// A client's name never reaches a backend. Parse is answered here when the backend has the statement
// already; Bind and Describe get the name of ours, behind a Parse of ours where the backend lacks it; Close
// is always answered here. Every such message is an entry of Replies with a note, so that an error in the
// pipeline takes back exactly what it made the backend skip. What PostgreSQL would refuse is sent to the
// backend in a form that it refuses with the same error.
#include "core/session.hpp"

#include <algorithm>

#include "core/engine.hpp"
#include "core/pool.hpp"
#include "core/server.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// A longer statement goes to the backend under its own name and keeps the client there.
constexpr size_t kMostStatement = 1 << 20;
constexpr std::string_view kScratch = "_pgpool_scratch";

using OnServer = StatementNotes::OnServer;

void put_parse(std::string &out, std::string_view name, std::string_view body)
{
	proto::Writer(out).begin('P').string(name).bytes(body).end();
}

void put_close(std::string &out, std::string_view name)
{
	proto::Writer(out).begin('C').u8('S').string(name).end();
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

// Settings that decide how a text is read into a statement; all else PostgreSQL looks at again when the
// statement is used.
std::string Session::statement_meaning() const
{
	std::string meaning;
	const Params &settings = server_ ? server_->params() : params_;
	for (const char *name : {"client_encoding", "standard_conforming_strings"}) {
		if (const Param *p = settings->find(name))
			meaning += p->value;
		meaning += '\0';
	}
	return meaning;
}

Session::Rewrite Session::rewrite(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	// A header with nothing behind it: the server will say what it thinks of it.
	if (total == proto::kHeaderSize)
		return Rewrite::Verbatim;
	if (have == proto::kHeaderSize)
		return Rewrite::More;
	server_->notes().note_batch(server_->replies().batch());
	switch (*message) {
	case 'P':
		return rewrite_parse(message, have, total, out, used);
	case 'B':
		return rewrite_bind(message, have, total, out, used);
	default:
		return rewrite_describe_or_close(message, have, total, out, used);
	}
}

void Session::forget_unnamed()
{
	engine_.statements().release(unnamed_);
	unnamed_ = nullptr;
	unnamed_waits_ = false;
	unnamed_at_ = 0;
}

// The client prepared the unnamed statement and did not use it in the same breath: it may be bound when
// another server serves. `parse` is the message, or nullptr when it is not at hand.
void Session::remember_unnamed(const char *parse, const char *end)
{
	const auto have = static_cast<size_t>(end - parse);
	if (!parse || have < size_t{proto::load32(parse + 1)} + 1)
		return;
	std::string_view body(parse + proto::kHeaderSize + 1, proto::load32(parse + 1) - 5);
	unnamed_ = engine_.statements().intern(body, statement_meaning());
	unnamed_waits_ = false;
}

// What the unnamed statement is on this server: the one that it holds itself (nullptr), or a shared one.
Statement *Session::use_unnamed(std::string &out)
{
	unnamed_waits_ = false;
	if (unnamed_at_ == server_->serial() || unnamed_)
		return unnamed_at_ == server_->serial() ? nullptr : unnamed_;
	// Another client's may stand there: it must not be taken for ours.
	put_close(out, "");
	server_->replies().sent('C', Owner::Skip);
	unnamed_at_ = server_->serial();
	return nullptr;
}

Session::Rewrite Session::rewrite_parse(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	const char *name_at = message + proto::kHeaderSize;
	if (*name_at == '\0') {
		if (have < total && total <= kChunk)
			return Rewrite::More; // whole, so that it can be remembered
		forget_unnamed();
		unnamed_at_ = server_->serial();
		unnamed_waits_ = true;
		return Rewrite::Verbatim;
	}
	if (have < total && total <= kMostStatement)
		return Rewrite::More;
	std::string_view body(name_at, std::min(have, total) - proto::kHeaderSize);
	std::string_view name;
	if (total > kMostStatement || !take_string(body, name)) {
		raw_names_ = true;
		return Rewrite::Verbatim;
	}
	Replies &replies = server_->replies();
	if (server_->notes().unsettled(name, replies.batch()))
		return Rewrite::Settle;
	if (statements_.find(name)) {
		// The backend shall say that the name is taken: give it one of that name.
		put_parse(out, name, std::string_view("\0\0\0", 3));
		replies.sent('P', Owner::Skip);
		if (cleanup_.empty()) // behind the first one the backend skips
			cleanup_ = name;
		return Rewrite::Verbatim;
	}
	Statement *s = engine_.statements().intern(body, statement_meaning());
	used = total;
	const auto has = server_->statements().has(s, replies.batch());
	if (has == ServerStatements::Has::Unsettled) {
		engine_.statements().release(s);
		return Rewrite::Settle;
	}
	const bool failed_block = replies.status() == 'E' || replies.round_outstanding();
	if (!replies.skipping()) {
		Statement *before = statements_.set(name, StatementStore::keep(s));
		if (has == ServerStatements::Has::No) {
			make_room(out);
			put_parse(out, s->name, body);
			replies.sent(Replies::kNotedParse);
			server_->statements().parsing(s, replies.batch());
			server_->notes().add(OnServer::Parse, s, name, before);
		} else if (failed_block) {
			// In a failed transaction most statements are refused, which only the backend can judge.
			put_parse(out, kScratch, body);
			replies.sent(Replies::kNotedParse);
			server_->notes().add(OnServer::Nothing, s, name, before);
			put_close(out, kScratch);
			replies.sent('C', Owner::Skip);
		} else {
			replies.sent(Replies::kFakeParse);
			server_->notes().add(OnServer::Nothing, s, name, before);
		}
	}
	engine_.statements().release(s);
	return Rewrite::Done;
}

// Makes sure that the backend has what the client means by `name`.
Session::Rewrite Session::use(std::string_view name, std::string &out, std::string &server_name)
{
	Replies &replies = server_->replies();
	if (server_->notes().unsettled(name, replies.batch()))
		return Rewrite::Settle;
	Statement *s = statements_.find(name);
	if (!s) {
		// The backend does not know it either, and says so.
		server_name = name;
		if (name.substr(0, kStatementPrefix.size()) == kStatementPrefix)
			server_name[0] = '?';
		return Rewrite::Done;
	}
	server_name = s->name;
	return use_statement(s, out);
}

Session::Rewrite Session::use_statement(Statement *s, std::string &out)
{
	Replies &replies = server_->replies();
	if (replies.skipping())
		return Rewrite::Done;
	switch (server_->statements().has(s, replies.batch())) {
	case ServerStatements::Has::Unsettled:
		return Rewrite::Settle;
	case ServerStatements::Has::Yes:
		return Rewrite::Done;
	case ServerStatements::Has::No:
		break;
	}
	make_room(out);
	put_parse(out, s->name, s->body);
	replies.sent(Replies::kNotedParse, Owner::Skip);
	server_->statements().parsing(s, replies.batch());
	server_->notes().add(OnServer::Parse, s);
	return Rewrite::Done;
}

// Before one more statement goes to the backend, the least recently used one leaves it.
void Session::make_room(std::string &out)
{
	const auto limit = static_cast<size_t>(std::max(1, engine_.settings().max_prepared_statements));
	if (Statement *s = server_->statements().surplus(limit - 1)) {
		put_close(out, s->name);
		server_->replies().sent(Replies::kNotedClose, Owner::Skip);
		server_->notes().add(OnServer::Close, s);
		server_->statements().closing(s, server_->replies().batch());
	}
}

Session::Rewrite Session::rewrite_bind(const char *message, size_t have, size_t total, std::string &out, size_t &used)
{
	std::string_view body(message + proto::kHeaderSize, std::min(have, total) - proto::kHeaderSize);
	const size_t whole = body.size();
	std::string_view portal, name;
	if (!take_string(body, portal) || !take_string(body, name))
		return have < std::min(total, kChunk) ? Rewrite::More : Rewrite::Verbatim;
	Statement *unnamed = name.empty() ? use_unnamed(out) : nullptr;
	if ((name.empty() && !unnamed) || (raw_names_ && !name.empty() && !statements_.find(name)))
		return Rewrite::Verbatim;
	std::string server_name = unnamed ? unnamed->name : std::string();
	const Rewrite verdict = unnamed ? use_statement(unnamed, out) : use(name, out, server_name);
	if (verdict != Rewrite::Done)
		return verdict;
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
	const bool is_close = *message == 'C';
	const bool waits = unnamed_waits_;
	Statement *unnamed = name.empty() && !is_close ? use_unnamed(out) : nullptr;
	unnamed_waits_ = waits; // to describe it is not to use it
	if (name.empty() && is_close)
		forget_unnamed();
	if ((name.empty() && !unnamed) || (raw_names_ && !name.empty() && !statements_.find(name)))
		return Rewrite::Verbatim;
	Replies &replies = server_->replies();
	used = total;
	if (!is_close) {
		std::string server_name = unnamed ? unnamed->name : std::string();
		const Rewrite verdict = unnamed ? use_statement(unnamed, out) : use(name, out, server_name);
		if (verdict == Rewrite::Done) {
			proto::Writer(out).begin('D').u8('S').string(server_name).end();
			replies.sent('D');
		}
		return verdict;
	}
	if (server_->notes().unsettled(name, replies.batch()))
		return Rewrite::Settle;
	if (!replies.skipping()) {
		Statement *before = statements_.set(name, nullptr);
		replies.sent(Replies::kFakeClose);
		server_->notes().add(OnServer::Nothing, nullptr, name, before);
	}
	return Rewrite::Done;
}

// Without a server, with nothing outstanding: Parse of what a server of this pool has, and Close. A client
// that only prepares needs no server; one that waits for one while it prepares could wait for itself.
bool Session::answer_statement(const char *message, size_t total)
{
	std::string_view body(message + proto::kHeaderSize, total - proto::kHeaderSize);
	std::string_view name;
	std::string out;
	if (*message == 'C') {
		if (body.empty() || body[0] != 'S' || raw_names_)
			return false;
		body.remove_prefix(1);
		if (!take_string(body, name) || !body.empty() || name.empty())
			return false;
		engine_.statements().release(statements_.set(name, nullptr));
		proto::Writer(out).begin('3').end();
	} else {
		if (!take_string(body, name) || name.empty() || statements_.find(name))
			return false;
		Statement *s = engine_.statements().intern(body, statement_meaning());
		if (!pool_->has_prepared(s)) {
			engine_.statements().release(s);
			return false;
		}
		statements_.set(name, s);
		proto::Writer(out).begin('1').end();
	}
	reply(out);
	return true;
}

// Behind the client's Sync: the statement goes that only served to have a name refused.
void Session::after_sync(std::string &out)
{
	put_close(out, cleanup_);
	server_->replies().sent('C', Owner::Skip);
	proto::Writer(out).begin('S').end();
	server_->replies().sent('S', Owner::Skip);
	cleanup_.clear();
}

} // namespace pgpool::core
