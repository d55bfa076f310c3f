#!/bin/bash
# dev/chroot.sh N [command]...                      - builds pgpool against PostgreSQL 17 or 18 in a chroot
# dev/chroot.sh fresh SUITE [package]... -- command... - runs the command in a copy of the sources on a fresh Debian
#
# Owns: the chroot, CHROOT, and in it a copy of the sources in /pgpool. Its processes and mounts live in namespaces of their
#       own and end with the command.
#         N      Debian trixie for 17, sid for 18, with all that a build takes; default /var/tmp/pgpool-chroot-N, 1 GB. It is
#                made once, and the next run only compiles. Without a command: make WERROR=1
#         fresh  Debian's smallest system of that suite with make and the packages that are named; default
#                /var/tmp/pgpool-fresh-SUITE. It is made anew each time: the command finds what a user would.
# Needs: root, debootstrap, a Debian mirror (dev/mirror.sh).
# Leaves: the chroot; rm -rf it when done. Nothing is mounted, nothing runs.
#
# For example: dev/chroot.sh 17 make check
#              dev/chroot.sh fresh bookworm postgresql-15 -- sh -c 'make demo && make demo-stop'
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "chroot: $*" >&2; exit 1; }

usage='usage: dev/chroot.sh 17|18 [command]... or dev/chroot.sh fresh SUITE [package]... -- command...'
kind=${1:-}
[ $# -eq 0 ] || shift
case $kind in
17 | 18)
    suite=sid what="PostgreSQL $kind" place=/var/tmp/pgpool-chroot-$kind
    [ "$kind" != 17 ] || suite=trixie
    packages=("postgresql-$kind" "postgresql-server-dev-$kind" libuv1-dev libssl-dev g++ make pkg-config ca-certificates python3 openssl)
    [ $# -gt 0 ] || set -- make -j"$(nproc)" --no-print-directory PG_CONFIG="/usr/lib/postgresql/$kind/bin/pg_config" WERROR=1 all
    ;;
fresh)
    suite=${1:-} packages=(make)
    [[ $suite =~ ^[a-z]+$ ]] || fail "$usage"
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do packages+=("$1") && shift; done
    [ $# -gt 1 ] || fail "$usage"
    shift
    what="a fresh machine with ${packages[*]}" place=/var/tmp/pgpool-fresh-$suite
    ;;
*) fail "$usage" ;;
esac
dir=${CHROOT:-$place}
[ "$(id -u)" = 0 ] || fail 'a chroot needs root: sudo dev/chroot.sh ...'

inside() { # in a mount and a process namespace: what it mounts and starts ends with it
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --mount --pid --fork --kill-child -- sh -c '
        dir=$1; shift
        mount --make-rprivate / && mount -t proc proc "$dir/proc" && mount --rbind /dev "$dir/dev"
        exec chroot "$dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
    ' inside "$dir" "$@"
}

# what is removed has our mark
[ ! -e "$dir" ] || [ -e "$dir/.pgpool" ] || [ -e "$dir/.complete" ] || fail "$dir was not made by this script"
[ "$kind" != fresh ] || rm -f "$dir/.complete"
if [ ! -e "$dir/.complete" ]; then
    command -v debootstrap >/dev/null || fail 'there is no debootstrap: apt-get install debootstrap'
    mirror=$(dev/mirror.sh)
    log=$(mktemp /tmp/pgpool-chroot.XXXXXX)
    trap 'rm -f "$log"' EXIT
    echo "chroot: making $dir with Debian $suite for $what (some minutes)"
    rm -rf "$dir"
    mkdir -p "$dir"
    touch "$dir/.pgpool"
    # apt inside goes by https, too, if the mirror does
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$dir" "$mirror" >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "debootstrap of $suite from $mirror failed (MIRROR names another)"; }
    # no service starts, no default cluster is made
    printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
    mkdir -p "$dir/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$dir/etc/postgresql-common/createcluster.d/none.conf"
    for words in update "install -y --no-install-recommends ${packages[*]}"; do
        # shellcheck disable=SC2086 # several words
        inside apt-get -q -o Acquire::Check-Valid-Until=false $words >"$log" 2>&1 </dev/null || { tail -n 15 "$log" >&2; fail "apt-get ${words%% *} failed in $dir"; }
    done
    touch "$dir/.complete"
fi

mkdir -p "$dir/pgpool"
find "$dir/pgpool" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --null -T - -cf - | tar -C "$dir/pgpool" --no-same-owner -xf -
# shellcheck disable=SC2016 # the inner shell expands
inside sh -c 'cd /pgpool && exec "$@"' build "$@"
echo "chroot: $what in $dir: done"
