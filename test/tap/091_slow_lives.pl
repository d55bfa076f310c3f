# Shows: on slow, short and reluctant sockets (test/tools/preload) the isolation of clients holds, by TLS that was asked for and by
# direct TLS as well as in clear, and a driver lives its ordinary life.
use strict;
use warnings;
use File::Basename qw(dirname);
use PgPool;
use Test::More;

my $seconds = $ENV{PGPOOL_ISOCHECK_SECONDS} // 3;
my @seed    = $ENV{PGPOOL_SEED} ? "--seed=$ENV{PGPOOL_SEED}" : ();
my $pool    = PgPool->new('lives', workers => 2, pool_size => 3, sockets => 'short=700,again=2,delay=100');
$pool->sql("ALTER ROLE app2 PASSWORD 'app-secret'");
$pool->sql('GRANT ALL ON SCHEMA public TO app2', 'app');
my @account = (qw(--user=app --database=app --password=app-secret), @seed);

# Each piece that a worker forwards becomes a TLS record of its own, so single bytes would be a matter of hours: 090 has them.
for my $case ([ 'short=700,again=2,delay=100', qw(request direct off) ], [ 'short=90,again=3', qw(request off) ])
{
	my ($faults, @kinds) = @$case;
	$pool->sockets($faults) if $faults =~ /short=90/;
	my $log = $pool->log_offset;
	for my $tls (@kinds)
	{
		my $check = $pool->start_tool('isocheck', @account, "--tls=$tls",
			qw(--also-user=app2 --clients=8 --replies=100000000 --min-replies=20), "--seconds=$seconds");
		is($check->finish($seconds + 120), 0, "$faults, TLS $tls: no foreign byte, no order error") or diag $check->output;
	}
	my $ledger = $pool->start_tool('ledger', @account, qw(--tls=request --clients=6 --extended), "--seconds=$seconds");
	is($ledger->finish($seconds + 120), 0, "$faults: money is conserved") or diag $ledger->output;
	like($ledger->output, qr/ breaks=0 /, '... without a broken connection');
	is(scalar(() = $pool->log_text($log) =~ /out of step/g), 0, '... and no server connection was out of step');
	is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, '... nor was a worker restarted');
}

$pool->sockets('short=1000,again=3,delay=50');
SKIP:
{
	my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
	skip 'psycopg2 is not installed', 2 if system("$python -c 'import psycopg2' 2>/dev/null") != 0;
	my $job = $pool->start([ $python, dirname(__FILE__) . '/../drivers/psycopg2_life.py' ],
		PYTHONDONTWRITEBYTECODE => 1, PGHOST => '127.0.0.1', PGPORT => $pool->port, PGUSER => 'app', PGPASSWORD => 'app-secret',
		PGDATABASE => 'app', PGSSLMODE => 'require');
	is($job->finish(120), 0, 'psycopg2 lives by TLS') or diag $job->output;
	unlike($job->output, qr/^not ok/m, '... as on any socket');
}
$pool->node->stop('fast');
done_testing();
