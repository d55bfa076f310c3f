# Shows: random sequences of the extended protocol are answered through pgpool as by PostgreSQL itself, byte for byte, while
# servers change hands and keep no more than 1, 2 or 3 of the shared statements. PGPOOL_SEED plays one seed again.
use strict;
use warnings;
use Test::More;
use PgPool;

my $pool = PgPool->new('differ', workers => 1, pool_size => 2, conf => 'pgpool.max_prepared_statements = 1');
$pool->sql('CREATE DATABASE direct OWNER app');
my $started   = $pool->started_at;
my $log       = $pool->log_offset;
my $sequences = $ENV{PGPOOL_DIFFER_SEQUENCES} // 1000;
my $seconds   = $sequences > 1000 ? int($sequences / 10) : 18;
my $who       = 'host=127.0.0.1 user=app password=app-secret';
my @seed      = $ENV{PGPOOL_SEED} ? "--seed=$ENV{PGPOOL_SEED}" : ();
my $dir       = $ENV{PGPOOL_TOOLS} // 'build/tools';

for my $cache (1 .. 3)
{
	$pool->sql("ALTER SYSTEM SET pgpool.max_prepared_statements = $cache");
	$pool->sql('SELECT pg_reload_conf()');
	my $differ = $pool->start([
		"$dir/differ", "--sequences=$sequences", "--seconds=$seconds", @seed, qw(--any-names --ddl --deallocate --fetch --long-texts --odd-names),
		"--direct=$who dbname=direct port=" . $pool->server_port, "--pool=$who dbname=app port=" . $pool->port ]);
	is($differ->finish($seconds + 150), 0, "the same replies with a cache of $cache") or diag $differ->output;
	note $differ->output;
	my ($done, $excused) = $differ->output =~ / sequences=(\d+) .* excused=(\d+) /;
	cmp_ok($done // 0, '>=', 200, '... to enough sequences');
	cmp_ok($excused // 0, '<=', ($done // 0) / 50, '... of which few were allowed to differ');
}

is($pool->started_at, $started, 'the server was not restarted');
is($pool->crashes($log), 0, '... nor were its processes');
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');
is(scalar(() = $pool->log_text($log) =~ /out of step/g), 0, 'no server connection was out of step');

$pool->node->stop('fast');
done_testing();
