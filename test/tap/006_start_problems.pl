# Shows: whatever keeps the pooler from its work (not preloaded, no room for workers, the port taken by a process or by
# another cluster, too few files, no database) is told in the log and by pgpool.check(), with a remedy, and the
# database starts all the same.
use strict;
use warnings;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $pool = PgPool->new('problems', workers => 2, preload => 0, conf => "max_connections = 30\n");
my $node = $pool->node;
my $conf = $pool->data_dir . '/postgresql.conf';
my $base = slurp_file($conf);

# (Re)starts with these lines; gives the offset of the log where this start begins.
sub start_with
{
	my ($lines, %o) = @_;
	$pool->forget_sql;
	$node->stop('fast');
	open(my $file, '>', $conf) or die "$conf: $!";
	print $file $base, "shared_preload_libraries = 'pgpool'\npgpool.port = $pool->{port}\npgpool.workers = 2\n", $lines;
	close $file;
	my $log = $pool->log_offset;
	$o{start} ? $o{start}->() : $node->start;
	return $log;
}

# The row of check() about this item: "status: message (remedy)"
sub check
{
	my ($item) = @_;
	my %rows = map { (split /\|/, $_, 2) }
	  split /\n/, $pool->sql("SELECT item, status || ': ' || message || coalesce(' (' || remedy || ')', '') FROM pgpool.check()");
	return $rows{$item} // "no row $item";
}

# ---- not preloaded
like(check('preload'), qr/^error: not preloaded.*\(Add pgpool to shared_preload_libraries/, 'not preloaded: check() says so');
is($pool->sql('SELECT count(*) FROM pgpool.check()'), 1, '... and nothing else');
my $message = eval { $pool->sql('SELECT * FROM pgpool.pg_stat_workers'); 'no error' } // $@;
like($message, qr/pgpool is not preloaded/, '... and so do the views');
$pool->sql("SELECT pgpool.create_tenant('early')");
is($pool->sql("SELECT count(*) FROM pgpool.tenant"), 2, '... but tenants can be made');

# ---- all is well
my $log = start_with('');
$pool->ready(10);
is(check('preload'), 'ok: the library is preloaded', 'preloaded: check() says so');
is($pool->sql("SELECT string_agg(item || ' ' || message, '; ') FROM pgpool.check() WHERE status = 'error'"), '', '... and finds no error')
  or diag $pool->log_text($log);

# ---- max_worker_processes
$log = start_with("pgpool.workers = 4\nmax_worker_processes = 3\n");
like($pool->log_text($log), qr/WARNING:  pgpool needs 5 background workers, but max_worker_processes is 3/, 'max_worker_processes: the log says so');
like(check('max_worker_processes'), qr/^error: 5 background workers are needed, but max_worker_processes is 3 \(Raise/, '... check() says so');
is($pool->sql('SELECT 1'), 1, '... the database serves');
like(check('worker 3'), qr/^error: worker 3 does not run/, '... check() names a worker that does not run');
ok(defined wait_until(10, sub { eval { $pool->raw(timeout => 2)->close; 1 } }), '... the workers that there are serve');

# ---- the port is taken by a foreign process
$pool->forget_sql;
$node->stop('fast');
my $foreign = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $pool->port, Listen => 1, Proto => 'tcp', ReuseAddr => 1)
  or die "cannot take the port: $!";
$log = start_with('');
my $line = qr/could not listen on address "127.0.0.1".*$pool->{port}/;
ok(defined wait_until(5, sub { $pool->log_text($log) =~ $line }), 'port taken: the log names it');
ok(defined wait_until(5, sub { check('worker 0') =~ /^(warning|error): worker 0.*/ && check('worker 0') !~ /does not run/ }), '... check() says so')
  or diag check('worker 0');
is($pool->run_psql('SELECT 1', host => $pool->socket_dir), 1, '... the Unix socket serves');
sleep(1.5);
cmp_ok(scalar(() = $pool->log_text($log) =~ /$line/g), '<=', 4, '... the log is not flooded');
close $foreign;
ok(defined wait_until(5, sub { eval { $pool->raw(timeout => 2)->close; 1 } }), '... when the port is free, it is taken');
ok(defined wait_until(5, sub { check('worker 0') =~ /^ok/ && check('worker 1') =~ /^ok/ }), '... and check() is content') or diag check('worker 0');

# ---- one of several addresses
$pool->forget_sql;
$node->stop('fast');
$foreign = IO::Socket::INET->new(LocalAddr => '127.0.0.2', LocalPort => $pool->port, Listen => 1, Proto => 'tcp', ReuseAddr => 1)
  or die "cannot take the port: $!";
$log = start_with("pgpool.listen_addresses = '127.0.0.1, 127.0.0.2'\n");
$line = qr/could not listen on address "127.0.0.2".*$pool->{port}.*trying again/;
ok(defined wait_until(5, sub { $pool->log_text($log) =~ $line }), 'port of one address taken: the log names it');
is($pool->run_psql('SELECT 1'), 1, '... the other one serves');
close $foreign;
ok(defined wait_until(5, sub { eval { $pool->raw(timeout => 2, host => '127.0.0.2')->close; 1 } }), '... when it is free, it is taken');
is($pool->run_psql('SELECT 1'), 1, '... and the other one is not disturbed');

# ---- a second cluster with the same port
start_with('');
$pool->ready(10);
my $second = PgPool->new('second', workers => 2, conf => "pgpool.port = $pool->{port}\n", start => 0);
$second->node->start;
$second->prepare(1);
like($second->log_text, qr/pgpool does not listen: another cluster on this machine uses port $pool->{port}/, 'second cluster, same port: the log says so');
like($second->sql("SELECT status || ' ' || message || remedy FROM pgpool.check() WHERE item = 'port'"),
	qr/^error another cluster on this machine uses.*Set pgpool.port/, '... check() says so');
my %seen;
for (1 .. 12)
{
	my $c = $pool->raw(user => 'app');
	$seen{ $c->value("SELECT current_setting('port')") }++;
	$c->close;
}
is(join(',', keys %seen), $pool->server_port, '... no client of the first cluster ever lands in the second');
is($second->sql('SELECT 1'), 1, '... the second database serves');
$second->forget_sql;
$second->node->stop('fast');
is($pool->run_psql('SELECT 1'), 1, '... and the first is not disturbed by its end');

# ---- few files
$log = start_with(
	"pgpool.max_client_connections = 1000\nmax_files_per_process = 64\n",
	start => sub {
		my ($soft, $hard) = (200, 200);
		# the limit is inherited by what we start, so it is set in a shell of its own
		my $status = system('sh', '-c', "ulimit -n $hard; exec pg_ctl -w -D '" . $pool->data_dir . "' -l '" . $node->logfile . "' start >/dev/null 2>&1");
		is($status, 0, 'few files: the database starts');
		$node->_update_pid(1);
	});
$pool->ready(10);
like(check('open files'), qr/^error: the workers can open \d+ files.*\(Raise the limit of open files/, '... check() says so');
like($pool->log_text($log), qr/LOG:  .*limit of open files, \d+, is too low/, '... the log says so');
my (@in, %out);
for (1 .. 420)
{
	my $c = eval { $pool->raw(timeout => 10) };
	$c ? push @in, $c : $out{ $@ =~ /^(\w{5}) / ? $1 : 'closed' }++;
}
cmp_ok(scalar @in, '>=', 80, 'of 420 clients ' . @in . ' were let in');
my $others = join(', ', map { "$_: $out{$_}" } sort keys %out);
is(join(',', grep { $_ ne '53300' } keys %out), '', "... the others were told 53300 ($others)");
is(scalar(grep { ($_->ask('SELECT 1')->{rows}[0][0] // '') eq '1' } @in), scalar @in, '... those that are in are served');
is($pool->sql('SELECT 1'), 1, '... the database serves');
$_->close for @in;
ok(defined wait_until(2, sub { eval { $pool->raw(timeout => 2)->close; 1 } }), '... and places are free again when they have left');
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, '... no worker died of it');

# ---- pgpool.database does not exist
$log = start_with("pgpool.database = 'not_there'\npgpool.login_timeout = 2s\n");
ok(defined wait_until(10, sub { $pool->log_text($log) =~ /not_there/ }), 'no pgpool.database: the log names it');
is($pool->sql('SELECT 1'), 1, '... the database serves');
sleep(2);
cmp_ok(scalar(() = $pool->log_text($log) =~ /not_there/g), '<=', 8, '... the log is not flooded');
$message = eval { $pool->raw(timeout => 5)->close; 'let in' } // $@;
like($message, qr/^(57P03|08006|28000|57014) /, '... a client is told, at the latest after pgpool.login_timeout');
note $message;
$pool->sql('CREATE DATABASE not_there');
$pool->sql('CREATE EXTENSION pgpool', 'not_there');
ok(defined wait_until(10, sub { eval { $pool->raw(timeout => 2)->close; 1 } }), '... when it is made, the port serves');

$pool->forget_sql;
$node->stop('fast');
done_testing();
