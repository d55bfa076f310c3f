#!/bin/bash
# dev/pgsource.sh - unpacks the source of the PostgreSQL that PG_CONFIG names, for PostgreSQL's own tests.
#
# Owns: $BUILD/pgsource-MAJOR, the whole tree (170 MB), fetched once (dev/source.sh has how, and from where).
# Needs: what dev/source.sh needs; PostgreSQL from Debian packages.
# Leaves: the tree. Its path is the last line of standard output; without a network, or without sources in the
#         repositories, the last line of standard error says so and the status is not 0.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
config=$(choose_pg_config)
major=$(major_of "$config")
mkdir -p "$OUT"
version=$("$ROOT/dev/source.sh" "postgresql-$major" "$OUT/pgsource-$major" | tail -n 1) || exit $?
say "PostgreSQL $version"
say "$OUT/pgsource-$major"
