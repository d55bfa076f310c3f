# Values of text settings that are hard to quote come back as they were, however often the session changes servers.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;
use Time::HiRes qw(time);


my $seed = $ENV{PGPOOL_SEED} // int(time) % 1_000_000_000;
note("seed $seed");
srand $seed;
my $node = pool_node('values', conf => "ssl = off\npgpool.default_pool_size = 2\npgpool.workers = 1\nlog_statement = none");
$node->safe_psql('postgres', "CREATE ROLE app LOGIN PASSWORD 'secret'");
my @app = (user => 'app', password => 'secret');

sub literal { my $v = shift; $v =~ s/'/''/g; return "'$v'" }

# ---- 200 values, in three encodings of the client
my @alphabet = ("'", '"', '\\', ' ', ',', ';', '$$', "\n", "\t", '%', '--', '/*', '{', "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x98", 'a', '1', '=', '.', "\r", "\x7f", "\x01");
my @value = ('', ' ', "'", '\\', '\\\\', "''", '"', '$1', "E'\\x41'", 'x' x 60_000, "\xc3\xa9" x 30_000, "'\\" x 20_000, 'NULL', 'default',
	map { join '', map { $alphabet[rand @alphabet] } 1 .. 1 + int rand 30 } 15 .. 180);
my @lists = ('"A b", c', '"q""q"', '"a,b", "$user"', '', '""', '"pg_temp"', join(', ', map { "\"S $_\"" } 1 .. 200), "\"\xc3\xa9\"", "\"it's\"", '"back\\slash"', '"select", public',
	'"$user", public', map { "s$_, \"S'$_\"" } 1 .. 8);
my @jobs = ((map { [ 'myapp.x', $_ ] } @value), map { [ 'search_path', $_ ] } @lists);
my %other = ('myapp.x' => 'other', 'search_path' => 'other');
my @others = map { connect_as($node, @app) } 1 .. 2;
$others[0]->query("SET myapp.x = 'other'; SET search_path = other");
$others[1]->query($_) for "SET client_encoding = 'LATIN1'", "SET myapp.x = 'o\xe9'";
sub turn { $_->send(PgPoolWire::message('Q', "SELECT current_setting('myapp.x')\0")) for @others; return join '|', map { my $r = $_->answer; $r->{error} ? $r->{error}{M} : $r->{rows}[0][0] } @others }

my ($handovers, $hops, @lost) = (0, 0);
for my $job (@jobs)
{
	my ($name, $v) = @$job;
	my $c = connect_as($node, @app);
	$c->query("SELECT set_config('$name', " . literal($v) . ", false)");
	my $before = 0;
	for (1 .. 5)
	{
		my $theirs = turn();
		my $r = $c->query("SELECT current_setting('$name'), pg_backend_pid()");
		my ($got, $backend) = $r->{error} ? ($r->{error}{M}, $before) : @{ $r->{rows}[0] };
		$handovers++;
		$hops++ if $before && $backend != $before;
		$before = $backend;
		push @lost, "$name: " . substr($v, 0, 60) . ' -> ' . substr($got // 'null', 0, 60) if ($got // '') ne $v;
		push @lost, "others: $theirs" if $theirs ne "other|o\xe9";
	}
	$c->send(PgPoolWire::message('X', ''));
	last if @lost > 5;
}
is(join("\n", @lost), '', scalar(@jobs) . " values unchanged after $handovers handovers, seed $seed");
cmp_ok($handovers, '>=', 1000, 'enough of them');
cmp_ok($hops, '>=', 100, '... and enough to the other backend');

# ---- names that only begin as those that are not taken along, or are those in other letters
{
	my ($owner, @next) = map { connect_as($node, @app) } 1 .. 3;
	my @names = ('transaction_isolation.x', 'transaction_x.y', 'TRANSACTION_Z.y', 'seed.x', 'PGPOOL.x', 'pgpoolx.y', 'role.x', 'session_authorization.x',
		'is_superuser.x', 'server_version.x', 'in_hot_standby.x');
	push @names, 'transaction_timeout' if $owner->query("SELECT 1 FROM pg_settings WHERE name = 'transaction_timeout'")->{rows}->@*;
	my %given = map { $_ => $_ eq 'transaction_timeout' ? '1h' : "of $_" } @names;
	my %without = map { $_ => $_ eq 'transaction_timeout' ? '0' : '' } @names;
	my $see = 'SELECT ' . join ', ', map { "coalesce(current_setting('$_', true), '')" } @names;
	my $r = $owner->query('SELECT ' . join ', ', map { "set_config('$_', '$given{$_}', false)" } @names);
	is($r->{error} ? $r->{error}{M} : '', '', 'settings whose names look like others are set');
	my (@strange, @gone);
	for (1 .. 10)
	{
		$_->send(PgPoolWire::message('Q', "$see\0")) for @next; # at the same time: on both servers
		for my $seen (map { $_->answer } @next)
		{
			push @strange, map { $seen->{rows}[0][$_] eq $without{$names[$_]} ? () : "$names[$_]=$seen->{rows}[0][$_]" } 0 .. $#names;
		}
		my $mine = $owner->query($see)->{rows}[0];
		push @gone, map { $mine->[$_] eq $given{$names[$_]} ? () : "$names[$_]=$mine->[$_]" } 0 .. $#names;
	}
	is("@strange", '', '... and nobody else sees them');
	is("@gone", '', '... and their owner has them everywhere');
	$_->send(PgPoolWire::message('X', '')) for $owner, @next;
}

# ---- nobody waits for a safe snapshot because the client before him would
{
	my ($open, $reports, $next) = map { connect_as($node, @app) } 1 .. 3;
	$open->query('BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SELECT txid_current()');
	$reports->query("SET default_transaction_isolation = serializable; SET default_transaction_read_only = on; SET default_transaction_deferrable = on");
	my $r = $next->query("SET statement_timeout = '20s'; SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only')");
	is($r->{error} ? $r->{error}{M} : $r->{rows}[0][0], 'read committedoff', 'a client is served behind one with deferrable transactions');
	is($reports->query('SHOW default_transaction_deferrable')->{rows}[0][0], 'on', '... which keeps them');
	$_->send(PgPoolWire::message('X', '')) for $open, $reports, $next;
}

# ---- a short statement_timeout and loud messages of one client are not the next one's
{
	my ($short, $long) = map { connect_as($node, @app) } 1, 2;
	$short->query("SET statement_timeout = '1ms'; SET client_min_messages = debug5");
	$long->query("SELECT set_config('myapp.x', repeat('y', 60000), false)");
	my @bad;
	for (1 .. 100)
	{
		$short->query('SELECT 1');
		my $r = $long->query('SELECT length(current_setting(\'myapp.x\'))');
		push @bad, $r->{error} ? $r->{error}{M} : $r->{rows}[0][0] if $r->{error} || $r->{rows}[0][0] != 60000;
		last if $r->{closed};
	}
	is("@bad", '', 'statement_timeout of another client does not hit what pgpool does for the next');
	is((grep { $_->[0] eq 'N' } @{ $long->{seen} }), 0, '... nor do its messages come');
	$_->send(PgPoolWire::message('X', '')) for $short, $long;
}

# ---- a value above 64 KiB
{
	my $c = connect_as($node, @app);
	$c->query("SELECT set_config('myapp.x', repeat('y', 100000), false)");
	turn();
	is($c->value("SELECT length(current_setting('myapp.x'))"), '100000', 'a setting of 100 KB');
}

# ---- temp_buffers cannot be set in a backend that has used temporary tables
{
	my @used = map { my $u = connect_as($node, @app); $u->query('BEGIN'); $u->query('CREATE TEMP TABLE tt (a int) ON COMMIT DROP; INSERT INTO tt VALUES (1)'); $u } 1 .. 2;
	$_->query('COMMIT') for @used;
	my $c = connect_as($node, @app);
	my $r = $c->query('SET temp_buffers = 200');
	my $same = $c->value('SELECT 1');
	is($same, '1', 'a client that asks for other temp_buffers goes on');
	$_->send(PgPoolWire::message('X', '')) for @used, $c;
}
$_->send(PgPoolWire::message('X', '')) for @others;

$node->stop;
done_testing();
