# PgPoolWire: messages of the PostgreSQL protocol for all tests here, and a client of it for tests that look at the bytes
# themselves.
#
# The functions build a client's messages, read a backend's, and say what proves a password; they know no socket, and are
# exported on request. PgPool::Raw is made of them, too; in C++ the same is test/wire/messages.hpp.
#
# The client logs in (trust, password, MD5, SCRAM-SHA-256), keeps every message that came, and never dies of what the other
# side does: an end of the connection or a time that ran out is an undef. A Unix socket is named by its path.
#
#   my $c = PgPoolWire->open(port => $port);
#   my $r = $c->login(user => 'alice', password => 'secret', database => 'db', TimeZone => 'UTC');
#   $r->{error} or is_deeply($c->query('SELECT 1')->{rows}, [['1']]);
package PgPoolWire;
use strict;
use warnings FATAL => 'all';
no warnings 'redundant';

use Digest::MD5 qw(md5_hex);
use Digest::SHA qw(hmac_sha256 sha256);
use Errno;
use Exporter 'import';
use IO::Socket::INET;
use IO::Socket::UNIX;
use MIME::Base64;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(time);

our @EXPORT_OK = qw(message startup_packet request cancel_request query_message parse bind_to execute describe close_name flush sync
  terminate take error_fields row parameter prove);
our $LIMIT = 30; # seconds that one message may take

# ---- a client's messages; what is most often the same comes last: the unnamed statement, the unnamed portal, all rows
sub packet { my $body = shift; return pack('N', 4 + length $body) . $body }
sub message { my ($type, $body) = @_; return $type . packet($body // '') }
sub startup_packet { my ($version, @pairs) = @_; return packet(pack('N', $version) . join('', map { "$_\0" } @pairs) . "\0") }
our ($CANCEL, $SSL, $GSS) = 80877102 .. 80877104;
sub request { return packet(pack 'N', $_[0]) } # $SSL, $GSS
sub cancel_request { my ($pid, $key) = @_; return packet(pack('N N', $CANCEL, $pid) . $key) }

sub query_message { my $sql = shift; return message('Q', "$sql\0") }
sub parse { my ($sql, $name, @types) = @_; return message('P', ($name // '') . "\0$sql\0" . pack 'n N*', scalar @types, @types) }
# statement, values as text
sub bind_to { my ($name, @values) = @_; return bind_formats($name // '', [], \@values) }
sub bind_formats # statement, formats, values, formats of the result
{
	my ($name, $formats, $values, @results) = @_;
	return message('B', "\0$name\0" . pack('n*', scalar @$formats, @$formats, scalar @$values)
		  . join('', map { defined $_ ? pack('N', length) . $_ : pack 'N', 0xffffffff } @$values) . pack 'n*', scalar @results, @results);
}
sub execute { return message('E', "\0" . pack 'N', $_[0] // 0) }
sub describe { my ($kind, $name) = @_; return message('D', $kind . ($name // '') . "\0") } # S, a statement; P, a portal
sub close_name { my ($kind, $name) = @_; return message('C', $kind . ($name // '') . "\0") }
sub flush { return message('H') }
sub sync { return message('S') }
sub terminate { return message('X') }

# ---- a backend's messages
# The message in front of the bytes, taken off them, as [type, body]; undef while it is not whole.
sub take
{
	my $bytes = shift;
	return undef if length $$bytes < 5;
	my ($type, $length) = unpack 'a N', $$bytes;
	return undef if length $$bytes < 1 + $length;
	return [ $type, substr(substr($$bytes, 0, 1 + $length, ''), 5) ];
}

# Of an error or a notice: field => text
sub error_fields { my $body = shift; return { map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $body } }
# Of a DataRow: its values
sub row
{
	my ($n, @values) = unpack 'n', $_[0];
	my $at = 2;
	for (1 .. $n)
	{
		my $length = unpack 'l>', substr $_[0], $at, 4;
		$at += 4;
		push @values, $length < 0 ? undef : substr $_[0], $at, $length;
		$at += $length if $length > 0;
	}
	return @values;
}
# Of a ParameterStatus: name, value
sub parameter { my ($name, $value) = split /\0/, $_[0], -1; return ($name, $value) }

# ---- a client's proof
my %salted; # 4096 HMACs take a while

sub scram_salted
{
	my ($password, $salt, $iterations) = @_;
	return $salted{"$password:$salt:$iterations"} //= scram_salt($password, $salt, $iterations);
}

sub scram_salt
{
	my ($password, $salt, $iterations) = @_;
	my $u = hmac_sha256($salt . pack('N', 1), $password);
	my $sum = $u;
	for (2 .. $iterations)
	{
		$u = hmac_sha256($u, $password);
		$sum ^= $u;
	}
	return $sum;
}

# The answer to an Authentication message, as (bytes or undef, error or undef). The login is a hash with user and password;
# it keeps method and mechanisms, challenge, salt and iterations, and what the exchange needs.
sub prove
{
	my ($login, $body) = @_;
	my ($code, $rest) = unpack 'N a*', $body;
	$login->{method} = $code if $code == 3 || $code == 5 || $code == 10;
	return (undef, undef) if $code == 0;
	return message('p', "$login->{password}\0") if $code == 3;
	return message('p', 'md5' . md5_hex(md5_hex($login->{password} . $login->{user}) . $rest) . "\0") if $code == 5;
	if ($code == 10)
	{
		$login->{mechanisms} = [ split /\0/, $rest ];
		$login->{bare} = 'n=,r=' . encode_base64(join('', map { chr int rand 256 } 1 .. 18), '');
		my $first = "n,,$login->{bare}";
		return message('p', "SCRAM-SHA-256\0" . pack('N', length $first) . $first);
	}
	if ($code == 11)
	{
		$login->{challenge} = $rest;
		my ($nonce, $salt, $iterations) = $rest =~ /^r=([^,]*),s=([^,]*),i=(\d+)$/ or return (undef, "strange challenge $rest");
		@$login{qw(salt iterations)} = ($salt, $iterations);
		my $salted = scram_salted($login->{password}, decode_base64($salt), $iterations);
		my $client_key = hmac_sha256('Client Key', $salted);
		my $final = "c=biws,r=$nonce";
		my $all = "$login->{bare},$rest,$final";
		my $proof = $client_key ^ hmac_sha256($all, sha256($client_key));
		$login->{signature} = encode_base64(hmac_sha256($all, hmac_sha256('Server Key', $salted)), '');
		return message('p', "$final,p=" . encode_base64($proof, ''));
	}
	return (undef, $rest eq "v=$login->{signature}" ? undef : 'wrong signature of the server') if $code == 12;
	return (undef, "authentication method $code");
}

# ---- a client

sub open
{
	my ($class, %to) = @_;
	my $socket = $to{path}
	  ? IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $to{path})
	  : IO::Socket::INET->new(PeerAddr => $to{host} // '127.0.0.1', PeerPort => $to{port},
		Proto => 'tcp', ($to{source} ? (LocalAddr => $to{source}) : ()));
	return undef unless $socket;
	$socket->blocking(1);
	binmode $socket;
	return bless { socket => $socket, in => '', seen => [], parameters => {} }, $class;
}

sub send
{
	my ($self, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $n = syswrite $self->{socket}, $bytes;
		return 0 unless defined $n;
		substr($bytes, 0, $n) = '';
	}
	return 1;
}

# Reads until there are so many bytes; undef at the end of the connection or of the time.
sub need
{
	my ($self, $count, $limit) = @_;
	my $end = time + ($limit // $LIMIT);
	while (length $self->{in} < $count)
	{
		my $bits = '';
		vec($bits, fileno $self->{socket}, 1) = 1;
		my $left = $end - time;
		$self->{late} = 1, return undef if $left <= 0;
		next unless select($bits, undef, undef, $left) > 0;
		my $n = sysread $self->{socket}, $self->{in}, 65536, length $self->{in};
		next if !defined $n && $!{EINTR};
		$self->{ended} = 1, return undef if !$n;
	}
	return 1;
}

sub bytes
{
	my ($self, $count, $limit) = @_;
	return undef unless $self->need($count, $limit);
	return substr $self->{in}, 0, $count, '';
}

# One message: [type, body]
sub next
{
	my ($self, $limit) = @_;
	return undef unless $self->need(5, $limit);
	return undef unless $self->need(1 + unpack('x N', $self->{in}), $limit);
	my $message = take(\$self->{in});
	push @{ $self->{seen} }, $message;
	return $message;
}

# True if the other side closes within the time, whatever it sends before.
sub closes
{
	my ($self, $limit) = @_;
	1 while $self->next($limit // $LIMIT);
	return $self->{ended} ? 1 : 0;
}

sub close { CORE::close $_[0]{socket} }

# Types and lengths of all that came: what an observer sees of an answer.
sub shape
{
	my $self = shift;
	return join ' ', map { $_->[0] . ($_->[0] eq 'R' ? unpack('N', $_->[1]) . ':' : '') . length $_->[1] } @{ $self->{seen} };
}

# user, password, database and further startup parameters; protocol => 196610 for 3.2; until => 'R' stops there.
sub login
{
	my ($self, %p) = @_;
	my $password = delete $p{password};
	my $protocol = delete $p{protocol} // 196608;
	my $sent = delete $p{sent};
	my @pairs = (user => delete $p{user});
	push @pairs, database => delete $p{database} if defined $p{database};
	delete $p{database};
	push @pairs, map { $_ => $p{$_} } sort keys %p;
	$self->{user} = $pairs[1];
	$self->send(startup_packet($protocol, @pairs)) unless $sent;
	return $self->finish_login($password // '');
}

sub finish_login
{
	my ($self, $password) = @_;
	$self->{password} = $password;
	while (my $m = $self->next)
	{
		my ($type, $body) = @$m;
		if ($type eq 'E') { return $self->{result} = { error => error_fields($body) } }
		if ($type eq 'Z') { return $self->{result} = { ok => 1 } }
		if ($type eq 'K') { ($self->{pid}, $self->{key}) = unpack 'N a*', $body }
		if ($type eq 'S') { my ($n, $v) = parameter($body); $self->{parameters}{$n} = $v }
		if ($type eq 'v') { $self->{negotiated} = $body }
		next if $type ne 'R';
		my ($bytes, $error) = prove($self, $body);
		return $self->{result} = { error => { C => 'test', M => $error } } if $error;
		$self->send($bytes) if defined $bytes;
	}
	return $self->{result} = { error => { C => '', M => $self->{late} ? 'no answer' : 'closed without an answer' } };
}

sub query
{
	my ($self, $sql, $limit) = @_;
	$self->send(query_message($sql)) or return { error => { C => '', M => 'not sent' } };
	return $self->answer($limit);
}

# Messages up to ReadyForQuery (or the end) as one result.
sub answer
{
	my ($self, $limit) = @_;
	my %r = (rows => [], tags => []);
	while (my $m = $self->next($limit))
	{
		my ($type, $body) = @$m;
		if ($type eq 'D') { push @{ $r{rows} }, [ row($body) ] }
		elsif ($type eq 'C') { push @{ $r{tags} }, unpack 'Z*', $body }
		elsif ($type eq 'E') { $r{error} = error_fields($body) }
		elsif ($type eq 'S') { my ($n, $v) = parameter($body); $self->{parameters}{$n} = $v }
		elsif ($type eq 'Z') { $r{status} = $body; return \%r }
	}
	$r{error} //= { C => '', M => $self->{late} ? 'no answer' : 'closed' };
	$r{closed} = 1;
	return \%r;
}

# First column of the first row, or the error as text.
sub value
{
	my ($self, $sql, $limit) = @_;
	my $r = $self->query($sql, $limit);
	return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{rows}[0] ? $r->{rows}[0][0] : undef;
}

sub text { my $r = shift; return $r->{ok} ? 'ok' : "$r->{error}{C} $r->{error}{M}" }

1;
