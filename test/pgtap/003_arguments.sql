-- The functions: what they store, how a setting goes back to its default, and the error for each bad argument.
BEGIN;
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET search_path = public, pg_catalog;
SELECT plan(84);

SELECT lives_ok($$SELECT pgpool.create_tenant('t1', database => 'postgres', pool_mode => 'session', pool_size => 5,
	max_clients => 9, query_wait_timeout => '3 s', cache_unnamed => 'off', allow_list => '{10.0.0.0/8}', require_tls => true,
	sni => '{A.Example.COM,b.example.com}', only_listed_users => true, comment => 'c')$$);
SELECT results_eq($$SELECT database, pool_mode, pool_size, max_clients, query_wait_timeout, cache_unnamed, allow_list, require_tls,
	sni, only_listed_users, comment FROM pgpool.tenant WHERE name = 't1'$$,
	$$VALUES ('postgres'::text, 'session'::text, 5, 9, '3 s'::interval, 'off'::text, '{10.0.0.0/8}'::cidr[], true,
	'{a.example.com,b.example.com}'::text[], true, 'c'::text)$$, 'create_tenant stores all');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', pool_size => 6)$$);
SELECT results_eq($$SELECT pool_size, pool_mode, require_tls FROM pgpool.tenant WHERE name = 't1'$$,
	$$VALUES (6, 'session'::text, true)$$, 'alter_tenant leaves the rest');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', reset => '{pool_size,pool_mode,cache_unnamed,require_tls,allow_list,sni,database}')$$);
SELECT results_eq($$SELECT pool_size, pool_mode, cache_unnamed, require_tls, allow_list, sni, database, max_clients FROM pgpool.tenant
	WHERE name = 't1'$$, $$VALUES (NULL::int, NULL::text, NULL::text, false, NULL::cidr[], NULL::text[], NULL::text, 9)$$,
	'reset goes back to the defaults, and only of what it names');

SELECT throws_ok($$SELECT pgpool.create_tenant('t1')$$, '42710', 'tenant "t1" already exists');
SELECT throws_ok($$SELECT pgpool.create_tenant('default')$$, '42710', 'tenant "default" already exists');
SELECT throws_ok($$SELECT pgpool.create_tenant(NULL)$$, '22023', 'invalid value for argument "name": NULL');
SELECT throws_ok($$SELECT pgpool.create_tenant('')$$, '22023', 'invalid value for argument "name": ''''');
SELECT throws_ok($$SELECT pgpool.create_tenant('a.b')$$, '22023', 'invalid value for argument "name": ''a.b''');
SELECT throws_ok($$SELECT pgpool.create_tenant('a b')$$, '22023', 'invalid value for argument "name": ''a b''');
SELECT throws_ok($$SELECT pgpool.create_tenant(repeat('x', 64))$$, '22023');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', pool_mode => 'statement')$$, '22023',
	'invalid value for argument "pool_mode": ''statement''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', cache_unnamed => 'on')$$, '22023',
	'invalid value for argument "cache_unnamed": ''on''');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', cache_unnamed => 'generic', comment => 'd')$$);
SELECT results_eq($$SELECT cache_unnamed, allow_list, comment FROM pgpool.tenant WHERE name = 't1'$$,
	$$VALUES ('generic'::text, NULL::cidr[], 'd'::text)$$);
SELECT throws_ok($$UPDATE pgpool.tenant SET cache_unnamed = 'on' WHERE name = 't1'$$, '23514');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', pool_size => 0)$$, '22023',
	'invalid value for argument "pool_size": ''0''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', max_clients => -1)$$, '22023',
	'invalid value for argument "max_clients": ''-1''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', server_lifetime => '-1 s')$$, '22023',
	'invalid value for argument "server_lifetime": ''-00:00:01''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', client_idle_timeout => '25 days')$$, '22023',
	'invalid value for argument "client_idle_timeout": ''25 days''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', max_pinned => -1)$$, '22023',
	'invalid value for argument "max_pinned": ''-1''');
SELECT throws_ok($$SELECT pgpool.set_user('t1', 'u1', max_pinned => 262144)$$, '22023',
	'invalid value for argument "max_pinned": ''262144''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', pin_idle_timeout => '-1 s')$$, '22023',
	'invalid value for argument "pin_idle_timeout": ''-00:00:01''');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', max_pinned => 0, pin_idle_timeout => '1 min', pin_sequences => true)$$);
SELECT results_eq($$SELECT max_pinned, pin_idle_timeout, pin_sequences, comment FROM pgpool.tenant WHERE name = 't1'$$,
	$$VALUES (0, '1 min'::interval, true, 'd'::text)$$);
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', on_disconnect => 'cancel')$$);
SELECT results_eq($$SELECT on_disconnect FROM pgpool.tenant WHERE name = 't1'$$, $$VALUES ('cancel'::text)$$);
SELECT throws_ok($$SELECT pgpool.alter_tenant('t1', on_disconnect => 'never')$$, '22023',
	'invalid value for argument "on_disconnect": ''never''');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', reset => '{on_disconnect}')$$);
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', routing => 'reads', consistency => 'database', read_wait => '7 ms',
	primary_reads => true, route_blocks => 'until_write', replica_fallback => 'error')$$);
SELECT results_eq($$SELECT routing, consistency, read_wait, primary_reads, route_blocks, replica_fallback FROM pgpool.tenant
	WHERE name = 't1'$$, $$VALUES ('reads'::text, 'database'::text, '7 ms'::interval, true, 'until_write'::text, 'error'::text)$$);
SELECT throws_ok($$SELECT pgpool.alter_tenant('t1', routing => 'on')$$, '22023', 'invalid value for argument "routing": ''on''');
SELECT throws_ok($$SELECT pgpool.alter_tenant('t1', consistency => 'strict')$$, '22023',
	'invalid value for argument "consistency": ''strict''');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', reset => '{routing,consistency,read_wait,primary_reads,route_blocks,replica_fallback}')$$);
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', reset => '{max_pinned,pin_idle_timeout,pin_sequences}')$$);
SELECT results_eq($$SELECT max_pinned, pin_idle_timeout, pin_sequences FROM pgpool.tenant WHERE name = 't1'$$,
	$$VALUES (NULL::int, NULL::interval, NULL::boolean)$$);
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', database => '')$$, '22023',
	'invalid value for argument "database": ''''');
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', sni => '{"a b"}')$$, '22023',
	'invalid value for argument "sni": ''a b''');
SELECT throws_ok($$SELECT pgpool.alter_tenant('t1', reset => '{name}')$$, '22023',
	'invalid value for argument "reset": ''name''');
SELECT throws_ok($$SELECT pgpool.alter_tenant('nobody', pool_size => 1)$$, '42704', 'tenant nobody does not exist');
SELECT throws_ok($$SELECT pgpool.drop_tenant('default')$$, '55000', 'tenant "default" cannot be dropped');
SELECT throws_ok($$SELECT pgpool.drop_tenant('nobody')$$, '42704', 'tenant nobody does not exist');

SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', sni => '{x.example.com}')$$);
SELECT throws_ok($$SELECT pgpool.create_tenant('t2', sni => '{X.Example.com}')$$, '22023',
	'invalid value for argument "sni": ''X.Example.com''', 'a name leads to one tenant');
SELECT lives_ok($$SELECT pgpool.alter_tenant('t1', sni => '{x.example.com,y.example.com}')$$, 'its own name is no conflict');

SELECT lives_ok($$SELECT pgpool.ban_tenant('t1', 'why', duration => '1 hour')$$);
SELECT is((SELECT banned_until > now() + '59 minutes' AND ban_reason = 'why' FROM pgpool.tenant WHERE name = 't1'), true);
SELECT throws_ok($$SELECT pgpool.ban_tenant('t1', duration => '1 hour', until => 'infinity')$$, '22023',
	'invalid value for argument "until": ''infinity''');
SELECT throws_ok($$SELECT pgpool.ban_tenant('t1', duration => '-1 hour')$$, '22023',
	'invalid value for argument "duration": ''-01:00:00''');
SELECT lives_ok($$SELECT pgpool.unban_tenant('t1')$$);

SELECT lives_ok($$SELECT pgpool.set_user('t1', 'u1', pool_size => 2, cache_unnamed => 'generic', server_password => 's', max_pinned => 3,
	pin_idle_timeout => '2 s', pin_sequences => false, on_disconnect => 'cancel')$$);
SELECT lives_ok($$SELECT pgpool.set_user('t1', 'u1', max_clients => 4, reset => '{server_password}')$$);
SELECT results_eq($$SELECT role_name, u.pool_size, u.max_clients, u.cache_unnamed, s.server_password, u.max_pinned, u.pin_idle_timeout, u.pin_sequences, u.on_disconnect
	FROM pgpool.tenant_user u LEFT JOIN pgpool.tenant_secret s USING (tenant_id, role_name)
	JOIN pgpool.tenant t ON t.id = u.tenant_id WHERE t.name = 't1'$$, $$VALUES ('u1'::name, 2, 4, 'generic'::text, NULL::text, 3, '2 s'::interval, false, 'cancel'::text)$$,
	'set_user changes what it is given');
SELECT throws_ok($$SELECT pgpool.drop_user('t1', 'u2')$$, '42704', 'tenant "t1" has no settings for role ''u2''');
SELECT lives_ok($$SELECT pgpool.drop_user('t1', 'u1')$$);

-- ---- nodes
SELECT lives_ok($$SELECT pgpool.add_replica('n1', '10.0.0.1', 5433, weight => 3, max_lag => '2 s', max_lag_bytes => 4096,
	sslmode => 'verify-full', sslrootcert => 'ca.crt')$$);
SELECT lives_ok($$SELECT pgpool.add_replica('node two', 'db2.example')$$);
SELECT results_eq('SELECT * FROM pgpool.node ORDER BY slot',
	$$VALUES (0, 'n1', '10.0.0.1', 5433, 3, '2 s'::interval, 4096::bigint, 'verify-full', 'ca.crt'),
	(1, 'node two', 'db2.example', 5432, 1, NULL, NULL, 'prefer', NULL)$$, 'add_replica stores all');
SELECT lives_ok($$SELECT pgpool.alter_replica('n1', host => '10.0.0.2', weight => 0)$$);
SELECT lives_ok($$SELECT pgpool.alter_replica('n1', reset => '{port,max_lag,sslmode}')$$);
SELECT results_eq($$SELECT host, port, weight, max_lag, max_lag_bytes, sslmode, sslrootcert FROM pgpool.node WHERE name = 'n1'$$,
	$$VALUES ('10.0.0.2', 5432, 0, NULL::interval, 4096::bigint, 'prefer', 'ca.crt')$$, 'alter_replica leaves the rest');
SELECT throws_ok($$SELECT pgpool.add_replica('n1', 'x')$$, '42710', 'node "n1" already exists');
SELECT throws_ok($$SELECT pgpool.add_replica(NULL, 'x')$$, '22023', 'invalid value for argument "name": NULL');
SELECT throws_ok($$SELECT pgpool.add_replica(repeat('x', 64), 'x')$$, '22023');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', NULL)$$, '22023', 'invalid value for argument "host": NULL');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'a b')$$, '22023', 'invalid value for argument "host": ''a b''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', 0)$$, '22023', 'invalid value for argument "port": ''0''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', weight => -1)$$, '22023', 'invalid value for argument "weight": ''-1''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', max_lag => '25 days')$$, '22023',
	'invalid value for argument "max_lag": ''25 days''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', max_lag_bytes => -1)$$, '22023',
	'invalid value for argument "max_lag_bytes": ''-1''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', sslmode => 'allow')$$, '22023',
	'invalid value for argument "sslmode": ''allow''');
SELECT throws_ok($$SELECT pgpool.add_replica('n3', 'x', sslrootcert => '')$$, '22023',
	'invalid value for argument "sslrootcert": ''''');
SELECT throws_ok($$SELECT pgpool.alter_replica('n1', reset => '{host}')$$, '22023', 'invalid value for argument "reset": ''host''');
SELECT throws_ok($$SELECT pgpool.alter_replica('nobody', port => 1)$$, '42704', 'node nobody does not exist');
SELECT throws_ok($$SELECT pgpool.drop_replica('nobody')$$, '42704', 'node nobody does not exist');
SELECT lives_ok($$SELECT pgpool.alter_tenant('default', replicas => '{n1}')$$);
SELECT throws_ok($$SELECT pgpool.alter_tenant('default', replicas => '{n1,NULL}')$$, '22023', 'invalid value for argument "replicas": NULL');
SELECT lives_ok($$SELECT pgpool.alter_tenant('default', reset => '{replicas}')$$);
SELECT is((SELECT replicas FROM pgpool.tenant WHERE name = 'default'), NULL);
SELECT lives_ok($$SELECT pgpool.drop_replica('n1')$$);
SELECT lives_ok($$SELECT pgpool.add_replica('n' || i, 'x') FROM generate_series(3, 16) i$$, 'slots are used again');
SELECT throws_ok($$SELECT pgpool.add_replica('n17', 'x')$$, '54000', 'there are 15 nodes already');

SELECT * FROM finish();
ROLLBACK;
