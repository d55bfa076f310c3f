// Messages of a client that needs no server for them, as many as one turn takes.
//
// Because nothing of it is outstanding, these can be answered here: Sync, Flush, Terminate, what is left of a failed
// copy, everything that is skipped after an error of ours, Parse of what its pool knows, and Close. The first message
// that is none of these ends the run, and a server is asked for when it is whole (or kChunk bytes of it are here).
// Owns the answers. Lives for one call. Must not know sessions, nor who has the next turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/client/client_input.hpp"
#include "core/settings/params.hpp"
#include "core/statements/rewriter.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class PoolGroup;

class AnswerRun
{
public:
	enum class Stop : uint8_t {
		Through,    // what is left, if anything, waits for its rest
		Answers,    // there are so many that they are to be sent; go() goes on
		Turn,       // it is the others' turn
		Server,     // the next message needs one
		Terminate,  // the client leaves
		Impossible, // PostgreSQL has no such message: see refusal()
	};

	AnswerRun(PoolGroup &group, const Params &params, ClientInput &input, StatementRewriter &statements,
	          std::string_view bytes)
	    : group_(group), params_(params), input_(input), statements_(statements), at_(bytes.data()),
	      end_(at_ + bytes.size())
	{
	}
	AnswerRun(const AnswerRun &) = delete;
	AnswerRun &operator=(const AnswerRun &) = delete;

	[[nodiscard]] Stop go(uint32_t most); // messages
	proto::Error refusal() const;
	std::string &answers() { return answers_; } // whatever stopped it
	std::string_view rest() const { return {at_, have()}; }

private:
	size_t have() const { return static_cast<size_t>(end_ - at_); }
	bool answer_statement(size_t total);

	PoolGroup &group_;
	const Params &params_;
	ClientInput &input_;
	StatementRewriter &statements_;
	const char *at_, *const end_;
	uint32_t messages_ = 0;
	std::string answers_;
};

} // namespace pgpool::core
