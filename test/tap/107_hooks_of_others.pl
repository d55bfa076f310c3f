# Shows: what another preloaded library has hooked into every process - a hook that counts the log's lines in shared
# memory, a signal handler, a function for the exit - does not run in a worker, which has left shared memory; whether
# pgpool is preloaded before or behind it. Everywhere else it runs as before.
use strict;
use warnings;
use Test::More;
use PgPool;

my $library = tool_file('extension/log_counter.so');
for my $order ("pgpool, $library", "$library, pgpool")
{
	my $name = $order =~ /^pgpool/ ? 'first' : 'last';
	my $pool = PgPool->new("hooks_$name", workers => 2,
		conf => "shared_preload_libraries = '$order'\npgpool.log_connections = on\npgpool.log_disconnections = on\n");
	$pool->sql("CREATE FUNCTION log_lines() RETURNS bigint AS '$library' LANGUAGE C");
	my $started = $pool->started_at;
	my %before  = $pool->worker_pids;
	my $log     = $pool->log_offset;

	# every kind of line that a worker writes by itself, of both workers
	my $clients = $pool->clients_by_worker(2);
	$_->close for map { @$_ } @$clients;
	$pool->sql("SELECT pg_reload_conf()");
	eval { $pool->raw(password => 'wrong') };
	like($@, qr/^28P01/, "pgpool $name: a wrong password is refused as ever");
	within(20, sub { (() = $pool->log_text($log) =~ /disconnection: session time/g) >= 4 },
		"pgpool $name: the workers write their lines");
	is_deeply({ $pool->worker_pids }, \%before, "pgpool $name: the workers are the same processes")
	  or diag $pool->log_text($log);

	# signals whose handler is the other library's
	kill 'PROF', $_ for values %before;
	ok($pool->ready(20), "pgpool $name: the pool serves after SIGPROF to its workers");
	is_deeply({ $pool->worker_pids }, \%before, "pgpool $name: ... which live");

	# the other library goes on counting where it may
	my $counted = $pool->sql('SELECT log_lines()');
	$pool->sql("DO \$\$ BEGIN RAISE LOG 'a line of a backend'; END \$\$");
	is($pool->sql('SELECT log_lines()') - $counted, 1, "pgpool $name: a line of a backend is counted");

	# a worker that ends by itself leaves by no function of others
	$log = $pool->log_offset;
	my $pid = $before{0};
	kill 'TERM', $pid;
	within(20, sub { $pool->log_text($log) =~ /\(PID $pid\) exited with exit code 1/ }, "pgpool $name: a worker stops");
	unlike($pool->log_text($log), qr/crashed by signal/, "pgpool $name: ... without a crash");
	ok($pool->ready(20), "pgpool $name: it comes back");
	is($pool->crashes(0), 0, "pgpool $name: the server did not restart its processes");
	is($pool->started_at, $started, "pgpool $name: the postmaster is the same");
	$pool->node->stop('fast');
}
done_testing();
