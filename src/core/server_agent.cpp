// What a server's backend tells by the agent in it, and what it is told. See region::AgentSlot and server.hpp.
//
// The agent reports every setting that a client can change, at the end of each statement that changed it, and why
// the session must stay where it is. Without it (a route by TCP, a server that does not preload the library) a
// server reports what PostgreSQL reports by itself.
#include "core/server.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/engine.hpp"
#include "core/pool_group.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kParkAgain = 5000000; // after a parking that failed, microseconds

} // namespace

void ServerConn::take_agent_slot()
{
	if (!by_tcp_) // the peer of a Unix socket can be known
		agent_slot_ = group_.engine().take_agent_slot();
	if (agent_slot_ == kNoSlot)
		return;
	agent_slot().defaults_length = 0;
	agent_slot().client.store(0);
	identified_ = UINT64_MAX;
	identify({});
}

void ServerConn::free_agent_slot()
{
	if (agent_slot_ != kNoSlot)
		group_.engine().free_agent_slot(agent_slot_);
	agent_slot_ = kNoSlot;
	agent_ = false;
	statements_.set_agent(nullptr);
}

// As the startup packet says it; "" = there is none.
std::string ServerConn::agent_name()
{
	if (agent_slot_ == kNoSlot)
		return {};
	return std::to_string(agent_slot_) + "." + std::to_string(agent_slot().generation.load());
}

region::AgentSlot &ServerConn::agent_slot()
{
	return group_.engine().region().agent(agent_slot_);
}

void ServerConn::keep_native()
{
	native_ = params_;
}

bool ServerConn::on_parameter(std::string_view name, std::string_view value, bool whole)
{
	bool forward = false;
	const bool for_us = name.substr(0, 1) == "="; // what a value is that the client was told in its encoding
	if (for_us)
		name.remove_prefix(1);
	if (name == "pgpool.identity") // the login has looked at it
		return false;
	if (name == "pgpool.agent") {
		agent_ = value == "1";
		statements_.set_agent(agent_ ? &agent_slot() : nullptr);
	} else if (name == "pgpool.pins") {
		set_pins(value);
	} else if (name == "pgpool.idle_session_timeout") {
		idle_session_timeout_ = atoi(std::string(value).c_str());
	} else if (name == "pgpool.own") { // of those that PostgreSQL itself reports
		params_ = params_.with_own(value);
	} else if (is_fixed_parameter(name)) {
		const bool of_the_role = name == "session_authorization" || name == "is_superuser";
		if (name == "session_authorization")
			foreign_identity_ = value != group_.role();
		// a server that was opened before the role was changed does not know it as it is now
		if (!of_the_role || (state_ == control::ServerState::Login && !stale()))
			group_.greeting().set_fixed(name, value);
		if (name == kInHotStandby && user_)
			user_->on_hot_standby(value == "on");
		return !for_us;
	} else if (name.substr(0, 1) == "!") { // back to what it is reset to
		name.remove_prefix(1);
		if (defaults_ && defaults_->find(name))
			(void)keep(name, value, whole, false);
		else
			params_ = params_.without(name);
		update_pins();
	} else {
		forward = keep(name, value, whole, !(agent_ && native_ && !native_->find(name))) && !for_us;
	}
	if (user_ && is_tcp_setting(name))
		user_->on_tcp_settings(params_);
	return forward;
}

// A value above what is kept of one client is known by its name alone, and so the client keeps this server: until the
// setting is reset, or for good when there are twice as many as may be.
bool ServerConn::keep(std::string_view name, std::string_view value, bool whole, bool reported)
{
	const region::Settings &s = group_.engine().settings();
	const auto most = static_cast<size_t>(s.max_session_settings);
	const Param *there = params_->find(name);
	const size_t others = params_->bytes - (there ? there->name.size() + there->value.size() : 0);
	const bool too_long =
	    !whole || others + name.size() + value.size() > size_t{1024} * static_cast<size_t>(s.session_settings_memory);
	untracked_ |= name.size() >= kLongestName || (!there && params_->own > 2 * most);
	if (!untracked_)
		params_ = params_.with(name, too_long ? std::string_view() : value, reported, too_long,
		                       reported && is_preset(name, value));
	preset_changed_ |= reported;
	update_pins();
	return reported;
}

// The agent tells which are not. Without it, what is as it was at the login.
bool ServerConn::is_preset(std::string_view name, std::string_view value) const
{
	if (!native_) // at the login
		return true;
	const Param *p = agent_ ? params_->find(name) : native_->find(name);
	return p && (agent_ ? p->preset : p->value == value);
}

// After a reload, which reaches a session that is there, too.
void ServerConn::learn_defaults()
{
	preset_changed_ = false;
	for (const auto &p : params_->items) {
		if (p->reported && p->preset)
			native_ = native_.with(p->name, p->value, true, p->unknown, true);
	}
}

void ServerConn::set_pins(std::string_view pins)
{
	agent_pins_ = pins;
	pins_ = pins;
	update_pins();
}

void ServerConn::update_pins()
{
	static constexpr std::string_view kSettings = "settings";
	const region::Settings &s = group_.engine().settings();
	const bool too_many =
	    untracked_ || params_->unknown > 0 || params_->own > static_cast<size_t>(s.max_session_settings);
	if (too_many == (pins_.size() > agent_pins_.size()))
		return;
	pins_ = agent_pins_;
	if (too_many)
		pins_.append(pins_.empty() ? "" : ", ").append(kSettings);
}

// Why the client must go on here although its transaction is over, whoever says so; ServerUser::pinned_by() names it.
bool ServerConn::kept(const Standing &client) const
{
	return !pins_.empty() || foreign_identity_ || client.pinned;
}

bool ServerConn::only_listens(const Standing &client) const
{
	return pins_ == "LISTEN" && !foreign_identity_ && !client.pinned;
}

// Between two transactions, and when the client has left: within one there is nothing to be counted yet.
void ServerConn::count_kept()
{
	const bool keeps = user_ && !is_listener_ && !client_.session_mode && kept(standing());
	if (keeps || counted_pinned_)
		recount_kept(keeps);
}

// A client that only listens can be parked, and so takes no server from the others for long.
void ServerConn::recount_kept(bool kept)
{
	const bool parkable = kept && agent_ && !cannot_park_ && only_listens(standing());
	region::PoolCounters &c = group_.counters();
	c.pinned.store(c.pinned.load() + kept - std::exchange(counted_pinned_, kept));
	c.parkable.store(c.parkable.load() + parkable - std::exchange(counted_parkable_, parkable));
}

int64_t ServerConn::kept_since() const
{
	const bool idle = counted_pinned_ && !counted_parkable_ && replies_.at_rest() && !standing().mid_message;
	return idle ? since_ : 0; // its last answer
}

bool ServerConn::may_park() const
{
	if (!counted_parkable_ || !user_ || holding_ || !user_->may_park())
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
	park_again_at_ = group_.engine().now() + kParkAgain;
	cannot_park_ = true;
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

// Before the first message of the client that it is assigned to.
void ServerConn::announce_client()
{
	if (agent_slot_ == kNoSlot)
		return;
	agent_slot().client.store(client_.id, std::memory_order_relaxed);
	agent_slot().pin_sequences.store(group_.settings().pin_sequences.load(std::memory_order_relaxed),
	                                 std::memory_order_release);
}

// Whom the backend serves, for pg_stat_activity and the log. Not at each release: the next client comes at once, and is
// often the same.
void ServerConn::identify(const Client &client)
{
	if (agent_slot_ == kNoSlot || client.id == identified_)
		return;
	identified_ = client.id;
	region::AgentSlot &a = agent_slot();
	const uint32_t sequence = a.identity_sequence.load(std::memory_order_relaxed) | 1;
	a.identity_sequence.store(sequence, std::memory_order_relaxed);
	std::atomic_thread_fence(std::memory_order_release);
	a.address_length = static_cast<uint32_t>(std::min(client.address.size(), sizeof(a.address)));
	if (!client.address.empty())
		memcpy(a.address, client.address.data(), a.address_length);
	a.pooled = client.id == 0;
	a.identity_sequence.store(sequence + 1, std::memory_order_release);
}

// pg_stat_activity says of a backend that nobody uses for a while that it is so; the agent looks when it answers.
void ServerConn::show_idle()
{
	identify({});
	shown_idle_ = true;
	send_silent_sync();
}

// A client's startup parameters are what RESET goes back to for it. One with more than fits gets the server's own.
void ServerConn::set_defaults(const Params &defaults)
{
	if (agent_slot_ == kNoSlot || defaults_ == defaults)
		return;
	defaults_ = defaults;
	region::AgentSlot &a = agent_slot();
	size_t length = 0;
	for (const auto &item : defaults ? defaults->items : ParamSet::Items()) {
		const Param &p = *item;
		const size_t size = p.name.size() + p.value.size() + 2;
		if (length + size > sizeof(a.defaults)) {
			length = 0;
			break;
		}
		memcpy(a.defaults + length, p.name.c_str(), p.name.size() + 1);
		memcpy(a.defaults + length + p.name.size() + 1, p.value.c_str(), p.value.size() + 1);
		length += size;
	}
	a.defaults_length = static_cast<uint32_t>(length);
}

// Before its Parse is sent: the plans of `s` are to be made for their parameters each time.
// Before a query of ours is sent to a backend that waits for one.
void ServerConn::announce_own()
{
	if (!agent_)
		return;
	region::Atomic<uint32_t> &applies = agent_slot().applies;
	applies.store(applies.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

// What runs now is ours and may be refused: settings one by one (whose values shall not get into the server's log),
// LISTEN.
void ServerConn::hush(bool on)
{
	if (agent_ && (agent_slot().hushed.load(std::memory_order_relaxed) != 0) != on)
		agent_slot().hushed.store(on, std::memory_order_release);
}

uint64_t ServerConn::commit_lsn()
{
	return agent_ ? agent_slot().commit_lsn.load(std::memory_order_acquire) : 0;
}

// The position of a client that only reads is not that of who wrote here before.
uint64_t ServerConn::new_commit()
{
	const uint64_t lsn = commit_lsn();
	return lsn == std::exchange(commit_known_, lsn) ? 0 : lsn;
}

} // namespace pgpool::core
