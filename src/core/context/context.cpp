// See context.hpp.
#include "core/context/context.hpp"

#include <utility>

#include "region/names.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace sqlstate = proto::sqlstate;

namespace
{

constexpr size_t kStrangersLine = 300; // bytes of what strangers make us log

} // namespace

// For a while, so that there is not a store for each read.
void Context::want_positions()
{
	constexpr int64_t kWhile = 1000000;
	region::Atomic<int64_t> &until = region_.header()->positions_wanted_until;
	const int64_t was = until.load(std::memory_order_relaxed);
	if (was >= now() + kWhile / 2)
		return;
	until.store(now() + kWhile, std::memory_order_relaxed);
	if (was < now())
		outside_.wake_manager(); // which may be asleep
}

proto::Error shutdown_error()
{
	return {sqlstate::kAdminShutdown, "terminating connection due to administrator command", "", ""};
}

Context::Context(Outside &outside, region::View region, uint32_t worker)
    : outside_(outside), region_(region), worker_(worker), settings_(region::present_settings(*region.header())),
      statements_(worker, region.header()->workers)
{
}

bool Context::refuses(proto::Error &why) const
{
	if (life_ == Life::Draining)
		why = shutdown_error();
	else if (life_ == Life::Stopping)
		why = {sqlstate::kCannotConnectNow, "the database system is shutting down", "", ""};
	return draining();
}

bool Context::evicts(uint32_t tenant_slot, proto::Error &why) const
{
	const region::TenantSlot &tenant = region_.tenant(tenant_slot);
	const bool dropped = tenant.state.load(std::memory_order_relaxed) != region::SlotState::Used;
	if (!dropped && tenant.banned.load(std::memory_order_relaxed) == 0)
		return false;
	why = {sqlstate::kAdminShutdown,
	       std::string("tenant \"") + tenant.name + (dropped ? "\" was dropped" : "\" is banned"), "", ""};
	return true;
}

uint32_t Context::ask_to_look()
{
	const uint32_t look = region_.header()->changes_told.fetch_add(1) + 1;
	outside_.wake_manager();
	return look;
}

bool Context::has_looked(uint32_t look) const
{
	return static_cast<int32_t>(region_.header()->changes_seen.load() - look) >= 0;
}

// The backend may not be gone: from now on it knows that nothing in the slot is for it.
void Context::free_agent_slot(uint32_t i)
{
	region::AgentSlot &a = region_.agent(i);
	a.generation.store(a.generation.load() + 1);
	a.owner.store(0);
}

uint32_t Context::take_agent_slot()
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

void Context::log_stranger(const Stream &from, std::string line)
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

void Context::log_held_back()
{
	if (const std::string more = strangers_.held_back(); !more.empty())
		outside_.log(more);
}

} // namespace pgpool::core
