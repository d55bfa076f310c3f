# Shows: a worker that dies from SIGSEGV, SIGABRT and the like under load takes nothing along: the server is not
# restarted, a session on the server's own port is not disturbed, the port answers again within 2 s, no committed
# transaction is lost and none happens twice. A worker that is killed by SIGKILL may restart the server (PostgreSQL
# decides that), but nothing is lost then either. PGPOOL_KILLS sets the number of kills per worker.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool  = PgPool->new('crash', workers => 2, pool_size => 4);
my $kills = kills_per_worker();
my @signals = qw(SEGV ABRT SEGV BUS ABRT FPE SEGV ILL);

my $started  = $pool->started_at;
my $bystander = $pool->direct;
my $bystander_pid = $bystander->value('SELECT pg_backend_pid()');
$bystander->query("SELECT pg_sleep(3600)");
my $record = "$ENV{TESTDATADIR}/crash.record";
my @account = qw(--user=app --database=app --password=app-secret);
my $ledger = $pool->start_tool('ledger', @account, '--clients=8', '--think-us=2000', "--record=$record",
	'--seconds=' . (3 + 2 * $kills * 2.5), '--most-ms=2500');
within(15, sub { eval { $pool->sql('SELECT count(*) FROM journal', 'app') } // 0 > 10 }, 'the ledger is at work');

my ($slowest, $slowest_back, $number) = (0, 0, 0);
my $log = $pool->log_offset;
for my $round (1 .. $kills)
{
	for my $worker (0, 1)
	{
		my $pid    = $pool->worker_pid($worker);
		my $signal = $signals[ $number++ % @signals ];
		my $start  = time;
		kill $signal, $pid;
		# the port: other workers listen to it, too, and the one that died must not leave a hole
		my $took = wait_until(10, sub { !alive($pid) && eval { $pool->raw(timeout => 1)->close; 1 } });
		$took = defined $took ? time - $start : 99;
		my $back = wait_until(
			10,
			sub {
				my $new = $pool->worker_pid($worker);
				defined $new && $new != $pid
				  && $pool->sql("SELECT state FROM pgpool.pg_stat_workers WHERE worker = $worker AND pid = $new AND listens_tcp") eq 'running';
			});
		$back    = defined $back ? time - $start : 99;
		$slowest = $took if $took > $slowest;
		$slowest_back = $back if $back > $slowest_back;
		# and work goes on: the next kill comes when it does, so that the ledger's longest silence belongs to one kill
		my $journal = $pool->sql('SELECT count(*) FROM journal', 'app');
		wait_until(5, sub { $pool->sql('SELECT count(*) FROM journal', 'app') > $journal + 20 });
		diag "SIG$signal to worker $worker, round $round: port after $took s, worker after $back s" if $took > 2 || $back > 3;
	}
}
ok($ledger->running, 'all that happened under load');
cmp_ok($slowest, '<=', 2, sprintf('%d kills: the port answered again within 2 s (%.2f s)', $number, $slowest));
cmp_ok($slowest_back, '<=', 3, sprintf('... and the worker was back within 3 s (%.2f s)', $slowest_back));
is($ledger->finish(60 + $kills * 5), 0, 'no transaction lost, none twice, and work went on within 2.5 s') or diag $ledger->output;
note $ledger->output;
is($pool->started_at, $started, 'the postmaster is the same');
is($pool->crashes($log), 0, 'the server did not restart its processes');
is($pool->sql("SELECT state FROM pg_stat_activity WHERE pid = $bystander_pid"), 'active', 'the session on the server\'s own port sleeps on');
is(scalar(() = $pool->log_text($log) =~ /terminated by signal/g), 0, 'no child of the postmaster died from a signal, as it sees them');
like($pool->log_text($log), qr/pgpool worker.*(SIGSEGV|signal 11|Segmentation)/i, 'the worker said in the log what happened to it');
is($pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in transaction%'"), 0,
	'no transaction is left open');
is($pool->sql("SELECT sum(starts) FROM pgpool.pg_stat_workers"), $number + 2, 'pg_stat_workers counts the starts');

# SIGKILL: PostgreSQL restarts all processes, as it does for any process that dies so
my $second = "$ENV{TESTDATADIR}/crash2.record";
$bystander->fin;
$ledger = $pool->start_tool('ledger', @account, '--clients=8', '--think-us=2000', "--record=$second", '--seconds=6');
sleep(0.2) until $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE 'UPDATE%'") > 0
  || !$ledger->running;
kill 'KILL', $pool->worker_pid(0);
ok(defined wait_until(15, sub { eval { $pool->raw(timeout => 1)->close; 1 } }), 'SIGKILL: the port serves again');
is($ledger->finish(60), 0, 'SIGKILL: no transaction lost, none twice') or diag $ledger->output;
ok($pool->ready(15), 'all workers are back');

$pool->node->stop('fast');
done_testing();
