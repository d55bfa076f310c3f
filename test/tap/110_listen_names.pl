# LISTEN by names of every kind: whoever has them is parked and hears as at the server itself, in its own encoding, and
# ends nobody else's. A role that terminates the server that listens for it reaches none of another role.
use strict;
use warnings FATAL => 'all';
use utf8;

use Encode qw(encode decode);
use PgPoolCase;
use PgPoolWire;
use Test::More;

my $node = pool_node('names', conf => "ssl = off\npgpool.default_pool_size = 4\npgpool.workers = 1");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE other LOGIN PASSWORD 'secret'");

sub sql { return $node->safe_psql('postgres', shift) }
sub parked { return sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE state = 'listening'") }
sub login { my ($role, @more) = @_; return connect_as($node, user => $role, password => 'secret', @more) }
sub direct
{
	my @more = @_;
	my $c = PgPoolWire->open(port => $node->port);
	die 'login' unless $c->login(user => 'app', password => 'secret', database => 'postgres', @more)->{ok};
	return $c;
}
sub gone { my $c = shift; $c->send(PgPoolWire::message('X', '')); $c->close }
sub heard { my $c = shift; return map { join '=', (unpack 'N Z* Z*', $_->[1])[1, 2] } grep { $_->[0] eq 'A' } @{ $c->{seen} } }
sub hears
{
	my ($c, $what) = @_;
	until (grep { $_ eq $what } heard($c)) { last unless $c->next(10) }
	return (heard($c))[-1] // 'nothing';
}
sub error { my $r = shift; return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : 'no error' }
sub quoted { my $n = shift; $n =~ s/"/""/g; return qq("$n") }

my $bystander = login('other');
$bystander->query('LISTEN news');
ok(poll_until(sub { parked() == 1 }), 'a client of another role is parked');
my $listener = sql("SELECT pid FROM pgpool.pg_stat_servers WHERE state = 'listener'");

# ---- any name, in any encoding: what PostgreSQL makes of it, on its own port, is expected
my @names = (
	'a.b', '.', 'a..b', '"', 'a"b', "it's", ' ', 'x; LISTEN y', 'Upper', 'select', '*', '\\', 'ä', 'größe.öl', "tab\there",
	'n' x 63, 'n' x 64, 'n' x 61 . '.ö', 'n' x 62 . 'ö', 'ö' x 40, '.' x 70, 'a"' x 40);
for my $encoding (qw(UTF8 LATIN1))
{
	my @c;
	for my $name (@names)
	{
		my $sql = 'LISTEN ' . quoted(encode($encoding eq 'UTF8' ? 'UTF-8' : 'ISO-8859-1', $name));
		my ($d, $c) = (direct(client_encoding => $encoding), login('app', client_encoding => $encoding));
		my ($expected, $got) = map { my $r = $_->query($sql); error($r) eq 'no error' ? $_->value('SELECT pg_listening_channels()') : error($r) } $d, $c;
		is($got, $expected, "$encoding: LISTEN of " . encode('UTF-8', substr $name, 0, 20) . ' with ' . length($name) . ' characters');
		gone($d);
		push @c, [ $name, $expected, $c ];
	}
	ok(poll_until(sub { parked() == 1 + @c }), "$encoding: all are parked, with " . parked() . " of @{[ 1 + @c ]}");
	for (@c)
	{
		my ($name, $channel, $c) = @$_;
		my $plain = decode($encoding eq 'UTF8' ? 'UTF-8' : 'ISO-8859-1', $channel);
		sql('NOTIFY ' . encode('UTF-8', quoted($plain)) . ", 'for you'");
		is(hears($c, "$channel=for you"), "$channel=for you", "$encoding: it hears, " . encode('UTF-8', substr $name, 0, 20));
		is($c->value('SELECT pg_listening_channels()'), $channel, '... and comes back with it');
	}
	gone($_->[2]) for @c;
}
for my $bad ('LISTEN ""', 'LISTEN a.b', 'LISTEN "a" "b"', 'LISTEN 1', 'LISTEN')
{
	my ($d, $c) = (direct(), login('app'));
	my ($expected, $got) = map { error($_->query($bad)) } $d, $c;
	is($got, $expected, "$bad: $expected");
	gone($_) for $d, $c;
}

# ---- a name that the listener cannot be told: the client keeps its server, nobody else notices
{
	my $c = login('app', client_encoding => 'LATIN1');
	my $with = login('app', client_encoding => 'LATIN1');
	$_->query('LISTEN shared') for $c, $with;
	is(error($c->query(q{DO $$ BEGIN EXECUTE 'LISTEN ' || quote_ident(U&'\65e5\672c.'); END $$})), 'no error', 'a channel that its encoding cannot name');
	ok(poll_until(sub { parked() == 2 }), 'one of two is parked');
	is(sql("SELECT pinned FROM pgpool.pg_stat_clients WHERE pid = $c->{pid}"), 'LISTEN', '... the other keeps its server');
	sql("NOTIFY shared, 'x'");
	is(hears($_, 'shared=x'), 'shared=x', '... and both hear') for $c, $with;
	gone($_) for $c, $with;
}

# ---- all that time the bystander was parked, on its own listener
sql("NOTIFY news, 'still'");
is(hears($bystander, 'news=still'), 'news=still', 'whatever names others have, it hears');
is(join(' ', heard($bystander)), 'news=still', '... and heard nothing of theirs');
is(sql("SELECT pid FROM pgpool.pg_stat_servers WHERE state = 'listener' AND role = 'other'"), $listener, '... of the same server');

# ---- a role ends its own
{
	my $c = login('app');
	$c->query('LISTEN news');
	ok(poll_until(sub { parked() == 2 }), 'two roles listen to one channel');
	my $d = direct();
	my $theirs = sql("SELECT pid FROM pgpool.pg_stat_servers WHERE state = 'listener' AND role = 'other'");
	is(error($d->query("SELECT pg_terminate_backend($theirs)")),
		error(direct()->query("SELECT pg_terminate_backend($theirs)")), 'as PostgreSQL: ' . error($d->query("SELECT pg_terminate_backend($theirs)")));
	isnt(error($d->query("SELECT pg_terminate_backend($theirs)")), 'no error', 'the listener of another role cannot be terminated');
	$d->query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND pid <> pg_backend_pid()");
	ok($c->closes(20), 'terminating all of its own ends its own client');
	sql("NOTIFY news, 'again'");
	is(hears($bystander, 'news=again'), 'news=again', '... and none of the other role');
	gone($d);
}

gone($bystander);
$node->stop;
done_testing();
