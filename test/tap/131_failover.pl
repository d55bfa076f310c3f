# Shows: clients that look for the primary themselves (libpq's target_session_attrs=read-write over three hosts) find it
# through pgpool's ports as soon as through the servers' own, when Patroni moves it: at a switchover, and when the primary's
# machine dies. Each client connects anew for each transaction. dev/patroni.sh unpacks what this takes; else it is skipped.
use strict;
use warnings FATAL => 'all';

use File::Spec;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use POSIX ();
use PgPool;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $unpacked = File::Spec->rel2abs($ENV{PGPOOL_PATRONI} // 'build/patroni');
local $ENV{PYTHONPATH} = "$unpacked/usr/lib/python3/dist-packages" if -d $unpacked;
my %program = map { my $name = $_; $name => (grep { -x } map { "$_/$name" } "$unpacked/usr/bin", qw(/usr/bin /usr/sbin /usr/local/bin))[0] } qw(patroni etcd);
for my $name (sort keys %program) { plan skip_all => "$name is not here: dev/patroni.sh" unless $program{$name} }
my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
my $works = IPC::Run::run([ $python, '-c', 'import patroni, psycopg2, etcd' ], '<', \undef, '>', \my $nothing, '2>', \my $problem);
plan skip_all => 'Patroni does not run here: ' . (split /\n/, $problem)[-1] unless $works;

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
my $sockets = PostgreSQL::Test::Utils::tempdir_short();
my $owner = getpwuid $<;
chomp(my $bindir = `$ENV{PG_CONFIG} --bindir`);
my (%node, @jobs, $leader);
my $etcd = start('etcd', do {
	my ($client, $peer) = map { 'http://127.0.0.1:' . free_port() } 1, 2;
	$program{etcd_at} = $client;
	[ $program{etcd}, '--data-dir', "$dir/etcd.data", '--listen-client-urls', $client, '--advertise-client-urls', $client, '--listen-peer-urls', $peer,
		'--initial-advertise-peer-urls', $peer, '--initial-cluster', "default=$peer", '--log-level', 'error' ];
});

# A program of ours: its pid, and what it writes goes to a file.
sub start
{
	my ($name, $command) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', "$dir/$name.log");
		open(STDERR, '>&', \*STDOUT);
		exec qw(setpriv --pdeathsig TERM), @$command or POSIX::_exit(127); # they end with the test, however that ends
	}
	push @jobs, $pid;
	return $pid;
}

sub end_of
{
	my ($pid, $signal, $seconds) = @_;
	kill $signal, $pid;
	my $ended = wait_until($seconds, sub { waitpid($pid, POSIX::WNOHANG()) != 0 });
	@jobs = grep { $_ != $pid } @jobs if defined $ended;
	return defined $ended;
}

sub postmaster
{
	my ($n) = @_;
	open(my $file, '<', "$node{$n}{data}/postmaster.pid") or return undef;
	return (<$file> // '') =~ /^(\d+)/ ? $1 : undef;
}

END
{
	my $status = $?;
	# the last of them first: clients, then Patroni, which stops its server, then etcd
	my @running = reverse @jobs;
	for my $pid (@running) { end_of($pid, 'TERM', 20) || end_of($pid, 'KILL', 5) }
	for my $n (sort keys %node)
	{
		my $pid = postmaster($n) // next;
		next unless alive($pid) && (readlink "/proc/$pid/cwd" // '') eq $node{$n}{data};
		kill 'QUIT', $pid;
		wait_until(10, sub { !alive($pid) }) or kill 'KILL', $pid;
	}
	$? = $status;
}

# ---- three nodes
sub configuration
{
	my ($n) = @_;
	my %at = %{ $node{$n} };
	return <<"YAML";
scope: pgpool
name: $n
restapi: { listen: '127.0.0.1:$at{rest}', connect_address: '127.0.0.1:$at{rest}' }
etcd3: { host: '@{[ $program{etcd_at} =~ s{http://}{}r ]}' }
bootstrap:
  dcs: { ttl: 20, loop_wait: 1, retry_timeout: 3, maximum_lag_on_failover: 1048576 }
  initdb: [ encoding: UTF8, locale: C, no-sync ]
postgresql:
  listen: '127.0.0.1:$at{port}'
  connect_address: '127.0.0.1:$at{port}'
  data_dir: '$at{data}'
  bin_dir: '$bindir'
  pgpass: '$dir/$n.pgpass'
  use_unix_socket: true
  authentication:
    superuser: { username: '$owner' }
    replication: { username: copy, password: copy-secret }
  basebackup: [ no-sync, checkpoint: fast ]
  pg_hba:
    - local all $owner peer
    - local all all scram-sha-256
    - host replication copy 127.0.0.1/32 scram-sha-256
    - host all all 127.0.0.1/32 scram-sha-256
  parameters:
    unix_socket_directories: '$sockets'
    shared_preload_libraries: pgpool
    pgpool.port: $at{pool}
    pgpool.default_pool_size: 5
    shared_buffers: 16MB
    password_encryption: scram-sha-256
    log_min_messages: info
YAML
}
my @names = qw(one two three);
for my $n (@names)
{
	$node{$n} = { data => "$dir/$n", map { $_ => free_port() } qw(port pool rest) };
	append_to_file("$dir/$n.yml", configuration($n));
}
my $http = HTTP::Tiny->new(timeout => 5);

# name => role of all members that are up, as any of them says
sub members
{
	for my $n (@names)
	{
		my $r = $http->get("http://127.0.0.1:$node{$n}{rest}/cluster");
		next unless $r->{success};
		my $all = decode_json($r->{content})->{members} // [];
		return map { $_->{name} => $_->{role} } grep { ($_->{state} // '') =~ /^(running|streaming)$/ && defined $_->{timeline} } @$all;
	}
	return ();
}
sub has_leader
{
	my ($replicas, $not) = @_;
	my %role = members();
	my ($found) = grep { $role{$_} eq 'leader' && $_ ne ($not // '') } keys %role;
	return 0 unless $found && (grep { $_ ne 'leader' } values %role) >= $replicas;
	$leader = $found;
	return 1;
}
my $starts = time;
for my $n (@names)
{
	$node{$n}{patroni} = start($n, [ $python, $program{patroni}, "$dir/$n.yml" ]);
	defined wait_until(60, sub { has_leader(0) }) or last if $n eq 'one';
}
ok(defined wait_until(60, sub { $leader && has_leader(2) }), 'Patroni has made a primary and two standbys') or give_up();
note(sprintf 'after %.1f s, the primary is %s', time - $starts, $leader // 'nobody');

sub give_up
{
	diag("$_: " . join "\n", (split /\n/, slurp_file("$dir/$_.log"))[ -8 .. -1 ]) for grep { -s "$dir/$_.log" } 'etcd', @names;
	done_testing();
	exit 1;
}

sub primary
{
	my ($sql) = @_;
	my ($out, $err);
	IPC::Run::run([ "$bindir/psql", qw(-XAtq -v ON_ERROR_STOP=1 -d), "host=$sockets port=$node{$leader}{port} user=$owner dbname=postgres", '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err) or die "$sql: $err";
	chomp $out;
	return $out;
}
primary($_) for 'CREATE EXTENSION pgpool', "CREATE ROLE app LOGIN PASSWORD 'app-secret'", 'CREATE TABLE seen (port int)', 'GRANT ALL ON seen TO app';

# ---- clients: each writes a line for each transaction, with the time and the port of the server that took it
my %client;
sub client
{
	my ($kind) = @_; # port or pool
	my $hosts = join ',', ('127.0.0.1') x @names;
	my $ports = join ',', map { $node{$_}{$kind} } @names;
	my $loop = 'while :; do out=$("$0" -XAtq -d "$1" -c "$2" 2>&1) && state=ok || state=no; echo "$(date +%s.%N) $state" $out; sleep 0.05; done';
	local $ENV{PGPASSWORD} = 'app-secret';
	$client{$kind} = start("client-$kind", [ 'sh', '-c', $loop, "$bindir/psql",
		"host=$hosts port=$ports user=app dbname=postgres target_session_attrs=read-write connect_timeout=5", "INSERT INTO seen VALUES (current_setting('port')::int) RETURNING port" ]);
}
# lines since a time: [time, ok or no, what]
sub lines
{
	my ($kind, $since) = @_;
	return () unless -e "$dir/client-$kind.log"; # it has not begun
	return grep { $_->[0] > $since } map { [ split ' ', $_, 3 ] } grep { /^[\d.]+ (ok|no) ./ } split /\n/, slurp_file("$dir/client-$kind.log");
}
# when a transaction was first done by that server, since
sub back { my ($kind, $since, $n) = @_; my ($first) = grep { $_->[1] eq 'ok' && $_->[2] eq $node{$n}{port} } lines($kind, $since); return $first && $first->[0] }

sub event
{
	my ($what, $old, $limit, $happens) = @_;
	my $at = time;
	$happens->();
	ok(defined wait_until($limit, sub { has_leader(0, $old) }), "$what: there is another primary") or give_up();
	my %back;
	for my $kind (qw(port pool))
	{
		within(15, sub { $back{$kind} = back($kind, $at, $leader) }, "$what: clients of the " . ($kind eq 'pool' ? "pools' ports" : "servers' ports") . ' write there')
		  or diag join "\n", map { "@$_" } grep { defined } (lines($kind, $at))[ -5 .. -1 ];
	}
	cmp_ok(($back{pool} // time) - ($back{port} // $at), '<=', 1, sprintf('... through pgpool within a second of the others (%.2f s, %.2f s after it)', map { ($back{$_} // time) - $at } qw(pool port)));
	my $since = $back{pool} // return fail('... and go on');
	ok(defined wait_until(30, sub { grep({ $_->[1] eq 'ok' } lines('pool', $since)) >= 20 }), '... and go on');
	is(scalar(grep { $_->[1] ne 'ok' } lines('pool', $since)), 0, '... without another error');
}

client($_) for qw(port pool);
my $before = time;
ok(defined wait_until(30, sub { back('port', $before, $leader) && back('pool', $before, $leader) }), 'both kinds of clients find the primary') or give_up();

my $first = $leader;
event('switchover', $first, 60, sub {
	my $r = $http->post("http://127.0.0.1:$node{$first}{rest}/switchover", { content => encode_json({ leader => $first }), headers => { 'Content-Type' => 'application/json' } });
	note("switchover: $r->{status} $r->{content}");
});
ok(defined wait_until(60, sub { has_leader(2) }), 'three nodes again');

my $second = $leader;
event('crash', $second, 90, sub {
	my $postmaster = postmaster($second);
	end_of($node{$second}{patroni}, 'KILL', 5); # first: it would start its server again
	kill 'KILL', $postmaster;
});
note(sprintf '%.1f s in all', time - $starts);
done_testing();
