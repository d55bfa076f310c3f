# Shows: who has proved nothing takes nothing from those who have. Beyond the mark of descriptors strangers are answered
# and closed at once, and clients get the servers that they need; half a TLS handshake ends with login_timeout, counted
# and in the log with a line a second; the hash of a password does not hold up other clients of the worker; and a reader
# that pauses is waited for, unless the operator set a limit, which is then named.
use strict;
use warnings;
use PgPool;
use IPC::Run ();
use PgPoolWire;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;

my $files = 260;
my $pool  = PgPool->new('strangers', workers => 1, pool_size => 6, start => 0,
	conf => "log_connections = off\nmax_files_per_process = 64\nmax_connections = 40\n");
$pool->write_hba(<<'HBA');
local  all slow,stored scram-sha-256
host   all slow   127.0.0.1/32 password
host   all stored 127.0.0.1/32 trust
HBA
# the limit is inherited by what we start, so it is set in a shell of its own
is(system('sh', '-c', "ulimit -n $files; exec pg_ctl -w -D '" . $pool->data_dir . "' -l '" . $pool->node->logfile . "' start >/dev/null 2>&1"),
	0, 'the database starts with few files');
$pool->node->_update_pid(1);
$pool->prepare(1);
$pool->ready;

sub set { my ($what) = @_; $pool->sql($_) for "ALTER SYSTEM SET $what", 'SELECT pg_reload_conf()'; }
sub worker_says { return $pool->sql("SELECT $_[0] FROM pgpool.pg_stat_workers"); }
sub open_files { my ($pid) = $pool->workers; my @all = glob "/proc/$pid/fd/*"; return scalar @all; }
sub in_login { return $pool->sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE state = 'login'"); }

# ---- descriptors
my @clients = map { $pool->raw } 1 .. 6;
my $quiet   = open_files();
my (@strangers, @told);
for (1 .. $files + 100)
{
	my $c = PgPoolWire->open(port => $pool->port) or last;
	push @strangers, $c;
}
ok(defined wait_until(30, sub {
		@told = grep { my $m = $_->{first} // ($_->need(5, 0.001) ? $_->next(5) : undef); $_->{first} = $m; $m && $m->[0] eq 'E' } @strangers;
		return @told >= 200;
	}), 'strangers beyond the mark are answered without having said anything: ' . @told . ' of ' . @strangers);
is(PgPoolWire::error_fields($told[0]{first}[1])->{C}, '53300', '... with 53300') if @told;
is(scalar(grep { !$_->closes(10) } @told), 0, '... and closed');
cmp_ok(open_files(), '<=', $files - 100, '... so that descriptors are left: ' . open_files() . " of $files are in use");
my %servers;
for my $c (@clients) { $c->ask('BEGIN'); $servers{ $c->value('SELECT pg_backend_pid()') } = 1; }
is(scalar keys %servers, 6, 'each client gets a server of its own meanwhile');
$_->ask('COMMIT') for @clients;
my $again = $pool->log_offset;
like($pool->log_text(0), qr/too many clients already: this worker's limit of open files is $files \(client 127\.0\.0\.1:\d+\)/, 'the log tells of it');
$_->close for @strangers;
ok(defined wait_until(20, sub { in_login() == 0 }), '... and when they have left, nothing is left of them');

# ---- half a handshake
my $log = $pool->log_offset;
set("pgpool.login_timeout = '1s'");
set("pgpool.write_timeout = '1h'");
ok(defined wait_until(10, sub { $pool->log_text($log) =~ /"pgpool.write_timeout" changed/ }), 'the settings are read');
sub half_handshake
{
	my $c = PgPoolWire->open(port => $pool->port) or return ();
	$c->send(PgPoolWire::request($PgPoolWire::SSL));
	return () if ($c->bytes(1, 10) // '') ne 'S';
	$c->send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half");
	return $c;
}
# The worker hears of the settings a little later than the log; who came before has the timeout of before.
ok(defined wait_until(90, sub { my ($c) = half_handshake(); $c && $c->closes(5) }), '... by the worker, too');
ok(defined wait_until(90, sub { in_login() == 0 }), 'nobody else is in a login');
my $failures = worker_says('login_failures');
$log = $pool->log_offset;
my @half = map { half_handshake() } 1 .. 60;
is(scalar @half, 60, '60 strangers begin a TLS handshake');
is(scalar(grep { !$_->closes(30) } @half), 0, '... which ends with login_timeout, whatever write_timeout says');
is(join('', map { $_->{in} } @half), '', '... without a word in clear');
is(worker_says('login_failures') - $failures, 60, '... and they are counted');
is(in_login(), 0, '... no more as clients');
ok(defined wait_until(10, sub { open_files() <= $quiet + 6 }), '... nor do they have descriptors: ' . open_files());
my @lines = $pool->log_text($log) =~ /(could not accept SSL connection: .*)/g;
like($lines[0] // '', qr/the handshake was not complete after pgpool.login_timeout, 1000 ms \(client 127\.0\.0\.1:\d+\)/, '... and in the log');
cmp_ok(scalar @lines, '<', 30, '... not with a line for each: ' . @lines);
# a line a second: one of these gets it
ok(defined wait_until(20, sub {
		my $c = PgPoolWire->open(port => $pool->port);
		$c->send(PgPoolWire::request($PgPoolWire::SSL));
		$c->bytes(1, 10);
		$c->send("GET / HTTP/1.1\r\n\r\n");
		$c->closes(10) or return 0;
		return $pool->log_text($log) =~ /could not accept SSL connection: (http request|wrong version number) \(client/;
	}), 'what is no handshake ends the connection, with the reason in the log') or diag $pool->log_text($log);
set("pgpool.$_ = DEFAULT") for qw(login_timeout write_timeout);
$_->close for @half;

# ---- hashes. A million rounds; the password is wrong for one, and right for the stored one.
my $rounds = <<'PYTHON';
import hashlib, hmac, base64
salt = b'sixteen bytes ok'
k = hashlib.pbkdf2_hmac('sha256', b'secret', salt, 1000000)
b = lambda x: base64.b64encode(x).decode()
h = lambda what: hmac.new(k, what, 'sha256').digest()
print('SCRAM-SHA-256$1000000:' + b(salt) + '$' + b(hashlib.sha256(h(b'Client Key')).digest()) + ':' + b(h(b'Server Key')))
PYTHON
my $verifier = '';
IPC::Run::run([ 'python3', '-c', $rounds ], '>', \$verifier) or die 'python3';
chomp $verifier;
$pool->sql("CREATE ROLE $_ LOGIN PASSWORD '$verifier'") for qw(slow stored);
$pool->sql("SELECT pgpool.set_user('default', 'stored', server_password => 'secret')");
sub beside
{
	my ($role, $sent) = @_;
	my $login = PgPoolWire->open(port => $pool->port);
	$login->send(PgPoolWire::startup_packet(196608, user => $role, database => 'app'));
	if (defined $sent)
	{
		$login->next(10) or return (0, 'no question');
		$login->send(PgPoolWire::message('p', "$sent\0"));
	}
	my $served = 0;
	my $until = time + 60;
	# The server's stored password is hashed behind AuthenticationOk.
	my $answered = sub { defined $sent ? length $login->{in} : $login->{in} =~ /Z\x00\x00\x00\x05I$/ };
	while (time < $until && !$answered->())
	{
		$clients[0]->value('SELECT 1');
		$login->need(1 + length $login->{in}, 0.001);
		$served++ unless $answered->(); # before the login is, which was sent first
	}
	my $m = $login->next(10);
	return ($served, $m ? $m->[0] eq 'E' ? PgPoolWire::error_fields($m->[1])->{C} : $m->[0] : 'nothing');
}
for ([ 'slow', 'secret', 'R', 'the right password' ], [ 'slow', 'wrong', '28P01', 'a wrong password' ], [ 'stored', undef, 'R', 'a stored password' ])
{
	my ($role, $password, $expected, $name) = @$_;
	my ($served, $answer) = beside($role, $password);
	is($answer, $expected, "$name is hashed");
	cmp_ok($served, '>=', 3, "... while another client of the worker is served");
}
{
	my $login = PgPoolWire->open(port => $pool->port);
	$login->send(PgPoolWire::startup_packet(196608, user => 'slow', database => 'app'));
	$login->next(10);
	$login->send(PgPoolWire::message('p', "secret\0"));
	$login->close;
	is($clients[0]->value('SELECT 1'), 1, 'a client that leaves while its password is hashed harms nobody');
	ok(defined wait_until(30, sub { in_login() == 0 }), '... and is gone');
}
is(worker_says('starts'), 1, 'the worker was not restarted');

# ---- readers that pause
is($pool->sql("SELECT string_agg(boot_val, ',') FROM pg_settings WHERE name IN ('pgpool.write_timeout', 'pgpool.tcp_user_timeout')"), '0,0',
	'by default nothing limits how long a client reads nothing');
for ([ 'write_timeout', 'took no data for \d+ ms: disconnected \(pgpool.write_timeout is 1000 ms\)' ],
	[ 'tcp_user_timeout', 'the connection timed out \(pgpool.tcp_user_timeout is 1000 ms' ])
{
	my ($setting, $line) = @$_;
	set("pgpool.$setting = '1s'");
	$log = $pool->log_offset;
	my $reader;
	# a client that was accepted before the worker heard of it has no limit
	ok(defined wait_until(30, sub {
			$reader = $pool->raw(receive_buffer => 4096);
			$reader->query("SELECT repeat('x', 100000) FROM generate_series(1, 1000)");
			return wait_until(4, sub { $pool->log_text($log) =~ /client 127\.0\.0\.1:\d+ of role "app", database "app", tenant "default",.*$line/ });
		}), "$setting that was set is named in the log, with the client") or diag $pool->log_text($log);
	set("pgpool.$setting = DEFAULT");
}
$pool->forget_sql;
$pool->node->stop('fast');
done_testing();
