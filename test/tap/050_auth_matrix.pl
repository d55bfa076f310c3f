# The same login attempt at the server's own port and at pgpool's is accepted or refused alike, with the same SQLSTATE
# and the same message: for every kind of verifier, role, database, password and method.
use strict;
use warnings FATAL => 'all';
use utf8;

use Digest::SHA qw(hmac_sha256 sha256);
use MIME::Base64;
use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $me = (getpwuid $>)[0];
# the method is chosen by the database
my %method = (db_scram => 'scram-sha-256', db_md5 => 'md5', db_password => 'password', db_trust => 'trust', db_reject => 'reject');
my $node = pool_node(
	'matrix',
	conf => "ssl = off\nlog_connections = off",
	hba => [
		"local all $me peer",
		'local all all md5',
		(map { "host $_ all 127.0.0.1/32 $method{$_}" } sort keys %method),
		'host db_ldap all 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapprefix="cn=" ldapsuffix=""',
		'host no_connect,closed,nowhere,"d.b" all 127.0.0.1/32 scram-sha-256'
	]);

$node->safe_psql('postgres', "CREATE DATABASE $_") for keys %method, qw(db_ldap db_noline no_connect closed "d.b");
my $long = 'n' x 63;
$node->safe_psql('postgres', <<"SQL");
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram LOGIN PASSWORD 'right';
CREATE ROLE nologin NOLOGIN PASSWORD 'right';
CREATE ROLE expired LOGIN PASSWORD 'right' VALID UNTIL '2001-01-01';
CREATE ROLE future LOGIN PASSWORD 'right' VALID UNTIL '2101-01-01';
CREATE ROLE forever LOGIN PASSWORD 'right' VALID UNTIL 'infinity';
CREATE ROLE limited LOGIN PASSWORD 'right' CONNECTION LIMIT 0;
CREATE ROLE super LOGIN SUPERUSER PASSWORD 'right' CONNECTION LIMIT 0;
CREATE ROLE nopassword LOGIN;
CREATE ROLE nopassword_nologin NOLOGIN;
CREATE ROLE "$long" LOGIN PASSWORD 'right';
CREATE ROLE "with.dot" LOGIN PASSWORD 'right';
CREATE ROLE "it's ""quoted""" LOGIN PASSWORD 'right';
CREATE ROLE "Zoë-日本" LOGIN PASSWORD 'right';
CREATE ROLE "All" LOGIN PASSWORD 'right';
CREATE ROLE spaces LOGIN PASSWORD ' right ';
SET password_encryption = 'md5';
CREATE ROLE md5 LOGIN PASSWORD 'right';
CREATE ROLE md5_nologin NOLOGIN PASSWORD 'right';
CREATE ROLE md5_expired LOGIN PASSWORD 'right' VALID UNTIL '2001-01-01';
CREATE ROLE broken LOGIN PASSWORD 'right';
CREATE ROLE broken_short LOGIN PASSWORD 'right';
CREATE ROLE broken_iterations LOGIN PASSWORD 'right';
UPDATE pg_authid SET rolpassword = 'SCRAM-SHA-256\$4096:not base64!\$x:y' WHERE rolname = 'broken';
UPDATE pg_authid SET rolpassword = 'md5123' WHERE rolname = 'broken_short';
UPDATE pg_authid SET rolpassword = 'SCRAM-SHA-256\$many:c2FsdHNhbHRzYWx0c2FsdA==\$x:y' WHERE rolname = 'broken_iterations';
REVOKE CONNECT ON DATABASE no_connect FROM PUBLIC;
ALTER DATABASE closed ALLOW_CONNECTIONS false;
SQL
# verifiers as other programs write them
for my $iterations (1, 4096, 20000)
{
	my $salt = "salt of $iterations.";
	my $salted = PgPoolWire::scram_salt('right', $salt, $iterations);
	my $verifier = "SCRAM-SHA-256\$$iterations:" . encode_base64($salt, '') . '$' . encode_base64(sha256(hmac_sha256('Client Key', $salted)), '')
	  . ':' . encode_base64(hmac_sha256('Server Key', $salted), '');
	$node->safe_psql('postgres', "CREATE ROLE iterations_$iterations LOGIN PASSWORD '$verifier'");
}
$node->reload;

my @roles = (qw(scram nologin expired future forever limited super nopassword nopassword_nologin md5 md5_nologin md5_expired),
	qw(broken broken_short broken_iterations nobody with.dot All spaces iterations_1 iterations_4096 iterations_20000), $long, "${long}x", q{it's "quoted"}, 'Zoë-日本');
utf8::encode($_) for @roles;

# What a case looks like at one port.
sub attempt
{
	my ($port, $role, $database, $password) = @_;
	return login_text($node, port => $port, user => $role, database => $database, password => $password);
}

# Reviewed differences, by the server's answer and pgpool's; all else must be equal.
my %reviewed = ();

my ($cases, $unlike, $accepted) = (0, 0, 0);
sub compare
{
	my ($role, $database, $password) = @_;
	my $own = attempt($node->port, $role, $database, $password);
	my $pooled = attempt($node->{pool_port}, $role, $database, $password);
	$cases++;
	$accepted++ if $own eq 'ok';
	return if $own eq $pooled || ($reviewed{$own} // '') eq $pooled;
	$unlike++;
	diag("role \"$role\", database $database, password \"" . substr($password, 0, 10) . "\": server \"$own\", pgpool \"$pooled\"");
}

for my $database (sort(keys %method), 'db_noline')
{
	my $before = $unlike;
	for my $role (@roles)
	{
		compare($role, $database, $_) for 'right', 'wrong', '', ' right ';
	}
	is($unlike, $before, 'method ' . ($method{$database} // 'without a line') . ': each attempt ends as at the server');
}
my $before = $unlike;
for my $database (qw(no_connect closed nowhere d.b))
{
	for my $role (qw(scram super nologin limited nobody md5))
	{
		compare($role, $database, $_) for 'right', 'wrong';
	}
}
is($unlike, $before, 'databases that are closed, missing or forbidden are refused as at the server');
$before = $unlike;
compare('scram', 'db_scram', $_) for 'r' x 900, "right\x{1}", "ri", "RIGHT", "\xc3\x28", "right" x 300;
is($unlike, $before, 'long, short and invalid passwords end as at the server');
cmp_ok($accepted, '>', 50, "the matrix has attempts that succeed ($accepted of $cases)");

# Methods that pgpool does not speak are named in the answer.
like(login_text($node, user => 'scram', database => 'db_ldap', password => 'right'),
	qr/^0A000 authentication method "ldap" is not supported by pgpool$/, 'ldap is refused by its name');
{
	my $c = PgPoolWire->open(path => $node->host . "/.s.PGSQL.$node->{pool_port}");
	my $r = $c->login(user => $me, database => 'postgres');
	is(PgPoolWire::text($r), '0A000 authentication method "peer" is not supported by pgpool', 'peer is refused by its name');
	like($r->{error}{H}, qr/scram-sha-256/, '... with a hint at what works');
}
# after all of this, nobody is in and nothing is left open
ok(poll_until(sub { $node->safe_psql('postgres', 'SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }),
	'no client is left');
$node->stop;
done_testing();
