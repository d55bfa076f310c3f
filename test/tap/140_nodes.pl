# Shows: nodes that reads may be sent to, on a primary with two streaming standbys: a change acts at COMMIT, each server
# finds itself, positions of standbys follow without a setting, whatever commits is told, and after a promotion the same
# rows are right on the new primary.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;

my $pool = PgPool->new('zero', streaming => 1, workers => 1, conf => "max_prepared_transactions = 5\nautovacuum = off\n");
my %server = (zero => $pool);
$pool->node->backup('copy');
for my $name (qw(one two))
{
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
	my $port = free_port();
	$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\n");
	chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
	$node->start;
	$server{$name} = PgPool->adopt($node, port => $port);
}

sub rows { return $_[0]->sql("SELECT string_agg(name || ' ' || role || ' ' || state, ', ' ORDER BY name) FROM pgpool.pg_stat_replicas") // '' }

sub of
{
	my ($on, $name, $column) = @_;
	return $on->sql("SELECT $column FROM pgpool.pg_stat_replicas WHERE name = '$name'");
}

sub caught_up
{
	my ($on, $name) = @_;
	my $lsn = $on->sql('SELECT pg_current_wal_flush_lsn()');
	return within(10, sub { of($on, $name, "replayed >= '$lsn'") eq 't' }, "the position of $name is known and follows");
}

# ---- nobody has nodes at first
is(rows($pool), '', 'there are no nodes');
$pool->sql('CREATE TABLE t (a int)');
is($pool->sql('SELECT pgpool.last_commit()'), '', '... and nobody tells of commits');

# ---- rows act at COMMIT
$pool->sql($_) for 'BEGIN', "SELECT pgpool.add_replica('ghost', '127.0.0.1')", 'ROLLBACK';
$pool->sql('BEGIN');
$pool->sql("SELECT pgpool.add_replica('$_', '127.0.0.1', " . $server{$_}->node->port . ')') for qw(zero one two);
is(rows($pool), '', 'what has not committed is not there');
$pool->sql('COMMIT');
within(5, sub { rows($pool) eq 'one replica serving, two replica serving, zero self unused' }, 'the rows are there, and the primary has found itself')
  or diag(rows($pool));
is(of($pool, 'zero', 'reason'), 'it is this server', '... and says why it gets no reads');
for my $name (qw(one two))
{
	my $other = $name eq 'one' ? 'two' : 'one';
	within(10, sub { rows($server{$name}) eq join(', ', sort "$other replica serving", "$name self unused", 'zero replica serving') }, "standby $name finds itself in the replicated rows")
	  or diag(rows($server{$name}));
}

# ---- positions
$pool->sql('INSERT INTO t VALUES (1)');
caught_up($pool, $_) for qw(one two);
within(5, sub { of($pool, 'one', 'lag_bytes, lag_ms') eq '0|0' }, 'a standby that has all has no lag');
$server{two}->sql('SELECT pg_wal_replay_pause()');
$pool->sql('INSERT INTO t SELECT generate_series(1, 1000)');
within(10, sub { of($pool, 'two', 'lag_bytes > 1000 AND lag_ms >= 1000') eq 't' }, 'the lag of one that does not replay grows, in bytes and in time')
  or diag(of($pool, 'two', 'lag_bytes, lag_ms'));
caught_up($pool, 'one');
is(of($pool, 'two', 'state'), 'serving', 'it serves as long as its row has no limit');
$pool->sql("SELECT pgpool.alter_replica('two', max_lag => '100 ms')");
within(5, sub { of($pool, 'two', "state || ': ' || reason") eq 'unused: it lacks what is older than max_lag' }, '... and does not beyond max_lag');
$pool->sql("SELECT pgpool.alter_replica('two', reset => '{max_lag}', max_lag_bytes => 100)");
within(5, sub { (of($pool, 'two', 'reason') // '') eq 'it lacks more than max_lag_bytes' }, '... nor beyond max_lag_bytes');
$server{two}->sql('SELECT pg_wal_replay_resume()');
caught_up($pool, 'two');
within(5, sub { of($pool, 'two', 'state') eq 'serving' }, 'it serves again when it has replayed');

# ---- whatever commits is told
$pool->sql('CREATE SEQUENCE s');
$pool->sql('CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (2); COMMIT; PERFORM pg_current_wal_lsn(); END $$');
for my $case (
	[ 'an INSERT',                  'INSERT INTO t VALUES (3)' ],
	[ 'DDL',                        'CREATE TABLE made (a int)' ],
	[ 'nextval()',                  q{SELECT nextval('s')} ],
	[ 'a procedure that commits',   'CALL p()' ],
	[ 'an asynchronous commit',     'SET synchronous_commit = off', 'INSERT INTO t VALUES (4)', 'RESET synchronous_commit' ],
	[ 'COMMIT PREPARED',            'BEGIN', 'INSERT INTO t VALUES (5)', q{PREPARE TRANSACTION 'x'}, q{COMMIT PREPARED 'x'} ],
	[ 'a transaction of its parts', 'BEGIN', 'SAVEPOINT a', 'INSERT INTO t VALUES (6)', 'RELEASE a', 'COMMIT' ])
{
	my ($what, @statements) = @$case;
	my $before = $pool->sql('SELECT pg_current_wal_insert_lsn()');
	$pool->sql($_) for @statements;
	is($pool->sql("SELECT pgpool.last_commit() > '$before'"), 't', "$what is told");
}
my $told = $pool->sql('SELECT pgpool.last_commit()');
$pool->sql('SELECT count(*) FROM t');
$pool->sql($_) for 'BEGIN', 'INSERT INTO t VALUES (7)', 'ROLLBACK';
is($pool->sql('SELECT pgpool.last_commit()'), $told, 'reading and a rollback are not');

# ---- failover: the same rows
my $one = $server{one};
$pool->node->wait_for_catchup($_) for map { $server{$_}->node } qw(one two);
$pool->forget_sql;
$pool->node->stop('fast');
$one->node->promote;
$server{two}->node->append_conf('postgresql.conf', "primary_conninfo = '" . $one->node->connstr . " application_name=two'");
$server{two}->node->reload;
within(10, sub { $one->sql('SELECT pgpool.last_commit() IS NOT NULL') eq 't' }, 'the new primary tells of commits, those of before too');
is($one->sql("SELECT pgpool.last_commit() >= '$told'"), 't', '... which are not behind what was told');
$one->sql('INSERT INTO t VALUES (8)');
caught_up($one, 'two');
is(rows($one), 'one self unused, two replica serving, zero replica serving', 'the rows that replication carried along are right on the new primary');
is(of($one, 'zero', 'replayed IS NULL AND lag_ms IS NULL'), 't', 'of one that does not stream nothing is known');
$one->sql("SELECT pgpool.drop_replica('zero')");
within(5, sub { rows($one) eq 'one self unused, two replica serving' }, 'a row that is dropped is gone');

# ---- found by themselves
$one->sql("SELECT pgpool.drop_replica('$_')") for qw(one two);
is($one->sql('SELECT * FROM pgpool.discover_replicas(' . $server{two}->node->port . ')'), 'two|localhost', 'discover_replicas finds the standby');
is($one->sql('SELECT * FROM pgpool.discover_replicas(' . $server{two}->node->port . ')'), '', '... once');
caught_up($one, 'two');

$_->forget_sql for values %server;
$server{$_}->node->stop('fast') for qw(two one);
done_testing();
