# ALTER ROLE ... PASSWORD acts at once: the very next login with the new password succeeds and one with the old fails,
# also while clients of the role are connected and servers of its pool are idle; the sessions that are open go on.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = pool_node('password', conf => "ssl = off\npgpool.default_pool_size = 4");
$node->safe_psql('postgres', "CREATE ROLE alice LOGIN PASSWORD 'p0'");

my $old = connect_as($node, user => 'alice', password => 'p0');
is($old->value('SELECT current_user'), 'alice', 'a session with the first password works');
my ($new_ok, $old_refused, $session_ok, $busy_ok) = (0, 0, 0, 0);
my $rounds = 30;
for my $n (1 .. $rounds)
{
	my ($before, $now) = ('p' . ($n - 1), "p$n");
	# every third round a client is in the middle of a transaction
	my $busy = $n % 3 == 0 ? connect_as($node, user => 'alice', password => $before) : undef;
	$busy->query('BEGIN') if $busy;
	$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD '$now'");
	my $text = login_text($node, user => 'alice', database => 'postgres', password => $now);
	$text eq 'ok' ? $new_ok++ : diag("round $n, new password: $text");
	$text = login_text($node, user => 'alice', database => 'postgres', password => $before);
	$text eq '28P01 password authentication failed for user "alice"' ? $old_refused++ : diag("round $n, old password: $text");
	$session_ok++ if ($old->value('SELECT 1') // '') eq '1';
	$busy_ok++ if !$busy || (($busy->value('SELECT 2') // '') eq '2' && !$busy->query('COMMIT')->{error});
	$busy->close if $busy;
}
is($new_ok, $rounds, "the next login with the new password succeeds, $rounds times");
is($old_refused, $rounds, 'the next login with the old password fails');
is($session_ok, $rounds, 'a session from before goes on');
is($busy_ok, $rounds, 'a transaction from before goes on');

# When no server is left, those who know the new password open new ones; an old session profits from them.
$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD 'q'");
my $fresh = connect_as($node, user => 'alice', password => 'q');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
ok(poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'") == 0 }),
	'all servers of the role are gone');
is($fresh->value('SELECT 3'), '3', 'the session with the new password gets a new server');
# ... whichever worker they are in: what one client proved serves all sessions of the role
my @others = map { connect_as($node, user => 'alice', password => 'q') } 1 .. 8;
my $workers = $node->safe_psql('postgres', "SELECT count(DISTINCT worker) FROM pgpool.pg_stat_clients WHERE role = 'alice'");
is($workers, '2', 'there are sessions in both workers');
$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD 'r'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'") == 0 });
is(login_text($node, user => 'alice', database => 'postgres', password => 'r'), 'ok', 'one client logs in with the new password');
my @answers = map { $_->value('SELECT 4') } @others, $old;
is(join(' ', @answers), join(' ', ('4') x 9), 'the sessions with older passwords go on in both workers');
$fresh->close;
$fresh = connect_as($node, user => 'alice', password => 'r');
$fresh->query('SELECT 1');

# Nobody knows the newest password: the error says what happened, and the client is told, not left waiting.
$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD 'unknown'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'") == 0 });
my $r = $fresh->query('SELECT 5');
is($r->{error}{C}, '28P01', 'without the newest password no server can be opened') or diag($r->{error}{M});
is($r->{error}{D}, 'The password was changed since the client logged in.', '... and the error says why');
is(login_text($node, user => 'alice', database => 'postgres', password => 'unknown'), 'ok', 'the newest password opens the pool again');

# The kind of verifier may change as well.
$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD NULL");
is(login_text($node, user => 'alice', database => 'postgres', password => 'unknown'),
	'28P01 password authentication failed for user "alice"', 'a password that was taken away is refused');
$node->safe_psql('postgres', "ALTER ROLE alice PASSWORD 'back' VALID UNTIL '2001-01-01'");
is(login_text($node, user => 'alice', database => 'postgres', password => 'back'),
	'28P01 password authentication failed for user "alice"', 'an expired password is refused');
$node->safe_psql('postgres', "ALTER ROLE alice VALID UNTIL 'infinity'");
is(login_text($node, user => 'alice', database => 'postgres', password => 'back'), 'ok', '... until it is valid again');
$node->safe_psql('postgres', "ALTER ROLE alice NOLOGIN");
is(login_text($node, user => 'alice', database => 'postgres', password => 'back'),
	'28000 role "alice" is not permitted to log in', 'NOLOGIN acts at once');
# A session that is open and finds no server is told, and stays: what was taken may be given back.
for my $case ([ 'ALTER ROLE alice NOLOGIN', 'ALTER ROLE alice LOGIN', '28000' ],
	[ 'REVOKE CONNECT ON DATABASE postgres FROM public', 'GRANT CONNECT ON DATABASE postgres TO public', '42501' ],
	[ "ALTER ROLE alice VALID UNTIL '2001-01-01'", "ALTER ROLE alice VALID UNTIL 'infinity'", '28P01' ])
{
	my ($take, $give, $code) = @$case;
	$node->safe_psql('postgres', $give);
	my $open = connect_as($node, user => 'alice', password => 'back');
	$node->safe_psql('postgres', $take);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
	poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'") == 0 });
	my $refused = $open->query('SELECT 6');
	is("$refused->{error}{V} $refused->{error}{C}", "ERROR $code", "$take: a session that finds no server is told");
	$node->safe_psql('postgres', $give);
	ok(poll_until(sub { ($open->value('SELECT 7') // '') eq '7' }), '... and goes on when it is given back');
	$open->close;
}
$node->stop;
done_testing();
