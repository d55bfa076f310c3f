// See pool.hpp.
#include "core/pool/pool.hpp"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/pool/pools.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using control::ServerState;
using region::bump;

namespace
{

void set(region::Atomic<int32_t> &gauge, size_t n)
{
	gauge.store(static_cast<int32_t>(n), std::memory_order_relaxed);
}

} // namespace

Pool::Pool(PoolGroup &group, Target target)
    : group_(group), all_(group.all()), context_(group.context()), mine_(group.counters()), target_(target),
      gauges_(context_.region().gauges(group.slot(), index_of(target), context_.worker())),
      places_(all_.places(), group.slot(), group.generation(), target)
{
}

Pool::~Pool()
{
	if (gauges_hook.linked)
		write_gauges();
	all_.uncounted().remove(this);
}

void Pool::refresh(bool renamed)
{
	if (renamed) { // it was refused by another name
		attempts_.forget_refusal();
		attempts_.retry();
	} else if (attempts_.in_doubt() && context_.has_looked(attempts_.refusal()->look)) {
		const Attempts::Refusal r = attempts_.take_refusal();
		fail_waiters(r.why, r.fatal);
	}
	// A smaller limit: idle servers go, as many as are too many; those that are going already count.
	int64_t surplus = places_.surplus();
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

// At a limit a new one makes no difference.
void Pool::on_new_proof()
{
	if (!attempts_.is_full())
		attempts_.retry();
}

// ---- servers, and how many there are

void Pool::on_moved(ServerConn *server, ServerState from)
{
	servers_.remove(server, from);
	servers_.add(server);
	if (is_node(target_))
		context_.nodes().count_busy(node_of(target_),
		                            (server->state() == ServerState::Active) - (from == ServerState::Active));
	count();
}

// Servers come and go several times in an event; who looks at the gauges may see them an event later.
void Pool::count()
{
	if (!gauges_hook.linked)
		all_.uncounted().push_back(this);
}

void Pool::write_gauges()
{
	all_.uncounted().remove(this);
	set(gauges_.idle, servers_.idle().size());
	set(gauges_.active, servers_.active().size());
	set(gauges_.waiting, waiters_.size());
	gauges_.waiting_since_us.store(waiters_.empty() ? 0 : waiters_.front()->since(), std::memory_order_relaxed);
}

// ---- getting a server

ServerConn *Pool::acquire(Waiter *waiter)
{
	while (waiters_.empty() && !servers_.idle().empty()) {
		ServerConn *server = servers_.pick(waiter->wanted_settings());
		if (server->stale()) {
			server->close();
			continue;
		}
		return server;
	}
	bump(mine_.waits);
	waiter->on_queued();
	waiters_.push_back(waiter);
	count();
	grow();
	if (waiters_.size() > servers_.connecting())
		park_one();
	return nullptr;
}

// A client that only listens can do without its server.
void Pool::park_one()
{
	for (ServerConn *s = servers_.active().front(); s; s = PoolServers::next(s)) {
		if (s->may_park()) {
			s->park();
			return;
		}
	}
}

void Pool::stop_waiting(Waiter *waiter)
{
	waiters_.remove(waiter);
	count();
}

// Gives idle servers to those who wait. A session may release its server at once (a login does), so this
// is a loop and not a recursion.
void Pool::serve()
{
	if (serving_)
		return;
	serving_ = true;
	while (!waiters_.empty() && !servers_.idle().empty()) {
		Waiter *waiter = waiters_.front();
		ServerConn *server = servers_.pick(waiter->wanted_settings());
		if (server->stale()) {
			server->close();
			continue;
		}
		waiters_.remove(waiter);
		bump(mine_.wait_us, static_cast<uint64_t>(std::max<int64_t>(0, context_.now() - waiter->since())));
		waiter->on_assigned(server);
	}
	serving_ = false;
	count();
}

void Pool::on_server_ready(ServerConn *server)
{
	const bool logged_in = server->state() == ServerState::Login;
	if (logged_in) {
		bump(mine_.server_logins);
		attempts_.succeeded(context_.now());
		if (server->is_listener()) {
			server->set_state(ServerState::Listener);
			if (server->user())
				server->user()->on_logged_in();
			return;
		}
		Greeting &greeting = group_.greeting();
		if (is_node(target_))
			node_works();
		else if (!greeting.base() || (!greeting.is_of(server->opened_in_epoch()) && !server->stale()))
			greeting.learn(server->params(), server->login()->notices(), server->opened_in_epoch());
	}
	if (places_.pay() || context_.draining() || group_.draining()) {
		server->close();
		return;
	}
	server->set_state(ServerState::Idle);
	serve();
	if (logged_in && attempts_.is_full()) {
		attempts_.made_room(!waiters_.empty(), context_.now());
		grow();
	}
}

void Pool::grow()
{
	const int64_t now = context_.now();
	while (waiters_.size() > servers_.connecting() && servers_.idle().empty()) {
		if (places_.held(now) || group_.draining())
			return;
		if (attempts_.is_full() && servers_.connecting() > 0)
			return;
		if (attempts_.must_wait(now)) {
			ask_for_place(now);
			return;
		}
		if (!group_.can_log_in()) {
			const Credential *credential = group_.credential();
			fail_waiters(credential ? credential->route_error
			                        : proto::Error{proto::sqlstate::kInternal, "no credential for the server", "", ""});
			return;
		}
		const Places::Taken taken = places_.take(Places::Kind::Client);
		if (taken == Places::Taken::WorkerFull)
			all_.make_place();
		if (taken != Places::Taken::Yes) {
			ask_others(now);
			return;
		}
		dial(new ServerConn(*this, group_));
	}
}

bool Pool::wanted() const
{
	if (has_waiters()) // also those of this event
		return true;
	for (uint32_t w = 0; w < context_.region().header()->workers; w++) {
		if (w != context_.worker() &&
		    context_.region().gauges(group_.slot(), index_of(target_), w).waiting.load(std::memory_order_relaxed) > 0)
			return true;
	}
	return false;
}

ServerConn *Pool::open_listener(ServerUser *listener, const std::string &encoding)
{
	if (!group_.can_log_in() || group_.dead() || group_.draining() || context_.draining())
		return nullptr;
	const Places::Taken taken = places_.take(Places::Kind::Listener);
	if (taken == Places::Taken::WorkerFull)
		all_.make_place();
	if (taken != Places::Taken::Yes)
		return nullptr;
	auto *server = new ServerConn(*this, group_, listener, encoding);
	return dial(server) ? server : nullptr;
}

bool Pool::dial(ServerConn *server)
{
	servers_.add(server);
	all_.servers().push_back(server);
	count();
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
	const int64_t now = context_.now();
	// a node is tried again and again
	const bool is_news = !is_node(target_) || why.message != attempts_.last_failure().message;
	if (is_news && attempts_.may_log(now))
		context_.outside().log(group_.described() + ": a server could not be opened: " + why.message);
	if (server->is_listener())
		return;
	attempts_.failed(why, failure.limit, now);
	if (is_node(target_)) {
		node_failed(failure);
		return;
	}
	const Attempts::Verdict verdict = Attempts::judge(why, failure.by_server);
	if (failure.names_sequence != group_.names_sequence())
		attempts_.retry();
	else if (verdict != Attempts::Verdict::Wait)
		doubt(why, verdict == Attempts::Verdict::Fatal);
	ask_for_place(now);
}

// Whether it counts is known when the manager has looked: refresh().
void Pool::doubt(const proto::Error &why, bool fatal)
{
	if (waiters_.empty() || attempts_.in_doubt())
		return;
	// The manager may know better than the server's refusal why there is no way in.
	const Credential *credential = group_.credential();
	const bool explained = credential && !credential->route_error.sqlstate.empty();
	attempts_.doubt({explained ? credential->route_error : why, fatal, context_.ask_to_look()});
}

void Pool::on_server_gone(ServerConn *server)
{
	if (is_node(target_) && server->state() == ServerState::Active) // it went as it was
		context_.nodes().count_busy(node_of(target_), -1);
	servers_.remove(server, server->state());
	all_.servers().remove(server);
	count();
	const std::optional<Claim> claimed = server->claim;
	places_.give_back(server->is_listener() ? Places::Kind::Listener : Places::Kind::Client, claimed.has_value(),
	                  context_.now());
	context_.bury(std::unique_ptr<StreamOwner>(server));
	if (claimed)
		all_.tell_place_free(*claimed);
	all_.want_servers();
}

// ---- limits over all workers

int64_t Pool::waited() const
{
	return waiters_.empty() ? 0 : context_.now() - waiters_.front()->since();
}

void Pool::ask_others(int64_t now)
{
	if (!waiters_.empty())
		places_.ask_others(now, now - waiters_.front()->since());
}

// Whatever is idle and counts for the limit at which the server refused us gives its place up, here or in another
// worker; else one of this pool's servers there, so that the waits even out as at the pool's own limit.
void Pool::ask_for_place(int64_t now)
{
	if (!attempts_.is_full() || waiters_.empty() || !places_.may_ask(now))
		return;
	if (all_.give_up_idle(attempts_.full(), places_.claim()))
		places_.asked(now);
	else if (!places_.ask_for_idle(now, attempts_.full()))
		ask_others(now);
}

bool Pool::give_up_idle(const Claim &to)
{
	ServerConn *s = waiters_.empty() ? servers_.idle().back() : nullptr;
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
	if (attempts_.is_full())
		attempts_.retry();
	all_.want_servers();
}

// Another worker's client waits.
void Pool::yield(uint32_t worker, uint32_t waited_ms)
{
	if (waiters_.empty() && close_one_idle())
		places_.promise(worker);
	else
		places_.owe(worker, waited_ms, waited() / 1000);
}

bool Pool::close_one_idle()
{
	ServerConn *s = servers_.idle().back(); // least recently used
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
		Waiter *waiter = waiters_.front();
		waiters_.remove(waiter);
		waiter->on_wait_failed(why, fatal);
	}
	count();
}

proto::Error Pool::lack(const std::string &limit) const
{
	const proto::Error &failure = attempts_.last_failure();
	if (!failure.sqlstate.empty())
		return {failure.sqlstate, failure.message, "The pool could not open a server connection within " + limit + ".",
		        failure.hint};
	const std::string message = "no server connection became free within " + limit;
	if (places_.surplus() < 0)
		return {proto::sqlstate::kTooManyConnections, message,
		        "pgpool.max_server_connections is " + std::to_string(context_.settings().max_server_connections) +
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
	if (is_node(target_)) {
		leave_node(now);
		return;
	}
	const int32_t limit = group_.settings().query_wait_timeout.load(std::memory_order_relaxed);
	while (limit > 0 && !waiters_.empty() && (now - waiters_.front()->since()) / 1000 >= limit) {
		Waiter *waiter = waiters_.front();
		waiters_.remove(waiter);
		bump(mine_.wait_timeouts);
		count();
		waiter->on_wait_failed(lack(std::to_string(limit) + " ms"), false);
	}
}

// Clients that keep a server must leave some to the others. Nobody is one too many as long as nobody waits, nor before
// he has been idle, and others have waited, for the time of grace. Then the one that was idle for longest goes, of all
// workers: each tells the others how long its own one was, and ends it if there is none before it.
void Pool::end_surplus_pin(int64_t now)
{
	ServerConn *longest = nullptr;
	for (ServerConn *s = gauges_.pinned.load() > 0 ? servers_.active().front() : nullptr; s; s = PoolServers::next(s)) {
		if (s->kept_since() > 0 && (!longest || s->kept_since() < longest->kept_since()))
			longest = s;
	}
	const int64_t since = longest ? longest->kept_since() : 0;
	gauges_.kept_since_us.store(since, std::memory_order_relaxed);
	const int64_t grace = int64_t{context_.settings().pin_grace_time} * 1000;
	if (!longest || grace <= 0)
		return;
	int32_t kept = 0;
	int64_t waiting_since = 0;
	for (uint32_t w = 0; w < context_.region().header()->workers; w++) {
		const region::TargetGauges &c = context_.region().gauges(group_.slot(), index_of(target_), w);
		kept += c.pinned.load() - c.parkable.load();
		const int64_t waits = c.waiting_since_us.load(std::memory_order_relaxed);
		if (waits > 0 && (waiting_since == 0 || waits < waiting_since))
			waiting_since = waits;
		const int64_t theirs = c.kept_since_us.load(std::memory_order_relaxed);
		if (theirs > 0 && (theirs < since || (theirs == since && w < context_.worker())))
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
	if (gauges_hook.linked) // what comes now looks at those of all workers
		write_gauges();
	end_surplus_pin(now);
	if (context_.draining())
		close_idle();
	grow();
}

} // namespace pgpool::core
