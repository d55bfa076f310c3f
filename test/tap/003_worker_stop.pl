# Shows: a worker that is told to end (SIGTERM) lets running transactions finish, tells idle clients 57P01, and comes
# back; the other worker and the server notice nothing. A worker that stands still (SIGSTOP) holds up its own clients
# alone, and goes on where it was. The manager may end and come back under clients.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('worker_stop', workers => 2, pool_size => 10, conf => "pgpool.shutdown_timeout = 3s\n");
my $started = $pool->started_at;
$pool->run_psql('CREATE TABLE t (who text)');

my $clients = $pool->clients_by_worker(5);
my ($idle, $running, $open, $stuck, $half) = @{ $clients->[0] };
my $other      = $clients->[1][0];
my $other_busy = $clients->[1][1];
$idle->value('SELECT 1');
$open->ask("BEGIN; INSERT INTO t VALUES ('open')");
$stuck->ask("BEGIN; INSERT INTO t VALUES ('stuck')");
$running->query("BEGIN; INSERT INTO t VALUES ('running'); SELECT pg_sleep(1); COMMIT");
$other_busy->query("SELECT pg_sleep(4), 'slept'");
ok(defined wait_until(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 2 }), 'two queries run');

my $pid   = $pool->worker_pid(0);
my $start = time;
my $log   = $pool->log_offset;
kill 'TERM', $pid;

my $r = $idle->ended(2);
ok($r, 'SIGTERM: an idle client is disconnected at once');
is($r && $r->{error}{C}, '57P01', '... and told 57P01');
is($open->ask("INSERT INTO t VALUES ('open')")->{status}, 'T', 'an open transaction can go on');
$r = $open->ask('COMMIT');
is($r->{tags}[0], 'COMMIT', '... and commit');
$r = $open->ended(2);
is($r && $r->{error} && $r->{error}{C}, '57P01', '... then it is told 57P01');
$r = $running->result(10);
is($r->{tags}[-1], 'COMMIT', 'a running transaction finishes');
$r = $running->ended(2);
is($r && $r->{error} && $r->{error}{C}, '57P01', '... then it is told 57P01');
my $newcomer = $pool->raw;
is($newcomer->value('SELECT 1'), 1, 'new clients are served meanwhile');
isnt($pool->worker_of($newcomer), 0, '... by the other worker') if alive($pid);
is($other->value('SELECT 2'), 2, 'a client of the other worker is served');
$r = $stuck->ended(6);
is($r && $r->{error} && $r->{error}{C}, '57P01', 'a transaction that does not end is told 57P01, too');
cmp_ok(time - $start, '>=', 2.5, '... after pgpool.shutdown_timeout');
ok(defined wait_until(3, sub { !alive($pid) }), 'the worker ends');
my $ended = time;
ok(defined wait_until(5, sub { ($pool->worker_pid(0) // $pid) != $pid && eval { $pool->ready(1) } }), 'and comes back');
cmp_ok(time - $ended, '<=', 2.5, sprintf('... within 2.5 s (%.2f s)', time - $ended));
is($pool->sql('SELECT string_agg(who, \',\' ORDER BY who) FROM t', 'app'), 'open,open,running',
	'committed is what committed, the rest rolled back');
is($other_busy->result(10)->{rows}[0][1], 'slept', 'the query in the other worker ran on');
is($pool->started_at, $started, 'the postmaster is the same');
is($pool->crashes($log), 0, 'no restart of all processes');
within(3, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in%'") == 0 }, 'no transaction is left open');

# SIGSTOP
$_->fin for grep { $_->{socket} } map { @$_ } @$clients;
$newcomer->fin;
$clients = $pool->clients_by_worker(2);
my ($held, $served) = ($clients->[0][0], $clients->[1][0]);
$pid = $pool->worker_pid(0);
kill 'STOP', $pid;
$held->query("INSERT INTO t VALUES ('held') RETURNING who");
is($served->value('SELECT 3'), 3, 'SIGSTOP: a client of the other worker is served');
my ($let_in, @waiting) = (0);
for (1 .. 12)
{
	my $c = $pool->raw(login => 0);
	$c->startup;
	my $ok = eval { $c->{timeout} = 0.5; !$c->finish_login } // 0;
	$ok ? ($let_in++, $c->close) : push @waiting, $c;
}
cmp_ok($let_in, '>', 0, "of 12 new clients $let_in were let in by the other worker");
$start = time;
$pool->sql('CREATE DATABASE stopped');
$pool->sql('DROP DATABASE stopped');
cmp_ok(time - $start, '<', 5, sprintf('DROP DATABASE does not wait for it for long (%.2f s)', time - $start));
$start = time;
is($pool->sql('SELECT count(*) >= 0 FROM pgpool.pg_stat_clients'), 't', 'the views answer');
cmp_ok(time - $start, '<', 6, sprintf('... in bounded time (%.2f s)', time - $start));
kill 'CONT', $pid;
is($held->result(5)->{rows}[0][0], 'held', 'SIGCONT: its client goes on');
is($pool->sql("SELECT count(*) FROM t WHERE who = 'held'", 'app'), 1, '... and the query ran once');
is($pool->worker_pid(0), $pid, 'the same worker');
$_->fin for @waiting;

# the manager
my $manager = $pool->manager_pid;
kill 'TERM', $manager;
ok(defined wait_until(5, sub { !alive($manager) }), 'the manager ends by SIGTERM');
is($served->value('SELECT 4'), 4, 'clients are served without a manager');
ok(defined wait_until(5, sub { eval { $pool->raw(timeout => 4)->close; 1 } }), 'a login waits for the manager, and succeeds');
ok(defined wait_until(5, sub { ($pool->manager_pid // $manager) != $manager }), 'the manager is back');
is($pool->started_at, $started, 'the postmaster is still the same');

$pool->node->stop('fast');
done_testing();
