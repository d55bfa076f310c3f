// See engine.hpp.
#include "core/worker/engine.hpp"

#include <algorithm>
#include <cstring>

#include "core/client/login.hpp"
#include "core/server/server.hpp"
#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using region::bump;
namespace sqlstate = proto::sqlstate;

namespace
{

constexpr uint32_t kTicksPerSecond = 10;

} // namespace

Engine::Engine(Outside &outside, region::View region, uint32_t worker)
    : context_(outside, region, worker), questions_(outside), pools_(context_), listeners_(context_),
      clients_(context_, pools_, listeners_, questions_)
{
	// What an earlier life of this worker had is gone with it.
	for (uint32_t i = 0; i < context_.region().header()->max_pools; i++) {
		if (context_.region().pool(i).state.load() == region::SlotState::Free)
			continue;
		context_.region().pool_counters(i, context_.worker()).clients.store(0);
		for (uint32_t target = 0; target < region::kTargets; target++)
			region::zero(context_.region().gauges(i, target, context_.worker()));
	}
	for (uint32_t i = 0; i < context_.region().header()->max_tenants; i++) {
		if (context_.region().tenant(i).state.load() != region::SlotState::Free)
			context_.region().tenant_counters(i, context_.worker()).clients.store(0);
	}
	for (uint32_t i = 0; i < context_.region().header()->max_agents; i++) {
		if (context_.region().agent(i).owner.load() == context_.worker() + 1)
			context_.free_agent_slot(i);
	}
	context_.slot().clients.store(0);
	context_.slot().servers.store(0);
	on_poke();
}

Engine::~Engine()
{
	clients_.end_event();
	context_.end_event(); // who is buried refers to pools
}

void Engine::on_cancel_over(uint64_t id, CancelEnd end)
{
	ServerConn *server = nullptr;
	pools_.servers().each([&](ServerConn *s) {
		if (s->cancel_id() == id)
			server = s;
	});
	if (server)
		server->on_cancel_over(end);
}

void Engine::on_settings(const region::Settings &settings)
{
	context_.set_settings(settings);
}

// ---- clients

void Engine::accept(Stream *stream, bool session_port, bool fd_reserve_reached)
{
	bump(context_.slot().accepted);
	if (fd_reserve_reached) {
		turn_away(stream);
		return;
	}
	auto *session = new Session(clients_, stream, clients_.next_id(), session_port);
	clients_.add(session);
	session->start_login();
}

// The descriptors that are left are for servers: whatever he wants to say, nobody waits for it.
void Engine::turn_away(Stream *stream)
{
	const std::string limit = std::to_string(context_.slot().file_limit.load());
	bump(context_.slot().refused);
	bump(context_.slot().login_failures);
	context_.log_stranger(*stream, "sorry, too many clients already: this worker's limit of open files is " + limit);
	std::string out;
	proto::append_error(out, proto::Severity::Fatal,
	                    {sqlstate::kTooManyConnections, "sorry, too many clients already",
	                     "This worker's limit of open files is " + limit + ".",
	                     "Raise the limit of open files of the database server, or pgpool.workers."});
	stream->queue(out.data(), out.size());
	stream->flush();
	stream->close(false);
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
	const bool stopping = context_.region().header()->phase.load() == region::Phase::Stopping;
	if (context_.life() != Context::Life::Draining)
		context_.set_life(stopping ? Context::Life::Stopping : Context::Life::Serving);
	pools_.refresh();
	evict_clients();
	if (stopping)
		send_away_idle(shutdown_error());
}

// Clients of banned and dropped tenants, each as soon as it is between two transactions.
void Engine::evict_clients()
{
	clients_.sessions().each([this](Session *s) {
		proto::Error why;
		if (!s->login() && (!s->server() || s->server()->replies().at_rest()) && context_.evicts(s->tenant_slot(), why))
			s->fatal(why);
	});
}

void Engine::on_drain_database(uint32_t oid, uint32_t &done)
{
	done += pools_.drain(oid);
	done += listeners_.close_unused(oid);
}

// ---- time

void Engine::tick_logins(int64_t now)
{
	const int64_t limit = int64_t{context_.settings().login_timeout} * 1000;
	// The oldest first: the limit is the present one, so nobody behind it is later.
	while (Session *s = clients_.logins().front()) {
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
	const int64_t t = context_.now();
	tick_logins(t);
	pools_.tick(t);
	node_watch_.tick();
	listeners_.tick(t);
	if (++ticks_ % kTicksPerSecond == 0) {
		tick_clients(t);
		evict_clients();
		pools_.shed();
		context_.log_held_back();
		if (context_.draining())
			send_away_idle(shutdown_error());
	}
}

void Engine::end_event()
{
	pools_.end_event();
	clients_.end_event();
	context_.end_event();
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
	context_.set_life(Context::Life::Draining);
	send_away_idle(shutdown_error());
}

void Engine::abandon()
{
	while (Session *s = clients_.sessions().front())
		s->fatal(shutdown_error());
}

// ---- for the SQL functions

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
