// The manager: one background worker with a database connection, asked by all workers.
//
// Owns its main loop and what happens at each turn: reload, lookups, the refresh of the slots in use, the
// phase of the cluster. It is attached to PostgreSQL's shared memory, so it must never crash: it holds no
// network code, and an ERROR ends one piece of work only. Must not know how clients or servers are handled.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include <sys/stat.h>
#include <unistd.h>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PGDLLEXPORT void pgpool_manager_main(Datum argument);
}

namespace pgpool::postgres
{

namespace
{

constexpr long kTurnMs = 500;           // how often the phase is looked at
constexpr int kRefreshMs = 5000;        // a ban may end, or triggers may have been off
constexpr int kStandbyRefreshMs = 1000; // no trigger fires here
constexpr long kPositionsMs = 1;        // as long as a worker wants them
constexpr long kSettleMs = 20;          // from a commit that wakes us to its invalidations

bool dirty = true;
MemoryContext turn_context;

region::Header &header()
{
	return *region_view.header();
}

void catalog_changed(Datum, int, uint32)
{
	dirty = true;
}

void make_directory()
{
	if (mkdir(control::kDirectory, S_IRWXU) < 0 && errno != EEXIST)
		ereport(FATAL, (errcode_for_file_access(),
		                errmsg("pgpool could not create directory \"%s\": %m", control::kDirectory)));
	// another group may read PGDATA, but nobody else talks to the workers
	(void)chmod(control::kDirectory, S_IRWXU);
}

// Line 8 of postmaster.pid is the only trace of a smart shutdown that a child can see.
bool server_stops()
{
	char text[2048];
	FILE *f = fopen("postmaster.pid", "re");
	bool stops = false;

	if (f == nullptr)
		return false;
	for (int line = 1; line <= 8 && fgets(text, sizeof text, f); line++)
		stops = line == 8 && strncmp(text, "stopping", 8) == 0;
	fclose(f);
	return stops;
}

void look_at_phase()
{
	region::Phase now = server_stops() ? region::Phase::Stopping : region::Phase::Running;

	if (header().phase.load() == now)
		return;
	header().phase.store(now);
	links_poke();
}

// Runs one piece of work in a transaction; an ERROR is logged and ends it alone.
template <class Work> bool in_transaction(Work work)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp(); // or now() would stand still
		StartTransactionCommand();
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		work();
		PopActiveSnapshot();
		SPI_finish();
		CommitTransactionCommand();
		done = true;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		MemoryContextSwitchTo(old);
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return done;
}

// `seen`: as much of changes_told as this look will have seen; workers that are poked read it.
void refresh(bool poke_anyway, uint32 seen)
{
	static bool changed;

	changed = poke_anyway;
	dirty = false;
	bool done = in_transaction([] {
		int exists = extension_present();
		changed |= header().extension_exists.exchange(exists) != exists;
		changed |= refresh_nodes();
		changed |= refresh_slots();
	});
	if (!done)
		dirty = true;
	else
		header().changes_seen.store(seen);
	if (changed)
		links_poke();
	pgstat_report_stat(true);
}

// A commit wakes us before its invalidations are sent: what was told when we woke is seen by a look that is later.
struct Settling {
	bool on;
	TimestampTz until;
	uint32 told;
} settling;

void settle(TimestampTz now, bool woken)
{
	if (settling.on && now >= settling.until) {
		settling.on = false;
		refresh(true, settling.told);
	} else if (woken) {
		refresh(true, header().changes_seen.load());
	}
	if (!settling.on && header().changes_told.load() != header().changes_seen.load())
		settling = {true, TimestampTzPlusMilliseconds(now, dirty ? kTurnMs : kSettleMs), header().changes_told.load()};
}

void reload()
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	if (configuration_renewed())
		renew_slots(); // the latch is set, so workers will be poked
	load_rules();
	links_settings();
	dirty = true;
}

// Lets pending invalidations arrive; they are read at the start of a transaction.
void read_invalidations()
{
	(void)in_transaction([] {});
}

long pause()
{
	return positions_wanted() ? kPositionsMs : settling.on ? kSettleMs : kTurnMs;
}

void turn()
{
	static TimestampTz last_look, last_refresh;
	int events = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
	                               links_fd(), pause(), PG_WAIT_EXTENSION);
	TimestampTz now = GetCurrentTimestamp();

	MemoryContextReset(turn_context);
	MemoryContextSwitchTo(turn_context);
	CHECK_FOR_INTERRUPTS();
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (ShutdownRequestPending)
		return;
	look_at_primary();
	read_positions();
	reload_if_asked();
	settle(now, (events & WL_LATCH_SET) != 0);
	if (links_read())
		links_answer();
	if (facts_wanted())
		(void)in_transaction(facts_start_workers);
	if (TimestampDifferenceExceeds(last_look, now, kTurnMs)) {
		last_look = now;
		look_at_phase();
		read_invalidations();
		int period = RecoveryInProgress() ? kStandbyRefreshMs : kRefreshMs;
		if (dirty || TimestampDifferenceExceeds(last_refresh, now, period)) {
			last_refresh = now;
			if (header().port_taken.load() && claim_ports_again()) {
				(void)listeners_open(0);
				links_listeners();
			}
			refresh(false, header().changes_seen.load());
		}
		retire_slots();
	}
}

void at_exit(int, Datum)
{
	int me = MyProcPid;

	(void)unlink(control::kManagerSocket);
	header().manager_pid.compare_exchange_strong(me, 0);
}

void connect_to_database()
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(gucs.database, nullptr, BGWORKER_BYPASS_ALLOWCONN);
	// nobody's functions or operators are to be found before the server's
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "2s", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_appname("pgpool manager");
}

} // namespace

void reload_if_asked()
{
	if (ConfigReloadPending)
		reload();
}

void manager_problem(const char *format, ...)
{
	char text[region::kTextLen];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	strlcpy(header().manager_problem, text, sizeof header().manager_problem);
	ereport(LOG, (errmsg("pgpool manager: %s", text)));
}

void manager_run()
{
	rules_start();
	// stays there if the connection ends in FATAL
	snprintf(header().manager_problem, sizeof header().manager_problem,
	         "the manager cannot connect to database \"%.64s\"", gucs.database);
	connect_to_database();
	make_directory();
	turn_context = AllocSetContextCreate(TopMemoryContext, "pgpool manager turn", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn_context);
	header().manager_problem[0] = '\0';
	load_rules();
	slots_start();
	if (configuration_renewed())
		renew_slots();
	CacheRegisterSyscacheCallback(AUTHOID, catalog_changed, 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, catalog_changed, 0);
	CacheRegisterSyscacheCallback(DATABASEOID, catalog_changed, 0);
	(void)claim_ports_again(); // what a former manager held is free, or somebody else's
	(void)listeners_open(header().manager_pid.load());
	begin_commits();
	look_at_primary();
	refresh(false, header().changes_seen.load()); // so that extension_exists is right before the first lookup
	links_start();
	header().manager_pid.store(MyProcPid);
	on_proc_exit(at_exit, 0);
	while (!ShutdownRequestPending)
		turn();
	// never 0: the postmaster would not start another one
	proc_exit(1);
}

} // namespace pgpool::postgres

void pgpool_manager_main(Datum)
{
	using namespace pgpool::postgres;

	if (!have_region())
		ereport(FATAL, (errmsg("pgpool is not preloaded")));
	manager_run();
}
