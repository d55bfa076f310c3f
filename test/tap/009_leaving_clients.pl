# Shows: a client that leaves without a word (FIN, or RST), in whatever phase, is rolled back and its server is usable
# again within about a second, at rest and without a lock, with on_disconnect = cancel; a client that only closes its
# sending side gets its reply. 126 has what was sent before, and on_disconnect = finish.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;
use PgPoolWire qw(query_message parse bind_to execute flush);

my $pool = PgPool->new('leaving', workers => 2, pool_size => 1);
$pool->sql("SELECT pgpool.alter_tenant('default', on_disconnect => 'cancel')");
$pool->run_psql('CREATE TABLE t (a int)');
my $probe = $pool->raw;

# Backends of the pool that are not idle, or hold a lock on a table.
sub restless
{
	return $pool->sql("SELECT count(*) FROM pg_stat_activity a WHERE usename = 'app' AND (state <> 'idle'
		OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.mode NOT LIKE 'AccessShare%' AND l.locktype = 'relation'))");
}

# name => what the client does before it leaves
my $holder;
my @phases = (
	[ 'idle', sub { $_[0]->value('SELECT 1') } ],
	[ 'waiting for a server', sub {
			$holder = $pool->raw;
			$holder->ask('BEGIN');
			$_[0]->query("BEGIN; INSERT INTO t VALUES (1)");
			wait_until(5, sub { $pool->sql('SELECT sum(clients_waiting) FROM pgpool.pg_stat_pools') > 0 });
		}, sub { $holder->ask('COMMIT'); $holder->close; } ],
	[ 'in pg_sleep(3600)', sub {
			$_[0]->query('INSERT INTO t SELECT 1 FROM pg_sleep(3600)');
			wait_until(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0 });
		} ],
	[ 'streaming a large result', sub {
			$_[0]->query("SELECT repeat('x', 100000) FROM generate_series(1, 20000)");
			$_[0]->message for 1 .. 20;
		} ],
	[ 'idle in a transaction', sub { $_[0]->ask('BEGIN; LOCK TABLE t; INSERT INTO t VALUES (1)') } ],
	[ 'in a failed transaction', sub { $_[0]->ask('BEGIN; LOCK TABLE t'); $_[0]->ask('SELECT 1/0'); } ],
	[ 'in COPY IN', sub {
			$_[0]->ask('COPY t FROM STDIN');
			$_[0]->send('d', "1\n" x 10000);
		} ],
	[ 'in COPY IN, in the middle of a message', sub {
			$_[0]->ask('BEGIN');
			$_[0]->ask('COPY t FROM STDIN');
			$_[0]->write('d' . pack('N', 500000) . "1\n" x 50000);
		} ],
	[ 'in the middle of a small message', sub { $_[0]->write('Q' . pack('N', 100) . 'INSERT INTO t') } ],
	[ 'in the middle of a small message, in a transaction', sub {
			$_[0]->ask('BEGIN; LOCK TABLE t');
			$_[0]->write('Q' . pack('N', 100) . 'INSERT INTO t');
		} ],
	[ 'in the middle of a large message', sub { $_[0]->write('Q' . pack('N', 1000000) . 'INSERT INTO t VALUES (1);' x 8000) } ],
	[ 'with a pipeline without Sync', sub {
			$_[0]->write(parse('INSERT INTO t VALUES (1)') . bind_to() . execute() . flush());
			$_[0]->message for 1 .. 3;
		} ],
	[ 'with a Parse alone', sub { $_[0]->write(parse('SELECT 1')) } ],
	[ 'with a pipeline that failed', sub {
			$_[0]->write(parse('nonsense') . bind_to() . execute() . flush());
			$_[0]->message;
		} ],
	[ 'with fifty queries under way', sub { $_[0]->write(query_message('SELECT pg_sleep(0.001)') x 50) } ],
);

for my $phase (@phases)
{
	my ($name, $do, $after) = @$phase;
	for my $how (qw(fin rst))
	{
		my $client = $pool->raw;
		$do->($client);
		$client->$how;
		$after->() if $after;
		my $start = time;
		my $r     = eval { $probe->ask('SELECT count(*) FROM t', 10) } // {};
		my $took  = time - $start;
		my $rest  = wait_until(1, sub { restless() == 0 });
		my $rows  = $r->{rows}[0][0] // 'no answer';
		my $ok    = $rows eq '0' && $took <= 1.5 && defined $rest;
		ok($ok, sprintf('%s, %s: rolled back, the next client is served after %.2f s', $name, uc $how, $took));
		if (!$ok)
		{
			diag "rows: $rows, error: " . ($r->{error}{M} // 'none') . "; backends: "
			  . $pool->sql("SELECT string_agg(pid || ' ' || state || ' ' || query, '; ') FROM pg_stat_activity WHERE usename = 'app'");
			# the next phases shall not suffer from this one
			$pool->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
			$pool->sql('TRUNCATE t', 'app');
			$probe = $pool->raw;
		}
	}
}

# Terminate, too, ends a transaction that no Sync has committed
my $polite = $pool->raw;
$polite->write(parse('INSERT INTO t VALUES (1)') . bind_to() . execute() . flush());
$polite->message for 1 .. 3;
$polite->close;
is($probe->value('SELECT count(*) FROM t'), 0, 'with a pipeline without Sync, Terminate: rolled back');
$probe->ask('TRUNCATE t');

# COMMIT sent: committed or not, but over
for my $how (qw(fin rst))
{
	for (1 .. 10)
	{
		my $client = $pool->raw;
		$client->ask('BEGIN; LOCK TABLE t; INSERT INTO t VALUES (1)');
		$client->query('COMMIT');
		$client->$how;
	}
	my $start = time;
	my $rows  = $probe->value('SELECT count(*) FROM t');
	cmp_ok(time - $start, '<=', 1.5, sprintf('COMMIT sent, %s, ten times: over, %d of 10 committed (%.2f s)', uc $how, $rows, time - $start));
	$probe->ask('TRUNCATE t');
}
ok(defined wait_until(1, sub { restless() == 0 }), 'all servers are at rest');

# the sending side closed: the reply is delivered, then the connection ends
$pool->sql("SELECT pgpool.alter_tenant('default', pool_size => 5)");
wait_until(5, sub { $pool->sql("SELECT pool_size FROM pgpool.pg_stat_pools WHERE role = 'app'") == 5 });
my $client = $pool->raw;
$client->value('SELECT 1'); # so that its worker has a server
$client->query("SELECT 42");
$client->half_close;
my $r = $client->result(5);
is($r->{rows}[0][0], 42, 'half-close after a query: the reply comes');
ok($client->ended(2), '... and then the end');
$client = $pool->raw;
$client->value('SELECT 1');
$client->query("SELECT 43, pg_sleep(0.2)");
$client->half_close;
$r = $client->result(5);
is($r->{rows}[0][0], 43, 'half-close during a query: the same');
$client = $pool->raw;
$client->query('SELECT pg_sleep(3600)');
$client->half_close;
ok($client->ended(2), '... but it is not waited for long: nobody can tell it from one that is gone');
$client = $pool->raw;
$client->ask('BEGIN; INSERT INTO t VALUES (1)');
$client->half_close;
ok($client->ended(2), 'half-close in a transaction: disconnected');
is($probe->value('SELECT count(*) FROM t'), 0, '... and rolled back');

$pool->sql("SELECT pgpool.alter_tenant('default', pool_size => 1)");
ok(defined wait_until(5, sub { $pool->backends <= 1 }), 'a pool of one again');

# a client that stops in the middle of a message
$pool->sql("ALTER SYSTEM SET pgpool.idle_in_transaction_timeout = '500ms'");
$pool->sql('SELECT pg_reload_conf()');
ok(defined wait_until(5, sub { $pool->sql('SHOW pgpool.idle_in_transaction_timeout') eq '500ms' }), 'a timeout of 500 ms');
$client = $pool->raw;
$client->ask('BEGIN; LOCK TABLE t');
$client->write('Q' . pack('N', 100) . 'INSERT');
$r = $client->ended(5);
is($r && $r->{error} && $r->{error}{C}, '25P03', 'a client that stops in the middle of a message in a transaction is told 25P03');
$client->rst if !$r;
is($probe->value('SELECT count(*) FROM t'), 0, '... and its server is free');
$pool->sql('ALTER SYSTEM RESET ALL');
$pool->sql('SELECT pg_reload_conf()');

# many at once
my $seed = $ENV{PGPOOL_SEED} // int(rand(1e9));
srand($seed);
note "seed $seed";
my $most = 0;
for (1 .. 150)
{
	my $c = $pool->raw(login => 0);
	my $n = int(rand(5));
	$c->startup if $n > 0;
	if ($n > 1)
	{
		eval { $c->finish_login };
		$c->query($n == 2 ? 'SELECT pg_sleep(0.01)' : $n == 3 ? 'BEGIN; INSERT INTO t VALUES (1)' : "SELECT repeat('x', 1000000)");
	}
	rand(2) < 1 ? $c->rst : $c->fin;
	my $now = $pool->backends;
	$most = $now if $now > $most;
}
is($most, 1, '150 clients that leave at random: never more than one backend');
is($probe->value('SELECT count(*) FROM t'), 0, '... all rolled back');
ok(defined wait_until(2, sub { restless() == 0 }), '... at rest');
ok(defined wait_until(5, sub { $pool->sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 1 }), '... and no client is left but one')
  or diag $pool->sql('SELECT * FROM pgpool.pg_stat_clients');

$pool->node->stop('fast');
done_testing();
