# Shows: tcp_keepalives_* and tcp_user_timeout that a client sets act on its own connection, on both ports, and SHOW tells
# them, as directly by TCP; another client on the same server has its own.
use strict;
use warnings;
use Test::More;
use POSIX ();
use Socket;
use PgPool;

plan skip_all => 'there is no /proc/net/tcp' unless -r '/proc/net/tcp';
my $pool = PgPool->new('main', workers => 1, pool_size => 6, session => 1);

# When the kernel asks the client whether it is there, seconds from now; undef = no such timer runs. Linux has it for
# the end of the connection that the worker has.
sub keepalive
{
	my ($client) = @_;
	my ($here, $there) = ($client->{options}{port}, $client->{socket}->sockport);
	open(my $file, '<', '/proc/net/tcp') or die $!;
	while (my $line = <$file>)
	{
		my ($local, $remote, $timer, $when) = $line =~ /:\s+[0-9A-F]{8}:(\S{4}) [0-9A-F]{8}:(\S{4}) \S+ \S+ (\S\S):(\S{8})/ or next;
		return hex($when) / 100 if hex $local == $here && hex $remote == $there && $timer eq '02';
	}
	return undef;
}
# What the worker's end of the connection has, by a copy of its descriptor; () = the kernel gives none.
sub options_of
{
	my ($client) = @_;
	my ($here, $there, $inode) = ($client->{options}{port}, $client->{socket}->sockport);
	open(my $file, '<', '/proc/net/tcp') or die $!;
	while (my $line = <$file>)
	{
		my ($local, $remote, $rest) = $line =~ /:\s+[0-9A-F]{8}:(\S{4}) [0-9A-F]{8}:(\S{4}) (.*)/ or next;
		$inode = (split ' ', $rest)[6] if hex $local == $here && hex $remote == $there;
	}
	my ($pidfd_open, $pidfd_getfd) = (434, 438); # the same numbers on all architectures
	for my $pid ($pool->workers)
	{
		my ($fd) = map { m{(\d+)$} } grep { (readlink($_) // '') eq "socket:[$inode]" } glob "/proc/$pid/fd/*" or next;
		my $process = syscall($pidfd_open, $pid + 0, 0);
		return () if $process < 0;
		my $copy = syscall($pidfd_getfd, $process, $fd + 0, 0);
		POSIX::close($process);
		return () if $copy < 0;
		open(my $socket, '+<&=', $copy) or die $!;
		# TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT
		return map { unpack 'i', getsockopt($socket, Socket::IPPROTO_TCP(), $_) } 4, 5, 6, 18;
	}
	return ();
}
my @names = qw(tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count tcp_user_timeout);
my $shown = sub { my ($c) = @_; return join ' ', map { $c->value("SHOW $_") } @names };
sub soon { my ($c, $from, $to, $what) = @_; my $s; ok(defined wait_until(10, sub { $s = keepalive($c); defined $s && $s > $from && $s <= $to }), $what) or diag('seconds: ' . ($s // 'none')) }

for my $port ($pool->port, $pool->session_port)
{
	my $where = $port == $pool->port ? 'transaction mode' : 'session port';
	my $direct = $pool->direct(host => '127.0.0.1');
	my ($c, $other) = map { $pool->raw(port => $port) } 1, 2;
	soon($c, 0, 10, "$where: pgpool's own setting");
	$_->ask('SET tcp_keepalives_idle = 1000') for $c, $direct;
	for my $client ($c, $direct) { $client->ask("SET $_") for 'tcp_keepalives_interval = 20', 'tcp_keepalives_count = 3', "tcp_user_timeout = '5s'" }
	is($shown->($c), $shown->($direct), 'SHOW tells what was set, as directly');
	SKIP:
	{
		my @had = options_of($other) or skip "the kernel gives no copy of the worker's socket: $!", 3;
		my @has;
		ok(defined wait_until(10, sub { @has = options_of($c); "@has" eq '1000 20 3 5000' }), '... all of them are those of its socket') or diag("@has");
		isnt("@had", "@has", '... and not those of another');
		$c->ask('RESET tcp_user_timeout');
		ok(defined wait_until(10, sub { (options_of($c))[3] == $had[3] }), '... each until it is reset');
		$c->ask("SET tcp_user_timeout = '5s'");
	}
	is($shown->($other), '0 0 0 0', '... and nothing to another client');
	soon($c, 100, 1000, '... and it acts');
	soon($other, 0, 10, '... on this connection alone');
	is($shown->($c), '1000 20 3 5000', '... and is still there');
	$c->ask($_) for 'BEGIN', 'SET tcp_keepalives_idle = 2000';
	soon($c, 1000, 2000, 'within a transaction');
	$c->ask('ROLLBACK');
	soon($c, 100, 1000, '... until it is rolled back');
	$c->ask('RESET ALL');
	is($shown->($c), '0 0 0 0', 'RESET ALL');
	soon($c, 0, 10, '... acts, too');
	my $started = $pool->raw(port => $port, startup => { options => '-c tcp_keepalives_idle=3000' });
	soon($started, 2000, 3000, 'what the client started with');
	is($started->value('SHOW tcp_keepalives_idle'), 3000, '... is shown');
	my $again = $pool->raw(port => $port, startup => { options => '-c tcp_keepalives_idle=3000' });
	soon($again, 2000, 3000, '... also when the pool knows such clients');
	$_->close for $c, $other, $started, $again, $direct;
}
$pool->forget_sql;
$pool->node->stop;
done_testing();
