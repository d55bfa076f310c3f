// See backend_statements.hpp.
#include "core/statements/backend_statements.hpp"

#include <algorithm>

#include "core/statements/rewriter.hpp"
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

bool is_unknown_statement(std::string_view error)
{
	return proto::error_field(error, 'C') == "26000";
}

// A node may lack what the primary has, must not write, and ends queries and connections for its own reasons. But what
// took too long there will do so again.
bool primary_may_do(std::string_view error)
{
	const std::string_view code = proto::error_field(error, 'C');
	return code != proto::sqlstate::kQueryCanceled && code != proto::sqlstate::kLockNotAvailable;
}

// Of the replies to a read, what a node can say before it has a row or has done it.
bool comes_before_rows(char type)
{
	return type == '1' || type == '2' || type == '3' || type == 't' || type == 'T' || type == 'n' || type == 'N';
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

const std::string &no_data()
{
	static const std::string *const message = new std::string("n\0\0\0\4", 5);
	return *message;
}

// Whose names the notes are about.
ClientStatements *names_of(StatementRewriter *client)
{
	return client ? client->names() : nullptr;
}

} // namespace

BackendStatements::BackendStatements(StatementPool &pool, Replies &replies, const Params &params, AgentLink &agent,
                                     Substitute &substitute, bool is_primary)
    : pool_(pool), replies_(replies), params_(params), agent_(agent), substitute_(substitute), is_primary_(is_primary),
      notes_(pool.store(), table_), replay_(pool.store())
{
}

BackendStatements::~BackendStatements()
{
	table_.drop_all(pool_.store());
}

void BackendStatements::assigned(uint64_t assignment, StatementRewriter &client)
{
	assignment_ = assignment;
	replay_.stop();
	client.on_assigned();
}

// ---- replies

void BackendStatements::on_reply(char type, const Replies::Verdict &v, std::string_view body, StatementRewriter *client,
                                 bool &forward)
{
	if (replay_.on_node() && v.forward && comes_before_rows(type)) {
		substitute_.withhold(type, body);
		forward = false;
	} else if (replay_.on() && v.forward) {
		const bool whole = type == 't' && body.size() >= 2 && body.size() == 2 + 4 * size_t{proto::load16(body.data())};
		if (whole) {
			substitute_.withhold(type, body);
			forward = false;
			return;
		}
		if (type != 'E' && type != 'N' && type != 'A' && type != 'S')
			replay_.stop(); // the client is told something
	}
	if ((v.answered == Replies::kDeallocate || v.answered == Replies::kDeallocateExecute) && type != 'E')
		notes_.confirm(names_of(client));
	switch (type) {
	case '1':
		// What ran before it in the pipeline may have changed the catalog after it was sent.
		if (v.answered == Replies::kNotedParse && v.forward && notes_.first())
			pool_.renew_if_changed(notes_.first());
		[[fallthrough]];
	case '3':
		if (v.answered == Replies::kNotedParse || v.answered == Replies::kNotedClose)
			notes_.confirm(names_of(client));
		break;
	case 't':
		if (replies_.wants_shape())
			types_told_ = StatementStore::types_told(notes_.first(), body);
		else if (client && replies_.tells_unnamed_types())
			client->on_unnamed_types(body, replies_);
		break;
	case 'T':
	case 'n':
		if (v.answered == Replies::kShape)
			note_shape({types_told_, type == 'T' ? hash_of_columns(body) : kNoColumns}, client);
		if (v.no_result && forward) {
			forward = false;
			substitute_.put(no_data());
		}
		break;
	default:
		break;
	}
}

void BackendStatements::note_shape(Shape shape, StatementRewriter *client)
{
	Statement *s = notes_.first();
	if (table_.present(s) && is_primary_)
		pool_.note_shape(s, shape, table_.parsed_at(s));
	notes_.confirm(names_of(client), shape);
}

void BackendStatements::on_fake(StatementRewriter *client)
{
	notes_.confirm(names_of(client));
}

void BackendStatements::on_discarded(StatementRewriter *client)
{
	table_.clear(pool_.store());
	if (!client)
		return;
	client->on_discarded(notes_);
	notes_.forget_before();
}

// ---- errors

void BackendStatements::make_void(const Replies::Verdict &v, StatementRewriter *client)
{
	notes_.make_void(v.voided, names_of(client));
	if (client && v.unnamed_void)
		client->on_unnamed_void();
}

void BackendStatements::make_all_void(StatementRewriter *client)
{
	notes_.make_void(UINT32_MAX, names_of(client));
}

// The backend refused the shared statement that the batch began with, or we did: it can be served again, and the client
// hears nothing of it.
bool BackendStatements::may_start_over(const Replies::Verdict &v, std::string_view error)
{
	if (!replay_.on())
		return false;
	if (replay_.on_node())
		return replay_.elsewhere() && replies_.size() <= 1 && primary_may_do(error);
	const bool refused = v.answered == Replies::kStale;
	const bool lost = is_unknown_statement(error);
	const bool stale = refused || is_stale_plan(error);
	replay_.statement()->suspect |= stale && !refused; // also when the client has to hear of it
	// With more than its Sync behind it the batch is not all that would have to be served again. Columns that the
	// client learned before it must not change under it: unless it asks for them in this batch, the error is the truth.
	return (lost || (stale && replay_.takes_any_columns())) && (replies_.empty() || replies_.only_sync());
}

// The client took the batch back: this backend has to parse the statement anew.
void BackendStatements::start_over(const Replies::Verdict &v, std::string_view error, StatementRewriter &client)
{
	if (replay_.on_node()) {
		start_over_elsewhere(client);
		return;
	}
	const bool refused = v.answered == Replies::kStale;
	StatementStore &store = pool_.store();
	if (!refused)
		replay_.statement()->valid_since = store.advance();
	if (is_unknown_statement(error))
		table_.distrust(store.clock());
	client.start_over(replay_.statement(), replay_.name(), replay_.just_prepared(), refused || is_stale_plan(error));
	substitute_.drop_withheld();
	replay_.stop();
}

void BackendStatements::start_over_elsewhere(StatementRewriter &client)
{
	client.forget_batch();
	substitute_.drop_withheld();
	replay_.stop();
}

void BackendStatements::set_refusal(const proto::Error &why)
{
	refusal_.clear();
	proto::append_error(refusal_, proto::Severity::Error, why);
}

bool BackendStatements::replace_error(const Replies::Verdict &v, std::string_view error, StatementRewriter &client)
{
	replay_.stop();
	if (v.answered == Replies::kStale) {
		substitute_.put(stale_plan_error());
		return true;
	}
	if (v.answered == Replies::kRefused) {
		substitute_.put(refusal_);
		return true;
	}
	const bool taken = v.answered == 'P' && proto::error_field(error, 'C') == "42P05";
	return (taken || v.answered == 'B' || v.answered == 'D') && rename(error, client);
}

// Errors that name the statement (exec_bind_message() of postgres.c, prepare.c): no such one, taken, another number of
// parameters. The client is told its own name. In any other error a name of that form is a value of the client's.
bool BackendStatements::rename(std::string_view error, StatementRewriter &client)
{
	const std::string_view code = proto::error_field(error, 'C');
	if (code != "26000" && code != "42P05" && code != "08P01")
		return false;
	const std::string_view text = proto::error_field(error, 'M');
	size_t at = text.find(kStatementPrefix);
	const bool disguised = at == std::string_view::npos;
	if (disguised)
		at = text.find(kDisguisedPrefix);
	const bool whole = error.size() >= 2 && error.substr(error.size() - 2) == std::string_view("\0\0", 2);
	if (at == std::string_view::npos || !whole)
		return false;
	const std::string_view name =
	    text.substr(at, text.find_first_not_of("0123456789", at + kStatementPrefix.size()) - at);
	const std::string own = disguised
	                            ? std::string(kStatementPrefix) + std::string(name.substr(kStatementPrefix.size()))
	                            : client.name_of(name, notes_);
	proto::Writer w(substitute_.write());
	w.begin('E').bytes(error.substr(0, static_cast<size_t>(text.data() - error.data()) + at)).bytes(own);
	w.bytes(error.substr(static_cast<size_t>(name.data() + name.size() - error.data()))).end();
	return true;
}

// ---- how many there are

size_t BackendStatements::most() const
{
	return static_cast<size_t>(std::max(1, pool_.limits().max_prepared_statements));
}

bool BackendStatements::close_surplus(size_t most, std::string &out)
{
	const bool nothing = out.empty();
	while (Statement *s = table_.surplus(most, replies_.batch())) {
		proto::Writer(out).begin('C').u8('S').string(s->name).end();
		replies_.sent(Replies::kNotedClose, For::Statement);
		notes_.note_batch(replies_.batch());
		notes_.add(StatementNotes::OnServer::Close, s);
		table_.closing(s, replies_.batch());
		bump(pool_.counters().statement_evictions);
		s->evictions++;
	}
	return nothing && !out.empty();
}

} // namespace pgpool::core
