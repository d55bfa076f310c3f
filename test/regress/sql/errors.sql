-- Texts of errors, with their hints.
\set SHOW_CONTEXT never
SET intervalstyle = 'postgres';
SELECT pgpool.create_tenant('bad name');
SELECT pgpool.create_tenant('ok', pool_mode => 'statement');
SELECT pgpool.create_tenant('ok', query_wait_timeout => '-1 s');
SELECT pgpool.alter_tenant('missing');
SELECT pgpool.drop_tenant('default');
SELECT pgpool.set_user('default', '');
SELECT pgpool.terminate_client(-1);
SELECT pgpool.cancel_client(9223372036854775807);
SET pgpool.port = 1;
SET pgpool.default_pool_size = 1;
SET pgpool.no_such_setting = 1;
CREATE EXTENSION pgpool;
