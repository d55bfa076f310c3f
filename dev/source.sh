#!/bin/bash
# dev/source.sh PACKAGE DIRECTORY [SUITE] - unpacks the source of a Debian package, patches applied, into DIRECTORY.
#
# Owns: DIRECTORY, and beside it, while it works, DIRECTORY.fetch: apt's lists, archives and sources of its own. Nothing
#       of /etc/apt or /var/lib/apt is changed, and no root is needed. apt checks signature and checksums.
# Needs: apt, dpkg-dev, a network, and the repositories that the machine has (.list or .sources) or, with SUITE, Debian's
#        suite of that name, from the machine's mirror (dev/mirror.sh). Wanted is the version that is installed; if its
#        source is not to be had, the newest of the others of that name.
# Leaves: DIRECTORY, which the next call takes as it is. The version is the last line of standard output; a failure says
#         why in the last line of standard error.
set -euo pipefail
export LC_ALL=C.UTF-8
fail() {
    echo "source: $*" >&2
    exit 1
}
[ $# -ge 2 ] || fail 'usage: dev/source.sh PACKAGE DIRECTORY [SUITE]'
package=$1 target=$2 suite=${3:-}
here=$(cd "$(dirname "$0")" && pwd -P)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
installed=''
[ -n "$suite" ] || installed=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)
have=$(cat "$target/.complete" 2>/dev/null || true)
# "WANTED VERSION": another one is wanted when the package was upgraded meanwhile
if [ -n "$have" ] && [ "${have% *}" = "${installed:-$suite}" ]; then
    echo "${have##* }"
    exit 0
fi
for program in apt-get dpkg-source; do
    command -v $program >/dev/null || fail "there is no $program (package dpkg-dev), so the source of $package cannot be fetched"
done

mkdir -p "$(dirname "$target")"
target=$(cd "$(dirname "$target")" && pwd -P)/$(basename "$target")
work=$target.fetch
trap 'rm -rf "$work"' EXIT
rm -rf "$work"
mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
cd "$work"

# The files of /etc/apt with the repositories that have the package; all of them when the machine has no lists.
source_files() {
    local files
    # shellcheck disable=SC2016 # $(SITE) is apt's
    files=$(apt-cache madison "$package" 2>/dev/null | awk -F' *[|] *' '{ split($3, part, " "); print part[1] }' | sort -u |
        while read -r site; do
            apt-get indextargets --format '$(SITE) $(SOURCESENTRY)' 'Created-By: Packages' | awk -v site="$site" '$1 == site { print $2 }'
        done | sed 's/:[0-9]*$//' | sort -u)
    printf '%s\n' "${files:-$(ls -d /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true)}"
}
if [ -n "$suite" ]; then
    [ -r "$keyring" ] || fail "there is no $keyring (package debian-archive-keyring)"
    mirror=$("$here/mirror.sh")
    echo "deb-src [signed-by=$keyring] $mirror $suite main" >sources/suite.list
else
    for file in $(source_files); do
        case $file in
        *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" ;;
        *) sed -n 's/^deb\([[:space:]]\)/deb-src\1/p' "$file" ;;
        esac >"sources/$(basename "$file")"
    done
fi
options=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources" -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache" -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1
    -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false)
# _apt may not look into every checkout
[ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
quick() { timeout -k 5 300 "$@" </dev/null; }

# one repository that cannot be reached is no reason to stop: what counts is whether the package is found
quick apt-get "${options[@]}" update >update.log 2>&1 || true
versions=$(apt-cache "${options[@]}" showsrc --only-source "$package" 2>/dev/null | sed -n 's/^Version: //p' | sort -urV || true)
if [ -z "$versions" ]; then
    problem=$(grep -E '^(E|W|Err)' update.log | head -n 1 | cut -c 1-150 || true)
    fail "no repository has the source of $package${suite:+ in $suite}${problem:+ ($problem)}"
fi
for version in $(printf '%s\n' "$versions" | grep -Fx -e "$installed" || true) $(printf '%s\n' "$versions" | grep -Fvx -e "$installed" || true); do
    rm -rf unpacked && mkdir unpacked
    if (cd unpacked && quick apt-get "${options[@]}" source --only-source "$package=$version") >source.log 2>&1; then
        rm -rf "$target"
        mv "$(find unpacked -mindepth 1 -maxdepth 1 -type d)" "$target"
        echo "${installed:-$suite} $version" >"$target/.complete"
        [ "$version" = "${installed:-$version}" ] || echo "source: $package $installed is installed, but only the source of $version is to be had" >&2
        echo "$version"
        exit 0
    fi
done
fail "the source of $package cannot be fetched: $(grep -E '^(E|dpkg-source: error)' source.log | head -n 1 | cut -c 1-200)"
