# Shows: whatever a fault in a worker leaves behind - no valid program counter, no stack, a broken heap, a handler that
# faults or waits for ever itself - and in whatever thread it happens, to the postmaster the worker exits with code 1:
# no other process is restarted, and the port serves again. The same for every signal that somebody may send, but
# SIGKILL (002_crash_containment.pl) and SIGSTOP. See test/tools/preload/fault.cpp for the faults.
use strict;
use warnings;
use Config;
use Test::More;
use Time::HiRes qw(time);
use PgPool;

my $pool      = PgPool->new('crashes', workers => 4, faults => 1);
my $started   = $pool->started_at;
my $bystander = $pool->direct;
$bystander->query('SELECT pg_sleep(3600)');

# what to the worker, the signal that its last line names ('' = it cannot say anything)
my @faults = (
	[ 'bad-pc',                 11 ],
	[ 'null-call',              11 ],
	[ 'non-canonical-pc',       11 ],
	[ 'data-as-code',           11 ],
	[ 'dangling-vtable',        11 ],
	[ 'null-store',             11 ],
	[ 'smashed-stack',          11 ],
	[ 'guarded-stack',          6 ],
	[ 'stack-overflow',         11 ],
	[ 'abort',                  6 ],
	[ 'uncaught',               6 ],
	[ 'illegal-instruction',    '4|5' ],
	[ 'division',               8 ],
	[ 'bus-error',              7 ],
	[ 'heap',                   '6|11' ],
	[ 'loader-lock',            11 ],
	[ 'fault-in-handler',       11 ],
	[ 'hang-in-handler',        11 ],
	[ 'full-pipe',              '' ],
	[ 'cpu-time',               24 ],
	[ 'thread-bad-pc',          11 ],
	[ 'thread-null-store',      11 ],
	[ 'thread-smashed-stack',   11 ],
	[ 'thread-stack-overflow',  11 ],
	[ 'thread-abort',           6 ],
	[ 'thread-uncaught',        6 ],
	[ 'thread-hang-in-handler', 11 ]);
# division by zero gives 0 on ARM
@faults = grep { $_->[0] ne 'division' } @faults unless $Config{archname} =~ /x86_64|i.86/;

sub exited
{
	my ($log, $pid) = @_;
	my ($how) = $pool->log_text($log) =~ /background worker "pgpool worker[^"]*" \(PID $pid\) (.*)/;
	return $how;
}

# One after the other, each in the worker that has been up longest: a new one is there after a second.
my $number = 0;
for (@faults)
{
	my ($what, $signal) = @$_;
	my $worker = $number++ % 4;
	ok(defined wait_until(30, sub { running($worker) }), "$what: worker $worker is up") or last;
	my $pid    = $pool->worker_pid($worker);
	my $client = client_of($worker);
	my $log    = $pool->log_offset;
	$pool->fault($pid, $what);
	ok(defined wait_until(30, sub { defined exited($log, $pid) }), "$what: the postmaster sees an end");
	is(exited($log, $pid), 'exited with exit code 1', "$what: it is the exit with code 1")
	  or diag $pool->log_text($log);
	like($pool->log_text($log), qr/pgpool worker: crashed by signal 0?(?:$signal);/, "$what: the log names the signal") if $signal;
	ok($client->ended(10), "$what: its client is disconnected");
}

sub running
{
	my ($worker) = @_;
	my $pid = $pool->worker_pid($worker) // return 0;
	return eval { $pool->sql("SELECT state FROM pgpool.pg_stat_workers WHERE worker = $worker AND pid = $pid AND listens_tcp") }
	  eq 'running';
}

sub client_of
{
	my ($worker) = @_;
	for (1 .. 400)
	{
		my $client = $pool->raw;
		return $client if $pool->worker_of($client) == $worker;
	}
	die "no client came to worker $worker\n";
}

# ---- every signal; those that tell of a fault end the worker, all others mean nothing to it
my @names = grep { !/^(ZERO|KILL|STOP|TERM|NUM\d+|CLD|IOT|POLL|UNUSED)$/ } split ' ', $Config{sig_name};
for my $name (@names)
{
	my $worker = $number++ % 4;
	wait_until(30, sub { running($worker) }) or die "worker $worker is not up after the signal before SIG$name\n";
	my $pid = $pool->worker_pid($worker);
	my $log = $pool->log_offset;
	kill $name, $pid;
	# its end, or an answer that it gives afterwards
	ok(defined wait_until(30, sub { defined exited($log, $pid) || alive($pid) && eval { client_of($worker)->value('SELECT 1') } }),
		"SIG$name is taken");
	my $how = exited($log, $pid) // 'lives';
	my $expected = $name =~ /^(SEGV|BUS|ABRT|FPE|ILL|TRAP|SYS|XCPU|QUIT)$/ ? 'exited with exit code 1' : 'lives';
	is($how, $expected, "SIG$name to a worker: it $expected");
}

is($pool->crashes(0), 0, 'the server did not restart its processes');
is(scalar(() = $pool->log_text(0) =~ /terminated by signal/g), 0, 'no child of the postmaster died from a signal, as it sees them');
is($pool->started_at, $started, 'the postmaster is the same');
is($pool->sql("SELECT state FROM pg_stat_activity WHERE pid = $bystander->{pid}"), 'active',
	'a session on the server\'s own port sleeps on');
ok($pool->ready(15), 'all workers are back');
$bystander->rst;
$pool->node->stop('fast');
done_testing();
