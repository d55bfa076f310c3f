# PgPoolTwins: one program of clients and an administrator, played on three twins at once: a database and roles of their own
# for the server's port (d), the session port (s) and the pool's port (p), of one server.
#
# Steps go in lock-step: each has its answer everywhere before the next begins, and a change of the administrator is
# effective. In texts of steps `~` stands for the twin. What may differ, and why, says the test in its excuses; it must not
# know how pgpool does what it does.
package PgPoolTwins;
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use Test::More ();
use Time::HiRes qw(time);
use PgPoolWire qw(query_message parse bind_to execute describe close_name sync terminate error_fields row parameter);

our @TWINS = qw(d s p);
my %name_of = (d => 'directly', s => 'session port', p => 'pool');

# node; settings => names that are compared; excuse => sub (twins, what differs) giving the name of an excuse or undef
sub new
{
	my ($class, $node, %o) = @_;
	my $me = (getpwuid $>)[0];
	my $self = bless { node => $node, marker => 1, excused => {}, count => {}, %o }, $class;
	my $admin = sub { my $c = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port); $c->login(user => $me, database => $_[0])->{ok} or die; $c };
	$self->{postgres} = $admin->('postgres');
	for my $t (@TWINS)
	{
		$self->ask($self->{postgres}, twin($_, $t)) for "CREATE ROLE app~ LOGIN PASSWORD 'secret'", 'CREATE ROLE clerk~', 'CREATE ROLE guest~', 'CREATE DATABASE db~';
		$self->{admin}{$t} = $admin->("db_$t");
		$self->ask($self->{admin}{$t}, "SET lock_timeout = '100ms'");
	}
	return $self;
}

sub twin { my ($text, $t) = @_; return $text =~ s/~/_$t/gr }
sub ask { my ($self, $c, $sql) = @_; my $r = $c->query($sql); die "$sql: $r->{error}{C} $r->{error}{M}\n" if $r->{error}; return $r }
sub port { my ($self, $t) = @_; return $t eq 'd' ? $self->{node}->port : $t eq 's' ? $self->{node}{session_port} : $self->{node}{pool_port} }

# ---- what came, so that twins can be compared: their names and the OIDs of what they created are the same
sub plain { my $v = shift; return defined $v ? $v =~ s/\b(app|clerk|clark|guest|extra|other|db)_[dsp]\b/$1~/gr : 'NULL' }

sub described
{
	my ($n, $rest) = unpack 'n a*', $_[0];
	my @columns;
	for (1 .. $n)
	{
		my ($name, $table, $at, $type, $size, $modifier, $format);
		($name, $table, $at, $type, $size, $modifier, $format, $rest) = unpack 'Z* N n N n N n a*', $rest;
		push @columns, join ' ', $name, $table ? "column $at" : 'value', $type < 16384 ? $type : 'own', $size, $modifier, $format;
	}
	return 'T ' . join ', ', @columns;
}

# Sends, and reads up to ReadyForQuery: lines to be compared, and what excuses may look at.
sub talk
{
	my ($c, $bytes) = @_;
	my %r = (lines => [], rows => [], notices => []);
	$c->send($bytes);
	while (my $m = $c->next)
	{
		my ($type, $body) = @$m;
		if ($type eq 'S') { my ($n, $v) = parameter($body); $c->{parameters}{$n} = $v; next }
		if ($type eq 'N') { my $f = error_fields($body); push @{ $r{notices} }, $f; push @{ $r{lines} }, "N $f->{C}"; next }
		if ($type eq 'E') { $r{error} = error_fields($body); push @{ $r{lines} }, "E $r{error}{S} $r{error}{C}"; next }
		if ($type eq 'D') { my @row = row($body); push @{ $r{rows} }, \@row; push @{ $r{lines} }, 'D ' . join '|', map { plain($_) } @row; next }
		push @{ $r{lines} }, $type eq 'T' ? described($body) : $type eq 't' ? 't ' . join(' ', map { $_ < 16384 ? $_ : 'own' } unpack 'x2 N*', $body) : $type =~ /[CZ]/ ? "$type " . unpack 'Z*', $body : $type;
		if ($type eq 'Z') { $c->{status} = $body; return \%r }
	}
	push @{ $r{lines} }, 'closed';
	$c->{status} = 'closed';
	return \%r;
}

# The bytes of a client's step
my %bytes = (
	query => \&query_message,
	prepare => sub { my ($name, $text) = @_; parse($text, $name) . describe('S', $name) . sync() },
	close => sub { close_name('S', @_) . sync() },
	execute => sub { run_bytes(@_) . sync() },
	unnamed => sub { my ($text, @values) = @_; parse($text) . run_bytes('', 1, @values) . sync() },
	again => sub { my ($name, $text) = @_; close_name('S', $name) . parse($text, $name) . sync() });

sub run_bytes { my ($name, $asks, @values) = @_; return bind_to($name, @values) . ($asks ? describe('P') : '') . execute() }

sub say_to { my ($self, $c, $kind, @rest) = @_; return talk($c, $bytes{$kind}->(map { twin($_, $c->{twin}) } @rest)) }

sub login
{
	my ($self, $t, %parameters) = @_;
	my $c = PgPoolWire->open(port => $self->port($t)) or die "no connection to $t";
	my $r = $c->login(user => "app_$t", password => 'secret', database => "db_$t", %parameters);
	@$c{qw(twin status renewed)} = ($t, 'I', {});
	$c->{refused} = $r->{error}{C} unless $r->{ok};
	return $c;
}
sub leave { my ($c) = @_; talk($c, query_message('ROLLBACK')) unless $c->{refused} || ($c->{status} // 'I') =~ /closed|I/; $c->send(terminate()); $c->close; return }

# ---- what a session has: name => [value, source]
sub state_of
{
	my ($self, $c) = @_;
	my $names = join ', ', map { "'$_'" } @{ $self->{settings} };
	my $custom = join ' ', map { "UNION ALL SELECT '$_', coalesce(current_setting('$_', true), ''), ''" } @{ $self->{custom} };
	my $r = talk($c, query_message("SELECT name, setting, source FROM pg_settings WHERE name IN ($names) $custom UNION ALL SELECT 'role', current_setting('role'), ''
		UNION ALL SELECT 'users', current_user || ' of ' || session_user, '' UNION ALL SELECT 'pid', pg_backend_pid()::text, ''"));
	return undef if $r->{error} || $c->{status} eq 'closed';
	my %state = map { $_->[0] => [ plain($_->[1]), $_->[2] ] } @{ $r->{rows} };
	my $pid = delete $state{pid};
	$self->{count}{moves}++ if $c->{twin} eq 'p' && ($c->{backend} // $pid->[0]) ne $pid->[0];
	$c->{backend} = $pid->[0];
	return \%state;
}

# A fresh login is what connected clients of the pool are, too, after ALTER ROLE and ALTER DATABASE.
sub fresh
{
	my ($self, $seconds) = @_;
	my (%told, %state, $differs);
	my $took = poll_until(
		sub {
			for my $t (@TWINS)
			{
				my $c = $self->login($t);
				return 0 if $c->{refused} && ($differs = "$t: $c->{refused}");
				$told{$t} = { map { $_ => plain($c->{parameters}{$_}) } keys %{ $c->{parameters} } };
				$state{$t} = $self->state_of($c);
				leave($c);
			}
			for my $t (qw(s p))
			{
				my @told = grep { ($told{d}{$_} // '') ne ($told{$t}{$_} // '') } sort keys %{ $told{d} };
				my @has = grep { $state{d}{$_}[0] ne $state{$t}{$_}[0] } sort keys %{ $state{d} };
				$differs = "fresh login, $name_of{$t}:" . join ',', (map { " $_ told " . ($told{$t}{$_} // '') . ", not $told{d}{$_}" } @told), map { " $_ is $state{$t}{$_}[0], not $state{d}{$_}[0]" } @has;
				return 0 if @told || @has;
			}
			return 1;
		}, undef, $seconds);
	$self->{was_fresh}{$_}{ $self->{fresh}{$_} } = 1 for keys %{ $self->{fresh} // {} };
	$self->{fresh} = { %{ $told{d} // {} }, map { $_ => $state{d}{$_}[0] } keys %{ $state{d} // {} } };
	return $took ? undef : $differs;
}

# A client has a statement that was prepared within the block it is in: see README, Limits, on the locks of Parse.
sub parsed_in_block { my ($self) = @_; return grep { $_ } @{ $self->{parsed} } }

# ---- the administrator
sub change
{
	my ($self, $sql) = @_;
	my %results;
	for my $t (@TWINS)
	{
		my $r = $self->{admin}{$t}->query(twin($sql, $t));
		$results{$t} = $r->{error} ? $r->{error}{C} : 'done';
	}
	$self->{count}{ $results{d} eq 'done' ? 'changes' : 'refused changes' }++;
	my ($odd) = grep { $results{$_} ne $results{d} } qw(s p);
	if ($odd && $odd eq 'p' && $results{p} eq 'done' && $results{d} eq '55P03' && $self->parsed_in_block)
	{
		$self->{excused}{'no lock by Parse'}++;
		return 'end';
	}
	return "administrator, $name_of{$odd}: $results{$odd}, not $results{d}" if $odd;
	if ($sql =~ /^ALTER (?:ROLE app|DATABASE)\S* .*?(?:SET|RESET) (\S+)/)
	{
		my @names = $1 eq 'ALL' ? (@{ $self->{settings} }, @{ $self->{custom} }) : $1;
		for my $c (map { values %$_ } @{ $self->{clients} }) { $c->{renewed}{$_} = 1 for @names }
	}
	if ($sql =~ /SUPERUSER/) { $_->{renewed}{is_superuser} = 1 for map { values %$_ } @{ $self->{clients} } }
	return $self->fresh(0);
}

# ALTER SYSTEM: whoever logs in after the postmaster has told all others of the new file has the marker.
sub reload
{
	my ($self, @sql) = @_;
	my $marker = ++$self->{marker};
	$self->ask($self->{postgres}, $_) for @sql, "ALTER SYSTEM SET vacuum_multixact_freeze_table_age = $marker", 'SELECT pg_reload_conf()';
	poll_until(sub { my $c = $self->login('d'); my $v = $c->value('SHOW vacuum_multixact_freeze_table_age'); leave($c); $v eq $marker }, 'reload') or die 'no reload';
}

# ---- clients
sub differences # of a client's twins: what they were told and have
{
	my ($self, $twins, $whole) = @_;
	my @bad;
	my %state = map { $_ => $twins->{$_}{status} =~ /[IT]/ && $whole ? $self->state_of($twins->{$_}) : undef } @TWINS;
	for my $t (qw(s p))
	{
		my ($a, $b) = map { $twins->{$_}{parameters} } 'd', $t;
		for my $n (sort keys %$a)
		{
			my @values = map { plain($_->{$n}) } $a, $b;
			next if $values[0] eq $values[1] || $self->renewed($twins, $t, $n, $values[1]);
			push @bad, "$name_of{$t}: $n told $values[1], not $values[0]";
		}
		next unless $state{d} && $state{$t};
		for my $n (sort keys %{ $state{d} })
		{
			my @values = map { $state{$_}{$n}[0] } 'd', $t;
			next if $values[0] eq $values[1] || $state{d}{$n}[1] !~ /^(session|client)$/ && $self->renewed($twins, $t, $n, $values[1]);
			push @bad, "$name_of{$t}: $n is $values[1], not $values[0]";
		}
	}
	return @bad;
}
sub renewed
{
	my ($self, $twins, $t, $name, $value) = @_;
	# that of the login role is told after SET ROLE none; a fresh login may have another role
	my $as_fresh = $value eq ($self->{fresh}{$name} // '') || $name eq 'is_superuser';
	# a block keeps the server that it began on
	$as_fresh ||= $twins->{$t}{status} ne 'I' && $self->{was_fresh}{$name}{$value};
	return 0 unless $t eq 'p' && $twins->{d}{renewed}{$name} && $as_fresh;
	$self->{excused}{'settings of a fresh login'}++;
	return 1;
}

# One step: undef, what differs, or 'end': an excuse after which the twins are not the same any more.
sub step
{
	my ($self, $step) = @_;
	my ($who, $kind, @rest) = @$step;
	return $self->change(@rest) if $kind eq 'change';
	if ($kind eq 'system')
	{
		$self->reload(@rest);
		$self->{altered} = 1;
		$self->{count}{changes}++;
		return $self->fresh(5);
	}
	my $clients = $self->{clients};
	if ($kind eq 'hold') # another client of the pool keeps a server
	{
		my $r = talk($self->{noise}[$who], query_message(($self->{noise}[$who]{status} eq 'I' ? 'BEGIN; ' : '') . "SELECT current_setting('work_mem'), current_setting('TimeZone'), current_setting('myapp.a')"));
		my $has = join '|', map { $_ // '' } @{ $r->{rows}[0] // [] };
		return $has eq $self->noise_settings($who) ? undef : "another client has $has: " . ($r->{error}{M} // '');
	}
	if ($kind eq 'free') { talk($self->{noise}[$who], query_message('ROLLBACK')); return undef }
	if ($kind eq 'login')
	{
		for my $t (@TWINS)
		{
			leave($clients->[$who]{$t}) if $clients->[$who]{$t};
			$clients->[$who]{$t} = $self->login($t, @rest);
		}
		return join('; ', $self->differences($clients->[$who], 1)) || undef;
	}
	my $twins = $clients->[$who];
	my $before = $twins->{d}{status};
	my %r = map { $_ => $self->say_to($twins->{$_}, $kind, @rest) } @TWINS;
	$self->{count}{answers}++;
	$self->{texts}[$who]{ $rest[0] } = $rest[1] if $kind eq 'prepare' && !$r{d}{error};
	$self->{parsed}[$who] = $kind eq 'prepare' || $self->{parsed}[$who] if $twins->{d}{status} eq 'T';
	$self->{parsed}[$who] = 0 if $twins->{d}{status} ne 'T';
	for my $t (qw(s p))
	{
		my ($a, $b) = map { join "\n", @{ $r{$_}{lines} } } 'd', $t;
		next if $a eq $b;
		my ($excuse, $end) = $self->{excuse}->($self, $twins, $t, $before, $step, $r{d}, $r{$t});
		return "$name_of{$t}:\n$b\nnot\n$a" . ($r{$t}{error} ? "\n($r{$t}{error}{M}" . ($r{$t}{error}{D} ? ": $r{$t}{error}{D}" : '') . ')' : '') unless $excuse;
		$self->{excused}{$excuse}++;
		return 'end' if $end;
	}
	return join('; ', $self->differences($twins, $self->{whole})) || undef;
}

sub noise_settings { my ($self, $n) = @_; return $n ? '88kB|America/Lima|other' : '77kB|Asia/Tokyo|one' }

# ---- a program: the first step that differs with what does, or nothing
sub play
{
	my ($self, $steps) = @_;
	$self->reset;
	$self->{clients} = [];
	$self->{texts} = [];
	$self->{parsed} = [];
	$self->{was_fresh} = {};
	my ($at, $problem) = (0);
	eval {
		for my $step (@$steps)
		{
			my $began = time;
			$problem = $self->step($step);
			Test::More::diag(sprintf "%.2f %s", time - $began, text($step)) if $ENV{PGPOOL_TRACE};
			last if defined $problem;
			$at++;
		}
		1;
	} or $problem = "test: $@";
	$self->{count}{steps} += $at;
	leave($_) for map { values %$_ } grep { $_ } @{ $self->{clients} };
	return () if !defined $problem || $problem eq 'end';
	return ($at, $problem);
}

sub reset
{
	my ($self) = @_;
	leave($_) for @{ delete $self->{noise} // [] };
	if ($self->{altered})
	{
		$self->reload('ALTER SYSTEM RESET ALL');
		$self->{altered} = 0;
	}
	for my $t (@TWINS)
	{
		$self->ask($self->{admin}{$t}, 'RESET lock_timeout');
		$self->ask($self->{admin}{$t}, twin($_, $t)) for @{ $self->{setup} };
		$self->ask($self->{admin}{$t}, "SET lock_timeout = '100ms'");
	}
	for my $n (0, 1)
	{
		my ($memory, $zone, $own) = split /\|/, $self->noise_settings($n);
		push @{ $self->{noise} }, $self->login('p', TimeZone => $zone);
		talk($self->{noise}[$n], query_message("SET work_mem = '$memory'; SET myapp.a = '$own'"));
	}
}

# The shortest program that still differs: steps are left out as long as it does.
sub shrink
{
	my ($self, $steps, $at, $problem) = @_;
	my @short = @$steps[ 0 .. $at ];
	for my $size (16, 4, 1)
	{
		for (my $i = $#short - $size; $i >= 0; $i -= $size)
		{
			my @less = @short;
			splice @less, $i, $size;
			my ($a, $p) = $self->play(\@less);
			next if !defined $a || $p =~ /^test:/;
			@short = @less[ 0 .. $a ];
			$problem = $p;
			$i = @short if $i > @short;
		}
	}
	return (\@short, $problem);
}

sub text { my ($step) = @_; my ($who, $kind, @rest) = @$step; return "$who $kind " . join ' | ', @rest }

1;
