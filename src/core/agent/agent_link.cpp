// See agent_link.hpp.
#include "core/agent/agent_link.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/settings/params.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

region::AgentSlot nobodys_slot; // where no backend looks

} // namespace

AgentLink::AgentLink() : slot_(&nobodys_slot) {}

bool AgentLink::has_slot() const
{
	return slot_ != &nobodys_slot;
}

void AgentLink::take(uint32_t number, region::AgentSlot &slot)
{
	number_ = number;
	slot_ = &slot;
	slot_->defaults_length = 0;
	slot_->client.store(0);
	identified_ = UINT64_MAX; // of whoever had the slot before
	identify(0, {});
}

void AgentLink::leave()
{
	slot_ = &nobodys_slot;
	there_ = false;
}

std::string AgentLink::name() const
{
	return has_slot() ? std::to_string(number_) + "." + std::to_string(slot_->generation.load()) : std::string();
}

uint64_t AgentLink::commit_lsn() const
{
	return there_ ? slot_->commit_lsn.load(std::memory_order_acquire) : 0;
}

// The position of a client that only reads is not that of who wrote here before.
uint64_t AgentLink::new_commit()
{
	const uint64_t lsn = commit_lsn();
	return lsn == std::exchange(commit_known_, lsn) ? 0 : lsn;
}

void AgentLink::serve(uint64_t client, std::string_view address, bool pin_sequences)
{
	identify(client, address);
	slot_->client.store(client, std::memory_order_relaxed);
	slot_->pin_sequences.store(pin_sequences, std::memory_order_release);
	shown_idle_ = false;
	ignore_commits();
}

// pg_stat_activity says of a backend that nobody uses for a while that it is so; the agent looks when it answers. Not
// at each release: the next client comes at once, and is often the same.
void AgentLink::show_idle()
{
	identify(0, {});
	shown_idle_ = true;
}

// Whom the backend serves, for pg_stat_activity and the log. The sequence is odd while that is written: the backend
// reads at any time, and takes nothing that it saw half of.
void AgentLink::identify(uint64_t client, std::string_view address)
{
	if (client == identified_)
		return;
	identified_ = client;
	region::AgentSlot &a = *slot_;
	const uint32_t sequence = a.identity_sequence.load(std::memory_order_relaxed) | 1;
	a.identity_sequence.store(sequence, std::memory_order_relaxed);
	std::atomic_thread_fence(std::memory_order_release);
	a.address_length = static_cast<uint32_t>(std::min(address.size(), sizeof(a.address)));
	if (!address.empty())
		memcpy(a.address, address.data(), a.address_length);
	a.pooled = client == 0;
	a.identity_sequence.store(sequence + 1, std::memory_order_release);
}

// One with more than fits gets the server's own.
void AgentLink::set_defaults(const ParamSet *defaults)
{
	region::AgentSlot &a = *slot_;
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

void AgentLink::announce_custom(uint64_t statement)
{
	const uint64_t k = slot_->custom_written.load(std::memory_order_relaxed);
	slot_->custom[k % region::kCustomPlans].store(statement, std::memory_order_relaxed);
	slot_->custom_written.store(k + 1, std::memory_order_release);
}

void AgentLink::announce_own()
{
	slot_->applies.store(slot_->applies.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void AgentLink::hush(bool on)
{
	if ((slot_->hushed.load(std::memory_order_relaxed) != 0) != on)
		slot_->hushed.store(on, std::memory_order_release);
}

} // namespace pgpool::core
