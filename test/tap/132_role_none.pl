# Shows: where ALTER ROLE, ALTER DATABASE or the client's startup gives a session a role of its own, SET ROLE NONE is a
# setting like any other: it stays with the client that said it, on whatever server, and nobody else has it.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;

my $session_port = PostgreSQL::Test::Cluster::get_free_port();
my $node = pool_node('none', conf => "ssl = off\npgpool.session_port = $session_port\npgpool.workers = 1");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE clerk; CREATE ROLE guest; GRANT clerk, guest TO app; CREATE DATABASE db");
my @app = (user => 'app', password => 'secret', database => 'db');
my %port = ('directly' => $node->port, 'session port' => $session_port, 'pool' => $node->{pool_port});
my $role = "SELECT current_setting('role') || ' ' || current_user";

# What the client has after each of its statements, another one from before, and one that logs in then.
sub seen
{
	my ($port, $startup, @statements) = @_;
	my $other = connect_as($node, @app, port => $port, @$startup);
	my $mine = connect_as($node, @app, port => $port, @$startup);
	my @seen = map { $_->value($role) } $mine, $other;
	for my $sql (@statements)
	{
		$mine->query($sql);
		my $new = connect_as($node, @app, port => $port, @$startup);
		# `held` takes the server that was served last, so that all go to another one
		my $held = connect_as($node, @app, port => $port);
		$held->query('BEGIN');
		push @seen, map { $_->value($role) // 'nothing' } $mine, $new, $other, $mine;
		$_->send(PgPoolWire::message('X', '')) for $new, $held;
	}
	$_->send(PgPoolWire::message('X', '')) for $mine, $other;
	return join ', ', @seen;
}

my @cases = (
	[ 'ALTER ROLE', 'ALTER ROLE app %s', [] ], [ 'ALTER DATABASE', 'ALTER DATABASE db %s', [] ],
	[ 'ALTER ROLE IN DATABASE', 'ALTER ROLE app IN DATABASE db %s', [] ], [ 'at startup', undef, [ options => '-c role=clerk' ] ], [ 'no role', undef, [] ]);
for my $case (@cases)
{
	my ($what, $alter, $startup) = @$case;
	$node->safe_psql('postgres', sprintf $alter, 'SET role = clerk') if $alter;
	for my $statements ([ 'SET ROLE none', 'SET ROLE guest', 'SET ROLE none', 'RESET ROLE' ], [ "SELECT set_config('role', 'none', false)", 'RESET ALL', 'DISCARD ALL' ],
		[ 'BEGIN; SET LOCAL ROLE none; COMMIT', 'SET ROLE none', 'SET work_mem = 99', 'DISCARD ALL' ])
	{
		my %seen = map { $_ => seen($port{$_}, $startup, @$statements) } keys %port;
		like($seen{directly}, $what eq 'no role' ? qr/^none app, none app/ : qr/^clerk clerk, clerk clerk, .*none app/, "$what: it has its role, or says that it has none");
		is($seen{$_}, $seen{directly}, "$what: $_ ($statements->[0])") for 'session port', 'pool';
	}
	$node->safe_psql('postgres', sprintf $alter, 'RESET role') if $alter;
}
$node->stop;
done_testing();
