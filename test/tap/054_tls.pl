# TLS: every sslmode, channel binding, direct TLS with ALPN, client certificates, SNI, the rules of pg_hba.conf for
# encrypted connections; nothing that came in clear is executed, large results pass unharmed, and the server's own port
# is the oracle where it can be.
use strict;
use warnings FATAL => 'all';

use Digest::MD5;
use PgPoolCase;
use PgPoolTls;
use PgPoolWire;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $me = (getpwuid $>)[0];
my $ca = PgPoolTls->new;
my $other_ca = PgPoolTls->new('Another authority');
my $node = pool_node('tls', conf => 'pgpool.workers = 2', hba => [
	"local all $me peer", 'local all all scram-sha-256',
	'hostssl only_tls all 127.0.0.1/32 scram-sha-256', 'hostnossl only_clear all 127.0.0.1/32 scram-sha-256',
	'hostssl with_cert all 127.0.0.1/32 cert', 'hostssl mapped all 127.0.0.1/32 cert map=certs', 'hostssl by_dn all 127.0.0.1/32 cert clientname=DN map=certs',
	'hostssl full_cert all 127.0.0.1/32 scram-sha-256 clientcert=verify-full', 'hostssl ca_cert all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca',
	'host only_tls,only_clear,with_cert,mapped,by_dn,full_cert,ca_cert all 0.0.0.0/0 reject', 'host all all 127.0.0.1/32 scram-sha-256' ]);
append_to_file($node->data_dir . '/pg_ident.conf', "certs certificate-name alice\ncerts \"/^CN=certificate-name,.*\$\" alice\n");
$ca->server($node->data_dir, 'localhost', 'shop.test', 'blog.test');
# pgpool takes the server's own settings at a reload
$node->append_conf('postgresql.conf', "ssl = on\nssl_ca_file = 'root.crt'\n");
$node->reload;
my $pool = $node->{pool_port};
sub try_tls
{
	my ($port) = @_;
	my $c = PgPoolWire->open(port => $port) or return '';
	$c->send(PgPoolWire::request($PgPoolWire::SSL));
	return $c->bytes(1, 5) // '';
}
ok(poll_until(sub { try_tls($pool) eq 'S' }, 'TLS'), 'ssl = on acts at a reload, without a restart');
poll_until(sub { try_tls($node->port) eq 'S' });

$node->safe_psql('postgres', $_) for
	"CREATE ROLE alice LOGIN PASSWORD 'secret'", "CREATE ROLE bob LOGIN PASSWORD 'secret'", map { "CREATE DATABASE $_" } qw(only_tls only_clear with_cert mapped by_dn full_cert ca_cert);
$node->safe_psql('postgres', "SELECT pgpool.create_tenant('shop', sni => '{shop.test}'), pgpool.create_tenant('blog', sni => '{blog.test,Other.Test}'),
	pgpool.create_tenant('secure', require_tls => true), pgpool.set_user('default', 'alice', server_password => 'secret')");
$ENV{PGPASSWORD} = 'secret';
$ENV{PGCONNECT_TIMEOUT} = 30;
my $root = $ca->authority;
my $bad_root = $other_ca->authority;
sub on { my ($port, $connstr, $sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run [ 'psql', '-X', '-q', '-At', '-d', "host=localhost hostaddr=127.0.0.1 port=$port user=alice dbname=postgres sslcert=none sslkey=none $connstr", '-c', $sql // 'SELECT 1' ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
	chomp $out;
	$err =~ s/^psql: error: connection to server at .*? failed: //;
	$err =~ s/\n.*//s;
	return $err eq '' ? $out : $err;
}
# both ports end alike
my $unlike = 0;
sub same
{
	my ($connstr, $pattern, $name) = @_;
	my ($own, $pooled) = (on($node->port, $connstr), on($pool, $connstr));
	like($pooled, $pattern, $name);
	is($pooled, $own, '... as at the server') or $unlike++;
}

# ---- sslmode
same('sslmode=disable', qr/^1$/, 'sslmode=disable');
same('sslmode=require', qr/^1$/, 'sslmode=require');
same("sslmode=verify-ca sslrootcert=$root", qr/^1$/, 'sslmode=verify-ca');
same("sslmode=verify-full sslrootcert=$root", qr/^1$/, 'sslmode=verify-full');
same("sslmode=verify-full sslrootcert=$root host=nobody.test", qr/does not match host name/, 'verify-full with another name');
same("sslmode=verify-ca sslrootcert=$bad_root", qr/certificate verify failed/, 'verify-ca with another authority');
like(on($pool, 'sslmode=require', "SELECT ssl_version || ssl FROM pgpool.pg_stat_clients"), qr/permission denied/, 'a role without rights sees no TLS details');

# ---- a refusal that follows the proof: libpq does not come again in clear text, where a password would be read
$node->safe_psql('postgres', $_) for 'CREATE ROLE nologin PASSWORD \'secret\'', 'CREATE ROLE full LOGIN CONNECTION LIMIT 0 PASSWORD \'secret\'',
	'CREATE DATABASE closed ALLOW_CONNECTIONS false', 'CREATE DATABASE revoked', 'REVOKE CONNECT ON DATABASE revoked FROM PUBLIC', 'CREATE DATABASE no_place CONNECTION LIMIT 0';
for my $refused ('user=nologin', 'user=full', 'dbname=closed', 'dbname=revoked', 'dbname=no_place', 'dbname=nowhere', 'user=alice password=wrong')
{
	my @tries = map {
		my ($out, $err) = ('', '');
		IPC::Run::run [ 'psql', '-X', '-d', "host=127.0.0.1 port=$_ user=alice dbname=postgres sslmode=prefer $refused", '-c', 'SELECT 1' ],
		  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60);
		$err =~ s/port $_/port/g;
		$err;
	} $node->port, $pool;
	is($tries[1], $tries[0], "sslmode=prefer, $refused: as many tries as at the server");
}

# ---- channel binding
same('sslmode=require channel_binding=require', qr/^1$/, 'channel_binding=require: SCRAM-SHA-256-PLUS');
same('sslmode=disable channel_binding=require', qr/channel binding/, 'channel_binding=require without TLS');
same('sslmode=require channel_binding=disable', qr/^1$/, 'channel_binding=disable');
{
	my $c = PgPoolWire->open(port => $pool);
	$c->login(user => 'alice', password => 'secret', database => 'postgres');
	is_deeply($c->{mechanisms}, ['SCRAM-SHA-256'], 'without TLS no -PLUS is offered');
	$c->send(PgPoolWire::message('X', ''));
}
for my $kind ([ 'sha384', '-sha384' ], [ 'sha512', '-sha512' ], [ 'RSA and sha256', 'rsa:2048', '-sha256' ])
{
	my ($name, @options) = @$kind;
	$ca->server($node->data_dir, 'localhost', 'shop.test', 'blog.test', @options);
	$node->reload;
	my $subject = slurp_file($node->data_dir . '/server.crt');
	my $fingerprint = PgPoolTls::openssl('x509', '-in', $node->data_dir . '/server.crt', '-noout', '-fingerprint', '-sha256');
	ok(poll_until(sub {
			my ($s, $text) = PgPoolTls::s_client($pool, '', '-starttls', 'postgres', '-showcerts');
			my ($pem) = $text =~ /(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n)/s or return 0;
			return index($subject, $pem) >= 0;
		}, 'the new certificate', 10), "a certificate signed with $name is taken at a reload");
	is(on($pool, 'sslmode=require channel_binding=require'), '1', '... and channel binding works with it');
}

# ---- direct TLS
{
	my @alpn = ('-alpn', 'postgresql');
	my ($status, $text) = PgPoolTls::s_client($pool, '', @alpn, '-CAfile', $root, '-verify_return_error');
	like($text, qr/ALPN protocol: postgresql/, 'direct TLS with ALPN');
	like($text, qr/Verify return code: 0 \(ok\)/, '... with a certificate that holds');
	($status, $text) = PgPoolTls::s_client($pool, '');
	my $said = $text =~ /no application protocol|ALPN|alert|errno=0|closed|unexpected eof/i || $text !~ /\bR\0/;
	ok($said, 'direct TLS without ALPN ends');
	unlike($text, qr/ALPN protocol: postgresql/, '... without a protocol');
	($status, $text) = PgPoolTls::s_client($pool, '', '-alpn', 'http/1.1');
	like($text, qr/alert no application protocol|no application protocol/, 'direct TLS with another protocol is refused');
	isnt($status, 0, '... by an alert');
	# a whole session through it
	my $startup = PgPoolWire::startup_packet(196608, user => 'nobody', database => 'postgres');
	my ($out, $err) = ('', '');
	my $in = $startup;
	my $h = IPC::Run::start [ 'openssl', 's_client', '-quiet', '-connect', "127.0.0.1:$pool", @alpn ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(20);
	eval { $h->pump until $out =~ /SCRAM/ };
	like($out, qr/^R\0\0\0.\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0/s, 'a startup packet through it is answered, with -PLUS');
	# no second negotiation inside of TLS
	$h->kill_kill;
	for my $request ([ 'SSLRequest', $PgPoolWire::SSL ], [ 'GSSENCRequest', $PgPoolWire::GSS ])
	{
		($out, $err) = ('', '');
		$in = PgPoolWire::request($request->[1]);
		$h = IPC::Run::start [ 'openssl', 's_client', '-quiet', '-connect', "127.0.0.1:$pool", @alpn ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(10);
		eval { $h->pump until $out ne '' };
		like($out, qr/^N|^E.*C08P01/s, "$request->[0] inside of TLS is refused");
		$h->kill_kill;
	}
}

# ---- what comes in clear is not executed; requests one after the other
my ($ssl, $gss) = map { PgPoolWire::request($_) } $PgPoolWire::SSL, $PgPoolWire::GSS;
sub raw_answer
{
	my ($port, @sent) = @_;
	my $c = PgPoolWire->open(port => $port);
	my $got = '';
	for my $i (0 .. $#sent)
	{
		$c->send($sent[$i]);
		next if $i == $#sent;
		$got .= $c->bytes(1, 5) // '-';
	}
	if ($c->need(1, 5))
	{
		my $first = substr $c->{in}, 0, 1;
		if ($first eq 'E') { my $m = $c->next(5); $got .= 'E' . PgPoolWire::error_fields($m->[1])->{C} }
		else { $got .= $first }
	}
	else { $got .= $c->{ended} ? '.' : '-' }
	return $got;
}
my $startup = PgPoolWire::startup_packet(196608, user => 'alice', database => 'postgres');
is(raw_answer($pool, $ssl . $startup), 'E08P01', 'SSLRequest and a startup packet in one segment: 08P01');
is(raw_answer($pool, $ssl . 'x'), 'E08P01', '... one byte is enough');
is(raw_answer($pool, $gss . $startup), 'E08P01', 'the same behind GSSENCRequest');
is(raw_answer($pool, $gss, $startup), 'NR', 'GSSENCRequest is answered N, and the login goes on in clear');
is(raw_answer($pool, $gss, $ssl), 'NS', 'GSS, then SSL');
like(raw_answer($pool, $gss, $gss), qr/^N(E08P01|E0A000|\.)$/, 'GSS twice is refused');
like(raw_answer($pool, $gss, $ssl . $startup), qr/^N(S|E)/, 'bytes behind the SSLRequest after GSS');
is(raw_answer($pool, $gss, $ssl . $startup), 'NE08P01', '... are refused, too');
{
	my $c = PgPoolWire->open(port => $pool);
	$c->send($ssl);
	is($c->bytes(1, 5), 'S', 'SSLRequest is answered S');
	$c->send($startup);
	ok($c->closes(10), 'clear bytes in place of the handshake end the connection');
	is_deeply([ grep { $_->[0] ne 'E' } @{ $c->{seen} } ], [], '... and get no answer');
}
unlike(slurp_log($node), qr/connection authorized/, 'nothing of it reached the server');

# ---- protocol versions of TLS
for my $v ([ 'tls1_2', 'TLSv1.2' ], [ 'tls1_3', 'TLSv1.3' ])
{
	my ($status, $text) = PgPoolTls::s_client($pool, '', '-starttls', 'postgres', "-$v->[0]");
	like($text, qr/Protocol *: $v->[1]|New, $v->[1]/, "$v->[1] is spoken");
	unlike($text, qr/TLS session ticket:\n|Post-Handshake New Session Ticket/, '... without session tickets');
}
sub settle
{
	my ($setting, $check) = @_;
	$node->safe_psql('postgres', $_) for $setting, 'SELECT pg_reload_conf()';
	return poll_until($check, $setting, 10);
}
sub speaks { my ($s, $text) = PgPoolTls::s_client($pool, '', '-starttls', 'postgres', '-' . shift); return $text =~ /New, TLSv1/ }
ok(settle("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.3'", sub { !speaks('tls1_2') }), 'ssl_min_protocol_version = TLSv1.3 shuts out TLSv1.2');
ok(speaks('tls1_3'), '... and lets TLSv1.3 in');
ok(settle("ALTER SYSTEM RESET ssl_min_protocol_version", sub { speaks('tls1_2') }), '... until it is reset');
ok(settle("ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'", sub { !speaks('tls1_3') }), 'ssl_max_protocol_version = TLSv1.2 shuts out TLSv1.3');
is(on($pool, 'sslmode=require channel_binding=require'), '1', '... a session over TLSv1.2 works');
settle("ALTER SYSTEM RESET ssl_max_protocol_version", sub { speaks('tls1_3') });

# ---- hostssl, hostnossl
same('dbname=only_tls sslmode=require', qr/^1$/, 'hostssl with TLS');
same('dbname=only_tls sslmode=disable', qr/pg_hba.conf rejects connection.*no encryption/, 'hostssl without TLS');
same('dbname=only_clear sslmode=require', qr/pg_hba.conf rejects connection.*SSL encryption/, 'hostnossl with TLS');
same('dbname=only_clear sslmode=disable', qr/^1$/, 'hostnossl without TLS');

# ---- client certificates
my ($alice_crt, $alice_key) = $ca->client('alice');
my ($bob_crt, $bob_key) = $ca->client('bob');
my ($named_crt, $named_key) = $ca->client('certificate-name');
my ($false_crt, $false_key) = $other_ca->client('alice');
my %with = (alice => "sslcert=$alice_crt sslkey=$alice_key", bob => "sslcert=$bob_crt sslkey=$bob_key",
	named => "sslcert=$named_crt sslkey=$named_key", false => "sslcert=$false_crt sslkey=$false_key", none => '');
$ENV{PGPASSWORD} = 'wrong';
same("dbname=with_cert sslmode=require $with{alice}", qr/^1$/, 'cert: the right name, no password; pgpool logs in with the stored one');
same("dbname=with_cert sslmode=require $with{bob}", qr/certificate authentication failed for user "alice"/, 'cert: another name');
same("dbname=with_cert sslmode=require $with{none}", qr/connection requires a valid client certificate/, 'cert: none');
like(on($pool, "dbname=with_cert sslmode=require $with{false}"), qr/requires a valid client certificate|unknown ca|certificate authentication failed/i, 'cert: from another authority');
same("dbname=mapped sslmode=require $with{named}", qr/^1$/, 'cert map=: a name that the map admits');
same("dbname=mapped sslmode=require $with{alice}", qr/certificate authentication failed/, '... and one that it does not');
same("dbname=by_dn sslmode=require $with{named}", qr/^1$/, 'cert clientname=DN');
$ENV{PGPASSWORD} = 'secret';
same("dbname=full_cert sslmode=require $with{alice}", qr/^1$/, 'clientcert=verify-full: certificate and password');
same("dbname=full_cert sslmode=require $with{bob}", qr/password authentication failed/, '... another name looks like a wrong password');
same("dbname=full_cert sslmode=require $with{none}", qr/connection requires a valid client certificate/, '... none');
same("dbname=ca_cert sslmode=require $with{bob}", qr/^1$/, 'clientcert=verify-ca: any certificate of the authority');
$ENV{PGPASSWORD} = 'wrong';
same("dbname=full_cert sslmode=require $with{alice}", qr/password authentication failed/, 'clientcert=verify-full with a wrong password');
$ENV{PGPASSWORD} = 'secret';

# ---- SNI, and tenants that require TLS
sub tenant_of
{
	my ($connstr) = @_;
	# the client holds the connection while the view is read
	my $sql = "SELECT pg_sleep(20)";
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start [ 'psql', '-X', '-d', "hostaddr=127.0.0.1 port=$pool user=alice dbname=postgres sslcert=none sslkey=none $connstr", '-c', $sql ],
	  '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(30);
	my $tenant = '';
	poll_until(sub { $h->pump_nb; ($tenant = $node->safe_psql('postgres', 'SELECT tenant FROM pgpool.pg_stat_clients')) ne '' || !$h->pumpable }, 'client', 10);
	$h->kill_kill;
	poll_until(sub { $node->safe_psql('postgres', 'SELECT count(*) FROM pgpool.pg_stat_clients') == 0 });
	return $tenant;
}
is(tenant_of('host=shop.test sslmode=require'), 'shop', 'SNI chooses the tenant');
is(tenant_of('host=blog.test sslmode=require'), 'blog', '... another name another one');
is(tenant_of('host=OTHER.test sslmode=require'), 'blog', '... in any case of letters');
is(tenant_of('host=unknown.test sslmode=require'), 'default', 'an unknown name leads to the default');
is(tenant_of('host=shop.test sslmode=require sslsni=0'), 'default', 'so does none');
is(tenant_of('host=shop.test sslmode=require user=alice.blog'), 'blog', 'role.tenant comes before SNI');
is(tenant_of("host=shop.test sslmode=require options='-c pgpool.tenant=blog'"), 'blog', 'so do options');
like(on($pool, "sslmode=disable options='-c pgpool.tenant=secure'"), qr/tenant "secure" requires TLS/, 'require_tls refuses clients without');
is(on($pool, "sslmode=require options='-c pgpool.tenant=secure'"), '1', '... and admits those with TLS');

# ---- 100 MB each way
sub copy_through
{
	my ($connstr, $sql, $input) = @_;
	my $digest = Digest::MD5->new;
	my $size = 0;
	my $err = '';
	IPC::Run::run [ 'psql', '-X', '-q', '-At', '-d', "host=localhost hostaddr=127.0.0.1 port=$pool user=alice dbname=postgres sslcert=none sslkey=none $connstr", '-c', $sql ],
	  '<', $input // \undef, '>', sub { $digest->add($_[0]); $size += length $_[0] }, '2>', \$err, IPC::Run::timeout(60);
	diag($err) if $err;
	return ($size, $digest->hexdigest);
}
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $file = "$dir/large";
	my $digest = Digest::MD5->new;
	open my $large, '>', $file or die $!;
	for my $n (1 .. 100_000)
	{
		my $line = sprintf("%08d", $n) . chr(97 + $n % 26) x 991 . "\n";
		print $large $line;
		$digest->add($line);
	}
	close $large;
	my $wanted = $digest->hexdigest;
	$node->safe_psql('postgres', 'CREATE UNLOGGED TABLE large (n int, v text); GRANT ALL ON large TO alice');
	for my $mode ('sslmode=require', 'sslmode=disable')
	{
		my $start = time;
		my ($size, $md5) = copy_through($mode, "SELECT lpad(n::text, 8, '0') || repeat(chr(97 + n % 26), 991) FROM generate_series(1, 100000) n");
		is($md5, $wanted, sprintf '%s: %.0f MB of results arrive unharmed (%.1f s)', $mode, $size / 1e6, time - $start);
		$start = time;
		copy_through($mode, 'COPY large (v) FROM STDIN', $file);
		is($node->safe_psql('postgres', "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = substr(v, 1, 8) || repeat(chr(97 + substr(v, 1, 8)::int % 26), 991)) || ' ' || sum(substr(v, 1, 8)::int) FROM large"),
			'100000 100000 5000050000', sprintf '%s: 100 MB of COPY arrive unharmed (%.1f s)', $mode, time - $start);
		$node->safe_psql('postgres', 'TRUNCATE large');
	}
}

# ---- what an idle client costs, over TLS and in clear
for my $tls ('off', 'request')
{
	my $hold = tool('holdidle') or next;
	my @workers = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pgpool.pg_stat_workers');
	my $clients = 400;
	my ($out, $err) = run_command([ $hold, '--host=127.0.0.1', "--port=$pool", '--user=alice', '--password=secret', '--database=postgres', "--tls=$tls",
		"--clients=$clients", '--seconds=1', '--in-flight=20', '--limit-seconds=40', map { "--pid=$_" } @workers ]);
	like($out, qr/^ok .*ready=$clients failed=0/m, "$clients idle clients, TLS $tls") or diag "$out\n$err";
	my @each = $out =~ /^held .*RSS .*?(\d+) bytes a client/mg;
	my $most = (sort { $b <=> $a } @each)[0];
	# 400 clients are few: what the allocator keeps in advance counts, too
	cmp_ok($most, '<', $tls eq 'off' ? 2048 : 16384, sprintf '... cost %s bytes each', join ' and ', @each);
}

is($node->safe_psql('postgres', 'SELECT sum(starts) FROM pgpool.pg_stat_workers'), '2', 'no worker was restarted');
unlike(slurp_log($node), qr/BEGIN (EC )?PRIVATE KEY/, 'no key is in the log');
$node->stop;
done_testing();
