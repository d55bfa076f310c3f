# PgPoolCase: what the tests of logins, tenants, limits and views have in common: one server with pgpool, quickly.
#
# pool_node() makes a cluster whose superuser comes in by peer, where everybody else proves a password, both at the
# server's own port and at pgpool's; nothing is trusted unless the test says so.
package PgPoolCase;
use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IO::Socket::INET;
use PgPoolWire;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(pool_node poll_until connect_as login_text tool psql_pool slurp_log);

sub default_hba
{
	my $me = (getpwuid $>)[0];
	return "local all $me peer", 'local all all scram-sha-256', 'host all all 127.0.0.1/32 scram-sha-256';
}

# name; conf => text, hba => [lines], extension => 0 leaves CREATE EXTENSION to the test.
# The node knows its pool port: $node->{pool_port}.
sub pool_node
{
	my ($name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $pool_port = PostgreSQL::Test::Cluster::get_free_port();
	$node->{pool_port} = $pool_port;
	$node->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', <<"CONF");
listen_addresses = '127.0.0.1'
max_connections = 60
shared_preload_libraries = 'pgpool'
pgpool.port = $pool_port
pgpool.workers = 2
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %q%u\@%d '
@{[ $o{conf} // '' ]}
CONF
	set_hba($node, @{ $o{hba} // [ default_hba() ] });
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pgpool') if $o{extension} // 1;
	poll_until(sub { my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$pool_port") or return 0; close $s; 1 },
		"pgpool listens on port $pool_port");
	return $node;
}

sub set_hba
{
	my ($node, @lines) = @_;
	my $file = $node->data_dir . '/pg_hba.conf';
	unlink $file;
	append_to_file($file, join("\n", @lines) . "\n");
}

# True as soon as the code says so; the time limit is a failure.
sub poll_until
{
	my ($code, $what, $limit) = @_;
	my $end = time + ($limit // 30);
	while (1)
	{
		return 1 if $code->();
		last if time > $end;
		sleep 0.02;
	}
	diag("not within the time: $what") if $what;
	return 0;
}

# A logged-in client of pgpool, or the test ends here.
sub connect_as
{
	my ($node, %p) = @_;
	my $c = PgPoolWire->open(port => delete $p{port} // $node->{pool_port}) or die 'no connection to pgpool';
	my $r = $c->login(database => 'postgres', %p);
	die "login of $p{user}: " . PgPoolWire::text($r) unless $r->{ok};
	return $c;
}

# 'ok', or SQLSTATE and message.
sub login_text
{
	my ($node, %p) = @_;
	my $c = PgPoolWire->open(port => delete $p{port} // $node->{pool_port}) or return 'no connection';
	my $r = $c->login(%p);
	$c->send(PgPoolWire::message('X', '')) if $r->{ok};
	return PgPoolWire::text($r);
}

sub psql_pool
{
	my ($node, $connstr, @options) = @_;
	my ($out, $err) = ('', '');
	my $done = IPC::Run::run [ 'psql', '-X', '-q', '-At', '-d', "host=127.0.0.1 port=$node->{pool_port} $connstr", @options ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
	chomp $out;
	return wantarray ? ($out, $err, $? >> 8) : $out;
}

sub tool
{
	my $name = shift;
	my $dir = $ENV{PGPOOL_TOOLS} // 'build/tools';
	return -x "$dir/$name" ? "$dir/$name" : undef;
}

sub slurp_log { my $node = shift; return slurp_file($node->logfile) }

1;
