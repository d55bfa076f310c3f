# PostgreSQL's own test of pipelines, libpq_pipeline, through the pool: each of its tests ends as on the server's own port,
# and libpq's trace of the messages is the same; alone, in a pool of two servers that others take and give back all the
# while, and on the session port. Where PostgreSQL's own TAP test compares the trace with a file, so do we.
use strict;
use warnings;
use IPC::Run ();
use Test::More;
use PgPool;

plan skip_all => $ENV{PGPOOL_NO_PGTESTS} if $ENV{PGPOOL_NO_PGTESTS};
my $program = ($ENV{PGPOOL_PGTESTS} // 'build/pgtests') . '/libpq_pipeline';
-x $program or die "there is no $program: make pgtests\n";

my $rows = 700; # as PostgreSQL's own test
my $pool = PgPool->new('pipeline', workers => 2, pool_size => 2, session => 1);
$pool->sql("GRANT SET ON PARAMETER lc_messages TO app"); # the program sets it first of all
my $dir = $pool->node->basedir . '/traces';
mkdir $dir or die "$dir: $!";
my @tests = split ' ', (run('tests'))[1];
cmp_ok(scalar @tests, '>=', 11, 'libpq_pipeline has tests: ' . join(' ', @tests));

# What is normalised. The trace itself leaves out times, OIDs and the place in the source of an error.
#  - pipelined_insert, uniqviol: how often the program turns from sending to reading depends on the socket, so what goes
#    each way is compared by itself.
#  - uniqviol: it sends until the socket is full, so repetitions count as one, and values (numbers of rows) as N.
my %each_way = (pipelined_insert => 1, uniqviol => 1);
# In transaction mode the pid that a client is told is none of a backend. `cancel` (17) looks for it in pg_stat_activity.
my %needs_pid = (cancel => 1);

sub run
{
	my ($out, $err) = ('', '');
	local $ENV{PGPASSWORD} = 'app-secret';
	IPC::Run::run([ qw(timeout -k 5 60), $program, @_ ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err); # 124: not within the time
}

sub slurp { my ($file) = @_; open(my $f, '<', $file) or return ''; local $/; return <$f> // ''; }

sub normal
{
	my ($test, $trace) = @_;
	return $trace unless $each_way{$test};
	my %way = (F => [], B => []);
	push @{ $way{ substr($_, 0, 1) } }, $_ for split /^/, $trace;
	if ($test eq 'uniqviol')
	{
		for my $lines (values %way)
		{
			s/^(.)\t\d+\t/$1\tN\t/, s/\d+ '\d+'/'N'/g, s/=\(\d+\)/=(N)/g for @$lines;
			my @kept; # a group of up to 6 lines that repeats the lines before it is left out
			for my $line (@$lines)
			{
				push @kept, $line;
				for my $n (1 .. 6)
				{
					next if @kept < 2 * $n || $line ne $kept[ -$n - 1 ] || join('', @kept[ -$n .. -1 ]) ne join('', @kept[ -2 * $n .. -$n - 1 ]);
					splice @kept, -$n;
					last;
				}
			}
			@$lines = @kept;
		}
	}
	return join('', @{ $way{F} }, "----\n", @{ $way{B} });
}

sub same
{
	my ($got, $expected, $name) = @_;
	return pass($name) if $got eq $expected;
	fail($name);
	my @files = map { "$dir/$_" } qw(expected got);
	for ([ $files[0], $expected ], [ $files[1], $got ]) { open(my $f, '>', $_->[0]); print $f $_->[1]; close $f; }
	IPC::Run::run([ 'diff', '-u', @files ], '>', \my $diff);
	my @lines = split /^/, $diff;
	splice @lines, 40, @lines - 40, "...\n" if @lines > 40;
	diag(@lines);
}

# All tests, in a database of their own, so that the same tables are there: the traces of each round. In a later round
# tables are there already, and servers know the statements.
my $pass = 0;
sub run_all
{
	my ($name, $port, $rounds, $others) = @_;
	my $database = 'pipeline' . ++$pass;
	$pool->sql("CREATE DATABASE $database OWNER app");
	my @others = $others ? others($database) : ();
	my (@traces, @bad);
	for my $round (1 .. $rounds)
	{
		for my $test (@tests)
		{
			next if $port == $pool->port && $needs_pid{$test};
			my $file = "$dir/$pass.$test";
			# uniqviol sends until the socket is full: megabytes by TCP
			my $host = $test eq 'uniqviol' ? $pool->socket_dir : '127.0.0.1';
			my $to = "host=$host port=$port user=app dbname=$database sslmode=disable";
			my ($status, $out, $err) = run('-r', $rows, '-t', $file, $test, $to);
			push @bad, "round $round, $test: status $status, " . substr($err, -1500) if $status;
			$traces[ $round - 1 ]{$test} = slurp($file);
			unlink $file;
		}
	}
	is(join("\n", @bad), '', "all tests pass $name, $rounds rounds");
	for my $other (@others)
	{
		ok($other->running, '... while others used the pool');
		$other->stop;
		unlike($other->output, qr/error|fatal|abort/i, '... without an error');
	}
	return \@traces;
}

# In the same pool: transactions of several messages, and pipelines of prepared statements.
sub others
{
	my ($database) = @_;
	my %script = (
		simple   => "BEGIN;\nSELECT 1;\nSELECT repeat('x', 3000);\nCOMMIT;\n",
		prepared => "\\startpipeline\nSELECT 1;\nSELECT repeat('xyzxz', 12);\n\\endpipeline\nSELECT 2;\n");
	my @jobs;
	for my $mode (sort keys %script)
	{
		my $file = "$dir/$mode.sql";
		open(my $f, '>', $file) or die "$file: $!";
		print $f $script{$mode};
		close $f;
		push @jobs, $pool->start(
			[ 'pgbench', '-h', '127.0.0.1', '-p', $pool->port, '-U', 'app', qw(-n -c 2 -T 600), '-M', $mode, '-f', $file, $database ],
			PGPASSWORD => 'app-secret');
	}
	my $done = "SELECT coalesce(sum(transactions), 0) FROM pgpool.pg_stat_pools WHERE database = '$database'";
	within(30, sub { $pool->sql($done) > 100 }, 'others use the pool');
	return @jobs;
}

my $direct = run_all('on the server\'s own port', $pool->server_port, 2);
if (-d "$program.traces")
{
	my @compared = grep { -e "$program.traces/$_.trace" } @tests;
	same($direct->[0]{$_}, slurp("$program.traces/$_.trace"), "the trace of $_ is that of PostgreSQL") for @compared;
	cmp_ok(scalar @compared, '>=', 9, '... of ' . @compared . ' tests');
}
else { diag("libpq is of another version than the server: its traces are not compared with PostgreSQL's"); }
diag("$_ is left out in transaction mode: it looks in pg_stat_activity for the pid that the client was told")
  for grep { $needs_pid{$_} } @tests;

my @expected = map { my $traces = $_; +{ map { $_ => normal($_, $traces->{$_}) } keys %$traces } } @$direct;
cmp_ok(length $expected[0]{$_}, '>', 10, "the server's own port gives a trace of $_") for @tests;
for my $way (
	[ 'through the pool', $pool->port, 3 ],
	[ 'through the pool with others', $pool->port, 10, 1 ],
	[ 'on the session port', $pool->session_port, 3 ])
{
	my $traces = run_all(@$way);
	for my $test (@tests)
	{
		next unless exists $traces->[0]{$test};
		my @compare = map { [ $traces->[$_]{$test}, $expected[ $_ ? 1 : 0 ]{$test} ] } 0 .. $#$traces;
		my ($worst) = grep { normal($test, $_->[0]) ne $_->[1] } @compare;
		$worst //= $compare[0];
		same(normal($test, $worst->[0]), $worst->[1], "the trace of $test $way->[0] is that of a direct connection");
	}
}
my $with_others = "FROM pgpool.pg_stat_pools WHERE database = 'pipeline3'";
cmp_ok($pool->sql("SELECT min(waits) $with_others"), '>', 100, 'with others, clients waited for servers');
cmp_ok($pool->sql("SELECT max(servers) $with_others"), '<=', 2, '... of which there were no more than two');
is($pool->crashes(0), 0, 'nothing crashed');
$pool->node->stop;
done_testing();
