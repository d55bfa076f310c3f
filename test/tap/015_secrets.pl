# Shows: where secrets are, and where not. Nobody but the server's user can talk to manager and workers, also where the
# group may read the cluster; what a client proved is in its workers' own memory, and neither in the region, which all
# backends map, nor in a view or the log.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256);
use MIME::Base64;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('secrets', workers => 2, start => 0);
$pool->write_hba("host all clear 127.0.0.1/32 password\nhost all stored 127.0.0.1/32 trust\n");
$pool->node->start;
$pool->prepare(1);
$pool->ready;

# ---- the control sockets
# What others than the owner may do: search the directory, write to (which is what connect() asks for) a socket.
sub open_to_others
{
	my $dir = $pool->data_dir . '/pgpool';
	return grep { ((stat $_)[2] & ($_ eq $dir ? 0077 : 0022)) != 0 } $dir, glob "$dir/*";
}
my @sockets = glob $pool->data_dir . '/pgpool/*.sock';
is(scalar @sockets, 3, 'manager and workers have their sockets') or diag "@sockets";
is(join(' ', open_to_others()), '', 'nobody else may look into the directory of the control sockets');
$pool->node->stop;
# PostgreSQL takes from the mode of its directory that the group may read; the other one is as a careless copy leaves it
chmod 0750, $pool->data_dir or die;
chmod 0755, $pool->data_dir . '/pgpool' or die;
$pool->node->start;
$pool->ready;
is($pool->sql('SHOW data_directory_mode'), '0750', 'the group may read the cluster');
is(join(' ', open_to_others()), '', '... also where the group may read the cluster');

# ---- what clients proved
sub client_key # of a SCRAM role, from its password
{
	my ($role, $password) = @_;
	my ($iterations, $salt) = $pool->sql("SELECT rolpassword FROM pg_authid WHERE rolname = '$role'") =~ /^SCRAM-SHA-256\$(\d+):([^\$]+)\$/;
	my $sum = my $u = hmac_sha256(decode_base64($salt) . pack('N', 1), $password);
	$sum ^= $u = hmac_sha256($u, $password) for 2 .. $iterations;
	return hmac_sha256('Client Key', $sum);
}
my %password = (app => 'app-secret', clear => 'sent in clear 4711', stored => 'kept in the table 0815');
$pool->sql("CREATE ROLE $_ LOGIN PASSWORD '$password{$_}'; GRANT CONNECT ON DATABASE app TO $_") for qw(clear stored);
$pool->sql("SELECT pgpool.set_user('default', 'stored', server_password => '$password{stored}')");
my %secret = (
	'the ClientKey of a SCRAM login'     => client_key('app', $password{app}),
	'a password sent in clear'           => $password{clear},
	'a stored password'                  => $password{stored},
	'the ClientKey of a stored password' => client_key('stored', $password{stored}));
my @clients;
for my $role (sort keys %password)
{
	my $c = PgPoolWire->open(port => $pool->port);
	my $r = $c->login(user => $role, database => 'app', password => $password{$role});
	is($r->{ok} && $c->value('SELECT session_user'), $role, "$role is served") or diag PgPoolWire::text($r);
	push @clients, $c;
}

# The memory of a worker, in two parts: shared mappings, of which the region is the only one, and all others.
sub memory
{
	my ($pid) = @_;
	my %found = (shared => '', private => '');
	open(my $maps, '<', "/proc/$pid/maps") or return "cannot read its map: $!";
	open(my $mem, '<:raw', "/proc/$pid/mem") or return "cannot read its memory: $!";
	while (<$maps>)
	{
		my ($from, $to, $kind) = /^([0-9a-f]+)-([0-9a-f]+) rw-([ps]) / or next;
		sysseek($mem, hex $from, 0) or next;
		my ($left, $part) = hex($to) - hex $from;
		$left -= length $part, $found{ $kind eq 's' ? 'shared' : 'private' } .= $part while $left > 0 && sysread($mem, $part, $left);
	}
	return \%found;
}
my @memories = map { memory($_) } $pool->workers;
SKIP:
{
	my ($why) = grep { !ref } @memories;
	if ($why)
	{
		diag "skipped: the memory of workers: $why";
		skip $why, 3;
	}
	# where they should be, or the search below would show nothing
	my @missing = grep { my $s = $secret{$_}; !grep { index($_->{private}, $s) >= 0 } @memories } sort keys %secret;
	is("@missing", '', 'each secret is in the memory of a worker');
	my @leaked = grep { my $s = $secret{$_}; grep { index($_->{shared}, $s) >= 0 } @memories } sort keys %secret;
	cmp_ok(length $memories[0]{shared}, '>', 1_000_000, 'the region is there');
	is("@leaked", '', 'the region has no secret');
}

# ---- what can be read
my @texts = map { ($_, encode_base64($_, ''), unpack 'H*', $_) } values %secret;
my $views = join "\n", map { $pool->sql("SELECT v::text FROM pgpool.$_ v") }
  qw(pg_stat_workers pg_stat_tenants pg_stat_pools pg_stat_clients pg_stat_servers pg_stat_prepared);
like($views, qr/stored/, 'the views show the roles');
is(scalar(grep { index($views, $_) >= 0 } @texts), 0, '... nor have the views');
my $log = $pool->log_text(0);
is(scalar(grep { index($log, $_) >= 0 } @texts), 0, 'the log has no secret');
$_->close for @clients;
$pool->node->stop;
done_testing();
