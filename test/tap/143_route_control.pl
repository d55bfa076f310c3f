# Shows: hints, pgpool.route and its aliases decide where a statement is served, checked, rolled back and reset as any
# setting; a READ ONLY block is served by a standby as a whole, and goes to the primary before anything that would leave
# something in the session, so that nothing of it is lost; with route_blocks = 'until_write' any block does so.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;
use PgPoolWire ();

my $pool = PgPool->new('zero', streaming => 1, workers => 1, conf => "autovacuum = off\nmax_connections = 100\n");
$pool->node->backup('copy');
my $node = PostgreSQL::Test::Cluster->new('one');
$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
my $port = free_port();
$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\n");
chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
$node->start;

# place() is declared to be harmless, secret_place() is not.
my $body = q{LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN pg_is_in_recovery() THEN ''node'' ELSE ''primary'' END; END'};
$pool->sql("CREATE FUNCTION place() RETURNS text $body; CREATE FUNCTION secret_place() RETURNS text $body", 'app');
$pool->sql('CREATE TABLE t (a int); INSERT INTO t VALUES (1); GRANT ALL ON t TO app', 'app');
$pool->sql(q{SELECT pgpool.allow_on_replica('public.place()', 'app')});
$pool->sql("SELECT pgpool.add_replica('one', '127.0.0.1', " . $node->port . ')');
$pool->sql(q{SELECT pgpool.alter_tenant('default', routing => 'reads', read_wait => '10s')});

my $c = $pool->raw;
my $here = 'SELECT place()';
within(20, sub { $c->value($here) eq 'node' }, 'a read is served by the standby');

sub in_order { my ($client, @sql) = @_; return join ' ', map { my $r = $client->ask($_); $r->{error} ? $r->{error}{C} : $r->{rows}[0] ? $r->{rows}[0][0] // '' : '-' } @sql }

sub extended
{
	my ($client, @sql) = @_;
	my @got;
	for (@sql)
	{
		$client->write(PgPoolWire::parse($_, '') . PgPoolWire::bind_to('') . PgPoolWire::execute() . PgPoolWire::sync());
		my $r = $client->result;
		push @got, $r->{error} ? $r->{error}{C} : $r->{rows}[0] ? $r->{rows}[0][0] // '' : '-';
	}
	return join ' ', @got;
}

sub caught_up { $pool->node->wait_for_catchup('one') } # else one's own writes keep reads on the primary

# ---- hints
is($c->value("/* pgpool: primary */ $here"), 'primary', 'a hint to the primary');
is($c->value("/* pgdog_role: primary */ $here"), 'primary', '... of PgDog');
is($c->value("/*NO LOAD BALANCE*/ $here"), 'primary', '... of Pgpool-II');
is($c->value('SELECT secret_place()'), 'primary', 'a function that is not known goes to the primary');
is($c->value('/* pgpool: replica */ SELECT secret_place()'), 'node', '... or where a hint says');
is($c->value('/* pgpool: replica */ UPDATE t SET a = a RETURNING place()'), 'primary', 'no hint takes a write to a standby');
caught_up();
is(extended($c, "/* pgpool: primary */ $here", '/* pgdog_role: replica */ SELECT secret_place()'), 'primary node', 'hints in the extended protocol');

# ---- SET
for my $way (\&in_order, \&extended)
{
	my $how = $way == \&in_order ? 'simple' : 'extended';
	is($way->($c, 'SHOW pgpool.route'), 'auto', "$how: pgpool.route");
	is($way->($c, q{SET pgpool.route = 'primary'}, $here, 'SHOW pgpool.route', $here), '- primary primary primary', "$how: SET to primary");
	is($way->($c, "/* pgpool: replica */ $here"), 'node', "$how: a hint counts before it");
	is($way->($c, q{SET pgpool.route = 'replica'}, 'SELECT secret_place()', 'UPDATE t SET a = a RETURNING place()'), '- node primary', "$how: SET to replica");
	caught_up();
	is($way->($c, q{SELECT set_config('app.x', 'kept', false)}, $here, 'SHOW pgpool.route', q{/* pgpool: primary */ SELECT current_setting('app.x')}),
		'kept node replica kept', "$how: ... and what is known to belong to the session stays there");
	is($way->($c, q{SET pgpool.route = 'elsewhere'}, 'SHOW pgpool.route'), '22023 replica', "$how: a wrong value is PostgreSQL's error");
	is($way->($c, 'RESET pgpool.route', 'SELECT secret_place()', 'SHOW pgpool.route'), '- primary auto', "$how: RESET");
	is($way->($c, 'BEGIN', q{SET pgpool.route = 'primary'}, 'ROLLBACK', $here, 'SHOW pgpool.route'), '- - - node auto', "$how: ROLLBACK");
	is($way->($c, 'BEGIN', q{SET LOCAL pgpool.route = 'primary'}, 'SHOW pgpool.route', 'COMMIT', $here), '- - primary - node', "$how: SET LOCAL");
	is($way->($c, 'BEGIN', q{SET pgpool.route = 'primary'}, 'COMMIT', $here, 'RESET ALL', $here), '- - - primary - node', "$how: COMMIT, RESET ALL");
	is($way->($c, q{SET pgpool.route = 'primary'}, $here, 'DISCARD ALL', $here), '- primary - node', "$how: DISCARD ALL");
	is($way->($c, q{SET pgdog.role = 'primary'}, $here, 'RESET pgdog.role', $here), '- primary - node', "$how: as PgDog has it");
	is($way->($c, q{SET odyssey.target_session_attrs = 'read-write'}, $here, q{SET odyssey.target_session_attrs = 'any'}, $here),
		'- primary - node', "$how: as Odyssey has it");
}
is(in_order($c, q{SET SERVER ROLE TO 'primary'}, 'SHOW pgpool.route', $here, q{SET SERVER ROLE TO 'replica'}, 'SELECT secret_place()', q{SET SERVER ROLE TO 'auto'}),
	'- primary primary - node -', 'as PgCat has it');
is(in_order($c, q{SET SERVER ROLE TO 'nobody'}), '42601', '... a wrong word');

# ---- from the beginning
sub with { my ($name, $value) = @_; return $pool->raw(startup => { $name => $value }) }
my $started = with(options => '-c pgpool.route=primary');
is(in_order($started, $here, 'SHOW pgpool.route', q{SET pgpool.route = 'auto'}, $here, 'RESET pgpool.route', $here), 'primary primary - node - primary', 'in options');
is(in_order(with('pgpool.route' => 'replica'), 'SELECT secret_place()', 'DISCARD ALL', 'SELECT secret_place()'), 'node - node', 'as a startup parameter');
is(in_order(with(options => '-c pgdog.role=primary'), $here), 'primary', 'an alias in options');
is(eval { with('pgpool.route' => 'elsewhere'); 1 } // $@ =~ s/\s.*//sr, '22023', 'a wrong value is refused');
$pool->sql(q{ALTER ROLE app SET pgpool.route = 'primary'});
within(20, sub { in_order($pool->raw, $here, 'SHOW pgpool.route') eq 'primary primary' }, 'ALTER ROLE ... SET');
$pool->sql('ALTER ROLE app RESET pgpool.route');
within(20, sub { in_order($pool->raw, $here) eq 'node' }, '... RESET');
$c = $pool->raw;

# ---- READ ONLY blocks
for my $way (\&in_order, \&extended)
{
	my $how = $way == \&in_order ? 'simple' : 'extended';
	is($way->($c, 'BEGIN READ ONLY', $here, 'SELECT a FROM t', $here, 'COMMIT', 'UPDATE t SET a = a RETURNING place()'), '- node 1 node - primary', "$how: BEGIN READ ONLY");
	caught_up();
	is($way->($c, 'START TRANSACTION READ ONLY, ISOLATION LEVEL READ COMMITTED', $here, 'ROLLBACK'), '- node -', "$how: START TRANSACTION");
	is($way->($c, 'BEGIN', $here, 'COMMIT'), '- primary -', "$how: a block that may write");
	is($way->($c, 'BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE', $here, 'COMMIT'), '- primary -', "$how: SERIALIZABLE");
	is($way->($c, 'BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ', $here, 'COMMIT'), '- primary -', "$how: REPEATABLE READ");
	is($way->($c, '/* pgpool: replica */ BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ', $here, 'SELECT secret_place()', 'COMMIT'), '- node node -', "$how: ... for who asks");
	is($way->($c, '/* pgpool: replica */ BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ', $here, 'SET app.x = 1', $here, 'COMMIT', $here), '- node 25P02 25P02 - node',
		"$how: ... where what it cannot do fails");
	is($way->($c, '/* pgpool: primary */ BEGIN READ ONLY', $here, 'COMMIT'), '- primary -', "$how: a hint to the primary");
	is($way->($c, 'BEGIN READ ONLY', $here, 'SELECT secret_place()', $here, 'UPDATE t SET a = a', 'COMMIT'), '- node primary primary 25006 -', "$how: what may leave something goes to the primary, READ ONLY as it was");
	is($way->($c, 'BEGIN READ ONLY', $here, 'SELECT 1/(a-a) FROM t', $here, 'SET app.x = 1', 'COMMIT', $here), '- node 22012 25P02 25P02 - node', "$how: a block that failed");
	is($way->($c, 'BEGIN READ ONLY', $here, 'SET app.x = 13', q{SET work_mem = '77kB'}, q{SET TimeZone = 'Asia/Tokyo'}, 'PREPARE p AS SELECT 7', 'COMMIT'), '- node - - - - -', "$how: settings in a block");
	is($way->($c, q{/* pgpool: primary */ SELECT current_setting('app.x')}, '/* pgpool: primary */ SHOW work_mem', 'SHOW TimeZone', 'EXECUTE p', 'DEALLOCATE p'), '13 77kB Asia/Tokyo 7 -', "$how: ... are there later");
	is($way->($c, 'BEGIN READ ONLY', $here, 'SHOW TimeZone', q{SELECT set_config('app.x', '14', true)}, q{SELECT current_setting('app.x')}, 'COMMIT', q{/* pgpool: primary */ SELECT current_setting('app.x')}),
		'- node Asia/Tokyo 14 14 - 13', "$how: ... and are those of the client in a block");
	is($way->($c, 'BEGIN READ ONLY', 'SELECT pg_advisory_lock(7)::text', 'COMMIT', 'SELECT pg_advisory_unlock(7)'), '-  - t', "$how: an advisory lock");
	is($way->($c, 'BEGIN READ ONLY', 'DECLARE h CURSOR WITH HOLD FOR SELECT place()', 'COMMIT', 'FETCH h', 'CLOSE h'), '- - - primary -', "$how: a cursor WITH HOLD");
	is($way->($c, 'SET default_transaction_read_only = on', 'BEGIN', $here, 'COMMIT', 'BEGIN READ WRITE', $here, 'COMMIT', 'RESET default_transaction_read_only'),
		'- - node - - primary - -', "$how: default_transaction_read_only");
	is($way->($c, q{SET default_transaction_isolation = 'repeatable read'}, 'BEGIN READ ONLY', $here, 'COMMIT', 'RESET default_transaction_isolation'),
		'- - primary - -', "$how: default_transaction_isolation");
	is($way->($c, q{SET pgpool.route = 'replica'}, 'BEGIN READ ONLY', 'SELECT secret_place()', 'COMMIT', 'RESET pgpool.route'), '- - node - -', "$how: with pgpool.route = replica");
	is($way->($c, 'BEGIN READ ONLY', q{SET LOCAL pgpool.route = 'primary'}, $here, 'COMMIT', $here), '- - primary - node', "$how: with SET LOCAL pgpool.route");
	is($way->($c, 'BEGIN READ ONLY', 'COMMIT AND CHAIN', $here, 'COMMIT'), '- - primary -', "$how: AND CHAIN");
	is($way->($c, 'BEGIN READ ONLY', 'SAVEPOINT s', $here, 'ROLLBACK TO s', 'COMMIT'), '- - primary - -', "$how: a savepoint");
	is($way->($c, 'RESET ALL', $here), '- node', "$how: afterwards");
}

# As JDBC does: BEGIN goes with the first statement, and results are fetched in parts from a portal with a name.
sub parsed { my ($sql) = @_; return PgPoolWire::parse($sql, '') . PgPoolWire::bind_to('') . PgPoolWire::execute() }
$c->write(parsed('BEGIN READ ONLY') . parsed($here) . PgPoolWire::sync());
is($c->result->{rows}[0][0], 'node', 'BEGIN in front of the first statement');
is(in_order($c, 'COMMIT'), '-', '... its end');
$c->write(parsed('BEGIN READ ONLY') . PgPoolWire::parse('SELECT place() FROM generate_series(1, 3)', '') . PgPoolWire::bind_to('') . PgPoolWire::execute(1) . PgPoolWire::sync());
is($c->result->{rows}[0][0], 'primary', 'a block with a portal that is read in parts');
is(in_order($c, 'COMMIT'), '-', '... its end');
$c->write(join '', map { PgPoolWire::query_message($_) } 'BEGIN READ ONLY', $here, 'SET app.y = 5', $here, 'COMMIT', "SELECT current_setting('app.y'), place()", $here);
my @places = map { my $r = $c->result; $r->{error} ? $r->{error}{C} : $r->{rows}[0] ? $r->{rows}[0][-1] : '-' } 1 .. 7;
is("@places", '- node - primary - primary primary', 'a block in one pipeline; what is sent behind a write stays with it');
$c->close;

# ---- until the first write
$pool->sql(q{SELECT pgpool.alter_tenant('default', route_blocks => 'until_write')});
$c = $pool->raw;
within(20, sub { in_order($c, 'BEGIN', $here, 'COMMIT') eq '- node -' }, 'until_write: a block begins on the standby');
for my $way (\&in_order, \&extended)
{
	my $how = $way == \&in_order ? 'simple' : 'extended';
	is($way->($c, 'BEGIN', $here, 'UPDATE t SET a = a + 1 RETURNING a > 0', $here, 'ROLLBACK', 'SELECT a FROM t'), '- node t primary - 1', "$how: until_write: it goes to the primary before its first write");
	is($way->($c, 'BEGIN', 'SET TRANSACTION READ ONLY', $here, 'UPDATE t SET a = 5', 'COMMIT'), '- - node 25006 -', "$how: until_write: SET TRANSACTION READ ONLY");
	is($way->($c, 'BEGIN', 'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY', $here, 'COMMIT'), '- - primary -', "$how: until_write: with another isolation");
	is($way->($c, 'BEGIN ISOLATION LEVEL REPEATABLE READ', $here, 'COMMIT'), '- primary -', "$how: until_write: REPEATABLE READ");
	is($way->($c, 'BEGIN', $here, 'INSERT INTO t VALUES (2)', 'COMMIT', 'SELECT count(*) FROM t', 'DELETE FROM t WHERE a = 2', 'SELECT count(*) FROM t'), '- node - - 2 - 1',
		"$how: until_write: what it wrote is read afterwards");
	caught_up();
}

# ---- a standby that does not have the library
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
within(30, sub { $c->value($here) eq 'node' }, 'a standby without the library is read from');
is(in_order($c, q{SET pgpool.route = 'replica'}, 'SELECT secret_place()', 'SHOW pgpool.route', 'SELECT secret_place()', 'RESET pgpool.route', 'SELECT secret_place()', $here),
	'- node replica node - primary node', '... and settings are kept on the way');

# ---- a standby that is lost within a block
my ($held, $other) = ($pool->raw, $pool->raw);
is(in_order($held, 'BEGIN READ ONLY', $here), '- node', 'a block is open');
$node->stop('immediate');
my $r = eval { $held->ask($here) } // {};
ok($r->{error} || $r->{closed}, '... its client hears that the standby is lost: ' . ($r->{error}{C} // 'closed'));
is(in_order($other, 'BEGIN READ ONLY', $here, 'COMMIT'), '- primary -', '... and others are served by the primary');
done_testing();
