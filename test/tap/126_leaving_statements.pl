# Shows: what a client has sent is done, also when it leaves at once, as PostgreSQL does it (which is asked, on its own
# port): Query, Terminate and the end in one go while all servers are busy, a half close while waiting, a pipeline, COMMIT.
# A statement that runs when its client leaves runs to its end with on_disconnect = finish, within query_wait_timeout, and
# is canceled with cancel; one whose output nobody takes ends. Own notifications name the pid of the login.
use strict;
use warnings;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('leave', workers => 1, pool_size => 2, session => 1);
$pool->sql('CREATE TABLE f (a text)', 'app');
$pool->sql('GRANT ALL ON f TO PUBLIC', 'app');

sub simple { return PgPoolWire::query_message(@_) }
sub extended { return PgPoolWire::parse($_[0]) . PgPoolWire::bind_to() . PgPoolWire::execute() }
my ($sync, $terminate) = (PgPoolWire::sync(), PgPoolWire::terminate());
sub rows { my ($like) = @_; return $pool->sql("SELECT count(*) FROM f WHERE a LIKE '$like%'", 'app') }
sub running { my ($like) = @_; return $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%$like%' AND pid <> pg_backend_pid()") }
sub setting
{
	my ($value, $wait) = @_;
	$pool->sql("SELECT pgpool.alter_tenant('default', on_disconnect => '$value'" . ($wait ? ", query_wait_timeout => '$wait'" : '') . ')');
	$pool->sql('SELECT pg_sleep(0)');
}

# What goes out in one write, and how many rows there are afterwards.
my %sent = (
	'a query' => sub { simple("INSERT INTO f VALUES ('$_[0]')") . $terminate },
	'a query, no Terminate' => sub { simple("INSERT INTO f VALUES ('$_[0]')") },
	'two queries' => sub { simple("INSERT INTO f VALUES ('$_[0]')") x 2 . $terminate },
	'a transaction' => sub { simple('BEGIN') . simple("INSERT INTO f VALUES ('$_[0]')") . simple('COMMIT') . $terminate },
	'a transaction without COMMIT' => sub { simple('BEGIN') . simple("INSERT INTO f VALUES ('$_[0]')") . $terminate },
	'a batch' => sub { extended("INSERT INTO f VALUES (''$_[0]'')" =~ s/''/'/gr) . $sync . $terminate },
	'a batch without Sync' => sub { extended("INSERT INTO f VALUES (''$_[0]'')" =~ s/''/'/gr) . $terminate },
	'a query and a batch without Sync' => sub { simple("INSERT INTO f VALUES ('$_[0]')") . extended("INSERT INTO f VALUES (''$_[0]'')" =~ s/''/'/gr) . $terminate },
	'COPY' => sub { simple('COPY f FROM STDIN') . PgPoolWire::message('d', "$_[0]\n$_[0]\n") . PgPoolWire::message('c', '') . $terminate },
	'a long query' => sub { simple("INSERT INTO f VALUES ('$_[0]') /* " . 'x' x 300000 . ' */') . $terminate },
	'a query and half a message' => sub { simple("INSERT INTO f VALUES ('$_[0]')") . substr(simple("INSERT INTO f VALUES ('$_[0]')"), 0, 20) },
	'a query and most of a long one' => sub { simple("INSERT INTO f VALUES ('$_[0]')") . substr(simple("INSERT INTO f VALUES ('$_[0]') /* " . 'x' x 300000 . ' */'), 0, 200000) },
	'two slow queries and half a message' => sub { simple("INSERT INTO f SELECT '$_[0]' FROM pg_sleep(1.5)") x 2 . substr(simple("INSERT INTO f VALUES ('$_[0]')"), 0, 20) },
	'a slow query' => sub { simple("INSERT INTO f SELECT '$_[0]' FROM pg_sleep(1.5)") . $terminate });
# What is committed. PostgreSQL's own backend may notice in between that nobody takes its answers, and leave the rest.
my %expected = map { $_ => /without (Sync|COMMIT)/ && !/query and/ ? 0 : /two|COPY/ ? 2 : 1 } keys %sent;
my %port = (direct => $pool->server_port, pool => $pool->port, session => $pool->session_port);
my $n = 0;

sub leave
{
	my ($where, $bytes, $how, $busy) = @_;
	my %o = (timeout => 60);
	my $c = $pool->raw(%o, port => $port{$where});
	$c->value('SELECT 1') unless $busy;
	$c->write($bytes);
	$how eq 'half' ? $c->half_close : $c->$how;
	return $c;
}
# until nothing of it is at work any more
sub over
{
	my ($tag, $direct) = @_;
	return defined wait_until(30, sub { running($tag) == 0 && $pool->sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE state NOT IN ('idle', 'listener')") == 0 && $pool->sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE role = 'app'") == 0
		  && (!$direct || $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $direct->{pid}") == 0) });
}

setting('finish', '120 s');
for my $what (sort keys %sent)
{
	for my $how (qw(fin half))
	{
		my %rows;
		for my $where (qw(direct pool session))
		{
			my $tag = 'r' . ++$n . '_';
			my $c = leave($where, $sent{$what}->($tag), $how);
			if ($how eq 'half')
			{
				eval { 1 while $c->message(30) }; # all that is said up to the end
				ok($c->{eof}, "$what, half closed, $where: it ends");
			}
			ok(over($tag, $where eq 'direct' ? $c : undef), "$what, $how, $where: over") or diag $pool->sql('SELECT * FROM pgpool.pg_stat_clients');
			$rows{$where} = rows($tag);
		}
		cmp_ok($rows{direct}, $how eq 'half' ? '==' : '<=', $expected{$what}, "$what, $how: PostgreSQL has $rows{direct} rows");
		is($rows{$_}, $expected{$what}, "... $_: $expected{$what}") for qw(pool session);
	}
}

# ---- all servers of the pool are busy
for my $value (qw(finish cancel))
{
	setting($value);
	my @quick = grep { !/slow/ } sort keys %sent;
	my %tag = map { $_ => 'b' . ++$n . '_' } @quick;
	my @busy = map { my $c = $pool->raw; $c->ask('BEGIN'); $c } 1, 2;
	my @leavers = map { $pool->raw(timeout => 60) } @quick;
	my $half = $pool->raw(timeout => 60);
	for my $i (0 .. $#quick)
	{
		$leavers[$i]->write($sent{ $quick[$i] }->($tag{ $quick[$i] }));
		$i % 2 ? $leavers[$i]->fin : $leavers[$i]->rst;
	}
	$half->query("SELECT 'for a half closed one'");
	$half->half_close;
	within(10, sub { $pool->sql("SELECT sum(clients_waiting) FROM pgpool.pg_stat_pools WHERE role = 'app'") == @quick + 1 }, "$value: all of them wait")
	  or diag $pool->sql('SELECT * FROM pgpool.pg_stat_clients');
	$_->ask('COMMIT') for @busy;
	is($half->result->{rows}[0][0], 'for a half closed one', "$value: a half close while waiting gets its result");
	ok($half->ended(5), '... and the end');
	$_->close for @busy;
	ok(over('b'), "$value: over");
	is(rows($tag{$_}), $expected{$_}, "$value, waiting, $_: $expected{$_} rows") for @quick;
}

# ---- who waits for ever
setting('finish', '700 ms');
{
	my @busy = map { my $c = $pool->raw; $c->ask('BEGIN'); $c } 1, 2;
	my $c = $pool->raw(timeout => 60);
	$c->query("INSERT INTO f VALUES ('late')");
	$c->half_close;
	my $r = $c->ended(20);
	is($r && $r->{error}{C}, '53300', 'who waits longer than query_wait_timeout is told so');
	$_->close for @busy;
	is(rows('late'), 0, '... and the statement is not run');
}

# ---- a statement that runs on
my @ends = (
	[ 'finish', '700 ms', "with a bound, it is canceled", 0 ],
	[ 'cancel', '120 s', 'cancel: it is canceled', 0 ]);
for my $case (@ends)
{
	my ($value, $wait, $name) = @$case;
	setting($value, $wait);
	for my $how (qw(fin rst half))
	{
		my $tag = 's' . ++$n . '_';
		my $c = leave('pool', simple("INSERT INTO f SELECT '$tag' FROM pg_sleep(600)"), $how);
		within(15, sub { running($tag) == 0 && $pool->sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE role = 'app'") == 0 }, "$name ($how)");
		is(rows($tag), 0, '... and undone');
	}
}
setting('finish', '120 s');
{
	my $tag = 't' . ++$n . '_';
	my $c = leave('pool', simple("INSERT INTO f SELECT '$tag' FROM pg_sleep(600)") . $terminate, 'fin');
	within(10, sub { running($tag) == 1 && $pool->sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE state = 'closing'") == 1 }, 'finish: it runs, for a client in state closing');
	$pool->sql("SELECT pgpool.terminate_client(id) FROM pgpool.pg_stat_clients WHERE state = 'closing'");
	within(10, sub { running($tag) == 0 }, '... which can be terminated');

	leave('pool', simple("/* $tag */ SELECT repeat('x', 100000) FROM generate_series(1, 10000000)") . $terminate, 'fin');
	within(20, sub { running($tag) == 0 }, 'a result that nobody takes ends its statement');

	$pool->sql("SELECT pgpool.set_user('default', 'app', on_disconnect => 'cancel')");
	leave('pool', simple("INSERT INTO f SELECT '$tag' FROM pg_sleep(600)") . $terminate, 'fin');
	within(10, sub { running($tag) == 0 }, 'the role\'s on_disconnect counts before the tenant\'s');
	$pool->sql("SELECT pgpool.set_user('default', 'app', reset => '{on_disconnect}')");
	$pool->sql("SELECT pgpool.alter_tenant('default', reset => '{on_disconnect}')");
	$pool->sql("ALTER SYSTEM SET pgpool.default_on_disconnect = 'cancel'");
	$pool->sql('SELECT pg_reload_conf()');
	within(10, sub { $pool->sql('SHOW pgpool.default_on_disconnect') eq 'cancel' }, 'a reload');
	within(20, sub {
		my $c = leave('pool', simple("INSERT INTO f SELECT '$tag' FROM pg_sleep(600)") . $terminate, 'fin');
		return defined wait_until(3, sub { running($tag) == 0 });
	}, '... and pgpool.default_on_disconnect where nothing else is said');
	$pool->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%$tag%' AND pid <> pg_backend_pid()");
}

# ---- one's own notifications
for my $where (qw(direct pool session))
{
	my $c = $where eq 'direct' ? $pool->direct : $pool->raw(port => $port{$where});
	$c->ask('LISTEN mine');
	my $real = $c->value('SELECT pg_backend_pid()');
	$c->query('NOTIFY mine');
	my $pid;
	while (my $m = $c->message(10))
	{
		$pid = unpack('l>', $m->[1]) if $m->[0] eq 'A';
		last if defined $pid && $m->[0] eq 'Z' || $m->[0] eq 'A' && !$c->{in};
	}
	is($pid, $c->{pid}, "$where: one's own notification names the pid of the login (PQbackendPID)");
	is($pid, $real, '... which is that of the backend') if $where ne 'pool';
	isnt($pid, $real, '... and not that of the backend of the moment') if $where eq 'pool';
	$c->close;
}
done_testing();
