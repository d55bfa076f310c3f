// What one backend has of statements: which shared ones, what its replies will make of them, what it refuses for us.
//
// Owns the table of them (server_statements.hpp), the notes of what is on its way (statement_notes.hpp) and the batch
// that may be served again (replay.hpp). A client's messages come here as its StatementRewriter makes them, the
// backend's as its server splits them; whom it serves is an argument, for that changes. Must not know sessions or
// streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/agent/agent_link.hpp"
#include "core/settings/params.hpp"
#include "core/statements/server_statements.hpp"
#include "core/statements/replay.hpp"
#include "core/account/replies.hpp"
#include "core/statements/statement_notes.hpp"
#include "core/statements/statement_pool.hpp"
#include "core/statements/substitute.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class StatementRewriter;

class BackendStatements
{
public:
	// `params`: the settings that the backend has.
	// `is_primary`: what it says of a statement holds for the pool. A node may be behind a change of the catalog.
	BackendStatements(StatementPool &pool, Replies &replies, const Params &params, AgentLink &agent,
	                  Substitute &substitute, bool is_primary = true);
	~BackendStatements();
	BackendStatements(const BackendStatements &) = delete;
	BackendStatements &operator=(const BackendStatements &) = delete;

	// ---- for the server. `client`: whom it serves, nullptr = nobody
	void assigned(uint64_t assignment, StatementRewriter &client);
	// What the reply with the verdict `v` means. `forward`: the message goes to the client.
	void on_reply(char type, const Replies::Verdict &v, std::string_view body, StatementRewriter *client,
	              bool &forward);
	void on_fake(StatementRewriter *client);      // a reply of ours is due
	void on_discarded(StatementRewriter *client); // DISCARD ALL or DEALLOCATE ALL was executed
	// An error came: in these steps, for whether the batch is served again is not decided here alone.
	void make_void(const Replies::Verdict &v, StatementRewriter *client);
	void make_all_void(StatementRewriter *client);
	[[nodiscard]] bool may_start_over(const Replies::Verdict &v, std::string_view error);
	void start_over(const Replies::Verdict &v, std::string_view error, StatementRewriter &client);
	void start_over_elsewhere(StatementRewriter &client); // the batch that a node served
	// True: the client gets another one in its place.
	[[nodiscard]] bool replace_error(const Replies::Verdict &v, std::string_view error, StatementRewriter &client);
	// Closes shared statements until no more than `most` are there. True: there is something in `out`.
	bool close_surplus(size_t most, std::string &out);
	size_t most() const; // that there may be
	bool has_too_many() const { return table_.will_be() > most(); }

	// ---- for the rewriter
	StatementPool &pool() { return pool_; }
	Replies &replies() { return replies_; }
	const Replies &replies() const { return replies_; }
	ServerStatements &table() { return table_; }
	StatementNotes &notes() { return notes_; }
	Replay &replay() { return replay_; }
	const Replay &replay() const { return replay_; }
	uint64_t assignment() const { return assignment_; }
	const std::string &reading() const { return params_->reading(); } // what decides what a text means there
	bool plans_for_parameters() const { return agent_.there(); }      // each time, where it is asked to
	void plan_for_parameters(const Statement *s) { agent_.announce_custom(s->number); }
	// What the client is told when the backend refuses the next Replies::kRefused.
	void set_refusal(const proto::Error &why);

private:
	void note_shape(Shape shape, StatementRewriter *client);
	bool rename(std::string_view error, StatementRewriter &client);

	StatementPool &pool_;
	Replies &replies_;
	const Params &params_;
	AgentLink &agent_;
	Substitute &substitute_;
	const bool is_primary_;
	ServerStatements table_;
	StatementNotes notes_;
	Replay replay_;
	std::string refusal_; // ErrorResponse in place of that to Replies::kRefused
	uint64_t assignment_ = 0;
	uint64_t types_told_ = 0; // by the last ParameterDescription that was ours
};

} // namespace pgpool::core
