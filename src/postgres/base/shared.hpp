// What all parts of the preloaded library share: the region, channels to other processes, small helpers.
//
// Owns declarations only. The region is NULL when the library was not preloaded, so every caller that can
// run in a backend asks have_region() first.
#pragma once

#include <cstdint>

#include "region/control.hpp"
#include "region/layout.hpp"
#include "region/names.hpp"
#include "postgres/base/compat.hpp"

namespace pgpool::postgres
{

// pgpool.cpp
extern region::View region_view;
inline bool have_region()
{
	return region_view.header() != nullptr;
}
void require_region(); // ERROR with the remedy if not preloaded

// channel.cpp: AF_UNIX SOCK_SEQPACKET
int channel_listen(const char *path);                       // -1 with errno
int channel_connect(const char *path);                      // -1 with errno; non-blocking
int channel_connect_worker(uint32_t worker);                // -1 with errno
bool channel_send(int fd, const void *packet, size_t size); // whole or not at all
// Waits until `deadline`; bytes of a packet with a valid head, 0 at the end or timeout, -1 if it is broken.
int channel_receive(int fd, void *buffer, size_t room, TimestampTz deadline);
// Is it a packet of this build, of the size that it claims?
bool packet_valid(const void *packet, size_t size);

// notify.cpp: the manager looks again after the commit of this transaction
void wake_manager_at_commit();
void wake_manager_now();
void raise_epochs_at_commit(Oid database, Oid role); // InvalidOid = any

// catalog.cpp
void catalog_changed(); // of this database: what was prepared is parsed anew
void install_access_hook();

// commits.cpp: the last commit of each database
void install_commits();

// claim.cpp: the locks of the ports
void claim_ports();       // in the postmaster
bool claim_ports_again(); // in the manager; true: what was taken is free

// drain.cpp: a statement that needs a database without connections
struct Drain {
	int fd[region::kMaxWorkers]; // to the workers that keep away until it is closed
	uint32_t count;
};
void drain_begin(Drain &drain, const Node *statement, bool top_level); // raises, or returns with what is to be ended
void drain_end(Drain &drain);

// hooks.cpp
void install_hooks();

// agent.cpp
void install_agent();

} // namespace pgpool::postgres
