#!/bin/bash
# dev/demo.sh start|stop - a primary and a streaming replica with pgpool, two tenants and a load, to look at and play with.
#
# Owns: one run directory (RUN: server tree, two data directories) and one socket directory, both named in $BUILD/demo/state.
# Needs: what dev/setup.sh demo installs (it is called first); root or an ordinary user.
# Leaves: after `start` the two servers, until `stop` ends them by pid and removes their files. A failed or interrupted
#         `start` leaves nothing. Packages stay installed.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
STATE=$OUT/demo/state

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || step() { printf '\n%s\n' "$*"; }
indent() { sed 's/^/  /'; }

is_ours() { # a run directory that we made: the name says so, and nothing else is removed
    case $1 in "$OUT"/run/demo.?????? | /tmp/pgpool-demo.??????) [ -d "$1" ] ;; *) return 1 ;; esac
}
stop_demo() {
    local run sock
    if [ ! -f "$STATE" ]; then
        say "the demo is not running"
        return
    fi
    run=$(sed -n 's/^run=//p' "$STATE")
    sock=$(sed -n 's/^sock=//p' "$STATE")
    if is_ours "$run"; then
        stop_run "$run"
        remove_run "$run"
    fi
    case $sock in /tmp/pgpool-??????) remove_run "$sock" ;; esac
    rm -rf "$OUT/demo"
    rmdir "$OUT/run" 2>/dev/null || true
    say "the demo is stopped and its files are removed"
}

how_to_connect() {
    cat <<-TEXT

	Connect to a tenant (role.tenant as the user name):
	  psql 'postgresql://app.shop:$PASSWORD@127.0.0.1:$POOL/shop'
	  psql 'postgresql://app.blog:$PASSWORD@127.0.0.1:$POOL/blog'
	  psql 'postgresql://app:$PASSWORD@127.0.0.1:$REPLICA_POOL/shop'       (pgpool of the replica: read only)
	As the superuser, past pgpool:
	  ${RUN_USER:+setpriv --reuid=$RUN_USER --regid=$RUN_USER --init-groups }$BINDIR/psql -h $SOCK -p $PORT -U postgres

	The demo runs until: make demo-stop
	TEXT
}
save_state() {
    mkdir -p "$OUT/demo"
    (umask 077 && how_to_connect >"$OUT/demo/connect")
    (umask 077 && printf 'run=%s\nsock=%s\npassword=%s\n' "$RUN" "$SOCK" "$PASSWORD" >"$STATE")
}

# the well-known port if it is free, else some other
preferred_port() {
    python3 - "$1" <<'PY' || free_ports 1
import socket, sys
s = socket.socket()
try:
    s.bind(("", int(sys.argv[1])))
except OSError:
    sys.exit(1)
print(sys.argv[1])
PY
}

start_servers() {
    open_run demo
    # a tree of its own: a later build must not change the libraries under running servers
    server_tree "$RUN/pg" 2>"$RUN/install.log" || fail "cannot install into $RUN/pg: $(tail -n 5 "$RUN/install.log")"
    read -r PORT REPLICA_PORT < <(free_ports 2)
    POOL=$(preferred_port 6543)
    REPLICA_POOL=$(preferred_port 6544)
    PASSWORD=$(openssl rand -hex 6)
    cluster_create primary "$PORT" "$POOL" 'max_connections = 60'
    cluster_start primary
    as_user "$BINDIR/pg_basebackup" -h "$SOCK" -p "$PORT" -U postgres -D "$RUN/replica" -R -X stream -c fast --no-sync 2>"$RUN/basebackup.log" ||
        fail "pg_basebackup failed: $(tail -n 3 "$RUN/basebackup.log")"
    cluster_files replica "$REPLICA_PORT" "$REPLICA_POOL"
    cluster_start replica
    wait_for_port "$POOL" || fail "pgpool does not listen on port $POOL: $(tail -n 5 "$RUN/primary.log")"
    wait_for_port "$REPLICA_POOL" || fail "pgpool does not listen on port $REPLICA_POOL: $(tail -n 5 "$RUN/replica.log")"
    cat <<-TEXT
	  primary  127.0.0.1:$PORT, pgpool on $POOL
	  replica  127.0.0.1:$REPLICA_PORT, pgpool on $REPLICA_POOL
	TEXT
}

# One list for both: what is shown is what runs.
configure() {
    superuser "$PORT" postgres <<-SQL
	CREATE ROLE app LOGIN PASSWORD '$PASSWORD';
	CREATE DATABASE shop OWNER app;
	CREATE DATABASE blog OWNER app;
	SQL
    tee "$RUN/demo.sql" <<-SQL | indent
	CREATE EXTENSION pgpool;
	SELECT pgpool.create_tenant('shop', database => 'shop', pool_size => 10);
	SELECT pgpool.create_tenant('blog', database => 'blog', pool_size => 5);
	SQL
    superuser "$PORT" postgres -o /dev/null <"$RUN/demo.sql"
}

client() { as_user env PGPASSWORD="$PASSWORD" PGCONNECT_TIMEOUT=10 PATH="$BINDIR:$PATH" "$@"; }
load() { # protocol
    client pgbench -h 127.0.0.1 -p "$POOL" -U app.shop -M "$1" -c 50 -j 2 -T "${DEMO_SECONDS:-10}" -n shop >"$RUN/pgbench.$1" 2>&1 ||
        fail "pgbench failed: $(tail -n 5 "$RUN/pgbench.$1")"
    awk -v protocol="$1" '/^latency average/ { latency = $4 } /^tps/ { tps = $3 } /^number of failed/ { failed = $5 }
        END { printf "  %-9s %6.0f transactions/s, latency %.1f ms, %d failed\n", protocol, tps, latency, failed }' "$RUN/pgbench.$1"
}
show() { # what query
    say ""
    say "  $1"
    superuser "$PORT" postgres --pset footer=off -P null=- -c "$2" | sed '/^$/d; s/^/  /'
}

start_demo() {
    if [ -f "$STATE" ]; then
        local run
        run=$(sed -n 's/^run=//p' "$STATE")
        if is_ours "$run" && [ -n "$(run_pids "$run")" ]; then
            say "the demo is running already"
            cat "$OUT/demo/connect"
            return
        fi
        stop_demo >/dev/null # what a reboot left
    fi
    dev/setup.sh demo
    PG_CONFIG=$(choose_pg_config)
    export PG_CONFIG
    step "Building pgpool for $("$PG_CONFIG" --version)"
    mkdir -p "$OUT"
    bounded 1500 "$OUT/demo-build.log" make -j"$(nproc)" --no-print-directory all ||
        fail "the build failed: $(tail -n 20 "$OUT/demo-build.log")"
    rm -f "$OUT/demo-build.log"

    step "Starting a primary and a streaming replica"
    start_servers
    step "Two tenants"
    configure
    step "A load through pgpool: 50 clients on 10 server connections"
    client pgbench -h 127.0.0.1 -p "$PORT" -U app -i -q -s 5 shop >"$RUN/pgbench.init" 2>&1 ||
        fail "pgbench -i failed: $(tail -n 5 "$RUN/pgbench.init")"
    load simple
    load extended

    step "What pgpool tells"
    show 'pgpool.pg_stat_pools (some columns)' 'SELECT tenant, database, role, pool_mode, pool_size, servers,
        transactions, queries, waits, server_logins FROM pgpool.pg_stat_pools'
    show 'pgpool.pg_stat_workers (some columns)' 'SELECT worker, pid, state, starts, listens_tcp, listens_unix,
        accepted, logins, servers FROM pgpool.pg_stat_workers'
    show 'pgpool.check()' 'SELECT item, status, message FROM pgpool.check()'
    save_state
    keep_run
    cat "$OUT/demo/connect"
}

case ${1:-} in
start) start_demo ;;
stop) stop_demo ;;
*) fail "usage: dev/demo.sh start|stop" ;;
esac
