# How pgpool itself logs in to the server: by what the client proved, through the line of pg_hba.conf that admits it
# (Unix socket first, then TCP), by peer map, or with a stored password; and where there is no way, the client reads
# which line is in it and what to do.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $me = (getpwuid $>)[0];
my @client = ('host all all 127.0.0.2/32 trust', 'host all all 127.0.0.1/32 scram-sha-256');
my $node = pool_node('route', conf => "ssl = off\npgpool.workers = 1\npgpool.default_pool_size = 3");
my $marker = 0;

# Writes the files, and waits until both the server and the manager follow them.
sub rules
{
	my ($ident, @lines) = @_;
	my $n = ++$marker;
	unlink $node->data_dir . '/pg_ident.conf';
	append_to_file($node->data_dir . '/pg_ident.conf', $ident);
	PgPoolCase::set_hba($node, "local all $me peer", "host marker$n all 127.0.0.0/8 reject", @lines);
	$node->reload;
	for my $port ($node->port, $node->{pool_port})
	{
		poll_until(sub { login_text($node, port => $port, user => 'x', database => "marker$n") =~ /pg_hba.conf rejects/ },
			'the rules are loaded');
	}
	no_servers();
}

# Servers of former rules and passwords are of no use here.
sub no_servers
{
	$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pgpool.pg_stat_servers WHERE pid > 0');
	poll_until(sub { $node->safe_psql('postgres', 'SELECT count(*) FROM pgpool.pg_stat_servers') == 0 }, 'no server');
}

my $last;

# A query through the pool: the route that it took, or the error.
sub route
{
	my (%p) = @_;
	my $c = PgPoolWire->open(port => $node->{pool_port}, source => delete $p{source});
	my $r = $c->login(database => 'postgres', %p);
	if (!$r->{ok}) { $last = $r->{error}; return PgPoolWire::text($r) }
	$r = $c->query('SELECT pg_backend_pid()');
	if ($r->{error}) { $last = $r->{error}; return PgPoolWire::text($r) }
	my $pid = $r->{rows}[0][0];
	return $node->safe_psql('postgres', "SELECT route FROM pgpool.pg_stat_servers WHERE pid = $pid");
}
$node->safe_psql('postgres', <<"SQL");
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE stored LOGIN PASSWORD 'secret';
CREATE ROLE unproved LOGIN PASSWORD 'secret';
CREATE ROLE mapped LOGIN PASSWORD 'secret';
CREATE ROLE mended LOGIN;
CREATE ROLE late LOGIN PASSWORD 'secret';
CREATE ROLE wrong LOGIN PASSWORD 'secret';
SET password_encryption = md5;
CREATE ROLE old LOGIN PASSWORD 'secret';
CREATE ROLE stored_old LOGIN PASSWORD 'secret';
SELECT pgpool.set_user('default', 'stored', server_password => 'secret');
SELECT pgpool.set_user('default', 'stored_old', server_password => 'secret');
SELECT pgpool.set_user('default', 'wrong', server_password => 'another');
SQL

# ---- the client proves its password
rules('', 'local all all scram-sha-256', @client);
my $unix = route(user => 'app', password => 'secret');
like($unix, qr/unix/i, 'a SCRAM client comes in by the Unix socket') or diag $last->{D};
rules('', 'local all all peer', @client);
my $tcp = route(user => 'app', password => 'secret');
like($tcp, qr/tcp/i, 'with peer on the socket it takes TCP') or diag $last->{D};
rules('', 'local all all reject', @client);
is(route(user => 'app', password => 'secret'), $tcp, 'with reject on the socket, too');
rules('', @client);
is(route(user => 'app', password => 'secret'), $tcp, 'without a line for the socket, too');
rules('', 'local all all password', @client);
is(route(user => 'app', password => 'secret'), $tcp, 'nobody has the clear password that method password wants on the socket');

# ---- trust for the client, from 127.0.0.2; pgpool's own login comes from 127.0.0.1 and is not trusted
rules('', 'local all all scram-sha-256', @client);
my $text = route(user => 'unproved', source => '127.0.0.2');
is($text, '28000 pg_hba.conf has no way for pgpool to log in as role "unproved" to database "postgres"',
	'a trusted client brings no proof: the error is clear');
is($last->{D}, 'By Unix socket: line 3, method scram-sha-256. By TCP from 127.0.0.1: line 5, method scram-sha-256.',
	'... the detail names the lines');
like($last->{H}, qr/peer map=.*server_password/, '... and the hint names both remedies');
is(route(user => 'stored', source => '127.0.0.2'), $unix, 'a stored password lets a trusted client in');
is(route(user => 'stored', password => 'secret'), $unix, '... and one with a password as well');
$text = route(user => 'wrong', source => '127.0.0.2');
like($text, qr/^28/, 'a wrong stored password is an error of authentication');
$node->safe_psql('postgres', "ALTER ROLE stored PASSWORD 'other'");
like(route(user => 'stored', source => '127.0.0.2'), qr/^(28|$unix)/, 'a stored password that is out of date is an error, or an idle server serves');
$node->safe_psql('postgres', "SELECT pgpool.set_user('default', 'stored', server_password => 'other')");
no_servers();
is(route(user => 'stored', source => '127.0.0.2'), $unix, '... until it is stored anew');

# ---- the peer map
is(route(user => 'unproved', password => 'secret'), $unix, 'a client that proves itself opens the pool');
is(route(user => 'unproved', source => '127.0.0.2'), $unix, '... for trusted ones of the same role as well');
rules("pool $me mapped\npool $me app\npool $me late\n", 'local all all peer map=pool', @client);
is(route(user => 'mapped', source => '127.0.0.2'), $unix, 'a peer map serves a trusted client');
is(route(user => 'app', password => 'secret'), $unix, 'a peer map serves a SCRAM client');
like(route(user => 'stored', source => '127.0.0.2'), qr/$tcp/, 'a role that is not in the map takes TCP with its stored password');
rules("pool /^(.*)\$ mapped\n", 'local all all peer map=pool', @client);
is(route(user => 'mapped', source => '127.0.0.2'), $unix, 'a pattern in the map counts');

# a way that an earlier client left, and that was closed since, must not stand in the way of a later client
rules('', 'local all all reject', @client);
is(route(user => 'late', password => 'secret'), $tcp, 'a SCRAM client leaves its way to the pool');
rules("pool $me late\n", 'local all all peer map=pool', 'host all all 127.0.0.2/32 trust', 'host all all 127.0.0.1/32 reject');
is(route(user => 'late', source => '127.0.0.2'), $unix, 'when that way is closed, a trusted client opens a new one by the peer map');

# pgpool's own way is asked for at each login: a reload alone changes nothing for clients that are in
{
	rules('', 'local all all scram-sha-256', @client);
	my $c = connect_as($node, user => 'app', password => 'secret');
	my $way = sub { $node->safe_psql('postgres', 'SELECT route FROM pgpool.pg_stat_servers WHERE pid = ' . $c->value('SELECT pg_backend_pid()')) };
	is($way->(), $unix, 'a client of before the reload');
	rules('', 'local all all peer map=nobody', @client);
	my $r = $c->query('SELECT 1');
	isnt($r->{error}, undef, '... its pool still takes the old way, which is closed now');
	is(route(user => 'app', password => 'secret'), $tcp, '... up to the next login of the role');
	no_servers();
	is($way->(), $tcp, '... whose way is that of all');
}

# ---- md5
my @md5 = ('host all all 127.0.0.2/32 trust', 'host all all 127.0.0.1/32 md5');
rules('', 'local all all md5', @md5);
is(route(user => 'old', password => 'secret'), $unix, 'an md5 client comes in by md5 on the socket');
is(route(user => 'app', password => 'secret'), $unix, 'a role with a SCRAM verifier comes in by lines that say md5');
is(route(user => 'stored_old', source => '127.0.0.2'), $unix, 'a stored password answers md5');
rules('', 'local all all scram-sha-256', @md5);
is(route(user => 'old', password => 'secret'), $tcp, 'an md5 client does without the socket that wants SCRAM');
rules('', 'local all all scram-sha-256', 'host postgres old 127.0.0.2/32 md5', 'host all all 127.0.0.1/32 scram-sha-256');
$text = route(user => 'old', password => 'secret', source => '127.0.0.2');
like($text, qr/^28000 pg_hba.conf has no way for pgpool/, 'with SCRAM on both ways it cannot');
like($last->{H}, qr/password_encryption = 'scram-sha-256'.*local all all md5/, '... and the hint says what to change');

# ---- method password: the client's own clear password goes no further than SCRAM needs it
rules('', 'local all all scram-sha-256', 'host all all 127.0.0.1/32 password');
is(route(user => 'app', password => 'secret'), $unix, 'a client by method password comes in by SCRAM on the socket');
rules('', 'local all all trust', @client);
is(route(user => 'mended', source => '127.0.0.2'), $unix, 'trust on the socket needs no proof');

# ---- a mended file helps the next login without a restart
rules('', 'local all all reject', 'host all all 127.0.0.2/32 trust', 'host all all 127.0.0.1/32 reject');
like(route(user => 'mended', source => '127.0.0.2'), qr/^28000 pg_hba.conf has no way/, 'no way at all');
rules('', 'local all all trust', 'host all all 127.0.0.2/32 trust');
is(route(user => 'mended', source => '127.0.0.2'), $unix, 'after the reload the next login works');
unlike(slurp_log($node), qr/secret(?!')/, 'no password is in the log');
$node->stop;
done_testing();
