# Shows: reads of a tenant with routing go to two streaming standbys, writes to the primary; nobody reads less than it has
# written, while one standby's replay is paused and resumed; a standby that is stopped, killed or promoted costs nobody an
# error, and is never read from then. The checker finds stale reads at the level that allows them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;

my $pool = PgPool->new('zero', streaming => 1, workers => 2, pool_size => 8, conf => "autovacuum = off\nmax_connections = 100\n");
my %server = (zero => $pool);
$pool->node->backup('copy');
for my $name (qw(one two))
{
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
	my $port = free_port();
	$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\nlog_statement = all\n");
	chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
	$node->start;
	$server{$name} = PgPool->adopt($node, port => $port);
}

sub reads { return $pool->sql("SELECT coalesce(sum(reads), 0) FROM pgpool.pg_stat_replicas" . ($_[0] ? " WHERE name = '$_[0]'" : '')) }

sub on_nodes # how many of these were served by standbys
{
	my $code   = shift;
	my $before = reads();
	$code->();
	return reads() - $before;
}

$pool->sql('CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t SELECT k, 0 FROM generate_series(0, 99) k; GRANT ALL ON t TO app', 'app');
$pool->sql("SELECT pgpool.add_replica('$_', '127.0.0.1', " . $server{$_}->node->port . ')') for qw(one two);
my $client = $pool->raw;
my $none = on_nodes(sub { $client->value('SELECT count(*) FROM t') for 1 .. 5 });
is($none, 0, 'a tenant without routing reads on the primary');
$pool->sql("SELECT pgpool.alter_tenant('default', routing => 'reads')");
within(20, sub { on_nodes(sub { $client->value('SELECT count(*) FROM t') }) == 1 }, 'with routing a standby is read from, as soon as the facts are there')
  or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'), "\n", $pool->sql("SELECT * FROM pgpool.explain_route('SELECT count(*) FROM t')"));

# ---- the split
my @clients = map { $pool->raw } 1 .. 8;
my ($errors, $wrong) = (0, 0);
my $n = on_nodes(sub {
	for my $round (1 .. 25)
	{
		for my $c (@clients) { $wrong++ if ($c->value('SELECT count(*) FROM t') // '') ne '100' }
	}
});
is($wrong, 0, '200 reads are right');
cmp_ok($n, '>=', 190, "... and $n of them were served by standbys");
cmp_ok(reads($_), '>', 20, "... some by $_: " . reads($_)) for qw(one two);
is(on_nodes(sub { $_->value('UPDATE t SET v = v + 1 WHERE k = 0 RETURNING v') for @clients }), 0, 'writes go to the primary');
is(on_nodes(sub { $client->value($_) for 'SELECT v FROM t WHERE k = 1 FOR UPDATE', 'SELECT pg_backend_pid()', 'SELECT txid_current()', 'WITH x AS (UPDATE t SET v = v WHERE k = 1 RETURNING 1) SELECT * FROM x' }),
	0, '... and what locks, speaks of the session or writes in disguise');

# ---- read one's own writes
sub stale_reads # of so many pairs of write and read by one client
{
	my ($pairs) = @_;
	my $stale = 0;
	for my $i (1 .. $pairs)
	{
		for my $c (@clients)
		{
			my $k = 10 + int rand 80;
			my $v = $c->value("UPDATE t SET v = v + 1 WHERE k = $k RETURNING v");
			my $r = $c->value("SELECT v FROM t WHERE k = $k");
			$stale++ if !defined $r || $r !~ /^\d+$/ || $r < $v;
		}
		$server{two}->sql($i % 2 ? 'SELECT pg_wal_replay_pause()' : 'SELECT pg_wal_replay_resume()') if $i % 5 == 0;
	}
	$server{two}->sql('SELECT pg_wal_replay_resume()');
	return $stale;
}
is(stale_reads(50), 0, 'level session: 400 pairs, none is stale');
$pool->sql("SELECT pgpool.alter_tenant('default', consistency => 'database')");
{
	my ($stale, $writer) = (0, $pool->direct);
	$server{two}->sql('SELECT pg_wal_replay_pause()');
	for my $i (1 .. 100)
	{
		my $v = $writer->value('UPDATE t SET v = v + 1 WHERE k = 5 RETURNING v');
		my $r = $clients[ $i % 8 ]->value('SELECT v FROM t WHERE k = 5');
		$stale++ if !defined $r || $r !~ /^\d+$/ || $r < $v;
	}
	is($stale, 0, 'level database: 100 commits on the server\'s own port, each read by another client');
	$pool->sql("SELECT pgpool.alter_tenant('default', consistency => 'eventual')");
	my $found = within(10, sub {
		my $v = $writer->value('UPDATE t SET v = v + 1 WHERE k = 5 RETURNING v');
		return scalar grep { ($_->value('SELECT v FROM t WHERE k = 5') // 0) < $v } @clients;
	}, 'level eventual: the checker finds stale reads');
	$server{two}->sql('SELECT pg_wal_replay_resume()');
}
$pool->sql("SELECT pgpool.alter_tenant('default', reset => '{consistency}')");

# ---- a standby that goes away
sub rounds
{
	my ($rounds, $what) = @_;
	my @bad;
	for (1 .. $rounds)
	{
		for my $c (@clients)
		{
			my $r = $c->value('SELECT count(*) FROM t') // 'nothing';
			push @bad, $r if $r ne '100';
		}
	}
	is("@bad", '', "$what: no read fails");
}
rounds(5, 'before');
$server{one}->node->stop('immediate');
rounds(20, 'a standby was killed');
$server{one}->node->start;
within(20, sub { my $before = reads('one'); rounds_quietly(); reads('one') > $before }, '... it is read from again when it is back');
sub rounds_quietly { $_->value('SELECT count(*) FROM t') for @clients }
$server{one}->node->restart;
rounds(20, 'a standby was restarted');
$server{two}->sql('SELECT pg_promote()');
$server{two}->sql('CREATE TABLE only_here (a int)', 'app');
rounds(10, 'a standby was promoted');
my $after = reads('two');
rounds(10, 'later');
is(reads('two'), $after, '... and is read from no more');
$_->close for @clients, $client;
done_testing();
