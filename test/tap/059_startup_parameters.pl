# What a client sets at startup holds in each of its transactions, although it shares one server with clients that set
# other things; the server itself judges the values; SET of what the server reports is the client's own, too.
# RESET goes back to what the client started with.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = pool_node('parameters', conf => "ssl = off\npgpool.default_pool_size = 1\npgpool.workers = 1");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE SCHEMA one; CREATE SCHEMA two; GRANT USAGE ON SCHEMA one, two TO app;
	CREATE TABLE one.t AS SELECT 'in one' AS v; CREATE TABLE two.t AS SELECT 'in two' AS v; GRANT SELECT ON one.t, two.t TO app");
my @app = (user => 'app', password => 'secret');

# name => [ startup parameters, { parameter => value as SHOW gives it } ]
my %client = (
	plain => [ {}, { DateStyle => 'ISO, MDY', search_path => '"$user", public', statement_timeout => '0', client_encoding => 'UTF8' } ],
	german => [ { DateStyle => 'German, DMY', TimeZone => 'Europe/Berlin', search_path => 'one' },
		{ DateStyle => 'German, DMY', TimeZone => 'Europe/Berlin', search_path => 'one' } ],
	latin => [ { client_encoding => 'LATIN1', search_path => 'two, public', TimeZone => 'Asia/Tokyo' },
		{ client_encoding => 'LATIN1', search_path => 'two, public', TimeZone => 'Asia/Tokyo' } ],
	strict => [ { statement_timeout => '50', extra_float_digits => '2', default_transaction_isolation => 'repeatable read' },
		{ statement_timeout => '50ms', extra_float_digits => '2', default_transaction_isolation => 'repeatable read', transaction_isolation => 'repeatable read' } ],
	custom => [ { 'my.setting' => "it's \\ mine", application_name => 'custom app' }, { 'my.setting' => "it's \\ mine", application_name => 'custom app' } ],
	options => [ { options => '-c my.setting=by\ option --work-mem=1234kB -cenable_seqscan=off' },
		{ 'my.setting' => 'by option', work_mem => '1234kB', enable_seqscan => 'off' } ]);
my %c = map { $_ => connect_as($node, @app, %{ $client{$_}[0] }) } sort keys %client;

my ($held, $asked, %server) = (0, 0);
for my $round (1 .. 5)
{
	for my $name ($round % 2 ? sort keys %c : reverse sort keys %c)
	{
		for my $parameter (sort keys %{ $client{$name}[1] })
		{
			my $wanted = $client{$name}[1]{$parameter};
			my $got = $c{$name}->value("SHOW $parameter");
			$asked++;
			$got eq $wanted ? $held++ : diag("round $round, client $name, $parameter: \"$got\", not \"$wanted\"");
		}
		$server{ $c{$name}->value('SELECT pg_backend_pid()') }++;
	}
}
is($held, $asked, "each of $asked values is the client's own");
is(keys %server, 1, '... on one server');
# What nobody asked for is not there.
for my $name (grep { $_ ne 'custom' && $_ ne 'options' } sort keys %c)
{
	my $got = $c{$name}->value("SELECT coalesce(current_setting('my.setting', true), '')");
	is($got, '', "client $name has no my.setting");
}

# ---- they mean something
is($c{german}->value('SELECT v FROM t'), 'in one', 'search_path leads to the client\'s schema');
is($c{latin}->value('SELECT v FROM t'), 'in two', '... and another client\'s to another');
is($c{plain}->value('SELECT v FROM t'), '42P01 relation "t" does not exist', '... and without one to none');
is($c{german}->value("SELECT '2026-02-01 12:00+00'::timestamptz"), '01.02.2026 13:00:00 CET', 'DateStyle and TimeZone');
is($c{latin}->value("SELECT U&'\\00e9'"), "\xe9", 'client_encoding: the bytes are LATIN1');
is($c{plain}->value("SELECT U&'\\00e9'"), "\xc3\xa9", '... or UTF-8');
is($c{strict}->value('SELECT pg_sleep(5)'), '57014 canceling statement due to statement timeout', 'statement_timeout');
is($c{plain}->value('SELECT pg_sleep(0.1)'), '', '... of this client only');
is($c{custom}->value("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"), 'custom app', 'application_name is seen in pg_stat_activity');

# ---- the greeting tells the client what holds for it
is($c{german}{parameters}{DateStyle}, 'German, DMY', 'ParameterStatus at login has the client\'s DateStyle');
is($c{german}{parameters}{TimeZone}, 'Europe/Berlin', '... and TimeZone');
is($c{latin}{parameters}{client_encoding}, 'LATIN1', '... and client_encoding');
is($c{plain}{parameters}{client_encoding}, 'UTF8', '... and the server\'s where it set none');
my $own = PgPoolWire->open(port => $node->port);
$own->login(@app, database => 'postgres', DateStyle => 'German, DMY', TimeZone => 'Europe/Berlin', search_path => 'one');
my $known = join ' ', sort keys %{ $own->{parameters} };
is(join(' ', sort keys %{ $c{german}{parameters} }), $known, 'the same parameters are reported as at the server\'s port');
is_deeply({ map { $_ => $c{german}{parameters}{$_} } keys %{ $own->{parameters} } }, $own->{parameters}, '... with the same values');
$own->send(PgPoolWire::message('X', ''));

# ---- SET and RESET
$c{german}->query('SET TimeZone = \'UTC\'');
is($c{german}{parameters}{TimeZone}, 'UTC', 'SET is reported to the client');
is($c{latin}->value('SHOW TimeZone'), 'Asia/Tokyo', '... and another client does not see it');
is($c{german}->value('SHOW TimeZone'), 'UTC', 'SET holds in later transactions');
$c{plain}->query('DISCARD ALL');
is($c{latin}->value('SHOW TimeZone'), 'Asia/Tokyo', 'DISCARD ALL of one client leaves the others alone');
$c{german}->query("SET search_path = two");
is($c{plain}->value('SHOW search_path'), '"$user", public', 'SET search_path of a client is its own');
$c{custom}->query("SET my.setting = 'changed'");
is($c{options}->value('SHOW my.setting'), 'by option', 'SET of a setting without a definition is the client\'s own');
$c{german}->query('BEGIN');
$c{german}->query("SET LOCAL TimeZone = 'Asia/Tokyo'");
$c{german}->query("SET TimeZone = 'America/Lima'");
is($c{german}->value('SHOW TimeZone'), 'America/Lima', 'SET holds inside of a transaction');
$c{german}->query('ROLLBACK');
is($c{german}->value('SHOW TimeZone'), 'UTC', 'ROLLBACK takes back what SET did in the transaction');
{
	# The server reports these to nobody, and takes what pgpool sets for a client as a SET.
	is($c{german}->value('SELECT v FROM t'), 'in two', 'SET search_path holds in later transactions');
	is($c{custom}->value('SHOW my.setting'), 'changed', 'SET of a setting without a definition holds');
	$c{german}->query('RESET TimeZone');
	is($c{german}->value('SHOW TimeZone'), 'Europe/Berlin', 'RESET goes back to what the client started with');
	$c{german}->query('RESET ALL');
	is($c{german}->value('SHOW search_path'), 'one', 'RESET ALL goes back to what the client started with');
	is($c{german}->value('SHOW DateStyle'), 'German, DMY', '... for everything');
}

# ---- what the server does not take
my @bad = (
	[ { DateStyle => 'nonsense' }, 'an invalid value' ],
	[ { client_encoding => 'KLINGON' }, 'an unknown encoding' ],
	[ { nonsense => '1' }, 'an unknown parameter' ],
	[ { statement_timeout => '-5' }, 'a value out of range' ],
	[ { options => '-c work_mem=much' }, 'an invalid value in options' ],
	[ { options => '-c nonsense=1' }, 'an unknown parameter in options' ],
	[ { shared_buffers => '1GB' }, 'a parameter that needs a restart' ],
	[ { log_statement => 'none' }, 'a parameter of superusers' ],
	[ { session_replication_role => 'replica' }, 'another one' ],
	[ { role => 'nobody' }, 'a role that does not exist' ]);
for (@bad)
{
	my ($parameters, $what) = @$_;
	my %p = (@app, database => 'postgres', %$parameters);
	is(login_text($node, %p), login_text($node, %p, port => $node->port), "$what: the server's own error");
}
is($c{plain}->value('SELECT 1'), '1', 'the other clients go on');
my @tricky = map { { 'my.setting' => $_ } } "'; DROP TABLE one.t; --", "\\'; SELECT 1", '$$', "a\nb", "\xc3\xa9", '%s%n', 'x' x 2000;
for my $p (@tricky)
{
	my $c = connect_as($node, @app, %$p);
	is($c->value('SHOW my.setting'), $p->{'my.setting'}, 'a value is taken as it is: ' . substr($p->{'my.setting'}, 0, 20) =~ s/\n/\\n/r);
	$c->send(PgPoolWire::message('X', ''));
}
is($node->safe_psql('postgres', 'SELECT v FROM one.t'), 'in one', 'nothing of it was executed');
$node->stop;
done_testing();
