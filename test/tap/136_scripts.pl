# Shows: each script of messages in test/tools/scripts, and a text of each size around those of buffers, has the same replies
# through pgpool, on both ports, as at PostgreSQL itself.
use strict;
use warnings;
use File::Basename qw(basename dirname);
use Test::More;
use PgPool;

my $pool = PgPool->new('scripts', workers => 1, pool_size => 2, tls => 0, session => 1);
my $replay = tool_file('replay');
my @as = qw(--user=app --database=app --password=app-secret);
my $direct = '--a=127.0.0.1:' . $pool->server_port;

my @scripts = sort glob dirname(__FILE__) . '/../tools/scripts/*.msg';
cmp_ok(scalar @scripts, '>=', 50, 'there are scripts');
for my $port ($pool->port, $pool->session_port)
{
	my $where = $port == $pool->port ? 'in the pool' : 'on the session port';
	for my $script (@scripts)
	{
		my $job = $pool->start([ $replay, @as, $direct, "--b=127.0.0.1:$port", "--script=$script" ]);
		my $name = basename($script);
		my $status = $job->finish(60);
		if ($name eq 'unknown_type.msg') # pgpool refuses it itself: there is no file, line and routine of PostgreSQL
		{
			my ($direct, $here) = map { [ map { s/\\x00[FLR][^\\]*//gr } $job->output =~ /^$_ +(.*)/mg ] } 'A', 'B';
			is("@$here", "@$direct", "$name $where");
			next;
		}
		is($status, 0, "$name $where") or diag $job->output;
	}
	my $job = $pool->start([ $replay, @as, "--a=127.0.0.1:$port", '--sweep' ]);
	is($job->finish(60), 0, "sizes of messages $where") or diag $job->output;
}
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');
$pool->node->stop('fast');
done_testing();
