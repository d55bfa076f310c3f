# Shows: malformed, half-open and mutated input is refused and costs no memory; a very large row, a very large query
# and clients that do not read pass through without being held: the workers' memory stays flat; write_timeout cuts a
# client that does not read. PGPOOL_BIG sets the size of the large row in MB (default 200).
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('input', workers => 2, pool_size => 5, start => 0);
$pool->write_hba("local all trusty trust\nhost all trusty 127.0.0.1/32 trust\n");
$pool->node->start;
$pool->prepare(1);
$pool->sql('CREATE ROLE trusty LOGIN');
$pool->ready;

my $limit = 4096; # KB that a worker may grow by
sub memory { return map { rss_kb($_) } $pool->workers; }
sub growth { my ($before) = @_; my @now = memory(); my ($most) = sort { $b <=> $a } map { $now[$_] - $before->[$_] } 0 .. $#now; return $most; }

# warm up: what is allocated once
my $many = $pool->pgbench('-i', '-q');
is($many->finish(60), 0, 'pgbench -i');
$many = $pool->pgbench(qw(-n -S -C -c 10 -T 2));
is($many->finish(60), 0, 'clients that come and go');

# ---- malformed input
my @run = qw(--user=trusty --scram-user=app --database=app --login-ms=1000);
my $tool = $pool->start_tool('malformed', @run, qw(--mutations=500 --half-open=400 --negotiations=500 --seed=1));
is($tool->finish(120), 0, 'malformed, once to warm up') or diag $tool->output;
my @before = memory();
my @pids   = $pool->workers;
$tool = $pool->start_tool('malformed', @run, qw(--mutations=1500 --half-open=400 --negotiations=2000));
is($tool->finish(120), 0, 'malformed input is refused, and logins work beside it') or diag $tool->output;
note $tool->output;
is(join(' ', $pool->workers), "@pids", 'no worker died of it');
cmp_ok((sort { $a <=> $b } @before)[0], '>', 100, 'the memory of the workers can be seen');
cmp_ok(growth(\@before), '<', $limit, 'memory of a worker grew by ' . growth(\@before) . ' KB');
ok(defined wait_until(5, sub { $pool->sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }), 'no client is left');

# ---- a large row, a large query
my $mb     = $ENV{PGPOOL_BIG} // 200;
my $bytes  = $mb * 1000000;
my $client = $pool->raw(timeout => 120);
$client->value('SELECT 1');
@before = memory();
my $peak = 0;
sub sample { my $now = growth(\@before); $peak = $now if $now > $peak; }
$client->query("SELECT repeat('x', $bytes)");
my ($got, $seen, $tail) = (0, 0, '');
my $until = time + 120;
while (time < $until)
{
	IO::Select->new($client->{socket})->can_read(5) or next;
	my $n = sysread($client->{socket}, my $part, 1048576);
	last unless $n;
	$got += $n;
	$seen += ($part =~ tr/x//);
	$tail = substr($tail . $part, -6);
	sample() if ($got % 16) == 0 || $got - $n == 0;
	last if $got > $bytes && $tail =~ /^Z\0\0\0\x05I$/;
}
cmp_ok($seen, '>=', $bytes, "a row of $mb MB arrived");
sample();
cmp_ok($peak, '<', $limit, "... and a worker grew by $peak KB at most");
$peak = 0;
$mb = 400 if $mb > 400; # the server's scanner doubles its buffer, up to 1 GB
my $text = 'x' x 1000000;
my $head = "SELECT length('";
my $foot = "')\0";
$client->write('Q' . pack('N', 4 + length($head) + length($foot) + $mb * 1000000) . $head);
for (1 .. $mb) { $client->write($text); sample() if $_ % 10 == 0; }
$client->write($foot);
is($client->result(120)->{rows}[0][0], $mb * 1000000, "a query of $mb MB is answered");
cmp_ok($peak, '<', $limit, "... and a worker grew by $peak KB at most");
$client->close;

# ---- clients that do not read
@before = memory();
my @lazy = map { $pool->raw(receive_buffer => 4096) } 1 .. 5;
$_->query("SELECT repeat('y', 100000) FROM generate_series(1, 5000)") for @lazy;
sleep(1); # time for a worker to read more than it should
cmp_ok(growth(\@before), '<', $limit, 'five clients do not read 500 MB each: a worker grew by ' . growth(\@before) . ' KB');
my $waiting = $pool->raw;
$waiting->query('SELECT 7');
is($pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'"), 5, 'their queries stand still');
ok(!eval { $waiting->message(0.3); 1 }, '... and their servers are taken')
  or diag $pool->sql("SELECT pid, state, wait_event, left(query, 30) FROM pg_stat_activity WHERE backend_type = 'client backend'");
$pool->sql("ALTER SYSTEM SET pgpool.write_timeout = '1s'");
$pool->sql('SELECT pg_reload_conf()');
my $start = time;
my $r = eval { $waiting->result(10) } // {};
is($r->{rows}[0][0], 7, sprintf('write_timeout of 1 s: they are free again (%.2f s)', time - $start));
cmp_ok(time - $start, '<', 4, '... in time');
ok(defined wait_until(5, sub { $pool->sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 1 }), 'the clients that did not read are gone');
ok(defined wait_until(2, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'") == 0 }), 'their queries were ended');

# ---- nothing is kept of clients that have left
my @crowd = map { $pool->raw } 1 .. 100;
$_->value('SELECT 1') for @crowd[ 0 .. 9 ];
$_->rst for @crowd;
@before = memory();
for (1 .. 5)
{
	@crowd = map { $pool->raw } 1 .. 100;
	$_->rst for @crowd;
}
cmp_ok(growth(\@before), '<', 1024, '500 clients came and left by RST: a worker grew by ' . growth(\@before) . ' KB');
is(join(' ', $pool->workers), "@pids", 'the workers are the same');

$pool->node->stop('fast');
done_testing();
