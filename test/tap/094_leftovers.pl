# What a session leaves behind that neither RESET nor DISCARD ALL takes away is seen by nobody else: who has made it keeps
# the server until it is gone, and after that the next client has what a fresh session of PostgreSQL has. Asked of
# PostgreSQL itself, for the user by an extension, a backup, replication slots and origins, connections of dblink.
use strict;
use warnings FATAL => 'all';

use File::Temp qw(tempdir);
use PgPoolCase;
use PgPoolWire;
use Test::More;

my $node = pool_node('leftovers', conf => <<'CONF');
pgpool.default_pool_size = 2
pgpool.workers = 1
wal_level = logical
CONF
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { for (@_) { my $r = $admin->query($_); die "$_: $r->{error}{M}" if $r->{error} } }
sql("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'secret'", 'CREATE ROLE other', "SELECT pg_replication_origin_create('o')",
	"SELECT pg_create_physical_replication_slot('p', true)");
my %app = (user => 'app', password => 'secret');

# An extension that changes the user as set_user does: by SetCurrentRoleId(), of which `role` knows nothing.
my $dir = tempdir(CLEANUP => 1);
my $includes = `pg_config --includedir-server 2>/dev/null` || `pg_config --includedir-server`;
chomp $includes;
chmod 0755, $dir;
open my $source, '>', "$dir/change_user.c" or die $!;
print $source <<'C';
#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(change_user);
Datum change_user(PG_FUNCTION_ARGS)
{
	SetCurrentRoleId(PG_GETARG_OID(0), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}
PG_FUNCTION_INFO_V1(change_session_user);
Datum change_session_user(PG_FUNCTION_ARGS)
{
	SetSessionAuthorization(PG_GETARG_OID(0), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}
C
close $source;
my $can_compile = system("cc -shared -fPIC -I$includes -o $dir/change_user.so $dir/change_user.c >$dir/out 2>&1") == 0;
if ($can_compile)
{
	sql("CREATE FUNCTION public.change_user(oid, bool) RETURNS void LANGUAGE c AS '$dir/change_user'",
		"CREATE FUNCTION public.change_session_user(oid, bool) RETURNS void LANGUAGE c AS '$dir/change_user'");
}
my $has_dblink = $admin->value("SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'");
sql('CREATE EXTENSION dblink') if $has_dblink;
my $local = "host=" . $node->host . " port=" . $node->port . " user=app password=secret dbname=postgres";

my $who = 'SELECT current_user || session_user || current_setting($$is_superuser$$) || current_setting($$role$$)';
# name, what makes it, what a session sees of it, the pin, what ends it (undef: nothing)
my @cases = (
	[ 'a backup', "SELECT pg_backup_start('b', true)", 'SELECT count(*) FROM pg_backup_stop(false)', 'backup', 'SELECT 1 FROM pg_backup_stop(false)' ],
	[ 'a physical slot', "SELECT pg_create_physical_replication_slot('s', true, true)",
		'SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()', 'replication slot', "SELECT pg_drop_replication_slot('s')" ],
	[ 'a logical slot', "SELECT pg_create_logical_replication_slot('s', 'pgoutput', true)",
		'SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()', 'replication slot', "SELECT pg_drop_replication_slot('s')" ],
	[ 'a copied slot', "SELECT pg_copy_physical_replication_slot('p', 's', true)",
		'SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()', 'replication slot', "SELECT pg_drop_replication_slot('s')" ],
	[ 'a slot by DO', "DO 'BEGIN PERFORM pg_create_physical_replication_slot(''s'', false, true); END'",
		'SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()', 'replication slot', undef ],
	[ 'a replication origin', "SELECT pg_replication_origin_session_setup('o')", 'SELECT pg_replication_origin_session_is_setup()',
		'replication origin', 'SELECT pg_replication_origin_session_reset()' ],
	[ 'an origin that was rolled back', "BEGIN; SELECT pg_replication_origin_session_setup('o'); ROLLBACK", 'SELECT pg_replication_origin_session_is_setup()',
		'replication origin', 'SELECT pg_replication_origin_session_reset()' ]);
if ($has_dblink)
{
	push @cases, [ 'a connection of dblink', "SELECT dblink_connect('c', '$local')", 'SELECT dblink_get_connections()', 'dblink', undef ],
	  [ 'an unnamed one, by DO', "DO \$x\$ BEGIN PERFORM dblink_connect('$local'); END \$x\$", "SELECT * FROM dblink('SELECT 1') AS t (a int)", 'dblink', undef ];
}
else { note('not tested: dblink is not installed') }
if ($can_compile)
{
	my $oid = "(SELECT oid FROM pg_roles WHERE rolname = 'other')";
	my $own = "(SELECT oid FROM pg_roles WHERE rolname = 'app')";
	push @cases, [ 'another user', "SELECT change_user($oid, true)", $who, 'other user', 'SELECT change_user(0, true)' ],
	  [ 'another user, rolled back', "BEGIN; SELECT change_user($oid, false); ROLLBACK", $who, 'other user', 'SELECT change_user(0, true)' ],
	  [ 'another session user', "SELECT change_session_user($oid, true)", $who, 'other user', undef ],
	  [ 'another user than that of SET ROLE', "SET ROLE other; SELECT change_user($own, true)", $who, 'other user', undef ],
	  [ 'none instead of that of SET ROLE', "SET ROLE other; SELECT change_user(0, true)", $who, 'other user', undef ];
}
else { note('not tested, for want of a compiler: another user by an extension'); }

sub reasons { return $admin->value("SELECT coalesce(string_agg(pinned, ' & '), '') FROM pgpool.stat_clients() WHERE role = 'app' AND pinned IS NOT NULL") }
sub seen { my ($client, $sql) = @_; my $r = $client->query($sql); return $r->{error} ? $r->{error}{C} : $r->{rows}[0][0] // 'null' }
sub fresh
{
	my $sql = shift;
	my $direct = PgPoolWire->open(port => $node->port);
	$direct->login(%app, database => 'postgres');
	my $seen = seen($direct, $sql);
	$direct->close;
	return $seen;
}

for my $case (@cases)
{
	my ($name, $makes, $look, $pin, $ends) = @$case;
	for my $way ($ends ? ('ends it', 'leaves') : 'leaves')
	{
		my $expected = fresh($look);
		my $maker = connect_as($node, %app);
		my $r = $maker->query($makes);
		diag "$makes: $r->{error}{M}" if $r->{error};
		like(reasons(), qr/\Q$pin\E/, "$name: its client keeps the server");
		my $next = connect_as($node, %app);
		is(seen($next, $look), $expected, '... others see what a fresh session sees') for 1 .. 2;
		if ($way eq 'ends it')
		{
			$r = $maker->query($ends);
			diag "$ends: $r->{error}{M}" if $r->{error};
			is(reasons(), '', "... until it is gone: $ends");
		}
		$maker->send(PgPoolWire::message('X', ''));
		poll_until(sub { $admin->value("SELECT count(*) FROM pgpool.stat_clients() WHERE role = 'app'") eq '1' }, "$name: its client left");
		# two at a time: both servers of the pool
		my $second = connect_as($node, %app);
		$_->query('BEGIN') for $next, $second;
		is(seen($_, $look), $expected, "... after it $way, too") for $next, $second;
		$_->query('ROLLBACK') for $next, $second;
		$_->send(PgPoolWire::message('X', '')) for $next, $second;
		poll_until(sub { $admin->value("SELECT count(*) FROM pgpool.stat_clients() WHERE role = 'app'") eq '0' }, 'all left');
	}
}

# ---- what is harmless keeps nothing
{
	my $client = connect_as($node, %app);
	for my $sql ('SET ROLE other', 'RESET ROLE', "BEGIN; SET LOCAL ROLE other; COMMIT", "BEGIN; SET ROLE other; ROLLBACK", 'SET ROLE other', 'DISCARD ALL',
		"DO 'BEGIN END'", "SELECT pg_create_physical_replication_slot('kept'); SELECT pg_drop_replication_slot('kept')",
		"SELECT setting FROM pg_settings WHERE name = 'role'", "SELECT pg_backup_start('b', true); SELECT 1 FROM pg_backup_stop(false)")
	{
		my $r = $client->query($sql);
		diag "$sql: $r->{error}{M}" if $r->{error};
		is(reasons(), '', "no pin: $sql");
	}
	my $direct = PgPoolWire->open(port => $node->port);
	$direct->login(%app, database => 'postgres');
	for my $c ($client, $direct) { $c->query($_) for 'SET ROLE other', 'DISCARD ALL' }
	is(seen($client, $who), seen($direct, $who), 'the user after SET ROLE and DISCARD ALL is that of PostgreSQL');
}

done_testing();
