# Shows: settings cost a worker what their limits say and stop nobody; what does not fit keeps the client on its server
# until it is reset; what another server refuses is told and does not end the client, nor get into the log.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use PgPool;

my $pool = PgPool->new('settings_bound', workers => 1, pool_size => 4, start => 0);
$pool->write_hba("local all trusty trust\nhost all trusty 127.0.0.1/32 trust\n");
$pool->node->start;
$pool->prepare(1);
$pool->sql('CREATE ROLE trusty LOGIN');
$pool->ready;

sub client { return $pool->raw(user => 'trusty', timeout => 60) }
sub pinned { return $pool->sql("SELECT coalesce(string_agg(DISTINCT pinned, ';'), '') FROM pgpool.pg_stat_clients WHERE role = 'trusty' AND pinned IS NOT NULL") }
sub set_many
{
	my ($c, $count, $length, $letter) = @_;
	return $c->value("SELECT count(set_config('a.b' || i, repeat('$letter', $length), false)) FROM generate_series(1, $count) i");
}

# Whoever has the server of another client meanwhile makes each of these come back by a handover.
sub others_use_all_servers { my @o = map { client() } 1 .. 4; $_->query('BEGIN') for @o; $_->result for @o; $_->ask('COMMIT') for @o; $_->close for @o; return; }

# ---- as many as may move
my $a = client();
is(set_many($a, 1000, 10, 'a'), 1000, 'a thousand settings');
is(pinned(), '', '... do not keep the server');
others_use_all_servers();
is($a->value("SELECT current_setting('a.b1') || current_setting('a.b1000')"), 'a' x 20, '... and come along');
is(set_many($a, 2000, 10, 'a'), 2000, 'two thousand');
is(pinned(), 'settings', '... keep it');
is($a->value("SELECT current_setting('a.b2000')"), 'a' x 10, '... with their values');
$a->ask('RESET ALL');
is(pinned(), '', '... until they are reset');

# ---- large values: nobody waits for them, and the worker does not have them
my ($worker) = $pool->workers;
my $probe = client();
$probe->value('SELECT 1');
my $before = rss_kb($worker);
$a->query("SELECT set_config('a.big', repeat('x', 100000000), false) IS NULL");
my $worst = 0;
for (1 .. 200) { my $t = time; $probe->value('SELECT 1'); $worst = time - $t if time - $t > $worst }
ok($a->result, 'a value of 100 MB');
cmp_ok(rss_kb($worker) - $before, '<', 4096, '... grew the worker by ' . (rss_kb($worker) - $before) . ' KB');
note sprintf 'worst answer to another client meanwhile: %.3f s', $worst;
is(pinned(), 'settings', '... keeps the server');
is($a->value("SELECT length(current_setting('a.big'))"), 100000000, '... and is there');
$a->ask('RESET a.big');
is(pinned(), '', '... until it is reset');

# ---- a value that the client's encoding lacks
my $latin = client();
$latin->ask("SET client_encoding = 'LATIN1'");
$latin->ask(q{SET default_text_search_config = 'simple'});
$latin->ask(q{SELECT set_config('a.sign', U&'\8868', false) IS NULL});
others_use_all_servers();
is($latin->value(q{SELECT length(current_setting('a.sign'))}), 1, 'a value outside the encoding comes along');
$latin->close;

# ---- what cannot be made again
my $log = $pool->log_offset;
$pool->sql('CREATE TEXT SEARCH CONFIGURATION public.gone (COPY = simple)', 'app');
$pool->sql('CREATE ROLE own'), $pool->sql('GRANT own TO trusty');
my $c = client();
$c->ask(q{SET default_text_search_config = 'public.gone'});
$c->ask(q{SET a.secret = 'very secret'});
others_use_all_servers();
$pool->sql('DROP TEXT SEARCH CONFIGURATION public.gone', 'app');
my $told = $c->ask('SELECT 7');
is($told->{rows}[0][0], 7, 'what needs a dropped configuration leaves the client') or diag explain $told;
is($told->{notices}[0]{M}, 'setting "default_text_search_config" was lost and has its default now', '... which hears of it');
is($c->value('SHOW a.secret'), 'very secret', '... with its other settings');
my $r = client();
$r->ask('SET ROLE own');
others_use_all_servers();
$pool->sql('DROP ROLE own');
my $answer = $r->ask('SELECT current_user');
is($answer->{error}{C}, '22023', 'a dropped role is an ERROR') or diag explain $answer;
is($r->ask('SELECT current_user')->{error}{C}, '22023', '... each time');
ok(!$r->ask('RESET ROLE')->{error}, '... until it is left');
is($r->value('SELECT current_user'), 'trusty', '... and the client is there');
unlike($pool->log_text($log), qr/very secret|does not exist.*gone|gone.*does not exist/, 'no value of a setting gets into the log by an error');
like($pool->log_text($log), qr/FATAL:.*the settings of the client could not be applied/, '... of which a backend that ends tells');

$_->close for $a, $c, $r, $probe;
is($pool->crashes, 0, 'no worker crashed');
done_testing();
