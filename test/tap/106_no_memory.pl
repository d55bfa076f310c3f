# Shows: when a worker has no memory for what a client sends or is to get, that client's connection ends (53200) and nothing
# of it is executed: bytes inside a message are never taken for messages. The worker and its other clients go on. Without
# memory for anything else the worker ends, contained. test/tools/preload/fault.cpp makes allocations fail.
use strict;
use warnings;
use Test::More;
use PgPool;

my $pool = PgPool->new('memory', workers => 1, faults => 1, conf => "log_statement = all\n");
$pool->sql('CREATE TABLE t (x text); GRANT ALL ON t TO app', 'app');
my $started = $pool->started_at;
my $other   = $pool->raw;
is($other->value('SELECT 1'), '1', 'another client is there');

# The body of each big message is a row of messages of 64 bytes: wherever a read begins, one of them begins, too.
my $smuggled = pack('a N Z59', 'Q', 63, "INSERT INTO t VALUES ('smuggled')");
sub big
{
	my ($type, $head) = @_;
	my $size  = 960 * 1024;
	my $start = $type . pack('N', $size - 1) . $head;
	return $start . "\0" x (64 - length $start) . $smuggled x ($size / 64 - 1);
}

sub worker { return $pool->worker_pid(0); }

my %big = (
	'a query'                       => sub { big('Q', 'SELECT ') },
	'an unnamed Parse'              => sub { big('P', "\0SELECT ") },
	'a named Parse'                 => sub { big('P', "name\0SELECT ") },
	'a Parse in a transaction'      => sub { my ($c) = @_; $c->ask('BEGIN'); big('P', "name\0SELECT ") },
	'a Parse behind another one'    => sub { my ($c) = @_; $c->send('P', "\0SELECT 1\0\0\0"); big('P', "name\0SELECT ") },
	'a Parse of another encoding'   => sub { my ($c) = @_; $c->ask("SET client_encoding = 'LATIN1'"); big('P', "\xe4\0SELECT ") },
	'a query that waits for a server' => sub {
		my ($c) = @_;
		$c->{holders} = [ map { my $h = $pool->raw; $h->ask('BEGIN'); $h } 1 .. 5 ];
		big('Q', 'SELECT ');
	});

for my $what (sort keys %big)
{
	my $client = $pool->raw;
	my $bytes  = $big{$what}->($client);
	my $pid    = worker();
	my $log    = $pool->log_offset;
	# while no allocation above this succeeds, nothing of the size of a read can be kept
	$pool->fault($pid, 'most-memory-40000');
	eval { $client->write($bytes) };
	my $r = $client->ended(30);
	$_->close for @{ $client->{holders} // [] };
	ok($r, "$what: the connection ends");
	is_deeply($r ? $r->{rows} // [] : [], [], "$what: no row for it");
	like($r && $r->{error} ? "$r->{error}{C}" : 'closed', qr/^(53200|closed)$/, "$what: it is told 53200, or nothing");
	like($pool->log_text($log), qr/out of memory \(SQLSTATE 53200\)/, "$what: the log says so");
	unlike($pool->log_text($log), qr/(?:statement|execute [^:]*): INSERT INTO t/, "$what: the server executed nothing of it");
	$pool->fault($pid, 'most-memory-18446744073709551615');
	is($other->value('SELECT 2'), '2', "$what: the other client goes on");
	is(worker(), $pid, "$what: in the same worker");
}
is($pool->sql('SELECT count(*) FROM t', 'app'), '0', 'no smuggled row is in the table');

# what a client does not take; how much of a read is left over when its socket is full is chance, and may be little
{
	my $pid = worker();
	my $log = $pool->log_offset;
	my $sql = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
	my $ended = sub { $pool->log_text($log) =~ /out of memory \(SQLSTATE 53200\)/ };
	my @slow;
	$pool->fault($pid, 'most-memory-5000');
	for (1 .. 20)
	{
		last if $ended->();
		my $slow = $pool->raw(receive_buffer => 4096);
		push @slow, $slow;
		$slow->query($sql);
		wait_until(20, sub { $ended->() || $pool->sql("SELECT wait_event FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%repeat%'
			AND pid = (SELECT server_pid FROM pgpool.pg_stat_clients WHERE client_port = " . $slow->{socket}->sockport . ")") eq 'ClientWrite' });
		last if $ended->();
		$slow->rst;
		pop @slow;
	}
	ok($ended->(), 'rows that a client does not take: the log says so');
	$pool->fault($pid, 'most-memory-18446744073709551615');
	within(30, sub { $pool->sql('SELECT count(*) FROM pgpool.pg_stat_clients WHERE client_port = ' . $slow[-1]{socket}->sockport) == 0 },
		'... and its connection ends') if @slow;
	is($other->value('SELECT 3'), '3', '... and the other client goes on');
	is(worker(), $pid, '... in the same worker');
	within(30, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%repeat%' AND state = 'active'
		AND pid <> pg_backend_pid()") == 0 }, '... and its server does not work on');
	$_->rst for @slow;
}

# anything else
{
	my $pid = worker();
	my $log = $pool->log_offset;
	$pool->fault($pid, 'most-memory-40');
	eval { $pool->raw(timeout => 5) };
	within(30, sub { $pool->log_text($log) =~ /\(PID $pid\) (exited with exit code 1|was terminated)/ }, 'no memory at all: the worker ends');
	like($pool->log_text($log), qr/\(PID $pid\) exited with exit code 1/, '... with exit code 1');
	like($pool->log_text($log), qr/pgpool worker: ends because of an unexpected exception: std::bad_alloc/, '... and says why');
	ok($other->ended(10), '... with its clients');
	ok($pool->ready(30), '... and serves again');
}

is($pool->crashes(0), 0, 'the server did not restart its processes');
is($pool->started_at, $started, 'the postmaster is the same');
$pool->node->stop('fast');
done_testing();
