# Which statements are reads: the table of test/routing/statements.txt as explain_route() sees it, which asks the same
# grammar and facts as a worker; what changes the facts; strings of random words and bytes, which crash, leak and log
# nothing.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $FUZZ = $ENV{PGPOOL_GRAMMAR_FUZZ} || 20000;
my $node = pool_node('grammar', conf => "pgpool.workers = 1\nmax_worker_processes = 12");
my $me = (getpwuid $>)[0];
sub session
{
	my ($database) = @_;
	my $c = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
	$c->login(user => $me, database => $database);
	return $c;
}
my $admin = session('postgres');
sub rows_of { my ($sql) = @_; my $r = $admin->query($sql); die "$sql: $r->{error}{M}" if $r->{error}; return @{ $r->{rows} } }
sub quoted { my ($s) = @_; $s =~ s/'/''/g; return "'$s'" }
sub route { my ($sql) = @_; my ($row) = rows_of('SELECT kind, reason, object FROM pgpool.explain_route(' . quoted($sql) . ", 'app')"); return $row }

rows_of("CREATE DATABASE app TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'");
my $app = session('app');
my $made = $app->query(slurp_file('test/routing/objects.sql'));
is($made->{error} && $made->{error}{M}, undef, 'the objects are there');
rows_of("SELECT pgpool.allow_on_replica('public.f_declared(integer)', 'app')");

# ---- the table
my (@rows, $expected);
for my $line (split /\n/, slurp_file('test/routing/statements.txt'))
{
	next if $line =~ /^#/;
	my ($kind, $reason, $sql) = split /\t/, $line, 3;
	my $option = $sql =~ s/^\[(\w+)\] // ? $1 : '';
	$sql =~ s/\\n(?![\w\\])/\n/g, $sql =~ s/\\t(?=\d)/\t/g;
	$sql =~ s/^(-- (?:first|SELECT|pgpool: primary))\\n/$1\n/;
	push @rows, [ $kind, $reason, $sql, $option ];
}
my $n = 0;
my @told = rows_of('SELECT r.kind, r.reason FROM (VALUES ' . join(', ', map {
	my ($stable, $encoding) = $_->[3] eq 'stable' ? ('true', 'UTF8') : ('false', $_->[3] || 'UTF8');
	'(' . $n++ . ', ' . quoted($_->[2]) . ", $stable, '$encoding')" } @rows)
	. ') v (n, sql, stable, encoding), LATERAL pgpool.explain_route(v.sql, \'app\', v.stable, v.encoding) r ORDER BY v.n');
is(@told, @rows, scalar(@rows) . ' statements');
my $wrong = 0;
for my $i (0 .. $#rows)
{
	my ($kind, $reason, $sql, $option) = @{ $rows[$i] };
	my $got = join ' ', map { $_ // 'NULL' } @{ $told[$i] };
	next if $got eq "$kind $reason";
	$wrong++;
	diag("[$option] $sql: $got, expected $kind $reason");
}
is($wrong, 0, 'each statement is what the table says');
is_deeply(route('SELECT f_volatile(1)'), [ 'write', 'function_unknown', 'f_volatile' ], 'the function is named');
is((rows_of("SELECT words FROM pgpool.explain_route('SELECT 1 FROM u', 'app')"))[0][0],
	'a standby has no such relation (temporary, unlogged, foreign, or a sequence): u', 'in words');
is((rows_of("SELECT target FROM pgpool.explain_route('SELECT 1 FROM t', 'app')"))[0][0], 'replica', 'the target');
my $text = 'SELECT 1' . ' ' x 65536;
is(route($text)->[1], 'too_long', 'a long text');
is(route('SELECT ' . '(' x 30000 . '1' . ')' x 30000)->[1], 'not_parsed', 'deep parentheses');
is(route('SELECT 1' . '+1' x 32000)->[0], 'write', 'a deep tree');

# ---- the facts follow the catalog
is(route("SELECT upper('a')")->[0], 'read', 'a function of the server');
$app->query("CREATE FUNCTION upper(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'");
is(route("SELECT upper('a')")->[0], 'write', '... that has a namesake');
$app->query('DROP FUNCTION upper(integer)');
is(route("SELECT upper('a')")->[0], 'read', '... and no more');
is(route('SELECT f_volatile(1)')->[0], 'write', 'a function that nobody declared');
rows_of("SELECT pgpool.allow_on_replica('public.f_volatile(integer)', 'app')");
poll_until(sub { route('SELECT f_volatile(1)')->[0] eq 'read' }, '... is declared');
is(route('SELECT * FROM v_volatile')->[0], 'read', '... and views that call it are read');
rows_of("SELECT pgpool.disallow_on_replica('public.f_volatile(integer)', 'app')");
poll_until(sub { route('SELECT f_volatile(1)')->[0] eq 'write' }, '... and no more');
$app->query("CREATE FUNCTION to_wrap(integer) RETURNS comp_bad LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
$app->query('CREATE CAST (integer AS comp_bad) WITH FUNCTION to_wrap(integer) AS IMPLICIT');
is(route('SELECT 1')->[1], 'cast_unknown', 'an implicit cast that calls a function');
$app->query('DROP FUNCTION to_wrap(integer) CASCADE');
is(route('SELECT 1')->[0], 'read', '... and no more');
my $mode = (stat $node->data_dir . '/pgpool/facts.' . (rows_of("SELECT oid FROM pg_database WHERE datname = 'app'"))[0][0])[2] & 0777;
is($mode, 0600, 'the file is for the server alone');

# ---- 20,000 strings
srand(4711);
my @words = map { grep { length } split /(\W)/, $_->[2] } @rows;
my @odd = ('\'', '"', '$$', '/*', '*/', '--', "\n", '\\', 'E\'', 'U&"', '::', '(', ')', '[', ']', ';', '$1', '{', 'é', '9' x 40, 'x' x 70,
	'"' . 'y' x 80 . '"');
sub mutation
{
	my $sql = $rows[rand @rows][2];
	for (1 .. 1 + rand 4)
	{
		my $at = int rand(1 + length $sql);
		my $how = rand;
		if    ($how < 0.3) { substr($sql, $at, 0) = $words[rand @words] }
		elsif ($how < 0.5) { substr($sql, $at, 0) = $odd[rand @odd] }
		elsif ($how < 0.7) { substr($sql, $at, int rand 6) = '' }
		elsif ($how < 0.9) { $sql .= ' ' . $rows[rand @rows][2] }
		else               { $sql = substr($sql, 0, $at) }
	}
	utf8::decode(my $copy = $sql) or $sql =~ s/[\x80-\xff]/?/g;
	return $sql;
}
sub memory { return (rows_of('SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name ~ \'grammar|TopMemory|ErrorContext\''))[0][0] }
sub round
{
	my ($count) = @_;
	return rows_of('SELECT r.kind FROM unnest(ARRAY[' . join(', ', map { quoted(mutation()) } 1 .. $count)
		. ']) sql, LATERAL pgpool.explain_route(sql, \'app\') r');
}
$admin->query("SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_messages = 'debug1'; SET standard_conforming_strings = on");
my %kinds;
$kinds{ $_->[0] }++ for round(1000);
my ($log, $before) = (-s $node->logfile, memory());
for (2 .. $FUZZ / 1000) { $kinds{ $_->[0] }++ for round(1000) }
diag("$FUZZ strings: " . join ', ', map { "$_ $kinds{$_}" } sort keys %kinds);
cmp_ok($kinds{read}, '>', $FUZZ / 50, 'some are reads');
is(memory(), $before, 'no memory is lost');
my $lines = substr(slurp_file($node->logfile), $log);
unlike($lines, qr/truncated|escape|nonstandard|syntax error|unterminated/, 'no line in the log');

# ---- what it costs, less what the call of the function does
sub microseconds
{
	my ($sql) = @_;
	my $query = 'WITH s AS MATERIALIZED (SELECT clock_timestamp() AS began), n AS MATERIALIZED (SELECT count(r.kind) FROM s, generate_series(1, 20000) g, '
		. 'LATERAL pgpool.explain_route(' . quoted($sql) . " || left(g::text, 0), 'app') r) SELECT extract(epoch FROM clock_timestamp() - began) * 1e6 / 20000 FROM n, s";
	return (sort { $a <=> $b } map { (rows_of($query))[0][0] } 1 .. 5)[0];
}
my $call = microseconds('');
for my $sql ('SELECT abalance FROM pgbench_accounts WHERE aid = 12345', 'BEGIN', 'UPDATE t SET id = 1 WHERE id = 2',
	'SELECT t.id, count(*) FROM t JOIN orders o ON o.t_id = t.id WHERE o.amount > 10 GROUP BY t.id HAVING count(*) > 1 ORDER BY 2 LIMIT 10',
	'SELECT lower(name), now() FROM t WHERE id IN (1, 2, 3) AND name LIKE \'a%\'')
{
	diag(sprintf '%.2f us: %s', microseconds($sql) - $call, $sql);
}
done_testing();
