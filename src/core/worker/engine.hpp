// The engine of one worker: all its sessions and pools, its clock ticks and its verbs.
//
// Owns what all share (context.hpp), clients, pools, the questions of logins and the listeners; passes events of the
// control socket on to them. Objects that end are buried and freed at the end of the event, so that no method returns
// into freed memory. Knows neither sockets nor libuv: see ports.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/rows.hpp"
#include "core/client/client_rows.hpp"
#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/listening/listeners.hpp"
#include "core/pool/node_watch.hpp"
#include "core/pool/pools.hpp"
#include "core/client/questions.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

using ClientRows = Rows<Clients::Sessions, control::ClientRow>;
using ServerRows = Rows<Pools::Servers, control::ServerRow>;

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
	// A statement needs the database without connections, until it ends: then Pools::end_drain().
	void on_drain_database(uint32_t oid, uint32_t &done);
	void on_cancel_over(uint64_t id, CancelEnd end); // of Outside::cancel_on_node()
	void tick();
	// Takes no more clients, ends idle ones, lets transactions finish.
	void drain();
	bool drained() { return clients_.sessions().empty() && pools_.places().none_taken(); }
	// What is still there is told to leave, whatever it does.
	void abandon();
	void end_event(); // frees what was buried

	// ---- for the control socket
	std::vector<control::PreparedRow> prepared_rows(); // in statement_rows.cpp
	bool terminate_client(uint64_t id);
	bool cancel_client(uint64_t id);

	// ---- its parts
	Context &context() { return context_; }
	Pools &pools() { return pools_; }
	Clients &clients() { return clients_; }
	Questions &questions() { return questions_; } // of logins
	NodeWatch &node_watch() { return node_watch_; }

private:
	void turn_away(Stream *stream);
	void evict_clients();
	void send_away_idle(const proto::Error &why);
	void tick_logins(int64_t now);
	void tick_clients(int64_t now);

	Context context_; // outlives all that refers to it
	Questions questions_;
	Pools pools_;
	NodeWatch node_watch_{context_, pools_};
	Listeners listeners_;
	Clients clients_;
	uint32_t ticks_ = 0;
};

} // namespace pgpool::core
