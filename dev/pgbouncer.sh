#!/bin/bash
# dev/pgbouncer.sh - builds the PgBouncer of Debian 13 (1.24), to compare with: that of Debian 12 (1.18) cannot share
# prepared statements.
#
# Owns: $BUILD/pgbouncer-trixie, source (dev/source.sh) and program, made once.
# Needs: libevent-dev, libssl-dev, and for the source what dev/source.sh needs.
# Leaves: the directory. The path of the program is the last line of standard output.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
dir=$OUT/pgbouncer-trixie
mkdir -p "$OUT"
"$ROOT/dev/source.sh" pgbouncer "$dir" trixie
if [ ! -x "$dir/pgbouncer" ]; then
    cd "$dir"
    # as Debian builds it, but for PAM, systemd and c-ares
    ./configure --quiet CFLAGS='-g -O2'
    make -j"$(nproc)" pgbouncer
fi
say "$dir/pgbouncer"
