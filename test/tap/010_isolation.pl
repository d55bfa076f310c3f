# Shows: many clients over a pool of 3 servers, that send odd pieces, leave in the middle and cancel, get their own
# replies, all of them, in order, and nobody else's; money is conserved over the extended protocol, too. Half of the
# connections use TLS; PGPOOL_TLS=off: none does.
use strict;
use warnings;
use Test::More;
use PgPool;

my $tls  = ($ENV{PGPOOL_TLS} // 'on') ne 'off';
my $pool = PgPool->new('isolation', workers => 2, pool_size => 3, tls => $tls);
$pool->sql("ALTER ROLE app2 PASSWORD 'app-secret'");
$pool->sql('GRANT ALL ON SCHEMA public TO app2', 'app');
my $started = $pool->started_at;
my $log     = $pool->log_offset;
my $seconds = $ENV{PGPOOL_ISOCHECK_SECONDS} // 12;
my @seed    = $ENV{PGPOOL_SEED} ? "--seed=$ENV{PGPOOL_SEED}" : ();
my @account = (qw(--user=app --database=app --password=app-secret), @seed);

my $check = $pool->start_tool('isocheck', @account, qw(--also-user=app2 --clients=40 --replies=100000000 --min-replies=2000),
	"--seconds=$seconds", $tls ? '--tls-percent=50' : ());
my $most = 0;
while ($check->running)
{
	my $now = $pool->sql("SELECT max(n) FROM (SELECT count(*) AS n FROM pg_stat_activity WHERE usename LIKE 'app%' GROUP BY usename) x") || 0;
	$most = $now if $now > $most;
	select(undef, undef, undef, 0.05);
}
is($check->finish($seconds + 60), 0, 'isocheck: no foreign byte, no order error') or diag $check->output;
note $check->output;
cmp_ok($most, '<=', 3, 'no pool had more than 3 servers');

my $ledger = $pool->start_tool('ledger', @account, qw(--clients=12 --seconds=4 --extended));
is($ledger->finish(60), 0, 'ledger over the extended protocol') or diag $ledger->output;
note $ledger->output;
like($ledger->output, qr/ breaks=0 /, '... without a broken connection');

is($pool->started_at, $started, 'the server was not restarted');
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');
is(scalar(() = $pool->log_text($log) =~ /out of step/g), 0, 'no server connection was out of step');
is($pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'app%' AND state <> 'idle'"), 0, 'all servers are at rest');

$pool->node->stop('fast');
done_testing();
