#!/bin/bash
# dev/server-tree.sh [directory] - a private copy of a PostgreSQL server, with pgpool installed in it.
#
# Owns: the directory (default $BUILD/pg, that is build/pg). It holds copies of the server's programs, libraries and
# share files (25 MB), in the same places relative to each other, so that the copied pg_config and postgres find
# everything below the copy; headers are a link to the system's. Nothing of the system is changed.
# Needs: pg_config (PG_CONFIG), a server, and `make all` able to run; no network, no root.
# Leaves: the directory. The path of its pg_config is the last line of standard output:
#     PG_CONFIG=$(dev/server-tree.sh); "$("$PG_CONFIG" --bindir)/initdb" ...
# A second run only installs pgpool anew. `--no-install` makes the copy alone.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "server-tree: $*" >&2; exit 1; }

install=yes
if [ "${1:-}" = --no-install ]; then install=; shift; fi
target=${1:-${BUILD:-build}/pg}
system_config=$(command -v "${PG_CONFIG:-pg_config}") ||
    fail "there is no ${PG_CONFIG:-pg_config}: install postgresql-server-dev-15 (make setup does) or give PG_CONFIG=/path/to/pg_config"
bindir=$("$system_config" --bindir)
[ -x "$bindir/postgres" ] || fail "there is no server in $bindir: install the postgresql package of that version, or give another PG_CONFIG"

# The longest directory that program, library and share directories have in common; the copy repeats what is below it.
common_parent() {
    local parent=$1 path
    for path in "$@"; do
        while [ "${path#"$parent"/}" = "$path" ]; do parent=${parent%/*}; done
    done
    echo "$parent"
}
sharedir=$("$system_config" --sharedir)
pkglibdir=$("$system_config" --pkglibdir)
prefix=$(common_parent "$bindir" "$sharedir" "$pkglibdir")
mkdir -p "$target"
target=$(cd "$target" && pwd -P)
[ "$target" != "$prefix" ] || fail "$target is the server itself, not a place for a copy"

# the directories change when a package adds an extension
stamp="$("$system_config" --version) $prefix $(stat -c '%Y %s' "$bindir/postgres") $(stat -c %Y "$pkglibdir" "$sharedir/extension" | xargs)"
if [ "$(cat "$target/.complete" 2>/dev/null || true)" != "$stamp" ]; then
    rm -rf "$target"
    mkdir -p "$target"
    for dir in "$bindir" "$sharedir" "$pkglibdir"; do
        to=$target${dir#"$prefix"}
        mkdir -p "$to"
        # bitcode is half of the size and only serves inlining by the JIT compiler
        tar -C "$dir" --exclude=./bitcode -cf - . | tar -C "$to" --no-same-owner -xf -
    done
    include=$("$system_config" --includedir)
    if [ "${include#"$prefix"/}" != "$include" ] && [ ! -e "$target${include#"$prefix"}" ]; then
        mkdir -p "$(dirname "$target${include#"$prefix"}")"
        ln -s "$include" "$target${include#"$prefix"}"
    fi
    echo "$stamp" >"$target/.complete"
fi

private_config=$target${bindir#"$prefix"}/pg_config
found=$("$private_config" --sharedir)
[ "$found" = "$target${sharedir#"$prefix"}" ] || fail "the copy in $target does not relocate: its pg_config names $found"
if [ -n "$install" ]; then
    make -s --no-print-directory PG_CONFIG="$private_config" install >&2
fi
echo "$private_config"
