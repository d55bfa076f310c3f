// See engine.hpp.
#include "core/engine.hpp"

#include <algorithm>
#include <cstring>

#include "core/login.hpp"
#include "core/server.hpp"
#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;
namespace sqlstate = proto::sqlstate;

namespace
{

constexpr uint32_t kTicksPerSecond = 10;
constexpr size_t kStrangersLine = 300; // bytes of what strangers make us log

proto::Error shutdown_error()
{
	return {sqlstate::kAdminShutdown, "terminating connection due to administrator command", "", ""};
}

} // namespace

Engine::Engine(Outside &outside, region::View region, uint32_t worker)
    : outside_(outside), region_(region), worker_(worker), settings_(region::present_settings(*region.header())),
      clients_(region, worker), questions_(outside), places_(outside, region, worker, settings_)
{
	// What an earlier life of this worker had is gone with it.
	for (uint32_t i = 0; i < region_.header()->max_pools; i++) {
		region::PoolCounters &c = region_.pool_counters(i, worker_);
		if (region_.pool(i).state.load() == region::SlotState::Free)
			continue;
		for (auto *gauge : {&c.clients, &c.open, &c.active, &c.idle, &c.pinned, &c.parkable, &c.listeners, &c.waiting})
			gauge->store(0);
		c.waiting_since_us.store(0);
		c.kept_since_us.store(0);
	}
	for (uint32_t i = 0; i < region_.header()->max_tenants; i++) {
		if (region_.tenant(i).state.load() != region::SlotState::Free)
			region_.tenant_counters(i, worker_).clients.store(0);
	}
	for (uint32_t i = 0; i < region_.header()->max_agents; i++) {
		if (region_.agent(i).owner.load() == worker_ + 1)
			free_agent_slot(i);
	}
	slot().clients.store(0);
	slot().servers.store(0);
	on_poke();
}

Engine::~Engine() = default;

void Engine::on_settings(const region::Settings &settings)
{
	settings_ = settings;
}

// ---- clients

void Engine::accept(Stream *stream, bool session_port, bool fd_reserve_reached)
{
	bump(slot().accepted);
	if (fd_reserve_reached) {
		turn_away(stream);
		return;
	}
	auto *session = new Session(*this, stream, clients_.next_id(), session_port);
	clients_.add(session);
	session->start_login();
}

// The descriptors that are left are for servers: whatever he wants to say, nobody waits for it.
void Engine::turn_away(Stream *stream)
{
	const std::string limit = std::to_string(slot().file_limit.load());
	bump(slot().refused);
	bump(slot().login_failures);
	log_stranger(*stream, "sorry, too many clients already: this worker's limit of open files is " + limit);
	std::string out;
	proto::append_error(out, proto::Severity::Fatal,
	                    {sqlstate::kTooManyConnections, "sorry, too many clients already",
	                     "This worker's limit of open files is " + limit + ".",
	                     "Raise the limit of open files of the database server, or pgpool.workers."});
	stream->queue(out.data(), out.size());
	stream->flush();
	stream->close(false);
}

void Engine::session_ended(Session *session)
{
	clients_.remove(session);
	bury(std::unique_ptr<StreamOwner>(session));
}

void Engine::log_stranger(const Stream &from, std::string line)
{
	const std::string peer = from.peer();
	if (!strangers_.take(from.address(), peer, now()))
		return;
	if (line.size() > kStrangersLine)
		line.replace(kStrangersLine, std::string::npos, "...");
	for (char &c : line) {
		if (static_cast<unsigned char>(c) < ' ' || c == 0x7f)
			c = '?';
	}
	outside_.log(line + " (client " + peer + ")");
}

void Engine::retire(std::unique_ptr<Login> login)
{
	retired_.push_back(std::move(login));
}

bool Engine::refuses(proto::Error &why)
{
	if (draining_)
		why = shutdown_error();
	else if (stopping_)
		why = {sqlstate::kCannotConnectNow, "the database system is shutting down", "", ""};
	return draining();
}

bool Engine::evicts(uint32_t tenant_slot, proto::Error &why) const
{
	const region::TenantSlot &tenant = region_.tenant(tenant_slot);
	const bool dropped = tenant.state.load(std::memory_order_relaxed) != region::SlotState::Used;
	if (!dropped && tenant.banned.load(std::memory_order_relaxed) == 0)
		return false;
	why = {sqlstate::kAdminShutdown,
	       std::string("tenant \"") + tenant.name + (dropped ? "\" was dropped" : "\" is banned"), "", ""};
	return true;
}

// The limit was lowered: idle servers above it go. Each worker closes no more than are too many.
void Engine::shed_servers()
{
	int64_t surplus = places_.surplus();
	for (auto it = groups_.begin(); it != groups_.end() && surplus > 0; ++it) {
		while (surplus > 0 && it->second->close_one_idle())
			surplus--;
	}
}

// A pool that nobody waits for may have a server to spare.
bool Engine::close_spare()
{
	for (auto &entry : groups_) {
		if (entry.second->close_spare())
			return true;
	}
	return false;
}

// All of pgpool.max_server_connections are taken. The pool that wants one tries again at the next tick.
void Engine::make_place()
{
	if (!close_spare())
		places_.ask_all(now());
}

bool Engine::give_up_idle(control::ServerLimit limit, const Claim &to)
{
	for (auto &entry : groups_) {
		if (counts_for(limit, region_.pool(to.pool_slot), entry.second->shared()) && entry.second->give_up_idle(to))
			return true;
	}
	return false;
}

void Engine::tell_place_free(const Claim &to)
{
	if (to.worker == worker_)
		on_place_free(to.pool_slot, to.pool_generation);
	else
		places_.tell_free(to);
}

// ---- the manager

void Engine::on_manager()
{
	for (auto &entry : groups_)
		entry.second->refresh(); // it may have looked before it could tell us
	questions_.on_manager();
	clients_.logins().each([](Session *s) { s->login()->on_manager(); });
}

PoolGroup *Engine::group(uint32_t index, uint32_t generation)
{
	if (index >= region_.header()->max_pools)
		return nullptr;
	const region::PoolSlot &shared = region_.pool(index);
	if (shared.state.load() != region::SlotState::Used || shared.generation.load() != generation)
		return nullptr;
	std::unique_ptr<PoolGroup> &p = groups_[index];
	if (!p || p->generation() != generation) {
		p = std::make_unique<PoolGroup>(*this, index, generation);
		if (drains_.count(shared.database_oid) != 0)
			p->drain();
	}
	return p.get();
}

void Engine::on_poke()
{
	stopping_ = region_.header()->phase.load() == region::Phase::Stopping;
	for (auto &entry : groups_)
		entry.second->refresh();
	evict_clients();
	if (stopping_)
		send_away_idle(shutdown_error());
}

// A number for has_looked(), which the manager has not reached yet.
uint32_t Engine::ask_to_look()
{
	const uint32_t look = region_.header()->changes_told.fetch_add(1) + 1;
	outside_.wake_manager();
	return look;
}

bool Engine::has_looked(uint32_t look) const
{
	return static_cast<int32_t>(region_.header()->changes_seen.load() - look) >= 0;
}

// Clients of banned and dropped tenants, each as soon as it is between two transactions.
void Engine::evict_clients()
{
	clients_.sessions().each([this](Session *s) {
		proto::Error why;
		if (!s->login() && (!s->server() || s->server()->replies().at_rest()) && evicts(s->tenant_slot(), why))
			s->fatal(why);
	});
}

void Engine::on_drain_database(uint32_t oid, uint32_t &done)
{
	drains_[oid]++;
	for (auto &entry : groups_) {
		if (entry.second->shared().database_oid == oid)
			done += entry.second->drain();
	}
	done += listeners_.close_unused(oid);
}

void Engine::on_drain_ended(uint32_t oid)
{
	auto it = drains_.find(oid);
	if (it == drains_.end() || --it->second > 0)
		return;
	drains_.erase(it);
	for (auto &entry : groups_) {
		if (entry.second->shared().database_oid == oid)
			entry.second->end_drain();
	}
}

// ---- other workers

void Engine::on_yield(const control::YieldServer &yield)
{
	if (yield.pool_slot == control::kAnyPool) {
		close_spare();
		return;
	}
	if (yield.pool_slot >= region_.header()->max_pools || yield.from >= region_.header()->workers)
		return;
	if (yield.refused_by != control::ServerLimit::None) {
		give_up_idle(yield.refused_by, {yield.from, yield.pool_slot, yield.pool_generation});
		return;
	}
	auto it = groups_.find(yield.pool_slot);
	if (it != groups_.end() && it->second->generation() == yield.pool_generation)
		it->second->pool(Target::Primary).yield(yield.from, yield.waited_ms);
}

void Engine::on_place_free(uint32_t pool_slot, uint32_t generation)
{
	auto it = groups_.find(pool_slot);
	if (it != groups_.end() && it->second->generation() == generation)
		it->second->pool(Target::Primary).on_place_free();
}

void Engine::on_proof(const control::Proof &proof)
{
	if (PoolGroup *p = group(proof.pool_slot, proof.pool_generation))
		p->learn(proof);
}

// ---- cancel

bool Engine::cancel_here(int32_t pid, std::string_view key)
{
	Session *session = clients_.find_by_key(pid, key);
	if (!session)
		return false;
	bump(slot().cancels_delivered);
	session->cancel();
	return true;
}

void Engine::cancel(Session *asking, int32_t pid, std::string_view key)
{
	if (cancel_here(pid, key)) {
		asking->close(false);
		return;
	}
	auto m = control::make<control::CancelKey>(control::Type::CancelKey);
	m.pid = pid;
	m.key_length = static_cast<uint32_t>(std::min(key.size(), sizeof(m.key)));
	memcpy(m.key, key.data(), m.key_length);
	outside_.forward_cancel(m, asking->id());
}

void Engine::on_cancel_done(uint64_t session)
{
	if (Session *asking = clients_.find_login(session))
		asking->close(false);
}

void Engine::on_cancel_key(int32_t pid, std::string_view key)
{
	cancel_here(pid, key);
}

// ---- time

void Engine::tick_logins(int64_t now)
{
	const int64_t limit = int64_t{settings_.login_timeout} * 1000;
	while (Session *s =
	           clients_.logins().front()) { // the oldest: the limit is the present one, so nobody behind it is later
		if (limit <= 0 || now - s->login()->began() < limit)
			break;
		s->login()->on_timeout();
	}
}

void Engine::tick_clients(int64_t now)
{
	clients_.sessions().each([now](Session *s) {
		if (!s->server())
			s->check_timeouts(now);
	});
}

void Engine::tick()
{
	const int64_t t = now();
	tick_logins(t);
	for (auto it = groups_.begin(); it != groups_.end();) {
		// Before its tick: a server that ended in this event is not freed yet, and still needs it.
		if (it->second->unused() && it->second->dead()) {
			it = groups_.erase(it);
			continue;
		}
		it->second->tick(t);
		++it;
	}
	listeners_.tick(t);
	if (++ticks_ % kTicksPerSecond == 0) {
		tick_clients(t);
		evict_clients();
		shed_servers();
		if (const std::string more = strangers_.held_back(); !more.empty())
			outside_.log(more);
		if (draining())
			send_away_idle(shutdown_error());
	}
}

void Engine::end_event()
{
	if (retry_pools_) {
		retry_pools_ = false;
		for (auto &entry : groups_) {
			if (entry.second->has_waiters())
				entry.second->grow();
		}
	}
	while (Pool *p = uncounted_.front())
		p->write_gauges();
	retired_.clear();
	graveyard_.clear();
}

// ---- the end

void Engine::send_away_idle(const proto::Error &why)
{
	clients_.sessions().each([&why](Session *s) {
		ServerConn *server = s->server();
		if (!server || server->replies().at_rest())
			s->fatal(why);
	});
	for (auto &entry : groups_)
		entry.second->close_idle();
}

void Engine::drain()
{
	draining_ = true;
	send_away_idle(shutdown_error());
}

void Engine::abandon()
{
	while (Session *s = clients_.sessions().front())
		s->fatal(shutdown_error());
}

// ---- lists

// The backend may not be gone: from now on it knows that nothing in the slot is for it.
void Engine::free_agent_slot(uint32_t i)
{
	region::AgentSlot &a = region_.agent(i);
	a.generation.store(a.generation.load() + 1);
	a.owner.store(0);
}

uint32_t Engine::take_agent_slot()
{
	for (uint32_t i = 0; i < region_.header()->max_agents; i++) {
		region::AgentSlot &a = region_.agent(i);
		uint32_t nobody = 0;
		if (a.owner.load(std::memory_order_relaxed) != 0 || !a.owner.compare_exchange_strong(nobody, worker_ + 1))
			continue;
		a.backend_pid.store(0);
		a.commit_lsn.store(0);
		a.custom_written.store(0);
		a.hushed.store(0);
		return i;
	}
	return UINT32_MAX;
}

std::vector<control::ServerRow> Engine::server_rows()
{
	std::vector<control::ServerRow> rows;
	for (auto &entry : groups_) {
		entry.second->each_server([&](ServerConn *s) {
			rows.emplace_back();
			s->fill(rows.back());
		});
	}
	return rows;
}

bool Engine::terminate_client(uint64_t id)
{
	Session *s = clients_.find(id);
	if (s)
		s->fatal(shutdown_error());
	return s != nullptr;
}

bool Engine::cancel_client(uint64_t id)
{
	Session *s = clients_.find(id);
	if (s)
		s->cancel();
	return s != nullptr;
}

} // namespace pgpool::core
