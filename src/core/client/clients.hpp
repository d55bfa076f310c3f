// The sessions of one worker, and the ways to find one: by number, by cancel key, by whose turn it is.
//
// Owns the lists; a session itself is buried in the Context, and freed at the end of the event in which it ended. Of
// the clients of all workers it knows the number (pgpool.max_client_connections). Must not know pools and servers, but
// where they are.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/list.hpp"
#include "core/client/session.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Context;
class Listeners;
class Login;
class Pools;
class Questions;

class Clients
{
public:
	using Sessions = List<Session, &Session::all_hook>;
	using Logins = List<Session, &Session::login_hook>;

	Clients(Context &context, Pools &pools, Listeners &listeners, Questions &questions);
	~Clients();
	Clients(const Clients &) = delete;
	Clients &operator=(const Clients &) = delete;

	Context &context() { return context_; }
	Pools &pools() { return pools_; }
	Listeners &listeners() { return listeners_; }
	Questions &questions() { return questions_; }

	uint64_t next_id() { return next_id_++; }
	void add(Session *session);
	void on_ended(Session *session);
	void retire(std::unique_ptr<Login> login); // freed at the end of the event
	void end_event();
	Sessions &sessions() { return sessions_; }
	Logins &logins() { return logins_; } // oldest first
	Session *find(uint64_t id) const;
	bool more_than(int32_t limit) const; // in all workers

	// ---- cancel keys
	void give_key(Session *session, int32_t pid); // 0: a random one that nobody has here
	// Here, else at the other workers. The client that asked is let go when it was acted on: a client that
	// has waited for that may send its next query, which must not be hit.
	void cancel(Session *asking, int32_t pid, std::string_view key);
	bool cancel_here(int32_t pid, std::string_view key); // false: no client of this worker has it
	void on_cancel_done(uint64_t session);

	// ---- turns: a session that gives way goes on when all others that have something to do had theirs.
	void later(Session *session)
	{
		if (!session->turn_hook.linked)
			turns_.push_back(session);
	}
	// ---- reads that wait until a node has replayed what they must see
	void await_replay(ReadRoute *read);
	void stop_awaiting(ReadRoute *read) { await_replay_.remove(read); }
	void on_alarm();

	bool has_turns() const { return !turns_.empty(); }
	void take_turns();

private:
	void count(int delta);
	void remove_key(Session *session);

	Context &context_;
	Pools &pools_;
	Listeners &listeners_;
	Questions &questions_;
	Sessions sessions_;
	Logins logins_;
	List<Session, &Session::turn_hook> turns_;
	List<ReadRoute, &ReadRoute::wait_hook> await_replay_;
	std::unordered_map<int32_t, Session *> keys_;
	std::vector<std::unique_ptr<Login>> retired_;
	uint64_t next_id_ = 1;
};

} // namespace pgpool::core
