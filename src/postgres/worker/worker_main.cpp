// The main function of a worker: it leaves PostgreSQL's shared memory and runs the network loop.
//
// Owns the border between the server and src/net: the signals that stop a worker, and the log sink. A background
// worker that dies from a signal makes the postmaster restart every backend, so the first thing here is
// what the syslogger does: give everything shared back. From then on a crash of the network code (net/crash.hpp) is,
// to the postmaster, the exit with code 1 of a process that had already cleaned up.
//
// After detach() nothing of the server may be called that uses shared memory: no latch, lock, catalog or
// transaction. What is left: ereport(LOG), and the globals that were inherited.

// std and libraries first: postgres.h redefines names that they use
#include <atomic>
#include <csignal>
#include <exception>

#include <sys/eventfd.h>
#include <unistd.h>

#include "net/crash.hpp"
#include "net/worker_loop.hpp"
#include "postgres/worker/grammar.hpp"

extern "C" {
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/postmaster.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/pg_shmem.h"
#include "storage/pmsignal.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void pgpool_worker_main(Datum argument);
}

namespace
{

volatile sig_atomic_t stop_requested = 0;
int signal_fd = -1;

void wake()
{
	const uint64_t one = 1;
	ssize_t rc = write(signal_fd, &one, sizeof(one));
	(void)rc;
}

void on_sigterm(int)
{
	stop_requested = 1;
	wake();
}

// What other libraries have hooked in works on shared memory, too: none of it may run here any more.
void detach()
{
	shmem_exit(0);
	dsm_detach_all();
	PGSharedMemoryDetach();
	on_exit_reset();
	emit_log_hook = nullptr;
}

void install_signals()
{
	struct sigaction term {
	};
	term.sa_handler = on_sigterm;
	term.sa_flags = SA_RESTART;
	sigaction(SIGTERM, &term, nullptr);
	pgpool::net::contain_crashes();
}

// The one sink for log lines. PostgreSQL's own format, level and destination.
void log_line(const char *line)
{
	ereport(LOG, (errmsg_internal("%s", line)));
}

pgpool::region::Header *find_region()
{
	auto *r = static_cast<pgpool::region::Rendezvous *>(*find_rendezvous_variable("pgpool"));
	if (!r || r->magic != pgpool::region::kMagic || r->version != pgpool::region::kVersion)
		return nullptr;
	return r->header;
}

void run(pgpool::region::Header *header, uint32_t worker)
{
	try {
		const auto grammar = pgpool::postgres::server_grammar();
		pgpool::net::Host host{
		    pgpool::region::View(header),
		    worker,
		    signal_fd,
		    postmaster_alive_fds[POSTMASTER_FD_WATCH],
		    [] { return PostmasterIsAliveInternal(); },
		    [] { return stop_requested != 0; },
		    log_line,
		    *grammar,
		};
		auto *loop = new pgpool::net::WorkerLoop(host); // for the life of the process
		loop->run();
	} catch (const std::exception &e) {
		log_line(e.what());
	} catch (...) {
		log_line("unknown exception");
	}
}

} // namespace

extern "C" void pgpool_worker_main(Datum argument)
{
	const auto worker = static_cast<uint32_t>(DatumGetInt32(argument));
	pgpool::region::Header *header = find_region();
	if (!header)
		ereport(FATAL, (errmsg("pgpool_worker.so does not fit the running pgpool.so"),
		                errhint("Restart the database server.")));
	detach();
	signal_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	install_signals();
	run(header, worker);
	// Never 0: that would mean "do not start me again".
	_exit(1);
}
