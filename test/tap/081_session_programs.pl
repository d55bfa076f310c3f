# Random programs of SET, RESET, transactions, errors, functions and roles come to the same on a session of its own and
# through the pool, where clients with other settings take both servers between any two statements: all settings after
# each statement, SQLSTATEs, and the values that the client was told.
#
# PGPOOL_PROGRAMS=N, PGPOOL_SEED=N: more, or the same again. One difference is allowed: a placeholder that another
# session made is empty where a direct session does not know it.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(time);

my $programs = $ENV{PGPOOL_PROGRAMS} // 1000;
my $limit = $ENV{PGPOOL_PROGRAMS} ? 3600 : 40; # seconds
my $seed = $ENV{PGPOOL_SEED} // int(time) % 1_000_000_000;
note("seed $seed");
srand $seed;

my $node = pool_node('programs', conf => "ssl = off\npgpool.default_pool_size = 2\npgpool.workers = 1\nlog_statement = none");
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE clerk; CREATE ROLE guest; GRANT clerk, guest TO app; CREATE ROLE stranger;
ALTER ROLE app SET geqo_threshold = 9;
CREATE FUNCTION with_set() RETURNS text LANGUAGE sql SET work_mem = '64kB' SET search_path = pg_catalog AS 'SELECT current_setting(''work_mem'')';
CREATE FUNCTION sets() RETURNS text LANGUAGE plpgsql AS 'BEGIN SET work_mem = ''3MB''; PERFORM set_config(''myapp.b'', ''in function'', true); RETURN ''''; END';
CREATE FUNCTION sets_with_set() RETURNS text LANGUAGE plpgsql SET work_mem = '65kB' AS 'BEGIN SET work_mem = ''66kB''; SET DateStyle = ''German''; RETURN ''''; END';
CREATE FUNCTION caught() RETURNS text LANGUAGE plpgsql AS 'BEGIN BEGIN SET work_mem = ''5MB''; SET TimeZone = ''UTC''; PERFORM 1/0; EXCEPTION WHEN OTHERS THEN SET enable_seqscan = off; END; RETURN ''''; END';
SQL
my @app = (user => 'app', password => 'secret');

my %values = (
	work_mem => [ "'100kB'", "'1234kB'", "'2GB'", "'1'" ], enable_seqscan => [ 'on', 'off', "'maybe'" ], random_page_cost => [ 1.5, 7, -3 ],
	bytea_output => [ 'escape', 'hex' ], search_path => [ 'one', "''", '"A b", c', 'public' ], geqo_threshold => [ 2, 12, 1 ], statement_timeout => [ "'1min'", 0, "'70s'" ],
	DateStyle => [ "'German'", "'SQL, DMY'", "'ISO'", "'YMD'", "'nonsense'" ], TimeZone => [ "'UTC'", "'Asia/Tokyo'", "'Europe/Berlin'", "'Nowhere'" ],
	IntervalStyle => [ 'iso_8601', 'postgres' ], application_name => [ "'a'", "'it''s'", "''" ], client_encoding => [ "'UTF8'", "'LATIN1'", "'SQL_ASCII'" ],
	'myapp.a' => [ "'1'", "''", "'x y'" ], 'myapp.b' => [ "'2'", "'\\'" ]);
my @names = sort keys %values;
my %known = map { $_ => 1 } qw(DateStyle TimeZone IntervalStyle application_name client_encoding standard_conforming_strings is_superuser session_authorization);

sub one { return $_[int rand @_] }
sub value { my $name = shift; return one(@{ $values{$name} }) }
sub text_of { my $v = shift; return $v =~ /^'/ ? $v : "'$v'" }

sub statement
{
	my $n = one(@names);
	my $k = int rand 100;
	return "SET $n = " . value($n) if $k < 18;
	return "SET LOCAL $n = " . value($n) if $k < 26;
	return "SELECT set_config('$n', " . text_of(value($n)) . ', ' . one('true', 'false') . ')' if $k < 34;
	return "RESET $n" if $k < 41;
	return 'RESET ALL' if $k < 44;
	return one('SET', 'SET LOCAL', 'SET SESSION') . " $n TO DEFAULT" if $k < 49;
	return 'BEGIN' if $k < 59;
	return 'SAVEPOINT ' . one('a', 'b') if $k < 65;
	return 'ROLLBACK TO ' . one('a', 'b') if $k < 70;
	return 'RELEASE ' . one('a', 'b') if $k < 73;
	return 'COMMIT' if $k < 80;
	return 'ROLLBACK' if $k < 85;
	return one('SELECT 1/0', 'SELEC', 'SET nothing = 1', 'SET shared_buffers = 1', "SET $n = 1, 2, 'x'") if $k < 89;
	return 'SELECT ' . one('with_set()', 'sets()', 'sets_with_set()', 'caught()') if $k < 93;
	return one('SET ROLE clerk', 'SET ROLE guest', 'SET LOCAL ROLE clerk', 'RESET ROLE', 'SET ROLE none', 'SET ROLE stranger', 'SET ROLE DEFAULT') if $k < 96;
	return 'DISCARD ALL' if $k < 98;
	return "SET $n = " . value($n) . '; ' . one('SELECT 1/0', "SET LOCAL $n = " . value($n), "RESET $n", 'BEGIN', 'COMMIT');
}

# What a client may start with; never two ways to say one thing.
sub start
{
	my %s;
	for my $n (@names)
	{
		next if rand > 0.2;
		my $v = value($n);
		next if $v =~ /nonsense|Nowhere|maybe|^-3|YMD|^'?1'?$|SQL_ASCII/ && $n ne 'myapp.a';
		$s{$n} = $v =~ s/^'(.*)'$/$1/sr =~ s/''/'/gr;
	}
	return %s;
}

# Numbers of placeholders that do not exist are the known difference: both are shown as empty.
my $show = 'SELECT ' . join(', ', map { "coalesce(current_setting('$_', true), '')" } @names, 'role');
sub state_of
{
	my $c = shift;
	my $r = $c->query($show);
	return $r->{error} ? [ $r->{error}{C} ] : $r->{rows}[0];
}
# The error of RESET and SET TO DEFAULT of a placeholder that nobody made is 42704 where pgpool's backend knows it.
sub result_of
{
	my ($c, $sql) = @_;
	my $r = $c->query($sql);
	return join ' ', $r->{status} // 'closed', ($r->{error} ? $r->{error}{C} : ()), @{ $r->{tags} };
}

# ---- the others
my @others = map { connect_as($node, @app) } 1 .. 3;
$others[0]->query("SET work_mem = '77kB'; SET DateStyle = 'Postgres, YMD'; SET \"myapp.a\" = 'other'; SET search_path = other; SET ROLE guest");
$others[1]->query("SET enable_seqscan = off; SET TimeZone = 'America/Lima'; SET client_encoding = 'LATIN9'; SET \"myapp.b\" = 'other'; SET geqo_threshold = 77; SET statement_timeout = '77s'");
my @theirs = map { join '|', @{ state_of($_) } } @others;
my $wrong = 0;
sub turn
{
	$_->send(PgPoolWire::message('Q', "$show\0")) for @others;
	for my $n (0 .. 2)
	{
		my $r = $others[$n]->answer;
		my $is = $r->{error} ? $r->{error}{M} : join '|', @{ $r->{rows}[0] };
		$wrong++, diag("other $n: $is") if $is ne $theirs[$n];
	}
}

sub told { my $c = shift; return join '|', map { "$_=" . ($c->{parameters}{$_} // '') } sort keys %known }

# ---- the programs
my ($end, $ran, $statements, @bad) = (time + $limit, 0, 0);
my $least = $programs < 200 ? $programs : 200; # however slow the machine is
while ($ran < $programs && (time < $end || $ran < $least) && @bad < 10)
{
	$ran++;
	my %start = start();
	my ($direct, $pooled) = map { connect_as($node, @app, %start, port => $_) } $node->port, $node->{pool_port};
	my @done;
	my $check = sub
	{
		my $sql = shift;
		push @done, $sql;
		my @results = map { result_of($_, $sql) } $direct, $pooled;
		turn();
		$statements++;
		my $problem;
		$problem = "result: $results[0] / $results[1]" if $results[0] ne $results[1];
		# In a failed transaction nothing can be asked.
		if ($results[0] !~ /^E/ && !$problem)
		{
			my ($a, $b) = map { state_of($_) } $direct, $pooled;
			turn();
			my @differ = grep { ($a->[$_] // '') ne ($b->[$_] // '') } 0 .. @names;
			$problem = join '; ', map { ($names[$_] // 'role') . ": $a->[$_] / $b->[$_]" } @differ if @differ;
		}
		my @told = map { told($_) } $direct, $pooled;
		$problem = "told: $told[0] / $told[1]" if !$problem && $told[0] ne $told[1];
		return 1 unless $problem;
		push @bad, $problem;
		diag("program $ran (direct / pooled): $problem\n  start: " . join(', ', map { "$_=$start{$_}" } sort keys %start) . "\n  " . join(";\n  ", @done));
		return 0;
	};
	my $good = 1;
	for (1 .. 3 + int rand 10)
	{
		$good = $check->(statement()) or last;
	}
	$check->('ROLLBACK') if $good;
	$_->send(PgPoolWire::message('X', '')) for $direct, $pooled;
}
note("$ran programs, $statements statements");
is(@bad, 0, "seed $seed: programs come to the same");
cmp_ok($ran, '>=', $least, 'no fewer than what finds something');
is($wrong, 0, 'the others saw their own all the while');

# ---- RESET of one setting leaves alone what another was set to, also where that is the backend's default
{
	my $c = connect_as($node, @app, IntervalStyle => 'iso_8601');
	$c->query('SET IntervalStyle = postgres');
	my @seen = map { turn(); $c->query('RESET work_mem'); $c->value('SHOW IntervalStyle') } 1 .. 20;
	is(join(' ', @seen), join(' ', ('postgres') x 20), 'RESET of another setting leaves IntervalStyle alone');
}
{
	my @seen = map { turn(); $others[0]->query('SELECT 1'); my $c = connect_as($node, @app, DateStyle => 'YMD'); my $v = $c->value('SHOW DateStyle'); $c->send(PgPoolWire::message('X', '')); $v } 1 .. 20;
	is(join('|', @seen), join('|', ('ISO, YMD') x 20), 'a startup parameter DateStyle = YMD');
}

$node->stop;
done_testing();
