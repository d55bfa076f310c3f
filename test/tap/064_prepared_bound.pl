# Shows: a server has no more prepared statements than pgpool.max_prepared_statements, however many different ones its
# clients use; also after pipelines, and when the limit was lowered.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(sleep);
use PgPool;

my ($servers, $limit, $statements) = (4, 10, 50);
# one worker, because a server that goes to another one is a new one
my $pool = PgPool->new('bound', workers => 1, pool_size => $servers, conf => "pgpool.max_prepared_statements = $limit\n");

sub script
{
	my ($name, $text) = @_;
	my $file = $pool->node->basedir . "/$name.sql";
	open(my $f, '>', $file) or die "$file: $!";
	print $f $text;
	close $f;
	return $file;
}
my $selects = join('', map { "SELECT $_ WHERE :client_id >= 0;\n" } 1 .. $statements);
my $by_one  = script('by_one', $selects);
my $in_pipe = script('in_pipe', "\\startpipeline\n$selects\\endpipeline\n");

# What pg_prepared_statements shows is of the session that asks: a simple query, in whatever server comes.
my @watchers = map { $pool->raw } 1 .. 2 * $servers;
my $count    = 'SELECT pg_backend_pid(), count(*) FROM pg_prepared_statements';

# Runs pgbench and watches; gives the most statements seen in any server, and the number of samples.
sub watch
{
	my @jobs = map { $pool->pgbench(qw(-n -M prepared -c 8 -T 3), '-f', $_) } @_;
	my ($most, $samples) = (0, 0);
	while (grep { $_->running } @jobs)
	{
		$_->query($count) for @watchers;
		for my $r (map { $_->result } @watchers)
		{
			die $r->{error}{M} if $r->{error};
			$samples++;
			$most = $r->{rows}[0][1] if $r->{rows}[0][1] > $most;
		}
		sleep(0.01);
	}
	is(join(' ', map { $_->finish(30) } @jobs), join(' ', map { 0 } @jobs), 'pgbench -M prepared') or diag map { $_->output } @jobs;
	return ($most, $samples);
}

# pid => statements of each server: as many transactions as there are servers, at the same time
sub in_each
{
	my @in = @watchers[ 0 .. $servers - 1 ];
	$_->ask('BEGIN') for @in;
	my %found = map { @{ $_->ask($count)->{rows}[0] } } @in;
	$_->ask('COMMIT') for @in;
	return %found;
}
sub at_the_end
{
	my ($name) = @_;
	my %found = in_each();
	is(scalar(grep { $_ > 0 } values %found), $servers, "$name: at the end each of the $servers servers has some");
	is(scalar(grep { $_ > $limit } values %found), 0, '... none has more than the limit: ' . join(' ', sort values %found));
}
sub reload
{
	my ($limit) = @_;
	$pool->node->append_conf('postgresql.conf', "pgpool.max_prepared_statements = $limit");
	$pool->node->reload;
	within(10, sub { $pool->sql('SHOW pgpool.max_prepared_statements') == $limit }, "the limit is $limit");
}
my ($most, $samples) = watch($by_one);
cmp_ok($most, '<=', $limit, "$statements statements one by one: never more than $limit in a server ($most, $samples samples)");
cmp_ok($pool->sql("SELECT sum(statement_evictions) FROM pgpool.pg_stat_pools"), '>', $statements, '... they made room for each other');
at_the_end('one by one');

# ---- that more would be seen, and that a limit is kept that was lowered
reload(1000);
($most) = watch($by_one);
cmp_ok($most, '>=', $statements, "with a limit of 1000 there are more ($most)");
reload($limit);
watch($by_one);
at_the_end('with the limit lowered');

# ---- many new statements in one batch
($most, $samples) = watch($in_pipe);
cmp_ok($most, '<=', $limit, "$statements statements in a pipeline: never more than $limit in a server ($most, $samples samples)");
watch($by_one);
at_the_end('one by one, after pipelines');

$_->close for @watchers;
is($pool->crashes(0), 0, 'nothing crashed');
$pool->node->stop;
done_testing();
