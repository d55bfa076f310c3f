// The server's grammar in a worker. See grammar.hpp.
//
// Owns the step from what has no C++ runtime to what has one. It runs in the main thread alone: the parser looks at the
// depth of its stack.
#include "postgres/worker/grammar.hpp"

#include "postgres/base/grammar.hpp"

namespace pgpool::postgres
{

namespace
{

class ServerGrammar final : public core::Grammar
{
public:
	core::Classified classify(std::string_view sql, const core::Reading &reading, const core::Facts *facts) override
	{
		const Finding f = classify_text(sql.data(), sql.size(), reading, facts);
		core::Classified c;
		c.kind = f.kind;
		c.reason = f.reason;
		c.route = f.route;
		c.local = f.local;
		c.ours = f.ours;
		c.chain = f.chain;
		c.rolls_back = f.rolls_back;
		c.isolation = f.isolation;
		c.access = f.access;
		c.object = f.object;
		return c;
	}
};

} // namespace

std::unique_ptr<core::Grammar> server_grammar()
{
	return std::make_unique<ServerGrammar>();
}

} // namespace pgpool::postgres
