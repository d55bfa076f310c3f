# What a client was told of a statement holds for as long as it has it, whatever becomes of tables, functions and of the
# server that serves it: the types of its parameters, the columns of its result, the time that its literals stood for,
# its name. PostgreSQL is the judge: each scene is played on the server's own port, in transaction mode on whichever
# server comes, and on the session port.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(execute sync);
use PostgreSQL::Test::Cluster;
use Test::More;

my $session_port = PostgreSQL::Test::Cluster::get_free_port();
my $node = pool_node('told', conf => "ssl = off\npgpool.default_pool_size = 3\npgpool.workers = 1\npgpool.session_port = $session_port");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE SCHEMA AUTHORIZATION app");
my %port = (direct => $node->port, transaction => $node->{pool_port}, session => $session_port);

sub client { return connect_as($node, port => $_[0], user => 'app', password => 'secret') }
sub owner  { my $sql = shift; $node->safe_psql('postgres', "SET search_path = app; SET ROLE app; $sql") }

# ---- messages
my %oid = (int2 => 21, int4 => 23, int8 => 20, float4 => 700, text => 25);
sub parse    { my ($sql, $name, @types) = @_; return PgPoolWire::parse($sql, $name, map { $oid{$_} } @types) }
sub describe { return PgPoolWire::describe('S', @_) }
sub portal   { return PgPoolWire::describe('P') }
# Parameters in binary; formats of the result, as many as are named.
sub bind_to { my ($name, $values, @formats) = @_; return PgPoolWire::bind_formats($name, [1], $values, @formats) }
# All that comes up to ReadyForQuery, without what depends on the place.
sub ask
{
	my ($c, @m) = @_;
	my $from = @{ $c->{seen} // [] };
	$c->send(join '', @m);
	my $r = $c->answer;
	my @seen = map {
		my ($type, $body) = @$_;
		$type eq 't' ? 't(' . join(',', unpack 'x2N*', $body) . ')' : $type eq 'T' ? 'T' . unpack('n', $body) : $type
	} @{ $c->{seen} }[ $from .. $#{ $c->{seen} } ];
	my @rows = map { '(' . join(',', map { defined $_ ? unpack('H*', $_) : 'null' } @$_) . ')' } @{ $r->{rows} };
	my $text = join ' ', (grep { !/^[DESNC]$/ } @seen), @rows, @{ $r->{tags} }, ($r->{error} ? "$r->{error}{C} $r->{error}{M}" : ());
	$text =~ s/^t\S+ (?=Z 42)//; # PostgreSQL tells the types before it finds that they do not fit any more
	return $text =~ s/(a{100,})/length($1) . ' letters'/er;
}
# In transaction mode the next transactions of others meet other servers, and the client's, too.
sub others
{
	my ($port, $code) = @_;
	my @holders = $port == $node->{pool_port} ? map { client($port) } 1 .. 2 : ();
	$_->query('BEGIN') for @holders;
	my $result = $code->();
	$_->query('COMMIT') for @holders;
	$_->close for @holders;
	return $result;
}
# The scene on each port; what it gives is a list of texts.
sub same
{
	my ($what, $scene) = @_;
	my %got = map { $_ => join "\n", $scene->($port{$_}) } sort keys %port;
	for my $mode ('transaction', 'session')
	{
		is($got{$mode}, $got{direct}, "$what: $mode as on the server's own port");
	}
	return $got{direct};
}

# ---- types of parameters
my %value = (int2 => pack('n', 1), int4 => pack('N', 1), int8 => pack('NN', 0, 1), float4 => pack('N', 0x3f800000), text => '1');
for my $from ('int4', 'int2', 'text')
{
	for my $to ('int8', 'float4', 'text', 'int4')
	{
		next if $from eq $to;
		for my $kind ([ 'select', 'SELECT 1 FROM t WHERE a = $1' ], [ 'insert', 'INSERT INTO t VALUES ($1) RETURNING 1' ],
			[ 'update', 'UPDATE t SET a = $1 WHERE a = $1 RETURNING 1' ], [ 'function', 'SELECT f($1)' ])
		{
			my ($name, $sql) = @$kind;
			my $first = same("$name, $from to $to", sub {
				my $port = shift;
				owner('DROP TABLE IF EXISTS t; DROP FUNCTION IF EXISTS f');
				owner("CREATE TABLE t (a $from); INSERT INTO t VALUES ('1'); CREATE FUNCTION f($from) RETURNS int LANGUAGE sql AS 'SELECT 1'");
				my ($c, $d) = map { client($port) } 1, 2;
				my @got = ask($c, parse($sql, 's'), describe('s'), sync);
				push @got, ask($c, bind_to('s', [ $value{$from} ]), execute, sync);
				owner("ALTER TABLE t ALTER a TYPE $to USING a::text::$to; CREATE FUNCTION f($to) RETURNS int LANGUAGE sql AS 'SELECT 2'; DROP FUNCTION f($from)");
				# another client prepares the same text, which means something else now
				push @got, ask($d, parse($sql, 'other'), describe('other'), sync);
				push @got, ask($d, bind_to('other', [ $value{$to} ]), execute, sync);
				push @got, ask($c, bind_to('s', [ $value{$from} ]), execute, sync);
				push @got, others($port, sub { ask($c, bind_to('s', [ $value{$from} ]), portal, execute, sync) });
				push @got, others($port, sub { ask($c, describe('s'), sync) });
				push @got, ask($d, bind_to('other', [ $value{$to} ]), execute, sync);
				push @got, ask($c, parse($sql, 'again'), describe('again'), sync);
				$_->close for $c, $d;
				return @got;
			});
			like($first, qr/^\S* ?t\($oid{$from}\)/, "... $from was told") if $name eq 'select';
		}
	}
}

# ---- a transaction that failed tells nothing of it
same('used in a failed transaction', sub {
	my $port = shift;
	my @got;
	for my $to ('int8', 'float4')
	{
		owner('DROP TABLE IF EXISTS t; CREATE TABLE t (a int); INSERT INTO t VALUES (1)');
		my ($c, $d) = map { client($port) } 1, 2;
		my $sql = "SELECT 1 FROM t WHERE a = \$1 /* failed, $to */";
		push @got, ask($c, parse($sql, 's'), describe('s'), sync);
		owner("ALTER TABLE t ALTER a TYPE $to");
		push @got, ask($d, parse($sql, 'other'), describe('other'), sync); # the server has it with the new types
		$c->query($_) for 'BEGIN', 'SELECT 1/0';
		push @got, ask($c, bind_to('s', [ $value{int4} ]), execute, sync);
		$c->query('ROLLBACK');
		push @got, ask($c, bind_to('s', [ $value{int4} ]), execute, sync);
		$_->close for $c, $d;
	}
	return @got;
});

# ---- a change that is undone: who goes by the columns of before is right again, although somebody prepared the text in
# between; and what is refused meanwhile is refused for PostgreSQL's own reason
my $shaped = 'CREATE TABLE t (a int, b text); GRANT ALL ON t TO app; INSERT INTO t VALUES (1, 2)';
my %undone = (
	'ALTER TABLE t ALTER b TYPE int USING b::int' => 'ALTER TABLE t ALTER b TYPE text',
	'ALTER TABLE t ADD c int' => 'ALTER TABLE t DROP c',
	'ALTER TABLE t RENAME b TO c' => 'ALTER TABLE t RENAME c TO b',
	'ALTER TABLE t RENAME TO u' => 'ALTER TABLE u RENAME TO t',
	'REVOKE SELECT ON t FROM app' => 'GRANT SELECT ON t TO app',
	'DROP TABLE t; CREATE TABLE t (a int, b int, c int)' => "DROP TABLE t; $shaped");
for my $change (sort keys %undone)
{
	for my $block ('', 'BEGIN')
	{
		same("$change, and back" . ($block && ', in a block'), sub {
			my $port = shift;
			my ($c, $d) = map { client($port) } 1, 2;
			my @got;
			my $use = sub {
				my ($client) = @_;
				$client->query($block) if $block;
				push @got, ask($client, bind_to('s', [ $value{int4} ]), execute, sync);
				$client->query('ROLLBACK') if $block;
			};
			owner("DROP TABLE IF EXISTS t, u; $shaped");
			push @got, ask($c, parse("SELECT * FROM t WHERE a = \$1 /* $change $block */", 's', 'int4'), describe('s'), sync);
			$use->($c);
			owner($change);
			push @got, ask($d, parse("SELECT * FROM t WHERE a = \$1 /* $change $block */", 's', 'int4'), sync);
			$use->($d);
			push @got, '-';
			$use->($c);
			owner($undone{$change});
			$use->($c) for 1, 2;
			$_->close for $c, $d;
			return @got;
		});
	}
}

# ---- new columns, where they are taken (README, What a session keeps), and the types that were told
for my $place ('the same server', 'another one')
{
	owner('DROP TABLE IF EXISTS t; CREATE TABLE t (a int); INSERT INTO t VALUES (1)');
	my $c = client($port{transaction});
	ask($c, parse("SELECT a FROM t WHERE a = \$1 /* $place */", 's'), describe('s'), sync);
	owner('ALTER TABLE t ALTER a TYPE int8');
	my $use = sub { ask($c, bind_to('s', [ $value{int4} ], 1), portal, execute, sync) };
	my @got = map { $place eq 'another one' ? others($port{transaction}, $use) : $use->() } 1, 2;
	like($_, qr/\(0000000000000001\) SELECT 1$/, "a new column, and the parameter as it was told: $place") for @got;
	$c->close;
}

# ---- the same without a name: described in one batch, used in the next, on whichever server
for my $kind ([ 'select', 'SELECT 1 FROM t WHERE a = $1' ], [ 'insert', 'INSERT INTO t VALUES ($1) RETURNING 1' ],
	[ 'update', 'UPDATE t SET a = $1 WHERE a = $1 RETURNING 1' ], [ 'delete', 'DELETE FROM t WHERE a = $1 RETURNING 1' ])
{
	my ($name, $sql) = @$kind;
	same("unnamed, $name", sub {
		my $port = shift;
		my @got;
		my $c = client($port);
		for my $change ('int8', 'float4', 'int2')
		{
			for my $parse (1, 2)
			{
				owner("DROP TABLE IF EXISTS t; CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
				push @got, ask($c, parse("$sql /* $change */", ''), describe(''), sync) for 1 .. $parse;
				owner("ALTER TABLE t ALTER a TYPE $change");
				push @got, others($port, sub { ask($c, bind_to('', [ $value{int4} ]), execute, sync) });
			}
		}
		$c->close;
		return @got;
	});
}

# ---- formats that are named for the columns as they were
same('formats for each column', sub {
	my $port = shift;
	my @got;
	for my $formats ([], [1], [ 1, 1, 1 ], [ 0, 1, 0 ])
	{
		owner('DROP TABLE IF EXISTS t; CREATE TABLE t (id int, f1 int, f2 int); INSERT INTO t VALUES (1, 2, 3)');
		my $c = client($port);
		push @got, ask($c, parse('SELECT * FROM t WHERE id = $1', 's', 'int4'), describe('s'), sync);
		push @got, ask($c, bind_to('s', [ pack 'N', 1 ], @$formats), execute, sync);
		owner('ALTER TABLE t DROP COLUMN f1');
		push @got, ask($c, bind_to('s', [ pack 'N', 1 ], @$formats), (@$formats > 1 ? portal : ()), execute, sync);
		push @got, others($port, sub { ask($c, bind_to('s', [ pack 'N', 1 ], @$formats), (@$formats > 1 ? portal : ()), execute, sync) });
		$c->close;
	}
	return @got;
});

# ---- what has the columns of something else
same('FETCH, EXECUTE and SHOW', sub {
	my $port = shift;
	my $c = client($port);
	my @got;
	push @got, ask($c, parse('/* a comment */ ; FETCH 1 FROM cur', 'f'), describe('f'), sync);
	push @got, ask($c, parse('EXECUTE p', 'x'), sync), ask($c, parse('show timezone', 'w'), describe('w'), sync);
	push @got, others($port, sub {
		ask($c, parse('BEGIN', ''), bind_to('', []), execute, sync);
		my @in = ask($c, parse('DECLARE cur CURSOR FOR SELECT 1 AS a, 2 AS b', ''), bind_to('', []), execute, sync);
		push @in, ask($c, describe('f'), sync), ask($c, bind_to('f', []), portal, execute, sync), ask($c, bind_to('f', []), execute, sync);
		push @in, ask($c, bind_to('w', []), portal, execute, sync);
		$c->query('COMMIT');
		return join "\n", @in, ask($c, bind_to('f', []), execute, sync);
	});
	$c->close;
	return @got;
});

# ---- literals that stand for the time when they were parsed
my $number = 0;
my %literal = (
	plain        => q{SELECT ('now'::timestamptz)::text},
	capitals     => q{SELECT (timestamptz ' NoW ')::text},
	range        => q{SELECT lower('[now,)'::tstzrange)::text},
	escape       => q{SELECT (E'n\\157w'::timestamptz)::text},
	unicode      => q{SELECT (U&'\\006eow'::timestamptz)::text},
	dollar       => q{SELECT ($a$now$a$::timestamptz)::text},
	pieces       => qq{SELECT ('n'\n'ow'::timestamptz)::text},
	'in a list'  => q{SELECT max(x)::text FROM unnest('{now}'::timestamptz[]) x},
	comment      => q{SELECT /* it's */ ('now'::timestamptz)::text -- '},
);
for my $kind (sort keys %literal)
{
	for my $name ('', 's')
	{
		my $sql = "$literal{$kind} /* " . $number++ . ' */';
		my @times = map {
			my $c = client($node->{pool_port});
			my @one = map { ask($c, ($name ne '' ? PgPoolWire::close_name('S', $name) : ()), parse($sql, $name), bind_to($name, []), execute, sync) } 1 .. 3;
			$c->close;
			@one;
		} 1, 2;
		my %different = map { $_ => 1 } @times;
		is(keys %different, 6, "each Parse has its own time: $kind, " . ($name eq '' ? 'unnamed' : 'named')) or diag join "\n", $sql, @times;
	}
}

# ---- names
$node->safe_psql('postgres', "SELECT pgpool.create_tenant('own', pool_mode => 'session')");
is(client($session_port)->value(q{PREPARE a AS SELECT 1; SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements}), 'a', 'names on the session port');
{
	my @got = map {
		my $c = $port{$_} ? client($port{$_}) : connect_as($node, user => 'app.own', password => 'secret');
		my @got = ask($c, parse('SELECT 42', 'mine'), parse('SELECT 43', '_pgx'), parse(q{SELECT string_agg(name || ' ' || statement, ',' ORDER BY name) FROM pg_prepared_statements}, ''), bind_to('', []), execute, sync);
		push @got, ask($c, parse('EXECUTE mine', ''), bind_to('', []), execute, sync), ask($c, parse('DEALLOCATE mine', ''), bind_to('', []), execute, sync);
		push @got, ask($c, bind_to('mine', []), execute, sync), ask($c, parse('SELECT 44', 'mine'), bind_to('mine', []), execute, sync);
		$c->query('DISCARD ALL');
		push @got, ask($c, bind_to('mine', []), execute, sync), ask($c, parse('SELECT 45', 'mine'), bind_to('mine', []), execute, sync);
		$c->close;
		join "\n", @got;
	} 'session', 'pool_mode', 'direct';
	is($got[0], $got[2], 'SQL sees the same names on the session port');
	is($got[1], $got[2], '... and where pool_mode is session'); # in transaction mode they are pgpool's: README, Limits
}
same('values that look like names', sub {
	my $port = shift;
	my $c = client($port);
	my @got;
	for my $value ('_pgpool_5', '_pgpool_nowhere')
	{
		push @got, ask($c, parse('SELECT $1::text::int', 's', 'text'), bind_to('s', [$value]), execute, sync);
		push @got, ask($c, parse('SELECT $1::int', 'n'), sync);
		push @got, ask($c, PgPoolWire::bind_to('n', $value), execute, sync);
		push @got, ask($c, bind_to('s', []), sync), ask($c, bind_to($value, []), sync), ask($c, parse('SELECT 1', 's'), sync);
		push @got, ask($c, PgPoolWire::close_name('S', $_), sync) for 's', 'n';
	}
	$c->close;
	return @got;
});
same('long names', sub {
	my $port = shift;
	my @got;
	for my $size (63, 64, 8192, 65000, 65600, 70000, 300000)
	{
		my $c = client($port);
		my $name = 'a' x $size;
		push @got, ask($c, parse('SELECT 1', $name), sync), ask($c, bind_to($name, []), execute, sync);
		# longer ones of this kind PostgreSQL does not read
		push @got, ask($c, describe($name), sync), ask($c, PgPoolWire::close_name('S', $name), sync) if $size < 10_000;
		push @got, ask($c, bind_to($name, []), execute, sync);
		$c->close;
	}
	return @got;
});
{
	# the first client of a server that has just logged in shares like all others
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
	# else it is given one that is about to die
	ok(poll_until(sub { !$node->safe_psql('postgres', "SELECT count(*) FROM pgpool.pg_stat_servers WHERE role = 'app'") }), 'no server is left');
	my $c = client($node->{pool_port});
	my $text = 'SELECT 1 /* ten names */';
	ask($c, parse($text, "ten$_"), sync) for 1 .. 10;
	is($c->value("SELECT count(*) FROM pg_prepared_statements WHERE statement = '$text'"), 1, 'ten names of one text are one statement');
	$c->close;
}
$node->stop;
done_testing();
