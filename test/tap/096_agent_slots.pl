# What a worker tells a backend in shared memory is for that backend alone, however long it outlives its connection; and the
# defaults that come with a client, to which RESET goes back, give it nothing that its role could not set.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;

my $node = pool_node('slots', conf => "pgpool.default_pool_size = 4\npgpool.workers = 1\nlog_statement = none\nlc_messages = 'C'");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { for (@_) { my $r = $admin->query($_); die "$_: $r->{error}{M}" if $r->{error} } }
sql("CREATE ROLE $_ LOGIN PASSWORD 'secret'") for qw(eve app);
sql("CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'secret'",
	'CREATE TABLE public.loot (at timestamptz DEFAULT clock_timestamp(), v text)', 'GRANT ALL ON public.loot TO PUBLIC',
	'CREATE TABLE public.go (a int)', 'GRANT SELECT ON public.go TO PUBLIC');

# The backend of eve lives on when its worker has crashed, and says RESET in different forms.
my @resets = ('RESET ALL', 'RESET a.secret', 'SET a.secret TO DEFAULT', 'SET LOCAL a.secret TO DEFAULT');
my @eves;
for my $reset (@resets)
{
	my $eve = connect_as($node, user => 'eve', password => 'secret', options => '-c a.secret=eve');
	$eve->value("SELECT 'is there'");
	$eve->send(PgPoolWire::message('Q', <<"SQL" . "\0"));
DO \$\$ DECLARE v text; w text := ''; BEGIN
 LOOP
  EXECUTE '$reset'; v := coalesce(current_setting('a.secret', true), '') || ' ' || current_setting('lo_compat_privileges');
  IF v <> w THEN INSERT INTO loot (v) VALUES (v); w := v; END IF;
  PERFORM pg_sleep(0.05);
  EXIT WHEN EXISTS (SELECT FROM go);
 END LOOP; END \$\$
SQL
	push @eves, $eve;
}
sub at_work { return $admin->value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'") }
poll_until(sub { at_work() == @resets }, 'all are at work');
my $worker = $admin->value('SELECT pid FROM pgpool.pg_stat_workers');
kill SEGV => $worker;
poll_until(sub { ($admin->value("SELECT pid FROM pgpool.pg_stat_workers WHERE state = 'running'") // $worker) ne $worker }, 'another worker runs');
$_->close for @eves;
poll_until(sub { $admin->value("SELECT count(*) FROM pgpool.pg_stat_servers WHERE role = 'eve'") eq '0' }, 'the worker has given them up');
is(at_work(), scalar @resets, 'the backends live on');

# Others come, with settings that eve may not see or have.
my @others = map { connect_as($node, user => 'boss', password => 'secret', options => "-c a.secret=boss$_ -c lo_compat_privileges=on") } 1 .. 4;
push @others, map { connect_as($node, user => 'app', password => 'secret', options => "-c a.secret=app$_") } 1 .. 4;
$_->query('BEGIN') for @others;
is(join(' ', map { $_->value("SELECT current_setting('a.secret') || current_setting('lo_compat_privileges')") } @others), 'boss1on boss2on boss3on boss4on app1off app2off app3off app4off',
	'others have servers with settings of theirs');
my $reads = $admin->value('SELECT clock_timestamp()');
# Until each of the backends has reset again, several times
poll_until(sub { $admin->value("SELECT clock_timestamp() > '$reads'::timestamptz + '1 s'") eq 't' }, 'a second');
sql('INSERT INTO go VALUES (1)');
poll_until(sub { at_work() eq '0' }, 'they end');
is($admin->value("SELECT string_agg(DISTINCT v, ', ') FROM loot WHERE v ~ 'boss|app|on'") // '', '', 'none of it was seen by the backends that were given up');
cmp_ok($admin->value("SELECT count(*) FROM loot"), '>=', 4, '... which looked');
$_->query('COMMIT') for @others;

# ---- what RESET goes back to: as directly, also when the right to set it came and went
for my $user ('app', 'boss')
{
	my $expected;
	my $options = '-c work_mem=5MB -c lo_compat_privileges=on -c a.b=c';
	sql('GRANT SET ON PARAMETER lo_compat_privileges TO app');
	my @clients = map {
		my $c = PgPoolWire->open(port => $_);
		my $r = $c->login(user => $user, password => 'secret', database => 'postgres', options => $options);
		is(PgPoolWire::text($r), 'ok', "$user may have it by a right of its own");
		$c
	} $node->port, $node->{pool_port};
	for my $sql ('RESET ALL', 'SET work_mem = 100; RESET work_mem', 'RESET lo_compat_privileges', 'DISCARD ALL', 'SET a.b TO DEFAULT', "SET a.b = 'x'; RESET ALL")
	{
		my @seen = map {
			my $r = $_->query($sql);
			($r->{error} ? "$r->{error}{C} " : '') . $_->value("SELECT current_setting('work_mem') || current_setting('lo_compat_privileges') || current_setting('a.b')")
		} @clients;
		is($seen[1], $seen[0], "$user: $sql, as directly");
	}
	sql('REVOKE SET ON PARAMETER lo_compat_privileges FROM app');
	$_->query('RESET ALL') for @clients;
	is($clients[1]->value('SHOW work_mem'), '5MB', "$user: ... other settings go back after the right is gone");
	is($clients[1]->value('SHOW lo_compat_privileges'), $user eq 'boss' ? 'on' : 'off', '... what it may not set does not') if $user eq 'boss';
	$_->close for @clients;
}

done_testing();
