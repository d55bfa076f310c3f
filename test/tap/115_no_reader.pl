# Shows: a client that sends messages of any type and reads no reply costs its worker no memory and the other clients
# no time; when it reads at last, all replies are there. PGPOOL_FLOOD sets how many MB it tries to send (default 20).
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use PgPool;
use PgPoolWire qw(message query_message parse bind_to execute describe close_name flush sync);

my $pool  = PgPool->new('no_reader', workers => 1, pool_size => 4);
my $bytes = ($ENV{PGPOOL_FLOOD} // 20) * 1000000;
my $limit = 2048; # KB
my ($worker) = $pool->workers;

my $sync  = sync();
my $bind  = bind_to('known');
my $close = close_name('S', 'nobody');
# unit, and what answers each: type and how often
my @floods = (
	[ 'Sync',                            $sync,                                       Z => 1 ],
	[ 'Close',                           $close,                                      3 => 1 ],
	[ 'Parse of a known text, Close',    parse('SELECT 1', 'n') . close_name('S', 'n'), 1 => 1 ],
	[ 'Parse of an unknown text, Close', parse('SELECT 2 + 3', 'n') . close_name('S', 'n'), 1 => 1 ],
	[ 'unnamed Parse',                   parse('SELECT 1'),                           1 => 1 ],
	[ 'Bind',                            $bind,                                       2 => 1 ],
	[ 'Describe',                        describe('S', 'known'),                      t => 1 ],
	[ 'Bind, Execute, Sync',             $bind . execute() . $sync,                  C => 1 ],
	[ 'Query',                           query_message('SELECT 1'),                   Z => 1 ],
	[ 'FunctionCall',                    message('F', pack('N n n N N n', 1598, 0, 0) ), undef() ],
	[ 'Flush',                           flush(),                                     undef() ],
	[ 'CopyData',                        message('d', 'x'),                           undef() ],
	[ 'CopyDone',                        message('c', ''),                            undef() ],
	[ 'CopyFail',                        message('f', "no\0"),                        undef() ],
);

# Sends as long as it is taken, without reading: stops when nothing goes out for a second.
sub flood
{
	my ($client, $unit) = @_;
	my $chunk = $unit x int(65536 / length $unit);
	my ($sent, $at) = (0, 0);
	$client->{socket}->blocking(0);
	while ($sent < $bytes)
	{
		IO::Select->new($client->{socket})->can_write(1) or last;
		my $n = syswrite($client->{socket}, $chunk, length($chunk) - $at, $at) // next;
		$sent += $n;
		$at = ($at + $n) % length $chunk;
	}
	return ($sent, $sent % length $unit ? substr($unit, $sent % length $unit) : '');
}

# All that comes up to the ReadyForQuery that answers the last Sync, by type; the rest of the flood goes out meanwhile.
sub read_all
{
	my ($client, $rest) = @_;
	my ($in, %seen) = ('');
	my $until = time + 120;
	while (time < $until)
	{
		my $s = IO::Select->new($client->{socket});
		if (length $rest && $s->can_write(0)) { my $n = syswrite($client->{socket}, $rest); substr($rest, 0, $n // 0) = '' }
		next unless $s->can_read(length $rest ? 0.01 : 0.5) or length $rest == 0 && $seen{last};
		last unless sysread($client->{socket}, $in, 1 << 20, length $in);
		my $at = 0;
		while (length($in) - $at >= 5)
		{
			my ($type, $length) = unpack('a N', substr($in, $at, 5));
			last if length($in) - $at <= $length;
			$seen{$type}++;
			$seen{marker} = 1 if $type eq 'D' && index(substr($in, $at, $length + 1), 'the end') > 0;
			$at += $length + 1;
			return \%seen if $type eq 'Z' && $seen{marker};
		}
		substr($in, 0, $at) = '';
	}
	return \%seen;
}

my $probe = $pool->raw(timeout => 60);
$probe->value('SELECT 1');
for my $warm (1, 0)
{
	for my $f ($warm ? @floods[0, 2] : @floods)
	{
		my ($what, $unit, $type, $times) = @$f;
		my $client = $pool->raw(timeout => 60);
		$client->write(parse('SELECT 1', 'known') . $sync);
		$client->result;
		my $before = rss_kb($worker);
		my ($sent, $rest) = flood($client, $unit);
		my $began = time;
		is($probe->value('SELECT 1'), 1, "$what: another client is answered") unless $warm;
		my $waited = time - $began;
		my $grown = rss_kb($worker) - $before;
		unless ($warm)
		{
			cmp_ok($grown, '<', $limit, "$what: $sent bytes of it grew the worker by $grown KB");
			cmp_ok($waited, '<', 5, sprintf('%s: ... after %.3f s', $what, $waited));
			if ($type)
			{
				my $n = ($sent + length $rest) / length $unit;
				my $seen = read_all($client, $rest . $sync . query_message("SELECT 'the end'"));
				my $more = $type eq 'Z' ? 2 : $type eq 'C' ? 1 : 0;
				is($seen->{$type}, $n * $times + $more, "$what: all replies are there");
			}
		}
		$client->rst;
	}
}
my $p = $pool->raw(timeout => 60);
$p->write(message('p', "secret\0"));
is($p->result->{error}{C}, '08P01', 'a password after the login is refused');
is($pool->crashes, 0, 'no worker crashed');
done_testing();
