# Shows: a manager that held the claim of the port and died, and another cluster that took the port meanwhile: the new
# manager sees it, says so once, and the workers give the port up, so that no client lands in the wrong cluster. When the
# other one leaves, they listen again.
use strict;
use warnings;
use Socket qw(PF_UNIX SOCK_DGRAM pack_sockaddr_un);
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('again', workers => 2, start => 0);
my $name = pack_sockaddr_un("\0pgpool." . $pool->port);
sub other_cluster { socket(my $lock, PF_UNIX, SOCK_DGRAM, 0) or die "no socket: $!"; return $lock }
sub listening { return $pool->sql('SELECT count(*) FROM pgpool.pg_stat_workers WHERE listens_tcp') }

# the manager has the claim, not the postmaster
my $lock = other_cluster();
ok(bind($lock, $name), 'another cluster has the port');
$pool->node->start;
$pool->prepare(1);
is(listening(), 0, '... so nobody listens here');
close $lock;
within(20, sub { listening() == 2 }, 'it leaves: the workers listen');
$pool->ready;

# it dies, and the port is taken before there is a new one
my $at = $pool->log_offset;
my $manager = $pool->manager_pid;
$lock = other_cluster();
kill TERM => $manager;
within(10, sub { bind($lock, $name) }, 'the manager ends, and another cluster takes the port');
within(30, sub { my $now = $pool->manager_pid; $now && $now != $manager }, 'a new manager');
within(15, sub { $pool->log_text($at) =~ /WARNING:.*another cluster on this machine uses port/ }, '... which says that the port is taken');
within(15, sub { listening() == 0 }, '... and the workers do not listen any more');
ok(!PgPoolWire->open(port => $pool->port), '... nobody does');
is($pool->sql("SELECT count(*) FROM pgpool.pg_stat_workers WHERE problem LIKE '%another cluster%'"), 2, '... the views say why');
like($pool->sql("SELECT status || ' ' || message FROM pgpool.check() WHERE item = 'port'"), qr/^error another cluster/, '... and check()');
$pool->sql('SELECT pg_sleep(6)'); # it looks again each 5 s
is(scalar(() = $pool->log_text($at) =~ /another cluster on this machine uses port/g), 1, '... once');
close $lock;
within(20, sub { listening() == 2 }, 'the other one leaves: they listen again');
$pool->ready;
is($pool->sql('SELECT count(*) FROM pgpool.pg_stat_workers WHERE problem IS NOT NULL'), 0, '... without a problem');
done_testing();
