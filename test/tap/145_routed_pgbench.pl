# Shows: what pgbench reads on a primary with two streaming standbys of weights 1 and 2 they serve, by these weights and in
# each protocol; TPC-B beside it loses nothing and writes on the primary. The views say where reads went, and why others did
# not go to a standby. Tells what CPU time a read costs with routing and without.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use PgPool;

my ($clients, $seconds) = (16, 4);
my $pool = PgPool->new('zero', streaming => 1, workers => 2, pool_size => 16, tls => 0, conf => "autovacuum = off\nmax_connections = 100\n");
my %server = (zero => $pool);
$pool->node->backup('copy');
for my $name (qw(one two))
{
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
	my $port = free_port();
	$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\n");
	$node->start;
	$server{$name} = PgPool->adopt($node, port => $port);
}

sub run
{
	my (@arguments) = @_;
	my $job = $pool->pgbench(@arguments);
	my $status = $job->finish(50);
	return ($status, $job->output);
}

# of pg_stat_pools and pg_stat_replicas since the last reset_stats()
sub pool_reads { return split /\|/, $pool->sql("SELECT sum(reads_on_replicas), sum(reads_on_primary), sum(queries), sum(errors) FROM pgpool.pg_stat_pools") }
sub node_reads { return $pool->sql("SELECT reads FROM pgpool.pg_stat_replicas WHERE name = '$_[0]'") }
sub why_primary { return $pool->sql("SELECT string_agg(format('%s %s', reason, count), ', ' ORDER BY count DESC) FROM pgpool.pg_stat_routing WHERE tenant = 'default'") // '' }

# seconds of all processes of the three servers, by what they are
sub cpu
{
	my %used = map { $_ => 0 } qw(workers manager backends);
	my %command = map { children($_->postmaster_pid) } values %server;
	for my $pid (keys %command)
	{
		open(my $stat, '<', "/proc/$pid/stat") or next;
		my $line = <$stat> // next;
		my @f = split / /, $line =~ s/^.*\) //r;
		my $kind = $command{$pid} =~ /pgpool (worker|manager)/ ? { worker => 'workers', manager => 'manager' }->{$1} : 'backends';
		$used{$kind} += ($f[11] + $f[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
	}
	return %used;
}

is((run('-i', '-q', '-s', 2))[0], 0, 'pgbench -i through the pool');
$pool->sql("SELECT pgpool.add_replica('one', '127.0.0.1', " . $server{one}->node->port . ", weight => 1)");
$pool->sql("SELECT pgpool.add_replica('two', '127.0.0.1', " . $server{two}->node->port . ", weight => 2)");

# ---- without routing nothing is counted
my @bench = ('-n', '-S', '-c', $clients, '-j', 2, '-T', $seconds);
my %cost; # in words
sub cost # CPU microseconds of a read
{
	my ($protocol) = @_;
	$pool->sql('SELECT pgpool.reset_stats()');
	my %before = cpu();
	my ($status, $output) = run(@bench, '-M', $protocol);
	my %after = cpu();
	my ($n) = $output =~ /transactions actually processed: (\d+)/;
	my %used = map { $_ => ($after{$_} - $before{$_}) / ($n || 1) * 1e6 } keys %after;
	$cost{$protocol} = join(', ', map { sprintf '%s %.1f', $_, $used{$_} } sort keys %used);
	is($status, 0, "read-only pgbench, $protocol: no error") or diag($output);
	return ($used{workers} + $used{manager} + $used{backends}, $n);
}
my ($direct, $n) = cost('prepared');
my $on_primary = $cost{prepared};
is(join(' ', (pool_reads())[ 0, 1 ]), '0 0', "without routing none of $n reads is counted as one");
is(why_primary(), '', '... nor why it is on the primary');

# ---- the split
$pool->sql("SELECT pgpool.alter_tenant('default', routing => 'reads')");
my $warm = $pool->raw;
within(20, sub { $warm->value('SELECT count(*) FROM pgbench_branches'); (pool_reads())[0] > 0 }, 'with routing a standby is read from');
is((run(@bench))[0], 0, 'the connections to the standbys are made, by weight'); # one after the other: that takes a while
my $routed;
for my $protocol (qw(simple extended prepared))
{
	my ($us, $reads) = cost($protocol);
	my ($on_replicas, $on_primary, $queries, $errors) = pool_reads();
	my @of = map { node_reads($_) } qw(one two);
	my $all = $of[0] + $of[1];
	$routed = $us;
	cmp_ok($on_replicas, '>=', 0.95 * $reads, "$protocol: $on_replicas of $reads reads were on replicas") or diag(why_primary());
	my $share = $all ? 100 * $of[1] / $all : 0;
	cmp_ok(abs($share - 200 / 3), '<=', 5, sprintf('... %.1f %% of these on the one that shall have 66.7 %%', $share));
	is($errors, 0, '... and no error was told');
	is($all, $on_replicas, '... the view of nodes counts the same') or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'));
}
diag(sprintf("CPU microseconds for a read, prepared: %.0f without routing (%s), %.0f with (%s): %.2f", $direct, $on_primary, $routed, $cost{prepared}, $routed / $direct));
cmp_ok($routed / $direct, '<=', 2.5, 'a read on a replica costs no multiple of what it costs on the primary');

# ---- where servers and clients are
$warm->value('SELECT count(*) FROM pgbench_branches') for 1 .. 3;
is($pool->sql("SELECT count(DISTINCT node) FROM pgpool.pg_stat_servers WHERE node IN ('one', 'two') AND route = 'tcp'"), 2, 'pg_stat_servers says on which node a server is');
is($pool->sql("SELECT bool_and(servers > 0 AND servers_active = 0 AND servers_idle = servers AND clients_waiting = 0 AND proved <= replayed) FROM pgpool.pg_stat_replicas"),
	't', '... and pg_stat_replicas how many there are') or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'));
$warm->query('SELECT pg_sleep(1) FROM pgbench_branches LIMIT 1');
within(5, sub { $pool->sql("SELECT count(*) FROM pgpool.pg_stat_clients c JOIN pgpool.pg_stat_servers s ON s.client_id = c.id WHERE c.node IS NOT DISTINCT FROM s.node AND c.state = 'active'") == 1 },
	'pg_stat_clients says which node serves a client');
$warm->result;

# ---- TPC-B, with reads beside it
$pool->sql('SELECT pgpool.reset_stats()');
my $reader = $pool->pgbench('-n', '-S', '-c', 4, '-T', 4);
my ($status, $output) = run('-n', '-c', 8, '-j', 2, '-t', 60, '-M', 'prepared');
is($status, 0, 'TPC-B: no error') or diag($output);
is($reader->finish(50), 0, '... nor for reads beside it') or diag($reader->output);
like($output, qr/number of failed transactions: 0 /, '... no transaction failed');
is($pool->sql(<<'SQL', 'app'), "480|t|t|t", '... each is there once, and the money is conserved');
SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts), sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches),
	sum(delta) = (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_history
SQL
is((pool_reads())[3], 0, '... no server told an error: no standby was asked to write');
cmp_ok($pool->sql("SELECT sum(count) FROM pgpool.pg_stat_routing WHERE NOT is_read"), '>=', 480 * 5, '... all of its statements were on the primary, for: ' . why_primary());

# ---- why
$pool->sql('SELECT pgpool.reset_stats()');
is(why_primary(), '', 'reset_stats() resets the reasons');
$warm->value($_) for 'SELECT abalance FROM pgbench_accounts WHERE aid = 1 FOR UPDATE', 'SELECT pg_backend_pid()', 'SELECT pg_backend_pid()', 'BEGIN', 'SELECT 1', 'COMMIT';
is($pool->sql("SELECT string_agg(format('%s %s', reason, count), ', ' ORDER BY reason) FROM pgpool.pg_stat_routing WHERE reason IN ('locking_clause', 'function_of_session')"),
	'function_of_session 2, locking_clause 1', 'pg_stat_routing counts by reason');
is($pool->sql("SELECT words FROM pgpool.pg_stat_routing WHERE reason = 'locking_clause'"), 'it locks rows (FOR UPDATE and the like)', '... in words, too');
$pool->sql("SELECT pgpool.alter_replica('$_', weight => 0)") for qw(one two);
within(5, sub { $warm->value('SELECT count(*) FROM pgbench_branches'); (pool_reads())[1] > 0 }, 'a read that no replica is there for is counted');
is($pool->sql("SELECT is_read FROM pgpool.pg_stat_routing WHERE reason = 'no_replica'"), 't', '... with its reason');
is($pool->sql('SELECT bool_and(t.reads_on_primary = p.on_primary) FROM pgpool.pg_stat_tenants t JOIN (SELECT tenant, sum(reads_on_primary) AS on_primary FROM pgpool.pg_stat_pools GROUP BY tenant) p USING (tenant)'),
	't', '... in pg_stat_tenants, too');
$warm->close;
$_->forget_sql for values %server;
done_testing();
