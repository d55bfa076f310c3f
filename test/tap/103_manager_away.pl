# Shows: while the manager is away or hangs, a worker that starts has the settings of the last reload, and logins that
# nobody answers end at login_timeout and take no more memory than those that are there; what is renamed then is served by
# its new name afterwards; a port that another cluster has
# is taken when it is free, without a restart.
use strict;
use warnings;
use Socket qw(PF_UNIX SOCK_DGRAM pack_sockaddr_un);
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('away', workers => 1, conf => "pgpool.login_timeout = 60s\n");
sub set { my ($name, $value) = @_; $pool->sql("ALTER SYSTEM SET $name = '$value'"); $pool->sql('SELECT pg_reload_conf()') }

# ---- a worker that starts meanwhile
my $manager = $pool->manager_pid;
set('pgpool.login_timeout', '2s');
# With the old limit of 60 s none of them ends in time. One that came before the reload has the old one.
sub silent_logins_end
{
	return wait_until(40, sub { my $c = PgPoolWire->open(port => $pool->port) or return 0; return defined wait_until(8, sub { $c->closes(0.1) }) });
}
ok(defined silent_logins_end(), 'a reload is in force');
kill STOP => $manager;
my $worker = $pool->worker_pid(0);
kill TERM => $worker;
ok(defined wait_until(20, sub { my $now = $pool->worker_pid(0); $now && $now != $worker && PgPoolWire->open(port => $pool->port) }), 'a worker starts while the manager hangs');
ok(defined silent_logins_end(), '... and has the settings of the reload');

# ---- logins that nobody answers
$worker = $pool->worker_pid(0);
my ($before, $asked) = (rss_kb($worker), 0);
for my $round (1 .. 5)
{
	my @c = grep { $_ } map { PgPoolWire->open(port => $pool->port) } 1 .. 400;
	$_->send(PgPoolWire::startup_packet(196608, user => 'app', database => 'app')) for @c;
	$asked += @c;
	$c[-1]->next(10);
	$before = rss_kb($worker) if $round == 1;
}
my $grown = rss_kb($worker) - $before;
cmp_ok($grown, '<', 1500, "$asked logins, 400 at a time, that the manager does not answer: the worker grew by $grown kB after the first 400");
kill CONT => $manager;
ok(defined wait_until(30, sub { eval { $pool->raw(timeout => 5)->value('SELECT 1') } }), 'when it goes on, so do logins');
is($pool->manager_pid, $manager, '... and it is the same');

# ---- names that were given meanwhile: the server asked for by the old one is refused, its client waits for the new one
$pool->sql($_) for "CREATE ROLE mover LOGIN PASSWORD 'mover-secret'", 'CREATE DATABASE moves';
for my $rename ('DATABASE moves RENAME TO moved', 'ROLE mover RENAME TO moved')
{
	my ($from) = $rename =~ /^DATABASE (\w+)/;
	my $c = $pool->raw(database => $from // 'moved', user => 'mover', password => 'mover-secret');
	my $pid = $c->value('SELECT pg_backend_pid()');
	kill STOP => $manager;
	$pool->sql("ALTER $rename");
	$pool->sql("SELECT pg_terminate_backend($pid)");
	within(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }, "ALTER $rename: the server is gone");
	my $failures = $pool->log_offset;
	$c->query('SELECT current_database(), session_user');
	ok(defined wait_until(10, sub { $pool->log_text($failures) =~ /a server could not be opened/ }), '... a new one is refused');
	kill CONT => $manager;
	my $r = $c->result(10);
	is($r->{error} ? $r->{error}{M} : join(' ', @{ $r->{rows}[0] }), $from ? 'moved mover' : 'moved moved', '... and then asked for by the new name');
	$c->close;
}

# ---- the port's lock
my $node = $pool->node;
$pool->forget_sql;
$node->stop;
socket(my $lock, PF_UNIX, SOCK_DGRAM, 0) or BAIL_OUT("no socket: $!");
my $name = pack_sockaddr_un("\0pgpool." . $pool->port);
within(15, sub { bind($lock, $name) }, 'a server that has ended leaves the lock');
my $log = $pool->log_offset;
$node->start;
ok(!PgPoolWire->open(port => $pool->port), 'a port that another cluster of this user has is not listened on');
like($pool->log_text($log), qr/another cluster on this machine uses port/, '... the log says so');
close $lock;
ok(defined wait_until(30, sub { PgPoolWire->open(port => $pool->port) }), '... until that is gone, without a restart');
$pool->ready(20);
like($pool->log_text($log), qr/listening on port/, '... and the log says that, too');
is($pool->sql('SELECT count(*) FROM pgpool.pg_stat_workers WHERE problem IS NOT NULL'), 0, '... and no problem is left');

done_testing();
