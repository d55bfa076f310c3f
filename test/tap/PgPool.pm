# Helpers of the TAP tests: a cluster with pgpool preloaded, clients that speak the protocol themselves, waiting.

=pod

=head1 NAME

PgPool - a PostgreSQL cluster with pgpool for TAP tests

=head1 SYNOPSIS

    use PgPool;
    my $pool = PgPool->new('main', workers => 2, conf => "pgpool.default_pool_size = 5");
    is($pool->sql('SELECT 1'), '1', 'on the server\'s own port, as superuser');
    my ($rc, $out, $err) = $pool->psql('SELECT 1');          # psql through the pool, as app
    my $client = $pool->raw;                                 # a logged-in client, as app
    $client->query('SELECT pg_sleep(10)');                   # does not wait
    within(5, sub { $pool->sql('SELECT count(*) ...') == 1 }, 'the query runs');
    $client->rst;
    done_testing();

=head1 THE CLUSTER

C<< PgPool->new(name, %options) >> makes and starts a cluster. Options:

    workers     => 2        pgpool.workers
    pool_size   => 5        pgpool.default_pool_size
    session     => 1        gives it a session port, too
    tls         => 0        ssl stays off; else there is a certificate, and psql, pgbench and drivers come by TLS
    sockets     => "..."    what test/tools/preload/slowsock.cpp does to the workers' sockets, as "short=1,again=2"
    conf        => "..."    lines for postgresql.conf, after all others
    streaming   => 1        can have standbys; room for connections all the same
    preload     => 0        pgpool is not preloaded
    extension   => 0        CREATE EXTENSION is left to the test
    start       => 0        the test starts it: $pool->node->start, then $pool->ready
    faults      => 1        its processes can be made to do something wrong: $pool->fault

Roles: the superuser (the operating system's user, by C<peer> on the Unix socket, without a password) and C<app>,
C<app2> (password: the name followed by C<-secret>) by SCRAM everywhere. Databases: C<postgres> with the extension,
and C<app>, owned by app. Nothing is trusted.

=over

=item $pool->node, $pool->port, $pool->session_port, $pool->server_port, $pool->socket_dir, $pool->data_dir

the PostgreSQL::Test::Cluster, and where things are. C<port> is pgpool's.

=item $pool->sql(query, database)

the rows of a query as text (columns separated by |, rows by newlines), as superuser on the server's own port, over a
connection that is kept open; dies on an error.

=item $pool->psql(sql, %options), $pool->run_psql(sql, %options)

psql through the pool: (status, standard output, standard error). C<run_psql> dies on an error and gives the output.
Options: user, password, database, host, port, extra (further arguments), env (hash).

=item $pool->raw(%options), $pool->direct(%options)

a PgPool::Raw through the pool, or on the server's own port. Options: those of PgPool::Raw->new.

=item $pool->ready(seconds)

waits until all workers listen and the pool answers a login; dies otherwise.

=item $pool->sockets(faults)

stops the cluster and starts it with other faults.

=item $pool->workers, $pool->worker_pid(number), $pool->manager_pid

process ids, found by the names of the postmaster's children.

=item $pool->worker_of(client)

the number of the worker that serves a PgPool::Raw.

=item $pool->clients_by_worker(number, %options)

logs clients in until each worker serves at least that many; gives a reference to a list of lists.

=item $pool->started_at

when the postmaster started, as text: the same text means that it was not restarted. C<crashes(offset)> counts the
lines of the log that tell of a restart of all processes.

=item $pool->backends(database)

the number of backends of the role app (all databases without an argument).

=item $pool->start_tool(name, arguments...), $pool->pgbench(arguments...)

start a program of test/tools (or pgbench through the pool, as app to database app) in the background and give a
PgPool::Job with C<finish(seconds)>: ends it when it takes longer, and gives its exit status; C<output>; C<running>.

=item $pool->fault(pid, what)

makes a process of the server (option C<faults>) do something wrong the next time that it waits: a word of
test/tools/preload/fault.cpp. Returns when the process has taken it.

=item $pool->log_offset, $pool->log_text(offset)

the size of the server's log, and what came later.

=back

=head1 FUNCTIONS

=over

=item wait_until(seconds, sub)

polls until the sub is true; gives the seconds it took (above 0), or undef.

=item within(seconds, sub, name)

the same as a test, with the time that it took as a comment.

=item free_port(), kills_per_worker(), rss_kb(pid), children(pid), alive(pid), tool_file(name)

=back

=cut

package PgPool;
use strict;
use warnings;
use Exporter 'import';
use File::Spec;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(wait_until within free_port kills_per_worker rss_kb children alive tool_file);

my @jobs;       # background programs: whatever happens, none is left running
my $test_pid = $$;

sub free_port { return PostgreSQL::Test::Cluster::get_free_port(); }
sub kills_per_worker { return $ENV{PGPOOL_KILLS} || 3; }

# A zombie has ended: it waits for a parent that may not care.
sub alive
{
	my ($pid) = @_;
	open(my $file, '<', "/proc/$pid/stat") or return 0;
	my $stat = <$file> // return 0;
	return $stat =~ /\) ([A-Z]) / && $1 ne 'Z' && $1 ne 'X' ? 1 : 0;
}

sub rss_kb
{
	my ($pid) = @_;
	open(my $file, '<', "/proc/$pid/status") or return 0;
	my ($kb) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$file>;
	return $kb // 0;
}

# pid => command line of the children of a process
sub children
{
	my ($parent) = @_;
	my %found;
	for my $dir (glob '/proc/[0-9]*')
	{
		open(my $file, '<', "$dir/stat") or next;
		my $stat = <$file> // next;
		next unless $stat =~ /\) \S (\d+) / && $1 == $parent;
		open($file, '<', "$dir/cmdline") or next;
		local $/;
		my $line = <$file> // '';
		$line =~ s/\0/ /g;
		$found{ ($dir =~ /(\d+)$/)[0] } = $line;
	}
	return %found;
}

sub wait_until
{
	my ($seconds, $sub) = @_;
	my $start = time;
	do
	{
		return (time - $start) || 1e-6 if $sub->();
		sleep(0.02);
	} while (time - $start < $seconds);
	return undef;
}

sub within
{
	my ($seconds, $sub, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $took = wait_until($seconds, $sub);
	ok(defined $took, $name . (defined $took ? sprintf(' (%.2f s of %s)', $took, $seconds) : " within $seconds s"));
	return $took;
}

sub new
{
	my ($class, $name, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $self = bless { node => $node, port => free_port(), preload => $o{preload} // 1 }, $class;
	$self->{session_port} = free_port() if $o{session};
	$node->init(
		allows_streaming => $o{streaming} // 0,
		extra            => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
	$self->certificate if $o{tls} // 1;
	$self->write_hba;
	my $conf = <<CONF;
listen_addresses = '127.0.0.1'
log_statement = none
restart_after_crash = on
password_encryption = 'scram-sha-256'
max_connections = 60
shared_buffers = 16MB
CONF
	$conf .= "ssl = on\n" if $o{tls} // 1;
	if ($self->{preload})
	{
		$conf .= "shared_preload_libraries = 'pgpool'\npgpool.port = $self->{port}\npgpool.database = 'postgres'\n";
		$conf .= 'pgpool.workers = ' . ($o{workers} // 2) . "\n";
		$conf .= 'pgpool.default_pool_size = ' . ($o{pool_size} // 5) . "\n";
		$conf .= "pgpool.session_port = $self->{session_port}\n" if $o{session};
	}
	$node->append_conf('postgresql.conf', $conf . ($o{conf} // ''));
	if ($o{start} // 1)
	{
		$self->{faults} = "$ENV{TESTDATADIR}/$name.faults" if $o{faults};
		$self->start_node($o{sockets});
		$self->prepare($o{extension} // 1);
		$self->ready if $self->{preload};
	}
	return $self;
}

# The postmaster's children have its environment; the clients of the test do not. The libraries of test/tools/preload that
# the cluster was asked for are loaded into all its processes.
sub start_node
{
	my ($self, $sockets) = @_;
	my (@libraries, %more);
	if ($sockets)
	{
		push @libraries, tool_file('preload/slowsock.so');
		$more{PGPOOL_SOCKETS} = $sockets;
	}
	if ($self->{faults})
	{
		mkdir $self->{faults};
		push @libraries, tool_file('preload/fault.so');
		$more{PGPOOL_FAULTS} = $self->{faults};
	}
	local %ENV = (%ENV, %more, @libraries ? (LD_PRELOAD => join(':', @libraries)) : ());
	return $self->node->start;
}

sub sockets
{
	my ($self, $faults) = @_;
	$self->forget_sql;
	$self->node->stop('fast');
	$self->start_node($faults);
	$self->ready(60);
}

# Another cluster that exists already (a standby), to be used like one of ours.
sub adopt
{
	my ($class, $node, %o) = @_;
	return bless { node => $node, preload => 1, %o }, $class;
}

sub fault
{
	my ($self, $pid, $what) = @_;
	my $file = "$self->{faults}/$pid";
	open(my $out, '>', "$file.new") or die "$file: $!";
	print $out "$what\n";
	close $out;
	rename "$file.new", $file or die "$file: $!";
	defined wait_until(30, sub { !-e $file }) or die "process $pid does not look for $file\n";
}

sub tool_file
{
	my ($name) = @_;
	my $file = File::Spec->rel2abs(($ENV{PGPOOL_TOOLS} // "build/tools") . "/$name");
	die "there is no $file: run make tools\n" unless -e $file;
	return $file;
}

sub prepare
{
	my ($self, $extension) = @_;
	$self->sql('CREATE EXTENSION pgpool') if $extension;
	$self->sql("CREATE ROLE $_ LOGIN PASSWORD '$_-secret'") for qw(app app2);
	$self->sql('CREATE DATABASE app OWNER app');
}

sub write_hba
{
	my ($self, $more) = @_;
	my $owner = getpwuid($<);
	my $file  = $self->data_dir . '/pg_hba.conf';
	open(my $hba, '>', $file) or die "$file: $!";
	print $hba $more // '';
	print $hba <<HBA;
local all         $owner              peer
local replication $owner              peer
local all         all                 scram-sha-256
host  all         all    127.0.0.1/32 scram-sha-256
host  all         all    ::1/128      scram-sha-256
HBA
	close $hba;
}

# server.crt and server.key for localhost in the data directory; the subject tells one from the next
sub certificate
{
	my ($self, $subject) = @_;
	my $dir = $self->data_dir;
	my ($out, $err);
	IPC::Run::run(
		[
			qw(openssl req -new -x509 -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1), '-subj',
			'/CN=' . ($subject // 'localhost'), '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
			'-keyout', "$dir/server.key.new", '-out', "$dir/server.crt.new"
		],
		'>', \$out, '2>', \$err) or die "openssl: $err";
	chmod 0600, "$dir/server.key.new";
	rename "$dir/$_.new", "$dir/$_" or die "$dir/$_: $!" for qw(server.key server.crt);
}

sub node         { return $_[0]{node} }
sub port         { return $_[0]{port} }
sub session_port { return $_[0]{session_port} }
sub server_port  { return $_[0]{node}->port }
sub socket_dir   { return $_[0]{node}->host }
sub data_dir     { return $_[0]{node}->data_dir }

sub postmaster_pid
{
	my ($self) = @_;
	my $file = $self->data_dir . '/postmaster.pid';
	open(my $pid, '<', $file) or return undef;
	my $line = <$pid> // return undef;
	return $line =~ /^(\d+)/ ? $1 : undef;
}

sub worker_pids
{
	my ($self) = @_;
	my $postmaster = $self->postmaster_pid // return ();
	my %all        = children($postmaster);
	my %found;
	for my $pid (keys %all)
	{
		$found{$1} = $pid if $all{$pid} =~ /pgpool worker (\d+)/;
	}
	return %found; # number => pid
}
sub workers { my %w = $_[0]->worker_pids; return map { $w{$_} } sort { $a <=> $b } keys %w; }
sub worker_pid { my ($self, $n) = @_; my %w = $self->worker_pids; return $w{$n}; }

sub manager_pid
{
	my ($self) = @_;
	my %all = children($self->postmaster_pid // return undef);
	return (grep { $all{$_} =~ /pgpool manager/ } keys %all)[0];
}

sub ready
{
	my ($self, $seconds) = @_;
	my $last = '';
	my $took = wait_until(
		$seconds // 20,
		sub {
			my $state = eval {
				$self->sql("SELECT count(*) FILTER (WHERE state = 'running' AND listens_tcp AND listens_unix) = count(*)
					FROM pgpool.pg_stat_workers");
			} // do { $last = $@; 'f' };
			# without the extension there is no view
			return 0 if $state ne 't' && $last !~ /does not exist/;
			my $client = eval { $self->raw(timeout => 5) } or do { $last = $@; return 0; };
			$client->close;
			return 1;
		});
	die "the pool does not serve: $last\n" unless defined $took;
	return $took;
}

sub sql
{
	my ($self, $query, $database) = @_;
	$database //= 'postgres';
	my $of = \$self->{admin}{$database};
	for my $try (1, 2)
	{
		$$of //= PgPool::Raw->new(
			host => $self->socket_dir, port => $self->server_port, user => scalar getpwuid($<),
			database => $database, timeout => 120);
		my $r = $$of->ask($query);
		if ($r->{closed} && !$r->{error} && $try == 1 || $$of->{eof} && $try == 1 && !$r->{messages})
		{
			undef $$of; # the server was restarted meanwhile
			next;
		}
		undef $$of if $$of->{eof};
		die "$query: $r->{error}{C} $r->{error}{M}\n" if $r->{error};
		die "$query: the connection was closed\n" if $r->{closed};
		return join("\n", map { join('|', map { $_ // '' } @$_) } @{ $r->{rows} });
	}
	die "$query: the connection was closed\n";
}

# Closes the connections of sql(): nothing of the test is open on the server's own port then.
sub forget_sql { my ($self) = @_; $_->close for grep { $_ } values %{ $self->{admin} // {} }; $self->{admin} = {}; }

sub raw
{
	my ($self, %o) = @_;
	return PgPool::Raw->new(host => '127.0.0.1', port => $self->port, user => 'app', database => 'app', %o);
}

sub direct
{
	my ($self, %o) = @_;
	return PgPool::Raw->new(host => $self->socket_dir, port => $self->server_port, user => 'app', database => 'app', %o);
}

sub psql
{
	my ($self, $sql, %o) = @_;
	my $user = $o{user} // 'app';
	local %ENV = (%ENV, %{ $o{env} // {} }, PGPASSWORD => $o{password} // ($user =~ s/\..*//r) . '-secret');
	delete $ENV{PGDATABASE};
	my ($out, $err) = ('', '');
	my @command = (
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h', $o{host} // '127.0.0.1', '-p', $o{port} // $self->port,
		'-U', $user, '-d', $o{database} // 'app', @{ $o{extra} // [] }, '-f', '-');
	my $job = eval { IPC::Run::run(\@command, '<', \$sql, '>', \$out, '2>', \$err, IPC::Run::timeout($o{timeout} // 60)); 1 };
	my $status = $job ? $? >> 8 : 124;
	chomp($out, $err);
	return ($status, $out, $err);
}

sub run_psql
{
	my ($self, @rest) = @_;
	my ($status, $out, $err) = $self->psql(@rest);
	die "psql: $err\n" if $status;
	return $out;
}

sub worker_of
{
	my ($self, $client) = @_;
	my $port = $client->{socket}->sockport;
	return $self->sql("SELECT worker FROM pgpool.pg_stat_clients WHERE client_port = $port");
}

sub clients_by_worker
{
	my ($self, $least, %o) = @_;
	my $workers = () = $self->workers;
	my @lists = map { [] } 1 .. $workers;
	for (1 .. 200)
	{
		last unless grep { @$_ < $least } @lists;
		my $client = $self->raw(%o);
		push @{ $lists[ $self->worker_of($client) ] }, $client;
	}
	return \@lists;
}

sub started_at { return $_[0]->sql('SELECT pg_postmaster_start_time()'); }

sub crashes
{
	my ($self, $offset) = @_;
	return scalar(() = $self->log_text($offset) =~ /terminating any other active server processes|reinitializing/g);
}

sub backends
{
	my ($self, $database) = @_;
	return $self->sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"
		  . (defined $database ? " AND datname = '$database'" : ''));
}

sub start
{
	my ($self, $command, %env) = @_;
	my $job = PgPool::Job->new($command, %env);
	push @jobs, $job;
	return $job;
}

sub start_tool
{
	my ($self, $name, @arguments) = @_;
	my $program = tool_file($name);
	my @target;
	push @target, '--host=127.0.0.1' unless grep { /^--host=/ } @arguments;
	push @target, '--port=' . $self->port unless grep { /^--port=/ } @arguments;
	return $self->start([ $program, @target, @arguments ]);
}

sub pgbench
{
	my ($self, @arguments) = @_;
	return $self->start([ 'pgbench', '-h', '127.0.0.1', '-p', $self->port, '-U', 'app', @arguments, 'app' ],
		PGPASSWORD => 'app-secret');
}

sub log_offset { return -s $_[0]->node->logfile // 0; }

sub log_text
{
	my ($self, $offset) = @_;
	open(my $log, '<', $self->node->logfile) or return '';
	seek($log, $offset // 0, 0);
	local $/;
	return <$log> // '';
}

END
{
	my $status = $?;
	if ($$ == $test_pid)
	{
		$_->stop for @jobs;
	}
	$? = $status;
}

# ---- a program in the background ----------------------------------------------------------------------

package PgPool::Job;
use POSIX ':sys_wait_h';
use Time::HiRes qw(time sleep);

my $job_number = 0;

sub new
{
	my ($class, $command, %env) = @_;
	my $dir  = $ENV{TESTDATADIR} // $ENV{TMPDIR} // '/tmp';
	my $file = "$dir/job.$$." . ++$job_number . '.out';
	my $pid  = fork // die "fork: $!";
	if ($pid == 0)
	{
		$ENV{$_} = $env{$_} for keys %env;
		open(STDIN,  '<', '/dev/null');
		open(STDOUT, '>', $file);
		open(STDERR, '>&', \*STDOUT);
		exec { $command->[0] } @$command or print "exec $command->[0]: $!\n";
		POSIX::_exit(127);
	}
	return bless { pid => $pid, file => $file, command => $command }, $class;
}

sub pid { return $_[0]{pid} }

sub running
{
	my ($self) = @_;
	return 0 if defined $self->{status};
	return 1 unless waitpid($self->{pid}, WNOHANG) == $self->{pid};
	$self->{status} = $? & 127 ? 128 + ($? & 127) : $? >> 8;
	return 0;
}

sub finish
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // 60);
	sleep(0.02) while $self->running && time < $until;
	if ($self->running)
	{
		$self->stop;
		$self->{status} = 124;
	}
	return $self->{status};
}

sub stop
{
	my ($self) = @_;
	for my $signal (qw(TERM KILL))
	{
		return unless $self->running;
		kill $signal, $self->{pid};
		my $until = time + 5;
		sleep(0.02) while $self->running && time < $until;
	}
}

sub output
{
	my ($self) = @_;
	open(my $file, '<', $self->{file}) or return '';
	local $/;
	return <$file> // '';
}

# ---- a client that speaks the protocol itself ----------------------------------------------------------

=head1 PgPool::Raw

=over

=item PgPool::Raw->new(%options)

host (address or socket directory), port, user, database, password (user followed by -secret), startup (hash of
further startup parameters), login (0: connects only), timeout (for each wait, seconds). Dies with the server's error
("28P01 ...") when the login fails.

=item $c->query(sql), $c->send(type, body), $c->write(bytes)

send, and do not wait.

=item $c->ask(sql), $c->result, $c->value(sql)

C<ask> sends and waits for ReadyForQuery (or the end): a hash with rows, tags, status (I, T, E), error (hash of fields:
C is the SQLSTATE, M the text), notices, closed (the connection ended), messages (how many came). C<result> only waits.
C<value> gives the first column, and dies on an error.

=item $c->ended(seconds)

waits for the end of the connection, reading replies that still come: the last result, with the last error in it;
undef when the connection is still open after that time.

=item $c->message(seconds)

the next message as [type, body]; undef at the end of the connection, when $c->{eof} says fin or rst; dies when
nothing comes in time.

=item $c->close, $c->fin, $c->rst, $c->half_close

Terminate and close; close without a word; close by RST; shut down sending.

=item $c->{pid}, $c->{key}, $c->{parameters}, $c->{notices}

what the login gave.

=back

=cut

package PgPool::Raw;
use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use PgPoolWire ();
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

sub new
{
	my ($class, %o) = @_;
	my $self = bless { timeout => $o{timeout} // 30, in => '', parameters => {}, options => \%o }, $class;
	my $socket =
	  $o{host} =~ m{^/}
	  ? IO::Socket::UNIX->new(Peer => "$o{host}/.s.PGSQL.$o{port}")
	  : IO::Socket::INET->new(
		PeerAddr => $o{host}, PeerPort => $o{port}, Proto => 'tcp', Timeout => $self->{timeout});
	die "could not connect to $o{host}:$o{port}: $!\n" unless $socket;
	$socket->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1) unless $o{host} =~ m{^/};
	$socket->setsockopt(SOL_SOCKET, Socket::SO_RCVBUF(), $o{receive_buffer}) if $o{receive_buffer};
	$socket->blocking(0);
	$self->{socket} = $socket;
	if ($o{login} // 1)
	{
		$self->startup;
		my $error = $self->finish_login;
		die(($error->{C} // '') . ' ' . ($error->{M} // 'the connection was closed') . "\n") if $error;
	}
	return $self;
}

sub startup
{
	my ($self) = @_;
	my $o     = $self->{options};
	my %pairs = (user => $o->{user}, database => $o->{database}, %{ $o->{startup} // {} });
	$self->write(PgPoolWire::startup_packet(0x30000, map { $_ => $pairs{$_} } sort keys %pairs));
}

# Goes through the login; undef when it succeeded, else the error.
sub finish_login
{
	my ($self) = @_;
	my $o     = $self->{options};
	my %login = (user => $o->{user}, password => $o->{password} // ($o->{user} =~ s/\..*//r) . '-secret'); # role.tenant
	while (1)
	{
		my $m = $self->message // return {};
		my ($type, $body) = @$m;
		if ($type eq 'R')
		{
			my ($bytes, $error) = PgPoolWire::prove(\%login, $body);
			return { M => $error } if $error;
			$self->write($bytes) if defined $bytes;
		}
		elsif ($type eq 'E') { return PgPoolWire::error_fields($body); }
		elsif ($type eq 'K') { ($self->{pid}, $self->{key}) = (unpack('l>', $body), substr($body, 4)); }
		elsif ($type eq 'S') { $self->note_parameter($body); }
		elsif ($type eq 'N') { push @{ $self->{notices} }, PgPoolWire::error_fields($body); }
		elsif ($type eq 'Z') { return undef; }
	}
}

sub note_parameter { my ($self, $body) = @_; my ($name, $value) = PgPoolWire::parameter($body); $self->{parameters}{$name} = $value; }

sub write
{
	my ($self, $bytes) = @_;
	my $until = time + $self->{timeout};
	while (length $bytes)
	{
		my $n = syswrite($self->{socket}, $bytes);
		if (defined $n) { substr($bytes, 0, $n, ''); next; }
		return 0 unless $! == EAGAIN || $! == EINTR || $! == EWOULDBLOCK;
		die "the other side takes no data\n" if time > $until;
		IO::Select->new($self->{socket})->can_write(0.1);
	}
	return 1;
}

sub send  { my ($self, $type, $body) = @_; return $self->write(PgPoolWire::message($type, $body)); }
sub query { my ($self, $sql) = @_; return $self->send('Q', "$sql\0"); }

sub message
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // $self->{timeout});
	while (1)
	{
		my $message = PgPoolWire::take(\$self->{in});
		return $message if $message;
		return undef if $self->{eof};
		my $n = sysread($self->{socket}, $self->{in}, 262144, length $self->{in});
		next if $n;
		if (defined $n) { $self->{eof} = 'fin'; next; }
		if ($! != EAGAIN && $! != EINTR && $! != EWOULDBLOCK) { $self->{eof} = 'rst'; next; }
		my $left = $until - time;
		die "no message came in time\n" if $left <= 0;
		IO::Select->new($self->{socket})->can_read($left);
	}
}

sub result
{
	my ($self, $seconds) = @_;
	my $r = { rows => [], tags => [], notices => [], status => '', messages => 0 };
	while (my $m = $self->message($seconds))
	{
		my ($type, $body) = @$m;
		$r->{messages}++;
		if ($type eq 'D') { push @{ $r->{rows} }, [ PgPoolWire::row($body) ]; }
		elsif ($type eq 'C') { push @{ $r->{tags} }, $body =~ s/\0$//r; }
		elsif ($type eq 'E') { $r->{error} = PgPoolWire::error_fields($body); }
		elsif ($type eq 'N') { push @{ $r->{notices} }, PgPoolWire::error_fields($body); }
		elsif ($type eq 'S') { $self->note_parameter($body); }
		elsif ($type eq 'G') { $r->{copy} = 'in'; return $r; }
		elsif ($type eq 'Z') { $r->{status} = $body; return $r; }
	}
	$r->{closed} = $self->{eof};
	return $r;
}

sub ask { my ($self, $sql, $seconds) = @_; $self->query($sql); return $self->result($seconds); }

sub value
{
	my ($self, $sql) = @_;
	my $r = $self->ask($sql);
	die "$sql: $r->{error}{C} $r->{error}{M}\n" if $r->{error};
	die "$sql: the connection was closed\n" if $r->{closed};
	return $r->{rows}[0] ? $r->{rows}[0][0] : undef;
}

# The pooler has closed the connection, or does so in time: what came last, else undef. Replies before that are read.
sub ended
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // $self->{timeout});
	my $error;
	while (1)
	{
		my $left = $until - time;
		my $r = eval { $self->result($left > 0.001 ? $left : 0.001) } // return undef;
		$error = $r->{error} // $error;
		next unless $r->{closed};
		$r->{error} //= $error;
		return $r;
	}
}

sub close { my ($self) = @_; return unless $self->{socket}; $self->send('X', ''); $self->fin; }
sub fin { my ($self) = @_; CORE::close($self->{socket}) if $self->{socket}; undef $self->{socket}; }
sub rst { my ($self) = @_; $self->{socket}->setsockopt(SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)); $self->fin; }
sub half_close { my ($self) = @_; shutdown($self->{socket}, 1); }

1;
