#!/bin/bash
# dev/setup.sh [build|demo|bench|check] - installs the Debian packages that are missing for `make demo`, `make bench` or
# `make check`.
#
# For `check` it calls dev/drivers.sh, dev/neighbours.sh and dev/patroni.sh, too, which get what is optional and never fail.
#
# Owns: nothing but the packages it installs. It looks for what is needed (programs, headers, Perl modules), not for
#       package names, so PostgreSQL from another source is fine: give PG_CONFIG.
# Needs: nothing if nothing is missing. Else apt-get, and root or sudo.
# Leaves: packages. A new PostgreSQL package would also make and start a cluster "main"; we ask it not to (a file in
#       /etc/postgresql-common/createcluster.d that is removed again), so no server runs that did not run before.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
what=${1:-check}
case $what in build | demo | bench | check) ;; *) fail "usage: dev/setup.sh [build|demo|bench|check]" ;; esac

missing=()
need() { # package command...: the package is missing if the command fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
has() { command -v "$1"; }
# The version to use: of PG_CONFIG, of the newest installed server, else what Debian's `postgresql` stands for.
server_version() {
    local config major
    config=$(choose_pg_config)
    if has "$config" >/dev/null && [ -x "$("$config" --bindir)/postgres" ]; then
        major_of "$config"
        return
    fi
    for major in $(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | cut -d/ -f5 | sort -nr); do
        if [[ $major =~ ^[0-9]+$ ]] && [ "$major" -ge 15 ]; then
            echo "$major"
            return
        fi
    done
    major=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
    echo "${major:-15}"
}

find_missing() {
    missing=()
    need g++ has g++
    need make has make
    need pkg-config has pkg-config
    need libuv1-dev pkg-config --exists libuv
    need libssl-dev pkg-config --exists openssl
    version=$(server_version)
    local config
    config=$(choose_pg_config)
    # what is used, not what comes with it: libpq-dev alone brings a pg_config, and a client package of Debian 12 a pgxs.mk
    need "postgresql-server-dev-$version" test -f "$("$config" --includedir-server 2>/dev/null || true)/postgres.h" -a -f "$("$config" --pgxs 2>/dev/null || true)"
    [ "$what" != build ] || return 0
    need "postgresql-$version" test -x "$("$config" --bindir 2>/dev/null || true)/postgres"
    need openssl has openssl
    need python3 has python3
    [ "$what" != demo ] || return 0
    # dev/source.sh; without apt it has nothing to unpack
    ! has apt-get >/dev/null || need dpkg-dev has dpkg-source
    if [ "$what" = bench ]; then # builds PgBouncer
        need libevent-dev pkg-config --exists libevent
        return 0
    fi
    need libgtest-dev test -f /usr/include/gtest/gtest.h
    need "postgresql-$version-pgtap" test -f "$("$config" --sharedir 2>/dev/null || true)/extension/pgtap.control"
    need perl has prove
    need libtap-parser-sourcehandler-pgtap-perl perl -MTAP::Parser::SourceHandler::pgTAP -e 1
    need libipc-run-perl perl -MIPC::Run -e 1
}

optional() {
    [ "$what" = check ] || return 0
    "$ROOT/dev/drivers.sh"
    "$ROOT/dev/neighbours.sh"
    "$ROOT/dev/patroni.sh"
}

find_missing
if [ ${#missing[@]} = 0 ]; then
    optional
    exit 0
fi

has apt-get >/dev/null || fail "these are missing: ${missing[*]} (names of Debian packages), and there is no apt-get here: install them by hand"
sudo=()
if [ "$(id -u)" != 0 ]; then
    has sudo >/dev/null || fail "these packages are missing: ${missing[*]}. Run as root: apt-get install ${missing[*]}"
    sudo=(sudo)
    [ -t 0 ] || sudo=(sudo -n)
    "${sudo[@]}" true 2>/dev/null || fail "these packages are missing: ${missing[*]}, and sudo refuses. Run as root: apt-get install ${missing[*]}"
fi
log=$(mktemp /tmp/pgpool-setup.XXXXXX)
policy=/etc/postgresql-common/createcluster.d/pgpool-setup.conf
made_policy=''
cleanup() {
    [ -z "$made_policy" ] || "${sudo[@]}" rm -f "$policy"
    rm -f "$log"
}
trap cleanup EXIT
say "setup: installing ${missing[*]}"
# old lists may still serve, so a failure here is not the end
"${sudo[@]}" apt-get update -qq >"$log" 2>&1 || say "setup: apt-get update failed, going on with the package lists that are here"
# before the lists were there, the version of `postgresql` may have been a guess
find_missing
if [[ " ${missing[*]} " =~ \ postgresql-[0-9]+\  ]] && [ ! -e "$policy" ]; then
    "${sudo[@]}" mkdir -p "${policy%/*}"
    made_policy=yes
    echo 'create_main_cluster = false' | "${sudo[@]}" tee "$policy" >/dev/null
fi
if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "${missing[@]}" >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    fail "apt-get could not install ${missing[*]} (its last lines are above)"
fi
[ -z "$made_policy" ] || say "setup: no default cluster was made; to get one: pg_createcluster $version main"
installed=("${missing[@]}")
find_missing
[ ${#missing[@]} -eq 0 ] || fail "installed ${installed[*]}, but these are still missing: ${missing[*]}"
optional
