# Tenants: every way to name one, its database, its limits and its rules; changes act at COMMIT within 100 ms, reach
# open pools, and never disconnect a client of another tenant; ROLLBACK changes nothing.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $me = (getpwuid $>)[0];
my $node = pool_node('tenants', conf => "ssl = off\npgpool.default_pool_size = 2");
sub admin
{
	my $c = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
	$c->login(user => $me, database => 'postgres')->{ok} or die 'no superuser';
	return $c;
}
my $admin = admin();
sub sql
{
	my $r = $admin->query($_[0]);
	die "$_[0]: $r->{error}{M}" if $r->{error};
	return $r->{rows}[0] ? $r->{rows}[0][0] : '';
}
sql($_) for split /;\n/, <<'SQL';
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE other LOGIN PASSWORD 'secret';
CREATE ROLE "dotted.name" LOGIN PASSWORD 'secret';
CREATE ROLE "dotted.shop" LOGIN PASSWORD 'secret';
CREATE DATABASE shop;
CREATE DATABASE blog;
CREATE DATABASE app;
CREATE DATABASE nobodys;
SELECT pgpool.create_tenant('shop', database => 'shop');
SELECT pgpool.create_tenant('blog', database => 'blog');
SELECT pgpool.create_tenant('free')
SQL

my %secret = (password => 'secret');
sub try_login { return login_text($node, %secret, @_) }
# tenant and database of a client, as the view has them
sub where_is
{
	my $c = PgPoolWire->open(port => $node->{pool_port});
	my $r = $c->login(%secret, @_);
	return PgPoolWire::text($r) unless $r->{ok};
	my $pid = $c->{pid};
	my $seen = $c->value('SELECT current_database()');
	my $tenant = sql("SELECT string_agg(tenant, ',') FROM pgpool.pg_stat_clients");
	$c->send(PgPoolWire::message('X', ''));
	$c->closes(5);
	poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }, 'the client is gone');
	return "$tenant/$seen";
}

# ---- ways to name a tenant
is(where_is(user => 'app', database => 'nobodys'), 'default/nobodys', 'without a name: tenant default, the database of the client\'s choice');
is(where_is(user => 'app', database => 'blog'), 'blog/blog', '... or the tenant that owns it');
is(where_is(user => 'app', database => 'shop', 'pgpool.tenant' => 'shop'), 'shop/shop', 'startup parameter pgpool.tenant');
is(where_is(user => 'app', database => 'shop', reference => 'shop'), 'shop/shop', 'startup parameter reference');
is(where_is(user => 'app', database => 'shop', options => '-c pgpool.tenant=shop'), 'shop/shop', 'options -c pgpool.tenant=');
is(where_is(user => 'app', database => 'shop', options => '-cpgpool.tenant=shop'), 'shop/shop', 'options -cpgpool.tenant=');
is(where_is(user => 'app', database => 'shop', options => '--pgpool.tenant=shop'), 'shop/shop', 'options --pgpool.tenant=');
is(where_is(user => 'app', database => 'shop', options => 'reference=shop'), 'shop/shop', 'options reference=');
is(where_is(user => 'app.shop', database => 'shop'), 'shop/shop', 'role.tenant');
is(where_is(user => 'dotted.name.shop', database => 'shop'), 'shop/shop', 'role.tenant is split at the last dot');
is(where_is(user => 'dotted.name', database => 'blog'), 'blog/blog', 'a role with a dot whose end is no tenant is a role');
is(where_is(user => 'dotted.shop', database => 'shop'), '28P01 password authentication failed for user "dotted"',
	'a role whose end is a tenant is split; who means the role names the tenant otherwise');
is(where_is(user => 'dotted.shop', database => 'shop', 'pgpool.tenant' => 'shop'), 'shop/shop', '... by the parameter');
is(where_is(user => 'app.shop', database => 'blog', 'pgpool.tenant' => 'blog'), '28P01 password authentication failed for user "app.shop"',
	'with the parameter the user name is not split');

# ---- the database of a tenant
is(where_is(user => 'app', 'pgpool.tenant' => 'shop'), 'shop/shop', 'no database named: the tenant\'s');
is(where_is(user => 'app', database => 'app', 'pgpool.tenant' => 'shop'), 'shop/shop', 'the role\'s name, which drivers put there: the tenant\'s');
is(where_is(user => 'app.shop', database => 'app.shop'), 'shop/shop', '... also as role.tenant');
is(where_is(user => 'app', database => 'nobodys', 'pgpool.tenant' => 'free'), 'free/nobodys', 'a tenant without a database: the client\'s choice');
is(try_login(user => 'app', database => 'blog', 'pgpool.tenant' => 'shop'), '3D000 tenant "shop" has no database "blog"',
	'another database is refused');
is(try_login(user => 'app', database => 'blog', 'pgpool.tenant' => 'shop', password => 'wrong'),
	'28P01 password authentication failed for user "app"', '... but only told after the proof');

# ---- changes act at COMMIT, and nobody else is disturbed
my $witness = connect_as($node, user => 'app', %secret, database => 'blog', 'pgpool.tenant' => 'blog');
my $in_transaction = connect_as($node, user => 'other', %secret, database => 'blog', 'pgpool.tenant' => 'blog');
$in_transaction->query('BEGIN');
my $in_shop = connect_as($node, user => 'app', %secret, database => 'shop', 'pgpool.tenant' => 'shop');
$in_shop->query('SELECT 1');

# Time from COMMIT to the moment when a login says something else: 100 ms, or ten logins where the machine is that busy.
sub takes
{
	my ($change, $wanted, %login) = @_;
	my ($text, $slowest) = ('', 0);
	my $try = sub {
		my $begin = time;
		$text = try_login(%login);
		my $took = time - $begin;
		$slowest = $took if $took > $slowest;
		return $text =~ $wanted;
	};
	$try->();
	sql($change);
	my $start = time;
	poll_until($try, $change, 5);
	my $ms = 1000 * (time - $start);
	my $most = $slowest > 0.01 ? 10_000 * $slowest : 100;
	return ($text =~ $wanted && $ms < $most) || do { diag(sprintf '%s: "%s" after %.0f ms of %.0f', $change, $text, $ms, $most); 0 };
}
my @new = (user => 'app', database => 'nobodys', 'pgpool.tenant' => 'fresh');
ok(takes("SELECT pgpool.create_tenant('fresh', database => 'nobodys')", qr/^ok/, @new), 'create_tenant within 100 ms');
ok(takes("SELECT pgpool.alter_tenant('fresh', database => 'blog')", qr/^3D000 tenant "fresh" has no database "nobodys"/, @new), 'alter_tenant');
ok(takes("SELECT pgpool.alter_tenant('fresh', reset => '{database}')", qr/^ok/, @new), 'alter_tenant, reset');
ok(takes("SELECT pgpool.ban_tenant('fresh', 'unpaid')", qr/^28000 tenant "fresh" is banned/, @new), 'ban_tenant');
{
	my $c = PgPoolWire->open(port => $node->{pool_port});
	is($c->login(%secret, @new)->{error}{D}, 'Reason: unpaid. Until: it is unbanned.', '... with the reason');
}
ok(takes("SELECT pgpool.unban_tenant('fresh')", qr/^ok/, @new), 'unban_tenant');
ok(takes("SELECT pgpool.ban_tenant('fresh', duration => '1 hour')", qr/^28000/, @new), 'ban_tenant for a time');
ok(takes("SELECT pgpool.ban_tenant('fresh', duration => '300 milliseconds')", qr/^28000/, @new), 'a ban can be shortened');
ok(poll_until(sub { try_login(@new) eq 'ok' }, 'the ban ends', 5), '... and ends by itself');
ok(takes("SELECT pgpool.alter_tenant('fresh', only_listed_users => true)", qr/^28000 role "app" is not admitted to tenant "fresh"/, @new), 'only_listed_users');
ok(takes("SELECT pgpool.set_user('fresh', 'app')", qr/^ok/, @new), 'set_user lists a role');
ok(takes("SELECT pgpool.drop_user('fresh', 'app')", qr/^28000/, @new), 'drop_user takes it out again');
ok(takes("SELECT pgpool.alter_tenant('fresh', reset => '{only_listed_users}')", qr/^ok/, @new), 'the list can be lifted');
ok(takes("SELECT pgpool.alter_tenant('fresh', allow_list => '{10.0.0.0/8}')", qr/^28000 address 127.0.0.1 is not allowed for tenant "fresh"/, @new), 'allow_list');
ok(takes("SELECT pgpool.alter_tenant('fresh', allow_list => '{10.0.0.0/8,127.0.0.1/32}')", qr/^ok/, @new), '... of several networks');
ok(takes("SELECT pgpool.alter_tenant('fresh', allow_list => '{127.0.0.2/32}')", qr/^28000/, @new), '... is exact');
{
	my $c = PgPoolWire->open(port => $node->{pool_port}, source => '127.0.0.2');
	is(PgPoolWire::text($c->login(%secret, @new)), '28000 no pg_hba.conf entry for host "127.0.0.2", user "app", database "nobodys", no encryption',
		'an allow_list does not take the place of pg_hba.conf');
	my $u = PgPoolWire->open(path => $node->host . "/.s.PGSQL.$node->{pool_port}");
	is(PgPoolWire::text($u->login(%secret, @new)), 'ok', 'the Unix socket is not on a network');
}
ok(takes("SELECT pgpool.alter_tenant('fresh', reset => '{allow_list}')", qr/^ok/, @new), 'reset of allow_list');
ok(takes("SELECT pgpool.alter_tenant('fresh', require_tls => true)", qr/^28000 tenant "fresh" requires TLS/, @new), 'require_tls');
ok(takes("SELECT pgpool.alter_tenant('fresh', require_tls => false)", qr/^ok/, @new), '... and off again');

# the clients of a tenant that is dropped are told so; those of others are not disturbed
my $doomed = connect_as($node, %secret, @new);
$doomed->query('SELECT 1');
ok(takes("SELECT pgpool.drop_tenant('fresh')", qr/^28P01/, @new), 'drop_tenant');
my $r = $doomed->query('SELECT 2');
like(($r->{error}{C} // '') . ' ' . ($r->{error}{M} // ''), qr/^(57P01|3D000).*fresh/, 'a client of the dropped tenant is told');
ok($doomed->closes(5), '... and disconnected');
is($witness->value('SELECT current_database()'), 'blog', 'a client of another tenant goes on');
is($in_transaction->value('SELECT 5'), '5', '... also in a transaction');
ok(!$in_transaction->query('COMMIT')->{error}, '... which commits');
is($in_shop->value('SELECT 6'), '6', '... and another one');

# ---- rules are for those who come: who is in stays in
for my $rule ("allow_list => '{10.0.0.0/8}'", 'require_tls => true', 'only_listed_users => true')
{
	my ($name) = split / /, $rule;
	ok(takes("SELECT pgpool.alter_tenant('shop', $rule)", qr/^28000/, user => 'app.shop', database => 'shop'), "$name: who comes is refused");
	# a ban would have told it by now: both are read in the manager's look at the change
	is($in_shop->value('SELECT 8'), '8', '... who is in stays in');
	sql("SELECT pgpool.alter_tenant('shop', reset => '{$name}')");
}

# ---- a ban keeps new clients out, and sends away those who are in, each behind its transaction
my $busy = connect_as($node, user => 'other', %secret, database => 'shop', 'pgpool.tenant' => 'shop');
$busy->query('BEGIN');
ok(takes("SELECT pgpool.ban_tenant('shop')", qr/^28000 tenant "shop" is banned/, user => 'app.shop', database => 'shop'), 'a ban of a tenant in use');
my $inside = $in_shop->answer;
is(PgPoolWire::text($inside), '57P01 tenant "shop" is banned', 'its client is told why it must leave');
ok($in_shop->closes(5), '... and disconnected');
is($busy->value('SELECT 9'), '9', 'one in a transaction may end that');
is($busy->query('COMMIT')->{error}, undef, '... which commits');
is(PgPoolWire::text($busy->answer), '57P01 tenant "shop" is banned', '... and is told then');
sql("SELECT pgpool.unban_tenant('shop')");
$in_shop = connect_as($node, user => 'app', %secret, database => 'shop', 'pgpool.tenant' => 'shop');

# ---- ROLLBACK
$admin->query('BEGIN');
sql("SELECT pgpool.create_tenant('ghost', database => 'shop')");
sql("SELECT pgpool.alter_tenant('blog', database => 'shop')");
sql("SELECT pgpool.ban_tenant('free')");
is(try_login(user => 'app', database => 'shop', 'pgpool.tenant' => 'ghost'), '28P01 password authentication failed for user "app"',
	'before COMMIT a new tenant is unknown');
is(try_login(user => 'app', database => 'blog', 'pgpool.tenant' => 'blog'), 'ok', '... and an altered one is as it was');
is(try_login(user => 'app', database => 'nobodys', 'pgpool.tenant' => 'free'), 'ok', '... and a banned one is not');
$admin->query('ROLLBACK');
is(try_login(user => 'app', database => 'shop', 'pgpool.tenant' => 'ghost'), '28P01 password authentication failed for user "app"',
	'after ROLLBACK, too');
is(try_login(user => 'app', database => 'blog', 'pgpool.tenant' => 'blog'), 'ok', '... and what it altered is as it was');

# ---- two transactions alter one tenant: the second waits, and both changes hold
my $second = admin();
$admin->query('BEGIN');
sql("SELECT pgpool.alter_tenant('blog', max_clients => 17)");
$second->send(PgPoolWire::message('Q', "SELECT pgpool.alter_tenant('blog', pool_size => 3)\0"));
ok(poll_until(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 1 }), 'the second transaction waits');
$admin->query('COMMIT');
ok(!$second->answer->{error}, '... and goes on after the COMMIT of the first');
is(sql("SELECT max_clients || ' ' || pool_size FROM pgpool.tenant WHERE name = 'blog'"), '17 3', 'both changes hold');

# ---- settings reach pools that are open
ok(poll_until(sub { sql("SELECT pool_size FROM pgpool.pg_stat_pools WHERE tenant = 'blog' AND role = 'app'") == 3 }, 'pool_size', 5),
	'pool_size of the tenant reaches its open pool');
is(sql("SELECT cache_unnamed FROM pgpool.pg_stat_pools WHERE tenant = 'blog' AND role = 'app'"), 'custom', 'what nobody sets is the default');
sql("SELECT pgpool.alter_tenant('blog', cache_unnamed => 'off')");
sql("SELECT pgpool.set_user('blog', 'app', pool_size => 1, pool_mode => 'session', cache_unnamed => 'generic')");
ok(poll_until(sub { sql("SELECT pool_size || pool_mode || cache_unnamed FROM pgpool.pg_stat_pools WHERE tenant = 'blog' AND role = 'app'") eq '1sessiongeneric' }, 'set_user', 5),
	'the settings of a role come before those of its tenant');
is(sql("SELECT pool_size || pool_mode || cache_unnamed FROM pgpool.pg_stat_pools WHERE tenant = 'blog' AND role = 'other'"), '3transactionoff',
	'... and other roles have the tenant\'s');
sql("SELECT pgpool.drop_user('blog', 'app')");
ok(poll_until(sub { sql("SELECT pool_size || pool_mode || cache_unnamed FROM pgpool.pg_stat_pools WHERE tenant = 'blog' AND role = 'app'") eq '3transactionoff' }, 'drop_user', 5),
	'without them it has the tenant\'s, too');

# ---- max_clients of tenant and role
$_->send(PgPoolWire::message('X', '')), $_->closes(5) for $witness, $in_transaction, $in_shop;
sql("SELECT pgpool.alter_tenant('shop', max_clients => 2)");
sql("SELECT pgpool.set_user('blog', 'app', max_clients => 1)");
my @shop = (user => 'app', database => 'shop', 'pgpool.tenant' => 'shop');
poll_until(sub { sql("SELECT count(*) FROM pgpool.pg_stat_clients") == 0 }, 'all clients are gone');
my @in = map { connect_as($node, %secret, @shop) } 1 .. 2;
{
	my $c = PgPoolWire->open(port => $node->{pool_port});
	my $r = $c->login(%secret, @shop);
	is(PgPoolWire::text($r), '53300 too many clients in tenant "shop"', 'max_clients of a tenant');
	is($r->{error}{D}, 'max_clients of the tenant is 2.', '... names the value');
	like($r->{error}{H}, qr/alter_tenant/, '... and the remedy');
}
push @in, connect_as($node, %secret, user => 'app', database => 'blog', 'pgpool.tenant' => 'blog');
{
	my $c = PgPoolWire->open(port => $node->{pool_port});
	my $r = $c->login(%secret, user => 'app', database => 'blog', 'pgpool.tenant' => 'blog');
	is(PgPoolWire::text($r), '53300 too many clients of role "app" in tenant "blog"', 'max_clients of a role');
	like("$r->{error}{D} $r->{error}{H}", qr/is 1\. .*set_user/, '... names value and remedy');
	is(try_login(user => 'other', database => 'blog', 'pgpool.tenant' => 'blog'), 'ok', 'another role has its own count');
}
$in[0]->send(PgPoolWire::message('X', ''));
ok(poll_until(sub { try_login(@shop) eq 'ok' }, 'a place is free', 5), 'a client that leaves makes a place');
sql("SELECT pgpool.alter_tenant('shop', max_clients => 0)");
ok(poll_until(sub { try_login(@shop) eq 'ok' }, 'no limit', 5), '0 is no limit');
is(sql('SELECT count(*) FROM pgpool.pg_stat_workers WHERE problem IS NOT NULL OR starts > 1'), '0', 'no worker has a problem');
$node->stop;
done_testing();
