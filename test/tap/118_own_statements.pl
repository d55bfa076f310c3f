# pgpool's own statements run under the client's role, in the client's backend: pg_stat_statements does not count them
# as anybody's, and counts all that are the client's.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute sync);
use Test::More;

my $probe = `ls "\$(\${PG_CONFIG:-pg_config} --sharedir)/extension/pg_stat_statements.control" 2>&1`;
plan skip_all => 'pg_stat_statements is not installed' if $? != 0;

for my $compute ('on', 'auto')
{
	my $session_port = PostgreSQL::Test::Cluster::get_free_port();
	my $node = pool_node("own_$compute", conf => "ssl = off\npgpool.session_port = $session_port\nshared_preload_libraries = 'pg_stat_statements,pgpool'\npgpool.workers = 1\n"
		  . "pgpool.default_pool_size = 2\npg_stat_statements.track = 'all'\ncompute_query_id = $compute");
	$node->safe_psql('postgres', "CREATE EXTENSION pg_stat_statements; CREATE ROLE app LOGIN PASSWORD 'secret'");
	my @clients = map { connect_as($node, user => 'app', password => 'secret') } 1 .. 4;
	$node->safe_psql('postgres', 'SELECT pg_stat_statements_reset()');
	for my $round (1 .. 3)
	{
		# other settings, so that each release changes some; a transaction that is left open; session state; LISTEN
		$clients[$_]->query("SET work_mem = '${\(2 + $_)}MB'") for 0 .. 3;
		$clients[$_]->query("SELECT 'from a client'") for 0 .. 3;
		# shared, unnamed and named, on whatever server it is: what pgpool parses and closes for that counts for nobody
		for my $client (@clients)
		{
			for my $m (parse("SELECT 'unnamed', \$1") . bind_to('', 'x') . execute() . sync(), parse("SELECT 'named', \$1", "s$round") . bind_to("s$round", 'x') . execute() . sync())
			{
				$client->send($m);
				my $r = $client->answer;
				die $r->{error}{M} if $r->{error};
			}
		}
		# session mode: DISCARD ALL behind each
		my $alone = connect_as($node, port => $session_port, user => 'app', password => 'secret', options => '-c work_mem=8MB');
		$alone->query($_) for "SET work_mem = '9MB'", "SELECT 'alone', 1";
		$alone->close;
		my $leaves = connect_as($node, user => 'app', password => 'secret', options => '-c work_mem=7MB');
		$leaves->query('BEGIN');
		$leaves->query('CREATE TEMPORARY TABLE mine (a int)');
		$leaves->close;
		my $listens = connect_as($node, user => 'app', password => 'secret');
		$listens->query('LISTEN channel');
		# a server of pgpool's own listens for it
		poll_until(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pgpool.pg_stat_servers WHERE state = 'listener'") }) or die 'no listener';
		$clients[0]->query("NOTIFY channel, 'heard'");
		1 while ($listens->next // die 'no notification')->[0] ne 'A';
		$listens->close;
	}
	# until the servers of those that left are clean
	ok(poll_until(sub { !$node->safe_psql('postgres', "SELECT count(*) FROM pgpool.pg_stat_servers WHERE state NOT IN ('idle', 'listener')") }), 'nobody is served');
	my $known = q{query ~* '^(SET work_mem|SELECT \$\d|BEGIN|CREATE TEMPORARY TABLE|LISTEN channel|NOTIFY channel)'};
	is($node->safe_psql('postgres', "SELECT query FROM pg_stat_statements JOIN pg_roles ON oid = userid WHERE rolname = 'app' AND NOT $known"),
		'', "only the client's statements are counted (compute_query_id = $compute)");
	is($node->safe_psql('postgres', q{SELECT calls FROM pg_stat_statements JOIN pg_roles ON oid = userid WHERE rolname = 'app' AND query = 'SELECT $1'}),
		12, '... and all of them');
	is($node->safe_psql('postgres', q{SELECT string_agg(calls || ' ' || query, ', ' ORDER BY calls, query) FROM pg_stat_statements JOIN pg_roles ON oid = userid WHERE rolname = 'app' AND query LIKE 'SELECT $%,%'}),
		'3 SELECT $1, $2, 24 SELECT $2, $1', '... with parameters, and in session mode');
	$node->stop;
}
done_testing();
