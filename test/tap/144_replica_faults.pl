# Shows: whatever becomes of a standby - it is killed, stopped, cut off, its replay pauses, it is behind, it lets nobody in, its
# address or the password changes, another cluster is there in its stead, it is promoted - clients that read in autocommit get
# no error, wait no longer than a second or so, and read from no wrong server; when the cause has gone it is read from again
# soon. A query that takes its time on a standby that lives is not cut. Four clients read all the time, and note where and when.
use strict;
use warnings;
# In a network of its own, where packets can be made to get lost; before others have taken the output.
BEGIN
{
	my @alone = qw(unshare --user --map-current-user --net --keep-caps);
	if (!$ENV{PGPOOL_OWN_NETWORK} && system("@alone ip link set lo up 2>/dev/null") == 0)
	{
		local $ENV{PGPOOL_OWN_NETWORK} = 1;
		exec @alone, 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', $^X, (map { "-I$_" } @INC), $0;
	}
}

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);
use PgPool;

my $own_network = $ENV{PGPOOL_OWN_NETWORK};

my $lives = 5;    # seconds until it is read from again; alone on a machine it is one or two
my $out   = 1.5;  # until it is not any more, alone on a machine less than one
my $pool = PgPool->new('zero', streaming => 1, workers => 2, pool_size => 10, conf => "autovacuum = off\nmax_connections = 100\nhere.node = 'zero'\n");
$pool->node->backup('copy');
my %server = (zero => $pool);
for my $name (qw(one two))
{
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($pool->node, 'copy', has_streaming => 1);
	my $port = free_port();
	$node->append_conf('postgresql.conf', "pgpool.port = $port\nunix_socket_directories = '" . $node->host . "'\nhere.node = '$name'\n");
	chmod 0600, $node->data_dir . '/server.key'; # the copy of a backup is for all to read
	$node->start;
	$server{$name} = PgPool->adopt($node, port => $port);
}
my $two = $server{two};
$pool->sql('CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t SELECT k, 0 FROM generate_series(0, 99) k; GRANT ALL ON t TO app', 'app');
$pool->sql("SELECT pgpool.add_replica('$_', '127.0.0.1', " . $server{$_}->node->port . ')') for qw(one two);
$pool->sql("SELECT pgpool.alter_tenant('default', routing => 'reads')");

# ---- the clients
my $notes = PostgreSQL::Test::Utils::tempdir() . '/reads';
my @readers;
for my $n (1 .. 4)
{
	my $pid = fork // die "fork: $!";
	if ($pid) { push @readers, $pid; next; }
	open(my $to, '>>', $notes);
	my $client;
	for (;;)
	{
		my $begin = time;
		my $where = eval {
			$client //= $pool->raw;
			my $r = $client->ask("SELECT current_setting('here.node'), count(*) FROM t");
			die "$r->{error}{C} $r->{error}{M}\n" if $r->{error};
			die "closed\n" if $r->{closed};
			die "wrong rows\n" if $r->{rows}[0][1] != 100;
			$r->{rows}[0][0];
		};
		undef $client unless defined $where;
		chomp(my $why = $@);
		syswrite($to, sprintf("%.3f\t%.3f\t%s\n", $begin, time, $where // "error $why"));
		sleep(defined $where ? 0.005 : 0.05);
	}
}
END { kill 'KILL', @readers if @readers }

my ($read_up_to, @reads) = 0;
sub reads # [begin, end, where], those that began since then
{
	my ($since) = @_;
	open(my $from, '<', $notes) or return ();
	seek($from, $read_up_to, 0);
	while (my $line = <$from>)
	{
		last unless $line =~ /\n/;
		$read_up_to += length $line;
		chomp $line;
		push @reads, [ split /\t/, $line ];
	}
	return grep { $_->[0] >= $since } @reads;
}
sub from { my ($where, $since) = @_; return grep { $_->[2] eq $where } reads($since); }
sub errors { my ($since) = @_; return grep { $_->[2] =~ /^error/ } reads($since); }

my $writes = 0;
sub touch_row { $pool->sql('UPDATE t SET v = v + 1 WHERE k = 1', 'app'); $writes++; return 1; }

# The cause, its end; what goes on meanwhile. Nobody waits longer than `longest`.
sub scene
{
	my ($name, $cause, $end, %o) = @_;
	my $from = time;
	$cause->();
	my $there = $o{while} // sub { 1 };
	my $over = time + $out; # when all that it takes is over
	my $limit = $from + 20;
	do { $there->(); sleep(0.02) } until (scalar(reads($over)) >= 40 || time > $limit);
	my @late = from('two', $over);
	is(scalar @late, 0, "$name: it is not read from");
	cmp_ok(scalar(reads($over)), '>=', 40, '... others are');
	my $back = time;
	if ($end)
	{
		$end->();
		$back = time;
		my $took = wait_until(20, sub { $there->(); scalar from('two', $back) });
		ok(defined $took && $took < $lives, sprintf('... it is when that is over (%.2f s)', $took // -1))
		  or diag($pool->sql('SELECT name, state, reason, lag_ms FROM pgpool.pg_stat_replicas'));
	}
	my @errors = errors($from);
	is(scalar @errors, 0, '... and nobody got an error') or diag(map { "$_->[0] $_->[2]\n" } @errors[ 0 .. ($#errors < 5 ? $#errors : 5) ]);
	my @foreign = grep { $_->[2] !~ /^(zero|one|two|error.*)$/ } reads($from);
	is(scalar @foreign, 0, '... nor read from another server') or diag($foreign[0][2]);
	my ($longest) = sort { $b <=> $a } 0, map { $_->[1] - $_->[0] } reads($from);
	cmp_ok($longest, '<', 2.5, sprintf('... nor waited long (%.2f s)', $longest));
}

within(30, sub { from('one', 0) && from('two', 0) }, 'both standbys are read from')
  or diag($pool->sql('SELECT * FROM pgpool.pg_stat_replicas'), "\n", $pool->sql("SELECT * FROM pgpool.explain_route('SELECT count(*) FROM t')"));

# ---- a slow read is no fault
{
	my $client = $pool->raw;
	$client->value('SELECT count(*) FROM t');
	like($client->value("/* pgpool: replica */ SELECT current_setting('here.node') FROM pg_sleep(3)"), qr/^(one|two)$/, 'a read that takes its time is not cut');
	$client->close;
}

# ---- the machine
scene('killed', sub { $two->forget_sql; $two->node->stop('immediate') }, sub { $two->node->start });
{
	my @all;
	scene('stopped without a word',
		sub { my $pid = $two->postmaster_pid; @all = ($pid, keys %{ { children($pid) } }); kill 'STOP', @all },
		sub { kill 'CONT', reverse @all });
}
SKIP:
{
	skip('no network namespace can be made here', 6) unless $own_network;
	my @rule = ('to', '127.0.0.2/32');
	$two->node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1,127.0.0.2'");
	$two->forget_sql;
	$two->node->restart;
	system(qw(ip rule add pref 2 lookup local)) == 0 && system(qw(ip rule del pref 0)) == 0 or skip('no rules for packets here', 6);
	$pool->sql("SELECT pgpool.alter_replica('two', host => '127.0.0.2')");
	my $moved = time;
	wait_until(20, sub { scalar from('two', $moved) });
	scene('its network cut', sub { system(qw(ip rule add pref 1), @rule, 'blackhole') }, sub { system(qw(ip rule del pref 1), @rule, 'blackhole') });
	$pool->sql("SELECT pgpool.alter_replica('two', host => '127.0.0.1')");
}

# ---- what it has
scene('its replay paused', sub { $two->sql('SELECT pg_wal_replay_pause()'); &touch_row }, sub { $two->sql('SELECT pg_wal_replay_resume()') }, while => \&touch_row);
$pool->sql("SELECT pgpool.alter_tenant('default', consistency => 'eventual')");
$pool->sql("SELECT pgpool.alter_replica('two', max_lag => '500 milliseconds')");
scene('behind by more than max_lag', sub { $two->sql('SELECT pg_wal_replay_pause()'); &touch_row }, sub { $two->sql('SELECT pg_wal_replay_resume()') }, while => \&touch_row);
$pool->sql("SELECT pgpool.alter_replica('two', reset => '{max_lag}')");
$pool->sql("SELECT pgpool.alter_tenant('default', reset => '{consistency}')");

# ---- whom it lets in
sub end_clients { $two->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"); }
sub reload { $two->sql('SELECT pg_reload_conf()'); }
scene('closed by pg_hba.conf', sub { $two->write_hba("host all app 127.0.0.1/32 reject\n"); reload(); end_clients() }, sub { $two->write_hba; reload() });
scene('closed by a changed password',
	sub { $pool->sql("ALTER ROLE app PASSWORD 'another'"); wait_until(10, sub { $two->sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'") eq $pool->sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'") }); end_clients() },
	sub { $pool->raw(password => 'another')->close for 1 .. 8 }); # which workers they come to is chance
$pool->sql("ALTER ROLE app PASSWORD 'app-secret'");
$pool->raw->close for 1 .. 8;

# ---- where it is
my $nowhere = free_port();
scene('said to be where nobody is', sub { $pool->sql("SELECT pgpool.alter_replica('two', port => $nowhere)") },
	sub { $pool->sql("SELECT pgpool.alter_replica('two', port => " . $two->node->port . ')') });
my $other = PgPool->new('other', preload => 0, start => 0, tls => 0);
$other->node->append_conf('postgresql.conf', 'port = ' . $two->node->port . "\nhere.node = 'other'\nunix_socket_directories = '" . $other->node->host . "'\n");
scene('of another cluster',
	sub {
		$two->forget_sql;
		$two->node->stop('immediate');
		$other->node->start;
		IPC::Run::run([ 'psql', '-qX', '-h', $other->node->host, '-p', $two->node->port, '-d', 'postgres' ], '<', \"CREATE ROLE app LOGIN PASSWORD 'app-secret'; CREATE DATABASE app OWNER app; \\c app\nCREATE TABLE t AS SELECT k, 0 AS v FROM generate_series(0, 99) k; GRANT ALL ON t TO app;\n");
	},
	sub { $other->node->stop('immediate'); $two->node->start });
scene('promoted', sub { $two->sql('SELECT pg_promote()') }, undef);

# ---- the primary itself: clients lose their connections, and come again
my $from = time;
$pool->forget_sql;
$pool->node->restart('fast');
$pool->ready(30);
my $back = time;
within(10, sub { scalar from('one', $back) }, 'the primary was restarted: who comes again reads from a standby');
my @wrong = grep { $_->[2] =~ /^error/ && $_->[2] !~ /closed|connect|57P0|08/ } reads($from);
is(scalar @wrong, 0, '... errors are those of lost connections') or diag($wrong[0][2]);
is(scalar from('two', $from), 0, '... and nobody reads from who was promoted');
kill 'KILL', splice @readers;
done_testing();
