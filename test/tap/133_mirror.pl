# Shows: dev/mirror.sh finds the Debian mirror that a machine uses, in whatever form its apt has it, and takes no other
# repository for one. MIRROR overrides.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Spec;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $script = File::Spec->rel2abs(dirname(__FILE__) . '/../../dev/mirror.sh');
plan skip_all => 'this is not Debian with apt' unless -x '/usr/bin/apt-get' && `cat /etc/os-release` =~ /^ID=debian$/m;
my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());

# Files of a folder like /etc/apt => the mirror, or why there is none
sub mirror
{
	my (%files) = @_;
	system('rm', '-rf', "$dir/apt");
	mkdir "$dir/$_" for 'apt', 'apt/sources.list.d';
	for my $name (keys %files)
	{
		open(my $file, '>', "$dir/apt/$name") or die "$name: $!";
		print $file $files{$name};
		close $file;
	}
	delete local $ENV{MIRROR};
	IPC::Run::run([ $script, "$dir/apt" ], '>', \my $out, '2>', \my $err);
	chomp($out, $err);
	return $out ne q() ? $out : (split /\n/, $err)[-1];
}

my $one = "deb http://one.example/debian/ bookworm main contrib\n";
my $two = "Types: deb\nURIs: https://two.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
my $pgdg = "deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main\n";
my $security = "deb http://three.example/debian-security bookworm-security main\ndeb http://three.example/debian-security/ bookworm/updates main\n";

is(mirror('sources.list' => $one), 'http://one.example/debian', 'a line of sources.list');
is(mirror('sources.list' => $security . "# $one" . "deb [signed-by=/x check-valid-until=no] ftp://four.example/pub/debian stable main\n"),
	'ftp://four.example/pub/debian', '... behind security updates and a comment, with options, by the name stable');
is(mirror('sources.list.d/debian.list' => $one), 'http://one.example/debian', 'a file of sources.list.d');
is(mirror('sources.list.d/debian.sources' => $two), 'https://two.example/debian', '... in the form of several lines');
is(mirror('sources.list.d/debian.sources' => "Enabled: no\n$two", 'sources.list' => $one), 'http://one.example/debian', '... which can be off');
is(mirror('sources.list' => "deb-src http://five.example/debian bookworm main\n$one"), 'http://one.example/debian', 'sources alone are none');
is(mirror('sources.list' => $pgdg . "deb https://six.example/apt stable non-free\ndeb cdrom:[Debian 12]/ bookworm main\n", 'sources.list.d/zz.sources' => $two),
	'https://two.example/debian', 'other repositories, and a medium, are none');
is(mirror('sources.list' => "deb mirror+file:$dir/apt/list bookworm main\n", list => "# any\nhttps://seven.example/debian/\tpriority:1\nhttp://eight.example/debian\n"),
	'https://seven.example/debian', 'a list of mirrors');
like(mirror('sources.list' => $pgdg . $security), qr/^mirror: no Debian mirror is among the repositories of .*: MIRROR=/, 'none: how to name one');
like(mirror(), qr/^mirror: no Debian mirror/, 'no repositories at all');
{
	local $ENV{MIRROR} = 'http://nine.example/debian';
	is(scalar(`$script`), "http://nine.example/debian\n", 'MIRROR overrides');
}
done_testing();
