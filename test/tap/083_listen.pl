# LISTEN in transaction mode: a client that only listens has no server, and hears what a session of its own would,
# once and in order, at commit, and without sending anything. The measure is a session at the server itself.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{PGPOOL_SEED} // time;
srand $seed;
note("seed $seed");

my $node = pool_node('listen', conf => "ssl = off\npgpool.default_pool_size = 2\npgpool.workers = 2");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE DATABASE other");
my @app = (user => 'app', password => 'secret');

sub sql { return $node->safe_psql('postgres', shift) }
sub listeners { return sql("SELECT count(*) FROM pgpool.pg_stat_servers WHERE state = 'listener'") }
sub parked { return sql("SELECT count(*) FROM pgpool.pg_stat_clients WHERE state = 'listening'") }
sub direct { my $c = PgPoolWire->open(port => $node->port); die 'login' unless $c->login(@app, database => 'postgres')->{ok}; return $c }
sub gone { my $c = shift; $c->send(PgPoolWire::message('X', '')); $c->close }
# All that a client has heard so far, channel=payload.
sub heard { my $c = shift; return map { join '=', (unpack 'N Z* Z*', $_->[1])[1, 2] } grep { $_->[0] eq 'A' } @{ $c->{seen} } }
# Reads until it has heard this.
sub hears
{
	my ($c, $what) = @_;
	my $end = time + 30;
	until (grep { $_ eq $what } heard($c)) { last unless time < $end && $c->next(10) }
	return (heard($c))[-1] // 'nothing';
}
sub rows { my ($c, $sql) = @_; my $r = $c->query($sql); return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : join ' ', map { @$_ } @{ $r->{rows} } }

# ---- one client
{
	my $c = connect_as($node, @app);
	$c->query('LISTEN news; LISTEN "Odd ""name"');
	ok(poll_until(sub { parked() == 1 }), 'it is parked');
	is(sql("SELECT coalesce(pinned, '-') || coalesce(server_pid::text, '-') FROM pgpool.pg_stat_clients WHERE role = 'app'"), '--', '... and has no server');
	is(sql('SELECT sum(servers_pinned) || \' \' || sum(servers_active) FROM pgpool.pg_stat_pools'), '0 0', '... nor does it take a place of the pool');
	is(listeners(), 1, '... for one server listens for it');
	my $before = time;
	sql("NOTIFY news, 'one'");
	is(hears($c, 'news=one'), 'news=one', 'it hears without sending anything');
	cmp_ok(time - $before, '<', 1, '... within a second');
	my $pid = sql(q{NOTIFY "Odd ""name", 'größer'; SELECT pg_backend_pid()});
	is(hears($c, 'Odd "name=größer'), 'Odd "name=größer', 'any name and payload');
	is((unpack 'N', $c->{seen}[-1][1])[0], $pid, '... with the pid of who notified');
	$node->safe_psql('other', "NOTIFY news, 'of another database'");
	my $d = direct();
	$d->query("BEGIN; NOTIFY news, 'undone'; ROLLBACK");
	$d->query("BEGIN; NOTIFY news, 'two'");
	sql("NOTIFY news, 'before two'");
	is(hears($c, 'news=before two'), 'news=before two', 'nothing of another database, nothing undone, nothing before its commit');
	$d->query('COMMIT');
	is(hears($c, 'news=two'), 'news=two', 'at commit it comes');
	is(rows($c, 'SELECT * FROM pg_listening_channels() ORDER BY 1'), 'Odd "name news', 'asked itself, it listens to just its channels');
	is(rows($c, "NOTIFY news, 'own'; SELECT 1"), '1', 'it may notify');
	is((heard($c))[-1], 'news=own', '... and hears itself at once');
	is(unpack('N', (grep { $_->[0] eq 'A' } @{ $c->{seen} })[-1][1]), $c->{pid}, '... from the process that it takes for its own');
	$c->query('UNLISTEN news');
	ok(poll_until(sub { parked() == 1 }), 'parked again');
	sql("NOTIFY news, 'after UNLISTEN'");
	sql(q{NOTIFY "Odd ""name", 'last'});
	is(hears($c, 'Odd "name=last'), 'Odd "name=last', 'UNLISTEN of one channel');
	is(join('|', heard($c)), 'news=one|Odd "name=größer|news=before two|news=two|news=own|Odd "name=last', 'that was all');
	$c->query("SET work_mem = '123kB'; SET default_transaction_isolation = 'serializable'; SET default_transaction_read_only = on; SET default_transaction_deferrable = on; SET statement_timeout = '20s'");
	ok(poll_until(sub { parked() == 1 }), 'parked with settings that could be in the way');
	sql(q{NOTIFY "Odd ""name", 'still'});
	is(hears($c, 'Odd "name=still'), 'Odd "name=still', '... it hears');
	is(rows($c, 'SHOW work_mem') . rows($c, 'SHOW transaction_isolation'), '123kBserializable', '... and comes back with them');
	gone($c);
	gone($d);
	ok(poll_until(sub { listeners() == 0 }), 'without clients nothing listens');
}

# ---- 200 on a pool of 2: parked, coming back and notified all at once
{
	my @c = map { connect_as($node, @app) } 1 .. 200;
	my $reference = direct();
	$reference->query('LISTEN news');
	is(scalar(grep { !$_->query('LISTEN news')->{error} } @c), 200, '200 clients of a pool of 2 listen');
	my $child = fork // die;
	if (!$child)
	{
		my @d = map { direct() } 1 .. 3;
		my @n = (0, 0, 0);
		for my $i (1 .. 100)
		{
			# Three transactions that overlap, one of five undone.
			$d[$_]->send(PgPoolWire::message('Q', 'BEGIN' . join('', map { "; NOTIFY news, '$i.$_'" } 1 .. 1 + int rand 3) . '; SELECT pg_sleep(' . rand(0.01) . ')'
				. (rand() < 0.2 ? '; ROLLBACK' : "; NOTIFY news, '$_:" . ++$n[$_] . "'; COMMIT") . "\0")) for 0 .. 2;
			$_->answer for @d;
		}
		$d[0]->query("NOTIFY news, 'end'");
		require POSIX;
		POSIX::_exit(0);
	}
	my ($asked, $wrong) = (0, 0);
	until (waitpid($child, 1))
	{
		my $c = $c[rand @c];
		$asked++;
		my $got = rows($c, 'SELECT count(*) FROM pg_listening_channels()');
		$wrong++, diag("got $got") if $got ne '1';
	}
	is($wrong, 0, "all queries meanwhile ($asked) are answered, by a server that listens");
	hears($reference, 'news=end');
	my $expected = join ' ', heard($reference);
	my $bad = 0;
	for my $i (0 .. $#c)
	{
		hears($c[$i], 'news=end');
		my $got = join ' ', heard($c[$i]);
		next if $got eq $expected;
		diag("client $i, expected " . length($expected) . " bytes, got " . length($got) . ": " . difference($expected, $got)) if !$bad++;
	}
	is($bad, 0, 'each has heard each of the ' . scalar(heard($reference)) . ' notifications once and in the order of the server');
	ok(poll_until(sub { parked() == 200 }), 'all are parked');
	cmp_ok(listeners(), '<=', 2, '... on one server for each worker');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name = 'pgpool'") <= 4, 1, '... and the pool has its two');

	# ---- the listener ends
	my $victim = sql("SELECT pid FROM pgpool.pg_stat_servers WHERE state = 'listener' LIMIT 1");
	my $worker = sql("SELECT worker FROM pgpool.pg_stat_servers WHERE pid = $victim");
	my %on = map { $_ => 1 } split /\n/, sql("SELECT pid FROM pgpool.pg_stat_clients WHERE worker = $worker AND state = 'listening'");
	sql("SELECT pg_terminate_backend($victim)");
	my ($told, $still) = (0, 0);
	for my $c (grep { $on{ $_->{pid} } } @c)
	{
		$c->closes(10);
		my ($fatal) = map { PgPoolWire::error_fields($_->[1]) } grep { $_->[0] eq 'E' } @{ $c->{seen} };
		$told++ if $fatal && "$fatal->{S} $fatal->{C}" eq 'FATAL 57P01';
	}
	is($told, scalar(keys %on), 'who listens on a server that was terminated is told so');
	sql("NOTIFY news, 'survived'");
	for my $c (grep { !$on{ $_->{pid} } } @c) { $still++ if hears($c, 'news=survived') eq 'news=survived' }
	is($still, 200 - keys %on, '... all others go on');
	gone($_) for grep { !$on{ $_->{pid} } } @c;
	gone($reference);
	ok(poll_until(sub { listeners() == 0 }), 'no client, no listener');
}

sub difference
{
	my ($e, $g) = map { [ split ' ' ] } @_;
	for my $i (0 .. $#$e) { return "at $i expected $e->[$i], got " . ($g->[$i] // 'nothing') if ($g->[$i] // '') ne $e->[$i] }
	return 'more than expected: ' . join ' ', @$g[ @$e .. $#$g ];
}

# ---- what else it has keeps the server; a terminated client is forgotten
{
	my $c = connect_as($node, @app);
	$c->query('LISTEN news; SELECT pg_advisory_lock(1)');
	my $d = connect_as($node, @app);
	$d->query('LISTEN news');
	ok(poll_until(sub { parked() == 1 }), 'one of two is parked');
	is(sql("SELECT pinned FROM pgpool.pg_stat_clients WHERE pinned IS NOT NULL"), 'advisory lock, LISTEN', '... not the one that has more than LISTEN');
	$c->query('SELECT pg_advisory_unlock(1)');
	ok(poll_until(sub { parked() == 2 }), 'without the lock it is parked, too');
	sql("SELECT pgpool.terminate_client(id) FROM pgpool.pg_stat_clients WHERE pid = $d->{pid}");
	ok($d->closes(10), 'a parked client is terminated');
	sql("NOTIFY news, 'x'");
	is(hears($c, 'news=x'), 'news=x', '... the other hears');
	$c->query('DISCARD ALL');
	sql("NOTIFY news, 'y'");
	is(rows($c, 'SELECT count(*) FROM pg_listening_channels()'), '0', 'DISCARD ALL');
	is((heard($c))[-1], 'news=x', '... ends it');
	gone($c);
}

$node->stop;
done_testing();
