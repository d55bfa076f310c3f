# Shows: who is refused is logged with the address, and one address that floods hides nobody else's failures; an option that
# is not supported, and a connection for replication, are refused after the proof, so that libpq with sslmode=prefer says it
# once; a lowered login_timeout is that of the logins under way.
use strict;
use warnings;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('refusals', workers => 1, tls => 1);

sub wrong
{
	my ($source, %as) = @_;
	my $c = PgPoolWire->open(port => $pool->port, source => $source) or return '';
	my $port = $c->{socket}->sockport;
	$c->login(user => 'app', database => 'app', password => 'wrong', %as);
	$c->close;
	return "$source:$port";
}

# pg_hba.conf has 127.0.0.1 alone
$pool->write_hba("host all all 127.0.0.0/8 scram-sha-256\n");
$pool->sql('SELECT pg_reload_conf()');
within(10, sub { my $c = PgPoolWire->open(port => $pool->port, source => '127.0.0.9'); $c->login(user => 'app', database => 'app', password => 'app-secret')->{ok} }, 'any of 127.0.0.0/8 may log in');

my $at = $pool->log_offset;
my $who = wrong('127.0.0.2');
within(5, sub { $pool->log_text($at) =~ /password authentication failed for user "app".*\(client \Q$who\E\)/ }, 'a wrong password is logged with the address');
$at = $pool->log_offset;
my $began = time;
wrong('127.0.0.3') for 1 .. 300;
my $most = 21 + 5 * (time - $began + 1); # 20 at once, then five in a second
my @others = map { wrong("127.0.1.$_") } 1 .. 12;
within(5, sub { my $text = $pool->log_text($at); !grep { $text !~ /\(client \Q$_\E\)/ } @others }, 'one who floods hides none of twelve others')
  or diag join ' ', grep { $pool->log_text($at) !~ /\(client \Q$_\E\)/ } @others;
my $flood = () = $pool->log_text($at) =~ /\(client 127\.0\.0\.3:/g;
cmp_ok($flood, '<=', $most, "... and is itself bounded: $flood of 300");
within(10, sub { $pool->log_text($at) =~ /\d+ more logins were refused and not logged \(127\.0\.0\.3: \d+/ }, '... and named with what was held back');
$at = $pool->log_offset;
$who = wrong('127.0.0.4', user => 'nobody', 'pgpool.tenant' => 'x' x 40);
within(5, sub { $pool->log_text($at) =~ /Tenant.*\(client \Q$who\E\)/ }, 'a long line has it, too');
my $local = PgPoolWire->open(path => $pool->socket_dir . '/.s.PGSQL.' . $pool->port);
$local->login(user => 'app', database => 'app', password => 'wrong');
within(5, sub { $pool->log_text($at) =~ /user "app".*\(client \[local\]\)/ }, '... and one by the Unix socket is [local]');

# ---- what the startup packet asks in vain
for my $what ([ 'an option', "options='-X'", 'startup option "-X" is not supported' ], [ 'an option without a value', "options='-c name'", '-c name requires a value' ],
	[ 'replication', 'replication=database', 'replication connections are not pooled' ])
{
	my ($name, $option, $text) = @$what;
	for my $mode (qw(prefer disable require))
	{
		my (undef, undef, $err) = $pool->psql('SELECT 1', database => "dbname=app sslmode=$mode $option");
		my $times = () = $err =~ /\Q$text\E/g;
		is($times, 1, "$name, sslmode=$mode: told once") or diag $err;
	}
	my (undef, undef, $err) = $pool->psql('SELECT 1', password => 'wrong', database => "dbname=app sslmode=disable $option");
	like($err, qr/password authentication failed/, '... and not before the proof');
}

# ---- login_timeout
$pool->sql("ALTER SYSTEM SET pgpool.login_timeout = '1h'");
$pool->sql('SELECT pg_reload_conf()');
within(10, sub { $pool->sql('SHOW pgpool.login_timeout') eq '1h' }, 'login_timeout is an hour');
my @silent = map { PgPoolWire->open(port => $pool->port) } 1 .. 3;
within(10, sub { $pool->sql('SELECT sum(clients) FROM pgpool.pg_stat_workers') >= 3 }, 'three are silent');
$pool->sql("ALTER SYSTEM SET pgpool.login_timeout = '1s'");
$pool->sql('SELECT pg_reload_conf()');
my $late = PgPoolWire->open(port => $pool->port);
ok($_->closes(15), 'it was lowered: one who is silent is disconnected') for @silent, $late;
done_testing();
