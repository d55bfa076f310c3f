# Shows: tcp_keepalives_* and tcp_user_timeout that a client sets act on its own connection, on both ports, and SHOW tells
# them, as directly by TCP; another client on the same server has its own.
use strict;
use warnings;
use Test::More;
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
