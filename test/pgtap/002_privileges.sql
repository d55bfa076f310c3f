-- Privileges: PUBLIC has nothing, pg_monitor reads, pgpool_admin administers and reads, nobody sees passwords.
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET search_path = public, pg_catalog;
SELECT plan(33);

CREATE ROLE pgpool_t_nobody;
CREATE ROLE pgpool_t_monitor IN ROLE pg_monitor;
CREATE ROLE pgpool_t_admin IN ROLE pgpool_admin;
GRANT USAGE ON SCHEMA public TO PUBLIC;

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'pgpool'::regnamespace
	AND has_function_privilege('pgpool_t_nobody', p.oid, 'EXECUTE')$$, 'PUBLIC executes no function');
SELECT is_empty($$SELECT c.relname FROM pg_class c WHERE relnamespace = 'pgpool'::regnamespace
	AND relkind IN ('r', 'v') AND has_table_privilege('pgpool_t_nobody', c.oid,
		'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')$$, 'PUBLIC reads and changes no relation');
SELECT is(has_schema_privilege('pgpool_t_nobody', 'pgpool', 'USAGE'), false, 'PUBLIC may not look into the schema');

SELECT set_eq($$SELECT p.proname::text FROM pg_proc p WHERE pronamespace = 'pgpool'::regnamespace
	AND has_function_privilege('pgpool_t_monitor', p.oid, 'EXECUTE')$$,
	ARRAY['stat_workers', 'stat_tenants', 'stat_pools', 'stat_clients', 'stat_servers', 'stat_prepared',
	'stat_replicas', 'stat_routing', 'last_commit'],
	'pg_monitor executes what the views need');
SELECT set_eq($$SELECT p.proname::text FROM pg_proc p WHERE pronamespace = 'pgpool'::regnamespace
	AND has_function_privilege('pgpool_t_admin', p.oid, 'EXECUTE')$$,
	ARRAY['stat_workers', 'stat_tenants', 'stat_pools', 'stat_clients', 'stat_servers', 'stat_prepared', 'stat_replicas',
	'stat_routing', 'last_commit', 'add_replica', 'alter_replica', 'drop_replica', 'discover_replicas', 'create_tenant',
	'alter_tenant', 'drop_tenant', 'ban_tenant', 'unban_tenant', 'set_user', 'drop_user', 'reset_stats', 'terminate_client',
	'cancel_client', 'check', 'explain_route', 'allow_on_replica', 'disallow_on_replica'], 'pgpool_admin executes the public functions');
SELECT is_empty($$SELECT r.rolname, c.relname FROM pg_class c, pg_roles r
	WHERE relnamespace = 'pgpool'::regnamespace AND relkind IN ('r', 'v')
	AND rolname IN ('pgpool_t_admin', 'pgpool_t_monitor')
	AND has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')$$, 'tables are changed by functions only');
SELECT is_empty($$SELECT rolname FROM pg_roles WHERE rolname IN ('pgpool_t_admin', 'pgpool_t_monitor')
	AND has_column_privilege(oid, 'pgpool.tenant_secret', 'server_password', 'SELECT')$$, 'stored passwords cannot be read');

SET ROLE pgpool_t_nobody;
SELECT throws_ok('SELECT * FROM pgpool.pg_stat_pools', '42501');
SELECT throws_ok($$SELECT pgpool.create_tenant('t1')$$, '42501');
RESET ROLE;

SET ROLE pgpool_t_monitor;
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_workers');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_tenants');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_pools');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_clients');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_servers');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_prepared');
SELECT lives_ok('SELECT * FROM pgpool.tenant');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_replicas');
SELECT lives_ok('SELECT * FROM pgpool.pg_stat_routing');
SELECT lives_ok('SELECT * FROM pgpool.node');
SELECT throws_ok($$SELECT pgpool.add_replica('n1', 'localhost')$$, '42501');
SELECT throws_ok('SELECT server_password FROM pgpool.tenant_secret', '42501');
SELECT throws_ok($$SELECT pgpool.drop_tenant('default')$$, '42501');
SELECT throws_ok('SELECT pgpool.reset_stats()', '42501');
RESET ROLE;

SET ROLE pgpool_t_admin;
SELECT lives_ok($$SELECT pgpool.create_tenant('t1', pool_size => 3)$$);
SELECT lives_ok($$SELECT pgpool.set_user('t1', 'pgpool_t_admin', server_password => 'secret')$$);
SELECT throws_ok('SELECT server_password FROM pgpool.tenant_secret', '42501');
SELECT throws_ok($$INSERT INTO pgpool.tenant (name) VALUES ('t2')$$, '42501');
SELECT throws_ok($$SELECT pgpool.check_limits(NULL, 1, 1, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$, '42501');
SELECT lives_ok($$SELECT pgpool.drop_tenant('t1')$$);
SELECT lives_ok($$SELECT pgpool.add_replica('n1', 'localhost')$$);
SELECT lives_ok('SELECT * FROM pgpool.discover_replicas()');
SELECT lives_ok('SELECT * FROM pgpool.check()');
SELECT lives_ok('SELECT pgpool.reset_stats()');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
