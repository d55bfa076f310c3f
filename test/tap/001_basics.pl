# Shows: the port serves psql over TCP and the Unix socket; transaction mode shares pool_size backends among more
# clients; the session port keeps one backend for the session and its BackendKeyData names that backend.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;

my $pool = PgPool->new('basics', workers => 2, pool_size => 3, session => 1);

# psql, both transports
is($pool->run_psql('SELECT 6 * 7'), '42', 'psql over TCP');
is($pool->run_psql('SELECT 6 * 7', host => $pool->socket_dir), '42', 'psql over the Unix socket');
is($pool->run_psql("SELECT current_user, current_database()"), 'app|app', 'as role and database of the client');
my ($status, $out, $err) = $pool->psql('SELECT 1', password => 'wrong');
is($status, 2, 'a wrong password is refused');
like($err, qr/password authentication failed for user "app"/, '... in PostgreSQL\'s words');
is($pool->run_psql("BEGIN; CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 1000); COMMIT; SELECT sum(a) FROM t"),
	'500500', 'a transaction of several statements');
($status, $out, $err) = $pool->psql("SELECT 1/0");
like($err, qr/division by zero/, 'an error of the server reaches the client');
is($pool->run_psql("\\copy (SELECT generate_series(1, 3)) TO STDOUT"), "1\n2\n3", 'COPY OUT');
is($pool->run_psql("CREATE TABLE c (a int);\nCOPY c FROM STDIN;\n1\n2\n\\.\nSELECT sum(a) FROM c"), '3', 'COPY IN');

# more clients than servers
my @clients = map { $pool->raw } 1 .. 20;
my %pids = map { $_->value('SELECT pg_backend_pid()') => 1 } @clients;
cmp_ok(scalar keys %pids, '<=', 3, '20 clients in transaction mode were served by at most 3 backends');
is($pool->sql('SELECT sum(clients) FROM pgpool.pg_stat_pools'), 20, 'pg_stat_pools counts 20 clients');
my $in_tx = shift @clients;
$in_tx->ask('BEGIN');
my $mine = $in_tx->value('SELECT pg_backend_pid()');
my $shared = grep { $_->value('SELECT pg_backend_pid()') == $mine } @clients;
is($shared, 0, 'nobody else is served by a backend that is in a transaction');
is($in_tx->value('SELECT pg_backend_pid()'), $mine, 'a transaction stays on its backend');
$in_tx->ask('COMMIT');
$_->close for @clients, $in_tx;

# the same under load
my $init = $pool->pgbench(qw(-i -q -s 1));
is($init->finish(60), 0, 'pgbench -i through the port') or diag $init->output;
my $bench = $pool->pgbench(qw(-n -c 20 -j 2 -T 4));
my ($most, $samples) = (0, 0);
while ($bench->running)
{
	my $now = $pool->backends;
	$most = $now if $now > $most;
	$samples++;
	select(undef, undef, undef, 0.02);
}
is($bench->finish(30), 0, 'pgbench with 20 clients') or diag $bench->output;
cmp_ok($most, '<=', 3, "never more than 3 backends in $samples samples");
cmp_ok($most, '>=', 2, '... and the pool was used');
unlike($bench->output, qr/aborted|number of failed transactions: [1-9]/, 'no client of pgbench failed');

# the session port
my @sessions = map { $pool->raw(port => $pool->session_port) } 1 .. 2;
for my $s (@sessions)
{
	my $pid = $s->value('SELECT pg_backend_pid()');
	is($s->{pid}, $pid, 'session port: the process id of BackendKeyData is the backend\'s');
	$s->ask("SET application_name = 'mine$pid'");
	$s->ask("CREATE TEMP TABLE kept AS SELECT $pid AS pid");
}
for my $s (@sessions, reverse @sessions)
{
	is($s->value('SELECT pid FROM kept WHERE pid = pg_backend_pid()'), $s->{pid}, '... and the backend is kept');
}
$_->close for @sessions;
within(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mine%' OR state LIKE 'idle in%'") == 0 },
	'a session that ended leaves nothing behind');
my $again = $pool->raw(port => $pool->session_port);
is($again->value("SELECT to_regclass('kept') IS NULL"), 't', 'the next session sees no temporary table of the one before');
$again->close;

$pool->node->stop('fast');
done_testing();
