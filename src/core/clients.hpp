// The sessions of one worker, and the ways to find one: by number, by cancel key, by whose turn it is.
//
// Owns the lists; a session itself is freed by the engine at the end of the event in which it ended. Of the clients of
// all workers it knows the number (pgpool.max_client_connections). Must not know pools and servers.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "core/client_rows.hpp"
#include "core/list.hpp"
#include "core/session.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Clients
{
public:
	using Sessions = List<Session, &Session::all_hook>;
	using Logins = List<Session, &Session::login_hook>;

	Clients(region::View region, uint32_t worker);

	uint64_t next_id() { return next_id_++; }
	void add(Session *session);
	void remove(Session *session);
	Sessions &sessions() { return sessions_; }
	Logins &logins() { return logins_; } // oldest first
	Session *find(uint64_t id) const;
	Session *find_login(uint64_t id) const;
	bool more_than(int32_t limit) const; // in all workers
	List<ClientRows, &ClientRows::hook> &rows_under_way() { return rows_; }

	// ---- cancel keys
	void add_key(Session *session);
	void remove_key(Session *session);
	bool key_taken(int32_t pid) const { return keys_.count(pid) != 0; }
	Session *find_by_key(int32_t pid, std::string_view key) const;

	// ---- turns: a session that gives way goes on when all others that have something to do had theirs.
	void later(Session *session)
	{
		if (!session->turn_hook.linked)
			turns_.push_back(session);
	}
	bool has_turns() const { return !turns_.empty(); }
	void take_turns();

private:
	void count(int delta);

	const region::View region_;
	const uint32_t worker_;
	Sessions sessions_;
	Logins logins_;
	List<Session, &Session::turn_hook> turns_;
	List<ClientRows, &ClientRows::hook> rows_;
	std::unordered_map<int32_t, Session *> keys_;
	uint64_t next_id_ = 1;
};

} // namespace pgpool::core
