# Whatever keeps a server between transactions counts for max_pinned, is shown as the reason, ends by pin_idle_timeout
# and, when others wait, by the limit: statements too long to share, a long unnamed one that waits for its use, SET
# SESSION AUTHORIZATION, and what the agent tells.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;

my $node = pool_node('reasons', conf => "ssl = off\npgpool.workers = 1\npgpool.default_pool_size = 2\npgpool.pin_grace_time = 500ms\nautovacuum = off");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }
sub client { return connect_as($node, user => 'boss', password => 'secret', database => 'postgres') }
sub leave { $_->send(PgPoolWire::message('X', '')), $_->close for @_ }
sub pool { return sql("SELECT $_[0] FROM pgpool.pg_stat_pools WHERE role = 'boss'") }
sub pinned { return sql("SELECT coalesce(pinned, '-') FROM pgpool.pg_stat_clients WHERE pid = $_[0]{pid}") }
sub code
{
	my $c = shift;
	return 'it is still open' unless $c->closes(30);
	my ($fatal) = map { PgPoolWire::error_fields($_->[1]) } grep { $_->[0] eq 'E' } @{ $c->{seen} };
	return $fatal ? $fatal->{C} : 'no error';
}
sql("CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret'");
sql('CREATE ROLE app');

sub statement { my ($name, $size) = @_; return PgPoolWire::message('P', "$name\0SELECT 1 /*" . 'x' x $size . "*/\0\0\0") . PgPoolWire::message('S', '') }
sub sends { my ($c, $bytes) = @_; $c->send($bytes); return $c->answer }
my %reasons = (
	'long statement' => [ sub { sends($_[0], statement('big', 1_100_000)) }, 'DEALLOCATE ALL' ],
	'unnamed statement' => [ sub { sends($_[0], statement('', 100_000)) }, 'SELECT 1' ],
	'SET SESSION AUTHORIZATION' => [ sub { $_[0]->query('SET SESSION AUTHORIZATION app') }, 'RESET SESSION AUTHORIZATION' ],
	'advisory lock' => [ sub { $_[0]->query('SELECT pg_advisory_lock(7)') }, 'SELECT pg_advisory_unlock(7)' ],
	'temporary object' => [ sub { $_[0]->query('CREATE TEMP TABLE tt (a int)') }, 'DROP TABLE tt' ],
	'PREPARE' => [ sub { $_[0]->query('PREPARE p AS SELECT 1') }, 'DEALLOCATE p' ],
	'WITH HOLD cursor' => [ sub { $_[0]->query('DECLARE cc CURSOR WITH HOLD FOR SELECT 1') }, 'CLOSE cc' ],
);
for my $reason (sort keys %reasons)
{
	my ($do, $undo) = @{ $reasons{$reason} };
	my ($c, $d, $waits) = map { client() } 1 .. 3;
	my $r = $do->($c);
	is($r->{error}{M} // pinned($c), $reason, "$reason: is the reason");
	is(pool('servers_pinned'), 1, "$reason: counts");
	$r = $c->query($undo);
	is($r->{error}{M} // pinned($c), '-', "$reason: $undo lets the server go");
	is(pool('servers_pinned'), 0, "$reason: ... and counts no more");
	$do->($c);
	$d->query('CREATE TEMP TABLE another (a int)');
	is(pool('servers_pinned'), 2, "$reason: both servers are kept");
	is($waits->value("SELECT 'served'"), 'served', "$reason: who waits is served");
	is(code($c), '53400', "$reason: ... for one too many kept a server, and was idle for longest");
	is($d->value('SELECT 1'), '1', "$reason: ... the other goes on");
	leave($d);
	ok(poll_until(sub { pool('servers_pinned') == 0 }, 'let go'), "$reason: nothing is left");
	sql("SELECT pgpool.set_user('default', 'boss', pin_idle_timeout => '300 milliseconds')");
	my $idle = client();
	$do->($idle);
	is(code($idle), '57P05', "$reason: who is idle is ended by pin_idle_timeout");
	is($waits->value('SELECT 1'), '1', "$reason: ... who keeps no server is not");
	sql("SELECT pgpool.set_user('default', 'boss', reset => '{pin_idle_timeout}')");
	ok(poll_until(sub { pool('servers_pinned') == 0 }, 'let go'), "$reason: nothing is left");
	leave($waits);
}

# ---- what cannot be done again elsewhere ends with the server
{
	my $c = client();
	$c->query('SET SESSION AUTHORIZATION app');
	my $pid = sql("SELECT server_pid FROM pgpool.pg_stat_clients WHERE pid = $c->{pid}");
	sql("SELECT pg_terminate_backend($pid)");
	is(code($c), '57P01', 'a client with another identity whose server is terminated does not go on as itself');
}

$node->stop;
done_testing();
