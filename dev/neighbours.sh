#!/bin/bash
# dev/neighbours.sh - installs the libraries that test/tap/108_neighbours.pl preloads beside pgpool, as far as Debian has
# them for the version of the server.
#
# Owns: nothing; they are Debian packages. Needs: nothing. What cannot be installed is told, and the test skips it.
# Leaves: packages. The status is always 0.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"

config=$(choose_pg_config)
libraries=$("$config" --pkglibdir 2>/dev/null) || exit 0
# only a server from Debian's packages looks where they go
[ "$libraries" = "/usr/lib/postgresql/$(major_of "$config")/lib" ] || exit 0
missing=()
while read -r library package; do
    [ -e "$libraries/$library.so" ] || missing+=("postgresql-$(major_of "$config")-$package")
done <<'LIST'
set_user set-user
pgaudit pgaudit
pg_cron cron
pg_hint_plan pg-hint-plan
pg_qualstats pg-qualstats
pg_stat_kcache pg-stat-kcache
pg_wait_sampling pg-wait-sampling
LIST
# where apt knows packages, what it does not know is not looked for again at every run
wanted=()
for package in "${missing[@]}"; do
    if ! apt-cache show postgresql-common >/dev/null 2>&1 || apt-cache show "$package" >/dev/null 2>&1; then
        wanted+=("$package")
    else
        say "neighbours: there is no package $package"
    fi
done
install_optional neighbours "${wanted[@]}"
