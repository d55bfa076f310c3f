# Shared prepared statements and what happens to them behind a client's back: DDL, DEALLOCATE, an eviction, a limit.
# A client sees what PostgreSQL would show it, or something better; another client never sees a trace.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute flush sync);
use Test::More;

my $node = pool_node('statements', conf => "ssl = off\npgpool.default_pool_size = 2\npgpool.workers = 1");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE SCHEMA AUTHORIZATION app");
my @app = (user => 'app', password => 'secret');

# ---- messages
sub describe { return PgPoolWire::describe('S', @_) }
sub close_of { return PgPoolWire::close_name('S', @_) }
sub columns  { return PgPoolWire::describe('P') }
sub shown_of { my $name = shift; return bind_to($name) . columns() . execute() . sync() }
sub run_of   { my $name = shift; return bind_to($name) . execute() . sync() }

sub ask { my ($c, @m) = @_; $c->send(join '', @m); return shown($c->answer) }
# Rows, tags and the error as one line.
sub shown
{
	my $r = shift;
	return join ' ', (map { '(' . join(',', map { $_ // 'null' } @$_) . ')' } @{ $r->{rows} }), @{ $r->{tags} },
	  ($r->{error} ? "$r->{error}{C} $r->{error}{M}" : ()), $r->{status} // 'closed';
}
# A client that keeps one of the two servers until its transaction ends.
sub hold { my $c = connect_as($node, @app); $c->query('BEGIN'); return $c }
sub owner { my $sql = shift; $node->safe_psql('postgres', $sql) }

my ($c, $other) = map { connect_as($node, @app) } 1, 2;

# ---- a result type that changes
owner('CREATE TABLE app.t (a int); ALTER TABLE app.t OWNER TO app; INSERT INTO app.t VALUES (1)');
my $text = 'SELECT * FROM t';
is(ask($c, parse($text, 's'), run_of('s')), '(1) SELECT 1 I', 'prepared and executed');
owner('ALTER TABLE app.t ADD COLUMN b int DEFAULT 2');
is(ask($c, run_of('s')), '0A000 cached plan must not change result type I', 'a client that knows the columns from before gets the error');
is(ask($c, shown_of('s')), '(1,2) SELECT 1 I', 'one that asks for them gets the statement prepared anew');
is(ask($c, run_of('s')), '(1,2) SELECT 1 I', '... and it stays so');

owner('ALTER TABLE app.t ADD COLUMN c int DEFAULT 3');
$c->send(describe('s') . sync());
$c->answer;
my @told = map { $_->[0] eq 'T' ? 'T' . unpack('n', $_->[1]) : $_->[0] } @{ $c->{seen} }[-3 .. -1];
is("@told", 't T3 Z', 'Describe of a stale statement tells the new columns');

owner('ALTER TABLE app.t ADD COLUMN d int DEFAULT 4');
$c->send(bind_to('s') . columns() . execute() . flush());
my @types;
while (my $m = $c->next) { push @types, $m->[0]; last if $m->[0] eq 'C' }
is("@types", '2 T D C', 'with Flush in place of Sync nothing of it is seen, either');
is(ask($c, sync()), 'I', '... and Sync is answered once');

owner('ALTER TABLE app.t ADD COLUMN e int DEFAULT 5');
$c->query('BEGIN');
is(ask($c, run_of('s')), '0A000 cached plan must not change result type E', 'in a transaction block: PostgreSQL\'s error');
$c->query('ROLLBACK');
is(ask($c, shown_of('s')), '(1,2,3,4,5) SELECT 1 I', '... and after it the new result');

# ---- who prepares after the change gets the catalog as it is, also in a block, on each server
my $holder = hold();
is(ask($other, parse($text, 's'), run_of('s')), '(1,2,3,4,5) SELECT 1 I', 'the second server has the statement');
$holder->query('ROLLBACK');
owner('ALTER TABLE app.t DROP COLUMN e');
for my $n (1, 2)
{
	my $fresh = hold();
	is(ask($fresh, parse($text, 'new'), run_of('new')), '(1,2,3,4) SELECT 1 T', "a client that prepares after the change, server $n");
	$holder = $fresh;
}
undef $holder;
for my $block ('', 'in one segment')
{
	my $ddl = connect_as($node, @app);
	is(ask($ddl, parse($text, 'before'), sync()), 'I', 'prepared before');
	$ddl->query('BEGIN');
	if ($block)
	{
		$ddl->send(PgPoolWire::message('Q', "ALTER TABLE t ADD COLUMN x int DEFAULT 9\0") . parse($text, 'after') . run_of('after'));
		is(shown($ddl->answer), 'ALTER TABLE T', 'DDL of its own');
		is(shown($ddl->answer), '(1,2,3,4,9) SELECT 1 T', 'and prepared after it, in one segment');
	}
	else
	{
		$ddl->query('ALTER TABLE t ADD COLUMN x int DEFAULT 9');
		is(ask($ddl, parse($text, 'after'), run_of('after')), '(1,2,3,4,9) SELECT 1 T', 'prepared after DDL in the same transaction');
	}
	$ddl->query('ROLLBACK');
	is(ask($ddl, parse($text, 'gone'), run_of('gone')), '(1,2,3,4) SELECT 1 I', '... and after its rollback');
	$ddl->send(PgPoolWire::message('X', ''));
}

# ---- the change comes behind Parse, which pgpool answers, and before Bind, which waits for the owner's lock
owner('CREATE TABLE app.u (a int); ALTER TABLE app.u OWNER TO app; INSERT INTO app.u VALUES (1)');
my $one    = hold(); # so that one server serves all others
my $raced  = connect_as($node, @app);
my @again  = (parse('SELECT * FROM u', 'raced'), run_of('raced'));
my @behind = (parse('SELECT 7', 'behind'), run_of('behind'));
for my $case ([ 'alone', [@again] ],
	[ 'with a Sync behind it',              [ @again, sync() ], [], 'I' ],
	[ 'with another batch behind it',       [ @again, @behind ], [], '(7) SELECT 1 I' ],
	[ 'with another one, which comes later', [@again], [@behind], '(7) SELECT 1 I' ])
{
	my ($how, $now, $later, @more) = @$case;
	ask($raced, parse('SELECT * FROM u', 'warm'), run_of('warm'));
	my $ddl = connect_as($node, port => $node->port, @app);
	$ddl->query('BEGIN; LOCK TABLE u');
	$raced->send(join '', @$now);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'app.u'::regclass"), "a batch $how: its Bind waits");
	$raced->send(join '', @$later) if $later;
	$ddl->query('ALTER TABLE u ADD COLUMN b int DEFAULT 2; COMMIT');
	is(join(', ', map { shown($raced->answer) } 0 .. @more), join(', ', '(1,2) SELECT 1 I', @more), '... is as if PostgreSQL had parsed it');
	$ddl->query('ALTER TABLE u DROP COLUMN b');
	ask($raced, map({ close_of($_) } qw(warm raced behind)), sync());
}
$one->query('ROLLBACK');

# ---- taken away where pgpool cannot see it
my $busy = hold();
is(ask($c, run_of('s')), '0A000 cached plan must not change result type I', 'the server has it as others prepared it since: the client does not');
$c->send(run_of('s'));
is($c->answer->{error}{R}, 'RevalidateCachedQuery', '... and the error has the routine by which drivers know it');
is(ask($c, close_of('s'), parse($text, 's'), run_of('s')), '(1,2,3,4) SELECT 1 I', 'prepared anew');
$other->query("DO \$\$ BEGIN EXECUTE 'DEALLOCATE ALL'; END \$\$");
is(ask($c, run_of('s')), '(1,2,3,4) SELECT 1 I', 'deallocated in a function by somebody else, and still there');
$other->query("DO \$\$ BEGIN EXECUTE 'DEALLOCATE ALL'; END \$\$");
$c->query('BEGIN');
is(ask($c, run_of('s')), '26000 prepared statement "s" does not exist E', 'in a block it is an error, with the client\'s own name');
$c->query('ROLLBACK');
is(ask($c, run_of('s')), '(1,2,3,4) SELECT 1 I', '... and works again after it');
$busy->query('ROLLBACK');

# ---- DEALLOCATE is the client's alone
is(ask($other, close_of('s'), parse($text, 's'), run_of('s')), '(1,2,3,4) SELECT 1 I', 'two clients have "s"');
is(shown($c->query('DEALLOCATE s')), 'DEALLOCATE I', 'one deallocates it in SQL');
is(ask($c, run_of('s')), '26000 prepared statement "s" does not exist I', '... and has it no more');
is(ask($other, run_of('s')), '(1,2,3,4) SELECT 1 I', '... the other one has');
is(ask($c, parse($text, 's'), sync()), 'I', 'the name is free');
is(ask($c, parse('DEALLOCATE PREPARE "s"'), bind_to(''), execute(), sync()), 'DEALLOCATE I', 'through the extended protocol');
is(ask($c, run_of('s')), '26000 prepared statement "s" does not exist I', '... the same');
is(shown($other->query('DEALLOCATE ALL')), 'DEALLOCATE ALL I', 'DEALLOCATE ALL of the other client');
is(ask($other, run_of('s')), '26000 prepared statement "s" does not exist I', '... takes all of its own');

# ---- a text that means something else under other settings is another statement
owner("CREATE SCHEMA app2 AUTHORIZATION app; CREATE TABLE app2.t AS SELECT 'two' AS a; ALTER TABLE app2.t OWNER TO app");
for my $case ([ 'TimeZone', 'UTC', 'Asia/Tokyo', "SELECT extract(epoch FROM timestamptz '2020-01-01 00:00')::int" ],
	[ 'DateStyle', 'ISO, MDY', 'ISO, DMY', "SELECT (date '02/03/2020' - date '2020-01-01')::int" ],
	[ 'IntervalStyle', 'postgres', 'sql_standard', "SELECT extract(epoch FROM interval '-1 1:00:00')::int" ],
	[ 'search_path', 'app', 'app2', 'SELECT * FROM t' ],
	[ 'transform_null_equals', 'off', 'on', 'SELECT (1 = NULL) IS NULL' ],
	[ 'array_nulls', 'on', 'off', "SELECT ('{null}'::text[])[1] IS NULL" ],
	[ 'backslash_quote', 'safe_encoding', 'off', "SELECT E'\\''" ],
	[ 'xmloption', 'content', 'document', "SELECT 'text'::xml" ])
{
	my ($name, @value) = @$case;
	my $sql = pop @value;
	my @want;
	for my $on_server (1, 0) # the port of the server, then the pool's, where the clients take turns on its two servers
	{
		my @had;
		my @two = map { connect_as($node, @app, $on_server ? (port => $node->port) : ()) } @value;
		$two[$_]->query("SET $name = '$value[$_]'") for 0, 1;
		for my $n (0, 1, 1, 0)
		{
			push @had, ask($two[$n], parse('SELECT 1'), close_of('m'), parse($sql, 'm'), run_of('m'));
		}
		$_->send(PgPoolWire::message('X', '')) for @two;
		if ($on_server) { @want = @had; isnt($want[0], $want[1], "$name changes what a text means") }
		else            { is("@had", "@want", '... for each client its own') }
	}
}

# ---- limits of a client
$node->safe_psql('postgres', "ALTER SYSTEM SET pgpool.max_client_statements = 3");
$node->reload;
poll_until(sub { $c->query('DEALLOCATE ALL'); ask($c, map({ parse("SELECT $_", "n$_") } 1 .. 4), sync()) =~ /53400/ }, 'the limit holds');
is(ask($c, parse('SELECT 5', 'n5'), sync()), '53400 too many prepared statements I', 'one too many is an error');
is(ask($c, run_of('n5')), '26000 prepared statement "n5" does not exist I', '... and leaves no trace');
is(ask($c, run_of('n3')), '(3) SELECT 1 I', '... the others work');
$c->query('BEGIN');
is(ask($c, bind_to('n1'), execute(), parse('SELECT 5', 'n5'), run_of('n2')), '(1) SELECT 1 53400 too many prepared statements E',
	'in a pipeline it ends the transaction and all up to Sync');
$c->query('ROLLBACK');
is(ask($c, close_of('n1'), parse('SELECT 5', 'n5'), run_of('n5')), '(5) SELECT 1 I', 'room is made by Close');
$node->safe_psql('postgres', "ALTER SYSTEM SET pgpool.max_client_statements = 1000; ALTER SYSTEM SET pgpool.client_statement_memory = '64kB'");
$node->reload;
my $long = "SELECT 1 /* @{[ 'x' x 30_000 ]} */";
poll_until(sub { $c->query('DEALLOCATE ALL'); ask($c, map({ parse($long, "n$_") } 1 .. 3), sync()) =~ /53400/ }, 'the limit holds');
$c->query('DEALLOCATE ALL');
$c->send(join '', map({ parse($long, "n$_") } 1 .. 3), sync());
my $error = $c->answer->{error};
is("$error->{D} $error->{H}", 'The client has 2 prepared statements of 60036 bytes. Close statements that are not needed, '
	  . 'or raise pgpool.client_statement_memory, now 64 kB.', 'the error says how many and what to do');

$node->stop;
done_testing();
