# Shows: while an administrator changes roles, memberships, rights, databases, the system's settings, tables, functions and
# policies, clients of the pool, and of the session port, get what clients of the server's own port get: results, columns,
# SQLSTATEs, warnings, the state of the transaction, what they were told and what they have. After each change a fresh login
# is the same on all ports. What may differ is in %excuses, and counted.
#
# Roles are made, dropped and renamed, and get databases and schemas. Not played: databases are not made, dropped or renamed
# (no session may be in one; 008, 101 and 103 have that), the clients' own role keeps its name, there is one worker, and no TLS.
#
# PGPOOL_PROGRAMS=N plays N programs from PGPOOL_SEED on (a number; one for each program). One that differs is printed in
# its shortest form.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolTwins;
use Test::More;
use Time::HiRes qw(time);

my $programs = $ENV{PGPOOL_PROGRAMS} // 20;
my $seed = $ENV{PGPOOL_SEED} // ($ENV{PGPOOL_PROGRAMS} ? int(time) % 1_000_000 * 1000 : 1);

# ---- what may differ: name => [ why, sub (twins, step, answer directly, answer here) ]. With `ends` the clients are not the
# same afterwards, and the program ends there. `settings of a fresh login` and `no lock by Parse` are in PgPoolTwins, as they are no matter of one answer.
my %excuses = (
	'new columns' => {
		why => 'README, What a session keeps: outside a transaction block, a client that asks for the columns gets the new ones, where PostgreSQL says 0A000',
		if => sub {
			my ($self, $twins, $t, $before, $step, $direct, $here) = @_;
			my ($who, $kind, $name, $asks, @values) = @$step;
			return 0 unless $kind eq 'execute' && $asks && $before eq 'I' && "@{ $here->{lines} }" =~ /^2 T / && $direct->{error} && $direct->{error}{C} eq '0A000';
			# it must be what the text means now; and from then on it is so on the other ports, too
			my $text = $self->{texts}[$who]{$name} // return 0;
			my $now = $self->say_to($twins->{d}, 'unnamed', $text, @values);
			$self->say_to($twins->{$_}, 'again', $name, $text) for grep { $_ ne $t } sort keys %$twins;
			return join("\n", 1, @{ $here->{lines} }) eq join("\n", @{ $now->{lines} });
		} },
	'another error first' => {
		why => 'README, Limits: a value that is not of its type, for a statement that is not valid any more: one of the two errors',
		if => sub {
			my ($self, $twins, $t, $before, $step, $direct, $here) = @_;
			my @codes = map { $_->{error} ? $_->{error}{C} : '' } $direct, $here;
			return $step->[1] eq 'execute' && $codes[0] eq '22P02' && $codes[1] =~ /^(42\w+|0A000)$/;
		} },
	'read anew after a reload' => {
		why => 'README, Limits: a prepared statement that is parsed anew reads its literals by the settings as they are then',
		if => sub {
			my ($self, $twins, $t, $before, $step, $direct, $here) = @_;
			return 0 unless $self->{altered} && $step->[1] eq 'execute' && ($self->{texts}[ $step->[0] ]{ $step->[2] } // '') =~ /a\\b/;
			return join('|', map { map { $_ // '' } @$_ } @{ $direct->{rows} }) =~ s/a\\b$/a\b/r eq join('|', map { map { $_ // '' } @$_ } @{ $here->{rows} });
		} },
	'a function is gone' => {
		why => 'README, Limits: in a block PostgreSQL may go on with a function that was dropped meanwhile, or say that its cache lookup failed; a server that has to read the statement anew cannot',
		ends => 1,
		if => sub {
			my ($self, $twins, $t, $before, $step, $direct, $here) = @_;
			my $goes_on = !$direct->{error} || $direct->{error}{C} eq 'XX000'; # "cache lookup failed"
			return $t eq 'p' && $step->[1] =~ /^(execute|query)$/ && $before eq 'T' && $goes_on && $here->{error} && $here->{error}{C} eq '42883';
		} },
	'role refused' => {
		why => 'README, Limits: if the role of SET ROLE was revoked, each statement is an ERROR until RESET ROLE',
		ends => 1,
		if => sub { my ($here) = $_[-1]; return $here->{error} && ($here->{error}{D} // '') =~ /^The session has a role that the server refuses now/ } },
	'setting lost' => {
		why => 'README, Limits: a setting that a server refuses although the session has it has its default, with a WARNING',
		ends => 1,
		if => sub { my ($here) = $_[-1]; return grep { $_->{M} =~ /was lost and has its default now$/ } @{ $here->{notices} } } });

my $session_port = PostgreSQL::Test::Cluster::get_free_port();
my $node = pool_node('change', conf => <<"CONF");
ssl = off
pgpool.session_port = $session_port
pgpool.workers = 1
pgpool.default_pool_size = 8
autovacuum = off
log_statement = none
log_min_messages = fatal
lock_timeout = '300ms'
fsync = off
CONF
$node->{session_port} = $session_port;

# ---- programs
# DateStyle whole: half of one keeps the other half of the default, which is the new one in the pool (README)
my %values = (
	work_mem => [ "'100kB'", "'1234kB'", "'2GB'" ], enable_seqscan => [ 'on', 'off' ], bytea_output => [ 'escape', 'hex' ], geqo_threshold => [ 2, 12 ],
	statement_timeout => [ "'70s'", "'80s'" ], DateStyle => [ "'German, DMY'", "'SQL, DMY'", "'ISO, MDY'", "'ISO, YMD'" ], TimeZone => [ "'UTC'", "'Asia/Tokyo'", "'Europe/Berlin'" ],
	IntervalStyle => [ 'iso_8601', 'postgres' ], application_name => [ "'a'", "'it''s'", "''" ], client_encoding => [ "'UTF8'", "'LATIN1'" ],
	default_transaction_read_only => [ 'on', 'off' ], default_transaction_isolation => [ "'read committed'", "'repeatable read'" ], row_security => [ 'on', 'off' ],
	standard_conforming_strings => [ 'on', 'off' ], plan_cache_mode => [ 'auto', 'force_generic_plan', 'force_custom_plan' ], search_path => [ 'one', 'two', 'two, one', "''", 'one, public' ]);
my @names = sort keys %values;
my @harmless = grep { !/^(search_path|bytea_output|default_transaction|row_security|standard)/ } @names; # nothing but SHOW tells

my @texts = (
	'SELECT a, b FROM t ORDER BY 1', 'SELECT * FROM t ORDER BY 1', 'SELECT b FROM t WHERE a = $1', 'SELECT a FROM t WHERE b = $1', 'SELECT count(*) FROM t', 'SELECT * FROM v ORDER BY 1',
	'INSERT INTO t (a, b) VALUES ($1, $2)', 'UPDATE t SET b = $1 WHERE a = 1', 'DELETE FROM t WHERE a = $1', 'SELECT f(1)', 'SELECT f($1)', 'SELECT * FROM g()', 'SELECT current_user, session_user',
	'SELECT $1::mood', "SELECT coalesce(current_setting('myapp.a', true), '')", 'SELECT one.f($1)', 'SELECT sum(a) FROM two.t', 'INSERT INTO t (b) VALUES ($1) RETURNING a', "SELECT '\\x41'::bytea, 'a\\b'");
my @words = ('1', '2', '3', '77', 'x', 'happy', 'sad', 'mild');

sub one { return $_[int rand @_] }
sub setting { my $n = one(@_ ? @_ : @names); return ($n, one(@{ $values{$n} // [ "'of the role'" ] })) }
sub parameters { my $text = shift; my %n = map { $_ => 1 } $text =~ /\$(\d)/g; return map { one(@words) } keys %n }

sub query
{
	my ($n, $v) = setting();
	my $k = int rand 100;
	return "SET $n = $v" if $k < 12;
	return "SET LOCAL $n = $v" if $k < 15;
	return one("SET myapp.a = 'mine'", "SET myapp.a = 'app~'", "SELECT set_config('myapp.a', 'app~', true)") if $k < 19;
	return one("RESET $n", "SET $n TO DEFAULT", 'RESET ALL', "RESET $n") if $k < 24;
	return one('BEGIN', 'BEGIN', 'BEGIN READ ONLY', 'BEGIN ISOLATION LEVEL REPEATABLE READ') if $k < 34;
	return one('SAVEPOINT a', 'SAVEPOINT b', 'ROLLBACK TO a', 'ROLLBACK TO b', 'RELEASE a') if $k < 40;
	return one('COMMIT', 'COMMIT', 'ROLLBACK') if $k < 50;
	return one('SET ROLE clerk~', 'SET ROLE guest~', 'SET ROLE extra~', 'SET LOCAL ROLE clerk~', 'RESET ROLE', 'SET ROLE none') if $k < 58;
	return one('SELECT 1/0', 'SELEC', 'SET nothing = 1', 'SET log_min_duration_statement = 1000000', 'SELECT sets()', 'DISCARD ALL', 'DEALLOCATE ALL') if $k < 63;
	return one('CREATE TEMP TABLE IF NOT EXISTS tt (x int)', 'DROP TABLE IF EXISTS tt', 'INSERT INTO tt VALUES (1)') if $k < 66;
	my $text = one(@texts);
	return $text =~ s/\$\d/"'" . one(@words) . "'"/ger;
}

sub client_step
{
	my ($who, $texts) = @_;
	my $k = int rand 100;
	return [ $who, query => query() ] if $k < 50;
	my $name = one('s1', 's2', 's3', 's4');
	if ($k < 65 || !$texts->{$name})
	{
		my $text = one(@texts);
		$texts->{$name} = $text;
		return [ $who, close => $name ], [ $who, prepare => $name, $text ];
	}
	return [ $who, execute => $name, one(0, 1), parameters($texts->{$name}) ] if $k < 88;
	return [ $who, close => $name ] if $k < 90;
	my $text = one(@texts);
	return [ $who, unnamed => $text, parameters($text) ];
}

# After these, connected clients differ from those of the server's port in more than what SHOW says: all log in anew.
my $clients = 3;
sub anew { return map { [ $_, login => start() ] } 0 .. $clients - 1 }
sub start { my ($n, $v) = setting(@harmless); return rand > 0.3 ? () : ($n => $v =~ s/^'(.*)'$/$1/sr =~ s/''/'/gr) }

sub admin_steps
{
	my $k = int rand 100;
	return [ admin => change => one('CREATE ROLE extra~', 'CREATE ROLE extra~ IN ROLE clerk~ ROLE app~', 'DROP ROLE extra~', 'GRANT extra~ TO app~', 'ALTER ROLE extra~ RENAME TO other~', 'ALTER ROLE other~ RENAME TO extra~',
			'ALTER ROLE clerk~ RENAME TO clark~', 'ALTER ROLE clark~ RENAME TO clerk~', 'ALTER DATABASE db~ OWNER TO app~', 'ALTER DATABASE db~ OWNER TO clerk~', 'ALTER DATABASE db~ OWNER TO CURRENT_USER', 'ALTER SCHEMA one OWNER TO clerk~') ] if rand() < 0.1;
	my $role = one('app~', 'clerk~', 'guest~');
	my ($n, $v) = setting(@harmless, 'myapp.b');
	my $target = one('ROLE app~', 'ROLE app~', 'DATABASE db~', 'ROLE app~ IN DATABASE db~', 'ROLE clerk~');
	return [ admin => change => "ALTER $target " . one("SET $n = $v", "SET $n = $v", "RESET $n") ] if $k < 15;
	if ($k < 20)
	{
		my ($m, $w) = setting(grep { !/standard/ } @names);
		return [ admin => change => "ALTER $target SET " . one("$m = $w", "search_path = two, one", 'role = clerk~') ], anew() if rand > 0.3;
		return [ admin => change => "ALTER $target RESET ALL" ], anew();
	}
	return [ admin => change => "ALTER ROLE app~ " . one(qw(BYPASSRLS NOBYPASSRLS INHERIT NOINHERIT CREATEROLE NOCREATEDB SUPERUSER NOSUPERUSER)) ] if $k < 27;
	return [ admin => change => one('GRANT clerk~ TO app~', 'GRANT guest~ TO app~', 'GRANT guest~ TO clerk~', 'REVOKE clerk~ FROM app~', 'REVOKE guest~ FROM app~', 'REVOKE guest~ FROM clerk~') ] if $k < 35;
	return [ admin => change => one('GRANT', 'REVOKE') . ' ' . one('SELECT', 'INSERT', 'UPDATE', 'ALL') . ' ON ' . one('one.t', 'two.t', 'one.v') . ' %TO% ' . $role ] if $k < 43;
	return [ admin => change => one("GRANT USAGE ON SCHEMA two TO $role", "REVOKE USAGE ON SCHEMA two FROM $role", "GRANT SET ON PARAMETER log_min_duration_statement TO $role", "REVOKE SET ON PARAMETER log_min_duration_statement FROM $role") ] if $k < 48;
	return [ admin => change => one('ALTER TABLE one.t ALTER a TYPE bigint', 'ALTER TABLE one.t ALTER a TYPE text', 'ALTER TABLE one.t ALTER b TYPE varchar(9)', 'ALTER TABLE one.t RENAME a TO c', 'ALTER TABLE one.t RENAME c TO a',
			'ALTER TABLE one.t RENAME TO u', 'ALTER TABLE one.u RENAME TO t', 'ALTER TABLE one.t ADD d int DEFAULT 4', 'ALTER TABLE one.t DROP d', 'ALTER TABLE one.t SET SCHEMA two', 'ALTER TABLE two.t SET SCHEMA one',
			'DROP TABLE two.t', 'CREATE TABLE two.t (a int, b text); GRANT ALL ON two.t TO PUBLIC', 'ALTER TABLE two.t ALTER a TYPE int USING a::int', 'CREATE INDEX ON one.t (a)') ] if $k < 63;
	return [ admin => change => one("CREATE OR REPLACE FUNCTION one.f(int) RETURNS int LANGUAGE sql AS 'SELECT \$1 + " . int(rand 9) . "'", "CREATE OR REPLACE FUNCTION two.f(int) RETURNS text LANGUAGE sql AS 'SELECT ''two''::text'", 'DROP FUNCTION one.f(int)', 'DROP FUNCTION two.f(int)',
			"CREATE FUNCTION one.f(text) RETURNS text LANGUAGE sql AS 'SELECT ''text'' || \$1'", 'DROP FUNCTION one.f(text)', "CREATE FUNCTION one.f(int) RETURNS text LANGUAGE sql AS 'SELECT ''new''::text'", "ALTER FUNCTION one.f(int) SET work_mem = '3MB'",
			"CREATE OR REPLACE FUNCTION one.sets() RETURNS text LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''5MB''; RETURN 5; END'", 'CREATE OR REPLACE VIEW one.v AS SELECT a, b, 1 AS more FROM one.t', 'DROP VIEW one.v',
			'DROP FUNCTION one.g()', "CREATE FUNCTION one.g() RETURNS TABLE (x int) LANGUAGE sql AS 'SELECT 7'", "ALTER TYPE public.mood ADD VALUE IF NOT EXISTS 'mild'", "ALTER TYPE public.mood RENAME VALUE 'sad' TO 'mild'") ] if $k < 76;
	return [ admin => change => 'ALTER TABLE one.t ' . one('ENABLE', 'ENABLE', 'DISABLE') . ' ROW LEVEL SECURITY' ] if $k < 80;
	return [ admin => change => one('CREATE POLICY p ON one.t USING (b = current_user)', "CREATE POLICY p ON one.t USING (b = current_setting('myapp.a', true))", 'CREATE POLICY q ON one.t TO clerk~ USING (true)', 'DROP POLICY p ON one.t', 'DROP POLICY q ON one.t', 'ALTER POLICY p ON one.t USING (true)') ] if $k < 86;
	my ($m, $w) = setting(grep { !/client_encoding|application_name/ } @names);
	return [ admin => system => one("ALTER SYSTEM SET $m = $w", "ALTER SYSTEM SET $m = $w", "ALTER SYSTEM RESET $m", 'ALTER SYSTEM RESET ALL') ];
}

sub program
{
	srand $_[0];
	my @steps = anew();
	my @texts_of = map { {} } 1 .. $clients;
	for (1 .. 10 + int rand 30)
	{
		my $k = int rand 100;
		my $who = int rand $clients;
		push @steps, $k < 28 ? admin_steps() : $k < 36 ? [ int rand 2, one('hold', 'hold', 'free') ] : client_step($who, $texts_of[$who]);
	}
	# where the role is one of ALTER ROLE, memberships are the login's, too
	my $by_role;
	@steps = map {
		my $sql = $_->[1] eq 'change' ? $_->[2] : '';
		$by_role ||= $sql =~ /SET role/;
		$by_role && $sql =~ /^(GRANT|REVOKE) \w+~ (TO|FROM)|RENAME TO cl[ae]rk|ROLE extra~/ ? ($_, anew()) : $_;
	} @steps;
	for (@steps) { $_->[2] =~ s/%TO%/$_->[2] =~ m{^GRANT} ? 'TO' : 'FROM'/e if $_->[1] eq 'change' }
	return \@steps;
}

my $twins = PgPoolTwins->new($node,
	settings => [ (grep { !/is_superuser/ } @names), qw(is_superuser log_min_duration_statement) ],
	custom => [ 'myapp.a', 'myapp.b' ],
	whole => 1,
	excuse => sub {
		for my $name (sort keys %excuses) { return ($name, $excuses{$name}{ends}) if $excuses{$name}{if}->(@_) }
		return ();
	},
	setup => [
		"DO 'BEGIN ALTER ROLE clark~ RENAME TO clerk~; EXCEPTION WHEN undefined_object THEN END'", 'DROP ROLE IF EXISTS extra~, other~', 'ALTER DATABASE db~ OWNER TO CURRENT_USER',
		'ALTER ROLE app~ NOSUPERUSER NOBYPASSRLS INHERIT NOCREATEROLE NOCREATEDB', 'ALTER ROLE app~ RESET ALL', 'ALTER ROLE clerk~ RESET ALL', 'ALTER ROLE app~ IN DATABASE db~ RESET ALL',
		'ALTER DATABASE db~ RESET ALL', 'GRANT clerk~, guest~ TO app~', 'REVOKE guest~ FROM clerk~', 'DROP SCHEMA IF EXISTS one CASCADE', 'DROP SCHEMA IF EXISTS two CASCADE', 'DROP TYPE IF EXISTS public.mood',
		'REVOKE ALL ON PARAMETER log_min_duration_statement FROM app~, clerk~, guest~', 'CREATE SCHEMA one', 'CREATE SCHEMA two', "CREATE TYPE public.mood AS ENUM ('happy', 'sad')",
		'CREATE TABLE one.t (a int, b text)', 'CREATE TABLE two.t (a int, b text)', "INSERT INTO one.t VALUES (1, 'app~'), (2, 'clerk~'), (3, 'mine')", "INSERT INTO two.t VALUES (77, 'two')",
		'CREATE VIEW one.v AS SELECT a, b FROM one.t WHERE a < 3', "CREATE FUNCTION one.f(int) RETURNS int LANGUAGE sql AS 'SELECT \$1 + 1'", "CREATE FUNCTION one.g() RETURNS TABLE (x int, y text) LANGUAGE sql AS 'SELECT 7, ''seven'''",
		"CREATE FUNCTION one.sets() RETURNS text LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''3MB''; PERFORM set_config(''myapp.a'', ''clerk~'', true); RETURN 3; END'",
		'GRANT USAGE ON SCHEMA one, two TO PUBLIC', 'GRANT ALL ON one.t, one.v, two.t TO app~, clerk~', 'GRANT SELECT ON one.t TO guest~', 'ALTER DATABASE db~ SET search_path = one, public' ]);

my ($start, $ran, @bad) = (time, 0);
for my $n ($seed .. $seed + $programs - 1)
{
	$ran++;
	my $steps = program($n);
	my ($at, $problem) = $twins->play($steps) or next;
	push @bad, $n;
	my ($short, $why) = @bad <= 5 && !$ENV{PGPOOL_WHOLE} ? $twins->shrink($steps, $at, $problem) : ([ @$steps[ 0 .. $at ] ], $problem);
	diag("PGPOOL_SEED=$n PGPOOL_PROGRAMS=1:\n  " . join("\n  ", map { PgPoolTwins::text($_) } @$short) . "\n$why\n");
	last if @bad >= 20;
}
note(sprintf '%d programs in %d s, seeds from %d: %s', $ran, time - $start, $seed, join ', ', map { "$twins->{count}{$_} $_" } sort keys %{ $twins->{count} });
note("excused: $twins->{excused}{$_} times $_" . ($excuses{$_} ? " ($excuses{$_}{why})" : '')) for sort keys %{ $twins->{excused} };
is("@bad", '', 'programs come to the same while an administrator changes things') or diag('these seeds differ');
my $count = $twins->{count};
SKIP:
{
	skip 'one program proves nothing', 3 if $programs < 20;
	cmp_ok($count->{answers}, '>', 10 * $ran, 'there were answers to compare');
	cmp_ok($count->{changes}, '>', 3 * $ran, '... changes');
	cmp_ok($count->{moves}, '>', $ran, '... and clients that went from server to server');
}

# ---- what RESET goes back to, in session mode, where a client never gets another server
{
	$twins->reset; # what the last program left
	my @seen = map {
		my $c = connect_as($node, user => 'app_d', password => 'secret', database => 'db_d', TimeZone => 'Asia/Tokyo', port => $_);
		$c->query($_) for "SET TimeZone = 'UTC'", "SET application_name = 'mine'", 'RESET TimeZone', 'RESET ALL';
		my $has = join '|', map { $c->value("SHOW $_") } qw(TimeZone application_name);
		PgPoolTwins::leave($c);
		$has;
	} $node->port, $session_port, $node->{pool_port};
	is($seen[0], 'Asia/Tokyo|', 'RESET goes back to what the client started with');
	is($seen[1], $seen[0], '... on the session port, too');
	is($seen[2], $seen[0], '... and in the pool');
}
$node->stop;
done_testing();
