# Shows: backends that are ended, databases and roles that are dropped or renamed (the name given to another), settings
# that change, and the extension dropped under use: the right client hears of it, and nobody else; no client is ever
# served by a backend of another role or database.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('catalog', workers => 2, pool_size => 5);
my $started = $pool->started_at;

sub idle_servers { return $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'"); }
sub told { my $r = shift; return $r->{error} ? $r->{error}{C} : $r->{closed} ? 'closed' : $r->{rows}[0][0] // 'nothing' }

# ---- backends are terminated; the first are waited for: one that is on its way out may still be asked, and says 57P01
my @clients = map { $pool->raw } 1 .. 6;
$_->value('SELECT 1') for @clients;
cmp_ok(idle_servers(), '>', 0, 'there are idle servers');
$pool->sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'");
is(join(' ', map { told($_->ask('SELECT 2')) } @clients), '2 2 2 2 2 2', 'idle servers terminated: no client notices');
my @misses;
for (1 .. 30)
{
	# at the same moment: the client may write to a backend that is just going
	$_->query('SELECT 3') for @clients[ 0, 1 ];
	$pool->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'");
	for my $n (0, 1)
	{
		my $r = $clients[$n]->result;
		next if !$r->{error} && !$r->{closed} && $r->{rows}[0][0] eq '3';
		push @misses, told($r) if told($r) ne '57P01';
		$clients[$n] = $pool->raw;
	}
}
is("@misses", '', '... in a race: the answer, or 57P01, and nothing else');

my $busy = $pool->raw;
$busy->query('SELECT pg_sleep(3600)');
my $pid;
ok(defined wait_until(5, sub { $pid = $pool->sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'") }), 'a query runs');
my $in_tx = $pool->raw;
$in_tx->ask('BEGIN');
$pool->sql("SELECT pg_terminate_backend($pid)");
my $r = $busy->ended(5);
is($r && $r->{error} && $r->{error}{C}, '57P01', 'a busy one terminated: its client is told 57P01 and disconnected');
is($in_tx->ask('SELECT 4')->{rows}[0][0], '4', '... others are not');
$pid = $in_tx->value('SELECT pg_backend_pid()');
$pool->sql("SELECT pg_terminate_backend($pid)");
$r = $in_tx->ended(5);
is($r && $r->{error} && $r->{error}{C}, '57P01', 'in an open transaction: the same');
$busy = $pool->raw;
$busy->query('SELECT pg_sleep(3600)');
wait_until(5, sub { $pid = $pool->sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'") });
$pool->sql("SELECT pg_cancel_backend($pid)");
is($busy->result(5)->{error}{C}, '57014', 'pg_cancel_backend: the client is told 57014');
is($busy->value('SELECT 5'), 5, '... and goes on');

# ---- settings of roles and databases
for my $case ([ 'ALTER ROLE app SET work_mem = \'5MB\'', 'work_mem', '5MB' ],
	[ 'ALTER DATABASE app SET statement_timeout = \'77s\'', 'statement_timeout', '77s' ],
	[ 'ALTER ROLE app IN DATABASE app SET lock_timeout = \'66s\'', 'lock_timeout', '66s' ])
{
	my ($sql, $name, $value) = @$case;
	$pool->sql($sql);
	my $took = wait_until(2, sub { my $c = $pool->raw; my $v = $c->value("SHOW $name"); $c->close; $v eq $value });
	ok(defined $took, "$sql reaches fresh clients" . (defined $took ? sprintf(' (%.2f s of 2)', $took) : ''));
	my @old = grep { my $c = $pool->raw; my $v = $c->value("SHOW $name"); $c->close; $v ne $value } 1 .. 20;
	is(scalar @old, 0, '... and then no backend has the old value');
}
$pool->sql($_) for 'ALTER ROLE app RESET ALL', 'ALTER DATABASE app RESET ALL', 'ALTER ROLE app IN DATABASE app RESET ALL';

# ---- DROP DATABASE
sub with_database
{
	my ($name, $count) = @_;
	$pool->sql("CREATE DATABASE $name OWNER app");
	my @c = map { $pool->raw(database => $name) } 1 .. $count;
	$_->ask('BEGIN') for @c;
	$_->ask('COMMIT') for @c;
	return @c;
}
my @there = with_database('gone', 4);
is($pool->backends('gone'), 4, 'DROP DATABASE: four idle servers are in it');
my $start = time;
my $done = eval { $pool->sql('DROP DATABASE gone'); 1 };
ok($done, sprintf('... it is dropped all the same (%.2f s)', time - $start)) or diag $@;
cmp_ok(time - $start, '<', 5, '... within 5 s');
$r = $there[0]->ask('SELECT 1');
is($r->{error}{C}, '3D000', '... its clients are told 3D000');
my $refused = eval { $pool->raw(database => 'gone'); 'let in' } // $@;
like($refused, qr/^3D000 database "gone" does not exist/, '... and new ones, too');

@there = with_database('gone', 3);
$there[0]->ask('BEGIN');
$done = eval { $pool->sql('DROP DATABASE gone'); 'dropped' } // $@;
like($done, qr/55006.*is being accessed by other users/, 'DROP DATABASE with an open transaction fails, as it does without a pooler');
is($there[0]->ask('SELECT 1')->{rows}[0][0], 1, '... and the transaction goes on');
$there[0]->ask('COMMIT');
is($there[1]->value('SELECT 1'), 1, '... and so do the others');
$there[0]->ask('BEGIN');
$start = time;
$done = eval { $pool->sql('DROP DATABASE gone WITH (FORCE)'); 'dropped' } // $@;
is($done, 'dropped', '... WITH (FORCE) succeeds') or diag $done;
cmp_ok(time - $start, '<', 5, sprintf('... within 5 s (%.2f s)', time - $start));
$r = $there[0]->ended(5) // {};
is($r->{error}{C}, '57P01', '... the open transaction is told 57P01');
$done = 0;
my @reconnecting = map { $pool->start([ 'sh', '-c', "while :; do psql -Xqh 127.0.0.1 -p " . $pool->port . " -U app -c 'SELECT 1' forced >/dev/null 2>&1; done" ], PGPASSWORD => 'app-secret') } 1 .. 2;
for my $round (1 .. 5)
{
	$pool->sql('CREATE DATABASE forced OWNER app');
	wait_until(5, sub { $pool->backends('forced') > 0 });
	$start = time;
	$done++ if eval { $pool->sql($round % 2 ? 'DROP DATABASE forced WITH (FORCE)' : 'DROP DATABASE forced'); 1 } && time - $start < 5;
	eval { $pool->sql('DROP DATABASE IF EXISTS forced WITH (FORCE)') };
}
$_->stop for @reconnecting;
is($done, 5, 'DROP DATABASE against clients that reconnect: 5 of 5 within 5 s');
is($pool->sql('SELECT count(*) FROM pg_database WHERE NOT datallowconn AND datname <> \'template0\' OR datconnlimit = -2'), 0, 'no half-dropped database');

# ---- a database renamed, and its name given to another
$pool->sql("CREATE DATABASE shop OWNER app");
my $old = $pool->raw(database => 'shop');
$old->ask('CREATE TABLE which AS SELECT \'old\' AS name');
wait_until(5, sub { eval { $pool->sql('ALTER DATABASE shop RENAME TO shop_old'); 1 } });
is($pool->sql("SELECT count(*) FROM pg_database WHERE datname = 'shop_old'"), 1, 'a database with idle servers is renamed');
$pool->sql('CREATE DATABASE shop OWNER app');
my $direct = $pool->direct(database => 'shop');
$direct->ask('CREATE TABLE which AS SELECT \'new\' AS name');
$direct->close;
my @wrong = grep { my $c = $pool->raw(database => 'shop'); my $v = $c->value('SELECT current_database() || (SELECT name FROM which)'); $c->close; $v ne 'shopnew' } 1 .. 10;
is(scalar @wrong, 0, 'who asks for the name is served by the database that has it now');
$r = $old->ask('SELECT current_database() || name FROM which');
my $told = $r->{error} ? $r->{error}{C} : $r->{rows}[0][0];
like($told, qr/^(shop_oldold|3D000|57P0\d)$/, "a client from before stays with its database, or is told ($told)");

# ---- roles
$pool->sql("CREATE ROLE alice LOGIN PASSWORD 'alice-secret'");
$pool->sql("CREATE ROLE bob LOGIN PASSWORD 'bob-secret'");
my ($alice, $bob) = map { $pool->raw(user => $_) } qw(alice bob);
my %oid = map { $_ => $pool->sql("SELECT '$_'::regrole::oid") } qw(alice bob);
is($_->value('SELECT session_user::regrole::oid'), $oid{ $_ == $alice ? 'alice' : 'bob' }, 'each is who it is') for $alice, $bob;
$pool->sql('BEGIN; ALTER ROLE alice RENAME TO former; ALTER ROLE bob RENAME TO alice; COMMIT');
$pool->sql("ALTER ROLE alice PASSWORD 'alice-new'");
@wrong = ();
for (1 .. 10)
{
	my $c = eval { $pool->raw(user => 'alice', password => 'alice-new') };
	push @wrong, $@ and next unless $c;
	my $v = $c->value('SELECT session_user::regrole::oid');
	push @wrong, $v if $v ne $oid{bob};
	$c->close;
}
is("@wrong", '', 'role renamed, name given to another: who logs in by the name is the role that has it now');
$r = $alice->ask('SELECT session_user::regrole::oid');
is($r->{error} ? $oid{alice} : $r->{rows}[0][0], $oid{alice}, '... the client from before is the role that it was');
$pool->sql('DROP ROLE former');
$refused = eval { $pool->raw(user => 'former', password => 'alice-secret'); 'let in' } // $@;
like($refused, qr/^28P01/, 'role dropped: no login');
within(3, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE usesysid = $oid{alice}") == 0 }, '... and no backend of it is kept idle');
$r = $alice->ask('SELECT 1');
ok($r->{error} || $r->{closed}, '... its client is told at its next query (' . ($r->{error}{C} // 'closed') . ')');
$pool->sql("CREATE ROLE former LOGIN PASSWORD 'former-secret'");
my $new = $pool->raw(user => 'former');
is($new->value('SELECT session_user::regrole::oid'), $pool->sql("SELECT 'former'::regrole::oid"), 'role made again: its servers are its own');
$pool->sql('ALTER ROLE former NOLOGIN');
$refused = eval { $pool->raw(user => 'former'); 'let in' } // $@;
like($refused, qr/^28000 role "former" is not permitted to log in/, 'NOLOGIN acts at once');
is($new->value('SELECT 6'), 6, '... on logins only, as in PostgreSQL');

# ---- CONNECT
$pool->sql("CREATE DATABASE closed");
$pool->sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC");
$refused = eval { $pool->raw(database => 'closed'); 'let in' } // $@;
like($refused, qr/^42501 permission denied for database "closed"/, 'no CONNECT, no login');
$pool->sql("GRANT CONNECT ON DATABASE closed TO app");
is($pool->raw(database => 'closed')->value('SELECT 7'), 7, 'GRANT acts at once');

# ---- the extension
my $kept = $pool->raw;
$pool->sql("SELECT pgpool.create_tenant('north')");
ok(defined wait_until(3, sub { eval { $pool->raw(user => 'app.north')->close; 1 } }), 'a tenant');
$pool->sql('DROP EXTENSION pgpool');
ok(defined wait_until(5, sub { !eval { $pool->raw(user => 'app.north')->close; 1 } }), 'DROP EXTENSION: tenants are gone');
$refused = eval { $pool->raw(timeout => 5)->close; 'let in' } // $@;
like($refused, qr/^let in|^57P03|^3D000/, "... a client of the default tenant: $refused");
$pool->sql('CREATE EXTENSION pgpool');
ok($pool->ready(10), 'CREATE EXTENSION again: the port serves');
is($pool->run_psql('SELECT 8'), 8, '... psql');
is($pool->started_at, $started, 'all that without a restart');
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, '... of a worker, either');

# ---- a backend dies
@clients = map { $pool->raw } 1 .. 5;
$_->ask('BEGIN') for @clients;
$pid = $clients[0]->value('SELECT pg_backend_pid()');
my $log = $pool->log_offset;
$start = time;
kill 'KILL', $pid;
is(scalar(grep { $_->ended(5) } @clients), 5, 'a backend killed: PostgreSQL ends all sessions, all clients are disconnected');
my $up = wait_until(15, sub { eval { $pool->raw(timeout => 2)->close; 1 } });
ok(defined $up, 'the port serves again');
ok($pool->ready(10), sprintf('... all workers, %.2f s after the kill', time - $start));
like($pool->log_text($log), qr/reinitializing/, 'it was a crash-restart');

$pool->node->stop('fast');
done_testing();
