// The server's own functions that are not what their volatility says, to a read that may run on a standby.
//
// Owns the reviewed list, by name; the first pattern that fits counts, `*` stands for any end. What no pattern names is
// harmless if it is IMMUTABLE or STABLE, else not known.
#pragma once

#include "core/routing/facts.hpp"

namespace pgpool::postgres
{

struct BuiltIn {
	const char *pattern;
	core::Verdict verdict;
};

inline constexpr BuiltIn kBuiltIn[] = {
    // VOLATILE, and no harm
    {"random", core::Verdict::Harmless},
    {"random_normal", core::Verdict::Harmless},
    {"array_shuffle", core::Verdict::Harmless},
    {"array_sample", core::Verdict::Harmless},
    {"gen_random_uuid", core::Verdict::Harmless},
    {"uuidv4", core::Verdict::Harmless},
    {"uuidv7", core::Verdict::Harmless},
    {"clock_timestamp", core::Verdict::Harmless},
    {"timeofday", core::Verdict::Harmless},
    {"pg_sleep*", core::Verdict::Harmless},
    {"bernoulli", core::Verdict::Harmless},
    {"system", core::Verdict::Harmless},
    {"pg_relation_size", core::Verdict::Harmless},
    {"pg_table_size", core::Verdict::Harmless},
    {"pg_indexes_size", core::Verdict::Harmless},
    {"pg_total_relation_size", core::Verdict::Harmless},
    {"pg_wal_lsn_diff", core::Verdict::Harmless},
    // what it tells depends on the setting, see is_harmless_setting()
    {"current_setting", core::Verdict::Harmless},

    // they change something
    {"nextval", core::Verdict::Writes},
    {"setval", core::Verdict::Writes},
    {"pg_advisory_*", core::Verdict::Writes},
    {"pg_try_advisory_*", core::Verdict::Writes},
    {"lo_*", core::Verdict::Writes},
    {"loread", core::Verdict::Writes},
    {"lowrite", core::Verdict::Writes},
    {"pg_notify", core::Verdict::Writes},
    {"pg_stat_reset*", core::Verdict::Writes},
    {"pg_stat_force_next_flush", core::Verdict::Writes},
    {"pg_cancel_backend", core::Verdict::Writes},
    {"pg_terminate_backend", core::Verdict::Writes},
    {"pg_reload_conf", core::Verdict::Writes},
    {"pg_rotate_logfile*", core::Verdict::Writes},
    {"pg_switch_wal", core::Verdict::Writes},
    {"pg_create_*", core::Verdict::Writes},
    {"pg_drop_*", core::Verdict::Writes},
    {"pg_copy_*", core::Verdict::Writes},
    {"pg_promote", core::Verdict::Writes},
    {"pg_backup_*", core::Verdict::Writes},
    {"pg_logical_*", core::Verdict::Writes},
    {"pg_replication_*", core::Verdict::Writes},
    {"pg_import_system_collations", core::Verdict::Writes},
    {"pg_log_backend_memory_contexts", core::Verdict::Writes},
    {"gin_clean_pending_list", core::Verdict::Writes},
    {"txid_current", core::Verdict::Writes},
    {"pg_current_xact_id", core::Verdict::Writes},
    {"pg_export_snapshot", core::Verdict::Writes},

    // they speak of the session or the server
    {"set_config", core::Verdict::OfSession},
    {"setseed", core::Verdict::OfSession},
    {"currval", core::Verdict::OfSession},
    {"lastval", core::Verdict::OfSession},
    {"txid_*", core::Verdict::OfSession},
    {"inet_client_*", core::Verdict::OfSession},
    {"inet_server_*", core::Verdict::OfSession},
    {"current_query", core::Verdict::OfSession},
    {"pg_backend_pid", core::Verdict::OfSession},
    {"pg_blocking_pids", core::Verdict::OfSession},
    {"pg_safe_snapshot_*", core::Verdict::OfSession},
    {"pg_isolation_test_*", core::Verdict::OfSession},
    {"pg_current_*", core::Verdict::OfSession},
    {"pg_last_*", core::Verdict::OfSession},
    {"pg_xact_*", core::Verdict::OfSession},
    {"pg_is_in_*", core::Verdict::OfSession},
    {"pg_is_wal_*", core::Verdict::OfSession},
    {"pg_my_temp_schema", core::Verdict::OfSession},
    {"pg_wal*", core::Verdict::OfSession},
    {"pg_get_wal_*", core::Verdict::OfSession},
    {"pg_get_replication_slots", core::Verdict::OfSession},
    {"pg_get_backend_memory_contexts", core::Verdict::OfSession},
    {"pg_get_process_memory_contexts", core::Verdict::OfSession},
    {"pg_get_shmem_*", core::Verdict::OfSession},
    {"pg_get_aios", core::Verdict::OfSession},
    {"pg_get_wait_events", core::Verdict::OfSession},
    {"pg_get_sequence_data", core::Verdict::OfSession},
    {"pg_get_loaded_modules", core::Verdict::OfSession},
    {"pg_stat_*", core::Verdict::OfSession},
    {"pg_show_*", core::Verdict::OfSession},
    {"pg_settings_get_flags", core::Verdict::OfSession},
    {"pg_lock_status", core::Verdict::OfSession},
    {"pg_prepared_*", core::Verdict::OfSession},
    {"pg_cursor", core::Verdict::OfSession},
    {"pg_listening_channels", core::Verdict::OfSession},
    {"pg_notification_queue_usage", core::Verdict::OfSession},
    {"pg_hba_*", core::Verdict::OfSession},
    {"pg_ident_*", core::Verdict::OfSession},
    {"pg_config", core::Verdict::OfSession},
    {"pg_conf_load_time", core::Verdict::OfSession},
    {"pg_control_*", core::Verdict::OfSession},
    {"pg_postmaster_start_time", core::Verdict::OfSession},
    {"pg_ls_*", core::Verdict::OfSession},
    {"pg_read_*", core::Verdict::OfSession},
    {"pg_tablespace_location", core::Verdict::OfSession},
    {"pg_available_extension*", core::Verdict::OfSession},
    {"pg_sequence_last_value", core::Verdict::OfSession},
    {"pg_trigger_depth", core::Verdict::OfSession},
    {"pg_jit_available", core::Verdict::OfSession},
    {"pg_event_trigger_*", core::Verdict::OfSession},
    {"pg_numa_*", core::Verdict::OfSession},
    // they run whatever they are given
    {"pg_input_*", core::Verdict::Unknown},
};

} // namespace pgpool::postgres
