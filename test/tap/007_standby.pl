# Shows: workers of a hot standby serve read-only sessions; at its promotion the same clients go on and may write; a
# restart as a standby is read-only again. Nothing crashes.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('primary', workers => 2, streaming => 1);
my $main = $pool->node;
$pool->run_psql('CREATE TABLE t AS SELECT 1 AS a');
$main->backup('copy');

my $node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($main, 'copy', has_streaming => 1);
my $port = free_port();
$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\n");
chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
$node->start;
my $standby = PgPool->adopt($node, port => $port);
ok($standby->ready(10), 'the port of a standby serves');
is($standby->sql('SELECT pg_is_in_recovery()'), 't', 'it is a standby');
$main->wait_for_catchup($node);

my @clients = map { $standby->raw } 1 .. 6;
is($clients[0]->value('SHOW transaction_read_only'), 'on', 'sessions are read-only');
is($clients[0]->{parameters}{in_hot_standby}, 'on', '... and told so at login') if $main->pg_version >= 14;
is($clients[1]->value('SELECT sum(a) FROM t'), 1, 'reading');
my $r = $clients[1]->ask('INSERT INTO t VALUES (2)');
is($r->{error}{C}, '25006', 'writing is refused');
is($clients[1]->value('SELECT sum(a) FROM t'), 1, '... and the client goes on');
is($standby->sql('SELECT count(*) FROM pgpool.pg_stat_clients'), 6, 'the views work on a standby');
is($standby->sql("SELECT string_agg(item || ': ' || message, ', ') FROM pgpool.check() WHERE status = 'error'"), '', 'check() finds no error');

# what changes on the primary arrives
$pool->sql("ALTER ROLE app2 PASSWORD 'another'");
$pool->sql('CREATE DATABASE later OWNER app');
$pool->sql("SELECT pgpool.create_tenant('north')");
$main->wait_for_catchup($node);
ok(defined wait_until(5, sub { eval { $standby->raw(user => 'app2', password => 'another')->close; 1 } }), 'a new password is known on the standby');
ok(defined wait_until(5, sub { eval { $standby->raw(database => 'later')->close; 1 } }), 'a new database, too');
ok(defined wait_until(5, sub { eval { $standby->raw(user => 'app.north')->close; 1 } }), 'a new tenant, too');

# the role that is dropped on the primary cannot log in
$pool->sql('CREATE ROLE brief LOGIN PASSWORD \'brief-secret\'');
$main->wait_for_catchup($node);
ok(defined wait_until(5, sub { eval { $standby->raw(user => 'brief')->close; 1 } }), 'a new role logs in');
$pool->sql('DROP ROLE brief');
$main->wait_for_catchup($node);
ok(defined wait_until(5, sub { !eval { $standby->raw(user => 'brief')->close; 1 } }), '... and does not when it was dropped');

# what a login would be is what the primary says
$pool->sql("CREATE ROLE chief LOGIN SUPERUSER PASSWORD 'chief-secret'");
$main->wait_for_catchup($node);
my $as_chief = sub { my $c = $standby->raw(user => 'chief'); my @seen = ($c->{parameters}{is_superuser}, map { $c->value("SHOW $_") } 'is_superuser', 'work_mem'); $c->close; return "@seen" };
is($as_chief->(), 'on on 4MB', 'a superuser on the standby');
$pool->sql($_) for 'ALTER ROLE chief NOSUPERUSER', "ALTER ROLE chief SET work_mem = '9MB'";
$main->wait_for_catchup($node);
is(join(', ', map { $as_chief->() } 1 .. 4), join(', ', ('off off 9MB') x 4), '... is none, and has its new settings, as soon as the standby knows');

# ---- promotion
my $in_tx = $standby->raw;
$in_tx->ask('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($in_tx->value('SELECT count(*) FROM t'), 1, 'a transaction begins before the promotion');
my $started = $standby->started_at;
my $log     = $standby->log_offset;
my $start   = time;
$node->promote;
ok(defined wait_until(3, sub { !$clients[2]->ask('INSERT INTO t VALUES (2)')->{error} }), sprintf('promoted: a client from before writes (%.2f s)', time - $start));
is(scalar(grep { ($_->ask('SHOW transaction_read_only')->{rows}[0][0] // '') eq 'off' } @clients), 6, 'all clients are still there and may write');
ok(defined wait_until(3, sub { eval { $standby->raw->value('SHOW transaction_read_only') eq 'off' } }), 'new clients may write');
is($in_tx->value('SELECT count(*) FROM t'), 1, 'the transaction goes on');
$in_tx->ask('COMMIT');
is($in_tx->value('SELECT count(*) FROM t'), 2, '... and sees the new row afterwards');
$standby->sql("SELECT pgpool.create_tenant('south')");
ok(defined wait_until(3, sub { eval { $standby->raw(user => 'app.south')->close; 1 } }), 'tenants can be made after the promotion');
is($standby->started_at, $started, 'the server was not restarted');
is($standby->crashes($log), 0, 'nothing crashed');
is($standby->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');
is($pool->run_psql('SELECT 1'), 1, 'the old primary serves as before');

# ---- the primary becomes a standby
$pool->forget_sql;
$main->stop('fast');
$main->set_standby_mode;
$main->start;
ok($pool->ready(10), 'restarted as a standby: the port serves');
is($pool->raw->ask('INSERT INTO t VALUES (3)')->{error}{C}, '25006', '... and writing is refused');

$_->forget_sql for $pool, $standby;
$_->stop('fast') for $main, $node;
done_testing();
