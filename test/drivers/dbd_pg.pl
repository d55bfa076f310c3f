# The ordinary life of DBD::Pg with its default settings, as TAP. The server is named by the variables of libpq.
#
# From its second use on (pg_switch_prepared) a statement with placeholders is a named one, which DBD::Pg takes away by
# DEALLOCATE when the handle ends; without AutoCommit a transaction begins with the first statement.
use strict;
use warnings;
use utf8;
use open qw(:std :utf8);
use DBI;
use DBD::Pg qw(:pg_types);
use POSIX ();
use Test::More; # its output is the same in both runs: what goes wrong is told on standard error

my $LONG = 'ß0123456789abcde' x 65536;
my $ODD  = "Zürich ∀x∈ℝ 🐘 'quoted' \"twice\" \\ back\tslash\n%s \$1";
my $CLAIM_SECONDS = 30;

sub connected { return DBI->connect('dbi:Pg:', '', '', { RaiseError => 1, PrintError => 0, PrintWarn => 0, @_ }); }

sub claim
{
	my ($text, $body) = @_;
	# a handler of perl's own waits for the library to return
	my $ring = POSIX::SigAction->new(sub { die "too late\n" });
	POSIX::sigaction(POSIX::SIGALRM(), $ring);
	alarm $CLAIM_SECONDS;
	# a claim that is about warnings looks at them itself
	local $SIG{__WARN__} = sub { };
	my $good = eval { $body->(); 1 };
	my $error = $@;
	alarm 0;
	ok($good, $text) or diag $error;
}

sub same
{
	my ($got, $expected) = @_;
	my @both = map { ref $_ ? join('|', map { ref $_ ? '[' . join(',', map { $_ // 'NULL' } @$_) . ']' : $_ // 'NULL' } @$_) : $_ // 'NULL' } $got, $expected;
	die sprintf("got %.300s, expected %.300s, line %d\n", @both, (caller)[2]) if $both[0] ne $both[1];
}

sub fails
{
	my ($state, $h, $body) = @_;
	my $line = (caller)[2];
	die "no error, expected $state, line $line\n" if eval { $body->(); 1 };
	my $error = $@;
	die "expected $state, line $line: $error" if ($h->state // '') ne $state;
}

sub ids { return $_[0]->selectcol_arrayref('SELECT id FROM dbd_pg ORDER BY id'); }

claim 'several statements in one text' => sub {
	connected()->do('DROP TABLE IF EXISTS dbd_pg, dbd_pg_alter; CREATE TABLE dbd_pg (id int PRIMARY KEY, name text, data bytea)');
};

claim 'types and NULL come back as they went' => sub {
	my $c = connected();
	my @values = (1, '-1099511627776', '12345678901234567890.0001', '2.5', 1, $ODD, undef, '2024-02-29', '{"a": [1, null]}');
	my $s = $c->prepare('SELECT ?::int, ?::bigint, ?::numeric, ?::float8, ?::bool, ?::text, ?::int, ?::date, ?::jsonb, ?::int[], ?::text[]');
	for (1 .. 5)
	{
		$s->execute(@values, [ 1, undef, 3 ], [ 'a', undef, '{"' ]);
		same($s->fetchrow_arrayref, [ @values, [ 1, undef, 3 ], [ 'a', undef, '{"' ] ]);
		$s->finish;
	}
	my $b = $c->prepare('SELECT ?::bytea');
	$b->bind_param(1, "\0\xff\\", { pg_type => PG_BYTEA });
	for (1 .. 5) { $b->execute; same($b->fetchrow_array, "\0\xff\\"); $b->finish; }
};

claim 'a megabyte comes back, also from a table' => sub {
	my $c = connected();
	same([ $c->selectrow_array('SELECT ?::text, length(?)', undef, $LONG, $LONG) ], [ $LONG, length $LONG ]);
	$c->do('INSERT INTO dbd_pg VALUES (1000, ?)', undef, $LONG);
	same([ $c->selectrow_array('DELETE FROM dbd_pg RETURNING name') ], [$LONG]);
};

claim 'a prepared statement that is used again' => sub {
	my $c = connected();
	my $s = $c->prepare('SELECT ?::int + 1, ?::text');
	for my $i (1 .. 30)
	{
		$s->execute($i, $ODD);
		same($s->fetchrow_arrayref, [ $i + 1, $ODD ]);
	}
	same([ $c->selectrow_array($s, undef, 7, 'x') ], [ 8, 'x' ]);
};

claim 'prepared statements that come and go without a warning' => sub {
	my $c = connected();
	my @warnings;
	local $SIG{__WARN__} = sub { push @warnings, $_[0] };
	for my $i (1 .. 30)
	{
		my $s = $c->prepare("SELECT ?::int + $i");
		for (1 .. 4) { $s->execute($i); same([ $s->fetchrow_array ], [ 2 * $i ]); }
	}
	same(\@warnings, []);
};

claim 'prepared statements that come and go in a transaction' => sub {
	my $c = connected(AutoCommit => 0);
	for my $i (1 .. 30)
	{
		my $s = $c->prepare("SELECT ?::int - $i");
		for (1 .. 4) { $s->execute($i); same([ $s->fetchrow_array ], [0]); }
		undef $s;
		same([ $c->selectrow_array('SELECT 1') ], [1]);
	}
	$c->commit;
};

claim 'statements that are cached, with and without a transaction' => sub {
	my $c = connected();
	for my $turn (1 .. 20)
	{
		$c->begin_work if $turn % 2;
		my $s = $c->prepare_cached('SELECT ?::int * 2');
		same($c->selectcol_arrayref($s, undef, $turn), [ $turn * 2 ]);
		$c->commit if $turn % 2;
	}
};

claim 'commit, rollback and savepoints' => sub {
	my $c = connected(AutoCommit => 0);
	my $insert = $c->prepare('INSERT INTO dbd_pg VALUES (?)');
	$insert->execute(1);
	$c->commit;
	$insert->execute(2);
	$c->rollback;
	$insert->execute(3);
	$c->pg_savepoint('a');
	fails('23505', $insert, sub { $insert->execute(3) });
	$c->pg_rollback_to('a');
	$insert->execute(4);
	$c->pg_release('a');
	$c->commit;
	same(ids($c), [ 1, 3, 4 ]);
	same($c->do('DELETE FROM dbd_pg'), 3);
	$c->commit;
};

claim 'a server-side cursor in pieces' => sub {
	my $c = connected(AutoCommit => 0);
	$c->do('DECLARE pieces CURSOR FOR SELECT generate_series(1, 100)');
	my @got;
	while (1)
	{
		my $rows = $c->selectcol_arrayref('FETCH 7 FROM pieces');
		last unless @$rows;
		push @got, @$rows;
	}
	same(\@got, [ 1 .. 100 ]);
	$c->rollback;
};

claim 'COPY in and out, failing and rolled back' => sub {
	my $c = connected(AutoCommit => 0);
	my @lines = map { "$_\tname $_\t\\N\n" } 1 .. 20000;
	$c->do('COPY dbd_pg FROM STDIN');
	$c->pg_putcopydata($_) for @lines;
	$c->pg_putcopyend;
	$c->do('COPY (SELECT * FROM dbd_pg ORDER BY id) TO STDOUT');
	my ($line, @got) = ('');
	push @got, $line while $c->pg_getcopydata($line) >= 0;
	same(join('', @got), join('', @lines));
	$c->rollback;
	$c->do('COPY dbd_pg FROM STDIN');
	$c->pg_putcopydata("x\ta\t\\N\n");
	fails('22P02', $c, sub { $c->pg_putcopyend });
	$c->rollback;
	same(ids($c), []);
	$c->rollback;
};

claim 'execute_array' => sub {
	my $c = connected(AutoCommit => 0);
	my $s = $c->prepare('INSERT INTO dbd_pg VALUES (?, ?)');
	same($s->execute_array({ ArrayTupleStatus => \my @status }, [ 1 .. 300 ], $ODD), 300);
	same([ $c->selectrow_array('SELECT count(*) FROM dbd_pg WHERE name = ?', undef, $ODD) ], [300]);
	$c->rollback;
};

claim 'errors outside and in a transaction; the connection is usable' => sub {
	my $c = connected();
	$c->do('INSERT INTO dbd_pg VALUES (1)');
	my $s = $c->prepare('INSERT INTO dbd_pg VALUES (?)');
	for (1 .. 8)
	{
		fails('23505', $s, sub { $s->execute(1) });
		same([ map { $c->pg_error_field($_) } qw(constraint_name detail) ], [ 'dbd_pg_pkey', 'Key (id)=(1) already exists.' ]);
	}
	fails('42601', $c, sub { $c->do('SELEKT 1') });
	$c->begin_work;
	fails('42P01', $c, sub { $c->selectrow_array('SELECT * FROM nothing_here WHERE a = ?', undef, 1) });
	fails('25P02', $c, sub { $c->do('SELECT 1') });
	$c->rollback;
	same($c->do('DELETE FROM dbd_pg'), 1);
};

claim 'asynchronous statements: result, and cancel' => sub {
	my $c = connected();
	for my $i (1 .. 10)
	{
		my $s = $c->prepare('SELECT ?::int + 1', { pg_async => PG_ASYNC() });
		$s->execute($i);
		$c->pg_result;
		same([ $s->fetchrow_array ], [ $i + 1 ]);
	}
	$c->do('SELECT pg_sleep(10)', { pg_async => PG_ASYNC() });
	select(undef, undef, undef, 0.3);
	$c->pg_cancel;
	same([ $c->selectrow_array('SELECT 1') ], [1]);
};

claim 'statement_timeout from the environment' => sub {
	local $ENV{PGOPTIONS} = '-c statement_timeout=200';
	my $c = connected();
	fails('57014', $c, sub { $c->do('SELECT pg_sleep(10)') }) for 1 .. 2;
	same([ $c->selectrow_array('SHOW statement_timeout') ], ['200ms']);
};

claim 'notices' => sub {
	my $c = connected(PrintWarn => 1);
	my @got;
	local $SIG{__WARN__} = sub { push @got, $_[0] =~ s/\n.*//sr };
	$c->do('DO $$ BEGIN RAISE NOTICE \'first %\', 1; RAISE WARNING \'second\'; END $$');
	same(\@got, [ 'NOTICE:  first 1', 'WARNING:  second' ]);
};

claim 'ping, metadata and quoting' => sub {
	my $c = connected();
	same($c->ping > 0, 1);
	same([ map { $_->[3] } @{ $c->column_info(undef, undef, 'dbd_pg', undef)->fetchall_arrayref } ], [qw(id name data)]);
	same([ $c->selectrow_array('SELECT ' . $c->quote($ODD)) ], [$ODD]);
};

claim 'a statement whose table was altered, on a new connection' => sub {
	my $c   = connected();
	my $ask = sub {
		my ($one, $expected) = @_;
		my $s = $one->prepare('SELECT * FROM dbd_pg_alter WHERE a = ?');
		for (1 .. 5) { $s->execute(1); same([ $s->fetchrow_array ], $expected); $s->finish; }
	};
	$c->do('CREATE TABLE dbd_pg_alter AS SELECT 1 AS a');
	$ask->(connected(), [1]);
	$c->do('ALTER TABLE dbd_pg_alter ADD b int DEFAULT 2');
	$ask->(connected(), [ 1, 2 ]);
};

claim 'many connections in turn use the same texts' => sub {
	my @c = map { connected() } 1 .. 8;
	my @s = map { [ $_->prepare('SELECT ?::int, ?::text'), $_->prepare('INSERT INTO dbd_pg VALUES (?, ?)') ] } @c;
	for my $i (0 .. 29)
	{
		for my $n (0 .. $#c)
		{
			$c[$n]->begin_work;
			$s[$n][0]->execute($n, $i);
			same($s[$n][0]->fetchrow_arrayref, [ $n, $i ]);
			$s[$n][0]->finish;
			$s[$n][1]->execute($n * 1000 + $i, 'pool');
			$i % 2 ? $c[$n]->rollback : $c[$n]->commit;
		}
	}
	same($c[0]->do('DELETE FROM dbd_pg'), 8 * 15);
};

done_testing();
