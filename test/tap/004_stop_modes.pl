# Shows: smart, fast and immediate shutdown, restart, and a postmaster that is killed, each with pooled clients: how
# long it takes, what clients are told, that nothing keeps the port and that the next start succeeds at once.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('stop', workers => 2, pool_size => 10);
my $node = $pool->node;
$pool->run_psql('CREATE TABLE t (who text)');

# stop in the background; gives the job
sub stopping
{
	my ($mode) = @_;
	$pool->forget_sql;
	return $pool->start([ 'pg_ctl', '-D', $pool->data_dir, '-m', $mode, '-t', '60', 'stop' ]);
}

sub port_is_free
{
	my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $pool->port, Listen => 1, Proto => 'tcp', ReuseAddr => 1);
	return $s ? 1 : 0;
}

# ---- smart
my @idle = map { $pool->raw } 1 .. 20;
$_->value('SELECT 1') for @idle;
my $open = $pool->raw;
$open->ask("BEGIN; INSERT INTO t VALUES ('smart')");
my $running = $pool->raw;
$running->query("BEGIN; INSERT INTO t VALUES ('smart'); SELECT pg_sleep(1); COMMIT");
ok(defined wait_until(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1 }), 'a query runs');
my $job = stopping('smart');
my $told = grep { my $r = $_->ended(3); $r && $r->{error} && $r->{error}{C} eq '57P01' } @idle;
is($told, 20, 'smart: idle clients are told 57P01');
my $refused = eval { $pool->raw(timeout => 3)->close; 'let in' } // $@;
like($refused, qr/^57P03|connect/, 'smart: a new client is told 57P03, or finds no listener');
ok($job->running, 'smart: the server waits for transactions');
is($running->result(5)->{tags}[-1], 'COMMIT', 'smart: a running transaction finishes');
is($open->ask("INSERT INTO t VALUES ('smart')")->{status}, 'T', 'smart: an open transaction goes on');
is($open->ask('COMMIT')->{tags}[0], 'COMMIT', '... and commits');
my $start = time;
is($job->finish(20), 0, 'smart: the server stops');
cmp_ok(time - $start, '<=', 2, sprintf('... within 2 s of the last transaction (%.2f s)', time - $start));
my $r = $open->ended(1);
is($r && $r->{error} && $r->{error}{C}, '57P01', 'smart: the last client was told 57P01');
$node->_update_pid(0);
ok(port_is_free(), 'smart: the port is free');
$node->start;
ok($pool->ready(10), 'it starts again');
is($pool->sql('SELECT count(*) FROM t', 'app'), 3, 'what was committed is there');

# ---- fast, with many clients
my @many = map { $pool->raw } 1 .. 300;
$many[$_]->ask("BEGIN; INSERT INTO t VALUES ('fast')") for 0 .. 4;
$many[5]->query('SELECT pg_sleep(3600)');
$many[$_]->query('BEGIN; SELECT pg_sleep(0.01)') for 6 .. 60; # more than there are servers
$start = time;
$job = stopping('fast');
is($job->finish(30), 0, 'fast: the server stops with 300 clients');
cmp_ok(time - $start, '<=', 5, sprintf('... within 5 s (%.2f s)', time - $start));
$node->_update_pid(0);
$told = 0;
for my $c (@many[ 61 .. 299 ])
{
	my $r = $c->ended(1);
	$told++ if $r && $r->{error} && $r->{error}{C} eq '57P01';
}
is($told, 239, 'fast: idle clients are told 57P01');
is(scalar(grep { $_->ended(1) } @many[ 0 .. 60 ]), 61, 'fast: all others are disconnected');
ok(port_is_free(), 'fast: the port is free');
unlike($pool->log_text, qr/terminating any other active|was terminated by signal/, 'fast: nothing crashed');
$node->start;
ok($pool->ready(10), 'it starts again');
is($pool->sql("SELECT count(*) FROM t WHERE who = 'fast'", 'app'), 0, 'open transactions were rolled back');

# ---- immediate
@many = map { $pool->raw } 1 .. 20;
$many[0]->query('SELECT pg_sleep(3600)');
$start = time;
$job = stopping('immediate');
is($job->finish(30), 0, 'immediate: the server stops');
cmp_ok(time - $start, '<=', 2, sprintf('... within 2 s (%.2f s)', time - $start));
$node->_update_pid(0);
is(scalar(grep { $_->ended(1) } @many), 20, 'immediate: all clients are disconnected');
ok(port_is_free(), 'immediate: the port is free');
$node->start;
ok($pool->ready(10), 'it starts again, after recovery');

# ---- restart
my $client = $pool->raw;
$pool->forget_sql;
$start = time;
$node->restart;
ok($pool->ready(10), sprintf('restart: the port serves (%.2f s after the request)', time - $start));
ok($client->ended(1), 'restart: the old client was disconnected');

# ---- the postmaster is killed
@many = map { $pool->raw } 1 .. 20;
$many[0]->query('SELECT pg_sleep(3600)');
$many[1]->ask("BEGIN; INSERT INTO t VALUES ('killed')");
my @workers = $pool->workers;
my $manager = $pool->manager_pid;
my $postmaster = $pool->postmaster_pid;
$pool->forget_sql;
$node->kill9;
$start = time;
within(1, sub { !grep { alive($_) } @workers }, 'postmaster killed: the workers are gone');
within(1, \&port_is_free, '... the port is free');
within(2, sub { !alive($manager) }, '... the manager is gone');
is(scalar(grep { $_->ended(1) } @many), 20, '... and all clients are disconnected');
# until somebody has reaped it, pg_ctl takes it for a running one
wait_until(10, sub { !kill(0, $postmaster) });
$start = time;
ok($node->start(fail_ok => 1), 'a new postmaster starts at the first try');
ok($pool->ready(10), sprintf('... and the port serves (%.2f s)', time - $start));
is($pool->run_psql('SELECT 1', host => $pool->socket_dir), 1, '... on the Unix socket, too');
is($pool->sql("SELECT count(*) FROM t WHERE who = 'killed'", 'app'), 0, '... and the open transaction is gone');

$node->stop('fast');
done_testing();
