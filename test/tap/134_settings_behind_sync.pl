# Shows: settings that are sent right behind a Sync of pgpool's own, of which nobody awaits the reply, are still taken by
# the backend for pgpool's: what is refused of them is not logged as the client's, and nothing runs without them.
use strict;
use warnings;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('behind', workers => 1, pool_size => 1, tls => 0, session => 1);
sub state_of { my ($pid) = @_; return $pool->sql("SELECT state FROM pgpool.pg_stat_servers WHERE pid = $pid") // 'none' }

# the server has a shared statement, which is closed before a client gets it for itself
my $c = $pool->raw;
$c->write(PgPoolWire::parse('SELECT 1', 'mine') . PgPoolWire::sync());
is($c->result->{status}, 'I', 'a statement is prepared');
my $backend = $c->value('SELECT pg_backend_pid()');
is(state_of($backend), 'idle', 'its server is idle');

my $at = $pool->log_offset;
kill STOP => $backend;
pipe(my $from, my $to) or die;
my $child = fork // die;
if ($child == 0)
{
	eval { $pool->raw(port => $pool->session_port, startup => { default_text_search_config => 'nothing' }) };
	syswrite $to, $@ || 'logged in';
	require POSIX;
	POSIX::_exit(0);
}
close $to;
within(20, sub { state_of($backend) eq 'active' }, 'all of it is sent before the backend reads any');
kill CONT => $backend;
my $said = <$from>;
waitpid $child, 0;
like($said, qr/^22023 invalid value for parameter/, 'the setting is refused');
is($pool->sql('SELECT 1'), 1, 'the server goes on');
unlike($pool->log_text($at), qr/set_config|invalid value for parameter/, '... and the refusal is not logged as a statement of the client');
done_testing();
