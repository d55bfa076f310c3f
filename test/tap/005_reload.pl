# Shows: a reload under load changes pool sizes, timeouts, logging and the TLS certificate without dropping a client;
# a bad value or a broken certificate changes nothing and says so in the log.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('reload', workers => 2, pool_size => 6, tls => 1);
my $node = $pool->node;

sub setting
{
	my ($name, $value) = @_;
	$pool->sql(defined $value ? "ALTER SYSTEM SET $name = '$value'" : "ALTER SYSTEM RESET $name");
	$pool->sql('SELECT pg_reload_conf()');
}

# the subject of the certificate that the port shows
sub subject
{
	my ($out, $err);
	my $done = eval
	{
		IPC::Run::run([ qw(openssl s_client -starttls postgres -connect), '127.0.0.1:' . $pool->port ],
			'<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(10));
		1;
	};
	return $done && $out =~ /^subject=\/?CN ?= ?(\S+)/m ? $1 : 'none';
}

my @idle = map { $pool->raw } 1 .. 10;
my $in_tx = $pool->raw;
$in_tx->ask('BEGIN');
my $tls_out = $pool->run_psql('SELECT 1', extra => [], env => { PGSSLMODE => 'require' });
is($tls_out, 1, 'the port speaks TLS');
my $ledger = $pool->start_tool('ledger', qw(--user=app --database=app --password=app-secret --clients=8 --think-us=2000), '--seconds=14');
within(15, sub { (eval { $pool->sql('SELECT count(*) FROM journal', 'app') } // 0) > 10 }, 'the ledger is at work');

# ---- pool size
setting('pgpool.default_pool_size', 2);
within(2, sub { $pool->sql("SELECT pool_size FROM pgpool.pg_stat_pools WHERE role = 'app'") eq '2' }, 'the new pool size is in force');
$in_tx->ask('COMMIT');
within(5, sub { $pool->backends <= 2 }, 'servers above it are closed');
setting('pgpool.default_pool_size', 6);
within(5, sub { $pool->backends > 2 }, 'a raised size is used');

# ---- timeouts
setting('pgpool.client_idle_timeout', '300ms');
my $short = $pool->raw;
my $r = $short->ended(4);
is($r && $r->{error} && $r->{error}{C}, '57P05', 'client_idle_timeout acts after a reload');
# it acts on all clients, the idle ones of this test, too
ok(!grep({ !$_->ended(3) } @idle), '... on clients from before the reload, too');
setting('pgpool.client_idle_timeout');
within(2, sub { $pool->sql('SHOW pgpool.client_idle_timeout') eq '0' }, 'it is off again');
@idle = ();
wait_until(5, sub { @idle = map { $pool->raw } 1 .. 10; sleep(0.6); !grep { $_->ended(0.01) } @idle });
setting('pgpool.idle_in_transaction_timeout', '300ms');
$short = $pool->raw;
$short->ask('BEGIN');
$r = $short->ended(4);
is($r && $r->{error} && $r->{error}{C}, '25P03', 'idle_in_transaction_timeout acts after a reload');
setting('pgpool.idle_in_transaction_timeout');

# ---- logging
my $log = $pool->log_offset;
setting('pgpool.log_connections', 'on');
setting('pgpool.log_disconnections', 'on');
ok(defined wait_until(5, sub { $pool->run_psql('SELECT 1'); $pool->log_text($log) =~ /client of role "app" logged in to database "app"/ }),
	'log_connections acts after a reload');
ok(defined wait_until(5, sub { $pool->log_text($log) =~ /(?<!log_)disconnect|session time/i }), 'log_disconnections, too');
setting('pgpool.log_connections');
setting('pgpool.log_disconnections');

# ---- a bad value
my $conf = $pool->data_dir . '/postgresql.conf';
my $good = PostgreSQL::Test::Utils::slurp_file($conf);
$log = $pool->log_offset;
$pool->sql('ALTER SYSTEM RESET ALL');
$node->append_conf('postgresql.conf', "pgpool.default_pool_size = 'many'\npgpool.query_wait_timeout = '7s'\n");
$pool->sql('SELECT pg_reload_conf()');
ok(defined wait_until(5, sub { $pool->log_text($log) =~ /invalid value for parameter "pgpool.default_pool_size": "many"/ }),
	'a bad value is named in the log');
is($pool->sql('SHOW pgpool.default_pool_size'), 6, '... and changes nothing');
within(5, sub { $pool->sql('SHOW pgpool.query_wait_timeout') eq '7s' }, '... a good value beside it is taken, as in PostgreSQL');
is($pool->run_psql('SELECT 1'), 1, 'the port serves');
open(my $file, '>', $conf) or die "$conf: $!";
print $file $good;
close $file;
my $refused = eval { $pool->sql("ALTER SYSTEM SET pgpool.default_pool_size = '0'"); 'accepted' } // $@;
like($refused, qr/22023.*outside the valid range/, 'ALTER SYSTEM refuses a value that is out of range');
$pool->sql('SELECT pg_reload_conf()');

# ---- the certificate
is(subject(), 'localhost', 'the first certificate');
$pool->certificate('second.example');
$pool->sql('SELECT pg_reload_conf()');
within(3, sub { subject() eq 'second.example' }, 'a new certificate is shown after a reload');
my %keep = map { $_ => PostgreSQL::Test::Utils::slurp_file($pool->data_dir . "/$_") } qw(server.crt server.key);
$log = $pool->log_offset;
open($file, '>', $pool->data_dir . '/server.crt') or die $!;
print $file "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n";
close $file;
$pool->sql('SELECT pg_reload_conf()');
ok(defined wait_until(5, sub { $pool->log_text($log) =~ /the old TLS configuration stays in force/ }), 'a corrupt one is reported');
sleep(0.3); # time for lines that must not come
is(subject(), 'second.example', '... and the old one stays');
my $lines = () = $pool->log_text($log) =~ /TLS configuration stays in force/g;
cmp_ok($lines, '<=', 2, '... with one line from each worker');
is(subject(), 'second.example', '... in all workers') for 1 .. 4;
for my $name (keys %keep)
{
	open($file, '>', $pool->data_dir . "/$name") or die $!;
	print $file $keep{$name};
	close $file;
}
$pool->sql('SELECT pg_reload_conf()') for 1 .. 10;
is(subject(), 'second.example', 'ten reloads in a row');
$pool->certificate('third.example');
$pool->sql('SELECT pg_reload_conf()');
within(3, sub { subject() eq 'third.example' }, 'the next good one is taken');

# ---- nobody was dropped
is(scalar(grep { ($_->ask('SELECT 5')->{rows}[0][0] // '') eq '5' } @idle), 10, 'idle clients are still there');
is($ledger->finish(60), 0, 'the ledger is right') or diag $ledger->output;
like($ledger->output, qr/ breaks=0 /, 'no connection under load was lost');
note $ledger->output;
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');

$node->stop('fast');
done_testing();
