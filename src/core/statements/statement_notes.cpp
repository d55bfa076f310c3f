// See statement_notes.hpp.
#include "core/statements/statement_notes.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kFewest = 16; // chains

} // namespace

StatementNotes::~StatementNotes()
{
	for (Note &n : notes_) {
		store_.release(n.statement);
		store_.release(n.before.statement);
	}
}

// ---- the index by name

size_t StatementNotes::bucket(std::string_view name) const
{
	return std::hash<std::string_view>{}(name) & (chains_.size() - 1);
}

const StatementNotes::Note *StatementNotes::last_that_renames(std::string_view name) const
{
	if (notes_.empty() || chains_.empty())
		return nullptr;
	name = known_part(name);
	for (uint64_t n = chains_[bucket(name)]; is_there(n); n = at(n).next) {
		if (at(n).name == name)
			return &at(n);
	}
	return nullptr;
}

// It takes the place of the one before it that renames the same name.
void StatementNotes::index(uint64_t number)
{
	Note &note = at(number);
	uint64_t &head = chains_[bucket(note.name)];
	note.earlier = 0;
	for (uint64_t *link = &head; is_there(*link); link = &at(*link).next) {
		const Note &old = at(*link);
		if (old.name != note.name)
			continue;
		note.earlier = old.batch != note.batch ? *link : old.earlier;
		*link = old.next;
		break;
	}
	note.next = head;
	head = number;
}

void StatementNotes::push(Note note)
{
	const bool renames = note.renames;
	notes_.push_back(std::move(note));
	if (!renames)
		return;
	if (notes_.size() > chains_.size()) {
		chains_.assign(std::max(kFewest, chains_.size() * 2), 0);
		for (uint64_t n = first_; n + 1 < first_ + notes_.size(); n++) {
			if (at(n).renames)
				index(n);
		}
	}
	index(first_ + notes_.size() - 1);
}

void StatementNotes::pop(size_t count)
{
	notes_.erase(notes_.begin(), notes_.begin() + static_cast<ptrdiff_t>(count));
	first_ += count;
}

// ----

void StatementNotes::add(OnServer what, Statement *statement)
{
	push({what, false, false, StatementStore::keep(statement), {}, {}, batch_});
}

void StatementNotes::add(OnServer what, Statement *statement, std::string_view name, const Meaning &before)
{
	push({what, true, false, StatementStore::keep(statement), std::string(known_part(name)), before, batch_});
}

void StatementNotes::add_shape(Statement *statement, const std::string_view *name)
{
	push({OnServer::Shape,
	      false,
	      name != nullptr,
	      StatementStore::keep(statement),
	      std::string(name ? known_part(*name) : std::string_view()),
	      {},
	      batch_});
}

void StatementNotes::confirm(ClientStatements *client, Shape shape)
{
	if (notes_.empty())
		return;
	Note &n = notes_.front();
	if (n.what == OnServer::Shape)
		server_.set_shape(n.statement, shape);
	else if (n.what != OnServer::Nothing)
		server_.confirm(n.statement, store_);
	else
		shape = server_.shape(n.statement); // a Parse that was answered here
	// The columns are the name's as soon as they are known: with the Describe behind a Parse, or at once where the
	// server had the statement. A Close has no statement.
	const bool names = n.names || (n.renames && n.what == OnServer::Nothing && n.statement);
	ClientStatements::Item *item = names && client ? client->item(n.name) : nullptr;
	if (item)
		item->learn(n.statement, shape);
	store_.release(n.statement);
	store_.release(n.before.statement);
	pop(1);
}

void StatementNotes::make_void(uint32_t count, ClientStatements *client)
{
	count = static_cast<uint32_t>(std::min<size_t>(count, notes_.size()));
	// The last first: each puts back what the name meant before it, so the first one's `before` stands in the end.
	for (uint32_t i = count; i-- > 0;) {
		Note &n = notes_[i];
		if (n.what == OnServer::Parse || n.what == OnServer::Close)
			server_.take_back(n.statement, store_);
		const bool later_stands = n.name.empty() && client && client->find("") != n.statement;
		if (n.renames && client && !later_stands) // an unnamed statement makes way for the next at once
			store_.release(client->set(n.name, n.before).statement);
		else
			store_.release(n.before.statement);
		store_.release(n.statement);
	}
	pop(count);
}

bool StatementNotes::will_be(std::string_view name, const Statement *statement) const
{
	const Note *n = last_that_renames(name);
	return n && n->statement == statement;
}

std::string_view StatementNotes::name_of(std::string_view server_name) const
{
	for (const Note &n : notes_) {
		if (n.before.statement && n.before.statement->name == server_name)
			return n.name;
	}
	return {};
}

void StatementNotes::forget_before()
{
	for (uint64_t n = std::max(first_, forgotten_); n < first_ + notes_.size(); n++)
		store_.release(std::exchange(at(n).before, {}).statement);
	forgotten_ = first_ + notes_.size();
}

bool StatementNotes::unsettled(std::string_view name, uint64_t batch) const
{
	const Note *n = last_that_renames(name);
	return n && (n->batch != batch || is_there(n->earlier));
}

} // namespace pgpool::core
