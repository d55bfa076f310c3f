# Clients that keep a server: how many may, and for how long without a word, is up to the tenant; who is too many or
# idle too long is told why. What a sequence gave to a client is nobody else's; with pin_sequences it is still there
# when another transaction asks, however busy the pool is.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(time);

my $node = pool_node('pins', conf => "ssl = off\npgpool.workers = 1\npgpool.default_pool_size = 3\npgpool.pin_grace_time = 300ms\nautovacuum = off");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }
sub client { return connect_as($node, user => $_[0], password => 'secret') }
sub leave { $_->send(PgPoolWire::message('X', '')) for @_ }
# What ended a connection: SQLSTATE, message, detail and hint.
sub last_words
{
	my $c = shift;
	ok($c->closes(10), 'the connection ends') or return 'it is still open';
	my ($fatal) = map { PgPoolWire::error_fields($_->[1]) } grep { $_->[0] eq 'E' } @{ $c->{seen} };
	return $fatal ? join '|', @$fatal{qw(S C M D H)} : 'no error';
}
sub pool { my ($role, $column) = @_; return sql("SELECT $column FROM pgpool.pg_stat_pools WHERE role = '$role'") }
sub pinned { return sql("SELECT coalesce(pinned, '-') FROM pgpool.pg_stat_clients WHERE pid = $_[0]{pid}") }
for my $role (qw(few idles serial luck))
{
	sql("CREATE ROLE $role LOGIN PASSWORD 'secret'");
	sql("CREATE SCHEMA $role AUTHORIZATION $role");
	sql("CREATE TABLE $role.t (id int GENERATED ALWAYS AS IDENTITY, n serial, a int)");
	sql("CREATE SEQUENCE $role.s CACHE 10");
	sql("GRANT ALL ON ALL TABLES IN SCHEMA $role TO $role");
	sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA $role TO $role");
}

# ---- how many
{
	my @c = map { client('few') } 1 .. 4;
	is(pool('few', 'max_pinned'), 2, 'by default all servers of a pool but one may be kept');
	sql("SELECT pgpool.set_user('default', 'few', max_pinned => 1)");
	ok(poll_until(sub { pool('few', 'max_pinned') == 1 }, 'max_pinned'), 'one, says the role');
	$c[0]->query('CREATE TEMP TABLE tt (a int)');
	$c[1]->query('SELECT pg_advisory_lock(1)');
	is($c[2]->value('SELECT 1'), '1', 'a second one is not one too many as long as nobody waits');
	$c[0]->query('SELECT 1');
	$c[2]->query('BEGIN');
	is($c[3]->value('SELECT 1'), '1', 'who waits is served');
	like(last_words($c[1]), qr/^FATAL\|53400\|too many clients of this pool keep their server\|This one keeps it because of: advisory lock, and was idle for \d+ ms while others waited\. A pool of 3 has at most 1 for such clients\.\|Raise max_pinned or pool_size of the tenant or user, or pgpool\.pin_grace_time, or use pool_mode session or the session port\.$/,
		'the one that was idle for longest is told the limit');
	$c[2]->query('COMMIT');
	sql("SELECT pgpool.set_user('default', 'few', max_pinned => 9)");
	ok(poll_until(sub { pool('few', 'max_pinned') == 3 }, 'max_pinned'), 'never more than there are servers');
	$c[$_]->query('CREATE TEMP TABLE tt (a int)') for 2, 3;
	is(pool('few', 'servers_pinned'), 3, 'then all of them may be kept');
	is(pool('few', 'pinned'), 'temporary object (3)', '... and pg_stat_pools says why');
	sql("SELECT pgpool.set_user('default', 'few', reset => '{max_pinned}')");
	ok(poll_until(sub { pool('few', 'max_pinned') == 2 }, 'max_pinned'), 'reset goes back to the default');
	is($c[0]->value('SELECT 1'), '1', 'and who keeps one already stays');
	sql('ALTER SYSTEM SET pgpool.default_max_pinned = 1');
	sql('SELECT pg_reload_conf()');
	ok(poll_until(sub { pool('few', 'max_pinned') == 1 }, 'max_pinned'), 'the default is a setting');
	sql('ALTER SYSTEM RESET pgpool.default_max_pinned');
	sql('SELECT pg_reload_conf()');
	leave(@c[0, 2, 3]);
}

# ---- how long
{
	sql("SELECT pgpool.set_user('default', 'idles', pin_idle_timeout => '400 milliseconds')");
	my ($keeps, $other) = (client('idles'), client('idles'));
	$keeps->query('CREATE TEMP TABLE tt (a int)');
	$keeps->query('LISTEN a') and $keeps->need(1, 0.15) for 1 .. 5;
	is(pinned($keeps), 'LISTEN, temporary object', 'who asks often enough stays');
	my $backend = sql("SELECT server_pid FROM pgpool.pg_stat_clients WHERE pid = $keeps->{pid}");
	is($keeps->value('SELECT pg_sleep(0.8)'), '', 'and who waits for its query');
	$keeps->query('BEGIN');
	ok(!$keeps->need(1, 0.8), 'and who is in a transaction');
	$keeps->query('COMMIT');
	my $start = time;
	like(last_words($keeps), qr/^FATAL\|57P05\|terminating connection due to pgpool\.pin_idle_timeout\|The client was idle for \d+ ms and kept its server because of: LISTEN, temporary object\.\|The limit is pgpool\.pin_idle_timeout or pin_idle_timeout of the tenant or user, now 400 ms\.$/,
		'who is idle is disconnected, and told why');
	my $took = time - $start;
	ok($took > 0.35 && $took < 2, sprintf 'after its time: %.2f s', $took);
	ok(poll_until(sub { pool('idles', 'servers_pinned') == 0 }, 'let go'), 'its server is free');
	is($other->value('SELECT 1'), '1', 'a client that keeps none stays');
	is($other->value("SELECT count(*) FROM pg_class WHERE relname = 'tt'"), '0', 'nothing is left of the first');
	leave($other);
}

# ---- sequences: off, the default
{
	sql("SELECT pgpool.set_user('default', 'luck', pool_size => 1)");
	my ($a, $b) = (client('luck'), client('luck'));
	my @use = ("SELECT nextval('luck.s')", 'INSERT INTO luck.t (a) VALUES (1)', "SELECT setval('luck.s', 50)", 'DO $$ BEGIN INSERT INTO luck.t (a) VALUES (1); END $$');
	for my $use (@use)
	{
		my $r = $a->query($use);
		is($r->{error} ? $r->{error}{M} : pinned($a), '-', "$use: keeps no server");
		is($b->value('SELECT lastval()'), '55000 lastval is not yet defined in this session', '... and lastval() of another client is its own');
		like($b->value("SELECT currval('luck.$_')"), qr/^55000 currval of sequence "$_" is not yet defined in this session/, "... currval() of $_, too") for 's', 't_n_seq', 't_id_seq';
		my $do = $b->query('DO $$ BEGIN RAISE EXCEPTION \'%\', lastval(); END $$');
		is($do->{error}{C}, '55000', '... also without a message before it');
	}
	is($a->value('SELECT pg_backend_pid()'), $b->value('SELECT pg_backend_pid()'), 'all on one backend');
	is($b->value('SELECT nextval(\'luck.t_n_seq\') = lastval()'), 't', 'in one transaction it is there');
	is($b->value("SELECT currval('luck.t_n_seq') = lastval()"), 't', '... and as long as nobody else has the server');
	leave($a, $b);
}

# ---- sequences: on
{
	sql("SELECT pgpool.create_tenant('keeps', pin_sequences => true, pool_size => 4)");
	my @other = map { client('serial.keeps') } 1 .. 3;
	my $turn = sub { # all at once, so that every free server serves one of them
		$_->send(PgPoolWire::message('Q', "SELECT pg_sleep(0.001)\0")) for @other;
		$_->answer for @other;
	};
	my @use = (
		[ "SELECT nextval('serial.s')", "SELECT currval('serial.s') = lastval()" ],
		[ "SELECT setval('serial.s', 500)", "SELECT currval('serial.s') = 500" ],
		[ 'INSERT INTO serial.t (a) VALUES (1)', "SELECT currval('serial.t_n_seq') > 0" ],
		[ 'INSERT INTO serial.t (a) VALUES (1)', "SELECT currval('serial.t_id_seq') > 0" ],
		[ 'DO $$ BEGIN INSERT INTO serial.t (a) VALUES (1); END $$', 'SELECT lastval() > 0' ],
		[ "BEGIN; SELECT nextval('serial.s'); ROLLBACK", "SELECT currval('serial.s') = lastval()" ]);
	for my $use (@use)
	{
		my ($begin, $see) = @$use;
		for my $end ('DISCARD SEQUENCES', 'DISCARD ALL')
		{
			my $c = client('serial.keeps');
			my $r = $c->query($begin);
			is($r->{error} ? $r->{error}{M} : pinned($c), 'sequences', "$begin: keeps the server");
			is(join(' ', map { $turn->(); $c->value($see) } 1 .. 3), 't t t', '... and the value is there');
			$c->query($end);
			is(pinned($c), '-', "... until $end");
			leave($c);
		}
	}
	my $c = client('serial.keeps');
	$c->query('SELECT id FROM serial.t');
	is(pinned($c), '-', 'reading keeps none');
	$c->query("SELECT nextval('serial.s')");
	leave($c);
	ok(poll_until(sub { pool('serial', 'servers_pinned') == 0 }, 'let go'), 'a client that leaves lets go');
	is(join(' ', map { $_->value('SELECT lastval()') =~ /^(\d+)/ } @other), '55000 55000 55000', '... and takes the values with it');
	sql("SELECT pgpool.set_user('keeps', 'serial', pin_sequences => false)");
	my $plain = client('serial.keeps');
	ok(poll_until(sub { $plain->query("SELECT nextval('serial.s')"); pinned($plain) eq '-' or !$plain->query('DISCARD SEQUENCES') }, 'pin_sequences'),
		'a role can have it off again');
	leave($plain, @other);
}

$node->stop;
done_testing();
