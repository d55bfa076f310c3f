# A transaction-mode session is like one of its own: what a client sets is there in its next statement and in nobody
# else's, although five other clients with other settings use both servers of the pool between any two statements.
# What cannot be taken from one server to another keeps the server, exactly as long as it is there.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(sleep);

my $node = pool_node('sessions', conf => "ssl = off\npgpool.default_pool_size = 2\npgpool.workers = 1\nmax_prepared_transactions = 4");
my $me = (getpwuid $>)[0];
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret';
CREATE ROLE clerk; CREATE ROLE guest; GRANT clerk, guest TO app;
GRANT CREATE ON DATABASE postgres TO app;
CREATE SCHEMA one AUTHORIZATION app; CREATE SCHEMA two AUTHORIZATION app; CREATE SCHEMA "Odd, ""name" AUTHORIZATION app;
CREATE TABLE one.t AS SELECT 1 AS a; ALTER TABLE one.t OWNER TO app;
CREATE TABLE kept (a int); ALTER TABLE kept OWNER TO app;
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (1) RETURNING a';
CREATE FUNCTION set_in_function() RETURNS text LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''3333kB''; RETURN current_setting(''work_mem''); END';
ALTER FUNCTION writes() OWNER TO app;
SQL
my @app = (user => 'app', password => 'secret');
my @boss = (user => 'boss', password => 'secret');

# ---- five others: one of plain defaults, four with their own values of nearly everything
my @elsewhere = map { my $n = $_; {
	application_name => "other $n", search_path => "two, other$n", TimeZone => ('Asia/Tokyo', 'America/Lima', 'UTC', 'Europe/Rome')[$n],
	DateStyle => ('German, DMY', 'SQL, MDY', 'Postgres, DMY', 'ISO, YMD')[$n], client_encoding => ('LATIN1', 'UTF8', 'WIN1252', 'LATIN9')[$n],
	IntervalStyle => ('iso_8601', 'sql_standard', 'postgres_verbose', 'postgres')[$n], work_mem => (2000 + $n) . 'kB', enable_seqscan => $n % 2 ? 'off' : 'on',
	enable_hashjoin => $n % 2 ? 'on' : 'off', random_page_cost => 2 + $n, extra_float_digits => $n, bytea_output => $n % 2 ? 'escape' : 'hex',
	statement_timeout => 20000 + $n, lock_timeout => 30000 + $n, 'myapp.user_id' => "other $n", 'myapp.x' => "x$n", plan_cache_mode => 'force_custom_plan',
	default_transaction_isolation => 'serializable', client_min_messages => 'error', geqo_threshold => 5 + $n, xmloption => 'document', lc_monetary => 'C',
	} } 0 .. 3;

sub others
{
	my @who = @_;
	my @c = map { connect_as($node, @who) } 0 .. 4;
	for my $n (0 .. 3)
	{
		my $set = $elsewhere[$n];
		$c[$n]->query(join ';', map { "SET $_ = " . ($_ eq 'search_path' ? $set->{$_} : "'$set->{$_}'") } sort keys %$set)->{error} and die;
	}
	return \@c;
}

# All of them at once, so that both servers serve some.
my ($passes, $wrong) = (0, 0);
sub turn
{
	my $others = shift;
	for my $c (@$others) { $c->send(PgPoolWire::message('Q', "SELECT pg_sleep(0.001), current_setting('application_name')\0")) }
	for my $n (0 .. 4)
	{
		my $r = $others->[$n]->answer;
		my $got = $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{rows}[0][1];
		$wrong++, diag("other $n came to see $got") if $got ne ($n < 4 ? "other $n" : '');
	}
	$passes++;
}

my $others = others(@app);
my $plain = $others->[4];

sub gauge
{
	my ($pid) = @_;
	return $node->safe_psql('postgres', "SELECT coalesce(pinned, CASE state WHEN 'listening' THEN 'LISTEN' END, '-') FROM pgpool.pg_stat_clients WHERE pid = $pid");
}
sub pinned { my $c = shift; return gauge($c->{pid}) }
# One message for each statement, a DO in one.
sub run { my ($c, $sql) = @_; $c->query($_) for $sql =~ /\$\$/ ? $sql : split /; /, $sql }
# Who only listens needs its server for about a second; 083_listen.pl is about that.
sub servers_pinned
{
	return $node->safe_psql('postgres', "SELECT coalesce(sum(servers_pinned), 0) + (SELECT count(*) FROM pgpool.pg_stat_clients WHERE state = 'listening') FROM pgpool.pg_stat_pools");
}

# ---- settings: what sets it, what shows it (SHOW by default)
my @settings = (
	[ 'SET enable_seqscan = off', 'enable_seqscan' ], [ 'SET enable_hashjoin TO false', 'enable_hashjoin' ], [ 'SET row_security = off', 'row_security' ],
	[ 'SET jit = off', 'jit' ], [ "SET work_mem = '1234kB'", 'work_mem' ], [ 'SET geqo_threshold = 7', 'geqo_threshold' ],
	[ 'SET extra_float_digits = -3', 'extra_float_digits' ], [ "SET statement_timeout = '7s'", 'statement_timeout' ],
	[ "SET lock_timeout = '3min'", 'lock_timeout' ], [ "SET maintenance_work_mem = '1GB'", 'maintenance_work_mem' ],
	[ "SET effective_cache_size = '3TB'", 'effective_cache_size' ], [ 'SET random_page_cost = 1.25', 'random_page_cost' ],
	[ 'SET seq_page_cost = 0.1', 'seq_page_cost' ], [ 'SET cursor_tuple_fraction = 0.123456789012345', 'cursor_tuple_fraction' ],
	[ 'SET bytea_output = escape', 'bytea_output' ], [ 'SET xmloption = document', 'xmloption' ], [ 'SET plan_cache_mode = force_generic_plan', 'plan_cache_mode' ],
	[ 'SET default_transaction_isolation = serializable', 'default_transaction_isolation' ],
	[ 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE', 'default_transaction_isolation' ],
	[ 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY', 'default_transaction_read_only' ],
	[ 'SET client_min_messages = debug1', 'client_min_messages' ], [ "SET application_name = 'it''s \\ me'", 'application_name' ],
	[ "SET default_text_search_config = 'pg_catalog.english'", 'default_text_search_config' ], [ "SET lc_monetary = 'POSIX'", 'lc_monetary' ],
	[ "SET lc_numeric = 'C'", 'lc_numeric' ], [ "SET default_tablespace = pg_default", 'default_tablespace' ],
	[ "SET temp_tablespaces = pg_default", 'temp_tablespaces' ], [ 'SET search_path = one, public', 'search_path' ], [ "SET SCHEMA 'one'", 'search_path' ],
	[ 'SET search_path = "Odd, ""name", one', 'search_path' ], [ "SET search_path = ''", 'search_path' ], [ "SET search_path = one", undef, 'SELECT a FROM t' ],
	[ "SET DateStyle = 'German'", 'DateStyle' ], [ "SET datestyle TO sql, dmy", 'DateStyle' ], [ "SET TIME ZONE 'Asia/Kathmandu'", 'TimeZone' ],
	[ "SET TIME ZONE -7.5", 'TimeZone' ], [ "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", 'TimeZone' ], [ 'SET TIME ZONE LOCAL', 'TimeZone' ],
	[ "SET NAMES 'LATIN1'", 'client_encoding' ], [ "SET client_encoding = 'SJIS'", 'client_encoding' ], [ "SET IntervalStyle = sql_standard", 'IntervalStyle' ],
	[ "SET timezone_abbreviations = 'Australia'", 'timezone_abbreviations' ], [ 'SET standard_conforming_strings = off', 'standard_conforming_strings', ],
	[ "SET myapp.user_id = '42'", 'myapp.user_id' ], [ "SET myapp.user_id = ''", 'myapp.user_id' ], [ 'SET "Weird".name = x', 'weird.name' ],
	[ "SELECT set_config('myapp.x', 'a;b''c', false)", 'myapp.x' ], [ "SELECT set_config('search_path', 'two', false)", 'search_path' ],
	[ 'SELECT set_in_function()', 'work_mem' ], [ "DO \$\$ BEGIN PERFORM set_config('work_mem', '2222', false); END \$\$", 'work_mem' ],
	[ "BEGIN; SET work_mem = '4444kB'; COMMIT", 'work_mem' ], [ "BEGIN; SET LOCAL work_mem = '4444kB'; COMMIT", 'work_mem' ], [ "BEGIN; SET work_mem = '4444kB'; ROLLBACK", 'work_mem' ],
	[ "SET work_mem = '5555kB'; SELECT 1/0", 'work_mem' ], [ "SET work_mem = '100kB'; BEGIN; SET LOCAL work_mem = '5555kB'; COMMIT", 'work_mem' ],
	[ 'SET ROLE clerk', undef, 'SELECT current_user, session_user' ], [ "SELECT set_config('role', 'guest', false)", undef, 'SELECT current_user' ],
	[ 'SET ROLE clerk', 'role' ], [ 'SET ROLE none', 'role' ], [ 'SET ROLE clerk; RESET ROLE', undef, 'SELECT current_user' ],
	[ "SET work_mem = '100kB'; SET search_path = one; RESET ALL", 'work_mem' ], [ "SET work_mem = '100kB'; RESET work_mem", 'work_mem' ],
	[ "SET work_mem = '100kB'; SET work_mem TO DEFAULT", 'work_mem' ], [ "SET DateStyle = 'SQL'; RESET DateStyle", 'DateStyle' ],
	[ "SET vacuum_cost_delay = '1.5ms'", 'vacuum_cost_delay' ], [ "SET gin_fuzzy_search_limit = 3", 'gin_fuzzy_search_limit' ],
	[ "SET synchronous_commit = off", 'synchronous_commit' ], [ "SET check_function_bodies = off", 'check_function_bodies' ],
	[ "SET idle_in_transaction_session_timeout = '1h'", 'idle_in_transaction_session_timeout' ], [ "SET default_toast_compression = pglz", 'default_toast_compression' ]);
my @of_superuser = (
	[ 'SET log_statement = ddl', 'log_statement' ], [ "SET log_min_duration_statement = '7min'", 'log_min_duration_statement' ],
	[ 'SET session_replication_role = replica', 'session_replication_role' ], [ 'SET deadlock_timeout = 2345', 'deadlock_timeout' ],
	[ 'SET log_min_messages = error', 'log_min_messages' ], [ 'SET zero_damaged_pages = on', 'zero_damaged_pages' ], [ 'SET track_functions = all', 'track_functions' ],
	[ 'SET allow_system_table_mods = on', 'allow_system_table_mods' ], [ 'SET lc_messages = "C"', 'lc_messages' ], [ 'SET temp_file_limit = 123456', 'temp_file_limit' ]);

sub both
{
	my ($c, $sql) = @_;
	my $r = $c->query($sql);
	return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : join ' ', map { join ',', map { $_ // 'null' } @$_ } @{ $r->{rows} };
}

my $hops = 0;
for my $group ([ \@app, $others, \@settings ], [ \@boss, others(@boss), \@of_superuser ])
{
	my ($who, $around, $list) = @$group;
	for my $item (@$list)
	{
		my ($set, $name, $read) = @$item;
		$read //= "SHOW $name";
		# A placeholder that somebody made exists in the backend, as an empty one.
		$read = "SELECT coalesce(current_setting('$name', true), '')" if $name && $name =~ /\./;
		my $direct = connect_as($node, @$who, port => $node->port);
		my $pooled = connect_as($node, @$who);
		my $default = both($direct, $read);
		my ($told_direct, $told) = map { both($_, $set) } $direct, $pooled;
		turn($around);
		my $wanted = both($direct, $read);
		my $before = 0;
		my @seen = map { turn($around); my $seen = both($pooled, $read); my $backend = both($pooled, 'SELECT pg_backend_pid()'); $hops++ if $before && $backend ne $before;
			$before = $backend; $seen } 1 .. 2;
		is("$told; @seen", "$told_direct; $wanted $wanted", "$set: is there");
		is(both($around->[4], $read), $default, '... and nowhere else');
		is_deeply([ map { "$_=$pooled->{parameters}{$_}" } sort keys %{ $pooled->{parameters} } ],
			[ map { "$_=" . ($direct->{parameters}{$_} // '') } sort keys %{ $pooled->{parameters} } ], '... and told') if $name && exists $direct->{parameters}{$name};
		$_->send(PgPoolWire::message('X', '')) for $direct, $pooled;
	}
	$_->send(PgPoolWire::message('X', '')) for $around == $others ? () : @$around;
}
is("$wrong of $passes", "0 of $passes", 'the others saw their own all the while');
is(servers_pinned(), 0, 'no setting keeps a server');
cmp_ok($hops, '>=', 5, 'enough values were read on another backend than before');

# ---- what keeps the server: begin, reason, what the client sees; then each end of it
my @pins = (
	[ 'SELECT pg_advisory_lock(1)', 'advisory lock', [ "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", 1 ], 'SELECT pg_advisory_unlock(1)',
		'SELECT pg_advisory_unlock_all()', 'DISCARD ALL' ],
	[ 'SELECT pg_advisory_lock_shared(1, 2)', 'advisory lock', [ "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", 1 ], 'SELECT pg_advisory_unlock_shared(1, 2)' ],
	[ 'BEGIN; SELECT pg_advisory_lock(7); ROLLBACK', 'advisory lock', [ 'SELECT 1', 1 ], 'SELECT pg_advisory_unlock(7)' ],
	[ 'LISTEN news', 'LISTEN', [ 'SELECT * FROM pg_listening_channels()', 'news' ], 'UNLISTEN news', 'UNLISTEN *', 'DISCARD ALL' ],
	[ 'BEGIN; LISTEN "Odd"; COMMIT', 'LISTEN', [ 'SELECT * FROM pg_listening_channels()', 'Odd' ], 'UNLISTEN "Odd"', 'BEGIN; UNLISTEN *; COMMIT' ],
	[ 'CREATE TEMP TABLE tt AS SELECT 7 AS a', 'temporary object', [ 'SELECT a FROM tt', 7 ], 'DROP TABLE tt', 'DISCARD TEMP', 'DISCARD ALL', 'BEGIN; DROP TABLE tt; COMMIT' ],
	[ 'SELECT 7 AS a INTO TEMP tt', 'temporary object', [ 'SELECT a FROM tt', 7 ], 'DROP TABLE tt' ],
	[ "DO \$\$ BEGIN EXECUTE 'CREATE TEMP TABLE tt AS SELECT 7 AS a'; END \$\$", 'temporary object', [ 'SELECT a FROM tt', 7 ], "DO \$\$ BEGIN EXECUTE 'DROP TABLE tt'; END \$\$" ],
	[ 'CREATE TEMP VIEW tv AS SELECT 8 AS a', 'temporary object', [ 'SELECT a FROM tv', 8 ], 'DROP VIEW tv', 'DISCARD TEMP' ],
	[ 'CREATE TEMP SEQUENCE ts', 'temporary object', [ "SELECT nextval('ts') > 0", 't' ], 'DROP SEQUENCE ts' ],
	[ "CREATE TYPE pg_temp.mood AS ENUM ('sad')", 'temporary object', [ "SELECT 'sad'::pg_temp.mood", 'sad' ], 'DROP TYPE pg_temp.mood', 'DISCARD ALL' ],
	[ 'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS $$SELECT 9$$', 'temporary object', [ 'SELECT pg_temp.f()', 9 ], 'DROP FUNCTION pg_temp.f()', 'DISCARD TEMP' ],
	[ 'CREATE DOMAIN pg_temp.d AS int', 'temporary object', [ 'SELECT 3::pg_temp.d', 3 ], 'DROP DOMAIN pg_temp.d' ],
	[ 'CREATE TEMP TABLE tt (a int) ON COMMIT DELETE ROWS', 'temporary object', [ 'SELECT count(*) FROM tt', 0 ], 'DROP TABLE tt' ],
	[ 'CREATE TABLE pg_temp.tt (a int)', 'temporary object', [ 'SELECT count(*) FROM tt', 0 ], 'DROP TABLE pg_temp.tt' ],
	[ 'BEGIN; DECLARE cu CURSOR WITH HOLD FOR SELECT generate_series(1, 9); FETCH cu; COMMIT', 'WITH HOLD cursor', [ 'SELECT name FROM pg_cursors', 'cu' ], 'CLOSE cu', 'CLOSE ALL', 'DISCARD ALL' ],
	[ 'DECLARE cu CURSOR WITH HOLD FOR SELECT 5', 'WITH HOLD cursor', [ 'SELECT name FROM pg_cursors', 'cu' ], 'FETCH cu; CLOSE cu', 'BEGIN; CLOSE cu; COMMIT' ],
	[ 'PREPARE p AS SELECT 6', 'PREPARE', [ 'EXECUTE p', 6 ], 'DEALLOCATE p', 'DEALLOCATE ALL', 'DISCARD ALL', 'DEALLOCATE PREPARE p' ],
	[ 'BEGIN; PREPARE p (int) AS SELECT $1 + 1; ROLLBACK', 'PREPARE', [ 'EXECUTE p (1)', 2 ], 'DEALLOCATE p' ],
	[ "SELECT pg_advisory_lock(1); LISTEN news; CREATE TEMP TABLE tt AS SELECT 7 AS a; PREPARE p AS SELECT 6", 'advisory lock, LISTEN, temporary object, PREPARE',
		[ 'SELECT a FROM tt', 7 ], 'SELECT pg_advisory_unlock(1); UNLISTEN news; DROP TABLE tt; DEALLOCATE p', 'DISCARD ALL' ]);
for my $pin (@pins)
{
	my ($begin, $reason, $see, @ends) = @$pin;
	for my $end (@ends)
	{
		my $c = connect_as($node, @app);
		my $r = $c->query($begin);
		is($r->{error} ? $r->{error}{M} : pinned($c) . ' ' . servers_pinned(), "$reason 1", "$begin: keeps the server");
		my $seen = join ' ', map { turn($others); both($c, $see->[0]) } 1 .. 2;
		is($seen, "$see->[1] $see->[1]", '... and is there');
		run($c, $end);
		is(pinned($c) . ' ' . servers_pinned(), '- 0', "... until $end");
		turn($others);
		$c->send(PgPoolWire::message('X', ''));
	}
}

# ---- what keeps it no longer than the transaction, or not at all
for my $sql ('BEGIN; SELECT pg_advisory_xact_lock(1); COMMIT', 'BEGIN; CREATE TEMP TABLE tt (a int) ON COMMIT DROP; COMMIT', 'BEGIN; CREATE TEMP TABLE tt (a int); ROLLBACK',
	'BEGIN; LISTEN x; ROLLBACK', 'BEGIN; DECLARE cu CURSOR WITH HOLD FOR SELECT 1; ROLLBACK', 'BEGIN; DECLARE cu CURSOR FOR SELECT 1; COMMIT',
	'BEGIN; SELECT lo_creat(-1); SELECT lo_open((SELECT max(oid) FROM pg_largeobject_metadata), 262144); COMMIT', 'PREPARE p AS SELECT 1; DEALLOCATE p', 'SELECT pg_try_advisory_xact_lock(4)',
	'CREATE TEMP TABLE tt (a int); DROP TABLE tt', 'SELECT pg_advisory_lock(3); SELECT pg_advisory_unlock(3)', 'LISTEN x; UNLISTEN x', 'SELECT random()', 'NOTIFY x', 'EXECUTE nothing', 'UNLISTEN *',
	'BEGIN; SAVEPOINT a; CREATE TEMP TABLE tt (a int); ROLLBACK TO a; COMMIT', 'CREATE TEMP TABLE tt AS SELECT 1/0', 'DO $$ BEGIN PERFORM pg_advisory_lock(9); RAISE EXCEPTION \'no\'; END $$; SELECT 1')
{
	my $c = connect_as($node, @app);
	run($c, $sql);
	$c->query('SELECT pg_advisory_unlock_all()') if $sql =~ /\(9\)/; # a lock of the session outlives the error
	is(pinned($c) . ' ' . servers_pinned(), '- 0', "$sql: keeps no server");
	$c->send(PgPoolWire::message('X', ''));
}

# ---- what cannot be undone stays; a client that leaves takes it with it
for my $forever ([ 'SELECT setseed(0.5)', 'setseed' ], [ 'SET seed = 0.25', 'setseed' ], [ "SELECT set_config('seed', '0.1', false)", 'setseed' ], [ "LOAD 'plpgsql'", 'LOAD' ],
	map { [ $_->[0], $_->[1] ] } @pins)
{
	my ($begin, $reason) = @$forever;
	my $c = connect_as($node, $reason eq 'LOAD' ? @boss : @app);
	$c->query($begin);
	is(pinned($c), $reason, "$begin: keeps the server");
	if ($reason =~ /setseed|LOAD/)
	{
		$c->query('DISCARD ALL');
		is(pinned($c), $reason, '... also after DISCARD ALL');
	}
	$c->send(PgPoolWire::message('X', ''));
	poll_until(sub { servers_pinned() == 0 }, 'let go');
	my @fresh = map { my $f = connect_as($node, @app); $f->query('BEGIN'); $f } 1, 2;
	my @seen = map { both($_, "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) FROM pg_listening_channels()) + (SELECT count(*) FROM pg_cursors)
		+ (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) + (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind <> 'i')
		+ (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()) + (SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema())") } @fresh;
	is("@seen", '0 0', '... and the next ones see nothing of a client that left');
	$_->send(PgPoolWire::message('X', '')) for @fresh;
}
is("$wrong of $passes", "0 of $passes", 'the others saw their own all the while');

# ---- SET SESSION AUTHORIZATION
{
	my $around = others(@boss);
	my $c = connect_as($node, @boss);
	$c->query('SET SESSION AUTHORIZATION guest');
	my @seen = map { turn($around); both($c, 'SELECT session_user, current_user') } 1 .. 3;
	is("@seen", 'guest,guest guest,guest guest,guest', 'SET SESSION AUTHORIZATION is there');
	is(both($around->[4], 'SELECT session_user'), 'boss', '... and nowhere else');
	$c->query('RESET SESSION AUTHORIZATION');
	turn($around);
	is(both($c, 'SELECT session_user, current_user'), 'boss,boss', '... until it is taken back');
	$_->send(PgPoolWire::message('X', '')) for @$around, $c;
}

# ---- a NOTIFY comes to who listens, without a query of its own
{
	my $c = connect_as($node, @app);
	$c->query('LISTEN news');
	turn($others);
	$node->safe_psql('postgres', "NOTIFY news, 'hello'");
	my $m = $c->next(10);
	is($m ? $m->[0] . join '|', (unpack 'N Z* Z*', $m->[1])[1, 2] : 'nothing', 'Anews|hello', 'a notification is delivered');
	$plain->query("NOTIFY news, 'from another client'");
	$m = $c->next(10);
	is($m ? join '|', (unpack 'N Z* Z*', $m->[1])[1, 2] : 'nothing', 'news|from another client', '... of another client, too');
	$c->query('UNLISTEN news');
	$plain->query("NOTIFY news, 'late'");
	my $r = $c->query('SELECT 1');
	is((grep { $_->[0] eq 'A' } @{ $c->{seen} }), 2, '... and none after UNLISTEN');
	$c->send(PgPoolWire::message('X', ''));
}

# ---- random numbers of setseed
{
	my ($direct, $c) = (connect_as($node, @app, port => $node->port), connect_as($node, @app));
	my @drawn;
	for my $s ($direct, $c)
	{
		$s->query('SELECT setseed(0.42)');
		push @drawn, join ' ', map { turn($others); both($s, 'SELECT random()') } 1 .. 5;
	}
	is($drawn[1], $drawn[0], 'setseed: the same numbers as in a session of its own');
	$_->send(PgPoolWire::message('X', '')) for $direct, $c;
}

# ---- large objects within a transaction
{
	my $c = connect_as($node, @app);
	$c->query('BEGIN');
	my $oid = both($c, 'SELECT lo_creat(-1)');
	my $fd = both($c, "SELECT lo_open($oid, 393216)");
	turn($others);
	both($c, "SELECT lowrite($fd, 'abc')");
	turn($others);
	both($c, "SELECT lo_lseek($fd, 0, 0)");
	is(both($c, "SELECT loread($fd, 10)"), '\\x616263', 'a descriptor of a large object is there in its transaction');
	$c->query('COMMIT');
	turn($others);
	is(both($c, "SELECT loread($fd, 10)"), "42704 invalid large-object descriptor: $fd", '... and not after it');
	$c->send(PgPoolWire::message('X', ''));
}

# ---- identity
{
	my $c = connect_as($node, @app);
	my $own = $c->{socket}->sockport;
	my @seen = map { turn($others); both($c, 'SELECT host(inet_client_addr()), inet_client_port()') } 1 .. 3;
	is("@seen", join(' ', ("127.0.0.1,$own") x 3), 'inet_client_addr() and inet_client_port() are the client\'s');
	turn($others);
	is(both($c, 'SELECT host(client_addr), client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()'), "127.0.0.1,$own", '... and pg_stat_activity');
	$c->send(PgPoolWire::message('X', ''));
}

# ---- commit_lsn
{
	my $c = connect_as($node, @app);
	my $lsn = sub { $node->safe_psql('postgres', "SELECT coalesce(commit_lsn, '0/0') FROM pgpool.pg_stat_clients WHERE pid = $c->{pid}") };
	my $number = sub { my ($h, $l) = split '/', shift; return (hex($h) << 32) + hex $l };
	for my $case ([ 1, 'INSERT INTO kept VALUES (1)' ], [ 0, 'SELECT count(*) FROM kept' ], [ 0, 'BEGIN; INSERT INTO kept VALUES (1); ROLLBACK' ], [ 1, 'BEGIN; INSERT INTO kept VALUES (1); COMMIT' ],
		[ 1, 'SET synchronous_commit = off; INSERT INTO kept VALUES (1)' ], [ 1, 'SELECT writes()' ], [ 0, 'SHOW work_mem' ], [ 0, 'SET work_mem = 1000' ], [ 1, 'DO $$ BEGIN INSERT INTO kept VALUES (1); END $$' ],
		[ 1, 'BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION \'x\'; COMMIT PREPARED \'x\'' ], [ 1, 'CREATE TABLE one.n (a int)' ], [ 1, 'DROP TABLE one.n' ], [ 1, 'UPDATE kept SET a = 2' ],
		[ 1, 'SELECT nextval(\'one.s\')', 'CREATE SEQUENCE one.s' ], [ 0, 'INSERT INTO kept SELECT 1/0' ])
	{
		my ($moves, $sql, $before) = @$case;
		$c->query($before) if $before;
		my $was = $lsn->();
		turn($others);
		my $start = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
		run($c, $sql);
		my $is = $lsn->();
		my $end = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
		if ($moves) { ok($number->($is) > $number->($start) && $number->($is) <= $number->($end), "commit_lsn moves: $sql") or diag("$was, $start, $is, $end") }
		else { is($is, $was, "commit_lsn stays: $sql") }
	}
	# A table that is read may be tidied up on the way, which is WAL: so this one reads none.
	my $reader = connect_as($node, @app);
	for (1 .. 3) { $c->query('INSERT INTO kept VALUES (1)'); turn($others); $reader->query('SELECT 1') }
	is($node->safe_psql('postgres', "SELECT count(*) FROM pgpool.pg_stat_clients WHERE pid = $reader->{pid} AND commit_lsn IS NOT NULL"), 0, 'who never wrote has none');
	$reader->send(PgPoolWire::message('X', ''));
	$c->send(PgPoolWire::message('X', ''));
}

# ---- DISCARD ALL
{
	my $c = connect_as($node, @app, work_mem => '777kB', DateStyle => 'SQL, DMY');
	$c->query("SET work_mem = '100kB'; SET search_path = one; SET myapp.x = 'y'; SET DateStyle = 'German'; SET ROLE clerk; LISTEN news; PREPARE p AS SELECT 1; CREATE TEMP TABLE tt (a int); SELECT pg_advisory_lock(1)");
	$c->query('DISCARD ALL');
	turn($others);
	is(join('|', map { both($c, $_) } 'SHOW work_mem', 'SHOW search_path', "SELECT current_setting('myapp.x')", 'SHOW DateStyle', 'SELECT current_user',
		'SELECT count(*) FROM pg_listening_channels()', 'EXECUTE p', 'SELECT count(*) FROM tt', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
		'777kB|"$user", public||SQL, DMY|app|0|26000 prepared statement "p" does not exist|42P01 relation "tt" does not exist|0', 'DISCARD ALL: as at the start');
	is($c->{parameters}{DateStyle}, 'SQL, DMY', '... and the client was told');
	$c->send(PgPoolWire::message('X', ''));
}

# ---- too many clients that keep their server
{
	my ($first, $second) = map { connect_as($node, @app) } 1, 2;
	$first->query("CREATE TEMP TABLE mine AS SELECT 'a'");
	is($second->query('SELECT pg_advisory_lock(5)')->{error}, undef, 'one too many keeps its server: no error as long as nobody waits');
	is(servers_pinned(), 2, '... and all are kept');
	turn($others);
	is("$wrong of $passes", "0 of $passes", 'others are served all the same');
	ok($first->closes(20), '... for the one that was idle for longest had to go');
	my ($fatal) = map { PgPoolWire::error_fields($_->[1]) } grep { $_->[0] eq 'E' } @{ $first->{seen} };
	like($fatal ? join '|', @$fatal{qw(S C M D)} : 'no error', qr/^FATAL\|53400\|too many clients of this pool keep their server\|This one keeps it because of: temporary object, and was idle for \d+ ms while others waited\. A pool of 2 has at most 1 for such clients\.$/,
		'... and is told why');
	is(both($second, 'SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\''), '1', '... the other has what it had');
	is(pinned($second) . ' ' . servers_pinned(), 'advisory lock 1', '... and keeps its server');
	$second->send(PgPoolWire::message('X', ''));
	poll_until(sub { servers_pinned() == 0 }, 'let go');
	my $third = connect_as($node, @app);
	$third->query('LISTEN b');
	is(pinned($third), 'LISTEN', 'then there is room again');
}

$node->stop;
done_testing();
