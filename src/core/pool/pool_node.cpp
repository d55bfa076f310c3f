// What a pool of a node does that one of the primary does not: its clients need not wait, and who is let in there need
// not be let in here. See pool.hpp.
#include "core/pool/pool.hpp"

#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int32_t kMostWaitForNode = 300; // ms

} // namespace

void Pool::node_works()
{
	context_.nodes().works(node_of(target_));
	group_.note_refusal(node_of(target_), false);
}

// What the node says to this role and database alone concerns no other pool. The primary serves those who wait.
void Pool::node_failed(const LoginFailure &failure)
{
	const bool of_all = failure.limit == control::ServerLimit::None &&
	                    Attempts::judge(failure.why, failure.by_server) == Attempts::Verdict::Wait;
	if (failure.by_server && !of_all) {
		group_.note_refusal(node_of(target_), true);
		context_.nodes().refuses(node_of(target_), "no reads of " + group_.described() + ": " + failure.why.message);
	} else {
		context_.nodes().fails(node_of(target_), context_.now(), failure.why.message);
	}
	fail_waiters(failure.why, false);
}

// A login for which nobody waits: the node has failed before.
void Pool::try_node()
{
	const int64_t now = context_.now();
	if (servers_.connecting() > 0 || attempts_.must_wait(now) || group_.draining() || !group_.can_log_in() ||
	    !context_.nodes().may_try(node_of(target_), now))
		return;
	if (places_.take(Places::Kind::Client) == Places::Taken::Yes)
		dial(new ServerConn(*this, group_));
	else
		close_one_idle(); // and the next time there is a place
}

// Those who have waited for long are served by the primary. A login that takes so long says that the node is not well.
void Pool::leave_node(int64_t now)
{
	if (waiters_.empty() || (now - waiters_.front()->since()) / 1000 < kMostWaitForNode)
		return;
	if (servers_.connecting() > 0)
		context_.nodes().fails(node_of(target_), now, "it does not answer");
	fail_waiters({proto::sqlstate::kConnectionFailure, "no server of the node became free", "", ""}, false);
}

} // namespace pgpool::core
