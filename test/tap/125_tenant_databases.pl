# Shows: a database that belongs to a tenant is reached by that tenant's rules alone. Who names no tenant gets the owner of
# the database; the tenant default, and any other without a database of its own, serve those that nobody owns. Where
# several own one, the client must name it. Whatever of this is refused, one without the password learns nothing: neither
# that there is such a tenant nor what its rules are, from no message, length or order.
use strict;
use warnings;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('owned', workers => 2, tls => 1, session => 1);
$pool->sql("CREATE DATABASE $_ OWNER app") for qw(blogs shops twins wikis);
$pool->sql("CREATE ROLE guest LOGIN PASSWORD 'guest-secret'");
$pool->sql("SELECT pgpool.create_tenant($_)") for (
	"'blog', database => 'blogs'", "'shop', database => 'shops', only_listed_users => true",
	"'twin1', database => 'twins'", "'twin2', database => 'twins'", "'free'",
	"'far', database => 'wikis', allow_list => '{10.0.0.0/8}'", "'safe', require_tls => true");
$pool->sql("SELECT pgpool.set_user('shop', 'app')");

my $port;
# The tenant and the database in which a client is, or why it is not.
sub where_is
{
	my (%as) = @_;
	my $c = PgPoolWire->open(port => $port // $pool->port) or return 'no connection';
	my $r = $c->login(user => 'app', password => 'app-secret', %as);
	return PgPoolWire::text($r) unless $r->{ok};
	my $seen = $c->value('SELECT current_database()');
	my $at = $c->{socket}->sockport;
	my $tenant = $pool->sql("SELECT tenant FROM pgpool.pg_stat_clients WHERE client_port = $at");
	$c->send(PgPoolWire::message('X', ''));
	$c->close;
	return "$tenant/$seen";
}

for my $p ($pool->port, $pool->session_port)
{
	$port = $p;
	my $on = $p == $pool->port ? '' : ' (session port)';
	is(where_is(database => 'blogs'), 'blog/blogs', "who names no tenant gets the owner$on");
	is(where_is(database => 'app'), 'default/app', "... and default, where nobody owns the database$on");
	is(where_is(user => 'app.blog', database => 'blogs'), 'blog/blogs', "who names the owner gets it, too$on");
	is(where_is(user => 'guest', password => 'guest-secret', database => 'shops'), '28000 role "guest" is not admitted to tenant "shop"',
		"the owner's list of users holds$on");
	is(where_is(database => 'shops'), 'shop/shops', "... and admits$on");
	for my $around ({ user => 'app.free' }, { user => 'app.default' }, { 'pgpool.tenant' => 'free' }, { options => '-c pgpool.tenant=default' }, { reference => 'free' })
	{
		my ($how) = map { "$_ $around->{$_}" } keys %$around;
		my $name = $how =~ /free/ ? 'free' : 'default';
		is(where_is(%$around, database => 'blogs'), qq{3D000 tenant "$name" has no database "blogs"}, "no way around by $how$on");
		is(where_is(%$around, database => 'app'), "$name/app", "... which serves what nobody owns$on");
	}
	is(where_is(database => 'twins'), '28000 database "twins" belongs to several tenants', "two owners: which one, the client must say$on");
	is(where_is(user => 'app.twin2', database => 'twins'), 'twin2/twins', "... and gets that$on");
	is(where_is(database => 'wikis'), '28000 address 127.0.0.1 is not allowed for tenant "far"', "the owner's networks hold$on");
}
undef $port;

# ---- a ban, and what was changed
$pool->sql("SELECT pgpool.ban_tenant('blog', 'unpaid')");
for my $as ({}, { user => 'app.blog' }, { 'pgpool.tenant' => 'blog' })
{
	is(where_is(%$as, database => 'blogs'), '28000 tenant "blog" is banned', 'a ban is a ban of the database');
}
like(where_is(user => 'app.default', database => 'blogs'), qr/^3D000/, '... also by default');
$pool->sql("SELECT pgpool.unban_tenant('blog')");
$pool->sql("SELECT pgpool.alter_tenant('blog', reset => '{database}')");
is(where_is(database => 'blogs'), 'default/blogs', 'a database that is given up is everybody\'s');
$pool->sql("SELECT pgpool.alter_tenant('blog', database => 'blogs')");
$pool->sql("SELECT pgpool.drop_tenant('twin1')");
is(where_is(database => 'twins'), 'twin2/twins', 'one of two owners is gone: the other one');
$pool->sql("SELECT pgpool.create_tenant('twin1', database => 'twins')");

# ---- PostgreSQL takes a name that is too long for its first 63 bytes
{
	my $long = 'd' x 63;
	$pool->sql("CREATE DATABASE $long OWNER app");
	$pool->sql("SELECT pgpool.create_tenant('long', database => '$long')");
	for my $p ($pool->port, $pool->session_port)
	{
		$port = $p;
		for my $name ($long, "${long}x", $long . 'x' x 100)
		{
			is(where_is(database => $name), "long/$long", length($name) . ' bytes: the owner, on ' . ($p == $pool->port ? 'port' : 'session port'));
			is(where_is(database => $name, user => 'app.free'), qq{3D000 tenant "free" has no database "$long"}, '... and nobody else');
		}
	}
	undef $port;
	$pool->sql("SELECT pgpool.ban_tenant('long', 'unpaid')");
	is(where_is(database => "${long}x"), '28000 tenant "long" is banned', 'a ban holds for it');
	$pool->sql("SELECT pgpool.drop_tenant('long')");
}

# ---- what a stranger sees
sub seen
{
	my (%as) = @_;
	my $c = PgPoolWire->open(port => $pool->port) or return 'no connection';
	my $r = $c->login(user => 'guest', database => 'app', password => 'wrong', %as);
	my $text = join '|', map { "$_=" . ($r->{error}{$_} // '') } qw(S C M D H);
	$c->close;
	return $c->shape . " $text" =~ s/"[a-z.]+"/NAME/gr;
}
my $plain = seen();
like($plain, qr/C=28P01/, 'a wrong password is a wrong password');
my @wrong;
for my $as (
	{ 'pgpool.tenant' => 'none' }, { 'pgpool.tenant' => 'safe' }, { 'pgpool.tenant' => 'far' }, { 'pgpool.tenant' => 'twin1' },
	{ database => 'wikis' }, { database => 'twins' }, { database => 'blogs', 'pgpool.tenant' => 'free' },
	{ database => 'none' }, { database => 'blogs' }, { user => 'nobod' , 'pgpool.tenant' => 'safe' }, { user => 'nobod', database => 'wikis' },
	{ user => 'guest', options => '-c search_path=x -Q' }, { user => 'guest', replication => 'database' })
{
	my $got = seen(%$as);
	push @wrong, join(' ', %$as) . ": $got" if $got ne $plain;
}
is("@wrong", '', 'without the password nothing tells one rule from the other');
# the proof tells
is(where_is(user => 'app.safe', database => 'app'), '28000 tenant "safe" requires TLS', 'require_tls is told after the proof');
is(where_is(user => 'app.far', database => 'wikis'), '28000 address 127.0.0.1 is not allowed for tenant "far"', '... and allow_list');
is(where_is(user => 'app.far', database => 'wikis', password => 'x'), '28P01 password authentication failed for user "app"', '... and nothing before');
# by TLS
is(join('|', $pool->psql('SELECT current_database()', user => 'app.safe', env => { PGSSLMODE => 'require' })), '0|app|', 'by TLS it is let in');

# pg_hba.conf: which database a tenant has is not told to one who is refused by it
$pool->write_hba("host shops all 127.0.0.1/32 reject\nhostssl shops all 127.0.0.1/32 reject\n");
$pool->sql('SELECT pg_reload_conf()');
my $text;
within(10, sub { $text = where_is(user => 'app.shop', database => 'app.shop'); $text =~ /^28000 pg_hba/ }, 'a line of pg_hba.conf rejects the tenant\'s database');
unlike($text, qr/shops/, '... and its name is not told');
done_testing();
