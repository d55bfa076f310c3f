# PgPoolWire: a client of the PostgreSQL protocol for tests that look at the bytes themselves.
#
# It logs in (trust, password, MD5, SCRAM-SHA-256), keeps every message that came, and never dies of what the other
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
use IO::Socket::INET;
use IO::Socket::UNIX;
use MIME::Base64;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(time);

our $LIMIT = 30; # seconds that one message may take

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
	my ($type, $length) = unpack 'a N', $self->{in};
	return undef unless $self->need(1 + $length, $limit);
	my $message = [ $type, substr(substr($self->{in}, 0, 1 + $length, ''), 5) ];
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

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body }

sub startup_packet
{
	my ($version, @pairs) = @_;
	my $body = pack 'N', $version;
	$body .= "$_\0" for @pairs;
	$body .= "\0";
	return pack('N', 4 + length $body) . $body;
}

sub error_fields
{
	my $body = shift;
	my %f;
	for (split /\0/, $body)
	{
		$f{ substr $_, 0, 1 } = substr $_, 1 if length;
	}
	return \%f;
}

sub xor_bytes { my ($a, $b) = @_; return $a ^ $b }

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
	my %scram;
	while (my $m = $self->next)
	{
		my ($type, $body) = @$m;
		if ($type eq 'E') { return $self->{result} = { error => error_fields($body) } }
		if ($type eq 'Z') { return $self->{result} = { ok => 1 } }
		if ($type eq 'K') { ($self->{pid}, $self->{key}) = unpack 'N a*', $body }
		if ($type eq 'S') { my ($n, $v) = split /\0/, $body, -1; $self->{parameters}{$n} = $v }
		if ($type eq 'v') { $self->{negotiated} = $body }
		next if $type ne 'R';
		my ($code, $rest) = unpack 'N a*', $body;
		$self->{method} = $code if $code == 3 || $code == 5 || $code == 10;
		if ($code == 3) { $self->send(message('p', "$password\0")) }
		elsif ($code == 5)
		{
			$self->send(message('p', 'md5' . md5_hex(md5_hex($password . $self->{user}) . $rest) . "\0"));
		}
		elsif ($code == 10)
		{
			$self->{mechanisms} = [ split /\0/, $rest ];
			$scram{nonce} = encode_base64(join('', map { chr int rand 256 } 1 .. 18), '');
			$scram{bare} = "n=,r=$scram{nonce}";
			my $first = "n,,$scram{bare}";
			$self->send(message('p', "SCRAM-SHA-256\0" . pack('N', length $first) . $first));
		}
		elsif ($code == 11)
		{
			$self->{challenge} = $rest;
			my ($nonce, $salt, $iterations) = $rest =~ /^r=([^,]*),s=([^,]*),i=(\d+)$/
			  or return { error => { C => 'test', M => "strange challenge $rest" } };
			$self->{salt} = $salt;
			$self->{iterations} = $iterations;
			my $salted = scram_salted($password, decode_base64($salt), $iterations);
			my $client_key = hmac_sha256('Client Key', $salted);
			my $bare = "c=biws,r=$nonce";
			my $all = "$scram{bare},$rest,$bare";
			my $proof = xor_bytes($client_key, hmac_sha256($all, sha256($client_key)));
			$scram{signature} = encode_base64(hmac_sha256($all, hmac_sha256('Server Key', $salted)), '');
			$self->send(message('p', "$bare,p=" . encode_base64($proof, '')));
		}
		elsif ($code == 12)
		{
			return { error => { C => 'test', M => 'wrong signature of the server' } } if $rest ne "v=$scram{signature}";
		}
		elsif ($code != 0) { return $self->{result} = { error => { C => 'test', M => "method $code" } } }
	}
	return $self->{result} = { error => { C => '', M => $self->{late} ? 'no answer' : 'closed without an answer' } };
}

sub query
{
	my ($self, $sql, $limit) = @_;
	$self->send(message('Q', "$sql\0")) or return { error => { C => '', M => 'not sent' } };
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
		if ($type eq 'D')
		{
			my ($n, $rest) = unpack 'n a*', $body;
			my @row;
			for (1 .. $n)
			{
				my $length = unpack 'N', substr $rest, 0, 4, '';
				push @row, $length == 0xffffffff ? undef : substr $rest, 0, $length, '';
			}
			push @{ $r{rows} }, \@row;
		}
		elsif ($type eq 'C') { push @{ $r{tags} }, unpack 'Z*', $body }
		elsif ($type eq 'E') { $r{error} = error_fields($body) }
		elsif ($type eq 'S') { my ($n, $v) = split /\0/, $body, -1; $self->{parameters}{$n} = $v }
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
