# Shows: drivers live their ordinary life through pgpool's port as on the server's own. Each script of test/drivers makes
# claims about one driver with its default settings; it runs directly, which proves the script, and then on a pool of two
# servers that other clients use, too. A driver that is not installed (dev/drivers.sh) is skipped. All connections are
# encrypted, as most drivers do by themselves where the server can; PGPOOL_TLS=off: none are.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Spec;
use Test::More;
use PgPool;

my $scripts = dirname(__FILE__) . '/../drivers';
my $modules = File::Spec->rel2abs($ENV{PGPOOL_DRIVERS} // 'build/drivers') . '/node_modules';
my $jar     = '/usr/share/java/postgresql.jar';
my $dir     = PostgreSQL::Test::Utils::tempdir();
my $limit   = 120; # seconds for one run of a script; usual are 1 to 10
my $tls     = ($ENV{PGPOOL_TLS} // 'on') ne 'off';

# Each driver: its name, how to run the script, and a command that prints the version or fails.
# Debian's modules are those of Debian's python3, which another may hide in the PATH.
sub python
{
	my ($script, $module, @more) = @_;
	my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
	return [ $python, "$scripts/$script" ],
	  [ $python, '-c', join("\n", (map { "import $_" } $module, @more), "print($module.__version__.split()[0])") ];
}

sub node
{
	my ($script, $package) = @_;
	return [ 'node', "$scripts/$script" ], [ 'node', '-p', "require('$modules/$package/package.json').version" ];
}
my @drivers = (
	[ 'psycopg',       python('psycopg3.py', 'psycopg', 'psycopg_pool') ],
	[ 'psycopg2',      python('psycopg2_life.py', 'psycopg2') ],
	[ 'asyncpg',       python('asyncpg_life.py', 'asyncpg') ],
	[ 'node-postgres', node('node_postgres.js', 'pg') ],
	[ 'postgres.js',   node('postgres_js.js', 'postgres') ],
	[ 'JDBC', [ 'java', '-cp', "$jar:$dir", 'Jdbc' ],
		[ 'sh', '-ec', "javac -d $dir -cp $jar $scripts/Jdbc.java && { java -cp $jar org.postgresql.util.PGJDBCMain || true; }" ] ],
	[ 'DBD::Pg', [ 'perl', "$scripts/dbd_pg.pl" ], [ 'perl', '-MDBD::Pg', '-e', 'print $DBD::Pg::VERSION' ] ],
);

# one worker, so that all clients share the prepared statements of the two servers
my $pool = PgPool->new('drivers', workers => 1, pool_size => 2, tls => $tls);
# what the two that send clear text by default take for `encrypt, whatever the certificate`
my %encrypt = ('node-postgres' => [ PGSSLMODE => 'no-verify' ], 'postgres.js' => [ PGSSL => 'require' ]);

# status and output of a program
sub run_it
{
	my ($command, %env) = @_;
	my $job = $pool->start($command, PYTHONDONTWRITEBYTECODE => 1, NODE_PATH => $modules, %env);
	my $status = $job->finish($limit);
	return ($status, $job->output);
}

# claim => 'ok' or 'not ok', in order; and all of the output
sub life
{
	my ($name, $command, $port) = @_;
	my ($status, $output) = run_it($command, $tls ? @{ $encrypt{$name} // [] } : (),
		PGHOST => '127.0.0.1', PGPORT => $port, PGUSER => 'app', PGPASSWORD => 'app-secret', PGDATABASE => 'app');
	my @claims = map { /^(ok|not ok) \d+ - (.*)/ ? [ $2, $1 ] : () } split /\n/, $output;
	my ($planned) = $output =~ /^1\.\.(\d+)$/m;
	$output .= "status $status";
	return (\@claims, ($planned // -1) == @claims, $output);
}

# ---- others use the two servers, in short transactions
open(my $script, '>', "$dir/others.sql") or die "others.sql: $!";
print $script "BEGIN;\nSELECT pg_backend_pid();\nCOMMIT;\n";
close $script;
my $others = $pool->pgbench('-n', '-f', "$dir/others.sql", qw(-c 3 -R 300 -M prepared -T 600));
my $client = $pool->raw;
my %servers;
within(30, sub { $servers{ $client->value('SELECT pg_backend_pid()') } = 1; keys %servers == 2 }, 'servers change hands');
$client->close;
if ($tls)
{
	$pool->write_hba("hostnossl app app 127.0.0.1/32 reject\n");
	$pool->node->reload;
	within(10, sub { !grep { my $port = $_; eval { $pool->raw(port => $port)->close; 1 } } $pool->port, $pool->server_port },
		'from here on clear text is refused');
}

for (@drivers)
{
	my ($name, $command, $probe) = @$_;
  SKIP:
	{
		my ($status, $version) = run_it($probe);
		if ($status)
		{
			my $why = (grep { /\S/ } reverse split /\n/, $version)[0] // "status $status";
			($why) = grep { /Error: / } split /\n/, $version if $version =~ /Error: /;
			diag "skipped: $name is not there: $why";
			skip "$name is not there: $why", 1;
		}
		($version) = $version =~ /(\d+(?:\.\d+)+)/;
		diag "driver: $name $version";
		my ($direct, $complete, $output) = life($name, $command, $pool->server_port);
		ok($complete && @$direct && !(grep { $_->[1] ne 'ok' } @$direct), "$name on the server's own port: all holds") or diag $output;
		my ($pooled, $whole, $said) = life($name, $command, $pool->port);
		my $bad = !is(join("\n", map { $_->[0] } @$pooled), join("\n", map { $_->[0] } @$direct), "$name: the same claims through the pool");
		for my $claim (@$pooled)
		{
			is($claim->[1], 'ok', "$name: $claim->[0]") or $bad++;
		}
		ok($whole, "$name comes to its end") or $bad++;
		diag $said if $bad;
	}
}

ok($others->running, 'the others are still there') or diag $others->output;
$others->stop;
is($pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'"), 0, 'nothing is left behind');
cmp_ok($pool->backends('app'), '<=', 2, 'never more than two servers');
done_testing();
