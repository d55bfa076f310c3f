# The server refuses pgpool's logins at a limit of its own: CONNECTION LIMIT of a role or of a database, max_connections
# used up by other sessions. Idle servers that count for that limit give their places up at once, whichever pool and
# worker has them; those that do not count stay.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(time);

my $node = pool_node('full', conf => "ssl = off\npgpool.workers = 2\npgpool.default_pool_size = 4\nmax_connections = 24\nautovacuum = off\n"
	. "pgpool.query_wait_timeout = 40s\npgpool.login_timeout = 40s");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }
sub leave { $_->send(PgPoolWire::message('X', '')), $_->close for @_ }
my @roles = map { "l$_" } 1 .. 5;
my @databases = map { "d$_" } 1 .. 3;
sql("CREATE ROLE $_ LOGIN PASSWORD 'secret'") for @roles, 'bystander';
sql("CREATE DATABASE $_") for @databases;
sub idle { return sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE state = 'idle' AND " . shift) }
# As PgPoolWire would wait for a message: longer than the time that is too long.
$PgPoolWire::LIMIT = 50;
my $soon = 15; # of 40 s that a client waits where idle servers stay, on a busy machine

# Several clients of a role at work at once, so that as many servers are idle afterwards, in whichever workers.
sub fill
{
	my ($role, $database, $n) = @_;
	my @c = map { connect_as($node, user => $role, password => 'secret', database => $database) } 1 .. $n;
	$_->send(PgPoolWire::message('Q', "BEGIN\0")) for @c;
	$_->answer for @c;
	$_->query('COMMIT') for @c;
	leave(@c);
}
sub served
{
	my ($role, $database, $what) = @_;
	my $start = time;
	my $got = eval {
		my $c = connect_as($node, user => $role, password => 'secret', database => $database);
		my $value = $c->value('SELECT current_user || current_database()');
		leave($c);
		$value;
	} // "no login: $@";
	my $took = time - $start;
	is($got, "$role$database", "$what: $role is served in $database");
	ok($took < $soon, sprintf '... soon: %.1f s, expected less than %d', $took, $soon);
}

fill('bystander', 'postgres', 1);
my $stays = sql("SELECT pid FROM pgpool.pg_stat_servers WHERE role = 'bystander'");

# ---- of a role, over all databases
{
	sql('ALTER ROLE l1 CONNECTION LIMIT 3');
	fill('l1', 'd1', 3);
	ok(poll_until(sub { idle("role = 'l1'") == 3 }), 'role: idle servers take all places of it in one database');
	served('l1', $_, 'role') for 'd2', 'd3', 'd1', 'd2', 'd3';
	cmp_ok(sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'l1'"), '<=', 3, 'role: never more than its limit');
	sql('ALTER ROLE l1 CONNECTION LIMIT -1');
}

# ---- of a database, over all roles
{
	sql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE \'d_\'');
	# else a client is given one that is about to die
	ok(poll_until(sub { !sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE database LIKE 'd_'") }), 'database: begins without servers');
	ok(poll_until(sub { !sql("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'd_'") }), '... and without sessions that still end');
	sql('ALTER DATABASE d1 CONNECTION LIMIT 4');
	# Again, should one have made room for the last: PostgreSQL may still count a session that nobody sees any more.
	ok(poll_until(sub { fill('l1', 'd1', 2); fill('l2', 'd1', 2); return idle("database = 'd1'") == 4 }), 'database: idle servers of two roles take all its places')
	  or diag('servers: ' . (sql("SELECT string_agg(role || ' ' || state, ', ') FROM pgpool.pg_stat_servers WHERE database = 'd1'") // 'none'));
	served($_, 'd1', 'database') for qw(l3 l4 l5 l1 l2);
	sql('ALTER DATABASE d1 CONNECTION LIMIT -1');
}

is(sql("SELECT pid FROM pgpool.pg_stat_servers WHERE role = 'bystander'"), $stays, 'an idle server that does not count for the limit stays');

# ---- of the server: all it has left is taken by sessions of its own port
{
	fill('l1', 'd1', 2);
	my (@direct, $error);
	for (1 .. 40)
	{
		my $c = PgPoolWire->open(port => $node->port);
		my $r = $c->login(user => 'l5', password => 'secret', database => 'd2');
		$error = $r->{error}{C}, last unless $r->{ok};
		push @direct, $c;
	}
	is($error, '53300', 'server: ' . @direct . ' direct sessions take what is left');
	served($_->[0], $_->[1], 'server') for map { [ "l$_", "d$_" ] } 2, 3, 2, 3, 2, 3;
	served('l1', 'd1', 'server') for 1 .. 6; # in either worker
	leave(@direct);
}

# ---- what is busy is waited for, and whoever waits is served as soon as there is a place
{
	sql('ALTER DATABASE d3 CONNECTION LIMIT 1');
	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'd3'");
	ok(poll_until(sub { !sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE database = 'd3'") }), 'busy: begins without servers');
	my $busy = connect_as($node, user => 'l1', password => 'secret', database => 'd3');
	$busy->query('BEGIN');
	my $failures = sql('SELECT sum(server_login_failures) FROM pgpool.pg_stat_pools');
	$busy->send(PgPoolWire::message('Q', "SELECT pg_sleep(2); COMMIT\0"));
	served('l2', 'd3', 'busy');
	is($busy->answer->{error}{C} // 'none', 'none', '... and the other has ended its transaction');
	$failures = sql('SELECT sum(server_login_failures) FROM pgpool.pg_stat_pools') - $failures;
	cmp_ok($failures, '<=', 15, "... without asking the server all the time: $failures refused logins");
	leave($busy);
}

$node->stop;
done_testing();
