// Entry of the preloaded library.
//
// Owns what happens in the postmaster: the region is mapped, the port is claimed, manager and workers are
// registered. It runs no loop, opens no file but the ports' locks, and allocates nothing that needs an end.
// Must not know the network code (that is pgpool_worker.so) or the catalog.
#include <cstdio>
#include <cstring>

#include <sys/mman.h>

#include "postgres/base/settings.hpp"
#include "postgres/base/shared.hpp"

extern "C" {
#include "postmaster/bgworker.h"
#include "storage/ipc.h"

PGPOOL_MODULE_MAGIC;
void _PG_init(void);
}

namespace pgpool::postgres
{

region::View region_view;

namespace
{

shmem_startup_hook_type previous_shmem_startup;

void map_region()
{
	uint64_t size = region::View::size(gucs.workers, gucs.max_tenants, gucs.max_pools, MaxConnections);
	void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		ereport(FATAL,
		        (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not map " UINT64_FORMAT " bytes for pgpool: %m", size),
		         errhint("Lower pgpool.workers, pgpool.max_tenants or pgpool.max_pools.")));
	region::Header *header = static_cast<region::Header *>(memory);
	region::View::format(header, gucs.workers, gucs.max_tenants, gucs.max_pools, MaxConnections);
	fill_settings(header->settings, 1);
	region_view = region::View(header);

	auto **slot = reinterpret_cast<region::Rendezvous **>(find_rendezvous_variable("pgpool"));
	static region::Rendezvous rendezvous;
	rendezvous = {region::kMagic, region::kVersion, header};
	*slot = &rendezvous;
}

void on_shmem_startup()
{
	static bool claimed;

	if (previous_shmem_startup)
		previous_shmem_startup();
	// runs again when the postmaster starts over after a crash; the claim is held all the time
	if (claimed || IsUnderPostmaster || !IsPostmasterEnvironment)
		return;
	claimed = true;
	claim_ports();
}

void register_one(const char *library, const char *function, const char *name, const char *type, int flags, int restart,
                  int argument)
{
	BackgroundWorker w;

	memset(&w, 0, sizeof w);
	w.bgw_flags = flags;
	w.bgw_start_time = BgWorkerStart_ConsistentState;
	w.bgw_restart_time = restart;
	w.bgw_main_arg = Int32GetDatum(argument);
	strlcpy(w.bgw_library_name, library, sizeof w.bgw_library_name);
	strlcpy(w.bgw_function_name, function, sizeof w.bgw_function_name);
	strlcpy(w.bgw_name, name, sizeof w.bgw_name);
	strlcpy(w.bgw_type, type, sizeof w.bgw_type);
	RegisterBackgroundWorker(&w);
}

void register_workers()
{
	char name[BGW_MAXLEN];

	// The first has a place when max_worker_processes is too small for all, and without the manager nobody logs in.
	// 5 s: a missing pgpool.database must not fill the log
	register_one("pgpool", "pgpool_manager_main", "pgpool manager", "pgpool manager",
	             BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION, 5, 0);
	for (int i = 0; i < gucs.workers; i++) {
		snprintf(name, sizeof name, "pgpool worker %d", i);
		register_one("pgpool_worker", "pgpool_worker_main", name, "pgpool worker", BGWORKER_SHMEM_ACCESS, 1, i);
	}
}

void warn_about_settings()
{
	if (max_worker_processes < gucs.workers + 1)
		ereport(WARNING, (errmsg("pgpool needs %d background workers, but max_worker_processes is %d", gucs.workers + 1,
		                         max_worker_processes),
		                  errhint("Set max_worker_processes to at least %d more than other extensions need, or lower "
		                          "pgpool.workers, and restart.",
		                          gucs.workers + 1)));
	int server_port = server_setting_int("port", 5432);
	if (gucs.port == server_port || gucs.session_port == server_port)
		ereport(WARNING, (errmsg("pgpool and the server are both set to port %d", server_port),
		                  errhint("Set pgpool.port and pgpool.session_port to other ports than \"port\".")));
	if (gucs.port == gucs.session_port)
		ereport(WARNING, (errmsg("pgpool.port and pgpool.session_port are both %d", gucs.port),
		                  errhint("Set pgpool.session_port to another port, or to 0.")));
}

} // namespace

void require_region()
{
	if (!have_region())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("pgpool is not preloaded"),
		                errhint("Add pgpool to shared_preload_libraries and restart.")));
}

} // namespace pgpool::postgres

void _PG_init(void)
{
	using namespace pgpool::postgres;

	if (!process_shared_preload_libraries_in_progress)
		return;
	define_settings();
	if (IsBinaryUpgrade)
		return;
	map_region();
	warn_about_settings();
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	install_hooks();
	install_access_hook();
	install_commits();
	install_agent();
	register_workers();
}
