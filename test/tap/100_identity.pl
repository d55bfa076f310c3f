# Shows: whatever changes what a fresh login would be, in whichever way it is changed, is there for the first transaction
# of who logs in after its COMMIT, through the pool as on the server's own port; who is connected already loses what the
# role lost at the next transaction, and keeps it in one that runs; nobody else's servers are closed.
use strict;
use warnings;
use Test::More;
use PgPool;

my $pool = PgPool->new('identity', workers => 2, pool_size => 6, conf => 'max_prepared_transactions = 2');
my $su = $pool->sql('SELECT current_user');
$pool->sql("CREATE TABLE secret AS SELECT 1 AS a", 'app');
$pool->sql($_) for "CREATE ROLE boss SUPERUSER", 'CREATE DATABASE owned';

# what a session is, as its greeting and the server say, and what it can become
sub seen
{
	my ($how, %as) = @_;
	my $c = eval { $pool->$how(%as) };
	return "no login: $@" if !$c;
	my @seen = map { "$_=" . ($c->{parameters}{$_} // '') } qw(is_superuser session_authorization);
	for my $sql ('SHOW is_superuser', 'SHOW session_authorization', 'SELECT session_user', 'SELECT current_user', 'SHOW role', 'SHOW work_mem',
		"SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = session_user", 'SELECT sum(a) FROM secret', "SET SESSION AUTHORIZATION $su",
		'SELECT current_user', 'SELECT count(*) > 0 FROM pg_authid', 'RESET SESSION AUTHORIZATION', 'SHOW is_superuser')
	{
		my $r = $c->ask($sql);
		my $was = $r->{error} ? $r->{error}{C} : $r->{rows} && $r->{rows}[0] ? $r->{rows}[0][0] : 'done';
		push @seen, "$sql: $was";
	}
	$c->close;
	return join "\n", @seen;
}

# servers in both workers that were opened before, and what the workers remember of such logins
sub warm
{
	my (%as) = @_;
	my @c = map { eval { $pool->raw(%as) } || die "warm: $@" } 1 .. 4;
	$_->ask('BEGIN') for @c;
	$_->ask('COMMIT') for @c;
	$_->close for @c;
}

sub case
{
	my ($name, @rest) = @_;
	eval { try_case($name, @rest); 1 } or fail("$name: $@");
}
sub try_case
{
	my ($name, $before, $change, %o) = @_;
	my %as = (user => 'x', database => $o{database} // 'app');
	$pool->sql($_) for "CREATE ROLE x LOGIN PASSWORD 'x-secret'", 'CREATE ROLE own', 'CREATE ROLE mid';
	$pool->sql('GRANT SELECT ON secret TO own', 'app');
	$pool->sql($_, $o{in}) for @$before;
	warm(%as, %{ $o{old} // {} });
	my $was = seen('direct', %as, %{ $o{old} // {} });
	$pool->sql($_, $o{in}) for ref $change ? @$change : $change;
	my @ours = map { seen('raw', %as, %{ $o{new} // {} }) } 1 .. 4;
	my $right = seen('direct', %as, %{ $o{new} // {} });
	isnt($right, $was, "$name: makes a difference to PostgreSQL");
	is($_, $right, '... and the same through the pool') for $ours[0], (grep { $_ ne $right } @ours)[0] // $right;
	$pool->sql($_, $o{in}) for @{ $o{after} // [] };
	for my $role (split /\n/, $pool->sql("SELECT rolname FROM pg_roles WHERE rolname IN ('x', 'y', 'own', 'mid')"))
	{
		$pool->sql("DROP OWNED BY $role", $_) for qw(app owned);
		$pool->sql("DROP ROLE $role");
	}
}

sub in_function { return "CREATE OR REPLACE FUNCTION change() RETURNS void LANGUAGE plpgsql AS \$f\$ BEGIN $_[0]; END \$f\$", 'SELECT change()' }
sub in_do       { return "DO \$d\$ BEGIN EXECUTE \$e\$$_[0]\$e\$; END \$d\$" }
sub prepared    { return 'BEGIN', $_[0], "PREPARE TRANSACTION 'change'", "COMMIT PREPARED 'change'" }
sub in_trigger
{
	return ('CREATE TABLE IF NOT EXISTS fires (a int)', "CREATE OR REPLACE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS \$f\$ BEGIN $_[0]; RETURN NEW; END \$f\$",
		'CREATE OR REPLACE TRIGGER fires BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION fired()', 'INSERT INTO fires VALUES (1)');
}

# ---- attributes, in both directions and in many ways
my @super = ('ALTER ROLE x SUPERUSER');
case('NOSUPERUSER', [@super], 'ALTER ROLE x NOSUPERUSER');
case('SUPERUSER', [], 'ALTER ROLE x SUPERUSER');
case('NOSUPERUSER in a function', [@super], [ in_function('ALTER ROLE x NOSUPERUSER') ]);
case('SUPERUSER in DO', [], [ in_do('ALTER ROLE x SUPERUSER') ]);
case('NOSUPERUSER in a trigger', [@super], [ in_trigger('ALTER USER x NOSUPERUSER') ]);
case('NOSUPERUSER by COMMIT PREPARED', [@super], [ prepared('ALTER ROLE x NOSUPERUSER') ]);
case('NOSUPERUSER in a block with a savepoint', [@super], 'BEGIN; SAVEPOINT a; ALTER ROLE x NOSUPERUSER; RELEASE a; COMMIT');
case('NOSUPERUSER by UPDATE of pg_authid', [@super], "UPDATE pg_authid SET rolsuper = false WHERE rolname = 'x'");
case('SUPERUSER by UPDATE of pg_authid', [], "UPDATE pg_authid SET rolsuper = true WHERE rolname = 'x'");
case('CREATEDB', [], 'ALTER ROLE x CREATEDB');
case('RENAME', [], [ 'ALTER ROLE x RENAME TO y', "ALTER ROLE y PASSWORD 'y-secret'" ], new => { user => 'y' });
case('RENAME of a superuser who is none any more', [@super], [ 'ALTER ROLE x RENAME TO y', "ALTER ROLE y NOSUPERUSER PASSWORD 'y-secret'" ], new => { user => 'y' });

# ---- memberships, where the role's settings need them
my $as_own = 'ALTER ROLE x SET role = own';
case('REVOKE', [ 'GRANT own TO x', $as_own ], 'REVOKE own FROM x');
case('GRANT', [$as_own], 'GRANT own TO x');
case('REVOKE in a function', [ 'GRANT own TO x', $as_own ], [ in_function('REVOKE own FROM x') ]);
case('GRANT in DO', [$as_own], [ in_do('GRANT own TO x') ]);
case('REVOKE two steps away', [ 'GRANT own TO mid; GRANT mid TO x', $as_own ], 'REVOKE own FROM mid');
case('GRANT two steps away', [ 'GRANT mid TO x', $as_own ], 'GRANT own TO mid');
case('ALTER GROUP ... DROP USER', [ 'GRANT own TO mid; GRANT mid TO x', $as_own ], 'ALTER GROUP mid DROP USER x');
case('ALTER GROUP ... ADD USER', [ 'GRANT own TO mid', $as_own ], 'ALTER GROUP mid ADD USER x');
case('DROP ROLE of the one between', [ 'GRANT own TO mid; GRANT mid TO x', $as_own ], 'DROP ROLE mid');
case('CREATE ROLE ... ROLE', [ 'DROP ROLE mid', $as_own ], 'CREATE ROLE mid IN ROLE own ROLE x');
case('DROP ROLE of the granted one', [ 'GRANT own TO x', $as_own ], [ 'DROP OWNED BY own', 'DROP ROLE own' ], in => 'app');
case('RENAME of the granted one', [ 'GRANT own TO x', $as_own ], 'ALTER ROLE own RENAME TO y');
case('NOSUPERUSER of the granted one', [ 'GRANT own TO x; ALTER ROLE own SUPERUSER', $as_own ], 'ALTER ROLE own NOSUPERUSER');
case('DELETE FROM pg_auth_members', [ 'GRANT own TO x', $as_own ], "DELETE FROM pg_auth_members WHERE member = 'x'::regrole");
case('REVOKE, where the client asks for the role', ['GRANT own TO mid; GRANT mid TO x'], 'REVOKE own FROM mid', old => { startup => { role => 'own' } }, new => { startup => { role => 'own' } });
case('GRANT, where the client asks for the role', ['GRANT mid TO x'], 'GRANT own TO mid', old => { startup => { role => 'mid' } }, new => { startup => { role => 'own' } });

# ---- of the owner of the database
my @db  = ('CREATE TABLE IF NOT EXISTS secret (a int)', 'ALTER DATABASE owned OWNER TO x', 'ALTER ROLE x SET role = pg_database_owner');
my @end = ("ALTER DATABASE owned OWNER TO $su");
case('ALTER DATABASE ... OWNER', [@db], "ALTER DATABASE owned OWNER TO $su", database => 'owned', in => 'owned', after => [@end]);
case('REASSIGN OWNED', [@db], 'REASSIGN OWNED BY x TO boss', database => 'owned', in => 'owned', after => [@end]);

# ---- settings
case('ALTER ROLE ... SET', [], "ALTER ROLE x SET work_mem = '5MB'");
case('ALTER ROLE ... RESET', ["ALTER ROLE x SET work_mem = '5MB'"], "ALTER ROLE x RESET work_mem");
case('ALTER ROLE ALL SET', [], "ALTER ROLE ALL SET work_mem = '6MB'", after => ['ALTER ROLE ALL RESET ALL']);
case('ALTER DATABASE ... SET', [], "ALTER DATABASE app SET work_mem = '7MB'", after => ['ALTER DATABASE app RESET ALL']);
case('ALTER ROLE ... SET role', ['GRANT own TO x'], $as_own);
case('ALTER ROLE ... SET role in a function', ['GRANT own TO x'], [ in_function($as_own) ]);
case('DELETE FROM pg_db_role_setting', [ 'GRANT own TO x', $as_own ], "DELETE FROM pg_db_role_setting WHERE setrole = 'x'::regrole");
case('a setting by COMMIT PREPARED', [], [ prepared("ALTER ROLE x SET work_mem = '8MB'") ]);

# ---- who is connected already, and who is not concerned
$pool->sql("CREATE ROLE x LOGIN SUPERUSER PASSWORD 'x-secret'");
my ($idle, $busy, $kept, $other) = ((map { $pool->raw(user => 'x') } 1 .. 3), $pool->raw);
is($idle->value('SHOW is_superuser'), 'on', 'a superuser is connected');
$busy->ask('BEGIN');
$kept->ask('SELECT pg_advisory_lock(1)');
my $pid = $other->value('SELECT pg_backend_pid()');
$pool->sql('ALTER ROLE x NOSUPERUSER');
is($idle->value('SHOW is_superuser'), 'off', 'NOSUPERUSER: not one at the next transaction');
is($idle->ask("SET SESSION AUTHORIZATION $su")->{error}{C}, '42501', '... and cannot become one');
is($busy->value('SHOW is_superuser'), 'on', '... in a transaction it is as PostgreSQL leaves it');
$busy->ask('COMMIT');
is($busy->value('SHOW is_superuser'), 'off', '... until its end');
is($kept->value('SHOW is_superuser'), 'on', '... and who keeps the server keeps what it was');
is($kept->value('SELECT pg_advisory_unlock(1)'), 't', '... as long as it does');
is($kept->value('SHOW is_superuser'), 'off', '... not longer');
is($other->value('SELECT pg_backend_pid()'), $pid, "another role's server is the same as before");
$pool->sql("ALTER ROLE app PASSWORD 'app-other' VALID UNTIL 'infinity' CONNECTION LIMIT 50 NOLOGIN");
is($other->value('SELECT pg_backend_pid()'), $pid, 'another password, and NOLOGIN, close no server');

done_testing();
