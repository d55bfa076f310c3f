# Cancel requests: they reach the query of the client whose key they carry, through whichever worker they arrive, while
# it runs or waits for a server; a wrong key does nothing, nobody else is ever hit, and keys cannot be guessed.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = pool_node('cancel', conf => "ssl = off\npgpool.workers = 2\npgpool.default_pool_size = 1\nmax_connections = 40");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE free LOGIN PASSWORD 'secret'; SELECT pgpool.set_user('default', 'free', pool_size => 20)");
my @app = (user => 'app', password => 'secret');
my @free = (user => 'free', password => 'secret');
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die $r->{error}{M} if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }

sub cancel
{
	my ($pid, $key) = @_;
	my $c = PgPoolWire->open(port => $node->{pool_port});
	$c->send(PgPoolWire::cancel_request($pid, $key));
	my $quiet = $c->closes(10) && !@{ $c->{seen} } && $c->{in} eq '';
	return $quiet;
}
sub running { return sql("SELECT count(*) FROM pg_stat_activity WHERE usename = '$_[0]' AND state = 'active' AND query LIKE '%pg_sleep%'") }
sub start { my ($c, $sql) = @_; $c->send(PgPoolWire::message('Q', "$sql\0")) }
my $cancelled = '57014 canceling statement due to user request';
sub error_of { my $r = shift; return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : 'no error' }

# ---- through any worker: 40 cancel requests of clients in both workers
my @clients = map { connect_as($node, @free) } 1 .. 6;
my %in_worker;
for (1 .. 40) # the kernel deals connections out by chance
{
	%in_worker = ();
	$in_worker{$_}++ for split /,/, sql("SELECT string_agg(worker::text, ',') FROM pgpool.pg_stat_clients");
	last if keys %in_worker == 2;
	$clients[0]->close;
	$clients[0] = connect_as($node, @free);
}
cmp_ok(keys %in_worker, '==', 2, 'there are clients in both workers') or diag explain \%in_worker;
my ($hit, $silent) = (0, 0);
for my $n (0 .. 39)
{
	my $c = $clients[ $n % 6 ];
	start($c, 'SELECT pg_sleep(20)');
	poll_until(sub { running('free') == 1 }, 'the query runs');
	$silent++ if cancel($c->{pid}, $c->{key});
	my $r = $c->answer(10);
	error_of($r) eq $cancelled && $r->{status} eq 'I' ? $hit++ : diag("attempt $n: " . error_of($r));
}
is($hit, 40, 'each cancel request stops the query of its client');
is($silent, 40, 'none is answered');
is(sql('SELECT count(*) FROM pgpool.pg_stat_workers WHERE cancels > 0'), '2', 'they arrived at both workers');
is(sql('SELECT sum(cancels_delivered) FROM pgpool.pg_stat_workers'), '40', 'pg_stat_workers counts them');

# ---- psql and libpq
{
	my ($out, $err) = ('', '');
	local $ENV{PGPASSWORD} = 'secret';
	my $psql = IPC::Run::start [ 'psql', '-X', '-d', "host=127.0.0.1 port=$node->{pool_port} user=free dbname=postgres", '-c', 'SELECT pg_sleep(30)' ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
	poll_until(sub { running('free') == 1 }, 'psql runs its query');
	$psql->signal('INT');
	$psql->finish;
	like($err, qr/canceling statement due to user request/, 'Ctrl-C in psql');
}

# ---- with the key of protocol 3.2
{
	my $c = PgPoolWire->open(port => $node->{pool_port});
	$c->login(@free, database => 'postgres', protocol => 196610);
	for my $bad (substr($c->{key}, 0, 4), substr($c->{key}, 0, 31), $c->{key} ^ ("\0" x 31 . "\1"), "$c->{key}x", "\0" x 32)
	{
		start($c, 'SELECT pg_sleep(0.1), 1');
		poll_until(sub { running('free') == 1 }, 'the query runs', 2);
		cancel($c->{pid}, $bad);
		is(error_of($c->answer(10)), 'no error', 'a key of 3.2 with ' . length($bad) . ' bytes that is not quite right does nothing');
	}
	start($c, 'SELECT pg_sleep(20)');
	poll_until(sub { running('free') == 1 }, 'the query runs');
	cancel($c->{pid}, $c->{key});
	is(error_of($c->answer(10)), $cancelled, 'the right one cancels');
}

# ---- in session mode, where the client is told the pid of its server
{
	sql("CREATE ROLE session LOGIN PASSWORD 'secret'");
	sql("SELECT pgpool.set_user('default', 'session', pool_mode => 'session')");
	my $c = connect_as($node, user => 'session', password => 'secret');
	is($c->value('SELECT pg_backend_pid()'), $c->{pid}, 'in session mode the pid is that of the server');
	start($c, 'SELECT pg_sleep(20)');
	poll_until(sub { running('session') == 1 }, 'the query runs');
	cancel($c->{pid}, pack 'N', ~unpack('N', $c->{key}) & 0xffffffff);
	ok(!$c->need(1, 0.1), '... a wrong key does nothing');
	cancel($c->{pid}, $c->{key});
	is(error_of($c->answer(10)), $cancelled, '... and the right one cancels');
}

# ---- while it waits for a server
my ($holder, $waiter) = map { connect_as($node, @app) } 1 .. 2;
$holder->query('BEGIN');
for my $n (1 .. 5)
{
	start($waiter, 'SELECT 1');
	poll_until(sub { sql("SELECT clients_waiting FROM pgpool.pg_stat_pools WHERE role = 'app'") == 1 }, 'the client waits');
	cancel($waiter->{pid}, $waiter->{key});
	my $r = $waiter->answer(10);
	is(error_of($r), $cancelled, "a client that waits in the queue is cancelled ($n)");
	is($r->{status}, 'I', '... and stays connected');
}
is($holder->value('SELECT 2'), '2', '... whoever has the server is not hit');
# extended: everything up to Sync is skipped, one error, one ReadyForQuery
$waiter->send(PgPoolWire::parse('SELECT 3') . PgPoolWire::bind_to() . PgPoolWire::execute() . PgPoolWire::sync());
poll_until(sub { sql("SELECT clients_waiting FROM pgpool.pg_stat_pools WHERE role = 'app'") == 1 }, 'the client waits');
cancel($waiter->{pid}, $waiter->{key});
is(error_of($waiter->answer(10)), $cancelled, 'the same in the extended protocol');
$holder->query('COMMIT');
is($waiter->value('SELECT 4'), '4', 'afterwards it is served');
ok(!$waiter->need(1, 0.05), '... and nothing more comes');

# ---- an idle client, and one that is gone
cancel($waiter->{pid}, $waiter->{key}) for 1 .. 5;
is($waiter->value('SELECT 5'), '5', 'a cancel request for an idle client does nothing');
my ($gone_pid, $gone_key) = ($waiter->{pid}, $waiter->{key});
$waiter->send(PgPoolWire::message('X', ''));
$waiter->closes(5);
start($holder, 'SELECT pg_sleep(0.3), 6');
poll_until(sub { running('app') == 1 }, 'the query runs', 2);
cancel($gone_pid, $gone_key);
is(error_of($holder->answer(10)), 'no error', 'the key of a client that is gone does nothing');
# wrong keys
start($holder, 'SELECT pg_sleep(0.3), 7');
poll_until(sub { running('app') == 1 }, 'the query runs', 2);
cancel($holder->{pid}, pack 'N', $_) for 0, 1, 0xffffffff, unpack('N', $holder->{key}) ^ 1;
cancel($holder->{pid} + $_, $holder->{key}) for -1, 1;
is(error_of($holder->answer(10)), 'no error', 'a wrong key does nothing');

# ---- never another client: the victim takes the same server right after the one that is cancelled
my ($attacker, $victim) = map { connect_as($node, @app) } 1 .. 2;
$holder->send(PgPoolWire::message('X', ''));
my ($stray, $stopped, $rounds) = (0, 0, 200);
for my $n (1 .. $rounds)
{
	start($attacker, "SELECT pg_sleep(0.00$_)") for $n % 6;
	# the victim's query waits for the server, and starts as soon as the attacker's ends or is cancelled
	start($victim, "SELECT $n, pg_sleep(0.002)");
	my $canceller = PgPoolWire->open(port => $node->{pool_port});
	$canceller->send(PgPoolWire::cancel_request($attacker->{pid}, $attacker->{key}));
	my $r = $victim->answer(10);
	if ($r->{error} || $r->{rows}[0][0] ne $n) { $stray++; diag("round $n: " . error_of($r)) }
	my $a = $attacker->answer(10);
	if ($a->{error}) { error_of($a) eq $cancelled ? $stopped++ : diag("round $n, the attacker: " . error_of($a)) }
	$canceller->closes(5);
}
is($stray, 0, "a cancel request never hits another client of the same server ($rounds rounds, $stopped queries cancelled)");

# ---- keys
{
	my (%keys, %pids, $low, $high) = ();
	my $logins = 2000;
	# trust would be quicker, but a real login is what counts; the salted password is computed once
	for (1 .. $logins)
	{
		my $c = connect_as($node, @app);
		$keys{ $c->{key} }++;
		$pids{ $c->{pid} }++;
		$c->send(PgPoolWire::message('X', ''));
		$c->close;
	}
	is(keys %keys, $logins, "$logins logins have $logins different keys");
	# each bit of the key is set in half of them: 6 sigma are 134
	my @ones = (0) x 32;
	for my $key (keys %keys) { my $n = unpack 'N', $key; $ones[$_] += ($n >> $_) & 1 for 0 .. 31 }
	my @odd = grep { abs($ones[$_] - $logins / 2) > 150 } 0 .. 31;
	is("@odd", '', 'each bit of the keys is set in half of them');
}
$_->send(PgPoolWire::message('X', '')) for @clients, $attacker, $victim;
ok(poll_until(sub { sql('SELECT count(*) FROM pgpool.pg_stat_clients') == 0 }), 'no client is left');
$node->stop;
done_testing();
