# Shows: whatever the workers' sockets do (slow writes, single bytes, EAGAIN at every second call, all of it), no login
# by any method hangs, and each is judged as what it is, TLS or clear text: by pg_hba.conf's hostssl lines, by a tenant
# that requires TLS, and by the view. PGPOOL_LOGINS is how many; test/tools/preload makes the faults.
use strict;
use warnings;
use PgPool;
use PgPoolTls;
use Test::More;

my $logins = $ENV{PGPOOL_LOGINS} // 600;
my $pool   = PgPool->new('slow', workers => 2, pool_size => 4, conf => "ssl_ca_file = 'root.crt'\nlog_connections = off\n", start => 0);
my $ca     = PgPoolTls->new;
$ca->server($pool->data_dir, 'localhost');
my ($certificate, $key) = $ca->client('by_cert');

# Who comes by TLS is admitted, and who is taken for clear text by mistake is not; by_clear the other way round.
$pool->write_hba(<<'HBA');
local    all by_password,by_scram,by_plus,by_cert,by_trust,by_clear scram-sha-256
local    all by_md5      md5
hostssl  all by_scram,by_plus 127.0.0.1/32 scram-sha-256
hostssl  all by_md5      127.0.0.1/32 md5
hostssl  all by_password 127.0.0.1/32 password
hostssl  all by_cert     127.0.0.1/32 cert
hostssl  all by_trust    127.0.0.1/32 trust
hostnossl all by_clear   127.0.0.1/32 scram-sha-256
host     all by_scram,by_plus,by_md5,by_password,by_cert,by_trust,by_clear 127.0.0.1/32 reject
HBA
$pool->start_node;
$pool->prepare(1);
$pool->ready;
for my $role (qw(by_scram by_plus by_md5 by_password by_cert by_trust by_clear))
{
	my $how = $role eq 'by_md5' ? 'md5' : 'scram-sha-256';
	$pool->sql("SET password_encryption = '$how'");
	$pool->sql("CREATE ROLE $role LOGIN PASSWORD 'secret' IN ROLE pg_monitor");
}
$pool->sql("SELECT pgpool.create_tenant('secure', require_tls => true)");
for my $tenant (qw(default secure))
{
	$pool->sql("SELECT pgpool.set_user('$tenant', '$_', server_password => 'secret')") for qw(by_cert by_trust);
}

my $to = 'host=127.0.0.1 port=' . $pool->port . ' dbname=postgres password=secret sslrootcert=none sslcert=none sslkey=none';
my @cases = map { my $mode = $_; (
	"SCRAM, $mode:user=by_scram channel_binding=disable sslmode=$mode",
	"SCRAM with channel binding, $mode:user=by_plus channel_binding=require sslmode=$mode",
	"md5, $mode:user=by_md5 sslmode=$mode",
	"password, $mode:user=by_password sslmode=$mode",
	"certificate, $mode:user=by_cert sslmode=$mode sslcert=$certificate sslkey=$key",
	"trust, $mode:user=by_trust sslmode=$mode",
	"SCRAM in a tenant that requires TLS, $mode:user=by_scram.secure sslmode=$mode",
	"trust in a tenant that requires TLS, $mode:user=by_trust.secure sslmode=$mode" ) } qw(prefer require);
push @cases, 'clear text:user=by_clear sslmode=disable', 'clear text allowed:user=by_clear sslmode=allow';
my @arguments = map { my ($name, $how) = split /:/, $_, 2; "--case=$name:$to $how" } @cases;
my $clear = 2;

my @faults = (
	'delay=3000'                  => 'writes that take 3 ms',
	'short=1'                     => 'one byte at each call',
	'again=2'                     => 'EAGAIN at each second call',
	'short=3,again=2,delay=200'   => 'all of it',
);
my $kinds = @faults / 2;
while (my ($faults, $name) = splice @faults, 0, 2)
{
	$pool->sockets($faults);
	my $log  = $pool->log_offset;
	my $each = int(($logins + $kinds - 1) / $kinds);
	my $job  = $pool->start([ ($ENV{PGPOOL_TOOLS} // 'build/tools') . '/logins', @arguments,
		"--logins=$each", '--threads=6', '--seconds=60' ]);
	is($job->finish(60 + $each), 0, "$name: no login hangs or is taken for what it is not") or diag $job->output;
	my ($total, $tls) = $job->output =~ /^total=(\d+) tls=(\d+)/m;
	is($total, $each, "... of $each");
	my $expected = grep { $_ % @cases < @cases - $clear } 0 .. $each - 1;
	is($tls, $expected, '... and so many came by TLS') or diag $job->output;
	is($pool->sql('SELECT sum(login_failures) FROM pgpool.pg_stat_workers'), 0, '... none failed') or diag $pool->log_text($log);
	is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, '... and no worker was restarted');
	unlike($pool->log_text($log), qr/could not accept SSL connection|out of step/, '... nor is there anything in the log')
}
$pool->node->stop('fast');
done_testing();
