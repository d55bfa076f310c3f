// See clients.hpp.
#include "core/clients.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

Clients::Clients(region::View region, uint32_t worker) : region_(region), worker_(worker) {}

void Clients::add(Session *session)
{
	sessions_.push_back(session);
	count(1);
}

void Clients::remove(Session *session)
{
	if (session->key_pid() != 0)
		remove_key(session);
	rows_.each([session](ClientRows *r) { r->forget(session); });
	sessions_.remove(session);
	logins_.remove(session);
	turns_.remove(session);
	count(-1);
}

void Clients::count(int delta)
{
	region::Atomic<int32_t> &clients = region_.worker(worker_).clients;
	clients.store(clients.load() + delta);
}

// Each counts itself first, then looks (layout.hpp).
bool Clients::more_than(int32_t limit) const
{
	int64_t sum = 0;
	for (uint32_t w = 0; w < region_.header()->workers; w++)
		sum += region_.worker(w).clients.load();
	return sum > limit;
}

Session *Clients::find(uint64_t id) const
{
	for (Session *s = sessions_.front(); s; s = Sessions::next(s)) {
		if (s->id() == id)
			return s;
	}
	return nullptr;
}

Session *Clients::find_login(uint64_t id) const
{
	for (Session *s = logins_.front(); s; s = Logins::next(s)) {
		if (s->id() == id)
			return s;
	}
	return nullptr;
}

void Clients::add_key(Session *session)
{
	keys_[session->key_pid()] = session;
}

void Clients::remove_key(Session *session)
{
	auto it = keys_.find(session->key_pid());
	if (it != keys_.end() && it->second == session)
		keys_.erase(it);
}

Session *Clients::find_by_key(int32_t pid, std::string_view key) const
{
	auto it = keys_.find(pid);
	return it != keys_.end() && it->second->matches_key(key) ? it->second : nullptr;
}

// Those that give way again come after the streams.
void Clients::take_turns()
{
	for (size_t n = turns_.size(); n > 0 && !turns_.empty(); n--) {
		Session *s = turns_.front();
		turns_.remove(s);
		s->on_turn();
	}
}

} // namespace pgpool::core
