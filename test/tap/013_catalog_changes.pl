# A change of the catalog reaches whoever prepares after it: a table that comes in front of another in search_path is the
# one that an equal text means from then on, although a server has it prepared with the other. Whoever makes the change,
# on whatever port, and however its transaction ends.
use strict;
use warnings FATAL => 'all';

use PgPoolCase;
use PgPoolWire qw(parse bind_to execute sync);
use Test::More;

my $node = pool_node('changes', conf => "pgpool.default_pool_size = 1\nmax_prepared_transactions = 2");
my $me = (getpwuid $>)[0];
my $admin = PgPoolWire->open(path => $node->host . '/.s.PGSQL.' . $node->port);
$admin->login(user => $me, database => 'postgres');
sub sql { for (@_) { my $r = $admin->query($_); die "$_: $r->{error}{M}" if $r->{error} } }
sql("CREATE ROLE app LOGIN PASSWORD 'secret'", 'CREATE SCHEMA front AUTHORIZATION app', 'CREATE SCHEMA back AUTHORIZATION app',
	'CREATE SCHEMA away AUTHORIZATION app', 'ALTER ROLE app SET search_path = front, back', 'SET ROLE app', "CREATE TABLE back.thing AS SELECT 'back' AS at",
	"CREATE FUNCTION back.which(bigint) RETURNS text LANGUAGE sql AS 'SELECT ''bigint'''");

my $client = connect_as($node, user => 'app', password => 'secret');
my $n = 0;
# What the text means to who prepares it now; an equal text was prepared before.
sub meaning
{
	my ($text) = @_;
	$n++;
	$client->send(parse($text, "s$n") . bind_to("s$n") . execute() . sync());
	my $r = $client->answer(10);
	return $r->{error} ? "$r->{error}{C} $r->{error}{M}" : $r->{rows}[0][0];
}
sub thing { return meaning('SELECT at FROM thing') }
my $create = "CREATE TABLE front.thing AS SELECT 'front' AS at";
my ($hide, $show) = ('ALTER TABLE front.thing SET SCHEMA away', 'ALTER TABLE away.thing SET SCHEMA front');

is(thing(), 'back', 'the statement, as it is at first');
# ---- by others
sql($create);
is(thing(), 'front', 'CREATE TABLE');
sql($hide);
is(thing(), 'back', 'ALTER TABLE ... SET SCHEMA');
sql($show);
is(thing(), 'front', '... and back');
sql($hide);
is(thing(), 'back', 'it is away');
sql('BEGIN', $show);
is(thing(), 'back', 'a change that is not committed');
sql('COMMIT');
is(thing(), 'front', '... and now it is');
sql($hide);
is(thing(), 'back', 'it is away');
sql('BEGIN', $show, "PREPARE TRANSACTION 'change'");
is(thing(), 'back', 'a change that is prepared');
sql("COMMIT PREPARED 'change'");
is(thing(), 'front', 'COMMIT PREPARED');
is(meaning('SELECT which(1)'), 'bigint', 'a function, as it is at first');
sql("CREATE FUNCTION front.which(integer) RETURNS text LANGUAGE sql AS 'SELECT ''integer'''");
is(meaning('SELECT which(1)'), 'integer', 'a function that fits better');

# ---- by the client itself
$client->query($_) for 'BEGIN', $hide;
is(thing(), 'back', 'a change of its own transaction');
$client->query($show);
is(thing(), 'front', '... and another one');
$client->query($_) for 'SAVEPOINT a', $hide;
is(thing(), 'back', '... behind a savepoint');
$client->query('ROLLBACK TO a');
is(thing(), 'front', 'ROLLBACK TO takes it back');
$client->query($hide);
is(thing(), 'back', 'again');
$client->query('ROLLBACK');
is(thing(), 'front', 'ROLLBACK takes it back');
is($client->query('CREATE TEMP TABLE thing AS SELECT 1 AS at')->{error}, undef, 'a temporary table');
is(thing(), '1', '... comes before all others');
$node->stop;
done_testing();
