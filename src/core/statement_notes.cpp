// See statement_notes.hpp.
#include "core/statement_notes.hpp"

#include <algorithm>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

StatementNotes::~StatementNotes()
{
	for (Note &n : notes_) {
		store_.release(n.statement);
		store_.release(n.before);
	}
}

void StatementNotes::add(OnServer what, Statement *statement)
{
	notes_.push_back({what, false, false, StatementStore::keep(statement), {}, nullptr, batch_});
}

void StatementNotes::add(OnServer what, Statement *statement, std::string_view name, Statement *before)
{
	notes_.push_back(
	    {what, true, false, StatementStore::keep(statement), std::string(known_part(name)), before, batch_});
}

void StatementNotes::add_columns(Statement *statement, const std::string_view *name)
{
	notes_.push_back({OnServer::Columns, false, name != nullptr, StatementStore::keep(statement),
	                  std::string(name ? known_part(*name) : std::string_view()), nullptr, batch_});
}

void StatementNotes::confirm(ClientStatements *client, uint64_t columns)
{
	if (notes_.empty())
		return;
	Note &n = notes_.front();
	if (n.what == OnServer::Columns)
		server_.set_columns(n.statement, columns);
	else if (n.what != OnServer::Nothing)
		server_.confirm(n.statement, store_);
	else
		columns = server_.columns(n.statement); // a Parse that was answered here
	const bool names = n.names || (n.renames && n.what == OnServer::Nothing && n.statement);
	if (names && client)
		client->set_columns(n.name, n.statement, columns);
	store_.release(n.statement);
	store_.release(n.before);
	notes_.pop_front();
}

void StatementNotes::make_void(uint32_t count, ClientStatements *client)
{
	count = static_cast<uint32_t>(std::min<size_t>(count, notes_.size()));
	for (uint32_t i = count; i-- > 0;) {
		Note &n = notes_[i];
		if (n.what == OnServer::Parse || n.what == OnServer::Close)
			server_.take_back(n.statement, store_);
		const bool later_stands = n.name.empty() && client && client->find("") != n.statement;
		if (n.renames && client && !later_stands) // an unnamed statement makes way for the next at once
			store_.release(client->set(n.name, n.before));
		else
			store_.release(n.before);
		store_.release(n.statement);
	}
	notes_.erase(notes_.begin(), notes_.begin() + count);
}

bool StatementNotes::will_be(std::string_view name, const Statement *statement) const
{
	return std::any_of(notes_.begin(), notes_.end(), [&](const Note &n) {
		return n.renames && n.statement == statement && n.name == known_part(name);
	});
}

std::string_view StatementNotes::name_of(std::string_view server_name) const
{
	for (const Note &n : notes_) {
		if (n.before && n.before->name == server_name)
			return n.name;
	}
	return {};
}

void StatementNotes::forget_before()
{
	for (Note &n : notes_) {
		store_.release(n.before);
		n.before = nullptr;
	}
}

bool StatementNotes::unsettled(std::string_view name, uint64_t batch) const
{
	for (const Note &n : notes_) {
		if (n.renames && n.batch != batch && n.name == known_part(name))
			return true;
	}
	return false;
}

} // namespace pgpool::core
