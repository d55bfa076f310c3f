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
      clients_(region, worker), questions_(outside), statements_(worker, region.header()->workers), pools_(*this)
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
	if (life_ == Life::Draining)
		why = shutdown_error();
	else if (life_ == Life::Stopping)
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

// ---- the manager

void Engine::on_manager()
{
	pools_.refresh(); // it may have looked before it could tell us
	questions_.on_manager();
	clients_.logins().each([](Session *s) { s->login()->on_manager(); });
}

void Engine::on_poke()
{
	const bool stopping = region_.header()->phase.load() == region::Phase::Stopping;
	if (life_ != Life::Draining)
		life_ = stopping ? Life::Stopping : Life::Serving;
	pools_.refresh();
	evict_clients();
	if (stopping)
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
	done += pools_.drain(oid);
	done += listeners_.close_unused(oid);
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
	pools_.tick(t);
	listeners_.tick(t);
	if (++ticks_ % kTicksPerSecond == 0) {
		tick_clients(t);
		evict_clients();
		pools_.shed();
		if (const std::string more = strangers_.held_back(); !more.empty())
			outside_.log(more);
		if (draining())
			send_away_idle(shutdown_error());
	}
}

void Engine::end_event()
{
	pools_.end_event();
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
	pools_.close_idle();
}

void Engine::drain()
{
	life_ = Life::Draining;
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
	return kNoAgentSlot;
}

std::vector<control::ServerRow> Engine::server_rows()
{
	std::vector<control::ServerRow> rows;
	pools_.each([&rows](PoolGroup &g) {
		g.each_server([&rows](ServerConn *s) {
			rows.emplace_back();
			s->fill(rows.back());
		});
	});
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
