# What ALTER ROLE and ALTER DATABASE set by default ends nothing that pgpool does for itself: logins succeed, settings move,
# DISCARD ALL cleans. Clients have their role's defaults all the same, as PostgreSQL says, and they act.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire;
use Test::More;

my $session_port = PostgreSQL::Test::Cluster::get_free_port();
my $node = pool_node('timeouts', conf => "pgpool.default_pool_size = 3\npgpool.workers = 1\npgpool.session_port = $session_port\nlog_statement = none");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { for (@_) { my $r = $admin->query($_); die "$_: $r->{error}{M}" if $r->{error} } }
sql("CREATE ROLE app LOGIN PASSWORD 'secret'", 'CREATE DATABASE app OWNER app');
my %app = (user => 'app', password => 'secret', database => 'app');
my $roles = 0;
my $has_transaction_timeout = $admin->value("SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'");
note('not tested: transaction_timeout, which this PostgreSQL does not have') unless $has_transaction_timeout;

# A query that a short timeout may end is asked again: what is asked for is the value, not the time. transaction_timeout
# ends the session with it, on a busy machine also PostgreSQL's own; then another client like it asks.
sub entered # a client, and how its login ended
{
	my ($port, %login) = @_;
	my $c = PgPoolWire->open(port => $port);
	$c->{entered} = [@_];
	return ($c, $c->login(%login));
}
sub shown
{
	my ($client, $sql) = @_;
	my $value;
	poll_until(sub {
		$value = $client->value($sql) // 'null';
		($client) = entered(@{ $client->{entered} }) if $value =~ /^25P04/;
		return $value !~ /^(57014|25P04)/;
	}, $sql);
	$_[0] = $client;
	return $value;
}

my @cases = ([ 'statement_timeout', '1ms' ], [ 'statement_timeout', '3' ], [ 'lock_timeout', '1ms' ], [ 'idle_in_transaction_session_timeout', '1ms' ],
	($has_transaction_timeout ? [ 'transaction_timeout', '1ms' ] : ()), [ 'default_transaction_read_only', 'on' ],
	[ 'default_transaction_isolation', 'serializable' ], [ 'default_transaction_deferrable', 'on' ], [ 'search_path', 'nowhere' ],
	[ 'client_min_messages', 'debug5' ], [ 'standard_conforming_strings', 'off' ], [ 'client_encoding', 'SJIS' ]);

# All settings of a client that make a handover long
my $many = join ' ', map { "-c myapp.s$_=$_" } 1 .. 300;

for my $case (@cases)
{
	my ($name, $value) = @$case;
	for my $of ('ROLE', 'DATABASE')
	{
		$app{user} = 'app' . ++$roles; # a pool of its own, that knows nothing of the defaults of another
		my $scope = $of eq 'ROLE' ? "ROLE $app{user}" : 'DATABASE app';
		sql("CREATE ROLE $app{user} LOGIN PASSWORD 'secret'", "ALTER $scope SET $name = '$value'");
		my $log = length slurp_log($node);
		my ($direct) = entered($node->port, %app);
		my $expected = shown($direct, "SHOW $name");
		$direct->close;
		my (@failed, @clients);
		for my $i (1 .. 8)
		{
			my ($c, $r) = entered($i % 4 ? $node->{pool_port} : $session_port, %app, ($i % 2 ? (options => $many) : ()), application_name => "client $i");
			push @failed, PgPoolWire::text($r) unless $r->{ok};
			push @clients, $c if $r->{ok} && @clients < 4;
			$c->send(PgPoolWire::message('X', '')) unless $clients[-1] && $c == $clients[-1];
		}
		is(join("\n", @failed), '', "$scope, $name = $value: 8 logins");
		is(shown($_, "SHOW $name"), $expected, '... a client has it as PostgreSQL gives it') for @clients[ 0, 1 ];
		# from server to server, with settings that take longer than the timeout
		my @lost;
		for my $round (1 .. 5)
		{
			for my $i (0, 1, 2)
			{
				my $got = shown($clients[$i], $i % 2 ? "SELECT current_setting('application_name')" : "SELECT current_setting('myapp.s300')");
				push @lost, $got if $got ne ($i % 2 ? 'client ' . ($i + 1) : '300');
			}
		}
		is(join("\n", @lost), '', '... settings move');
		if ($name eq 'statement_timeout')
		{
			like($clients[0]->value('SELECT pg_sleep(10)'), qr/^57014 .*statement timeout/, '... and it acts');
			like($clients[0]->value('SELECT pg_sleep(10)'), qr/^57014 .*statement timeout/, '... twice');
		}
		if ($name eq 'lock_timeout')
		{
			$admin->query('BEGIN; LOCK pg_extension IN ACCESS EXCLUSIVE MODE');
			my $r = $clients[0]->value('SELECT count(*) FROM pg_extension');
			$admin->query('ROLLBACK');
			like($r // '', qr/^\d+$/, '... another database has another pg_extension');
		}
		# the session port cleans up with DISCARD ALL
		my $s = PgPoolWire->open(port => $session_port);
		if ($s->login(%app)->{ok})
		{
			$s->query("SELECT set_config('myapp.x' || i, 'x', false) FROM generate_series(1, 500) i");
			$s->send(PgPoolWire::message('X', ''));
		}
		$_->send(PgPoolWire::message('X', '')) for @clients;
		poll_until(sub { $admin->value("SELECT count(*) FROM pgpool.pg_stat_servers WHERE state NOT IN ('idle', 'closing')") eq '0' }, 'all servers at rest');
		unlike(substr(slurp_log($node), $log), qr/out of step|could not be applied/, '... nothing of pgpool\'s own was ended');
		sql("ALTER $scope RESET $name");
	}
}

# ---- a login that takes longer than what the role has by default: PostgreSQL would end it
if ($has_transaction_timeout)
{
	sql("CREATE ROLE slow LOGIN PASSWORD 'secret'", q{INSERT INTO pg_db_role_setting SELECT 0, 'slow'::regrole, '{transaction_timeout=1ms}' ||
		array_agg('myapp.slow' || i || '=' || i) FROM generate_series(1, 5000) i});
	my @failed;
	for my $i (1 .. 5)
	{
		sql("ALTER ROLE slow SET myapp.again = '$i'"); # servers log in anew
		my $r = PgPoolWire->open(port => $node->{pool_port})->login(%app, user => 'slow');
		push @failed, PgPoolWire::text($r) unless $r->{ok};
	}
	is(join("\n", @failed), '', 'transaction_timeout does not end a login that has many settings to make');
}

# ---- a cancel that comes just then is the client's all the same
{
	my ($one, $two) = map { connect_as($node, %app, user => 'app', options => "-c statement_timeout=0 $many") } 1, 2;
	like($one->value('SELECT 1'), qr/^1$/, 'before');
	$one->send(PgPoolWire::message('Q', "SELECT pg_sleep(60)\0"));
	poll_until(sub { $admin->value("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'") eq '1' }, 'it runs');
	my $cancel = PgPoolWire->open(port => $node->{pool_port});
	$cancel->send(PgPoolWire::cancel_request($one->{pid}, $one->{key}));
	is($one->answer->{error}{M}, 'canceling statement due to user request', 'a cancel says that it was one');
}

done_testing();
