// See pool_group.hpp.
#include "core/pool/pool_group.hpp"

#include "core/context/context.hpp"
#include "core/pool/pools.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

PoolGroup::PoolGroup(Pools &all, uint32_t slot, uint32_t generation) : Group(all.context(), slot, generation), all_(all)
{
	pool(Target::Primary);
}

Pool &PoolGroup::pool(Target target)
{
	std::unique_ptr<Pool> &p = pools_[index_of(target)];
	if (!p)
		p = std::make_unique<Pool>(*this, target);
	return *p;
}

void PoolGroup::refresh()
{
	const bool renamed = has_other_names();
	if (renamed)
		read_names();
	each_pool([renamed](Pool &p) { p.refresh(renamed); });
}

// Commit positions come from the agent, which is on the way by Unix socket alone.
bool PoolGroup::routes_reads() const
{
	return settings().routing.load(std::memory_order_relaxed) == region::Routing::Reads &&
	       context_.region().header()->primary.load(std::memory_order_relaxed) != 0 && credential_ &&
	       credential_->route == control::ServerRoute::Unix;
}

void PoolGroup::try_nodes(uint32_t nodes)
{
	for (uint32_t i = 0; i < region::kMaxNodes; i++) {
		if ((nodes & 1u << i) != 0)
			pool(on_node(i)).try_node();
	}
}

// ---- clients

void PoolGroup::attach()
{
	mine_.clients.store(static_cast<int32_t>(++clients_)); // then limits are looked at: layout.hpp
}

void PoolGroup::detach()
{
	mine_.clients.store(static_cast<int32_t>(--clients_));
}

void PoolGroup::learn(std::unique_ptr<Credential> credential)
{
	const bool news = !credential_ || !credential->proves_as(*credential_);
	credential_ = std::move(credential);
	each_pool([](Pool &p) { p.on_new_proof(); });
	if (news)
		tell_others();
}

void PoolGroup::tell_others()
{
	if (context_.region().header()->workers < 2 || credential_->proves_nothing())
		return;
	proto::Secret<control::Proof> secret(control::make<control::Proof>(control::Type::Proof));
	control::Proof &proof = secret.edit();
	proof.pool_slot = slot_;
	proof.pool_generation = generation_;
	credential_->write(proof);
	for (uint32_t w = 0; w < context_.region().header()->workers; w++) {
		if (w != context_.worker())
			context_.outside().tell_worker(w, &proof, sizeof(proof));
	}
}

// Without a way to the server, which only a login here tells, the proof waits for it.
void PoolGroup::learn(const control::Proof &proof)
{
	if (!credential_)
		credential_ = std::make_unique<Credential>();
	credential_->read(proof);
	each_pool([](Pool &p) {
		p.on_new_proof();
		p.grow();
	});
}

// ---- statements

bool PoolGroup::has_prepared(Statement *s, Shape &shape)
{
	bool found = false;
	// A node may have it from before a change that it has not replayed.
	pool(Target::Primary).each_server([&](ServerConn *server) {
		const ServerStatements &table = server->statements().table();
		if (table.present(s)) {
			found = true;
			shape = table.shape(s);
		}
	});
	return found;
}

// ---- all targets

bool PoolGroup::unused() const
{
	return clients_ == 0 && !any_pool([](const Pool &p) { return p.has_servers(); });
}

bool PoolGroup::has_waiters() const
{
	return any_pool([](const Pool &p) { return p.has_waiters(); });
}

void PoolGroup::tick(int64_t now)
{
	each_pool([now](Pool &p) { p.tick(now); });
}

void PoolGroup::grow()
{
	each_pool([](Pool &p) { p.grow(); });
}

uint32_t PoolGroup::drain()
{
	state_ = State::Draining;
	return close_idle();
}

void PoolGroup::end_drain()
{
	state_ = State::Open;
	grow();
}

uint32_t PoolGroup::close_idle()
{
	uint32_t n = 0;
	while (close_one_idle())
		n++;
	return n;
}

bool PoolGroup::close_one_idle()
{
	return any_pool([](Pool &p) { return p.close_one_idle(); });
}

bool PoolGroup::close_spare()
{
	return any_pool([](Pool &p) { return !p.has_waiters() && p.close_one_idle(); });
}

bool PoolGroup::give_up_idle(const Claim &to)
{
	return any_pool([&to](Pool &p) { return p.give_up_idle(to); });
}

} // namespace pgpool::core
