#!/bin/bash
# dev/bench.sh [option]... - measures pgpool against PostgreSQL itself and PgBouncer; dev/bench.py has the options (--help).
#
# Owns: a run directory with one PostgreSQL (pgpool preloaded, so that all systems share data and caches), two PgBouncers
#       where there is one: pkt_buf as by default, and 65536. It is PGBOUNCER=path, else what dev/pgbouncer.sh builds,
#       else (without a network) that of the PATH or /usr/sbin. With --against DIR, where DIR is another checkout, a second
#       cluster, made alike, with the pgpool of that one; it is built there, with the same compiler and flags.
# Needs: what dev/setup.sh bench installs. Some minutes of a machine that does nothing else.
# Leaves: $BUILD/bench/*.json, $BUILD/pgbouncer-trixie; no process, nothing in /tmp.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

# PgBouncer NAME PORT SERVER-PORT [line]...
start_pgbouncer() {
    local name=$1 port=$2 server_port=$3
    shift 3
    {
        cat <<-INI
		[databases]
		bench = host=$SOCK port=$server_port dbname=bench
		[pgbouncer]
		listen_addr = 127.0.0.1
		listen_port = $port
		unix_socket_dir =
		auth_type = scram-sha-256
		auth_file = $RUN/userlist.txt
		pool_mode = transaction
		default_pool_size = 16
		max_client_conn = 12000
		listen_backlog = 1024
		log_connections = 0
		log_disconnections = 0
		logfile = $RUN/$name.log
		pidfile = $RUN/$name.pid
		INI
        printf '%s\n' "$@"
    } | as_user tee "$RUN/$name.ini" >/dev/null
    as_user "$PGBOUNCER" -q -d "$RUN/$name.ini" >"$RUN/$name.out" 2>&1 || true
    wait_for_port "$port" || fail "PgBouncer ($PGBOUNCER) does not listen: $(tail -n 5 "$RUN/$name.out" "$RUN/$name.log" 2>/dev/null)"
}
# The value of an option: "--name VALUE" or "--name=VALUE"
option() {
    local name=$1 found=''
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        "$name") found=${2:-} ;;
        "$name="*) found=${1#*=} ;;
        esac
        shift
    done
    printf '%s\n' "$found"
}
# A cluster with pgpool, and its database: NAME PORT POOL-PORT
bench_cluster() {
    cluster_create "$@" "${conf[@]}" "${more[@]}"
    cluster_start "$1"
    superuser "$2" postgres <<-SQL
	CREATE ROLE bench LOGIN PASSWORD '$password';
	CREATE DATABASE bench OWNER bench;
	CREATE EXTENSION pgpool;
	SQL
}
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

python3 dev/bench.py --check "$@"
case " $* " in *' --help '* | *' -h '*) exit 0 ;; esac
dev/setup.sh bench
PG_CONFIG=$(choose_pg_config)
export PG_CONFIG
against=$(option --against "$@")
if [ -n "$against" ]; then
    against=$(cd "$against" 2>/dev/null && pwd -P) || fail "--against: there is no directory $(option --against "$@")"
    [ -x "$against/dev/server-tree.sh" ] || fail "--against: $against is no checkout of pgpool"
    [ "$against" != "$ROOT" ] || fail "--against: $against is this checkout itself"
fi
say "building"
mkdir -p "$OUT/bench"
bounded 1500 "$OUT/bench/build.log" make -j"$(nproc)" --no-print-directory all tools ||
    fail "the build failed: $(tail -n 20 "$OUT/bench/build.log")"
if [ -n "$against" ]; then
    # BUILD is of this checkout
    bounded 1500 "$OUT/bench/build.log" env BUILD=build make -C "$against" -j"$(nproc)" --no-print-directory all ||
        fail "the build of $against failed: $(tail -n 20 "$OUT/bench/build.log")"
fi
rm -f "$OUT/bench/build.log"
if [ -z "${PGBOUNCER:-}" ]; then
    if bounded 900 "$OUT/bench/pgbouncer.log" dev/pgbouncer.sh; then
        PGBOUNCER=$OUT/pgbouncer-trixie/pgbouncer
    else
        say "PgBouncer is not built: $(tail -n 1 "$OUT/bench/pgbouncer.log")"
        PGBOUNCER=$(PATH=$PATH:/usr/sbin command -v pgbouncer || true)
    fi
fi

open_run bench
server_tree "$RUN/pg" 2>"$RUN/install.log" || fail "cannot install into $RUN/pg: $(tail -n 5 "$RUN/install.log")"
read -r port pool bouncer_port bouncer64_port before_port before_pool < <(free_ports 6)
conf=(
    'max_connections = 400' 'shared_buffers = 512MB' 'max_wal_size = 4GB' 'fsync = off' 'synchronous_commit = off'
    'full_page_writes = off' 'autovacuum = off' 'max_parallel_workers_per_gather = 0' 'synchronize_seqscans = off'
    'jit = off' 'pgpool.default_pool_size = 16' 'pgpool.max_client_connections = 12000'
)
# BENCH_CONF: more lines of postgresql.conf, separated by semicolons
IFS=';' read -r -a more <<<"${BENCH_CONF:-}"
say "starting PostgreSQL and the poolers"
# as many descriptors as the idle clients need
ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
password=$(openssl rand -hex 8)
bench_cluster server "$port" "$pool"
superuser "$port" postgres -At -c "SELECT format('\"bench\" \"%s\"', rolpassword) FROM pg_authid WHERE rolname = 'bench'" |
    as_user sh -c "umask 077; cat >'$RUN/userlist.txt'"

systems=(--system "direct $port postgres")
systems+=(--system "pgpool $pool pgpool")
if [ -n "$against" ]; then
    say "before: $(git -C "$against" log -1 --format='%h %s' 2>/dev/null || echo "$against")"
    here=$BINDIR
    before_config=$(BUILD=build "$against/dev/server-tree.sh" "$RUN/pg-before" 2>"$RUN/install.log") ||
        fail "cannot install $against into $RUN/pg-before: $(tail -n 5 "$RUN/install.log")"
    BINDIR=$("$before_config" --bindir)
    bench_cluster before "$before_port" "$before_pool"
    BINDIR=$here
    wait_for_port "$before_pool" || fail "pgpool of $against does not listen on port $before_pool: $(tail -n 10 "$RUN/before.log")"
    systems+=(--system "before $before_pool pgpool $(postmaster_pid before)")
    systems+=(--system "before-direct $before_port postgres $(postmaster_pid before)")
fi
if [ -n "$PGBOUNCER" ]; then
    if ! user_can_read "$PGBOUNCER"; then
        as_user mkdir "$RUN/bin"
        cp "$PGBOUNCER" "$RUN/bin/pgbouncer"
        PGBOUNCER=$RUN/bin/pgbouncer
    fi
    version=$("$PGBOUNCER" --version | sed -n '1s/^[^0-9]*\([0-9.]*\).*/\1/p')
    lines=()
    kind=pgbouncer-unprepared
    if at_least "$version" 1.21; then
        lines+=('max_prepared_statements = 1000') # as pgpool.max_prepared_statements
        kind=pgbouncer
    fi
    start_pgbouncer pgbouncer "$bouncer_port" "$port" "${lines[@]}"
    start_pgbouncer pgbouncer64k "$bouncer64_port" "$port" 'pkt_buf = 65536' "${lines[@]}"
    systems+=(--system "pgbouncer $bouncer_port $kind $(cat "$RUN/pgbouncer.pid")")
    systems+=(--system "pgbouncer64k $bouncer64_port pgbouncer-stream $(cat "$RUN/pgbouncer64k.pid")")
    say "PgBouncer $version: $PGBOUNCER"
else
    say "there is no PgBouncer (apt-get install pgbouncer, or PGBOUNCER=/path/to/pgbouncer): no ratios"
fi
wait_for_port "$pool" || fail "pgpool does not listen on port $pool: $(tail -n 10 "$RUN/server.log")"

export PGPASSWORD=$password PGUSER=bench PGHOST=127.0.0.1 PGDATABASE=bench
set -m
python3 dev/bench.py "${systems[@]}" --bindir "$BINDIR" --postmaster "$(postmaster_pid server)" --work "$RUN/bench" \
    --tools "$OUT/tools" --json-dir "$OUT/bench" "$@" &
CHILD=$!
set +m
code=0
wait "$CHILD" || code=$?
CHILD=''
exit $code
