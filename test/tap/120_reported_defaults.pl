# Shows: no greeting, and no session that set nothing, has a default that is older than what a login at the server's own port
# would have: after ALTER ROLE, ALTER DATABASE, ALTER SYSTEM and a reload, on both ports and in each worker. What a client has
# set stays its own. A reload that changes no session's settings closes no server.
use strict;
use warnings;
use Test::More;
use PgPool;

my $pool = PgPool->new('main', workers => 2, pool_size => 6, session => 1);
my @ports = ($pool->port, $pool->session_port);
$pool->sql('ALTER ROLE app SET statement_timeout = 0'); # there is something to reset

# What a login has: what it is told, and what it is.
sub seen
{
	my ($client, $name) = @_;
	my $told = (grep { lc $_ eq lc $name } keys %{ $client->{parameters} })[0];
	return ($told ? $client->{parameters}{$told} : '-') . ' ' . $client->value("SHOW $name");
}
sub login { my (%o) = @_; my $name = delete $o{name}; my $c = $pool->raw(%o); my $seen = seen($c, $name); $c->close; return $seen; }
sub direct { my ($name) = @_; my $c = $pool->direct; my $seen = seen($c, $name); $c->close; return $seen; }
# The logins of both ports that differ from the server's own, of eight each: both workers have some.
sub wrong
{
	my ($name) = @_;
	my $right = direct($name);
	my @wrong = grep { $_ ne $right } map { my $port = $_; map { login(port => $port, name => $name) } 1 .. 8 } @ports;
	return @wrong ? "$wrong[0], not $right (" . @wrong . ')' : '';
}

# ---- the catalog
my %value = (TimeZone => 'Asia/Tokyo', DateStyle => 'German', IntervalStyle => 'iso_8601', client_encoding => 'LATIN1',
	default_transaction_read_only => 'on', standard_conforming_strings => 'off', application_name => 'preset', work_mem => '5MB');
for my $name (sort keys %value)
{
	my $before = direct($name);
	is(wrong($name), '', "$name: as directly");
	for my $who ('ROLE app', 'DATABASE app', 'ROLE ALL', 'ROLE app IN DATABASE app')
	{
		$pool->sql("ALTER $who SET $name = '$value{$name}'");
		isnt(direct($name), $before, "$name: ALTER $who acts");
		is(wrong($name), '', '... for the next logins of all ports and workers');
		$pool->sql("ALTER $who RESET $name");
		is(wrong($name), '', '... and so does its RESET');
	}
}

# ---- the configuration: directly is the measure, and it is a matter of time there, too
sub reloaded
{
	my ($name, $value, $twice) = @_;
	my $before = direct($name);
	$pool->sql('SELECT pg_reload_conf()') if $twice; # it may read the file before or after the change
	$pool->sql(defined $value ? "ALTER SYSTEM SET $name = '$value'" : "ALTER SYSTEM RESET $name");
	$pool->sql('SELECT pg_reload_conf()');
	defined wait_until(30, sub { direct($name) ne $before }) or die "no reload: $name is $before";
}
my @open = map { my $where = $_; my $c = $where eq 'direct' ? $pool->direct : $pool->raw(port => $where); $c->value('SELECT 1'); $c } 'direct', @ports;
my $pinned = $pool->raw;
$pinned->value('SELECT pg_advisory_lock(1)');
my $own = $pool->raw(startup => { options => '-c DateStyle=SQL', TimeZone => 'Europe/Rome' });
$own->ask("SET IntervalStyle = 'sql_standard'");
$own->ask("SET default_transaction_read_only = 'off'"); # the default of now
for my $name (grep { $_ ne 'client_encoding' } sort keys %value)
{
	my $before = direct($name);
	reloaded($name, $value{$name});
	is(wrong($name), '', "$name: after a reload");
	# PostgreSQL's open session hears at its next statement, too
	my $right = (map { $_->value('SELECT 1'); seen($_, $name) } $open[0])[0];
	is(join(', ', map { $_->value('SELECT 1'); seen($_, $name) } @open[1, 2], $pinned), join(', ', ($right) x 3), '... and open sessions');
	if ($name eq 'default_transaction_read_only')
	{
		my @codes = map { my $c = $_; ($c->ask('CREATE TABLE ro (a int)')->{error} // {})->{C} // 'done' } @open, map { $pool->raw(port => $_) } @ports;
		is("@codes", '25006 25006 25006 25006 25006', 'nobody writes to a server that was made read-only');
		is($own->ask('CREATE TEMP TABLE rw (a int)')->{error}, undef, '... but who says so');
		$own->ask('DROP TABLE rw');
	}
	is(join(' ', map { $own->value("SHOW $_") } qw(DateStyle TimeZone IntervalStyle default_transaction_read_only)),
		join(' ', 'SQL, MDY', 'Europe/Rome', 'sql_standard', 'off'), 'what a client has set is its own');
	reloaded($name, undef);
	is(wrong($name), '', '... and after another one');
	is(join(', ', map { $_->value('SELECT 1'); seen($_, $name) } @open[1, 2], $pinned), join(', ', (seen($open[0], $name)) x 3), '... in open sessions, too');
	is(direct($name), $before, '... back to what it was');
}

# open sessions of the port have it, too, where the server's own keep theirs: README, Limits
{
	my ($told, $kept) = ($pool->raw, $pool->direct);
	$_->value('SELECT 1') for $told, $kept;
	reloaded('client_encoding', $value{client_encoding});
	is(wrong('client_encoding'), '', 'client_encoding: after a reload');
	$_->value('SELECT 1') for $told, $kept;
	is(seen($told, 'client_encoding'), 'LATIN1 LATIN1', '... an open session has it, and is told');
	is(seen($kept, 'client_encoding'), 'UTF8 UTF8', '... other than directly');
	reloaded('client_encoding', undef);
	is(wrong('client_encoding'), '', '... and back');
	$_->close for $told, $kept;
}

# ---- one reload on the heels of the other: who reads the file first does not matter
my $missed = 0;
for my $round (1 .. 20)
{
	my $zone = $round % 2 ? 'Asia/Tokyo' : 'Europe/Paris';
	reloaded('TimeZone', $zone, 1);
	$missed++ if login(name => 'TimeZone') ne "$zone $zone";
}
is($missed, 0, 'a reload right after another one is not missed');

# ---- a reload while the manager is away
my $manager = $pool->manager_pid;
kill 'TERM', $manager;
reloaded('TimeZone', 'America/Lima');
is(wrong('TimeZone'), '', 'a reload that the manager has missed');
isnt($pool->manager_pid, $manager, '... for it is another one');
reloaded('TimeZone', undef);

# ---- a reload that is about something else. The files are not younger than the one before, nor is that in doubt.
for my $file (map { $pool->data_dir . "/$_" } 'postgresql.conf', 'postgresql.auto.conf') { utime(time - 100, time - 100, $file) }
$pool->sql('SELECT pg_reload_conf()');
my $c = $pool->raw(port => $pool->port, user => 'app2', password => 'app2-secret');
for (1 .. 3)
{
	my $pid = $c->value('SELECT pg_backend_pid()');
	open(my $conf, '>>', $pool->data_dir . '/postgresql.conf') or die $!;
	print $conf "pgpool.query_wait_timeout = ${_}01s\n";
	CORE::close $conf;
	utime(time - 100, time - 100, $pool->data_dir . '/postgresql.conf');
	$pool->sql('SELECT pg_reload_conf()');
	my $now = "${_}01s";
	within(10, sub { $pool->sql('SHOW pgpool.query_wait_timeout') eq $now }, "a reload: $now");
	login(user => 'app2', password => 'app2-secret', name => 'TimeZone'); # is answered when the manager has read it
	is($c->value('SELECT pg_backend_pid()'), $pid, 'a reload of what is not of sessions keeps the servers') if $_ > 1;
}
$_->close for @open, $pinned, $own, $c;
$pool->forget_sql;
$pool->node->stop;
done_testing();
