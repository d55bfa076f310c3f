# Shows: idle_session_timeout ends an idle client wherever it was set (server, role, startup, SET), with a server of its own,
# pinned, or without one, and no server of the pool; and what the server warns of at a login reaches every client that logs
# in, as long as a login at the server's own port would warn.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use PgPool;

my $pool = PgPool->new('main', workers => 2, pool_size => 4, session => 1);
my %ports = ('transaction mode' => $pool->port, 'session port' => $pool->session_port);

sub ends
{
	my ($client, $what) = @_;
	my $start = time;
	my $end = $client->ended(20);
	is($end ? join(' ', map { $_ // '' } @{ $end->{error} }{qw(S C M)}) : 'still there', 'FATAL 57P05 terminating connection due to idle-session timeout',
		sprintf('%s (%.2f s)', $what, time - $start));
	return time - $start;
}

# ---- by whom it is set
my $servers = sub { $pool->sql("SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pgpool.pg_stat_servers WHERE client_id IS NULL AND state = 'idle'") };
for my $where (sort keys %ports)
{
	my @at = (port => $ports{$where});
	my $never = $pool->raw(@at, startup => { idle_session_timeout => '0' });
	my $c = $pool->raw(@at, startup => { options => '-c idle_session_timeout=700ms' });
	is($c->value('SHOW idle_session_timeout'), '700ms', "$where: what is set at startup is shown");
	cmp_ok(ends($c, '... and acts'), '>', 0.5, '... not at once');
	$c = $pool->raw(@at, startup => { idle_session_timeout => '300' });
	ends($c, '... without a statement, too');
	$c = $pool->raw(@at);
	$c->ask("SET idle_session_timeout = '500ms'");
	ends($c, 'SET');
	$c = $pool->raw(@at);
	$c->ask($_) for 'BEGIN', "SET idle_session_timeout = '300ms'", 'ROLLBACK', 'SELECT pg_advisory_lock(1)', "SET idle_session_timeout = '400ms'";
	ends($c, 'a client that keeps its server');
	$pool->sql("ALTER ROLE app SET idle_session_timeout = '600ms'");
	$c = $pool->raw(@at);
	is($c->value('SHOW idle_session_timeout'), '600ms', 'ALTER ROLE');
	ends($c, '... acts');
	$c = $pool->raw(@at);
	$c->ask('SELECT pg_sleep(1.2)');
	$c->ask('BEGIN');
	$c->ask('SELECT pg_sleep(0.1)');
	ok(!defined $c->ended(1.2), 'neither a statement that lasts nor an idle transaction is an idle session');
	is($c->ask('COMMIT')->{tags}[0], 'COMMIT', '... and the client goes on');
	$c->close;
	$pool->sql('ALTER ROLE app RESET idle_session_timeout');
	is($never->value('SELECT 42'), 42, 'who set 0 is still there');
	$never->close;
}
my $set = $pool->raw;
$set->ask("SET idle_session_timeout = '300ms'");
my $other = $pool->raw;
is($other->value('SHOW idle_session_timeout'), '0', 'another client on that server has none');
my $before = $servers->();
ends($set, 'a client without a server');
is($servers->(), $before, '... which ends no server');
is($other->value('SELECT 42'), 42, '... nor the other client');

$pool->sql("ALTER SYSTEM SET idle_session_timeout = '500ms'");
$pool->sql("ALTER ROLE postgres SET idle_session_timeout = 0") if $pool->sql("SELECT count(*) FROM pg_roles WHERE rolname = 'postgres'");
$pool->sql('SELECT pg_reload_conf()');
ok(defined wait_until(10, sub { $other->value('SHOW idle_session_timeout') eq '500ms' }), 'a reload reaches who is there');
ends($other, '... and acts');
ends($pool->raw(port => $_), '... for new ones') for values %ports;
$pool->forget_sql;
$pool->sql('ALTER SYSTEM RESET idle_session_timeout');
$pool->sql('SELECT pg_reload_conf()');
ok(defined wait_until(10, sub { my $c = $pool->direct; my $v = $c->value('SHOW idle_session_timeout'); $c->close; $v eq '0' }), 'it is taken back');

# ---- what a login warns of
my $warned = sub { my ($c) = @_; my $n = join ' / ', map { "$_->{S} $_->{C} $_->{M} $_->{D}" } @{ $c->{notices} // [] }; $c->close; return $n };
my @all = map { my $p = $_; sub { $warned->($pool->raw(port => $p)) } } values %ports;
my $direct = sub { $warned->($pool->direct) };
is(join('|', map { $_->() } (@all) x 3), '|' x 5, 'no warning of a login');
my $versioned = $pool->sql("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'");
SKIP:
{
	skip 'this PostgreSQL has no ICU', 6 unless $versioned;
	$pool->sql("CREATE DATABASE coll TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'");
	my $in = sub { my ($way, %o) = @_; return $warned->($pool->$way(database => 'coll', user => 'app', %o)) };
	is($in->('direct'), '', 'a database of ICU');
	is($in->('raw', port => $_), '', '... through the pool') for values %ports;
	$pool->sql("UPDATE pg_database SET datcollversion = 'bogus' WHERE datname = 'coll'");
	my $warning = $in->('direct');
	like($warning, qr/WARNING 01000 database "coll" has a collation version mismatch/, 'its version changed: a login is warned');
	my @through = map { my $p = $_; map { $in->('raw', port => $p) } 1 .. 6 } values %ports;
	is(scalar(grep { $_ eq $warning } @through), 12, '... and so is each through the pool') or diag(join "\n", @through);
	$pool->sql('ALTER DATABASE coll REFRESH COLLATION VERSION');
	@through = map { my $p = $_; map { $in->('raw', port => $p) } 1 .. 6 } values %ports;
	is(join('', $in->('direct'), @through), '', '... until it was refreshed');
}
$pool->forget_sql;
$pool->node->stop;
done_testing();
