# Shows: pgpool beside what else is preloaded into servers: with all libraries that are installed here together, pgpool
# first and last, the server starts, logins by every way work, a crash of a worker is contained, and
# extensions (theirs and pgpool's) can be dropped and made again. dev/neighbours.sh installs what Debian has; what is not
# there is told as skipped.
use strict;
use warnings;
use Test::More;
use PgPool;

# library => extension ('' = none), package ('' = the server's own), settings
my @neighbours = (
	[ 'auto_explain',       '',                   '', "auto_explain.log_min_duration = 0\n" ],
	[ 'auth_delay',         '',                   '', "auth_delay.milliseconds = 1\n" ],
	[ 'pg_prewarm',         'pg_prewarm',         '', '' ],
	[ 'pg_stat_statements', 'pg_stat_statements', '', "pg_stat_statements.track = all\n" ],
	[ 'set_user',           'set_user',           'set-user',         '' ],
	[ 'pgaudit',            'pgaudit',            'pgaudit',          "pgaudit.log = 'all'\n" ],
	[ 'pg_cron',            'pg_cron',            'cron',             "cron.database_name = 'postgres'\n" ],
	[ 'pg_hint_plan',       'pg_hint_plan',       'pg-hint-plan',     '' ],
	[ 'pg_qualstats',       'pg_qualstats',       'pg-qualstats',     '' ],
	[ 'pg_stat_kcache',     'pg_stat_kcache',     'pg-stat-kcache',   '' ],
	[ 'pg_wait_sampling',   'pg_wait_sampling',   'pg-wait-sampling', '' ]);

my ($libdir, $major) = map { my $v = `$ENV{PG_CONFIG} $_`; chomp $v; $v } qw(--pkglibdir --version);
($major) = $major =~ /(\d+)/;
my @here;
for my $n (@neighbours)
{
	if (-e "$libdir/$n->[0].so") { push @here, $n; }
	else { diag "skipped: $n->[0]: " . ($n->[2] ? "the package postgresql-$major-$n->[2] is not installed" : "the server has no such library"); }
}
ok(scalar(@here), 'there is something to be preloaded: ' . join(', ', map { $_->[0] } @here));

sub preload
{
	my ($where) = @_;
	# pg_stat_kcache must come behind pg_stat_statements
	my @libraries = map { $_->[0] } @here;
	@libraries = $where eq 'first' ? ('pgpool', @libraries) : (@libraries, 'pgpool');
	return "shared_preload_libraries = '" . join(', ', @libraries) . "'\nmax_worker_processes = 20\n" . join('', map { $_->[3] } @here);
}

for my $where (qw(first last))
{
	my $pool    = PgPool->new("beside_$where", workers => 2, conf => preload($where) . "pgpool.log_connections = on\n");
	my $started = $pool->started_at;
	my $log     = $pool->log_offset;
	my @extensions = grep { $_ } map { $_->[1] } @here;
	for my $e (@extensions)
	{
		ok(eval { $pool->sql("CREATE EXTENSION $e"); 1 }, "$where: CREATE EXTENSION $e") or diag $@;
	}
	my %pids = $pool->worker_pids;

	# logins by every way, and work of several sessions in turn on few servers
	is($pool->run_psql('SELECT current_user', user => $_), $_, "$where: $_ logs in by SCRAM") for qw(app app2);
	is($pool->run_psql('SELECT 7', host => $pool->socket_dir), '7', "$where: by Unix socket");
	is($pool->run_psql('SELECT 8', database => 'postgres'), '8', "$where: in the database of the extensions");
	my ($status, $out, $err) = $pool->psql('SELECT 1', password => 'wrong');
	like($err, qr/password authentication failed/, "$where: a wrong password is refused");
	$pool->run_psql('CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 100)');
	my @clients = map { $pool->raw } 1 .. 12;
	is(join(' ', map { $_->value("SELECT count(*) + $_->{pid} - $_->{pid} FROM t") } @clients),
		join(' ', (100) x 12), "$where: twelve clients share servers");
	is_deeply({ $pool->worker_pids }, \%pids, "$where: no worker ended") or diag $pool->log_text($log);

	# a crash is contained, beside whatever they have hooked in
	my $bystander = $pool->direct;
	$bystander->query('SELECT pg_sleep(3600)');
	my $pid = $pids{0};
	kill 'SEGV', $pid;
	within(30, sub { $pool->log_text($log) =~ /\(PID $pid\) exited with exit code 1/ }, "$where: a worker crashes, and exits with 1");
	within(30, sub { my $p = $pool->worker_pid(0); $p && $p != $pid && eval { $pool->ready(20) } }, "$where: it comes back");
	is($pool->sql("SELECT state FROM pg_stat_activity WHERE pid = $bystander->{pid}"), 'active', "$where: a session beside it sleeps on");
	$bystander->rst;

	# extensions go and come
	ok(eval { $pool->sql("DROP EXTENSION $_ CASCADE"); 1 }, "$where: DROP EXTENSION $_") or diag $@ for reverse @extensions;
	ok(eval { $pool->sql('DROP EXTENSION pgpool'); $pool->sql('CREATE EXTENSION pgpool'); 1 }, "$where: pgpool's own, too") or diag $@;
	within(30, sub { eval { $pool->run_psql('SELECT 9') eq '9' } }, "$where: the port serves again");

	is($pool->crashes(0), 0, "$where: the server did not restart its processes") or diag $pool->log_text($log);
	is($pool->started_at, $started, "$where: the postmaster is the same");
	is((() = $pool->log_text(0) =~ /crashed by signal/g) + 0, 1, "$where: no crash but the one");
	$pool->forget_sql;
	$pool->node->stop('fast');
}
done_testing();
