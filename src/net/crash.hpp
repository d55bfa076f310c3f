// The containment of crashes: whatever a fault of the network code does, the process ends by exit with code 1.
//
// Owns what every signal does in a worker, but for those that stop it, and the stacks on which the handlers run. The
// postmaster restarts all backends when a worker dies from a signal, so the handlers trust nothing: not the
// stack, not the place where the program counter is, not a lock. Must not know sessions, nor PostgreSQL.
#pragma once

namespace pgpool::net
{

// Of the whole process, once, in the main thread, before other threads are started. Unblocks all signals; what SIGTERM
// does is the caller's, before.
void contain_crashes();

// Gives the calling thread a stack of its own for the handlers: an overflow of its stack would end the process by
// SIGSEGV otherwise. Every thread calls it first (work in libuv's thread pool, too); again, it costs nothing.
void use_crash_stack();

// For what cannot go on: the exit that the postmaster takes for contained.
[[noreturn]] void end_process();

} // namespace pgpool::net
