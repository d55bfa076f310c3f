// The engine of one worker: all its sessions and pools, its clock ticks and its verbs.
//
// Owns sessions (clients.hpp), pools (pools.hpp) and the listeners; passes events of the control socket on to them.
// Objects that end are buried and freed at the end of the event, so that no method returns into freed
// memory. Knows neither sockets nor libuv: see ports.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/clients.hpp"
#include "core/list.hpp"
#include "core/listeners.hpp"
#include "core/params.hpp"
#include "core/pools.hpp"
#include "core/ports.hpp"
#include "core/prepared.hpp"
#include "core/questions.hpp"
#include "core/statement_pool.hpp"
#include "core/stranger_log.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

// Of one client's work.
struct Bounds {
	uint32_t messages = 1000;  // in one turn: about a millisecond of the costliest ones
	size_t outstanding = 4096; // messages that a backend has to answer, each with its note here
};

class Engine
{
public:
	Engine(Outside &outside, region::View region, uint32_t worker);
	~Engine();
	Engine(const Engine &) = delete;
	Engine &operator=(const Engine &) = delete;

	// ---- events from outside
	void accept(Stream *stream, bool session_port, bool fd_reserve_reached);
	void on_settings(const region::Settings &settings);
	void on_manager(); // it is there (again): ask what could not be asked
	void on_poke();
	uint32_t ask_to_look(); // at roles and databases
	bool has_looked(uint32_t look) const;
	// A statement needs the database without connections, until it ends: then Pools::end_drain().
	void on_drain_database(uint32_t oid, uint32_t &done);
	void on_cancel_key(int32_t pid, std::string_view key);
	void tick();
	// Takes no more clients, ends idle ones, lets transactions finish.
	void drain();
	bool drained() { return clients_.sessions().empty() && pools_.places().none_taken(); }
	// What is still there is told to leave, whatever it does.
	void abandon();
	void end_event(); // frees what was buried
	void set_bounds(const Bounds &bounds) { bounds_ = bounds; }

	// ---- for the control socket
	std::vector<control::ServerRow> server_rows();
	std::vector<control::PreparedRow> prepared_rows(); // in statement_rows.cpp
	bool terminate_client(uint64_t id);
	bool cancel_client(uint64_t id);

	// ---- for sessions, pools and servers
	Outside &outside() { return outside_; }
	const region::Settings &settings() const { return settings_; }
	const region::View &region() const { return region_; }
	uint32_t worker() const { return worker_; }
	region::WorkerSlot &slot() { return region_.worker(worker_); }
	ParamStore &params() { return params_; }
	Pools &pools() { return pools_; }
	Clients &clients() { return clients_; }
	Questions &questions() { return questions_; } // of logins
	StatementStore &statements() { return statements_; }
	Listeners &listeners() { return listeners_; }
	CatalogClock &catalog() { return catalog_; }
	std::string &copy() { return copy_; } // for messages that are rewritten, within one call
	int64_t now() { return outside_.now_us(); }
	bool draining() const { return life_ != Life::Serving; }
	// Whose fault it is that no one is let in: SQLSTATE and text for a client that comes now.
	bool refuses(proto::Error &why);
	// The tenant was banned or dropped: its clients must go.
	bool evicts(uint32_t tenant_slot, proto::Error &why) const;

	// A line that anybody can cause who reaches the port: short, and not too often.
	void log_stranger(const Stream &from, std::string line);
	// Here, else at the other workers. The client that asked is let go when it was acted on: a client that
	// has waited for that may send its next query, which must not be hit.
	void cancel(Session *asking, int32_t pid, std::string_view key);
	void on_cancel_done(uint64_t session);
	static constexpr uint32_t kNoAgentSlot = UINT32_MAX;
	uint32_t take_agent_slot(); // kNoAgentSlot: none is free
	void free_agent_slot(uint32_t i);
	void bury(std::unique_ptr<StreamOwner> corpse) { graveyard_.push_back(std::move(corpse)); }
	void retire(std::unique_ptr<Login> login);
	void session_ended(Session *session);
	const Bounds &bounds() const { return bounds_; }
	uint64_t next_assignment() { return next_assignment_++; }

private:
	// Stopping: PostgreSQL waits for its clients (smart shutdown). Draining: this worker ends, for good.
	enum class Life { Serving, Stopping, Draining };

	void turn_away(Stream *stream);
	bool cancel_here(int32_t pid, std::string_view key);
	void evict_clients();
	void send_away_idle(const proto::Error &why);
	void tick_logins(int64_t now);
	void tick_clients(int64_t now);

	Outside &outside_;
	region::View region_;
	uint32_t worker_;
	region::Settings settings_;
	Clients clients_;
	Questions questions_;
	ParamStore params_;
	StatementStore statements_;
	Listeners listeners_{*this};
	std::string copy_;
	CatalogClock catalog_{region_.header()->catalog_changes, statements_};
	Bounds bounds_;
	Pools pools_; // ends before the stores that servers and greetings use
	StrangerLog strangers_;
	std::vector<std::unique_ptr<StreamOwner>> graveyard_;
	std::vector<std::unique_ptr<Login>> retired_;
	uint64_t next_assignment_ = 1;
	uint32_t ticks_ = 0;
	Life life_ = Life::Serving;
};

} // namespace pgpool::core
