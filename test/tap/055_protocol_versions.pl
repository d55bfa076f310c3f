# Protocol versions: 3.0 and 3.2 are spoken (the latter with a cancel key of 32 bytes), newer ones and _pq_ options are
# negotiated, others refused; and a startup packet may arrive in any pieces, and is refused when it is malformed.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;

my $node = pool_node('versions', conf => 'ssl = off');
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'");
my @who = (user => 'app', password => 'secret', database => 'postgres');
sub version { my ($major, $minor) = @_; return $major << 16 | $minor }
sub fresh { return PgPoolWire->open(port => $node->{pool_port}) }

# ---- versions
my $c = fresh();
ok($c->login(@who)->{ok}, '3.0 is spoken');
ok(!$c->{negotiated}, '... and not negotiated');
is(length $c->{key}, 4, '... with a key of 4 bytes');
is($c->value('SELECT 30'), '30', '... and serves');
my %key_length = (2 => 32, 9 => 32, 9999 => 32, 1 => 4);
for my $minor (2, 9, 9999, 1)
{
	my $c = fresh();
	my $r = $c->login(@who, protocol => version(3, $minor));
	ok($r->{ok}, "3.$minor is answered") or diag PgPoolWire::text($r);
	if ($minor == 2) { ok(!$c->{negotiated}, '3.2 is not negotiated') }
	else
	{
		my $newest = $minor == 1 ? 0 : 2;
		is_deeply([ unpack 'N N', $c->{negotiated} // '' ], [ version(3, $newest), 0 ], "3.$minor is brought down to 3.$newest");
	}
	is(length $c->{key}, $key_length{$minor}, "... with a key of $key_length{$minor} bytes");
	is($c->value("SELECT 3$minor"), "3$minor", '... and serves');
}
{
	my $c = fresh();
	my $r = $c->login(@who, '_pq_.one' => 'x', '_pq_.two' => 'y');
	ok($r->{ok}, 'unknown _pq_ options are no error') or diag PgPoolWire::text($r);
	my ($version, $count, $names) = unpack 'N N a*', $c->{negotiated} // '';
	is_deeply([ $version, $count, $names ], [ version(3, 0), 2, "_pq_.one\0_pq_.two\0" ], '... they are listed as not known');
	is($c->{seen}[0][0], 'v', '... before the authentication');
}
for my $v ([ 2, 0 ], [ 1, 0 ], [ 4, 0 ], [ 0, 0 ], [ 1234, 1 ], [ 65535, 65535 ])
{
	my $c = fresh();
	my $r = $c->login(@who, protocol => version(@$v));
	is(PgPoolWire::text($r), "0A000 unsupported frontend protocol $v->[0].$v->[1]: server supports 3.0 to 3.2", "$v->[0].$v->[1] is refused");
	ok($c->closes(5), '... and the connection closed');
}

# ---- pieces
my $packet = PgPoolWire::startup_packet(version(3, 0), user => 'app', database => 'postgres', application_name => 'pieces', TimeZone => 'UTC');
my $good = 0;
for my $at (1 .. length($packet) - 1)
{
	my $c = fresh();
	setsockopt $c->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
	$c->send(substr $packet, 0, $at);
	# one turn of the worker's loop: another client comes and goes
	$c->need(1, 0.002);
	$c->send(substr $packet, $at);
	$c->{user} = 'app';
	my $r = $c->finish_login('secret');
	$r->{ok} ? $good++ : diag("cut at $at: " . PgPoolWire::text($r));
	$c->send(PgPoolWire::message('X', ''));
}
is($good, length($packet) - 1, "a startup packet of " . length($packet) . ' bytes in two pieces, cut at each byte');
{
	my $c = fresh();
	setsockopt $c->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
	for (split //, $packet) { $c->send($_); $c->need(1, 0.001) }
	$c->{user} = 'app';
	ok($c->finish_login('secret')->{ok}, 'byte by byte');
}

# ---- without TLS, SSLRequest is answered once
for my $code ($PgPoolWire::SSL, $PgPoolWire::GSS)
{
	my $c = fresh();
	$c->send(PgPoolWire::request($code));
	is($c->bytes(1, 5), 'N', "request $code is answered N");
	$c->send($packet);
	$c->{user} = 'app';
	ok($c->finish_login('secret')->{ok}, '... and the login goes on');
	$c = fresh();
	for (1 .. 2) { $c->send(PgPoolWire::request($code)); $c->bytes(1, 5) if $_ == 1 }
	my $m = $c->next(5);
	like($m ? PgPoolWire::error_fields($m->[1])->{C} : 'none', qr/^(08P01|0A000)$/, '... a second one is refused');
	ok($c->closes(5), '... for good');
}

# ---- malformed ones: the connection ends, and nothing else happens
my %bad = (
	'length 0' => pack('N N', 0, version(3, 0)),
	'length 4' => pack('N', 4),
	'length 7' => pack('N', 7) . 'abc',
	'length 10001' => pack('N N', 10001, version(3, 0)),
	'length 2^31' => pack('N N', 0x80000000, version(3, 0)),
	'length -1' => pack('N N', 0xffffffff, version(3, 0)),
	'no terminator' => pack('N N', 8 + 9, version(3, 0)) . "user\0app\0",
	'no parameters' => pack('N N', 8, version(3, 0)),
	'no user' => PgPoolWire::startup_packet(version(3, 0), database => 'postgres'),
	'an empty user' => PgPoolWire::startup_packet(version(3, 0), user => '', database => 'postgres'),
	'bytes after the terminator' => pack('N N', 8 + 10 + 3, version(3, 0)) . "user\0app\0\0abc",
	'a name without a value' => pack('N N', 8 + 5, version(3, 0)) . "user\0",
	'a value without an end' => pack('N N', 8 + 8, version(3, 0)) . "user\0app");
for my $what (sort keys %bad)
{
	my $c = fresh();
	$c->send($bad{$what});
	ok($c->closes(10), "$what: the connection ends");
	my @types = map { $_->[0] } @{ $c->{seen} };
	ok(!(grep { $_ ne 'E' } @types), '... after an error at most') or diag "@types";
	# the server's own port is the oracle for what is said
	my $own = PgPoolWire->open(port => $node->port);
	$own->send($bad{$what});
	$own->closes(10);
	my @said = map { my $s = $_; join ' ', map { $_->[0] eq 'E' ? PgPoolWire::error_fields($_->[1])->{C} : '?' } @{ $s->{seen} } } $c, $own;
	is($said[0], $said[1], '... with the same SQLSTATE as at the server');
}
# the largest packet that the server takes: 10000 bytes
{
	my $room = 10000 - length PgPoolWire::startup_packet(version(3, 0), user => 'app', database => 'postgres', application_name => '');
	my $c = fresh();
	my $r = $c->login(@who, application_name => 'a' x $room);
	ok($r->{ok}, 'a packet of 10000 bytes is taken') or diag PgPoolWire::text($r);
	is(length $c->value('SHOW application_name'), 63, '... and the name in it is cut to 63 bytes');
}
# a name given twice, and names of 63 bytes and more
{
	my $c = fresh();
	$c->send(PgPoolWire::startup_packet(version(3, 0), user => 'nobody', user => 'app', database => 'postgres'));
	$c->{user} = 'app';
	ok($c->finish_login('secret')->{ok}, 'of a parameter that comes twice the last counts, as at the server');
}
my $long = 'l' x 63;
$node->safe_psql('postgres', qq(CREATE ROLE "$long" LOGIN PASSWORD 'secret'));
for my $extra ('', 'x', 'xx', 'x' x 192)
{
	my %p = (user => "$long$extra", password => 'secret', database => 'postgres');
	is(login_text($node, %p), login_text($node, %p, port => $node->port), 'a name of ' . (63 + length $extra) . ' bytes ends as at the server');
}
# longer ones are no names of anybody
is(login_text($node, user => 'u' x 256, password => 'secret', database => 'postgres'),
	'28000 user, database or tenant name is too long', 'a name above 255 bytes is refused, not cut');
# replication is refused with a hint
{
	my $c = fresh();
	my $r = $c->login(@who, replication => 'database');
	is(PgPoolWire::text($r), '0A000 replication connections are not pooled', 'replication is refused');
	like($r->{error}{H}, qr/own port, @{[ $node->port ]}\./, '... with the port to go to');
	# libpq's tools name a database that is none
	is(PgPoolWire::text(fresh()->login(@who, database => 'replication', replication => 'true')),
		'0A000 replication connections are not pooled', '... that of pg_basebackup, too');
	ok(fresh()->login(@who, replication => 'off')->{ok}, 'replication=off is no replication');
}
is($node->safe_psql('postgres', 'SELECT sum(starts) - count(*) FROM pgpool.pg_stat_workers'), '0', 'no worker was restarted');
$node->stop;
done_testing();
