// See pool.hpp.
#include "core/pool.hpp"

#include <algorithm>
#include <cstring>

#include "core/engine.hpp"
#include "core/listeners.hpp"
#include "core/pool_group.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;
using region::bump;

namespace
{

constexpr int64_t kRetryAfter = 500000; // after a server could not log in, microseconds
constexpr int64_t kFullFor = 1000000;   // after the server refused a login at a limit of its own
constexpr int64_t kAskAgain = 50000;    // between two requests for a place of another worker
constexpr int64_t kYieldPause = 20000;  // a yielded place is not taken back at once
constexpr uint32_t kYieldAfterMs = 30;  // a busy server is not given away for less
constexpr int32_t kLeastListeners = 2;  // that a small pool may have in each worker
constexpr int kLookAt = 16;             // idle servers that are compared for their settings

void set(region::Atomic<int32_t> &gauge, size_t n)
{
	gauge.store(static_cast<int32_t>(n), std::memory_order_relaxed);
}

// Failures that pass by themselves: clients go on waiting.
bool is_passing(const std::string &sqlstate)
{
	return sqlstate == proto::sqlstate::kCannotConnectNow || sqlstate == proto::sqlstate::kTooManyConnections ||
	       sqlstate == proto::sqlstate::kConnectionFailure || sqlstate == proto::sqlstate::kAdminShutdown ||
	       sqlstate == proto::sqlstate::kProtocolViolation || sqlstate == "57P02";
}

// By ALTER ROLE, GRANT, ALTER DATABASE or a line of pg_hba.conf, as it came: a session that is open did nothing wrong.
bool is_taken_back(const std::string &sqlstate)
{
	return sqlstate == proto::sqlstate::kInvalidAuthorization || sqlstate == "42501" || sqlstate == "55000";
}

} // namespace

Pool::Pool(PoolGroup &group) : group_(group), engine_(group.engine()), mine_(group.counters()) {}

void Pool::refresh(bool renamed)
{
	if (renamed) {
		refusal_.reset(); // it went by another name
		retry_at_ = 0;
	} else if (refusal_ && engine_.has_looked(refusal_->look)) {
		const Refusal r = *std::exchange(refusal_, std::nullopt);
		fail_waiters(r.why, r.fatal);
	}
	// A smaller limit: idle servers go, as many as are too many; those that are going already count.
	int64_t surplus = int64_t{open_everywhere()} - group_.settings().pool_size.load(std::memory_order_relaxed);
	each_server([&](ServerConn *s) { surplus -= s->state() == ServerState::Closing && !s->is_listener() ? 1 : 0; });
	while (surplus-- > 0 && close_one_idle())
		;
	each_server([](ServerConn *s) {
		if (s->state() == ServerState::Idle && s->stale())
			s->close();
	});
	if (group_.dead())
		fail_waiters(group_.death());
	serve();
	grow();
}

// A new one may succeed where the last one failed.
void Pool::on_new_proof()
{
	if (refused_by_ == control::ServerLimit::None)
		retry_at_ = 0;
}

// ---- the lists

Pool::ServerList &Pool::list_of(ServerState state)
{
	return state == ServerState::Idle ? idle_ : state == ServerState::Active ? active_ : other_;
}

// The only place where a server's state and list change.
void Pool::change_state(ServerConn *server, ServerState to)
{
	auto for_waiters = [server](ServerState s) {
		return (s == ServerState::Connecting || s == ServerState::Login) && !server->is_listener();
	};
	const bool was_connecting = for_waiters(server->state_);
	const bool is_connecting = for_waiters(to);
	if (server->pool_hook.linked) {
		list_of(server->state_).remove(server);
		connecting_ -= was_connecting ? 1 : 0;
	}
	server->state_ = to;
	connecting_ += is_connecting ? 1 : 0;
	if (to == ServerState::Idle)
		idle_.push_front(server);
	else
		list_of(to).push_back(server);
	count();
}

void Pool::count()
{
	set(mine_.idle, idle_.size());
	set(mine_.active, active_.size());
	set(mine_.waiting, waiters_.size());
	mine_.waiting_since_us.store(waiters_.empty() ? 0 : waiters_.front()->since(), std::memory_order_relaxed);
}

// ---- getting a server

// One that has the settings already; else, of those that were in use last, the one that waits longest: the others may
// fit whom they served.
ServerConn *Pool::pick(const Session *session)
{
	ServerConn *oldest = nullptr;
	ServerConn *s = idle_.front();
	for (int i = 0; s && i < kLookAt; i++, s = ServerList::next(s)) {
		if (s->params() == const_cast<Session *>(session)->params())
			return s;
		oldest = s;
	}
	return oldest;
}

ServerConn *Pool::acquire(Session *session)
{
	while (waiters_.empty() && !idle_.empty()) {
		ServerConn *server = pick(session);
		if (server->stale()) {
			server->close();
			continue;
		}
		return server;
	}
	bump(mine_.waits);
	session->on_queued();
	waiters_.push_back(session);
	count();
	grow();
	if (waiters_.size() > connecting_)
		park_one();
	return nullptr;
}

// A client that only listens can do without its server.
void Pool::park_one()
{
	for (ServerConn *s = active_.front(); s; s = ServerList::next(s)) {
		if (s->may_park()) {
			s->park();
			return;
		}
	}
}

void Pool::stop_waiting(Session *session)
{
	waiters_.remove(session);
	count();
}

// Gives idle servers to those who wait. A session may release its server at once (a login does), so this
// is a loop and not a recursion.
void Pool::serve()
{
	if (serving_)
		return;
	serving_ = true;
	while (!waiters_.empty() && !idle_.empty()) {
		Session *session = waiters_.front();
		ServerConn *server = pick(session);
		if (server->stale()) {
			server->close();
			continue;
		}
		waiters_.remove(session);
		bump(mine_.wait_us, static_cast<uint64_t>(std::max<int64_t>(0, engine_.now() - session->since())));
		session->on_assigned(server);
	}
	serving_ = false;
	count();
}

void Pool::on_server_ready(ServerConn *server)
{
	const bool logged_in = server->state() == ServerState::Login;
	if (logged_in) {
		bump(mine_.server_logins);
		last_failure_ = {};
		refusal_.reset();
		if (engine_.now() >= refused_at_ + kFullFor)
			refused_by_ = control::ServerLimit::None;
		if (server->is_listener()) {
			server->set_state(ServerState::Listener);
			if (server->user())
				server->user()->on_logged_in();
			return;
		}
		Greeting &greeting = group_.greeting();
		if (!greeting.base() || (!greeting.is_of(server->opened_in_epoch()) && !server->stale()))
			greeting.learn(server->params(), server->login()->notices(), server->opened_in_epoch());
	}
	if (owed_ > 0 || engine_.draining() || group_.draining()) {
		owed_ -= owed_ > 0 ? 1 : 0;
		server->close();
		return;
	}
	server->set_state(ServerState::Idle);
	serve();
	if (logged_in && refused_by_ != control::ServerLimit::None) { // there may be room for the next who waits
		retry_at_ = waiters_.empty() ? engine_.now() + kRetryAfter : 0;
		grow();
	}
}

void Pool::grow()
{
	const int64_t now = engine_.now();
	while (waiters_.size() > connecting_ && idle_.empty()) {
		if (now < hold_until_ || group_.draining())
			return;
		if (refused_by_ != control::ServerLimit::None && connecting_ > 0)
			return;
		if (now < retry_at_) {
			ask_for_place(now);
			return;
		}
		if (!group_.can_log_in()) {
			const Credential *credential = group_.credential();
			fail_waiters(credential ? credential->route_error
			                        : proto::Error{proto::sqlstate::kInternal, "no credential for the server", "", ""});
			return;
		}
		if (!reserve()) {
			ask_others(now);
			return;
		}
		open_server();
	}
}

uint32_t Pool::open_everywhere() const
{
	int64_t sum = 0;
	for (uint32_t w = 0; w < engine_.region().header()->workers; w++)
		sum += engine_.region().pool_counters(group_.slot(), w).open.load();
	return static_cast<uint32_t>(std::max<int64_t>(0, sum));
}

bool Pool::wanted() const
{
	for (uint32_t w = 0; w < engine_.region().header()->workers; w++) {
		if (engine_.region().pool_counters(group_.slot(), w).waiting.load(std::memory_order_relaxed) > 0)
			return true;
	}
	return false;
}

// A place in the pool and one under pgpool.max_server_connections. Add first, then look (layout.hpp).
bool Pool::reserve()
{
	mine_.open.store(mine_.open.load() + 1);
	if (open_everywhere() <= static_cast<uint32_t>(std::max(0, group_.settings().pool_size.load())) &&
	    engine_.reserve_server())
		return true;
	mine_.open.store(mine_.open.load() - 1);
	return false;
}

void Pool::open_server()
{
	dial(new ServerConn(*this));
}

// It takes no place of the pool's, for it serves none of its clients. There is one for each client_encoding, which a
// client chooses: so no pool has many more of them than servers.
ServerConn *Pool::open_listener(Listener *listener)
{
	const auto workers = static_cast<int32_t>(engine_.region().header()->workers);
	if (mine_.listeners.load() >= std::max(kLeastListeners, group_.settings().pool_size.load() / workers))
		return nullptr;
	if (!group_.can_log_in() || group_.dead() || group_.draining() || engine_.draining() || !engine_.reserve_server())
		return nullptr;
	mine_.listeners.store(mine_.listeners.load() + 1);
	auto *server = new ServerConn(*this, listener, listener->encoding());
	return dial(server) ? server : nullptr;
}

bool Pool::dial(ServerConn *server)
{
	change_state(server, ServerState::Connecting);
	if (server->dial())
		return true;
	on_server_failed(server, {{proto::sqlstate::kConnectionFailure, "could not create a socket for a server", "",
	                           "Raise the limit of open files."}});
	on_server_gone(server);
	return false;
}

void Pool::on_server_failed(ServerConn *server, const LoginFailure &failure)
{
	const proto::Error &why = failure.why;
	bump(mine_.server_login_failures);
	const int64_t now = engine_.now();
	if (now >= logged_at_ + 1000000) {
		logged_at_ = now;
		engine_.outside().log(group_.described() + ": a server could not be opened: " + why.message);
	}
	if (server->is_listener())
		return;
	last_failure_ = why;
	retry_at_ = now + kRetryAfter;
	refused_at_ = now;
	refused_by_ = failure.limit;
	const bool session_survives =
	    why.sqlstate == proto::sqlstate::kInvalidPassword || (failure.by_server && is_taken_back(why.sqlstate));
	// The manager may know better than the server's refusal why there is no way in.
	const Credential *credential = group_.credential();
	const bool explained = credential && !credential->route_error.sqlstate.empty();
	if (failure.names_sequence != group_.names_sequence())
		retry_at_ = 0;
	else if (!is_passing(why.sqlstate))
		doubt({explained ? credential->route_error : why, !session_survives});
	ask_for_place(now);
}

// PostgreSQL judged the names that it was asked for. Whether they are still those of the pool, also on a standby, the
// manager knows when it has looked after that: refresh().
void Pool::doubt(Refusal refusal)
{
	if (waiters_.empty() || refusal_)
		return;
	refusal.look = engine_.ask_to_look();
	refusal_ = std::move(refusal);
}

void Pool::on_server_gone(ServerConn *server)
{
	list_of(server->state()).remove(server);
	const bool listener = server->is_listener();
	const std::optional<Claim> claimed = server->claim;
	if ((server->state() == ServerState::Connecting || server->state() == ServerState::Login) && !listener)
		connecting_--;
	count();
	region::Atomic<int32_t> &place = listener ? mine_.listeners : mine_.open;
	place.store(place.load() - 1);
	engine_.release_server();
	engine_.bury(std::unique_ptr<StreamOwner>(server));
	if (yielded_ > 0 && !listener) {
		yielded_--;
		hold_until_ = engine_.now() + kYieldPause;
		auto free = control::make<control::PlaceFree>(control::Type::PlaceFree);
		free.pool_slot = group_.slot();
		free.pool_generation = group_.generation();
		engine_.outside().tell_worker(yielded_to_, &free, sizeof(free));
	}
	if (claimed) {
		hold_until_ = engine_.now() + kYieldPause;
		engine_.tell_place_free(*claimed);
	}
	engine_.want_servers();
}

// ---- limits over all workers

// Whatever is idle and counts for the limit at which the server refused us gives its place up, here or in another
// worker; else one of this pool's servers there, so that the waits even out as at the pool's own limit.
void Pool::ask_for_place(int64_t now)
{
	if (refused_by_ == control::ServerLimit::None || waiters_.empty() || now < asked_at_ + kAskAgain)
		return;
	if (engine_.give_up_idle(refused_by_, {engine_.worker(), group_.slot(), group_.generation()}) ||
	    engine_.ask_for_idle(refused_by_, group_))
		asked_at_ = now;
	else
		ask_others(now);
}

bool Pool::give_up_idle(const Claim &to)
{
	ServerConn *s = waiters_.empty() ? idle_.back() : nullptr;
	if (!s)
		return false;
	s->claim = to;
	s->close();
	return true;
}

// The next try waits no longer. It is made at the end of the event: this may be the end of the server whose place it
// is.
void Pool::on_place_free()
{
	if (refused_by_ != control::ServerLimit::None)
		retry_at_ = 0;
	engine_.want_servers();
}

// At the limit: a worker with an idle server is asked for a place, else the one whose own clients wait
// least, if that is less than half as long as ours.
void Pool::ask_others(int64_t now)
{
	if (now < asked_at_ + kAskAgain || waiters_.empty() || engine_.region().header()->workers < 2)
		return;
	asked_at_ = now;
	const int64_t waited = now - waiters_.front()->since();
	uint32_t best = engine_.worker();
	int64_t least = waited / 2;
	for (uint32_t w = 0; w < engine_.region().header()->workers; w++) {
		const region::PoolCounters &c = engine_.region().pool_counters(group_.slot(), w);
		if (w == engine_.worker() || c.open.load(std::memory_order_relaxed) <= 0)
			continue;
		const int64_t since = c.waiting_since_us.load(std::memory_order_relaxed);
		const int64_t theirs = c.idle.load(std::memory_order_relaxed) > 0 ? -1 : since == 0 ? 0 : now - since;
		if (theirs < least) {
			least = theirs;
			best = w;
		}
	}
	if (best == engine_.worker())
		return;
	auto ask = control::make<control::YieldServer>(control::Type::YieldServer);
	ask.from = engine_.worker();
	ask.pool_slot = group_.slot();
	ask.pool_generation = group_.generation();
	ask.waited_ms = static_cast<uint32_t>(waited / 1000);
	engine_.outside().tell_worker(best, &ask, sizeof(ask));
}

// Another worker's client waits. An idle server goes at once; a busy one when it is released, and only
// if that client waited clearly longer than ours: then the waits even out, not the numbers of servers.
void Pool::yield(uint32_t worker, uint32_t waited_ms)
{
	if (waiters_.empty() && close_one_idle()) {
		yielded_++;
		yielded_to_ = worker;
		return;
	}
	const int64_t ours_ms = waiters_.empty() ? 0 : (engine_.now() - waiters_.front()->since()) / 1000;
	if (owed_ == 0 && waited_ms > 2 * ours_ms + kYieldAfterMs) {
		owed_ = 1;
		yielded_++;
		yielded_to_ = worker;
	}
}

bool Pool::close_one_idle()
{
	ServerConn *s = idle_.back(); // least recently used
	if (s)
		s->close();
	return s != nullptr;
}

void Pool::close_idle()
{
	while (close_one_idle())
		;
}

// ---- failures and time

void Pool::fail_waiters(const proto::Error &why, bool fatal)
{
	// A session that is told may queue again at once: only those who wait now are told.
	for (size_t n = waiters_.size(); n > 0 && !waiters_.empty(); n--) {
		Session *session = waiters_.front();
		waiters_.remove(session);
		session->on_wait_failed(why, fatal);
	}
	count();
}

proto::Error Pool::lack(const std::string &limit) const
{
	if (!last_failure_.sqlstate.empty())
		return {last_failure_.sqlstate, last_failure_.message,
		        "The pool could not open a server connection within " + limit + ".", last_failure_.hint};
	const std::string message = "no server connection became free within " + limit;
	if (open_everywhere() < static_cast<uint32_t>(group_.settings().pool_size.load()))
		return {proto::sqlstate::kTooManyConnections, message,
		        "pgpool.max_server_connections is " + std::to_string(engine_.settings().max_server_connections) +
		            ", and all places are taken by other pools.",
		        "Raise pgpool.max_server_connections (and max_connections), or make other pools smaller."};
	return {proto::sqlstate::kTooManyConnections, message,
	        "The " + group_.described() + " has " + std::to_string(group_.settings().pool_size.load()) +
	            " server connections, and all are in use.",
	        "Raise pool_size of the tenant (pgpool.default_pool_size) or query_wait_timeout "
	        "(pgpool.query_wait_timeout), or shorten transactions."};
}

void Pool::fail_late_waiters(int64_t now)
{
	const int32_t limit = group_.settings().query_wait_timeout.load(std::memory_order_relaxed);
	while (limit > 0 && !waiters_.empty() && (now - waiters_.front()->since()) / 1000 >= limit) {
		Session *session = waiters_.front();
		waiters_.remove(session);
		bump(mine_.wait_timeouts);
		count();
		session->on_wait_failed(lack(std::to_string(limit) + " ms"), false);
	}
}

// Clients that keep a server must leave some to the others. Nobody is one too many as long as nobody waits, nor before
// he has been idle, and others have waited, for the time of grace. Then the one that was idle for longest goes, of all
// workers: each tells the others how long its own one was, and ends it if there is none before it.
void Pool::end_surplus_pin(int64_t now)
{
	ServerConn *longest = nullptr;
	for (ServerConn *s = mine_.pinned.load() > 0 ? active_.front() : nullptr; s; s = ServerList::next(s)) {
		if (s->kept_since() > 0 && (!longest || s->kept_since() < longest->kept_since()))
			longest = s;
	}
	const int64_t since = longest ? longest->kept_since() : 0;
	mine_.kept_since_us.store(since, std::memory_order_relaxed);
	const int64_t grace = int64_t{engine_.settings().pin_grace_time} * 1000;
	if (!longest || grace <= 0)
		return;
	int32_t kept = 0;
	int64_t waiting_since = 0;
	for (uint32_t w = 0; w < engine_.region().header()->workers; w++) {
		const region::PoolCounters &c = engine_.region().pool_counters(group_.slot(), w);
		kept += c.pinned.load() - c.parkable.load();
		const int64_t waits = c.waiting_since_us.load(std::memory_order_relaxed);
		if (waits > 0 && (waiting_since == 0 || waits < waiting_since))
			waiting_since = waits;
		const int64_t theirs = c.kept_since_us.load(std::memory_order_relaxed);
		if (theirs > 0 && (theirs < since || (theirs == since && w < engine_.worker())))
			return;
	}
	const int32_t most = std::min(group_.settings().max_pinned.load(), group_.settings().pool_size.load() - 1);
	if (kept > most && waiting_since > 0 && now - std::max(waiting_since, since) >= grace)
		longest->end_surplus_pin(now, most);
}

void Pool::tick(int64_t now)
{
	fail_late_waiters(now);
	each_server([now](ServerConn *s) {
		ServerUser *user = s->user();
		s->tick(now);
		if (user && s->user() == user)
			user->check_timeouts(now);
	});
	end_surplus_pin(now);
	if (engine_.draining())
		close_idle();
	grow();
}

} // namespace pgpool::core
