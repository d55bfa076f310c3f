-- Objects of the extension: they exist, have comments, belong to the extension, and are dumped.
-- a manager that found no database yet comes back after some seconds
DO $$
BEGIN
	FOR i IN 1..150 LOOP
		EXIT WHEN EXISTS (SELECT FROM pgpool.check_running() WHERE item = 'extension' AND status = 'ok');
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;

BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET search_path = public, pg_catalog;
SELECT plan(24);

SELECT has_schema('pgpool'::name);
SELECT tables_are('pgpool', ARRAY['tenant', 'tenant_user', 'tenant_secret', 'node', 'replica_function']);
SELECT views_are('pgpool', ARRAY['pg_stat_workers', 'pg_stat_tenants', 'pg_stat_pools', 'pg_stat_clients',
	'pg_stat_servers', 'pg_stat_prepared', 'pg_stat_replicas', 'pg_stat_routing']);
SELECT functions_are('pgpool', ARRAY['add_replica', 'allow_on_replica', 'alter_replica', 'alter_tenant',
	'bad_argument', 'ban_tenant', 'cancel_client', 'check', 'check_limits', 'check_node', 'check_replicas',
	'check_running', 'check_tenant', 'config_changed', 'create_tenant', 'disallow_on_replica', 'discover_replicas',
	'drop_replica', 'drop_tenant', 'drop_user', 'explain_route', 'last_commit', 'lock_node', 'lock_tenant',
	'preloaded', 'reset_stats', 'restore_default_tenant', 'set_user', 'stat_clients', 'stat_pools', 'stat_prepared',
	'stat_replicas', 'stat_routing', 'stat_servers', 'stat_tenants', 'stat_workers', 'terminate_client', 'unban_tenant']);
SELECT has_role('pgpool_admin'::name);
SELECT is((SELECT rolcanlogin FROM pg_roles WHERE rolname = 'pgpool_admin'), false, 'pgpool_admin cannot log in');

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'pgpool'::regnamespace
	AND obj_description(p.oid, 'pg_proc') IS NULL$$, 'each function has a comment');
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE relnamespace = 'pgpool'::regnamespace
	AND relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL$$, 'each relation has a comment');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE pronamespace = 'pgpool'::regnamespace AND l.lanname <> 'c'
	AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)$$,
	'each function that is not C sets a safe search_path');

SELECT set_eq($$SELECT c.relname::text FROM pg_extension e, unnest(extconfig) x (oid) JOIN pg_class c USING (oid)
	WHERE extname = 'pgpool'$$, ARRAY['tenant', 'tenant_user', 'tenant_secret', 'tenant_id_seq', 'node', 'replica_function'],
	'configuration is dumped');
SELECT is((SELECT extrelocatable FROM pg_extension WHERE extname = 'pgpool'), false, 'it is not relocatable');
SELECT is((SELECT count(*)::int FROM pgpool.tenant WHERE name = 'default' AND id = 1), 1, 'the tenant "default" has id 1');
SELECT trigger_is('pgpool', 'tenant', 'config_changed', 'pgpool', 'config_changed');
SELECT trigger_is('pgpool', 'tenant_user', 'config_changed', 'pgpool', 'config_changed');
SELECT trigger_is('pgpool', 'tenant_secret', 'config_changed', 'pgpool', 'config_changed');
SELECT trigger_is('pgpool', 'node', 'config_changed', 'pgpool', 'config_changed');
SELECT trigger_is('pgpool', 'replica_function', 'config_changed', 'pgpool', 'config_changed');
SELECT is((SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger WHERE tgname = 'config_changed'), 'A',
	'the triggers fire in replica mode, too');

-- what a restore does to the row that CREATE EXTENSION made
SELECT lives_ok($$INSERT INTO pgpool.tenant (name, pool_size, comment) VALUES ('default', 77, 'restored')$$,
	'the row "default" of a dump can be restored');
SELECT results_eq($$SELECT id, pool_size, comment FROM pgpool.tenant WHERE name = 'default'$$,
	$$VALUES (1::bigint, 77, 'restored'::text)$$, 'it replaces the one that is there');

SELECT is(pgpool.preloaded(), true, 'the library is preloaded');
SELECT is((SELECT count(*)::text FROM pgpool.pg_stat_workers), current_setting('pgpool.workers'), 'one row per worker');
SELECT is((SELECT status FROM pgpool.check() WHERE item = 'extension'), 'ok', 'check() finds the extension');
SELECT is_empty($$SELECT * FROM pgpool.check() WHERE status NOT IN ('ok', 'warning', 'error')
	OR (status = 'error' AND remedy IS NULL) OR message IS NULL$$, 'check() names a remedy for each error');

SELECT * FROM finish();
ROLLBACK;
