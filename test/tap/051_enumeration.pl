# Who has no password learns nothing: an unknown role, tenant or database, and a role without a password, look on the
# wire like a wrong password; the mock salt is stable, and the one that the server itself shows for that name.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = pool_node('enumeration', conf => 'ssl = off');
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE alice LOGIN PASSWORD 'right';
CREATE ROLE nopwd LOGIN;
CREATE ROLE nolog NOLOGIN PASSWORD 'right';
CREATE DATABASE shop;
CREATE DATABASE shut ALLOW_CONNECTIONS false;
SELECT pgpool.create_tenant('shop', database => 'shop');
SELECT pgpool.create_tenant('gone');
SELECT pgpool.ban_tenant('gone');
SELECT pgpool.create_tenant('away', only_listed_users => true);
SQL

# Message types, lengths and texts, without what is random.
sub transcript
{
	my (%p) = @_;
	my $c = PgPoolWire->open(port => delete $p{port} // $node->{pool_port});
	my $r = $c->login(password => 'wrong', %p);
	my $text = join '|', map { "$_=" . ($r->{error}{$_} // '') } qw(S V C M D H);
	$text =~ s/"[a-z]{5}(\.[a-z]+)?"/"NAME"/g;
	return ($c->shape, $text, $c->{salt}, $c->{iterations});
}

# all names have five letters, so that lengths can be compared
my ($shape, $text) = transcript(user => 'alice', database => 'shop');
like($text, qr/C=28P01\|M=password authentication failed for user "NAME"/, 'a wrong password is a wrong password');
my %like = (
	'an unknown role' => { user => 'nobod', database => 'shop' },
	'a role without a password' => { user => 'nopwd', database => 'shop' },
	'a role that may not log in' => { user => 'nolog', database => 'shop' },
	'an unknown database' => { user => 'alice', database => 'nope' },
	'a closed database' => { user => 'alice', database => 'shut' },
	'an unknown tenant by parameter' => { user => 'alice', database => 'shop', 'pgpool.tenant' => 'nope' },
	'an unknown tenant by options' => { user => 'alice', database => 'shop', options => 'reference=nope' },
	'a banned tenant' => { user => 'alice', database => 'shop', 'pgpool.tenant' => 'gone' },
	'a tenant for listed users' => { user => 'alice', database => 'shop', 'pgpool.tenant' => 'away' },
	'a database of another tenant' => { user => 'alice', database => 'shut', 'pgpool.tenant' => 'shop' },
	'an unknown role of a tenant' => { user => 'nobod', database => 'shop', 'pgpool.tenant' => 'shop' });
for my $what (sort keys %like)
{
	my ($s, $t) = transcript(%{ $like{$what} });
	is($s, $shape, "$what: the same messages of the same lengths");
	is($t, $text, "$what: the same texts");
}
{
	my ($s1, $t1) = transcript(user => 'alice.shop', database => 'shop');
	my ($s2, $t2) = transcript(user => 'alice.nope', database => 'shop');
	my ($s3, $t3) = transcript(user => 'nobod.nope', database => 'shop');
	is($t2, $t1, 'role.tenant with an unknown tenant: the same texts');
	is($s2, $s1, '... and lengths');
	is($t3, $t1, 'an unknown role of an unknown tenant: the same texts');
	is($s3, $s1, '... and lengths');
}

# the salt of a name
for my $role (qw(nobod nopwd alice), 'nobody-like-that')
{
	my (undef, undef, $own, $own_iterations) = transcript(user => $role, database => 'shop', port => $node->port);
	my %seen;
	for (1 .. 12)
	{
		my (undef, undef, $salt, $iterations) = transcript(user => $role, database => 'shop');
		$seen{"$salt $iterations"}++;
	}
	is_deeply([ keys %seen ], ["$own $own_iterations"], "the salt of \"$role\" never changes and is that of the server's port");
}
my (undef, undef, $salt_a) = transcript(user => 'nobod', database => 'shop');
my (undef, undef, $salt_b) = transcript(user => 'noboe', database => 'shop');
isnt($salt_a, $salt_b, 'different names have different salts');
$node->restart;
poll_until(sub { my $c = PgPoolWire->open(port => $node->{pool_port}) or return 0; 1 }, 'pgpool is back');
my (undef, undef, $salt_c) = transcript(user => 'nobod', database => 'shop');
is($salt_c, $salt_a, 'the mock salt outlives a restart');

# The truth goes to the log, where the administrator is.
my $log = slurp_log($node);
like($log, qr/Tenant "nope" does not exist/, 'the log names the unknown tenant');
like($log, qr/Role "nobod" does not exist/, 'the log names the unknown role');
my @leaks = grep { /\bwrong\b|\bright\b/ && !/statement: CREATE ROLE/ } split /^/, $log;
is("@leaks", '', 'no password is in the log');
$node->stop;
done_testing();
