// What a server's backend tells of settings and pins, and what follows: who keeps it, is parked, or is ended. See
// server.hpp; what the agent is told is in agent_link.hpp.
//
// The agent reports every setting that a client can change, at the end of each statement that changed it, and why
// the session must stay where it is. Without it (a route by TCP, a server that does not preload the library) a
// server reports what PostgreSQL reports by itself.
#include "core/server/server.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/context/context.hpp"
#include "core/group/group.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using Counted = ServerPins::Counted;

bool ServerConn::on_parameter(std::string_view name, std::string_view value, bool whole)
{
	bool forward = false;
	const bool for_us = name.substr(0, 1) == "="; // what a value is that the client was told in its encoding
	if (for_us)
		name.remove_prefix(1);
	if (name == "pgpool.identity") // the login has looked at it
		return false;
	if (name == "pgpool.agent") {
		agent_.answers(value == "1");
	} else if (name == "pgpool.pins") {
		pins_.tell(value);
		pins_.tell_settings(settings_.too_many());
	} else if (name == "pgpool.idle_session_timeout") {
		agent_.set_idle_session_timeout(atoi(std::string(value).c_str()));
	} else if (name == "pgpool.own") { // of those that PostgreSQL itself reports
		settings_.tell_own(value);
	} else if (on_node() && name == kInHotStandby) {
		if (value != "on") { // it was promoted: its data go another way from here on
			said_fatal_ = true;
			group_.context().nodes().fails(node_of(target()), group_.context().now(), "it was promoted");
		}
	} else if (is_fixed_parameter(name)) {
		const bool of_the_role = name == "session_authorization" || name == "is_superuser";
		if (name == "session_authorization")
			pins_.tell_identity(value != group_.role());
		// a server that was opened before the role was changed does not know it as it is now
		if (!on_node() && (!of_the_role || (state_ == control::ServerState::Login && !stale())))
			group_.greeting().set_fixed(name, value);
		if (name == kInHotStandby && user_)
			user_->on_hot_standby(value == "on");
		return !for_us;
	} else if (name.substr(0, 1) == "!") { // back to what it is reset to
		name.remove_prefix(1);
		settings_.tell_reset(name, value, whole);
		pins_.tell_settings(settings_.too_many());
	} else {
		forward = settings_.tell(name, value, whole) && !for_us;
		pins_.tell_settings(settings_.too_many());
	}
	if (user_ && is_tcp_setting(name))
		user_->on_tcp_settings(settings_.now());
	return forward;
}

// Why the client must go on here although its transaction is over, whoever says so; ServerUser::pinned_by() names it.
bool ServerConn::kept(const Standing &client) const
{
	return (pins_.any() && !on_node()) || client.pinned; // on a node nobody keeps anything: it is closed then
}

bool ServerConn::only_listens(const Standing &client) const
{
	return pins_.only_listens() && !client.pinned;
}

// Between two transactions, and when the client has left: within one there is nothing to be counted yet.
void ServerConn::count_kept()
{
	Counted as = Counted::Not;
	// A listener is in no sum of kept ones, and a client in session mode keeps its server in any case.
	if (user_ && !is_listener_ && !client_.session_mode) {
		const Standing client = standing();
		if (kept(client))
			as = agent_.there() && pins_.may_park() && only_listens(client) ? Counted::Parkable : Counted::Kept;
	}
	pins_.count(as, owner_.gauges());
}

int64_t ServerConn::kept_since() const
{
	const bool idle = pins_.counted() == Counted::Kept && replies_.at_rest() && !standing().mid_message;
	return idle ? times_.since() : 0; // its last answer
}

bool ServerConn::may_park() const
{
	if (pins_.counted() != Counted::Parkable || !user_ || settings_.awaited() || !user_->may_park())
		return false;
	const Standing client = standing();
	return client_at_rest(client) && only_listens(client);
}

void ServerConn::park()
{
	if (!user_->park())
		cannot_park();
}

void ServerConn::cannot_park()
{
	pins_.cannot_park(group_.context().now());
	count_kept();
}

// The pool chose its client, for others wait.
void ServerConn::end_surplus_pin(int64_t now, int32_t most)
{
	user_->end(
	    {"53400", "too many clients of this pool keep their server",
	     "This one keeps it because of: " + std::string(user_->pinned_by()) + ", and was idle for " +
	         std::to_string((now - kept_since()) / 1000) + " ms while others waited. A pool of " +
	         std::to_string(group_.settings().pool_size.load(std::memory_order_relaxed)) + " has at most " +
	         std::to_string(most) + " for such clients.",
	     "Raise max_pinned or pool_size of the tenant or user, or pgpool.pin_grace_time, or use pool_mode session or "
	     "the session port."});
}

// A client that keeps the server between transactions, and has been silent for `idle_ms`.
void ServerConn::end_idle_pin(int64_t idle_ms)
{
	const int32_t limit = group_.settings().pin_idle_timeout.load(std::memory_order_relaxed);
	const std::string_view reasons = user_->pinned_by();
	if (limit <= 0 || idle_ms < limit || reasons.empty() || client_.session_mode)
		return;
	user_->end({proto::sqlstate::kIdleSession, "terminating connection due to pgpool.pin_idle_timeout",
	            "The client was idle for " + std::to_string(idle_ms) +
	                " ms and kept its server because of: " + std::string(reasons) + ".",
	            "The limit is pgpool.pin_idle_timeout or pin_idle_timeout of the tenant or user, now " +
	                std::to_string(limit) + " ms."});
}

} // namespace pgpool::core
