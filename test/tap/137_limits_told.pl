# Shows what README says under Limits of settings of one's own and of the connection, and that its remedies are some: the
# server's own port is the judge. A setting that a client had is '' for later clients of its server, as it is for the
# session itself after RESET; pg_stat_ssl, ssl_is_used() and inet_server_addr() are about pgpool's way to the backend.
use strict;
use warnings;
use Test::More;
use PgPool;

my $pool = PgPool->new('limits', workers => 1, pool_size => 1, tls => 1);

# ---- a setting of one's own
my $ask = "SELECT coalesce(current_setting('app.tid', true), 'null')";
my $remedy = "SELECT coalesce(nullif(current_setting('app.tid', true), ''), 'null')";
my ($one, $two, $direct) = ($pool->raw, $pool->raw, $pool->direct);
is(join(',', map { $_->value($ask) } $one, $two, $direct), 'null,null,null', 'which nobody has set is NULL');
$_->ask("SET app.tid = '7'") for $one, $direct;
is(join(',', map { $_->value($ask) } $one, $direct), '7,7', 'who sets it has it');
is($two->value($ask), '', '... and it is empty for another client of the server');
$_->ask('RESET app.tid') for $one, $direct;
is(join(',', map { $_->value($ask) } $one, $direct), ',', '... as for the session itself after RESET, also directly');
is(join(',', map { $_->value($remedy) } $one, $two, $direct, $pool->raw, $pool->direct), 'null,null,null,null,null', 'nullif() makes all of them alike');

# a policy that casts it
$pool->sql($_, 'app') for 'CREATE TABLE ours (tid int)', 'INSERT INTO ours VALUES (7)', 'ALTER TABLE ours ENABLE ROW LEVEL SECURITY', 'GRANT SELECT ON ours TO app',
	"CREATE POLICY mine ON ours USING (tid = current_setting('app.tid', true)::int)";
$one->ask("SET app.tid = '7'");
is($one->value('SELECT count(*) FROM ours'), 1, 'row security: its row');
is($two->ask('SELECT count(*) FROM ours')->{error}{C}, '22P02', '... an error for who set nothing');
$pool->sql("ALTER POLICY mine ON ours USING (tid = nullif(current_setting('app.tid', true), '')::int)", 'app');
is(join(',', map { $_->value('SELECT count(*) FROM ours') } $one, $two), '1,0', '... and no row with nullif()');
$pool->sql("ALTER POLICY mine ON ours USING (tid = current_setting('app.tid', true)::int)", 'app');
$pool->sql("ALTER DATABASE app SET app.tid = '0'");
my ($three, $four) = ($pool->raw, $pool->raw);
$three->ask("SET app.tid = '7'");
is(join(',', map { $_->value('SELECT count(*) FROM ours') } $three, $four), '1,0', '... nor with a value of the database');
is($four->value($ask), 0, '... which is that of a client that set nothing');
$_->close for $one, $two, $three, $four, $direct;

# ---- the connection
sub encrypted { my ($sql, %o) = @_; return $pool->run_psql($sql, env => { PGSSLMODE => 'require' }, %o) }
for my $question (
	[ 'pg_stat_ssl', 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()', 't', 'f' ],
	[ 'inet_server_addr()', 'SELECT host(inet_server_addr())', '127.0.0.1', '' ],
	[ 'inet_client_addr(), which the agent tells,', 'SELECT host(inet_client_addr())', '127.0.0.1', '127.0.0.1' ])
{
	my ($what, $sql, $there, $here) = @$question;
	is(encrypted($sql, port => $pool->server_port), $there, "$what directly");
	is(encrypted($sql), $here, '... in the pool');
}
SKIP:
{
	my $has = $pool->sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'sslinfo'");
	skip 'the server does not have the extension sslinfo', 2 unless $has;
	$pool->sql('CREATE EXTENSION sslinfo', 'app');
	is(encrypted('SELECT ssl_is_used()', port => $pool->server_port), 't', 'ssl_is_used() directly');
	is(encrypted('SELECT ssl_is_used()'), 'f', '... in the pool');
}
$pool->sql('GRANT pg_monitor TO app');
is(encrypted('SELECT ssl, host(client_addr) FROM pgpool.pg_stat_clients WHERE server_pid = pg_backend_pid()', database => 'postgres'), 't|127.0.0.1',
	'pg_stat_clients has the client\'s own');
$pool->forget_sql;
$pool->node->stop;
done_testing();
