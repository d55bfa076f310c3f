# How a shared unnamed statement is planned: cache_unnamed = generic goes over to a generic plan; custom does so only
# where the plan is the same for all values, and no longer once its table has changed so that it may not be.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute sync);
use Test::More;

my $node = pool_node('plans', conf => "ssl = off\npgpool.workers = 1\nlog_statement = none\nautovacuum = off");
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE TABLE skewed AS SELECT (n > 990)::int AS a FROM generate_series(1, 1000) n;
CREATE INDEX ON skewed (a);
CREATE TABLE keys (id int PRIMARY KEY, code varchar(10) UNIQUE, n int, note text);
INSERT INTO keys SELECT n, 'c' || n, n % 3, NULL FROM generate_series(1, 1000) n;
CREATE TABLE partial (id int PRIMARY KEY, n int);
CREATE INDEX ON partial (n) WHERE id > 500;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE late (id int, UNIQUE (id) DEFERRABLE);
CREATE TABLE guarded (id int PRIMARY KEY);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON guarded USING (id < 1000);
CREATE TABLE ruled (id int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO UPDATE keys SET note = NULL WHERE n = new.id;
CREATE TABLE plain (id int PRIMARY KEY, n int);
CREATE VIEW seen AS SELECT * FROM keys;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
ANALYZE;
SELECT pgpool.create_tenant(kind, cache_unnamed => kind, pool_size => 1) FROM unnest('{generic,custom}'::text[]) kind;
SQL
my %client = map { $_ => connect_as($node, user => "app.$_", password => 'secret') } 'generic', 'custom';

sub run_unnamed
{
	my ($c, $sql, @v) = @_;
	$c->send(parse($sql) . bind_to('', @v) . execute() . sync());
	my $r = $c->answer;
	die "$sql: $r->{error}{M}" if $r->{error};
	return $r->{rows}[0] ? $r->{rows}[0][0] : undef;
}
sub plans
{
	my ($c, $sql) = @_;
	$sql =~ s/'/''/g;
	my $rows = $c->query("SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = '$sql' AND NOT from_sql")->{rows};
	is(scalar @$rows, 1, "one statement: $sql");
	return $rows->[0] ? @{ $rows->[0] } : (-1, -1);
}

# ---- a plan that depends on the value
for my $kind ('generic', 'custom')
{
	my $c = $client{$kind};
	# Made anew for each value it costs the same here as a plan for all, so the server would change over after five.
	my $sql = "SELECT count(*) /* $kind */ FROM skewed WHERE a >= \$1";
	my @rows = map { run_unnamed($c, $sql, $_ % 2) } 1 .. 22;
	is("@rows", join(' ', map { $_ % 2 ? 10 : 1000 } 1 .. 22), "$kind: the rows");
	my ($generic, $custom) = plans($c, $sql);
	if ($kind eq 'custom') { is($generic, 0, '... never with a generic plan'); cmp_ok($custom, '>=', 20, '... but with one for each execution') }
	else { cmp_ok($generic, '>=', 10, '... with a generic plan after some'); cmp_ok($custom, '<=', 6, '... and few others') }
	is($node->safe_psql('postgres', "SELECT sum(parses) FROM pgpool.pg_stat_prepared WHERE text LIKE '%$kind%skewed%'"), 1, '... parsed once');
}

# ---- one that does not
my $c = $client{custom};
sub runs_in { my ($client, $sql, $times, $values) = @_; run_unnamed($client, $sql, $values->($_)) for 1 .. $times }
sub runs { runs_in($c, @_) }
my $id = sub { $_[0] };
my $two = sub { ($_[0], 1) };
my $new = 2000;
my @same = (
	[ 'SELECT n FROM keys WHERE id = $1', $id ], [ 'SELECT n FROM keys WHERE $1 = id', $id ], [ "SELECT n FROM keys WHERE code = \$1 AND note IS NULL", sub { "c$_[0]" } ],
	[ 'SELECT $1::int + n FROM keys WHERE id = $2 FOR UPDATE', $two ], [ 'UPDATE keys SET note = $2 WHERE id = $1', $two ], [ 'DELETE FROM plain WHERE id = $1', $id ],
	[ 'INSERT INTO plain VALUES ($1, $2) ON CONFLICT DO NOTHING', sub { ($new++, 1) } ], [ 'SELECT $1::int + 1', $id ], [ 'SELECT count(*) FROM keys WHERE id = $1 LIMIT 1', $id ]);
my @other = (
	[ 'SELECT n FROM keys WHERE id > $1 LIMIT 1', $id ], [ 'SELECT count(*) FROM keys WHERE n = $1', $id ], [ 'SELECT id FROM keys WHERE id = $1 AND n = $2', $two ],
	[ 'SELECT id FROM keys WHERE id = $1 OR n = $2', $two ], [ 'SELECT id FROM keys WHERE id = $1 LIMIT $2', $two ], [ 'SELECT (SELECT max(id) FROM keys WHERE n = $2) FROM keys WHERE id = $1', $two ],
	[ 'SELECT k.id FROM keys k JOIN pair p ON p.a = k.n WHERE k.id = $1', $id ], [ 'SELECT n FROM partial WHERE id = $1', $id ], [ 'SELECT id FROM parent WHERE id = $1', $id ],
	[ 'SELECT b FROM pair WHERE a = $1', $id ], [ 'SELECT b FROM pair WHERE a = $1 AND b = $2', $two ], [ 'SELECT id FROM late WHERE id = $1', $id ], [ 'SELECT id FROM guarded WHERE id = $1', $id ],
	[ 'INSERT INTO ruled VALUES ($1)', $id ], [ 'SELECT n FROM seen WHERE n = $1', $id ], [ 'SELECT DISTINCT generate_series(1, $1::int)', $id ], [ 'SELECT n FROM keys WHERE -id = $1', $id ],
	[ 'SELECT n FROM keys WHERE id + 0 = $1', $id ], [ 'INSERT INTO plain SELECT id + 9000 + $1::int, n FROM keys WHERE id < $1::int', sub { $_[0] * 1000 - 999 } ],
	[ 'WITH k AS (SELECT * FROM keys WHERE n = $1) SELECT count(*) FROM k', $id ], [ 'SELECT 1 WHERE $1::int > 3', $id ]);
for (@same, @other) { my ($sql, $values) = @$_; runs($sql, 12, $values) }
for (@same)
{
	my ($generic, $custom) = plans($c, $_->[0]);
	cmp_ok($generic, '>=', 5, '... has one plan') or diag("$custom custom plans");
	cmp_ok($custom, '<=', 6, '... after few others');
}
for (@other)
{
	my ($generic, $custom) = plans($c, $_->[0]);
	is($generic, 0, '... is planned for its values');
	cmp_ok($custom, '>=', 10, '... each time');
}

# ---- until the table changes
my $lookup = 'SELECT n FROM keys WHERE id = $1';
my @before = plans($c, $lookup);
$node->safe_psql('postgres', 'ANALYZE keys');
runs($lookup, 4, $id);
my @after = plans($c, $lookup);
is(join(' ', map { $after[$_] - $before[$_] } 0, 1), '4 0', 'behind ANALYZE it has one plan, as before');
# no command, so the statement is not parsed anew: its plan alone is
$node->safe_psql('postgres', "UPDATE pg_class SET relhassubclass = true WHERE relname = 'keys'");
@before = plans($c, $lookup);
runs($lookup, 4, $id);
@after = plans($c, $lookup);
is(join(' ', map { $after[$_] - $before[$_] } 0, 1), '0 4', 'a table that may have children now: planned for its values');
$node->safe_psql('postgres', "UPDATE pg_class SET relhassubclass = false WHERE relname = 'keys'");

for (
	[ 'a partial index', 'CREATE INDEX some_keys ON keys (n) WHERE id > 500', $lookup, $id, 0 ],
	[ 'none again', 'DROP INDEX some_keys', $lookup, $id, 1 ],
	[ 'a child', 'CREATE TABLE more () INHERITS (keys)', 'SELECT n FROM keys WHERE $1 = id', $id, 0 ],
	[ 'no longer unique', 'ALTER TABLE plain DROP CONSTRAINT plain_pkey', 'DELETE FROM plain WHERE id = $1', $id, 0 ],
	[ 'an INSERT and an index', 'CREATE INDEX ON plain (n)', 'INSERT INTO plain VALUES ($1, $2) ON CONFLICT DO NOTHING', sub { ($new++, 1) }, 1 ])
{
	my ($what, $change, $sql, $values, $one_plan) = @$_;
	$node->safe_psql('postgres', $change);
	runs($sql, 12, $values);
	my ($generic, $custom) = plans($c, $sql);
	if ($one_plan) { cmp_ok($generic, '>=', 5, "$what: one plan") }
	else { is($generic, 0, "$what: for each value") }
}

$_->send(PgPoolWire::message('X', '')) for values %client;

# ---- a backend has ten callbacks of the relation cache; where other extensions have taken all, pgpool needs none
SKIP:
{
	my $library = tool('extension/cache_callbacks.so') or skip 'no library for the server', 2;
	$node->safe_psql('postgres', "CREATE ROLE full_up LOGIN PASSWORD 'secret'; GRANT SELECT ON keys TO full_up; ALTER ROLE full_up SET session_preload_libraries = '$library'");
	my $serves = sub {
		my ($count, %where) = @_;
		$node->safe_psql('postgres', "ALTER ROLE full_up SET cache_callbacks.count = $count");
		return eval {
			my $s = connect_as($node, user => 'full_up', password => 'secret', %where);
			runs_in($s, $lookup, 8, $id);
			$s->send(PgPoolWire::message('X', ''));
			1;
		} || 0;
	};
	my ($most) = grep { $serves->($_, port => $node->port) } reverse 0 .. 10;
	cmp_ok($most // 0, '>', 0, 'as many as a login at the server can take') or skip 'none', 1;
	ok($serves->($most), "... $most: a client of the pool is served") or diag($@);
}
$node->stop;
done_testing();
