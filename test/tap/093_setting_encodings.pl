# A setting whose name or value is not in the encoding of a client neither ends nor blocks anybody: the backend answers, the
# log does not grow, the client keeps what it set, the next one does not see it. For each encoding that a client may have,
# by each way to set something, on one server that two clients of different encodings share.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;

my $node = pool_node('encodings', conf => "pgpool.default_pool_size = 1\npgpool.workers = 1\nlog_statement = none");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
for ("CREATE ROLE app LOGIN PASSWORD 'secret'",
	"CREATE FUNCTION public.set_it(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(\$1, \$2, false); END'",
	"CREATE FUNCTION public.restores() RETURNS text LANGUAGE sql SET search_path = U&'\\8868' AS 'SELECT current_setting(''search_path'')'")
{
	my $r = $admin->query($_);
	die "$_: $r->{error}{M}" if $r->{error};
}
my @app = (user => 'app', password => 'secret');
my @encodings = map { $_->[0] } @{ $admin->query("SELECT pg_encoding_to_char(i) FROM generate_series(0, 50) i
	WHERE pg_encoding_to_char(i) NOT IN ('', 'MULE_INTERNAL') ORDER BY i")->{rows} };
cmp_ok(scalar @encodings, '>', 30, 'encodings that a client may have: ' . @encodings);

# Characters of Latin, Cyrillic, Chinese and a plane that most encodings do not know, as SQL can write them in ASCII
my @texts = ('\00e4', '\0436', '\8868', '\+01f600', 'a\00e4\0436\8868\+01f600');
my $all = $texts[-1];

# Text that says in ASCII what the setting is, as no encoding but the server's need know it. A query that fails tells.
sub is_set
{
	my ($client, $name, $text) = @_;
	return $client->value("SELECT current_setting(U&'$name', true) IS NOT DISTINCT FROM U&'$text'");
}
sub is_clean
{
	my ($client, $name) = @_;
	return $client->value("SELECT coalesce(current_setting(U&'$name', true), '') = ''");
}

my $other = connect_as($node, @app);
my (@wrong, $checks);
sub expect
{
	my ($what, $got, $expected) = @_;
	$checks++;
	push @wrong, "$what: expected $expected, got " . ($got // 'nothing') if ($got // '') ne $expected;
}

my %ways = (
	'SET' => sub { my ($name, $text) = @_; "SET $name TO U&'$text'" },
	'set_config()' => sub { my ($name, $text) = @_; "SELECT set_config(U&'$_[2]', U&'$text', false) IS NULL" },
	'DO' => sub { "DO 'BEGIN PERFORM set_config(U&''$_[2]'', U&''$_[1]'', false); END'" },
	'a function' => sub { "SELECT public.set_it(U&'$_[2]', U&'$_[1]')" },
	'a transaction' => sub { "BEGIN; SET $_[0] TO U&'$_[1]'; SAVEPOINT s; SET $_[0] TO 'x'; ROLLBACK TO s; COMMIT" });
my @log = (length slurp_log($node));
for my $encoding (@encodings)
{
	my $c = connect_as($node, @app);
	expect("$encoding: SET client_encoding", $c->value("SET client_encoding = '$encoding'; SELECT 'answers'"), 'answers');
	for my $way (sort keys %ways)
	{
		my $i = 0;
		for my $text ($way eq 'SET' ? @texts : $all)
		{
			$i++;
			# the value, and the name
			for (['myapp.v', 'myapp.v'], ["myapp.U&\"n$text\"", "myapp.n$text"])
			{
				my ($identifier, $name) = @$_;
				my $r = $c->query($ways{$way}->($identifier, $text, $name), 10);
				expect("$encoding: $name by $way", $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{status}, 'I');
				expect("$encoding: $name by $way, next client", is_clean($other, $name), 't');
				expect("$encoding: $name by $way, own", is_set($c, $name, $text), 't');
				expect("$encoding: $name by $way, RESET", $c->value("RESET $identifier; SELECT 'answers'"), 'answers');
				expect("$encoding: $name by $way, after RESET", is_clean($c, $name), 't');
			}
		}
	}
	last if @wrong > 5;
	# settings of PostgreSQL's own, one that is reported and one that is not; and a function that has it for a while
	for my $sql ("SET search_path = U&\"$all\"", "SET TimeZone = U&'<\\8868>-3'", "SET application_name = U&'$all'", 'SELECT public.restores() IS NULL')
	{
		my $r = $c->query($sql, 10);
		expect("$encoding: $sql", $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{status}, 'I');
		expect("$encoding: $sql, next client", $other->value('SHOW search_path'), '"$user", public');
		expect("$encoding: $sql, next client", $other->value("SELECT current_setting('TimeZone') ~ '^[ -~]*\$'"), 't');
	}
	expect("$encoding: search_path", $c->value("SELECT current_setting('search_path') = U&'\"$all\"'"), 't');
	expect("$encoding: TimeZone", $c->value("SELECT current_setting('TimeZone') = U&'<\\8868>-3'"), 't');
	is_set($c, 'myapp.v', '') for 1 .. 2;
	# what it does not know is an error of the query, as PostgreSQL says it, and no more
	$c->query("SET myapp.v = U&'$all'");
	my $direct = PgPoolWire->open(port => $node->port);
	$direct->login(@app, database => 'postgres', client_encoding => $encoding);
	$direct->query("SET myapp.v = U&'$all'");
	my ($mine, $postgres) = map { $_->query('SHOW myapp.v') } $c, $direct;
	expect("$encoding: SHOW", $mine->{error} ? $mine->{error}{C} : $mine->{rows}[0][0], $postgres->{error} ? $postgres->{error}{C} : $postgres->{rows}[0][0]);
	$direct->close;
	# leaves with all that, in the middle of it; startup parameters come raw
	$c->query("SET myapp.U&\"n$all\" = U&'$all'");
	$c->send(PgPoolWire::message('X', ''));
	my $s = PgPoolWire->open(port => $node->{pool_port});
	my $r = $s->login(@app, database => 'postgres', client_encoding => $encoding,
		options => "-c myapp.v=\xe8\xa1\xa8 -c myapp.n\xe8\xa1\xa8=\xe8\xa1\xa8");
	expect("$encoding: startup options", PgPoolWire::text($r), 'ok');
	for (1 .. 2)
	{
		expect("$encoding: startup options, next client", is_clean($other, $_) . is_clean($other, 'myapp.n\8868'), 'tt') for 'myapp.v';
		expect("$encoding: startup options, own", is_set($s, 'myapp.v', '\8868') . is_set($s, 'myapp.n\8868', '\8868'), 'tt');
		expect("$encoding: startup options, RESET", $s->value("SET myapp.v = 'x'; RESET ALL; SELECT 'answers'"), 'answers');
	}
	$s->close;
}
is(join("\n", @wrong), '', "in " . @encodings . " encodings, $checks answers");
expect('the other client at the end', is_clean($other, 'myapp.v'), 't');
push @log, length slurp_log($node);
cmp_ok($log[1] - $log[0], '<', 300_000, 'the log has grown by ' . ($log[1] - $log[0]) . ' bytes');
is($admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()"), '0', 'no backend is busy');

done_testing();
