#!/bin/bash
# dev/chroot.sh N [command]... - builds pgpool against PostgreSQL 17 or 18 in a chroot with the Debian release that has it.
#
# Owns: the chroot (CHROOT, default /var/tmp/pgpool-chroot-N, 1 GB): Debian trixie for 17, sid for 18, and a copy of the
#       sources in /pgpool. Its processes and mounts live in namespaces of their own and end with the command.
# Needs: root, debootstrap, a Debian mirror (MIRROR, default http://deb.debian.org/debian).
# Leaves: the chroot, so that the next run only compiles; rm -rf it when done. Nothing is mounted, nothing runs.
#
# Without a command: make WERROR=1. With one it is run in the copy instead, for example: dev/chroot.sh 17 make check
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "chroot: $*" >&2; exit 1; }

major=${1:-}
case $major in
17) suite=trixie ;;
18) suite=sid ;;
*) fail 'usage: dev/chroot.sh 17|18 [command]...' ;;
esac
shift
dir=${CHROOT:-/var/tmp/pgpool-chroot-$major}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ "$(id -u)" = 0 ] || fail "a chroot needs root: sudo dev/chroot.sh $major"

inside() { # in a mount and a process namespace: what it mounts and starts ends with it
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --mount --pid --fork --kill-child -- sh -c '
        dir=$1; shift
        mount --make-rprivate / && mount -t proc proc "$dir/proc" && mount --rbind /dev "$dir/dev"
        exec chroot "$dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
    ' inside "$dir" "$@"
}

if [ ! -e "$dir/.complete" ]; then
    command -v debootstrap >/dev/null || fail 'there is no debootstrap: apt-get install debootstrap'
    log=$(mktemp /tmp/pgpool-chroot.XXXXXX)
    trap 'rm -f "$log"' EXIT
    echo "chroot: making $dir with Debian $suite and PostgreSQL $major (some minutes)"
    rm -rf "$dir"
    debootstrap --variant=minbase "$suite" "$dir" "$mirror" >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "debootstrap of $suite from $mirror failed (MIRROR names another)"; }
    # no service starts, no default cluster is made
    printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
    mkdir -p "$dir/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$dir/etc/postgresql-common/createcluster.d/none.conf"
    for words in update "install -y --no-install-recommends postgresql-$major postgresql-server-dev-$major libuv1-dev libssl-dev g++ make pkg-config ca-certificates python3 openssl"; do
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
[ $# -gt 0 ] || set -- make -j"$(nproc)" --no-print-directory PG_CONFIG="/usr/lib/postgresql/$major/bin/pg_config" WERROR=1 all
# shellcheck disable=SC2016 # the inner shell expands
inside sh -c 'cd /pgpool && exec "$@"' build "$@"
echo "chroot: PostgreSQL $major in $dir: done"
