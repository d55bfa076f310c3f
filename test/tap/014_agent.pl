# The agent: what a session keeps is known whatever made it, and only while it is so. Settings go with their client from
# transaction to transaction, what cannot go with it pins its server, and what ends the pin is noticed; the backend shows
# whom it serves; nobody but a worker can have an agent.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute sync);
use Test::More;

my $node = pool_node('agent', conf => <<'CONF');
pgpool.default_pool_size = 2
pgpool.workers = 1
log_line_prefix = '%m [%p] (%r) '
log_statement = all
CONF
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { for (@_) { my $r = $admin->query($_); die "$_: $r->{error}{M}" if $r->{error} } }
sql("CREATE ROLE app LOGIN PASSWORD 'secret'", 'CREATE ROLE other', 'GRANT other TO app', 'CREATE SCHEMA app AUTHORIZATION app',
	"ALTER ROLE app SET work_mem = '5MB'", 'SET ROLE app',
	"CREATE FUNCTION app.quiet() RETURNS int LANGUAGE sql SET enable_sort = off AS 'SELECT 1'",
	"CREATE FUNCTION app.loud() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET random_page_cost = 2; END'",
	'CREATE TABLE app.t (a int)', 'CREATE SEQUENCE app.s', 'RESET ROLE');

# ---- forged: the parameter is accepted, and does nothing
{
	my $forger = PgPoolWire->open(port => $node->port);
	ok($forger->login(user => 'app', password => 'secret', database => 'postgres', 'pgpool.agent' => '0.0')->{ok}, 'anybody may send the parameter');
	$forger->{seen} = [];
	$forger->query("SET work_mem = '8MB'");
	$forger->query('SELECT pg_advisory_lock(99)');
	is(scalar(grep { $_->[0] eq 'S' } @{ $forger->{seen} }), 0, '... but there is no agent');
	like($forger->value("SET pgpool.agent = '0.0'"), qr/^55P02/, '... nor by SET');
	$forger->close;
}

my ($one, $two) = map { connect_as($node, user => 'app', password => 'secret') } 1 .. 2;
sub pinned
{
	return $admin->value("SELECT coalesce(string_agg(coalesce(pinned, 'LISTEN'), ' & '), '') FROM pgpool.stat_clients() WHERE role = 'app' AND (pinned IS NOT NULL OR state = 'listening')");
}

# ---- pins, exact in both directions: after each statement, the reasons
sub pins
{
	while (my ($text, $reasons) = splice @_, 0, 2)
	{
		my $r = $one->query($text);
		diag "$text: $r->{error}{M}" if $r->{error};
		is(pinned(), $reasons, "$text: " . ($reasons || 'no pin'));
	}
}
pins('SELECT 1' => '', "SET work_mem = '8MB'" => '', 'RESET work_mem' => '',
	'SELECT pg_advisory_lock(1)' => 'advisory lock', 'SELECT pg_advisory_lock(1)' => 'advisory lock',
	'SELECT pg_advisory_unlock(1)' => 'advisory lock', 'SELECT pg_advisory_unlock(1)' => '',
	'SELECT pg_advisory_xact_lock(1)' => '',
	'BEGIN; SELECT pg_advisory_lock_shared(2); ROLLBACK' => 'advisory lock', 'SELECT pg_advisory_unlock_all()' => '');
pins('LISTEN a' => 'LISTEN', 'LISTEN b; UNLISTEN a' => 'LISTEN', 'BEGIN; UNLISTEN b; ROLLBACK' => 'LISTEN', 'UNLISTEN *' => '',
	'BEGIN; LISTEN a; ROLLBACK' => '', "DO 'BEGIN EXECUTE ''LISTEN c''; END'" => 'LISTEN', 'DISCARD ALL' => '');
pins('CREATE TEMP TABLE t (a int)' => 'temporary object', 'BEGIN; DROP TABLE t; ROLLBACK' => 'temporary object', 'DROP TABLE t' => '',
	'BEGIN; CREATE TEMP TABLE t (a int); ROLLBACK' => '', 'BEGIN; CREATE TEMP TABLE t (a int) ON COMMIT DROP; COMMIT' => '',
	'CREATE TEMP VIEW v AS SELECT 1' => 'temporary object', 'DISCARD TEMP' => '',
	"CREATE FUNCTION pg_temp.g() RETURNS int LANGUAGE sql AS 'SELECT 1'" => 'temporary object', 'DROP FUNCTION pg_temp.g()' => '',
	'CREATE TYPE pg_temp.y AS (a int)' => 'temporary object', 'DISCARD ALL' => '');
pins('BEGIN; DECLARE c CURSOR FOR SELECT 1; COMMIT' => '', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1' => 'WITH HOLD cursor', 'CLOSE c' => '',
	'BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; ROLLBACK' => '',
	"DO 'BEGIN EXECUTE ''DECLARE d CURSOR WITH HOLD FOR SELECT 1''; END'" => 'WITH HOLD cursor', 'CLOSE ALL' => '');
pins("SELECT nextval('app.s'), currval('app.s')" => '', 'SELECT app.quiet()' => '');
pins("DO 'BEGIN EXECUTE ''PREPARE q AS SELECT 1''; END'" => 'PREPARE', 'BEGIN; DEALLOCATE q; ROLLBACK' => '',
	'BEGIN; PREPARE p AS SELECT 1; ROLLBACK' => 'PREPARE',
	'LISTEN a; CREATE TEMP TABLE t (a int); SELECT pg_advisory_lock(1)' => 'advisory lock, LISTEN, temporary object, PREPARE', 'DISCARD ALL' => '');
{
	$one->send(parse('SELECT 7', 's') . bind_to('s') . execute() . sync());
	is($one->answer->{rows}[0][0], '7', 'a statement that was prepared by the protocol');
	is(pinned(), '', '... is no pin');
}
pins('SELECT setseed(0.5)' => 'setseed', 'DISCARD ALL' => 'setseed');
$one->close;
poll_until(sub { pinned() eq '' }, 'the client left');
$one = connect_as($node, user => 'app', password => 'secret');
pins("BEGIN; SELECT set_config('seed', '0.5', true); ROLLBACK" => 'setseed');
$one->close;
poll_until(sub { pinned() eq '' }, 'the client left');
$one = connect_as($node, user => 'app', password => 'secret');

# ---- settings: two clients take turns at the one server that is left
sql("SELECT pgpool.set_user('default', 'app', pool_size => 1)");
poll_until(sub { $one->value('SELECT pg_backend_pid()') eq $two->value('SELECT pg_backend_pid()') }, 'both are served by one backend');
sub keeps
{
	my ($text, $show, $own, $others, $name) = @_;
	my $r = $one->query($text);
	diag "$text: $r->{error}{M}" if $r->{error};
	is($two->value($show), $others, "$text: others do not have it");
	is($one->value($show), $own, '... its client has it');
}
keeps("SET work_mem = '8MB'", 'SHOW work_mem', '8MB', '5MB');
keeps('RESET work_mem', 'SHOW work_mem', '5MB', '5MB');
keeps("SELECT set_config('work_mem', '9MB', false)", 'SHOW work_mem', '9MB', '5MB');
keeps("BEGIN; SET work_mem = '10MB'; ROLLBACK", 'SHOW work_mem', '9MB', '5MB');
keeps("BEGIN; SET LOCAL work_mem = '10MB'; COMMIT", 'SHOW work_mem', '9MB', '5MB');
keeps('SELECT app.loud()', 'SHOW random_page_cost', '2', '4');
keeps('SELECT app.quiet()', 'SHOW enable_sort', 'on', 'on');
keeps('DISCARD ALL', 'SELECT current_setting($$work_mem$$) || current_setting($$random_page_cost$$)', '5MB4', '5MB4');
keeps('SET search_path = app, "We ird"', 'SHOW search_path', 'app, "We ird"', '"$user", public');
keeps('SET ROLE other', 'SELECT current_user', 'other', 'app');
keeps('RESET ROLE', 'SELECT current_user', 'app', 'app');
keeps("SET myapp.user_id = '42'", "SELECT coalesce(current_setting('myapp.user_id', true), '')", '42', '');
keeps("SELECT set_config('myapp.user_id', '43', false)", "SELECT coalesce(current_setting('myapp.user_id', true), '')", '43', '');
keeps("BEGIN; SELECT set_config('myapp.other', '1', true); COMMIT", "SELECT coalesce(current_setting('myapp.other', true), '')", '', '');
keeps('RESET ALL', "SELECT coalesce(current_setting('myapp.user_id', true), '')", '', '');

# ---- whom the backend serves
for my $client ($one, $two, $one)
{
	my $port = $client->{socket}->sockport;
	is($client->value('SELECT host(inet_client_addr()) || $$ $$ || inet_client_port()'), "127.0.0.1 $port", 'inet_client_addr() is the client');
	is($client->value('SELECT host(client_addr) || $$ $$ || client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()'), "127.0.0.1 $port", 'pg_stat_activity, too');
	$client->value("SELECT 'by $port'");
	like(slurp_log($node), qr/\(127\.0\.0\.1\($port\)\) LOG:  statement: SELECT 'by $port'/, 'the line in the log, too');
}

{
	my $shown = sub { $admin->value("SELECT string_agg(DISTINCT application_name || coalesce(' ' || client_addr, ''), ',') FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'") };
	ok(defined poll_until(sub { $shown->() eq 'pgpool: idle' }, 'pooled backends are shown as such'), 'a backend that nobody uses says so');
	is($one->value('SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()'),
		$one->value("SELECT current_setting('application_name')"), '... until somebody does');
}

# ---- where its last commit ended
sub position { return $admin->value("SELECT max(commit_lsn) FROM pgpool.stat_clients() WHERE role = 'app' AND client_port = " . $one->{socket}->sockport) }
my $before = $admin->value('SELECT pg_current_wal_insert_lsn()');
$one->query('BEGIN; SET LOCAL synchronous_commit = off; INSERT INTO app.t VALUES (1); COMMIT');
my $commit = position();
is($admin->value("SELECT pg_lsn '$before' < '$commit' AND '$commit' <= pg_current_wal_insert_lsn()"), 't', 'the end of a commit that does not wait for the disk');
$one->query('SELECT count(*) FROM app.t');
$one->query('BEGIN; INSERT INTO app.t VALUES (1); ROLLBACK');
is(position(), $commit, '... which reading and ROLLBACK do not move');

done_testing();
