# Shows: a statement that needs a database without connections closes pooled servers only when PostgreSQL would carry it
# out: one that fails, for whatever reason, leaves them as they are and delays nobody; one that succeeds finds nobody; and
# the servers are back as soon as it is over.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use PgPool;

my $pool = PgPool->new('drain', workers => 2, pool_size => 6, conf => 'max_prepared_transactions = 2');
$pool->sql($_) for "CREATE ROLE outsider LOGIN PASSWORD 'outsider-secret'", "CREATE ROLE maker LOGIN CREATEDB PASSWORD 'maker-secret'", 'CREATE DATABASE target OWNER app';
my %direct;
my $su = { host => $pool->socket_dir, port => $pool->server_port, user => scalar getpwuid($<), database => 'postgres', timeout => 60 };

sub su { return PgPool::Raw->new(%$su, @_) }
sub as
{
	my ($who) = @_;
	return $direct{$who} //= $who eq 'super' ? su() : $who eq 'inside' ? su(database => 'target') : $pool->direct(user => $who, database => 'postgres');
}
sub pid { my ($c) = @_; return $c->value('SELECT pg_backend_pid()') }
sub answer { my ($r) = @_; return $r->{error} ? $r->{error}{C} : 'done' }

# ---- refused by PostgreSQL: nothing happens
my $client = $pool->raw(database => 'target');
my $pid = pid($client);
for my $case (
	[ 'outsider', 'CREATE DATABASE x', '42501' ],
	[ 'outsider', 'CREATE DATABASE x TEMPLATE target', '42501' ],
	[ 'outsider', 'DROP DATABASE target', '42501' ],
	[ 'outsider', 'DROP DATABASE target WITH (FORCE)', '42501' ],
	[ 'maker', 'CREATE DATABASE x TEMPLATE target', '42501' ],
	[ 'maker', 'DROP DATABASE target', '42501' ],
	[ 'maker', 'ALTER DATABASE target RENAME TO x', '42501' ],
	[ 'maker', 'ALTER DATABASE target SET TABLESPACE pg_default', '42501' ],
	[ 'app', 'ALTER DATABASE target RENAME TO x', '42501' ],
	[ 'app', 'CREATE DATABASE x TEMPLATE target', '42501' ],
	[ 'app', 'ALTER DATABASE target SET TABLESPACE nowhere', '42704' ],
	[ 'app', 'ALTER DATABASE target SET TABLESPACE pg_global', '42501' ],
	[ 'super', 'ALTER DATABASE target SET TABLESPACE pg_global', '22023' ],
	[ 'super', 'CREATE DATABASE app TEMPLATE target', '42P04' ],
	[ 'super', 'ALTER DATABASE target RENAME TO app', '42P04' ],
	[ 'super', 'DROP DATABASE nowhere', '3D000' ],
	[ 'super', 'DROP DATABASE IF EXISTS nowhere', 'done' ],
	[ 'super', 'ALTER DATABASE nowhere RENAME TO x', '3D000' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE nowhere', '3D000' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target OWNER unknown', '42704' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target TABLESPACE nowhere', '42704' ],
	[ 'super', "CREATE DATABASE x TEMPLATE target ENCODING 'nothing'", '42704' ],
	[ 'super', "CREATE DATABASE x TEMPLATE target ENCODING 'LATIN1'", '22023' ],
	[ 'super', "CREATE DATABASE x TEMPLATE target LC_COLLATE 'nothing'", '42809' ],
	[ 'super', "CREATE DATABASE x TEMPLATE target LC_CTYPE 'C.UTF-8'", '22023' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target TEMPLATE target', '42601' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target CONNECTION LIMIT -2', '22023' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target IS_TEMPLATE maybe', '42601' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target STRATEGY guess', '22023' ],
	[ 'super', 'CREATE DATABASE x TEMPLATE target COLOUR red', '42601' ],
	[ 'super', "DO \$\$ BEGIN EXECUTE 'DROP DATABASE target'; END \$\$", '25001' ],
	[ 'super', 'BEGIN; DROP DATABASE target', '25001' ],
	[ 'super', 'SELECT 1; CREATE DATABASE x TEMPLATE target', '25001' ],
	[ 'super', 'BEGIN READ ONLY; ALTER DATABASE target RENAME TO x', '25006' ],
	[ 'inside', 'DROP DATABASE target', '55006' ],
	[ 'inside', 'ALTER DATABASE target RENAME TO x', '0A000' ],
	[ 'inside', 'ALTER DATABASE target SET TABLESPACE pg_default', '55006' ])
{
	my ($who, $sql, $code) = @$case;
	my $start = time;
	my $got = answer(as($who)->ask($sql));
	as($who)->ask('ROLLBACK') if $sql =~ /^BEGIN/;
	is("$got " . pid($client), "$code $pid", "$who: $sql fails, and the pooled server stays") or diag sprintf('%.1f s', time - $start);
	(delete $direct{inside})->close if $who eq 'inside';
}
$pool->sql('ALTER DATABASE target IS_TEMPLATE true');
is(answer(as('super')->ask('DROP DATABASE target')) . ' ' . pid($client), "42809 $pid", 'of a template: the same');
$pool->sql('ALTER DATABASE target IS_TEMPLATE false');
$pool->sql("CREATE SUBSCRIPTION s CONNECTION 'dbname=app' PUBLICATION p WITH (connect = false)", 'target');
$pool->forget_sql;
within(5, sub { $pool->backends('target') == 1 && $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'target'") == 1 }, 'only the pooled server is in it');
is(answer(as('super')->ask('DROP DATABASE target')) . ' ' . pid($client), "55006 $pid", 'with a subscription: the same');
$pool->sql($_, 'target') for 'ALTER SUBSCRIPTION s SET (slot_name = NONE)', 'DROP SUBSCRIPTION s';
$pool->forget_sql;

# ---- somebody else is in it: PostgreSQL waits, and so do we before anything is closed; all at the same time
my %statement = (
	drop => sub { "DROP DATABASE $_[0]" }, rename => sub { "ALTER DATABASE $_[0] RENAME TO $_[0]_x" },
	copy => sub { "CREATE DATABASE $_[0]_x TEMPLATE $_[0]" }, move => sub { "ALTER DATABASE $_[0] SET TABLESPACE side" });
mkdir $pool->data_dir . '/../side';
$pool->sql("SET allow_in_place_tablespaces = on");
$pool->sql("CREATE TABLESPACE side LOCATION ''");
my (@waiting, @busy);
for my $how (qw(direct pooled prepared))
{
	for my $what (sort keys %statement)
	{
		next if $how eq 'prepared' && $what ne 'drop';
		my $db = "${how}_$what";
		$pool->sql("CREATE DATABASE $db OWNER app");
		my $c = $pool->raw(database => $db);
		my $other = $how eq 'direct' ? $pool->direct(database => $db) : $pool->raw(database => $db);
		$other->ask($_) for $how eq 'direct' ? 'SELECT 1' : 'BEGIN', $how eq 'prepared' ? ('CREATE TABLE t ()', "PREPARE TRANSACTION 'p'") : ();
		push @waiting, { name => "$what, $how", client => $c, pid => pid($c), other => $other, run => su(), sql => $statement{$what}->($db) };
	}
}
$_->{run}->query($_->{sql}) for @waiting;
for my $w (@waiting)
{
	my $got = answer($w->{run}->result(30));
	is("$got " . pid($w->{client}), "55006 $w->{pid}", "$w->{name}: $w->{sql} fails as others are there, and the pooled server stays");
}
is($_->{other}->ask('COMMIT')->{closed} // '', '', "$_->{name}: and so does the other one") for grep { $_->{name} =~ /pooled/ } @waiting;
$waiting[-1]{other}->ask("ROLLBACK PREPARED 'p'");

# ---- only pooled servers are there: it is carried out, and they are back afterwards
$_->{other}->close for @waiting;
for my $w (grep { $_->{name} =~ /direct/ } @waiting)
{
	my $start = time;
	is(answer($w->{run}->ask($w->{sql}, 30)), 'done', "$w->{sql} when only pooled servers are there");
	cmp_ok(time - $start, '<', 5, '... without a wait');
	my $after = $w->{client}->ask('SELECT 1');
	like(answer($after), $w->{sql} =~ /^DROP/ ? qr/^3D000$/ : qr/^done$/, '... its client goes on' . ($w->{sql} =~ /^DROP/ ? ', or is told' : ''));
}

# a transaction that ends is waited for
my ($w) = grep { $_->{name} eq 'drop, pooled' } @waiting;
$w->{client}->ask('BEGIN');
$w->{run}->query($w->{sql});
within(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '$w->{sql}'") }, 'DROP DATABASE waits for a transaction');
$w->{client}->ask('COMMIT');
is(answer($w->{run}->result(30)), 'done', '... and is done when that ends');

# one that began meanwhile, and stays: drained, failed, and over at once
($w) = grep { $_->{name} eq 'copy, pooled' } @waiting;
my ($long, $third) = map { $pool->raw(database => 'pooled_copy') } 1, 2;
$w->{client}->ask('BEGIN');
$third->ask('SELECT 1');
$w->{run}->query($w->{sql});
within(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '$w->{sql}'") }, 'one more waits');
$long->ask('BEGIN');
$w->{client}->ask('COMMIT');
within(10, sub { $pool->backends('pooled_copy') == 1 }, 'idle servers go for it');
$third->query('SELECT 2');
is(answer($w->{run}->result(30)), '55006', 'it fails as the other transaction did not end');
is($third->result(3)->{rows}[0][0] // 'nothing', '2', '... and who waited meanwhile is served at once');
$long->ask('COMMIT');

# the backend dies in the middle of it
$long->ask('BEGIN');
$w->{client}->ask('BEGIN');
$w->{run}->query($w->{sql});
within(5, sub { $pool->sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '$w->{sql}'") }, 'and once more');
$pool->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query = '$w->{sql}'");
ok($w->{run}->ended(10), '... the session is terminated');
$_->ask('COMMIT') for $long, $w->{client};
is($third->value('SELECT 3'), 3, '... and nobody is kept waiting');
is($pool->sql('SELECT max(starts) FROM pgpool.pg_stat_workers'), 1, 'no worker was restarted');
done_testing();
