# Shows: pool_size is the number of servers of a pool over all workers, at every moment and under clients that come and
# go; a worker that has none gets servers of one that has all of them, idle or busy.
use strict;
use warnings;
use IO::Select;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $size = 4;
my $pool = PgPool->new('shared', workers => 2, pool_size => $size);
my $init = $pool->pgbench(qw(-i -q));
is($init->finish(60), 0, 'pgbench -i') or diag $init->output;

# every client backend but our own, also those that are still starting
sub count { return $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"); }

# ---- clients that stay, that come and go, and that are cut off
my @load = ($pool->pgbench(qw(-n -S -C -c 8 -T 5)), $pool->pgbench(qw(-n -c 8 -T 5)), $pool->pgbench(qw(-n -S -C -c 4 -T 5 -M prepared)));
my ($most, $samples) = (0, 0);
while (grep { $_->running } @load)
{
	my $c = eval { $pool->raw(timeout => 5) };
	if ($c)
	{
		$c->query('SELECT pg_sleep(0.005)') if rand() < 0.5;
		rand() < 0.5 ? $c->rst : $c->fin;
	}
	for (1 .. 5)
	{
		my $now = count();
		$most = $now if $now > $most;
		$samples++;
		sleep(0.004);
	}
}
is(join(' ', map { $_->finish(30) } @load), '0 0 0', 'pgbench with and without reconnecting') or diag map { $_->output } @load;
cmp_ok($most, '<=', $size, "never more than $size backends in $samples samples");
cmp_ok($most, '==', $size, '... and all of them were used');
is($pool->sql("SELECT sum(server_login_failures) FROM pgpool.pg_stat_pools"), 0, 'no login of a server failed');

# ---- one worker has all servers, idle
my $clients = $pool->clients_by_worker(12);
my @hogs    = @{ $clients->[0] }[ 0 .. 11 ];
my ($victim, $second) = @{ $clients->[1] };
$_->ask('BEGIN') for @hogs[ 0 .. $size - 1 ];
$_->ask('COMMIT') for @hogs[ 0 .. $size - 1 ];
is($pool->sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE worker = 0"), $size, 'one worker has all servers');
my $start = time;
is($victim->value('SELECT 1'), 1, 'a client of the other is served');
cmp_ok(time - $start, '<', 0.5, sprintf('... within 0.5 s (%.3f s)', time - $start));
is(count(), $size, 'still all of them, and no more');

# ---- one worker has them all, and more work than they can do
for my $hog (@hogs) { $hog->query('SELECT pg_sleep(0.01)'); }
my %by_socket = map { $_->{socket} => $_ } @hogs, $victim, $second;
my $select = IO::Select->new(map { $_->{socket} } @hogs, $victim, $second);
my (%asked, @took, $served);
my $end = time + 4;
for my $v ($victim, $second) { $asked{ $v->{socket} } = time; $v->query('SELECT pg_sleep(0.001)'); }
$most = 0;
while (time < $end)
{
	for my $socket ($select->can_read(0.05))
	{
		my $c = $by_socket{$socket};
		my $r = $c->result(10);
		if ($asked{$socket})
		{
			push @took, time - $asked{$socket};
			$asked{$socket} = time;
			$c->query('SELECT pg_sleep(0.001)');
		}
		else
		{
			$served++;
			$c->query('SELECT pg_sleep(0.01)');
		}
	}
	if (rand() < 0.05) { my $now = count(); $most = $now if $now > $most; }
}
my $oldest = (sort { $b <=> $a } map { time - $asked{ $_->{socket} } } $victim, $second)[0];
push @took, $oldest;
@took = sort { $a <=> $b } @took;
my $worst = $took[-1];
cmp_ok($worst, '<', 1.5, sprintf('12 clients of one worker keep %d servers busy (%d queries): two of the other worker waited at most %.3f s, median %.3f s, in %d queries',
	$size, $served, $worst, $took[ @took / 2 ], scalar @took));
cmp_ok(scalar @took, '>', 20, '... and were served again and again');
cmp_ok($most, '<=', $size, 'never more than the pool has');
$_->result(10) for @hogs, $victim, $second;

# ---- the size changes under load
$pool->sql("SELECT pgpool.alter_tenant('default', pool_size => 2)");
ok(defined wait_until(5, sub { count() <= 2 }), 'a smaller pool_size: servers are closed');
$_->query('SELECT pg_sleep(0.01)') for @hogs, $victim;
$most = 0;
for (1 .. 20) { my $now = count(); $most = $now if $now > $most; sleep(0.005); }
$_->result(10) for @hogs, $victim;
cmp_ok($most, '<=', 2, '... and never more than that');

$pool->node->stop('fast');
done_testing();
