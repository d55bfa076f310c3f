# PgPoolTls: a throw-away certificate authority, certificates signed by it, and TLS as openssl s_client speaks it.
#
#   my $ca = PgPoolTls->new;                           # in a temporary directory
#   $ca->server($node->data_dir, 'localhost');         # server.crt, server.key, root.crt
#   my ($crt, $key) = $ca->client('alice');            # a client certificate with that CN
package PgPoolTls;
use strict;
use warnings FATAL => 'all';

use File::Copy qw(copy);
use IPC::Run;
use PostgreSQL::Test::Utils;

sub openssl
{
	my @arguments = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run [ 'openssl', @arguments ], '<', \undef, '>', \$out, '2>', \$err or die "openssl @arguments: $err";
	return $out;
}

sub new
{
	my ($class, $name) = @_;
	my $self = bless { dir => PostgreSQL::Test::Utils::tempdir(), serial => 0, name => $name // 'Test authority' }, $class;
	openssl(qw(req -new -x509 -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj), "/CN=$self->{name}",
		'-keyout', "$self->{dir}/ca.key", '-out', "$self->{dir}/ca.crt");
	return $self;
}

sub authority { return "$_[0]{dir}/ca.crt" }

sub sign
{
	my ($self, $subject, $extension, @options) = @_;
	my $base = "$self->{dir}/cert" . ++$self->{serial};
	append_to_file("$base.ext", "$extension\n");
	my @new = grep { /^rsa/ } @options;
	my @key = @new ? ('-newkey', $new[0]) : qw(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1);
	my @sign = grep { !/^rsa/ } @options;
	openssl(qw(req -new -nodes), @key, '-subj', $subject, '-keyout', "$base.key", '-out', "$base.csr");
	openssl(qw(x509 -req -in), "$base.csr", '-CA', "$self->{dir}/ca.crt", '-CAkey', "$self->{dir}/ca.key", '-set_serial', $self->{serial},
		'-days', '30', '-extfile', "$base.ext", '-out', "$base.crt", @sign);
	chmod 0600, "$base.key";
	return ("$base.crt", "$base.key");
}

sub client { my ($self, $name, @options) = @_; return $self->sign("/O=pgpool/CN=$name", 'extendedKeyUsage=clientAuth', @options) }

sub server
{
	my ($self, $where, @names) = @_;
	my @options = grep { /^-|^rsa/ } @names;
	@names = grep { !/^-|^rsa/ } @names;
	my ($crt, $key) = $self->sign("/CN=$names[0]", 'subjectAltName=' . join(',', map { "DNS:$_" } @names), @options);
	copy($crt, "$where/server.crt");
	copy($key, "$where/server.key");
	copy($self->authority, "$where/root.crt");
	chmod 0600, "$where/server.key";
}

# openssl s_client; gives its exit status and all that it said.
sub s_client
{
	my ($port, $input, @options) = @_;
	my ($out, $err) = ('', '');
	my $handle = IPC::Run::start [ 'openssl', 's_client', '-connect', "127.0.0.1:$port", @options ], '<', \$input, '>', \$out, '2>', \$err,
	  IPC::Run::timeout(20);
	eval { $handle->finish; 1 } or $handle->kill_kill;
	return ($? >> 8, "$out\n$err");
}

1;
