// One pool in one worker: its servers, its queue of waiting clients, its share of the limit.
//
// The pool of a (tenant, database OID, role OID) is spread over all workers; the region holds the
// limit and how many servers each worker has (layout.hpp says how the limit is kept exactly). A client
// gets an idle server of this worker, the most recently used first, one with its own settings before any;
// else a new one if the limit allows; else it waits, first come first served. When another worker holds
// the places, it is asked to yield one.
// Owns servers and credentials. Must not know the protocol.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/list.hpp"
#include "core/params.hpp"
#include "core/server.hpp"
#include "core/session.hpp"
#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "region/layout.hpp"

namespace pgpool::core
{

class Engine;
class Listener;

// What proves a role's identity to the server. Secrets: never logged, never in the region.
struct Credential {
	control::ServerRoute route = control::ServerRoute::None;
	control::ServerMethod method = control::ServerMethod::Trust;
	bool has_key = false;
	proto::Secret<proto::ScramKey> client_key;
	proto::Secret<proto::ScramVerifier> verifier;
	proto::SecretString md5;      // stored hash, "md5..."
	proto::SecretString password; // clear text
	proto::Error route_error;
};

class Pool
{
public:
	Pool(Engine &engine, uint32_t slot, uint32_t generation);
	~Pool();
	Pool(const Pool &) = delete;
	Pool &operator=(const Pool &) = delete;

	// ---- for sessions
	void attach();
	void detach();
	// True: session->server() is set. False: it waits and hears on_assigned() or on_wait_failed().
	bool acquire(Session *session);
	void stop_waiting(Session *session);
	void learn(std::unique_ptr<Credential> credential); // of a client that has just proved itself
	void learn(const control::Proof &proof);            // of a client of another worker
	const Credential *credential() const { return credential_.get(); }

	// ---- for servers
	void on_server_ready(ServerConn *server);                           // logged in, or released
	void on_server_failed(ServerConn *server, const proto::Error &why); // it could not log in
	void on_server_gone(ServerConn *server);
	void change_state(ServerConn *server, control::ServerState to);
	void set_fixed(std::string_view name, std::string_view value);
	bool in_hot_standby() const { return in_hot_standby_; } // as far as a server or the manager told
	void leave_hot_standby();

	// ---- for the engine
	void tick(int64_t now);
	void refresh(); // the region was changed by the manager
	void grow();
	uint32_t close_idle();
	// No server until then: somebody wants the database for himself.
	uint32_t drain(int64_t until)
	{
		drain_until_ = until;
		return close_idle();
	}
	void end_drain()
	{
		drain_until_ = 0;
		grow();
	}
	void yield(uint32_t worker, uint32_t waited_ms);
	bool close_one_idle();
	bool give_up_idle(const Claim &to);            // false: there is none, or our own clients wait
	void on_place_free();                          // that was asked for
	ServerConn *open_listener(Listener *listener); // nullptr: it cannot be had
	bool unused() const { return clients_ == 0 && servers() == 0; }
	template <class F> void each_server(F f)
	{
		for (auto *list : {&idle_, &active_, &other_})
			list->each(f);
	}

	// ---- what it is
	Engine &engine() { return engine_; }
	uint32_t slot() const { return slot_; }
	uint32_t generation() const { return generation_; }
	const region::PoolSlot &shared() const { return shared_; }
	const region::PoolSettings &settings() const { return shared_.settings; }
	region::PoolCounters &counters() { return mine_; }
	const std::string &tenant() const { return tenant_; }
	const std::string &database() const { return database_; }
	uint32_t names_sequence() const { return names_sequence_; }
	const std::string &role() const { return role_; }
	bool dead() const { return shared_.state.load(std::memory_order_relaxed) != region::SlotState::Used; }
	uint32_t epoch() const { return shared_.epoch.load(std::memory_order_relaxed); }
	bool has_prepared(Statement *s, Shape &shape); // a server of this worker has it for certain
	uint64_t catalog_clock();                      // of the last change that was seen
	uint64_t number() const { return uint64_t{slot_} << 32 | generation_; } // no other pool has or had it
	// A client prepares `s`: what was parsed before the last change of the catalog is outdated.
	void renew_if_changed(Statement *s);
	bool wanted() const; // somebody waits for a server, in whichever worker
	bool has_waiters() const { return !waiters_.empty(); }
	// Why no server was had in that time.
	proto::Error lack(const std::string &limit) const;
	// What the pool knows of a fresh login still holds.
	bool base_holds() const { return base && base_epoch_ == epoch(); }
	// Why a dead pool's clients must go.
	proto::Error death() const;

	// What the server reported and warned of at its login, and the settings that clients started with, as the server
	// understood them.
	Params base;
	std::string notices;
	std::vector<std::pair<std::string, std::string>> fixed;
	struct Started {
		Params params;
		int32_t idle_session_timeout; // ms
	};
	std::unordered_map<std::string, Started> known_startups;

private:
	bool reserve();
	void open_server();
	bool dial(ServerConn *server);
	void park_one();
	void serve();
	ServerConn *pick(const Session *session);
	void count();
	void fail_waiters(const proto::Error &why, bool fatal = true);
	void fail_late_waiters(int64_t now);
	void ask_others(int64_t now);
	void ask_for_place(int64_t now);
	void end_surplus_pin(int64_t now);
	size_t servers() const { return idle_.size() + active_.size() + other_.size(); }
	uint32_t open_everywhere() const;
	void read_names();
	struct Refusal {
		proto::Error why;
		bool fatal; // to a session that waits
		uint32_t look = 0;
	};
	void doubt(Refusal refusal);
	void tell_others();

	using ServerList = List<ServerConn, &ServerConn::pool_hook>;
	ServerList &list_of(control::ServerState state);

	Engine &engine_;
	const uint32_t slot_;
	const uint32_t generation_;
	region::PoolSlot &shared_;
	region::PoolCounters &mine_;
	std::string tenant_, database_, role_;
	uint32_t names_sequence_ = 0;
	std::unique_ptr<Credential> credential_;
	ServerList idle_; // most recently used first
	ServerList active_, other_;
	List<Session, &Session::wait_hook> waiters_;
	uint32_t clients_ = 0;
	uint32_t connecting_ = 0;
	uint32_t owed_ = 0;    // busy servers that were promised to another worker
	uint32_t yielded_ = 0; // servers whose place goes to yielded_to_ when the backend is gone
	uint32_t yielded_to_ = 0;
	int64_t hold_until_ = 0;  // no new server before: the place was promised
	int64_t drain_until_ = 0; // no server at all before: the database is about to be dropped
	int64_t logged_at_ = 0;
	uint32_t base_epoch_ = 0;
	bool in_hot_standby_ = false;
	bool serving_ = false;
	int64_t retry_at_ = 0; // after a failed login
	std::optional<Refusal> refusal_;
	// The server's own limit that refused the last one, and when. Logins are tried one at a time then.
	control::ServerLimit refused_by_ = control::ServerLimit::None;
	int64_t refused_at_ = 0;
	int64_t asked_at_ = 0;
	proto::Error last_failure_;
};

} // namespace pgpool::core
