# Shows: a dump of the tables of the configuration restores, whatever limits there are, and so does one that was made
# with the columns of 0.1.0; the row "default" that CREATE EXTENSION makes is replaced.
use strict;
use warnings;
use Test::More;
use PostgreSQL::Test::Utils qw(run_command);
use PgPool;

my $pool = PgPool->new('dump');
my $node = $pool->node;

sub rows { return join "\n", map { $pool->sql("SELECT t::text FROM pgpool.$_ t ORDER BY 1") } qw(tenant tenant_user tenant_secret node replica_function) }

# each limit that the functions have, with a value that its check admits
my $limits = $pool->sql(<<'SQL');
SELECT string_agg(format('%I => %L', attname, CASE format_type(atttypid, NULL) WHEN 'integer' THEN '7' WHEN 'interval'
	THEN '7 s' WHEN 'boolean' THEN 'true' WHEN 'text[]' THEN '{n1}' ELSE substring(pg_get_constraintdef(c.oid) FROM '''([a-z]+)''::text') END), ', ')
  FROM pg_attribute a LEFT JOIN pg_constraint c ON conrelid = attrelid AND contype = 'c' AND conkey = ARRAY[attnum]
 WHERE attrelid = 'pgpool.tenant_user'::regclass AND attnum > 2 AND NOT attisdropped
SQL
$pool->sql("SELECT pgpool.add_replica('n$_', '10.0.0.$_', weight => $_, max_lag => '3 s', sslrootcert => 'ca.crt')") for 1, 2;
$pool->sql("SELECT pgpool.drop_replica('n1')"); # the other one keeps its slot
$pool->sql("SELECT pgpool.create_tenant('t1', $limits, allow_list => '{10.0.0.0/8}', sni => '{a.example}', comment => 'one')");
$pool->sql("SELECT pgpool.set_user('t1', 'app', $limits, server_password => 'kept')");
$pool->sql("SELECT pgpool.alter_tenant('default', $limits)");
is($pool->sql('SELECT count(*) FROM pgpool.tenant t JOIN pgpool.tenant_user u ON NOT (u IS NOT NULL) WHERE t.id = u.tenant_id'),
	'0', 'each limit of the role has a value');
$pool->sql("SELECT pgpool.allow_on_replica('public.f(integer)', 'shop')");
my $before = rows();

my ($dump, $error) = run_command([ 'pg_dump', '-h', $node->host, '-p', $node->port, 'postgres' ]);
like($dump, qr/COPY pgpool\.tenant .*COPY pgpool\.tenant_secret /s, 'the tables are dumped') or diag($error);

sub restore
{
	my ($text) = @_;
	$pool->sql($_) for 'DROP EXTENSION pgpool CASCADE', 'DROP SCHEMA pgpool'; # CREATE EXTENSION made both
	my ($out, $messages);
	IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', \$text, '>', \$out, '2>', \$messages, IPC::Run::timeout(60)) or return $messages;
	return 'restored';
}
is(restore($dump), 'restored', 'the dump restores');
is(rows(), $before, '... with every value');
is($pool->sql("SELECT pgpool.create_tenant('t2')") > 1 ? 'a new id' : '', 'a new id', '... and the numbers go on');

is(restore(<<'SQL'), 'restored', 'a dump of 0.1.0 restores');
CREATE EXTENSION pgpool;
COPY pgpool.tenant (id, name, database, pool_mode, pool_size, max_clients, query_wait_timeout, client_idle_timeout, idle_in_transaction_timeout, server_idle_timeout, server_lifetime, cache_unnamed, max_pinned, pin_idle_timeout, pin_sequences, on_disconnect, allow_list, require_tls, sni, only_listed_users, banned_until, ban_reason, comment) FROM stdin;
1	default	\N	session	3	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	f	\N	\N	restored
5	t1	\N	transaction	4	9	00:00:03	00:00:04	00:00:05	00:00:06	00:00:07	generic	2	00:00:08	t	cancel	{10.0.0.0/8}	t	{a.example}	f	\N	\N	\N
\.
COPY pgpool.tenant_user (tenant_id, role_name, pool_mode, pool_size, max_clients, query_wait_timeout, client_idle_timeout, idle_in_transaction_timeout, server_idle_timeout, server_lifetime, cache_unnamed, max_pinned, pin_idle_timeout, pin_sequences, on_disconnect) FROM stdin;
5	app	session	2	1	\N	\N	\N	\N	\N	off	1	\N	f	finish
\.
COPY pgpool.tenant_secret (tenant_id, role_name, server_password) FROM stdin;
5	app	kept
\.
SELECT pg_catalog.setval('pgpool.tenant_id_seq', 5, true);
SQL
is($pool->sql('SELECT id, name, pool_mode, pool_size, on_disconnect, comment FROM pgpool.tenant ORDER BY id'),
	"1|default|session|3||restored\n5|t1|transaction|4|cancel|", '... both tenants');
is($pool->sql('SELECT tenant_id, role_name, cache_unnamed, server_password FROM pgpool.tenant_user JOIN pgpool.tenant_secret USING (tenant_id, role_name)'),
	'5|app|off|kept', '... and the role with its password');

# ---- arguments by position, in the order of 0.1.0
$pool->sql(q{SELECT pgpool.create_tenant('t6', 'app', 'session', 5, 9, '1 s', '2 s', '3 s', '4 s', '5 s', 'off', 2, '6 s', true, 'cancel', '{10.0.0.0/8}', true, '{b.example}', true, 'by position')});
is($pool->sql(q{SELECT database, pool_mode, pool_size, max_clients, extract(epoch FROM server_lifetime)::int, cache_unnamed, max_pinned,
	pin_sequences, on_disconnect, allow_list, require_tls, sni, only_listed_users, comment FROM pgpool.tenant WHERE name = 't6'}),
	'app|session|5|9|5|off|2|t|cancel|{10.0.0.0/8}|t|{b.example}|t|by position', 'arguments may be given by position');

done_testing();
