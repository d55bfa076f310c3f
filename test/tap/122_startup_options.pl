# Shows: what a client starts with means what it means at the server's own port: which of two values wins, what is refused
# and with which words, and what RESET, RESET ALL, RESET ROLE and DISCARD ALL go back to, on both ports.
use strict;
use warnings;
use Test::More;
use PgPool;
use PgPoolWire;

my $pool = PgPool->new('main', workers => 1, pool_size => 3, session => 1);
$pool->sql($_) for 'CREATE ROLE helper', 'GRANT helper TO app', "ALTER ROLE app SET application_name = 'of role'", "ALTER ROLE app SET maintenance_work_mem = '5MB'";
my @where = ([ 'transaction mode', port => $pool->port ], [ 'session port', port => $pool->session_port ]);

# Pairs in an order that a hash would not keep.
sub login
{
	my ($direct, $pairs, %o) = @_;
	my $c = $direct ? $pool->direct(login => 0, %o) : $pool->raw(login => 0, %o);
	$c->write(PgPoolWire::startup_packet(0x30000, user => 'app', database => 'app', @$pairs));
	my $error = $c->finish_login;
	return ($c, $error ? join(' ', map { $_ // '' } @$error{qw(S C M)}) : 'ok');
}
sub answer
{
	my ($c, @sql) = @_;
	my @all;
	for my $sql (@sql)
	{
		my $r = $c->ask($sql);
		push @all, $r->{error} ? "$r->{error}{C} $r->{error}{M}" : join ',', map { join '|', map { $_ // 'NULL' } @$_ } @{ $r->{rows} };
		last if $r->{closed};
	}
	return join ' / ', @all;
}

my @show = map { "SHOW $_" } qw(client_encoding work_mem search_path TimeZone DateStyle application_name role my.own statement_timeout maintenance_work_mem enable_seqscan);
$show[7] = "SELECT nullif(current_setting('my.own', true), '')"; # '' once somebody had one: see Limits
my @back = map { ($_, @show) } 'RESET work_mem', 'RESET my.own', 'RESET application_name', 'SET TimeZone TO DEFAULT', 'RESET ROLE', 'RESET ALL', 'DISCARD ALL';
my @change = ("SET work_mem = '9MB'", "SET search_path = 'x'", "SET TimeZone = 'UTC'", "SET application_name = 'mine'", 'SET ROLE none', "SET my.own = 'changed'", 'SET enable_seqscan = on');
my @starts = (
	[], [ options => '-c client_encoding=SQL_ASCII', client_encoding => 'UTF8' ], [ client_encoding => 'UTF8', options => '-c client_encoding=LATIN1' ],
	[ work_mem => '5MB', options => '-c work_mem=6MB' ], [ options => '-c work_mem=6MB', work_mem => '5MB' ],
	[ options => '-c work_mem=6MB -c work_mem=7MB' ], [ options => '-c work_mem=6MB', options => '-c statement_timeout=7s' ],
	[ work_mem => '5MB', Work_Mem => '6MB' ], [ application_name => 'a', options => '-c application_name=b' ], [ options => '-c application_name=b' ], [ application_name => '' ],
	[ options => '-c role=helper' ], [ role => 'helper', options => '-c role=none -c my.own=1', search_path => 'one, two', TimeZone => 'Asia/Tokyo' ],
	[ options => '--enable-seqscan=off --my.own=2 --' ], [ options => '-c my.own=' ], [ options => '--my.own=a\ b' ], [ options => '-c DateStyle=German', DateStyle => 'ISO' ], [ TimeZone => 'UTC', options => '-c timezone=Asia/Tokyo' ], [ options => '-c TimeZone=Asia/Tokyo -c TimeZone=UTC' ], [ maintenance_work_mem => '6MB' ]);
for my $start (@starts)
{
	my ($direct, $said) = login(1, $start);
	is($said, 'ok', "start with: @$start");
	my $greeted = join ' ', map { "$_=$direct->{parameters}{$_}" } sort keys %{ $direct->{parameters} };
	my $shown = answer($direct, @show);
	my $later = answer($direct, @change, @back);
	$direct->close;
	for (@where)
	{
		my ($where, @port) = @$_;
		my $other = $pool->raw(@port); # so that another client's settings are on a server
		answer($other, "SET work_mem = '11MB'", "SET search_path = 'other'", "SET TimeZone = 'Europe/Rome'", "SET application_name = 'other'");
		my ($c, $its) = login(0, $start, @port);
		is($its, 'ok', "... $where");
		is(join(' ', map { "$_=$c->{parameters}{$_}" } sort keys %{ $c->{parameters} }), $greeted, '... the greeting');
		is(answer($c, @show), $shown, '... what holds');
		my @got = (answer($c, @change, @back));
		is($got[0], $later, '... what it goes back to');
		$_->close for $c, $other;
	}
}

# ---- what is refused, and how
my @refused = map { [ options => $_ ] } '-c', '-c geqo', '--geqo', '--geqo-seed --', '-- -c geqo=on', 'word', '-c geqo=on word', '-', '-c =1', '-c no_such=1', '-c geqo=perhaps', '-c port=1', '-c -', '-- --';
push @refused, map { [ replication => $_ ] } '', 'xyz', 'o', 'maybe', '2';
push @refused, [ options => '-c work_mem=6MB', work_mem => 'much' ], [ options => '-c work_mem=much', work_mem => '6MB' ], [ replication => 'xyz', options => '-c geqo' ], [ options => '-c DateStyle=x', DateStyle => 'ISO' ], [ options => '-c geqo=x -c geqo=on' ], [ TimeZone => 'x', timezone => 'UTC' ];
for my $start (@refused, map { [ replication => $_ ] } qw(no n f F false off of 0))
{
	my ($direct, $said) = login(1, $start);
	$direct->close unless $direct->{eof};
	for (@where)
	{
		my ($c, $its) = login(0, $start, @$_[ 1, 2 ]);
		is($its, $said, "@$start: $_->[0]");
		$c->close unless $c->{eof};
	}
}

# ---- a Sync that has a body
my ($direct) = login(1, []);
for my $c ($direct, map { (login(0, [], @$_[ 1, 2 ]))[0] } @where)
{
	for my $open (0, 1)
	{
		$c->ask('BEGIN') if $open;
		$c->send('S', 'x');
		my $r = $c->result;
		is("$r->{error}{C} $r->{error}{M} $r->{status}", '08P01 invalid message format ' . ($open ? 'E' : 'I'), 'a Sync with a body is an error');
		$c->ask('ROLLBACK') if $open;
		is($c->value('SELECT 42'), 42, '... and the next statement is served');
	}
	$c->close;
}
$pool->forget_sql;
$pool->node->stop;
done_testing();
