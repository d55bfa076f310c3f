// The agent's parts, as they see each other: see agent.cpp.
//
// Owns declarations only. Everything here is of one process, a backend that a worker of pgpool opened; in all others
// install_agent() is all that ever runs.
#pragma once

#include "postgres/base/shared.hpp"

namespace pgpool::postgres::agent
{

// agent.cpp
// NULL = this backend has no agent. When the worker has given the backend up, it is one that nobody else has.
extern region::AgentSlot *slot;
extern uint32_t slot_generation;
void leave_slot();
inline void check_slot()
{
	if (slot->generation.load(std::memory_order_acquire) != slot_generation)
		leave_slot();
}
void before_statement(); // FATAL after settings that could not be applied
bool serves_pgpool();    // what runs is a query of the worker's own; safe in a signal handler
// To the worker, past the wrapper. Allocates nothing, so it cannot fail; ASCII only.
void put_parameter_status(const char *name, const char *value);
// The same for what may be long, byte for byte, with a mark before the name. False: no memory.
bool put_setting(const char *mark, const char *name, const char *value);

// agent_settings.cpp
void flag_settings();                        // at the end of the login
void flag_setting(config_generic *setting);  // one more; NULL = nothing
void scan_settings();                        // there may be more
bool settings_changed();                     // are there some that were not flagged?
void flag_new_settings(bool in_transaction); // which may set more
void report_strings();                       // those that changed
void report_own();                           // which of PostgreSQL's own reports are of values that the session set
bool settings_untold();                      // the worker does not know all, for want of memory
enum class Report { Value, Default, Nothing };
Report kind_of_report(const char *name); // PostgreSQL is about to send ParameterStatus
void forget_defaults();                  // it has sent all of them

// agent_defaults.cpp
void install_defaults();
bool defaults_broken(); // a reset value is not what it was

// agent_timeouts.cpp
void install_timeouts();
void forget_timeouts(); // that fired meanwhile
void tell_idle_timeout();

// agent_uncounted.cpp
void install_uncounted();

// agent_leftovers.cpp
void install_leftovers();
bool user_differs();
bool runs_backup();
bool has_temporary_slot();
bool has_replication_origin();
bool has_dblink();
bool library_came(); // since it was asked last

// agent_placeholders.cpp
void install_placeholders();

// agent_pins.cpp
void install_pins();
void look_without_catalog(); // cheap
bool pins_need_catalog();
void read_catalog_for_pins();
void pins_unknown();
void report_pins();

// agent_plans.cpp
void install_plans();
void look_for_plans(bool ready); // a Parse is complete, or all

// agent_identity.cpp
extern uint32_t identity_seen;
void keep_own_identity();
void install_tcp_settings();
void read_identity();
inline void follow_identity()
{
	if (slot->identity_sequence.load(std::memory_order_relaxed) != identity_seen)
		read_identity();
}

} // namespace pgpool::postgres::agent
