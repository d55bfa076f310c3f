# Shows: what anybody can send who reaches the port costs one short line of the log at most, and not too many of these,
# whatever bytes it is made of; who is refused by pg_hba.conf is told and logged as by PostgreSQL; strangers that know
# names take no place of tenants and pools.
use strict;
use warnings;
use Test::More;
use IPC::Run ();
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('strangers', workers => 1, tls => 1, conf => "pgpool.max_pools = 4\npgpool.max_tenants = 3\n");
my $app = $pool->raw;
my $manager = $pool->manager_pid;

# what a name can be that is none in UTF-8, in the tables or in the log
my %bytes = (latin1 => "m\xfcller", cut => "abc\xe2\x82", alone => "\xbf\xbf", overlong => "\xc0\xaf", surrogate => "\xed\xa0\x80", high => "\xff\xfe",
	newline => "a\nFATAL:  forged", long => 'x' x 250, percent => '%s%n%d', quote => "a'b\"c\\");

sub stranger
{
	my (%as) = @_;
	my $c = PgPoolWire->open(port => $pool->port) or return 'no connection';
	my $r = $c->login(user => 'app', database => 'app', password => 'wrong', %as);
	$c->close;
	return $r->{error} ? $r->{error}{C} : 'let in';
}

# The lines that each of them costs; an ERROR of the manager would be many, with the statement and its context.
for my $what (sort keys %bytes)
{
	for my $where (
		[ user => sub { stranger(user => $bytes{$what}) } ],
		[ 'user with a tenant' => sub { stranger(user => "app.$bytes{$what}") } ],
		[ database => sub { stranger(database => $bytes{$what}) } ],
		[ tenant => sub { stranger('pgpool.tenant' => substr($bytes{$what}, 0, 60)) } ],
		[ reference => sub { stranger(reference => substr($bytes{$what}, 0, 60)) } ],
		[ application_name => sub { stranger(application_name => $bytes{$what}) } ])
	{
		my $log = $pool->log_offset;
		my $got = $where->[1]->();
		isnt($got, 'let in', "$where->[0] $what: refused with $got");
		my $text = $pool->log_text($log);
		my @lines = split /\n/, $text;
		ok(@lines <= 1 && length $text < 500, '... and one short line at most') or diag $text;
		select undef, undef, undef, 0.2 if @lines; # five lines in a second are not too many
	}
}

{
	for my $what (grep { $_ !~ /long|newline|quote/ } sort keys %bytes)
	{
		my ($in, $out) = ('', '');
		my $log = $pool->log_offset;
		my $h = IPC::Run::start [ 'openssl', 's_client', '-quiet', '-starttls', 'postgres', '-servername', $bytes{$what}, '-connect', '127.0.0.1:' . $pool->port ],
		  '<', \$in, '>', \$out, '2>', \my $err, IPC::Run::timeout(30);
		$in .= PgPoolWire::startup_packet(196608, user => 'app', database => 'app');
		eval { $h->pump until $out =~ /^R/ || !$h->pumpable; 1 };
		$h->kill_kill;
		ok($out =~ /^R/, "SNI $what: the login goes on, for the tenant default") or diag "$out $err";
		is($pool->log_text($log) =~ /ERROR|STATEMENT|CONTEXT/ ? $pool->log_text($log) : '', '', '... and no ERROR');
	}
}
is($pool->manager_pid, $manager, 'the manager is the same');

# ---- many of them
my $log = $pool->log_offset;
stranger() for 1 .. 200;
my $lines = () = $pool->log_text($log) =~ /password authentication failed/g;
cmp_ok($lines, '<', 120, "200 wrong passwords: $lines lines");
cmp_ok($lines, '>', 5, '... but some');
within(10, sub { $pool->log_text($log) =~ /(\d+) more logins were refused and not logged/ }, '... and how many more there were');

# ---- refused by pg_hba.conf, as PostgreSQL says it
my $hba = $pool->data_dir . '/pg_hba.conf';
open my $file, '>', $hba or die;
print $file "local all all peer\nhostssl all app2 127.0.0.1/32 scram-sha-256\nhost other all 127.0.0.1/32 reject\nhost all app 127.0.0.1/32 scram-sha-256\n";
close $file;
$pool->sql('SELECT pg_reload_conf()');
sub hba_line { my ($text) = @_; return $text =~ /((?:no pg_hba\.conf entry|pg_hba\.conf rejects connection) .*)/ ? $1 =~ s/ \(client [^)]*\)$//r : "no line: $text" }
within(10, sub { stranger(user => 'app2') eq '28000' }, 'the new rules are in force');
for my $as ({ user => 'app2', database => 'app' }, { user => 'nobody', database => 'nowhere' }, { user => 'app', database => 'other' })
{
	my %log;
	for my $port ($pool->server_port, $pool->port)
	{
		my $from = $pool->log_offset;
		my $told;
		within(15, sub {
			my $c = PgPoolWire->open(port => $port) or return 0;
			$told = $c->login(%$as, password => 'x')->{error}{M};
			$c->close;
			return hba_line($pool->log_text($from)) !~ /^no line/; # not too often, so perhaps not the first
		}, "$as->{user} at port $port: it is logged");
		$log{$port} = "$told\n" . hba_line($pool->log_text($from));
	}
	is($log{ $pool->port }, $log{ $pool->server_port } // 'PostgreSQL does not listen', '... with the same words');
}

# ---- who proves nothing takes no place
open $file, '>', $hba or die;
print $file "local all all peer\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n";
close $file;
$pool->sql('SELECT pg_reload_conf()');
$pool->sql("CREATE ROLE r$_ LOGIN PASSWORD 'r$_-secret'") for 1 .. 12;
$pool->sql("SELECT pgpool.create_tenant('t$_')") for 1 .. 6;
within(10, sub { stranger(user => 'r1') eq '28P01' }, 'strangers know names');
is(join(' ', map { stranger(user => "r$_") } 1 .. 12), join(' ', ('28P01') x 12), '... of many roles');
is(join(' ', map { stranger(user => "app.t$_") } 1 .. 6), join(' ', ('28P01') x 6), '... and tenants');
is($pool->sql('SELECT count(*) FROM pgpool.pg_stat_pools'), 1, '... and no pool was made for them');
is(join(' ', map { eval { $pool->raw(user => "r$_")->value('SELECT session_user') } // $@ } 1, 2, 3), 'r1 r2 r3', 'who proves himself has a place');
is(eval { $pool->raw(user => 'app.t1')->value('SELECT 1') } // $@, '53300 all places for tenants and pools of pgpool are taken' . "\n", '... as long as there are any');
is($app->value('SELECT 1'), 1, 'others are served');
done_testing();
