// Messages of a client on their way to its server, as many as one turn takes.
//
// Splits what came into messages and writes each into the account of replies. They go as they came, in one run; where a
// message must be rewritten, what is before it goes with it as a copy. So at any moment all up to at_ is taken: what is
// before run_ is in the copy, in its form for the backend, the rest of it goes verbatim behind the copy.
// Owns that split. Lives for one call. Must not know sessions, nor whose turn is next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/client/client_input.hpp"
#include "core/client/client_tally.hpp"
#include "core/statements/rewriter.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class BackendStatements;
class ServerConn;

class MessageRun
{
public:
	enum class Stop : uint8_t {
		Through,    // what is left waits for its rest, or for replies; usually nothing is left
		Enough,     // the backend has enough to do
		Turn,       // it is the others' turn
		Terminate,  // the client leaves
		Impossible, // PostgreSQL has no such message: see refusal()
		NoMemory
	};

	// `copy` is empty memory for what is rewritten.
	MessageRun(ServerConn &server, ClientInput &input, StatementRewriter &statements, ClientTally &tally,
	           std::string &copy, std::string_view bytes);
	MessageRun(const MessageRun &) = delete;
	MessageRun &operator=(const MessageRun &) = delete;

	[[nodiscard]] Stop go(uint32_t most); // messages
	proto::Error refusal() const;
	// As long as it may have to be served again.
	void remember();
	// The backend keeps replies to itself until there are many, or it is asked for them.
	void ask_for_replies();

	std::string_view all() const { return {start_, static_cast<size_t>(end_ - start_)}; }
	std::string_view rest() const { return {at_, static_cast<size_t>(end_ - at_)}; } // what is not taken
	// For the server, in this order.
	const std::string &copied() const { return copy_; }
	std::string_view verbatim() const { return {run_, static_cast<size_t>(at_ - run_)}; }

private:
	size_t have() const { return static_cast<size_t>(end_ - at_); }
	bool has_room();
	StatementRewriter::Verdict rewrite(const StatementRewriter::Message &message);
	void copy_to(const char *to);

	ServerConn &server_;
	BackendStatements &backend_;
	ClientInput &input_;
	StatementRewriter &statements_;
	ClientTally &tally_;
	std::string &copy_;
	const char *const start_, *const end_;
	const char *at_;
	const char *run_;
	const char *replay_from_; // the batch that may be served once more
};

} // namespace pgpool::core
