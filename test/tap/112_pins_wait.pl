# More clients keep a server than the pool can spare. Nobody is disconnected as long as nobody waits, nor while the
# servers come and go; when somebody has waited for the time of grace, it is the client that was idle for longest, of all
# workers, and only as many as needed.
use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(time);

my $node = pool_node('pinswait', conf => "ssl = off\npgpool.workers = 2\npgpool.default_pool_size = 4\npgpool.pin_grace_time = 3s\nautovacuum = off");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { my $r = $admin->query($_[0]); die "$_[0]: $r->{error}{M}" if $r->{error}; return $r->{rows}[0] ? $r->{rows}[0][0] : '' }
sub client { return connect_as($node, user => $_[0] // 'app', password => 'secret', database => 'postgres') }
sub leave { $_->send(PgPoolWire::message('X', '')), $_->close for @_ }
sub pool { return sql("SELECT $_[0] FROM pgpool.pg_stat_pools WHERE role = 'app'") }
sub last_words
{
	my $c = shift;
	ok($c->closes(60), 'a connection ends') or return 'it is still open';
	my ($fatal) = map { PgPoolWire::error_fields($_->[1]) } grep { $_->[0] eq 'E' } @{ $c->{seen} };
	return $fatal ? join '|', @$fatal{qw(S C M D H)} : 'no error';
}
sub is_open { my $c = shift; return $c->value('SELECT 1') eq '1' }
sql("CREATE ROLE $_ LOGIN PASSWORD 'secret'") for qw(app one);

# ---- 12 clients that hold a lock for 0.2 s each, on 4 servers: all come through
{
	my $script = $node->basedir . '/locks.sql';
	open(my $file, '>', $script) or die $script;
	print $file "SELECT pg_advisory_lock(:client_id);\n\\sleep 200 ms\nSELECT pg_advisory_unlock(:client_id);\n";
	close $file;
	chmod 0644, $script;
	local $ENV{PGPASSWORD} = 'secret';
	my ($out, $err);
	IPC::Run::run([ 'pgbench', '-n', '-c', 12, '-j', 2, '-t', 4, '-f', $script, '-h', '127.0.0.1', '-p', $node->{pool_port}, '-U', 'app', 'postgres' ],
		'>', \$out, '2>', \$err, IPC::Run::timeout(120));
	like($out, qr{number of transactions actually processed: 48/48}, 'none of 12 clients with a lock for 0.2 s is lost') or diag($err);
	unlike($err, qr/too many clients of this pool/, '... nor told that it is one too many');
}

# ---- all servers are kept, by clients of both workers: as long as nobody waits they stay
my @c = map { client() } 1 .. 4;
$_->query('SELECT pg_advisory_lock(' . $_->{pid} . ')') for @c;
is(pool('servers_pinned'), 4, 'all servers are kept, more than max_pinned, ' . pool('max_pinned'));
is(scalar(grep { is_open($_) } @c), 4, 'and nobody is disconnected') for 1 .. 2;

# ---- who is idle for longest goes
{
	is_open($_) for @c[ 2, 0, 3 ]; # 1 was heard before
	my $waits = client();
	my $start = time;
	$waits->send(PgPoolWire::message('Q', "SELECT 'served'\0"));
	my $r = $waits->answer;
	my $took = time - $start;
	is($r->{rows}[0][0] // $r->{error}{M}, 'served', 'somebody who waits is served');
	ok($took > 2.5, sprintf '... after the time of grace: %.1f s', $took);
	like(last_words($c[1]), qr/^FATAL\|53400\|too many clients of this pool keep their server\|This one keeps it because of: advisory lock, and was idle for \d+ ms while others waited\. A pool of 4 has at most 3 for such clients\.\|Raise max_pinned or pool_size/,
		'the one that was idle for longest is told');
	is(scalar(grep { is_open($_) } @c[ 0, 2, 3 ]), 3, '... and no other');
	is($waits->value('SELECT pg_try_advisory_lock(' . $c[1]{pid} . ')'), 't', '... whose lock is gone');
	$waits->query('SELECT pg_advisory_unlock_all()');
	leave($waits);
}

# ---- 0: the others wait, as long as query_wait_timeout says
{
	my $more = client();
	$more->query('SELECT pg_advisory_lock(' . $more->{pid} . ')');
	is(pool('servers_pinned'), 4, 'all are kept again');
	sql($_) for "SELECT pgpool.set_user('default', 'app', query_wait_timeout => '6 seconds')", 'ALTER SYSTEM SET pgpool.pin_grace_time = 0', 'SELECT pg_reload_conf()';
	ok(poll_until(sub { sql('SHOW pgpool.pin_grace_time') eq '0' }, 'reload'), 'no time of grace');
	my $waits = client();
	is($waits->value("SELECT 'served'"), '53300 no server connection became free within 6000 ms', 'nobody is disconnected for who waits');
	is(scalar(grep { is_open($_) } @c[ 0, 2, 3 ], $more), 4, '... and all go on');
	sql($_) for 'ALTER SYSTEM SET pgpool.pin_grace_time = 200', 'SELECT pg_reload_conf()';
	is($waits->value("SELECT 'served'"), 'served', 'with a short one he is served');
	my $open = grep { !$_->closes(0.3) } @c[ 0, 2, 3 ], $more;
	is($open, 3, '... for one of four');
	leave($waits, $more, @c[ 0, 2, 3 ]);
}

# ---- a pool of one does not lock up
{
	sql("SELECT pgpool.set_user('default', 'one', pool_size => 1)");
	my ($keeps, $waits) = (client('one'), client('one'));
	$keeps->query('CREATE TEMP TABLE t (a int)');
	is($waits->value("SELECT 'served'"), 'served', 'the only server of a pool is kept, and another client is served');
	like(last_words($keeps), qr/^FATAL\|53400\|/, '... for which who kept it had to go');
	leave($waits);
}

$node->stop;
done_testing();
