#!/bin/bash
# dev/drivers.sh - installs the drivers that test/tap/070_drivers.pl runs, as far as they can be had.
#
# Owns: $BUILD/drivers, the Node.js packages of test/drivers/package-lock.json. All others are Debian's.
# Needs: nothing. What cannot be installed (no such package, no network, no root) is told, and the test skips that driver.
# Leaves: packages and $BUILD/drivers. The status is always 0.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

missing=()
need() { # package command...: the package is missing if the command fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
has() { command -v "$1"; }
# Debian's modules are those of Debian's python3, which another may hide in the PATH
python() { "$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo python3)" -c "import $1"; }
need python3-psycopg python psycopg
need python3-psycopg-pool python psycopg_pool
need python3-psycopg2 python psycopg2
need python3-asyncpg python asyncpg
need libdbd-pg-perl perl -MDBD::Pg -e 1
need libpostgresql-jdbc-java test -f /usr/share/java/postgresql.jar
need default-jdk-headless has javac
need nodejs has node
need npm has npm

log=$(mktemp /tmp/pgpool-drivers.XXXXXX)
trap 'rm -f "$log"' EXIT
install_optional drivers "${missing[@]}"

if has npm >/dev/null && ! { [ -d "$OUT/drivers/node_modules" ] && cmp -s test/drivers/package-lock.json "$OUT/drivers/installed"; }; then
    say "drivers: installing test/drivers/package.json into $BUILD/drivers"
    mkdir -p "$OUT/drivers"
    cp test/drivers/package.json test/drivers/package-lock.json "$OUT/drivers/"
    if timeout 300 npm ci --prefix "$OUT/drivers" --cache "$OUT/drivers/cache" --no-audit --no-fund --ignore-scripts --loglevel=error >"$log" 2>&1 </dev/null; then
        cp test/drivers/package-lock.json "$OUT/drivers/installed"
    else
        say "drivers: npm failed: $(grep -m 1 'npm error [^c]' "$log" || tail -n 1 "$log")"
    fi
    rm -rf "$OUT/drivers/cache"
fi
