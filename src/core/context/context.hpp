// What all objects of one worker share: the world outside, the region, settings, stores, and how it ends.
//
// Owns the stores of settings and statements, who is buried at the end of the event, and whether the worker takes
// clients. Handed down by the Engine, which alone changes its settings and its life. Must not know clients, servers or
// pools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/settings/params.hpp"
#include "core/base/ports.hpp"
#include "core/statements/statement_store.hpp"
#include "core/statements/statement_pool.hpp"
#include "core/context/stranger_log.hpp"
#include "core/routing/nodes.hpp"
#include "core/routing/reads.hpp"
#include "proto/message.hpp"
#include "region/layout.hpp"
#include "region/settings.hpp"

namespace pgpool::core
{

// Of one client's work.
struct Bounds {
	uint32_t messages = 1000;  // in one turn: about a millisecond of the costliest ones
	size_t outstanding = 4096; // messages that a backend has to answer, each with its note here
};

class Context
{
public:
	// Stopping: PostgreSQL waits for its clients (smart shutdown). Draining: this worker ends, for good.
	enum class Life { Serving, Stopping, Draining };

	Context(Outside &outside, region::View region, uint32_t worker);
	Context(const Context &) = delete;
	Context &operator=(const Context &) = delete;

	Outside &outside() { return outside_; }
	int64_t now() { return outside_.now_us(); }
	int64_t clock() { return outside_.clock_us(); } // later than all that was received
	const region::View &region() const { return region_; }
	uint32_t worker() const { return worker_; }
	region::WorkerSlot &slot() { return region_.worker(worker_); }
	const region::Settings &settings() const { return settings_; }
	const Bounds &bounds() const { return bounds_; }
	ParamStore &params() { return params_; }
	StatementStore &statements() { return statements_; }
	CatalogClock &catalog() { return catalog_; }
	Nodes &nodes() { return nodes_; }
	void want_positions(); // of the nodes, from the manager
	Reads &reads() { return reads_; }
	std::string &copy() { return copy_; } // for messages that are rewritten, within one call
	uint64_t next_assignment() { return next_assignment_++; }

	bool draining() const { return life_ != Life::Serving; }
	// Whose fault it is that no one is let in: SQLSTATE and text for a client that comes now.
	bool refuses(proto::Error &why) const;
	// The tenant was banned or dropped: its clients must go.
	bool evicts(uint32_t tenant_slot, proto::Error &why) const;

	// The manager looks at roles and databases. Gives a number for has_looked(), which it has not reached yet.
	uint32_t ask_to_look();
	bool has_looked(uint32_t look) const;
	static constexpr uint32_t kNoAgentSlot = UINT32_MAX;
	uint32_t take_agent_slot(); // kNoAgentSlot: none is free
	void free_agent_slot(uint32_t i);
	// A line that anybody can cause who reaches the port: short, and not too often.
	void log_stranger(const Stream &from, std::string line);
	// Freed at the end of the event, so that a method of it may return.
	void bury(std::unique_ptr<StreamOwner> corpse) { graveyard_.push_back(std::move(corpse)); }

	// ---- for the engine
	void set_settings(const region::Settings &settings) { settings_ = settings; }
	void set_bounds(const Bounds &bounds) { bounds_ = bounds; }
	Life life() const { return life_; }
	void set_life(Life life) { life_ = life; }
	void log_held_back();
	void end_event() { graveyard_.clear(); }

private:
	Outside &outside_;
	region::View region_;
	uint32_t worker_;
	region::Settings settings_;
	ParamStore params_;
	StatementStore statements_;
	CatalogClock catalog_{region_.header()->catalog_changes, statements_};
	Nodes nodes_{region_, worker_};
	Reads reads_{outside_, region_};
	std::string copy_;
	Bounds bounds_;
	StrangerLog strangers_;
	std::vector<std::unique_ptr<StreamOwner>> graveyard_;
	uint64_t next_assignment_ = 1;
	Life life_ = Life::Serving;
};

proto::Error shutdown_error();

} // namespace pgpool::core
