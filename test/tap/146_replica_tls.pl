# Shows: the way to a node is as safe as its row says. Each sslmode serves reads where it may; a wrong host name, a wrong
# authority, a file that is not there or a node without TLS is refused, the view says why, and reads go on on the primary.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgPool;
use PgPoolTls;

my $pool = PgPool->new('zero', streaming => 1, workers => 1, conf => "autovacuum = off\n");
$pool->node->backup('copy');
my ($ca, $other) = (PgPoolTls->new, PgPoolTls->new('Another authority'));
my $node = PostgreSQL::Test::Cluster->new('one');
$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
$node->append_conf('postgresql.conf', 'pgpool.port = ' . free_port() . "\nunix_socket_directories = '" . $node->host . "'\n");
$ca->server($node->data_dir, 'localhost');
$node->start;
my $one = PgPool->adopt($node, port => 0);

$pool->sql('CREATE TABLE t (a int); INSERT INTO t VALUES (42); GRANT ALL ON t TO app', 'app');
$pool->sql("SELECT pgpool.alter_tenant('default', routing => 'reads')");
$pool->sql("SELECT pgpool.add_replica('one', 'localhost', " . $node->port . ", sslmode => 'disable')");
my $client = $pool->raw;
my $wrong = 0;
sub read_once { $wrong++ if ($client->value('SELECT a FROM t') // '') ne '42' }
sub of { return $pool->sql("SELECT $_[0] FROM pgpool.pg_stat_replicas WHERE name = 'one'") }
within(20, sub { read_once(); of('reads') > 0 }, 'reads reach the standby');

sub row # what the row of the node says, from here on
{
	my ($mode, $host, $root) = @_;
	my $file = defined $root ? "'$root'" : 'NULL';
	$pool->sql("SELECT pgpool.alter_replica('one', host => '$host', sslmode => '$mode', sslrootcert => $file, reset => " . (defined $root ? 'NULL' : q('{sslrootcert}')) . ')');
	$pool->sql('SELECT pgpool.reset_stats()');
}
sub is_encrypted { return $one->sql("SELECT string_agg(DISTINCT s.ssl::text, ' ') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'app'") }

sub serves
{
	my ($what, $encrypted, @row) = @_;
	row(@row);
	within(10, sub { read_once(); of('reads') > 0 && (is_encrypted() // '') eq $encrypted && of('state') eq 'serving' }, "$what: the standby serves" . ($encrypted eq 'true' ? ', encrypted' : ''))
	  or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'), ' ', is_encrypted());
}

sub refuses
{
	my ($what, $reason, @row) = @_;
	my $state = $what =~ /hostssl/ ? 'serving' : 'failing'; # who has no line there may not be the only one
	row(@row);
	within(10, sub { read_once(); (of('reason') // '') =~ $reason }, "$what: it does not, and the view says why")
	  or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'));
	my $reads = of('reads');
	read_once() for 1 .. 10;
	is(of('reads'), $reads, '... reads go on on the primary');
	is(of('state'), $state, "... and the standby is $state");
	cmp_ok(of('errors'), '>', 0, '... with an error that counts');
}

my $authority = $ca->authority;
serves('disable', 'false', 'disable', 'localhost');
serves('prefer', 'true', 'prefer', 'localhost');
serves('require, whatever the name', 'true', 'require', '127.0.0.1');
serves('verify-ca, whatever the name', 'true', 'verify-ca', '127.0.0.1', $authority);
serves('verify-full with its name', 'true', 'verify-full', 'localhost', $authority);
refuses('verify-full with another name', qr/mismatch/i, 'verify-full', '127.0.0.1', $authority);
refuses('verify-ca with another authority', qr/unable to get local issuer certificate/, 'verify-ca', 'localhost', $other->authority);
serves('verify-ca with its authority', 'true', 'verify-ca', 'localhost', $authority);
refuses('verify-full with another authority', qr/unable to get local issuer certificate/, 'verify-full', 'localhost', $other->authority);
refuses('a file that is not there', qr{could not load root certificates: .*\(sslrootcert = /nowhere/root.crt\)}, 'verify-ca', 'localhost', '/nowhere/root.crt');
serves('require again', 'true', 'require', 'localhost');

# ---- a node without TLS
$node->append_conf('postgresql.conf', "ssl = off\n");
$node->reload;
ok($node->poll_query_until('postgres', "SELECT current_setting('ssl') = 'off'"), 'the standby has no TLS any more');
refuses('require without TLS there', qr/does not do TLS/, 'require', '127.0.0.1');
serves('prefer without TLS there', 'false', 'prefer', '127.0.0.1');

# ---- a node that wants TLS
$node->append_conf('postgresql.conf', "ssl = on\n");
append_to_file($node->data_dir . '/pg_hba.conf.new', "local all all peer\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n");
rename $node->data_dir . '/pg_hba.conf.new', $node->data_dir . '/pg_hba.conf' or die "pg_hba.conf: $!";
$node->reload;
ok($node->poll_query_until('postgres', "SELECT current_setting('ssl') = 'on' AND EXISTS (SELECT FROM pg_hba_file_rules WHERE type = 'hostssl')"), 'the standby wants TLS');
refuses('disable where pg_hba.conf has hostssl', qr/no pg_hba.conf entry|no encryption/, 'disable', '127.0.0.1');
serves('verify-full there', 'true', 'verify-full', 'localhost', $authority);

is($wrong, 0, 'every read was answered, and right');
$client->close;
$_->forget_sql for $pool, $one;
done_testing();
