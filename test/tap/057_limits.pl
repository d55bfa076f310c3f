# Limits and timeouts: each ends what it should end, after its time and not before, with its SQLSTATE; the message names
# the limit, its value and the remedy; and who waits for a server too long stays connected.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = pool_node('limits', conf => "ssl = off\npgpool.workers = 2\npgpool.default_pool_size = 1\npgpool.login_timeout = 1s");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }
sub text { my $e = shift->{error} or return 'no error'; return join ' | ', map { $e->{$_} // '' } qw(S C M D H) }
my %limits = (
	waits => "query_wait_timeout => '400 milliseconds'",
	idles => "client_idle_timeout => '400 milliseconds', pool_size => 2",
	dawdles => "idle_in_transaction_timeout => '400 milliseconds'",
	rests => "server_idle_timeout => '400 milliseconds'",
	ages => "server_lifetime => '400 milliseconds'",
	plain => 'pool_size => 1', flood => 'pool_size => 20');
for my $role (sort keys %limits)
{
	sql("CREATE ROLE $role LOGIN PASSWORD 'secret'");
	sql("SELECT pgpool.set_user('default', '$role', $limits{$role})");
}
sub client { return connect_as($node, user => $_[0], password => 'secret') }
sub within
{
	my ($seconds, $least, $most, $what) = @_;
	ok($seconds >= $least && $seconds <= $most, sprintf '%s (%.2f s)', $what, $seconds);
}
sub message { return PgPoolWire::message(@_) }
my $pipeline = PgPoolWire::parse('SELECT 1') . PgPoolWire::bind_to() . PgPoolWire::execute();

# ---- query_wait_timeout
{
	my ($holder, $waiter) = (client('waits'), client('waits'));
	$holder->query('BEGIN');
	my $start = time;
	my $r = $waiter->query('SELECT 1');
	within(time - $start, 0.35, 2, 'query_wait_timeout comes after its time');
	like(text($r), qr/^ERROR \| 53300 \| no server connection became free within 400 ms \| /, '... as ERROR 53300 that names the time');
	like($r->{error}{D}, qr/role "waits".* 1 server connection/, '... with the pool and its size as DETAIL');
	like($r->{error}{H}, qr/pool_size.*query_wait_timeout/, '... and both remedies as HINT');
	is($r->{status}, 'I', '... and the client stays');
	# a pipeline: one error, everything up to Sync is skipped; what follows waits by itself
	$waiter->send($pipeline . $pipeline . message('S', '') . message('Q', "SELECT 2\0"));
	$r = $waiter->answer(10);
	is($r->{error}{C}, '53300', 'a pipeline gets one error');
	is_deeply([ $r->{tags}, $r->{status} ], [ [], 'I' ], '... and one ReadyForQuery, after the Sync');
	$r = $waiter->answer(10);
	is($r->{error}{C}, '53300', '... and the query behind the Sync its own');
	# Parse and Bind are answered only at Sync: nothing may come before
	$waiter->send($pipeline);
	$waiter->send(message('H', ''));
	my $m = $waiter->next(5);
	is($m && $m->[0], 'E', 'with Flush the error comes without a Sync');
	$waiter->send($pipeline);
	ok(!$waiter->need(1, 0.6), '... what follows is skipped');
	$waiter->send(message('S', ''));
	$m = $waiter->next(5);
	is($m && $m->[0], 'Z', '... up to the Sync');
	$holder->query('COMMIT');
	is($waiter->value('SELECT 3'), '3', 'when there is a server, the client is served');
	is(sql("SELECT wait_timeouts FROM pgpool.pg_stat_pools WHERE role = 'waits'"), '4', 'pg_stat_pools counts the timeouts');
	# the replies of a script, message by message
	if (my $replay = tool('replay'))
	{
		# the first login in a worker needs a server
		client('waits')->close for 1 .. 12;
		$holder->query('BEGIN');
		my $script = PostgreSQL::Test::Utils::tempdir() . '/wait.msg';
		append_to_file($script, <<'MSG');
P "" "select 1"
B "" ""
D P ""
E "" 0
P "" "select 2"
B "" ""
E "" 0
S
wait Z
Q "select 3"
wait Z
MSG
		my ($out, $err) = run_command([ $replay, '--host=127.0.0.1', "--port=$node->{pool_port}", '--user=waits', '--password=secret', '--database=postgres', "--script=$script" ]);
		like($out, qr/53300/, 'replay sees the error') or diag "$out\n$err";
		my $errors = () = $out =~ /53300/g;
		is($errors, 2, '... once for the pipeline and once for the query') or diag $out;
		$holder->query('COMMIT');
	}
}

# ---- login_timeout
{
	my @half = map { PgPoolWire->open(port => $node->{pool_port}) } 1 .. 4;
	my $start = time;
	$half[1]->send(pack 'N', 50);
	$half[2]->send(PgPoolWire::startup_packet(196608, user => 'plain', database => 'postgres'));
	$half[3]->send(PgPoolWire::request($PgPoolWire::GSS));
	$half[0]->closes(10);
	within(time - $start, 0.9, 3, 'login_timeout: a client that says nothing is disconnected');
	ok($_->closes(5), '... and one that stops in the middle') for @half[ 1 .. 3 ];
	within(time - $start, 0.9, 3, '... all of them in time');
	my ($error) = grep { $_->[0] eq 'E' } @{ $half[2]{seen} };
	my $text = $error ? text({ error => PgPoolWire::error_fields($error->[1]) }) : 'none';
	like($text, qr/1000 ms.*pgpool\.login_timeout/, '... with a message that names the limit and its value');
	# a login that waits for a server is bounded as well
	my $busy = client('plain');
	$busy->query('BEGIN');
	my $late = PgPoolWire->open(port => $node->{pool_port});
	$start = time;
	my $r = $late->login(user => 'plain', password => 'secret', database => 'postgres', 'my.new' => 'makes it ask a server');
	within(time - $start, 0.9, 4, 'a login that waits for a server is bounded by login_timeout');
	like(text($r), qr/^FATAL \| (53300|57P03|08P01|57P05|57014)/, '... with an error') or diag text($r);
}

# ---- client_idle_timeout, idle_in_transaction_timeout
{
	my $c = client('idles');
	my $start = time;
	$c->query('SELECT 1') and $c->need(1, 0.15) for 1 .. 5;
	is($c->value('SELECT 1'), '1', 'a client that is active is not idle');
	$start = time;
	my $m = $c->next(5);
	within(time - $start, 0.35, 2, 'client_idle_timeout comes after its time');
	like(text({ error => PgPoolWire::error_fields($m->[1]) }), qr/^FATAL \| 57P05 \| .*client_idle_timeout.*400/, '... as FATAL 57P05 that names limit and value');
	ok($c->closes(5), '... and the connection ends');
	$c = client('idles');
	$c->query('BEGIN');
	ok(!$c->need(1, 0.8), 'a client in a transaction is not idle');
	is($c->value('SELECT pg_sleep(0.8)'), '', 'nor one that waits for its query');
	$c->query('COMMIT');
	$c = client('dawdles');
	$c->query('BEGIN');
	my $pid = $c->value('SELECT pg_backend_pid()');
	$start = time;
	$m = $c->next(5);
	within(time - $start, 0.35, 2, 'idle_in_transaction_timeout comes after its time');
	like(text({ error => PgPoolWire::error_fields($m->[1]) }), qr/^FATAL \| 25P03 \| .*idle_in_transaction_timeout.*400/, '... as FATAL 25P03 that names limit and value');
	ok($c->closes(5), '... and the connection ends');
	ok(poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'dawdles' AND state LIKE 'idle in%'") == 0 }, 'rollback', 5), '... its transaction is over');
	$c = client('dawdles');
	is($c->value('SELECT 1'), '1', '... and its place is free');
	$c->query('BEGIN');
	is($c->value('SELECT pg_sleep(0.8)'), '', 'a query that runs longer is not idle in the transaction');
	$c->query('COMMIT');
	ok(!$c->need(1, 0.8), 'outside of a transaction the timeout does not count');
}

# ---- server_idle_timeout, server_lifetime
{
	my $c = client('rests');
	my $pid = $c->value('SELECT pg_backend_pid()');
	is($c->value('SELECT pg_backend_pid()'), $pid, 'a server in use stays');
	my $start = time;
	ok(poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }, 'server_idle_timeout', 5), 'server_idle_timeout closes an idle server');
	within(time - $start, 0.3, 3, '... after its time');
	isnt($c->value('SELECT pg_backend_pid()'), $pid, '... and the client gets another one');
	$c = client('ages');
	$pid = $c->value('SELECT pg_backend_pid()');
	$c->query('BEGIN');
	is($c->value('SELECT pg_sleep(0.8)'), '', 'server_lifetime does not end a transaction');
	is($c->value('SELECT pg_backend_pid()'), $pid, '... nor take its server');
	$c->query('COMMIT');
	my $changed = poll_until(sub { $c->value('SELECT pg_backend_pid()') ne $pid }, 'server_lifetime', 5);
	ok($changed, 'afterwards the server is replaced, although the client is busy');
}

# ---- write_timeout
{
	sql("ALTER SYSTEM SET pgpool.write_timeout = '500ms'");
	sql('SELECT pg_reload_conf()');
	poll_until(sub { PgPoolWire->open(port => $node->{pool_port}); sql("SELECT setting FROM pg_settings WHERE name = 'pgpool.write_timeout'") eq '500' });
	my $before = length slurp_log($node);
	my $c = client('plain');
	$c->send(message('Q', "SELECT repeat('x', 1000000) FROM generate_series(1, 200)\0"));
	my $start = time;
	# it reads nothing
	ok(poll_until(sub { sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE role = 'plain'") == 0 }, 'write_timeout', 10), 'write_timeout cuts off a client that takes no data');
	within(time - $start, 0.4, 5, '... after its time');
	my $next = client('plain');
	is($next->value('SELECT 1'), '1', '... and the server is free again');
	like(substr(slurp_log($node), $before), qr/client 127\.0\.0\.1:\d+ of role "plain", database "postgres", tenant "default", took no data for \d+ ms: disconnected \(pgpool\.write_timeout is 500 ms\)/,
		'... and the log names client, limit and value');
	sql('ALTER SYSTEM RESET pgpool.write_timeout');
}

# ---- max_client_connections
{
	poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }, 'no client');
	sql('ALTER SYSTEM SET pgpool.max_client_connections = 3');
	sql('SELECT pg_reload_conf()');
	my $r;
	my @in;
	ok(poll_until(sub {
			@in = ();
			poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }, 'no client');
			@in = map { client('flood') } 1 .. 3;
			my $c = PgPoolWire->open(port => $node->{pool_port});
			$r = $c->login(user => 'flood', password => 'secret', database => 'postgres');
			return !$r->{ok};
		}, 'max_client_connections', 10), 'max_client_connections refuses one more');
	is(text($r), 'FATAL | 53300 | sorry, too many clients already | pgpool.max_client_connections is 3. | Raise pgpool.max_client_connections and reload.',
		'... with limit, value and remedy');
	is($in[0]->value('SELECT 1'), '1', '... those who are in go on');
	$in[0]->send(message('X', ''));
	ok(poll_until(sub { login_text($node, user => 'flood', password => 'secret', database => 'postgres') eq 'ok' }, 'place', 5), '... and one that leaves makes a place');
	sql('ALTER SYSTEM RESET pgpool.max_client_connections');
}

# ---- max_server_connections, over all pools
{
	sql('ALTER SYSTEM SET pgpool.max_server_connections = 4');
	# flood is to be served, however slow the machine is; plain is to be refused
	sql("SELECT pgpool.set_user('default', 'flood', query_wait_timeout => '10 seconds')");
	sql("SELECT pgpool.set_user('default', 'plain', query_wait_timeout => '500 milliseconds')");
	sql('SELECT pg_reload_conf()');
	client('plain')->close for 1 .. 12;
	my @c = map { client('flood') } 1 .. 8;
	my @results;
	ok(poll_until(sub { sql("SELECT pool_size FROM pgpool.pg_stat_pools WHERE role = 'flood'") == 4 }, 'pool_size', 5), 'no pool is larger than max_server_connections');
	ok(poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_servers') <= 4 }, 'servers', 5), '... and idle servers above a lowered limit are closed');
	$_->send(message('Q', "SELECT pg_sleep(0.3)\0")) for @c;
	my $most = 0;
	poll_until(sub { my $n = sql("SELECT count(*) FROM pg_stat_activity WHERE usename IN (SELECT role_name FROM pgpool.tenant_user)"); $most = $n if $n > $most;
		sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE state <> 'idle'") == 0 }, 'all are served', 10);
	my @answers = map { text($_->answer(10)) } @c;
	cmp_ok($most, '<=', 4, "eight clients make $most servers");
	is(scalar(grep { $_ eq 'no error' } @answers), 8, '... all are served') or diag join "\n", @answers;
	# another pool, while all places are in use; its first login in each worker asked a server before
	my $begun = grep { !$_->query('BEGIN')->{error} } @c[ 0 .. 3 ];
	is($begun, 4, 'idle servers of other pools make place, in whichever worker they are');
	my $other = PgPoolWire->open(port => $node->{pool_port});
	my $r = $other->login(user => 'plain', password => 'secret', database => 'postgres');
	$r = $other->query('SELECT 1') if $r->{ok};
	like(text($r), qr/53300 \| .*max_server_connections|53300.*query_wait_timeout/, 'another pool that finds no place is told so');
	like(text($r), qr/max_server_connections.*4/, '... and which limit it is, and its value');
	$_->query('COMMIT') for @c[ 0 .. 3 ];
	is($admin->value('SELECT 1'), '1', 'the superuser has a connection all the time');
	$_->close for @c, $other;

	# all places are taken by idle servers in one worker, and the client is in the other one
	sql('ALTER SYSTEM SET pgpool.max_server_connections = 2');
	sql('SELECT pg_reload_conf()');
	my $in_worker = sub {
		my ($role, $worker) = @_;
		for (1 .. 50)
		{
			my $c = client($role);
			return $c if sql("SELECT worker FROM pgpool.pg_stat_clients WHERE pid = $c->{pid}") == $worker;
			$c->close;
		}
		die "no client of $role in worker $worker";
	};
	for my $worker (0, 1)
	{
		sql('SELECT pg_terminate_backend(pid) FROM pgpool.pg_stat_servers WHERE pid > 0');
		poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_servers') == 0 }, 'no server', 5);
		my @holders = map { $in_worker->($_, $worker) } 'plain', 'waits';
		my $needy = $in_worker->('flood', 1 - $worker);
		poll_until(sub { $_->query('SELECT 1') for @holders; sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE worker = $worker AND state = 'idle'") == 2 }, 'idle servers', 5);
		my $start = time;
		is($needy->value('SELECT 5'), '5', 'idle servers of another worker make place for a pool of worker ' . (1 - $worker));
		within(time - $start, 0, 5, '... soon'); # of 10 s that it waits where idle servers stay
		$_->close for @holders, $needy;
	}
}
is(sql('SELECT sum(starts) FROM pgpool.pg_stat_workers'), '2', 'no worker was restarted');
$node->stop;
done_testing();
