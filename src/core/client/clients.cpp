// See clients.hpp.
#include "core/client/clients.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/context/context.hpp"
#include "core/client/login.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

template <class Some> Session *find_in(const Some &sessions, uint64_t id)
{
	for (Session *s = sessions.front(); s; s = Some::next(s)) {
		if (s->id() == id)
			return s;
	}
	return nullptr;
}

} // namespace

Clients::Clients(Context &context, Pools &pools, Listeners &listeners, Questions &questions)
    : context_(context), pools_(pools), listeners_(listeners), questions_(questions)
{
}

Clients::~Clients() = default;

void Clients::add(Session *session)
{
	sessions_.push_back(session);
	count(1);
}

void Clients::on_ended(Session *session)
{
	remove_key(session);
	sessions_.remove(session);
	logins_.remove(session);
	turns_.remove(session);
	count(-1);
	context_.bury(std::unique_ptr<StreamOwner>(session));
}

void Clients::retire(std::unique_ptr<Login> login)
{
	retired_.push_back(std::move(login));
}

void Clients::end_event()
{
	retired_.clear();
}

void Clients::count(int delta)
{
	region::Atomic<int32_t> &clients = context_.slot().clients;
	clients.store(clients.load() + delta);
}

// Each counts itself first, then looks (layout.hpp).
bool Clients::more_than(int32_t limit) const
{
	int64_t sum = 0;
	for (uint32_t w = 0; w < context_.region().header()->workers; w++)
		sum += context_.region().worker(w).clients.load();
	return sum > limit;
}

Session *Clients::find(uint64_t id) const
{
	return find_in(sessions_, id);
}

void Clients::await_replay(ReadRoute *read)
{
	await_replay_.push_back(read);
	context_.outside().alarm();
}

// Each looks once; who waits on stands behind the others.
void Clients::on_alarm()
{
	for (size_t n = await_replay_.size(); n > 0 && !await_replay_.empty(); n--) {
		ReadRoute *read = await_replay_.front();
		await_replay_.remove(read);
		read->session->on_alarm();
	}
}

void Clients::give_key(Session *session, int32_t pid)
{
	Outside &outside = context_.outside();
	remove_key(session);
	session->key().choose(outside, session->minor());
	while (pid == 0) {
		uint32_t random;
		outside.random(&random, sizeof(random));
		random &= 0x7fffffff;
		if (keys_.count(static_cast<int32_t>(random)) == 0)
			pid = static_cast<int32_t>(random);
	}
	session->key().set_pid(pid);
	keys_[pid] = session;
}

void Clients::remove_key(Session *session)
{
	auto it = keys_.find(session->key().pid());
	if (it != keys_.end() && it->second == session)
		keys_.erase(it);
}

bool Clients::cancel_here(int32_t pid, std::string_view key)
{
	auto it = keys_.find(pid);
	if (it == keys_.end() || !it->second->key().is(key))
		return false;
	region::bump(context_.slot().cancels_delivered);
	it->second->cancel();
	return true;
}

void Clients::cancel(Session *asking, int32_t pid, std::string_view key)
{
	if (cancel_here(pid, key)) {
		asking->close(false);
		return;
	}
	auto m = control::make<control::CancelKey>(control::Type::CancelKey);
	m.pid = pid;
	m.key_length = static_cast<uint32_t>(std::min(key.size(), sizeof(m.key)));
	memcpy(m.key, key.data(), m.key_length);
	context_.outside().forward_cancel(m, asking->id());
}

// A client that cancels is one that logs in. Anybody can be one: it must not cost a look at all clients.
void Clients::on_cancel_done(uint64_t session)
{
	if (Session *asking = find_in(logins_, session))
		asking->close(false);
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
