// See rewriter.hpp. Messages that are rewritten: rewriter_message.cpp.
#include "core/statements/rewriter.hpp"

#include <algorithm>

#include "core/statements/backend_statements.hpp"
#include "core/statements/rewriter_own.hpp"
#include "proto/message.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;

StatementRewriter::StatementRewriter() = default;
StatementRewriter::~StatementRewriter() = default;

StatementRewriter::Own &StatementRewriter::own(StatementStore &store)
{
	if (!own_)
		own_ = std::make_unique<Own>(store);
	return *own_;
}

ClientStatements *StatementRewriter::own_names()
{
	return &own_->names;
}

void StatementRewriter::forget()
{
	own_.reset();
}

void StatementRewriter::forget_unnamed()
{
	if (own_)
		own_->forget_unnamed();
}

// ---- messages that go as they are

// The type of a message as Replies knows it.
char StatementRewriter::kind_of(const Message &m) const
{
	const bool unnamed = m.have > proto::kHeaderSize && m.at[proto::kHeaderSize] == '\0';
	if (m.type() == 'P' && unnamed)
		return Replies::kUnnamedParse;
	if (!own_)
		return m.type();
	const bool describes = m.type() == 'D' && m.have > proto::kHeaderSize + 1 && m.at[proto::kHeaderSize] == 'S';
	if (describes && m.at[proto::kHeaderSize + 1] == '\0' && !own_->unnamed.text.empty())
		return Replies::kUnnamedTypes;
	if (m.type() != 'E' || !unnamed)
		return m.type();
	if (!own_->unnamed_portal.deallocates.empty())
		return Replies::kDeallocateExecute;
	return own_->unnamed_portal.begins ? Replies::kBegin : 'E';
}

void StatementRewriter::account(BackendStatements &backend, const Message &m)
{
	// A copy takes any Flush; else the backend refuses one with a body, and skips what follows as behind a bad Parse.
	const bool refused = m.type() == 'H' && m.total > proto::kHeaderSize && !backend.replies().wants_copy_data();
	const char kind = refused ? Replies::kBadFlush : kind_of(m);
	const bool noted = backend.replies().sent(kind) && kind == Replies::kDeallocateExecute;
	if (m.type() == 'S' || m.type() == 'Q')
		batch_ended();
	if (m.type() == 'Q')
		forget_unnamed(); // as the server does
	if (!noted)
		return;
	std::string &name = own_->unnamed_portal.deallocates;
	StatementNotes &notes = backend.notes();
	notes.note_batch(backend.replies().batch());
	notes.add(StatementNotes::OnServer::Nothing, nullptr, name, own_->names.set(name, {}));
	name.clear();
}

void StatementRewriter::batch_ended()
{
	if (own_)
		own_->batch++;
}

size_t StatementRewriter::name_to_disguise(const Message &m)
{
	static_assert(kStatementPrefix.substr(1) == kDisguisedPrefix.substr(1));
	std::string_view body(m.at, std::min(m.have, m.total));
	size_t at = proto::kHeaderSize;
	if (m.type() == 'B')
		at = body.find('\0', at) + 1; // behind the portal's name
	else if (m.type() == 'D' || m.type() == 'C')
		at += body.substr(at, 1) == "S" ? 1 : body.size();
	else if (m.type() != 'P')
		return 0;
	return at > 0 && at < body.size() && is_like_ours(body.substr(at)) ? at : 0;
}

bool StatementRewriter::has_cleanup() const
{
	return own_ && !own_->cleanup.empty();
}

void StatementRewriter::clean_up(BackendStatements &backend, std::string &out)
{
	proto::Writer(out).begin('C').u8('S').string(own_->cleanup).end();
	backend.replies().sent('C', For::Statement);
	proto::Writer(out).begin('S').end();
	backend.replies().sent('S', For::Statement);
	own_->cleanup.clear();
}

// ---- without a server

bool StatementRewriter::has_room_for(StatementPool &pool, std::string_view body)
{
	const region::Settings &limits = pool.limits();
	const ClientStatements &names = own(pool.store()).names;
	return names.size() < static_cast<size_t>(limits.max_client_statements) &&
	       names.bytes() + body.size() <= static_cast<uint64_t>(limits.client_statement_memory) * 1024;
}

bool StatementRewriter::answer_close(StatementStore &store, const Message &m, std::string &answers)
{
	std::string_view body(m.at + proto::kHeaderSize, m.total - proto::kHeaderSize);
	std::string_view name;
	if (body.empty() || body[0] != 'S' || uses_own_names())
		return false;
	body.remove_prefix(1);
	if (!take_string(body, name) || !body.empty() || name.empty())
		return false;
	if (own_)
		store.release(own_->names.set(name, {}).statement);
	proto::Writer(answers).begin('3').end();
	return true;
}

// One more reference; nullptr: only a backend can tell what to make of it.
Statement *StatementRewriter::statement_of_parse(StatementPool &pool, const Params &params, const Message &m)
{
	std::string_view body(m.at + proto::kHeaderSize, m.total - proto::kHeaderSize);
	std::string_view name;
	if (uses_own_names() || !take_string(body, name) || name.empty() || own(pool.store()).names.find(name) ||
	    !has_room_for(pool, body))
		return nullptr;
	Statement *s = pool.store().intern(body, params->reading());
	pool.renew_if_changed(s);
	return s;
}

void StatementRewriter::answer_parse(StatementPool &pool, Statement *s, Shape shape, const Message &m,
                                     std::string &answers)
{
	const std::string_view name(m.at + proto::kHeaderSize);
	own_->names.set(name, {s, shape, own_->batch});
	bump(pool.counters().statement_hits);
	s->hits++;
	proto::Writer(answers).begin('1').end();
}

// ---- what waits

bool StatementRewriter::has_what_it_awaits(const Replies &replies) const
{
	// A copy that has begun meanwhile ends the wait, too: it may be part of the very message that is awaited, and what
	// is no data of it is the server's to refuse.
	return waits() && (replies.wants_copy_data() || (waits_ == Waits::Replies && replies.done_up_to(own_->awaited)));
}

void StatementRewriter::await_round()
{
	waits_ = Waits::Round;
}

bool StatementRewriter::waits_behind(const BackendStatements &backend)
{
	if (!backend.replay().holds_back(backend.replies()))
		return false;
	if (backend.replay().on_node()) {
		waits_ = Waits::Round;
		return true;
	}
	own_->awaited = backend.replay().first();
	waits_ = Waits::Replies;
	return true;
}

void StatementRewriter::settled()
{
	waits_ = Waits::No;
	if (own_)
		own_->awaited = 0;
}

// ---- what becomes of its statements

void StatementRewriter::on_assigned()
{
	if (own_)
		own_->in_doubt = 0;
}

void StatementRewriter::on_unused(const BackendStatements &backend)
{
	settled();
	if (own_ && own_->unnamed.at == backend.assignment()) // it was prepared there, and will be again
		own_->forget_unnamed();
}

void StatementRewriter::on_discarded(const StatementNotes &notes)
{
	if (own_) {
		// The unnamed statement stays, and what was prepared behind the command.
		for (ClientStatements::Item &item : own_->names.take_all()) {
			if (item.name.empty() || notes.will_be(item.name, item.statement))
				own_->names.set(item.name, {item.statement, item.shape, item.batch});
			else
				own_->store.release(item.statement);
		}
	}
	if (naming_ == Naming::Own)
		naming_ = Naming::Shared;
}

void StatementRewriter::start_over(Statement *s, std::string_view name, bool prepared, bool forgets_columns)
{
	// The unnamed statement may have made way for the next one in the batch, which is void with all behind the error.
	if (name.empty() && own_->names.find(name) != s && own_->unnamed.shared != s) {
		forget_unnamed();
		own_->store.release(own_->names.set(name, {StatementStore::keep(s), {}}).statement);
		own_->unnamed.in_names = true;
	}
	ClientStatements::Item *item = own_->names.item(name);
	if (!item)
		return;
	// It will be told the columns as they are; the types of its parameters stay.
	if (forgets_columns)
		item->shape.columns = 0;
	// The batch has its Sync behind it, and comes again as the next one.
	if (prepared)
		item->batch = own_->batch;
}

void StatementRewriter::forget_batch()
{
	if (!own_)
		return;
	std::vector<std::string> made;
	own_->names.each_item([&](const ClientStatements::Item &item) {
		if (item.batch == own_->batch - 1 && !item.name.empty())
			made.push_back(item.name);
	});
	for (const std::string &name : made)
		own_->store.release(own_->names.set(name, {}).statement);
}

// It failed, or was skipped: on this server may be anything.
void StatementRewriter::on_unnamed_void()
{
	if (own_ && !own_->unnamed.in_names)
		own_->forget_unnamed();
}

// When another server takes it over, it keeps the types that the client was told.
void StatementRewriter::on_unnamed_types(std::string_view description, const Replies &replies)
{
	const bool whole =
	    description.size() >= 2 && description.size() == 2 + size_t{4} * proto::load16(description.data());
	if (!whole || replies.unnamed_outstanding() || !own_ || own_->unnamed.text.empty())
		return; // another Parse is on its way
	std::string &text = own_->unnamed.text;
	text.resize(text.find('\0') + 1);
	text += description;
}

void StatementRewriter::on_idle(const Params &params)
{
	if (own_ && !own_->unnamed.text.empty())
		own_->share_unnamed(params->reading()); // a text of its own is memory better saved
}

const Statement *StatementRewriter::statement_of(std::string_view name) const
{
	return own_ && !uses_own_names() ? own_->names.find(name) : nullptr;
}

std::string StatementRewriter::name_of(std::string_view server_name, const StatementNotes &notes) const
{
	const std::string_view name = own_ ? own_->names.name_of(server_name) : std::string_view();
	return std::string(name.empty() ? notes.name_of(server_name) : name);
}

bool StatementRewriter::has_long_unnamed() const
{
	return own_ && own_->unnamed.waits;
}

} // namespace pgpool::core
