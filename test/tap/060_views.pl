# The views tell the truth: their counts equal what pgbench itself counted, they show who serves whom and who has which
# prepared statement, reset_stats() starts anew; PUBLIC sees nothing, pg_monitor reads, pgpool_admin changes.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute describe close_name sync);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = pool_node('views', conf => "ssl = off\npgpool.default_pool_size = 3\npgpool.workers = 2\nlog_statement = none");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return join "\n", map { join '|', map { $_ // '' } @$_ } @{ $r->{rows} } }
sql("CREATE ROLE $_ LOGIN PASSWORD 'secret'") for qw(bench app reader chief outsider);
sql("GRANT pg_monitor TO reader");
sql("GRANT pgpool_admin TO chief");
sql('CREATE DATABASE bench OWNER bench');
sub no_clients { return poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_clients') eq '0' }, 'all clients are gone') }

# ---- sums under load
sub pgbench
{
	local $ENV{PGPASSWORD} = 'secret';
	my ($out, $err) = ('', '');
	IPC::Run::run [ 'pgbench', '-h', '127.0.0.1', '-p', $node->{pool_port}, '-U', 'bench', @_, 'bench' ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
	my ($n) = $out =~ /number of transactions actually processed: (\d+)/;
	diag("pgbench @_: $err") unless $n;
	return $n // 0;
}
pgbench('-i', '-q', '-I', 'dtgp');
my $file = PostgreSQL::Test::Utils::tempdir();
append_to_file("$file/tx.sql", "BEGIN;\nSELECT 1;\nUPDATE pgbench_branches SET bbalance = bbalance + 1;\nCOMMIT;\n");
# statements in the script, and transactions that the server sees, for each transaction of pgbench
my @loads = (
	[ 'simple, SELECT', 1, 1, '-M', 'simple', '-S' ],
	[ 'extended, SELECT', 1, 1, '-M', 'extended', '-S' ],
	[ 'simple, transaction blocks', 4, 1, '-M', 'simple', '-f', "$file/tx.sql" ],
	[ 'extended, transaction blocks', 4, 1, '-M', 'extended', '-f', "$file/tx.sql" ]);
for my $load (@loads)
{
	my ($name, $statements, $transactions, @options) = @$load;
	no_clients();
	sql('SELECT pgpool.reset_stats()');
	my $before = sql("SELECT coalesce(sum(transactions), 0) || '|' || coalesce(sum(queries), 0) FROM pgpool.pg_stat_pools WHERE role = 'bench'");
	is($before, '0|0', "$name: reset_stats() starts at zero");
	my $n = pgbench('-n', '-c', '8', '-j', '2', '-t', '150', @options);
	no_clients();
	is($n, 1200, "$name: pgbench made 1200 transactions");
	my ($t, $q, $logins, $received, $sent, $errors) = split /\|/,
	  sql("SELECT sum(transactions), sum(queries), (SELECT sum(logins) FROM pgpool.pg_stat_tenants), sum(bytes_received), sum(bytes_sent), sum(errors) FROM pgpool.pg_stat_pools WHERE role = 'bench'");
	# pgbench asks a few things of the catalog before it starts
	my $extra = $t - $n * $transactions;
	ok($extra >= 0 && $extra <= 4, "$name: pg_stat_pools counts the same transactions ($t)");
	my $more = $q - $n * $statements;
	is($more, $extra, "$name: ... and the queries in them ($q)");
	ok($logins >= 8 && $logins <= 10, "$name: ... and the logins ($logins)");
	cmp_ok($received, '>', 20 * $n, "$name: bytes from clients are counted");
	cmp_ok($sent, '>', 20 * $n, "$name: bytes to clients are counted");
	is($errors, '0', "$name: no errors");
	is(sql('SELECT sum(transactions) FROM pgpool.pg_stat_tenants'), $t, "$name: pg_stat_tenants has the same sum");
}
{
	my ($s, $servers);
	poll_until(sub {
		$s = sql('SELECT servers || \' \' || servers_idle || \' \' || clients FROM pgpool.pg_stat_pools WHERE role = \'bench\'');
		($servers) = $s =~ /^([123]) \1 0$/;
	});
	ok($servers, "8 clients of pgbench shared at most 3 servers, which are idle now ($s)");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bench'"), $servers, '... and pg_stat_activity has these');
	my ($waits, $time) = split /\|/, sql("SELECT waits, round(wait_time) FROM pgpool.pg_stat_pools WHERE role = 'bench'");
	cmp_ok($waits, '>', 0, "clients waited $waits times, $time ms in all");
}

# ---- who serves whom
{
	# the first login in a worker asks a server what holds for such clients; later ones need none
	connect_as($node, user => 'app', password => 'secret')->close for 1 .. 12;
	no_clients();
	my @c = map { my $c = connect_as($node, user => 'app', password => 'secret', application_name => "client $_"); $c } 1 .. 3;
	$c[0]->query('BEGIN');
	$c[1]->query('BEGIN');
	my @pid = map { $_->value('SELECT pg_backend_pid()') } @c[ 0, 1 ];
	is(sql("SELECT string_agg(application_name || ' ' || server_pid, ',' ORDER BY application_name) FROM pgpool.pg_stat_clients WHERE server_pid IS NOT NULL"),
		"client 1 $pid[0],client 2 $pid[1]", 'pg_stat_clients shows the server of each client that has one');
	is(sql("SELECT string_agg(c.application_name, ',' ORDER BY c.application_name) FROM pgpool.pg_stat_servers s JOIN pgpool.pg_stat_clients c ON c.id = s.client_id
		JOIN pg_stat_activity a ON a.pid = s.pid AND a.usename = 'app' WHERE s.pid = c.server_pid"),
		'client 1,client 2', 'pg_stat_servers shows the same, and pg_stat_activity has these servers');
	is(sql('SELECT count(*) FROM pgpool.pg_stat_servers s LEFT JOIN pg_stat_activity a USING (pid) WHERE a.pid IS NULL'), '0', 'every server is in pg_stat_activity');
	is(sql("SELECT count(*) FROM pg_stat_activity a WHERE usename IN ('app', 'bench') AND NOT EXISTS (SELECT FROM pgpool.pg_stat_servers s WHERE s.pid = a.pid)"), '0', '... and the other way round');
	is(sql("SELECT count(DISTINCT id) FROM pgpool.pg_stat_clients"), '3', 'each client has an id of its own');
	is(sql("SELECT string_agg(pid::text, ',' ORDER BY application_name) FROM pgpool.pg_stat_clients"), join(',', map { $_->{pid} } @c), 'the pid is the one that the client was told');
	is(sql("SELECT string_agg(DISTINCT tenant || ' ' || database || ' ' || role || ' ' || client_addr, ',') FROM pgpool.pg_stat_clients"), 'default postgres app 127.0.0.1/32', 'tenant, database, role and address');
	is(sql("SELECT client_port FROM pgpool.pg_stat_clients WHERE application_name = 'client 1'"), $c[0]{socket}->sockport, '... and port');
	$c[2]->send(PgPoolWire::message('Q', "SELECT pg_sleep(30)\0"));
	my $third = sql("SELECT id FROM pgpool.pg_stat_clients WHERE application_name = 'client 3'");
	ok(poll_until(sub { sql("SELECT server_pid FROM pgpool.pg_stat_clients WHERE id = $third") ne '' }), 'a client that runs a query has a server');
	my $states = sql("SELECT string_agg(state, ',' ORDER BY application_name) FROM pgpool.pg_stat_clients");
	note $states;
	isnt((split /,/, $states)[0], (split /,/, $states)[2], 'idle in a transaction and active are different states');
	# a fourth client waits
	my $fourth = connect_as($node, user => 'app', password => 'secret', application_name => 'client 4');
	$fourth->send(PgPoolWire::message('Q', "SELECT 4\0"));
	ok(poll_until(sub { sql("SELECT state FROM pgpool.pg_stat_clients WHERE application_name = 'client 4'") eq 'waiting' }), 'a client without a server waits');
	is(sql("SELECT clients || ' ' || clients_waiting || ' ' || servers FROM pgpool.pg_stat_pools WHERE role = 'app'"), '4 1 3', 'pg_stat_pools counts it');
	cmp_ok(sql("SELECT longest_wait FROM pgpool.pg_stat_pools WHERE role = 'app'"), '>', 0, '... and how long it waits');

	# ---- cancel_client, terminate_client
	is(sql("SELECT pgpool.cancel_client($third)"), 't', 'cancel_client()');
	my $r = $c[2]->answer(10);
	is("$r->{error}{C} $r->{status}", '57014 I', '... cancels the query, and the client stays');
	is($fourth->answer(10)->{rows}[0][0], '4', '... and the one that waited is served');
	is(sql("SELECT pgpool.cancel_client($third)"), 't', 'cancel_client() of an idle client finds it');
	is($c[2]->value('SELECT 3'), '3', '... and does nothing to it');
	my $first = sql("SELECT id FROM pgpool.pg_stat_clients WHERE application_name = 'client 1'");
	is(sql("SELECT pgpool.terminate_client($first)"), 't', 'terminate_client()');
	my $m = $c[0]->next(10);
	is($m && PgPoolWire::error_fields($m->[1])->{C}, '57P01', '... tells the client');
	ok($c[0]->closes(10), '... and disconnects it');
	ok(poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'") eq '1' }), '... and its transaction ends, the others\' does not');
	is(sql("SELECT pgpool.terminate_client($first)"), 'f', 'a client that is gone is not found');
	for my $id (-1, '9223372036854775807', '(-9223372036854775808)')
	{
		my $r = $admin->query("SELECT pgpool.terminate_client($id), pgpool.cancel_client($id)");
		like($r->{error} ? $r->{error}{M} : join('|', @{ $r->{rows}[0] }), qr/^there is no client|^f\|f$/, "nor client $id, which cannot be");
	}
	$_->close for @c[ 1, 2 ], $fourth;
	no_clients();
}

# ---- prepared statements
my $text = 'SELECT $1 || $2 || 3 -- twin';
{
	sub bind_execute { return bind_to(@_) . execute() }
	sub step { my ($c, @messages) = @_; $c->send(join '', @messages, sync()); my $r = $c->answer(10); return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{rows}[0] ? $r->{rows}[0][0] : 'ok' }
	sub prepared { return sql("SELECT $_[0] FROM pgpool.pg_stat_prepared WHERE text = '$text'") }
	is(prepared('count(*)'), '0', 'nobody has the statement');
	my @c = map { connect_as($node, user => 'app', password => 'secret') } 1 .. 3;
	# each in a transaction, so that each has a server of its own
	is($_->query('BEGIN')->{status}, 'T', 'a transaction of its own') for @c;
	sql('SELECT pgpool.reset_stats()');
	my @counts = qw(uses hits parses evictions);
	my $of_pool = "SELECT concat_ws(' ', " . join(', ', map { "statement_$_" } @counts) . ", round(statement_hit_rate::numeric, 2)) FROM pgpool.pg_stat_pools WHERE role = ";
	is(sql("$of_pool 'app'"), '0 0 0 0', 'reset_stats(): no statement yet, and no hit rate');
	is(step($c[0], parse($text, 'one', 25, 0)), 'ok', 'the first client prepares it');
	is(step($c[0], parse($text, 'another', 25, 0)), 'ok', '... and once more');
	is(step($c[0], bind_execute('one', 'a', 'b')), 'ab3', '... and uses it');
	is(step($c[0], describe('S', 'another'), bind_execute('another', 'c', 'd')), 'cd3', '... under both names');
	is(step($c[1], parse($text, 'one', 25, 0), bind_execute('one', 'e', 'f')), 'ef3', 'the second client prepares it and uses it');
	is(prepared(join " || ' ' || ", map { "sum($_)" } @counts), '3 5 2 0', '3 uses; 2 parses; 5 messages that needed none');
	is(sql("$of_pool 'app'"), '3 5 2 0 0.71', 'pg_stat_pools has the same, and their rate');
	is(prepared("sum(clients) || ' ' || sum(servers)"), '2 2', '2 clients have it, on 2 servers');
	is(prepared("string_agg(DISTINCT parameter_types::text || tenants::text || bytes, ',')"), '{25,0}{default}' . (length($text) + 1 + 2 + 8), 'types, tenants and size');
	my %seen = map { $_ => 1 } split /\n/, prepared('name');
	my @have = map { $_->value("SELECT name FROM pg_prepared_statements WHERE statement = '$text'") } @c[ 0, 1 ];
	is_deeply([ grep { !$seen{$_} } @have ], [], 'pg_prepared_statements of their servers has it under that name');
	is($c[2]->value("SELECT count(*) FROM pg_prepared_statements WHERE statement = '$text'"), '0', '... and that of the third server lacks it');
	step($c[1], close_name('S', 'one'));
	is(prepared('sum(clients)'), '1', 'a client that closed it does not count');
	is(step($c[0], close_name('S', 'one')), 'ok', 'the other closes one of its two names');
	is(prepared('sum(clients)'), '1', '... and counts still');
	# a text longer than what is shown, with a character of two bytes across the border
	my $long = 'SELECT 1 -- ' . 'x' x 1011 . "\xc3\xa9\xc3\xa9";
	is(step($c[2], parse($long, 'long')), 'ok', 'a long text');
	is(sql("SELECT octet_length(text) || right(text, 2) FROM pgpool.pg_stat_prepared WHERE text LIKE 'SELECT 1 -- x%'"), '1023xx', 'is cut between two characters');
	$_->close for @c;
	no_clients();
	is(prepared('coalesce(sum(clients), 0)'), '0', 'nobody has a name for it any more');
	cmp_ok(prepared('coalesce(sum(servers), 0)'), '>', 0, '... but servers have it still');

	# a server that has room for few
	$node->append_conf('postgresql.conf', 'pgpool.max_prepared_statements = 2');
	$node->reload;
	my $c = connect_as($node, user => 'outsider', password => 'secret');
	$c->query('BEGIN');
	my $n = 0;
	ok(poll_until(sub { $n++; step($c, parse("SELECT $n -- room", "s$n")); sql("SELECT statement_evictions > 1 FROM pgpool.pg_stat_pools WHERE role = 'outsider'") eq 't' }), "$n statements on one server: some must go");
	my ($evictions, $there) = split / /, sql("SELECT sum(evictions) || ' ' || sum(servers) FROM pgpool.pg_stat_prepared WHERE text LIKE '%-- room'");
	is($evictions + $there, $n, "each is there ($there) or was closed ($evictions)");
	is($there, $c->value("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%-- room'"), 'pg_prepared_statements of that server has the same number');
	is(sql("SELECT statement_evictions FROM pgpool.pg_stat_pools WHERE role = 'outsider'"), $evictions, '... and pg_stat_pools counts them');
	$c->close;
	$node->append_conf('postgresql.conf', 'pgpool.max_prepared_statements = 1000');
	$node->reload;
	no_clients();
}

# ---- privileges
my @views = map { "pgpool.pg_stat_$_" } qw(workers tenants pools clients servers prepared);
sub as { my ($role, $query) = @_; my $r = $admin->query("SET ROLE $role; $query"); my $e = $r->{error}; $admin->query('RESET ROLE'); return $e ? $e->{C} : 'ok' }
sub texts_for { my $role = shift; my $r = $admin->query("SET ROLE $role; SELECT bool_or(text IS NOT NULL) FROM pgpool.pg_stat_prepared WHERE bytes > 0"); $admin->query('RESET ROLE'); return $r->{error} ? 'refused' : $r->{rows}[0][0] }
my @changes = ("SELECT pgpool.create_tenant('t1')", "SELECT pgpool.alter_tenant('t1', pool_size => 2)", "SELECT pgpool.set_user('t1', 'app')", "SELECT pgpool.drop_user('t1', 'app')",
	"SELECT pgpool.ban_tenant('t1')", "SELECT pgpool.unban_tenant('t1')", "SELECT pgpool.drop_tenant('t1')", 'SELECT pgpool.reset_stats()',
	'SELECT pgpool.terminate_client(1)', 'SELECT pgpool.cancel_client(1)', 'SELECT count(*) FROM pgpool.check()');
my %wanted = (outsider => [ '42501', '42501' ], reader => [ 'ok', '42501' ], chief => [ 'ok', 'ok' ]);
for my $role (qw(outsider reader chief))
{
	my @read = grep { as($role, "SELECT count(*) FROM $_") ne $wanted{$role}[0] } @views;
	is("@read", '', "$role: reading the views is $wanted{$role}[0]");
	my @change = grep { as($role, $_) ne $wanted{$role}[1] } @changes;
	is("@change", '', "$role: changing is $wanted{$role}[1]");
	my $shown = $role eq 'outsider' ? 'refused' : $role eq 'reader' ? 't' : 'f';
	is(texts_for($role), $shown, "$role: texts of prepared statements are seen: $shown");
	is(as($role, 'SELECT server_password FROM pgpool.tenant_secret'), '42501', "$role: no stored password can be read");
	is(as($role, $_), '42501', "$role: $_ is refused") for "INSERT INTO pgpool.tenant (name) VALUES ('x')", 'UPDATE pgpool.tenant SET pool_size = 1', 'DELETE FROM pgpool.tenant_user';
}
# through the pool the same holds
my ($out, $err) = do { local $ENV{PGPASSWORD} = 'secret'; psql_pool($node, 'user=outsider dbname=postgres', '-c', 'SELECT * FROM pgpool.pg_stat_clients') };
like($err, qr/permission denied for schema pgpool/, 'through the pool, too');
is(sql("SELECT count(*) FROM pgpool.check() WHERE status = 'error'"), '0', 'check() finds no error') or diag sql('SELECT * FROM pgpool.check()');
$node->stop;
done_testing();
