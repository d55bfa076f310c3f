// The statements of one client: what it prepared under which name, and how its messages name that on a backend.
//
// Owns the client's names and what is known of its unnamed statement; a client that never had a statement of its own
// has none of that. In transaction mode a client's name never reaches a backend (in session mode nothing else does).
// Parse is answered here when the backend has the statement already; Bind and Describe get the name of ours, behind a
// Parse of ours where the backend lacks it; Close is answered here, too, but behind a statement at work. Every such
// message is an entry of Replies with a note, so that an error in the pipeline takes back exactly what it made the
// backend skip. What PostgreSQL would refuse is sent to the backend in a form that it refuses with the same error.
//
// A client that prepares gets the statement as the catalog is now: what the backend has from before a change,
// or from before something that is still at work, is closed and parsed anew.
// The backend is an argument, for it changes. Must not know sessions, servers or pools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/settings/params.hpp"
#include "core/statements/client_statements.hpp"
#include "core/statements/statement_pool.hpp"

namespace pgpool::core
{

class BackendStatements;
class Replies;
class StatementNotes;

class StatementRewriter
{
public:
	// Of a message: it goes as it is; more of it is needed; it waits, see waits(); it is done as far as `taken` says.
	enum class Verdict { Verbatim, More, Settle, Done };
	struct Message {
		const char *at;
		size_t have, total; // bytes of it that are here, and will be
		char type() const { return *at; }
	};
	struct Taken {
		size_t used = 0;     // Done: so much of the message is in `out`; the rest goes as it is
		uint32_t needed = 0; // More: not before so much is here
	};

	StatementRewriter();
	~StatementRewriter();
	StatementRewriter(const StatementRewriter &) = delete;
	StatementRewriter &operator=(const StatementRewriter &) = delete;

	void set_session_mode(bool on) { naming_ = on ? Naming::Session : Naming::Shared; }
	void forget(); // the client is gone

	// ---- messages of the client
	Verdict rewrite(BackendStatements &backend, const Message &message, std::string &out, Taken &taken);
	// In a message that goes as it is: where the name begins. 0: it has none that must be disguised.
	static size_t name_to_disguise(const Message &message);
	void account(BackendStatements &backend, const Message &message); // one that goes as it is
	// Behind the client's Sync: the statement goes that only served to have a name refused.
	bool has_cleanup() const;
	void clean_up(BackendStatements &backend, std::string &out);
	// Without a server, with nothing outstanding: Parse of what a server of this pool has, and Close. A client
	// that only prepares needs no server; one that waits for one while it prepares could wait for itself.
	// `has_prepared(statement, shape)`: whether a server has it for certain, and how it looks.
	template <class F>
	bool answer(StatementPool &pool, const Params &params, const Message &message, std::string &answers, F has_prepared)
	{
		if (message.type() == 'C')
			return answer_close(pool.store(), message, answers);
		Shape shape;
		Statement *s = statement_of_parse(pool, params, message);
		if (s && has_prepared(s, shape)) {
			answer_parse(pool, s, shape, message, answers);
			return true;
		}
		pool.store().release(s);
		return false;
	}
	void batch_ended(); // by a Sync that needed no server

	// ---- what waits. A message may mean what replies to earlier ones decide: it waits for them, and all behind it
	bool waits() const { return waits_ != Waits::No; }
	bool waits_for_round() const { return waits_ == Waits::Round; } // the next ReadyForQuery
	bool has_what_it_awaits(const Replies &replies) const; // replies, and they are here; or a copy is in between
	void await_round();
	bool waits_behind(const BackendStatements &backend); // a batch that may have to be served again
	void settled();

	// ---- what becomes of its statements
	void on_assigned();
	void on_unused(const BackendStatements &backend); // nothing of what it got was executed
	void on_discarded(const StatementNotes &notes);   // DISCARD ALL or DEALLOCATE ALL was executed
	// The batch that uses `name` as `s` is served again. `prepared`: by that batch, see Replay.
	void start_over(Statement *s, std::string_view name, bool prepared, bool forgets_columns);
	// The last batch is served again as a whole, on another server: what it prepared, it will prepare then.
	void forget_batch();
	void on_unnamed_void(); // the unnamed statement was not prepared after all
	void on_unnamed_types(std::string_view parameter_description, const Replies &replies);
	void on_idle(const Params &params); // for some time, without a server

	// What Bind of this name would run, as its Parse had it behind the name; nullptr: that is not known here.
	const Statement *statement_of(std::string_view name) const;

	ClientStatements *names() { return own_ ? own_names() : nullptr; }
	std::string name_of(std::string_view server_name, const StatementNotes &notes) const; // "" = the unnamed one
	// Why its server cannot be given to another client.
	bool pins() const { return uses_own_names() || has_long_unnamed(); }
	bool uses_own_names() const { return naming_ != Naming::Shared; }
	bool has_long_unnamed() const; // and it is not used yet
	// It left statements on the server that are not ours.
	bool leaves_own_names() const { return uses_own_names() || has_cleanup(); }

private:
	struct Own;
	class Rewriting;
	// How the client's statements are called on backends.
	enum class Naming : uint8_t {
		Shared,
		Own, // from the first one on that is too long to be shared
		Session
	};
	enum class Waits : uint8_t {
		No,
		Round,  // for the end of the batch that is at work
		Replies // up to a place in the stream of messages
	};

	Own &own(StatementStore &store);
	ClientStatements *own_names();
	void forget_unnamed();
	bool has_room_for(StatementPool &pool, std::string_view body);
	char kind_of(const Message &message) const;
	bool answer_close(StatementStore &store, const Message &message, std::string &answers);
	Statement *statement_of_parse(StatementPool &pool, const Params &params, const Message &message);
	void answer_parse(StatementPool &pool, Statement *s, Shape shape, const Message &message, std::string &answers);

	std::unique_ptr<Own> own_; // from its first statement on
	Naming naming_ = Naming::Shared;
	Waits waits_ = Waits::No;
};

} // namespace pgpool::core
