# Shows: after a promotion no greeting of pgpool's port says in_hot_standby = on any more, and clients from before are told
# at their next statement, whichever server serves them; so a client that wants a server to write to gets in.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;

my $pool = PgPool->new('primary', workers => 2, streaming => 1, session => 1);
my $main = $pool->node;
$main->backup('copy');
my $node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($main, 'copy', has_streaming => 1);
my ($port, $session_port) = (free_port(), free_port());
$node->append_conf('postgresql.conf', "pgpool.port = $port\npgpool.session_port = $session_port\npgpool.default_pool_size = 6\nunix_socket_directories = '" . $node->host . "'\n");
chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
$node->start;
my $standby = PgPool->adopt($node, port => $port, session_port => $session_port);
ok($standby->ready(20), 'the port of a standby serves');
my @ports = ($port, $session_port);
my $told = sub { my ($client) = @_; return $client->{parameters}{in_hot_standby} };
my @direct = ($standby->direct);
my @clients = (@direct, map { my $p = $_; map { $standby->raw(port => $p) } 1 .. 3 } $port, $port, $session_port);
is(join(' ', map { $told->($_) } @clients), join(' ', ('on') x 10), 'all are told that it is a standby');
$_->value('SELECT 1') for @clients;

for my $server ($node) { $server->promote }
ok(defined wait_until(30, sub { my $c = $standby->direct; my $on = $told->($c); $c->close; $on eq 'off' }), 'the server says that it is none any more');
my @greetings = map { my $p = $_; map { my $c = $standby->raw(port => $p); my $t = $told->($c); $c->close; $t } 1 .. 8 } @ports;
is("@greetings", join(' ', ('off') x 16), '... and so does every login from then on');
my @uris = map { "host=127.0.0.1 port=$_ user=app password=app-secret dbname=app target_session_attrs=" } @ports;
for my $uri (@uris)
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtc', 'SELECT 42', $uri . 'read-write' ], '>', \$out, '2>', \$err);
	is("$out$err", "42\n", 'libpq finds a server to write to');
}
$_->value('SELECT 1') for @clients;
is(join(' ', map { $told->($_) } @clients), join(' ', ('off') x 10), 'who was there is told with the next statement, as directly');
$_->close for @clients;
$_->forget_sql for $pool, $standby;
$_->stop('fast') for $main, $node;
done_testing();
