#!/bin/bash
# dev/patroni.sh - unpacks Debian's patroni and etcd-server, and what they need that is not installed, for
# test/tap/131_failover.pl. Where both are installed already it does nothing.
#
# Owns: $BUILD/patroni. The packages are unpacked and not installed: no service is started or enabled, and no root is needed.
# Needs: apt with its lists, a network. What is missing is told, and the test is skipped.
# Leaves: the directory, which the next call takes as it is. The status is always 0.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"

dir=$OUT/patroni
if [ -e "$dir/.complete" ] || { command -v patroni && command -v etcd; } >/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null; then
    say 'patroni: not here, which takes apt-get'
    exit 0
fi
rm -rf "$dir"
mkdir -p "$dir/archives"
log=$(mktemp /tmp/pgpool-patroni.XXXXXX)
say 'patroni: unpacking patroni and etcd-server'
# apt knows what else they need here
if apt-get install -s -q --no-install-recommends patroni etcd-server >"$log" 2>&1 &&
    mapfile -t packages < <(sed -n 's/^Inst \([^ ]*\) .*/\1/p' "$log") &&
    (cd "$dir/archives" && timeout 300 apt-get -q -o APT::Sandbox::User=root download "${packages[@]}") >"$log" 2>&1 </dev/null; then
    for archive in "$dir"/archives/*.deb; do dpkg -x "$archive" "$dir"; done
    rm -rf "${dir:?}"/{archives,etc,lib,usr/share}
    touch "$dir/.complete"
else
    say "patroni: cannot be had: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log")"
    rm -rf "$dir"
fi
rm -f "$log"
