# Shows: stored passwords are not for members of pg_read_all_data, neither as rows nor by statistics; the values that a
# client set are not in the server's log because pgpool sets them again on another server, whatever is logged there; a
# certificate's name is compared whole or not at all, and so is the name of a map; CREATE EXTENSION tells of a role
# pgpool_admin that has members already.
use strict;
use warnings;
use Test::More;
use IPC::Run ();
use PgPool;
use PgPoolTls;
use PgPoolWire;

my $pool = PgPool->new('kept', workers => 1, pool_size => 2, tls => 1, start => 0,
	conf => "log_statement = all\nlog_min_duration_statement = 0\nlog_min_error_statement = debug5\nlog_duration = on\n");
$pool->node->start;
$pool->prepare(0);
my $admin = PgPool::Raw->new(host => $pool->socket_dir, port => $pool->server_port, user => scalar getpwuid($<), database => 'postgres');

# ---- who administers
$admin->ask("CREATE ROLE $_") for qw(pgpool_admin old_friend friend_of_friend stranger);
$admin->ask('GRANT pgpool_admin TO old_friend');
$admin->ask('GRANT old_friend TO friend_of_friend');
my $r = $admin->ask('CREATE EXTENSION pgpool');
is(join('|', map { "$_->{S} $_->{M}" } @{ $r->{notices} }), 'WARNING role "pgpool_admin" exists already, and these roles get its rights: friend_of_friend, old_friend',
	'who gets the rights of pgpool_admin is told');
$admin->ask('DROP EXTENSION pgpool');
$admin->ask('REVOKE pgpool_admin FROM old_friend');
$r = $admin->ask('CREATE EXTENSION pgpool');
is(scalar @{ $r->{notices} }, 0, '... and nothing if it is nobody') or diag explain $r->{notices};
$admin->ask('DROP EXTENSION pgpool');
$admin->ask('ALTER ROLE pgpool_admin LOGIN');
$r = $admin->ask('CREATE EXTENSION pgpool');
like($r->{notices}[0]{M} // '', qr/rights: pgpool_admin$/, '... or the role itself, if it may log in');
$admin->ask('ALTER ROLE pgpool_admin NOLOGIN');
$pool->ready;

# ---- stored passwords
my $word = 'stored-word-4711';
$pool->sql("SELECT pgpool.set_user('default', 'app', server_password => '$word')");
$pool->sql("SELECT pgpool.set_user('default', 'r$_', server_password => '$word')") for 1 .. 50;
$pool->sql('ANALYZE pgpool.tenant_secret; ANALYZE pgpool.tenant_user; ANALYZE pgpool.tenant');
$pool->sql('CREATE ROLE reader; GRANT pg_read_all_data TO reader; CREATE ROLE overseer; GRANT pg_read_all_data, pg_monitor, pgpool_admin, pg_read_all_stats TO overseer');
for my $role (qw(reader overseer))
{
	my @tables = split /\n/, $pool->sql("SELECT c.oid::regclass FROM pg_class c WHERE relkind IN ('r', 'v', 'm') AND relnamespace = 'pgpool'::regnamespace");
	push @tables, qw(pg_statistic pg_stats pg_stats_ext pg_description);
	my (@seen, $read);
	for my $t (@tables)
	{
		my $text = eval { $pool->sql("SET ROLE $role; SELECT string_agg(t::text, ' ') FROM $t t") } // '';
		$pool->sql('RESET ROLE');
		$read++ if length $text;
		push @seen, $t if index($text, $word) >= 0;
	}
	cmp_ok($read // 0, '>', 2, "$role can read " . ($read // 0) . ' of them');
	is("@seen", '', '... and no stored password');
}
like($pool->sql("SELECT string_agg(t::text, ' ') FROM pgpool.tenant_secret t"), qr/$word/, 'they are there');
$pool->sql("SELECT pgpool.set_user('default', 'app', reset => '{server_password}')");
is($pool->sql("SELECT count(*) FROM pgpool.tenant_secret WHERE role_name = 'app'"), 0, 'reset takes one away');
$pool->sql("SELECT pgpool.drop_user('default', 'r1')");
is($pool->sql("SELECT count(*) FROM pgpool.tenant_secret WHERE role_name = 'r1'"), 0, '... as drop_user does');

# ---- values of settings
my $from = $pool->log_offset;
my @c = map { $pool->raw } 1 .. 6;
for my $i (0 .. $#c)
{
	$c[$i]->ask("SET myapp.token = 'value-$i-" . 'x' x 10 . "'");
	$c[$i]->ask("SET timezone = 'Etc/GMT+$i'");
}
my %first; # what the clients' own statements put there
$first{$_} = () = $pool->log_text($from) =~ /value-$_-x/g for 0 .. $#c;
for my $round (1 .. 8)
{
	$_->query('SELECT pg_sleep(0.01)') for @c;
	$_->result for @c;
}
my @kept = map { $_->value("SHOW myapp.token") } @c;
is(scalar(grep { $kept[$_] =~ /^value-$_-/ } 0 .. $#c), 6, 'each has its own value');
my $text = $pool->log_text($from);
is(join(' ', grep { my $n = () = $text =~ /value-$_-x/g; $n > $first{$_} } 0 .. $#c), '', 'the log has what the clients said, and nothing that pgpool set again');
cmp_ok($first{0}, '>', 0, '... their own statements are there');
like($text, qr/statement: SELECT pg_sleep/, '... those behind it, too');
unlike($text, qr/set_config/, '... and no statement of pgpool\'s');
# one that is refused
$pool->sql("CREATE TEXT SEARCH CONFIGURATION public.gone_config (COPY = simple); GRANT ALL ON SCHEMA public TO app", 'app');
$c[0]->ask("SET default_text_search_config = 'public.gone_config'");
$pool->sql('DROP TEXT SEARCH CONFIGURATION public.gone_config', 'app');
my $at = $pool->log_offset;
my $lost;
for my $round (1 .. 30)
{
	$_->query('SELECT pg_sleep(0.01)') for @c;
	$lost //= (grep { $_->{M} =~ /was lost/ } map { @{ $_->{notices} } } map { $_->result } @c)[0];
	last if $lost;
}
like($lost->{M} // '', qr/default_text_search_config/, 'the client is told of one that is refused');
unlike($pool->log_text($at), qr/gone_config/, '... and the log has not its value');
$_->close for @c;

# ---- names that are compared whole
my $ca = PgPoolTls->new;
my $me = getpwuid $<;
my $long = 'a' x 64; # the longest CN
my $map = 'm' x 63;
$ca->server($pool->data_dir, 'localhost');
$pool->sql("CREATE ROLE alice LOGIN PASSWORD 'secret'; CREATE ROLE bob LOGIN; GRANT CONNECT ON DATABASE app TO alice, bob");
open(my $hba, '>', $pool->data_dir . '/pg_hba.conf') or die;
print $hba "local all $me peer\nlocal all all trust\nhostssl all alice all cert clientname=DN map=names\nhostssl all bob all cert map=${map}xx\nhost all all all scram-sha-256\n";
close $hba;
# a DN of more than 1023 bytes whose first 1023 are somebody's
my $units = join('', map { sprintf('/OU=%s', sprintf('%02d', $_) . 'u' x 60) } 1 .. 17);
my ($whole_crt, $whole_key) = $ca->sign("/O=pgpool$units/CN=alice", 'extendedKeyUsage=clientAuth');
my ($bob_crt, $bob_key) = $ca->client('bobs-name');
my ($short_crt, $short_key) = $ca->client('alice');
my $dn = PgPoolTls::openssl('x509', '-in', $whole_crt, '-noout', '-subject', '-nameopt', 'RFC2253') =~ s/^subject=\s*//r =~ s/\n//gr;
cmp_ok(length $dn, '>', 1023, 'a DN of ' . length($dn) . ' bytes');
open(my $ident, '>>', $pool->data_dir . '/pg_ident.conf') or die;
print $ident 'names "' . substr($dn, 0, 1023) . "\" alice\nnames \"CN=alice,O=pgpool\" alice\n$map bobs-name bob\n";
close $ident;
$pool->sql("ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
$pool->sql('SELECT pg_reload_conf()');
sub by_cert
{
	my ($port, $role, $crt, $key) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run [ 'psql', '-X', '-At', '-d', "host=127.0.0.1 port=$port user=$role dbname=app sslmode=require sslcert=$crt sslkey=$key connect_timeout=20", '-c', 'SELECT session_user' ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
	return $err eq '' ? $out =~ s/\n//r : $err =~ /certificate authentication failed/ ? 'refused' : $err;
}
within(20, sub { by_cert($pool->port, 'alice', $short_crt, $short_key) eq 'alice' }, 'by DN') or diag by_cert($pool->port, 'alice', $short_crt, $short_key);
$at = $pool->log_offset;
is(by_cert($pool->port, 'alice', $whole_crt, $whole_key), 'refused', 'a DN whose first part is in the map is refused');
like($pool->log_text($at), qr/the name in the certificate is too long/, '... and the log says why');
is(by_cert($pool->server_port, 'bob', $bob_crt, $bob_key), 'refused', 'a map whose name begins like another one, at PostgreSQL');
is(by_cert($pool->port, 'bob', $bob_crt, $bob_key), 'refused', '... and here');
done_testing();
