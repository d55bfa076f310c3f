// What a string of SQL is to the routing of reads, and who can tell.
//
// Owns the words: kinds, reasons, what the text asks for by a hint, and the port to the server's grammar. What is
// promised: a string is a Read only if each statement in it was understood and, by the grammar and by what is known of
// the database's functions, operators, types and relations (facts.hpp), changes nothing, locks nothing, and says
// nothing of the session or of the server that runs it. Whatever is not understood, not known or too long is a Write:
// it is no statement about the text, but the order to ask the primary. Must not know sessions, targets or PostgreSQL.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pgpool::core
{

class Facts;

enum class Kind : uint8_t {
	Read,
	Write,                  // to the primary; `reason` says why
	Begin,                  // BEGIN or START TRANSACTION, alone in its string; see `block`
	BeginReadOnly,          // the same with READ ONLY, and not SERIALIZABLE, which no standby can
	SetTransactionReadOnly, // SET TRANSACTION READ ONLY (and not SERIALIZABLE), alone
	End,                    // COMMIT, END, ROLLBACK, ABORT, alone; `chain`: AND CHAIN
	Nothing,                // white space, comments and semicolons
	SetRoute,               // SET pgpool.route or an alias, alone; `route` is what it sets, see `ours`
};

// Why a string is a Write (or, with Hint, whatever it is); from Transaction on, why its client's present batch is for
// the primary whatever the string is. The words are shown to users: "<words>", followed by the name where there is one.
#define PGPOOL_ROUTE_REASONS(X)                                                                                        \
	X(None, none, "it reads")                                                                                          \
	X(Modifies, modifies, "it is a command that changes data")                                                         \
	X(Utility, utility, "it is a command that is not a query")                                                         \
	X(Session, session, "it makes or uses what belongs to a session")                                                  \
	X(LockingClause, locking_clause, "it locks rows (FOR UPDATE and the like)")                                        \
	X(Into, into, "it makes a table (INTO)")                                                                           \
	X(ModifyingCte, modifying_cte, "a WITH query of it changes data")                                                  \
	X(FunctionWrites, function_writes, "it calls a function that changes something")                                   \
	X(FunctionOfSession, function_of_session, "it calls a function that speaks of the session or the server")          \
	X(FunctionUnknown, function_unknown, "it calls a function that is not known to be harmless")                       \
	X(OperatorUnknown, operator_unknown, "an operator calls a function that is not known to be harmless")              \
	X(TypeUnknown, type_unknown, "a type calls a function that is not known to be harmless")                           \
	X(ViewUnknown, view_unknown, "a view, policy or rule calls a function that is not known to be harmless")           \
	X(ViewOfSession, view_of_session, "it reads a view that speaks of the session or the server")                      \
	X(Relation, relation, "a standby has no such relation (temporary, unlogged, foreign, or a sequence)")              \
	X(CastUnknown, cast_unknown, "an implicit cast of the database calls a function that is not known to be harmless") \
	X(Setting, setting, "it shows a setting that servers have each for themselves")                                    \
	X(SeveralStatements, several_statements, "it is several statements, and not all of them read")                     \
	X(NotParsed, not_parsed, "it was not understood")                                                                  \
	X(TooLong, too_long, "it is longer than 64 kB")                                                                    \
	X(Encoding, encoding, "names or literals are in an encoding that is not looked into here")                         \
	X(FactsMissing, facts_missing, "what functions of the database do is not known yet")                               \
	X(Hint, hint, "a hint in its text says so")                                                                        \
	X(Learned, learned, "a standby refused it before")                                                                 \
	X(Transaction, transaction, "it begins or ends a transaction block, or is in one")                                 \
	X(KeptServer, kept_server, "its client keeps its server, or sent it before the answer to the one before")          \
	X(Batch, batch, "its messages are no whole batch of reads")                                                        \
	X(PrimaryShare, primary_share, "a read, but it was the primary's turn (primary_reads)")                            \
	X(NoReplica, no_replica, "a read, but no replica serves within its limits")                                        \
	X(ReplicaBehind, replica_behind, "a read, but the replica had not replayed what the client must see")              \
	X(ReplicaFailed, replica_failed, "a read, but the replica refused it, or could not be reached")

enum class Reason : uint8_t {
#define PGPOOL_REASON_VALUE(reason, column, words) reason,
	PGPOOL_ROUTE_REASONS(PGPOOL_REASON_VALUE)
#undef PGPOOL_REASON_VALUE
};
#define PGPOOL_REASON_ONE(reason, column, words) +1
constexpr int kReasons = 0 PGPOOL_ROUTE_REASONS(PGPOOL_REASON_ONE);
#undef PGPOOL_REASON_ONE

constexpr const char *name_of(Reason r)
{
	constexpr const char *kNames[] = {
#define PGPOOL_REASON_NAME(reason, column, words) #column,
	    PGPOOL_ROUTE_REASONS(PGPOOL_REASON_NAME)
#undef PGPOOL_REASON_NAME
	};
	return kNames[static_cast<int>(r)];
}

constexpr const char *words_of(Reason r)
{
	constexpr const char *kWords[] = {
#define PGPOOL_REASON_WORDS(reason, column, words) words,
	    PGPOOL_ROUTE_REASONS(PGPOOL_REASON_WORDS)
#undef PGPOOL_REASON_WORDS
	};
	return kWords[static_cast<int>(r)];
}

// A replica could have served it.
constexpr bool is_of_read(Reason r)
{
	return r == Reason::PrimaryShare || r == Reason::NoReplica || r == Reason::ReplicaBehind ||
	       r == Reason::ReplicaFailed;
}

// What a user asks for: by a hint at the beginning of the text, or by SET.
enum class Route : uint8_t { Auto, Primary, Replica };

enum class Isolation : uint8_t { Default, ReadCommitted, RepeatableRead, Serializable };
enum class Access : uint8_t { Default, ReadOnly, ReadWrite };

struct Classified {
	Kind kind = Kind::Write;
	Reason reason = Reason::NotParsed;
	// Of a Read or Write: what its hint says. A hint to the primary makes a Read a Write (Reason::Hint). One to a
	// replica makes a Write a Read (Reason::Hint) whose only fault is a function, an operator, a type, a cast or a
	// view, or that the facts are missing; never one that changes data by its grammar, locks, or belongs to a session.
	// Of SetRoute: the value.
	Route route = Route::Auto;
	bool local = false; // SetRoute: SET LOCAL
	// SetRoute: the server has no such command (SET SERVER ROLE TO): it is answered here, or its client gets an error.
	// The other spellings are settings that a server takes, too.
	bool ours = false;
	bool chain = false;                       // End
	bool rolls_back = false;                  // End: ROLLBACK, ABORT
	Isolation isolation = Isolation::Default; // Begin, BeginReadOnly: as it says; READ UNCOMMITTED is ReadCommitted
	Access access = Access::Default;          // Begin: READ WRITE counts against default_transaction_read_only
	std::string object;                       // of a Write: the function, operator, type or relation; "" = none

	bool operator==(const Classified &o) const
	{
		return kind == o.kind && reason == o.reason && route == o.route && local == o.local && ours == o.ours &&
		       chain == o.chain && rolls_back == o.rolls_back && isolation == o.isolation && access == o.access &&
		       object == o.object;
	}
};

// What decides how a text is read; values as PostgreSQL reports them. The strings are the caller's.
struct Reading {
	std::string_view client_encoding = "UTF8";
	std::string_view server_encoding = "UTF8";
	bool standard_conforming_strings = true;
	uint8_t backslash_quote = 2; // 0 off, 1 on, 2 safe_encoding
	// Whether functions of the users' that are declared IMMUTABLE or STABLE are taken by their word. Those of C are in
	// any case (extensions), as are those that pgpool.allow_on_replica() names.
	bool trusts_stable = false;
	// What the session says of all its statements; a hint in a text counts before it. Replica takes as harmless what is
	// not known, but no function that is known to write or to speak of the session.
	Route route = Route::Auto;

	bool operator==(const Reading &o) const
	{
		return route == o.route && client_encoding == o.client_encoding && server_encoding == o.server_encoding &&
		       standard_conforming_strings == o.standard_conforming_strings && backslash_quote == o.backslash_quote &&
		       trusts_stable == o.trusts_stable;
	}
};

constexpr size_t kMostGrammar = 65536; // bytes of a string that is parsed: longer ones would hold up the worker

// The server's grammar. Never throws, never logs; the same answer to the same question. The text need not end with a
// NUL. `facts`: nullptr = nothing is known of the database's names, so that what names a function, operator, type or
// relation is a Write with FactsMissing. In the extended protocol a text with parameters ($1) is classified as any.
class Grammar
{
public:
	virtual ~Grammar() = default;
	virtual Classified classify(std::string_view sql, const Reading &reading, const Facts *facts) = 0;
};

} // namespace pgpool::core
