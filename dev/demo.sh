#!/bin/bash
# dev/demo.sh start|stop - a primary and two streaming replicas with pgpool, two tenants and a load, to look at and play with.
#
# Owns: one run directory (RUN: server tree, three data directories) and one socket directory, both named in $BUILD/demo/state.
# Needs: what dev/setup.sh demo installs (it is called first); root or an ordinary user.
# Leaves: after `start` the three servers, until `stop` ends them by pid and removes their files. A failed or interrupted
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
	  psql 'postgresql://app:$PASSWORD@127.0.0.1:$ONE_POOL/shop'       (pgpool of replica one: read only)
Reads of tenant shop go to the replicas. Look at pgpool.pg_stat_replicas, pgpool.pg_stat_routing, pgpool.explain_route('...').
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
    read -r PORT ONE_PORT TWO_PORT < <(free_ports 3)
    POOL=$(preferred_port 6543)
    ONE_POOL=$(preferred_port 6544)
    TWO_POOL=$(preferred_port 6545)
    PASSWORD=$(openssl rand -hex 6)
    cluster_create primary "$PORT" "$POOL" 'max_connections = 60'
    cluster_start primary
    start_replica one "$ONE_PORT" "$ONE_POOL"
    start_replica two "$TWO_PORT" "$TWO_POOL"
    wait_for_port "$POOL" || fail "pgpool does not listen on port $POOL: $(tail -n 5 "$RUN/primary.log")"
    cat <<-TEXT
	  primary      127.0.0.1:$PORT, pgpool on $POOL
	  replica one  127.0.0.1:$ONE_PORT, pgpool on $ONE_POOL
	  replica two  127.0.0.1:$TWO_PORT, pgpool on $TWO_POOL
	TEXT
}
# Its name is its cluster_name, and so that of its replication: by it its position is known.
start_replica() { # name port pool-port
    as_user "$BINDIR/pg_basebackup" -h "$SOCK" -p "$PORT" -U postgres -D "$RUN/$1" -R -X stream -c fast --no-sync 2>"$RUN/$1.basebackup.log" ||
        fail "pg_basebackup failed: $(tail -n 3 "$RUN/$1.basebackup.log")"
    cluster_files "$1" "$2" "$3"
    cluster_start "$1"
    wait_for_port "$3" || fail "pgpool does not listen on port $3: $(tail -n 5 "$RUN/$1.log")"
}

# One list for both: what is shown is what runs.
configure() {
    superuser "$PORT" postgres <<-SQL
	CREATE ROLE app LOGIN PASSWORD '$PASSWORD';
	CREATE DATABASE shop OWNER app;
	CREATE DATABASE blog OWNER app;
	SQL
    run_as_superuser <<-SQL
	CREATE EXTENSION pgpool;
	SELECT pgpool.create_tenant('shop', database => 'shop', pool_size => 10);
	SELECT pgpool.create_tenant('blog', database => 'blog', pool_size => 5);
	SQL
}

run_as_superuser() { # shows what it runs
    tee "$RUN/demo.sql" | indent
    superuser "$PORT" postgres -o /dev/null <"$RUN/demo.sql"
}
client() { as_user env PGPASSWORD="$PASSWORD" PGCONNECT_TIMEOUT=10 PATH="$BINDIR:$PATH" "$@"; }
load() { # name [options of pgbench]
    local name=$1
    shift
    client pgbench -h 127.0.0.1 -p "$POOL" -U app.shop -c 50 -j 2 -T "${DEMO_SECONDS:-10}" -n "$@" shop >"$RUN/pgbench.$name" 2>&1 ||
        fail "pgbench failed: $(tail -n 5 "$RUN/pgbench.$name")"
    awk -v name="$name" '/^latency average/ { latency = $4 } /^tps/ { tps = $3 } /^number of failed/ { failed = $5 }
        END { printf "  %-9s %6.0f transactions/s, latency %.1f ms, %d failed\n", name, tps, latency, failed }' "$RUN/pgbench.$name"
}

# ---- reads on replicas
spread_reads() {
    run_as_superuser <<-SQL
	SELECT pgpool.add_replica('one', '127.0.0.1', $ONE_PORT);
	SELECT pgpool.add_replica('two', '127.0.0.1', $TWO_PORT, weight => 2);
	SELECT pgpool.alter_tenant('shop', routing => 'reads');
	SELECT pgpool.reset_stats();
	SQL
    load reads -S
    show_replicas
    show 'SELECT tenant, reads_on_replicas, reads_on_primary FROM pgpool.pg_stat_tenants'
    show "SELECT target, words FROM pgpool.explain_route('SELECT * FROM pgbench_tellers FOR UPDATE', 'shop')"
}
show_replicas() {
    show 'SELECT name, state, weight, reads, fallbacks, lag_bytes, lag_ms, servers FROM pgpool.pg_stat_replicas ORDER BY name'
}
# Each client writes a row and reads it back; what it reads less of than it wrote is kept in a table.
pairs() { # consistency
    superuser "$PORT" postgres -o /dev/null -c "SELECT pgpool.alter_tenant('shop', consistency => '$1')"
    superuser "$PORT" shop -c 'TRUNCATE stale'
    load "$1" -f "$RUN/pairs.sql"
    say "  $1: $(superuser "$PORT" shop -At -c 'SELECT count(*) FROM stale') stale reads"
}
delay_a_replica() {
    client psql -X -q -h 127.0.0.1 -p "$PORT" -U app -d shop <<-SQL
	CREATE TABLE counter AS SELECT k, 0 AS v FROM generate_series(0, 49) k;
	CREATE TABLE stale (k int, written int, seen int);
	ALTER TABLE counter ADD PRIMARY KEY (k);
	SQL
    as_user tee "$RUN/pairs.sql" >/dev/null <<-'SQL'
	UPDATE counter SET v = v + 1 WHERE k = :client_id RETURNING v AS written \gset
	SELECT v AS seen FROM counter WHERE k = :client_id \gset
	\if :seen < :written
	INSERT INTO stale VALUES (:client_id, :written, :seen);
	\endif
	SQL
    delay 300ms
    superuser "$PORT" postgres -o /dev/null -c 'SELECT pgpool.reset_stats()'
    pairs session
    show_replicas
    show "SELECT reason, words, count FROM pgpool.pg_stat_routing WHERE tenant = 'shop' ORDER BY count DESC"
    say ""
    say "  The same where replicas may be behind:"
    pairs eventual
    delay 0
    superuser "$PORT" postgres -o /dev/null -c "SELECT pgpool.alter_tenant('shop', consistency => 'session')"
}
delay() { # of replica two
    say "  replica two: recovery_min_apply_delay = $1"
    superuser "$TWO_PORT" postgres -c "ALTER SYSTEM SET recovery_min_apply_delay = '$1'"
    superuser "$TWO_PORT" postgres -o /dev/null -c 'SELECT pg_reload_conf()'
}
show() { # query [what, if that is not it]
    say ""
    say "  ${2:-$1}"
    superuser "$PORT" postgres --pset footer=off -P null=- -c "$1" | sed '/^$/d; s/^/  /'
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

    step "Starting a primary and two streaming replicas"
    start_servers
    step "Two tenants"
    configure
    step "A load through pgpool: 50 clients on 10 server connections"
    client pgbench -h 127.0.0.1 -p "$PORT" -U app -i -q -s 5 shop >"$RUN/pgbench.init" 2>&1 ||
        fail "pgbench -i failed: $(tail -n 5 "$RUN/pgbench.init")"
    load simple
    load extended -M extended

    step "What pgpool tells"
    show 'SELECT tenant, database, role, pool_mode, pool_size, servers,
        transactions, queries, waits, server_logins FROM pgpool.pg_stat_pools' 'pgpool.pg_stat_pools (some columns)'
    show 'SELECT worker, pid, state, starts, listens_tcp, listens_unix,
        accepted, logins, servers FROM pgpool.pg_stat_workers' 'pgpool.pg_stat_workers (some columns)'
    show 'SELECT item, status, message FROM pgpool.check()' 'pgpool.check()'

    step "Reads of tenant shop go to the replicas"
    spread_reads
    step "A delayed replica, and whoever writes reads it back: no read is stale"
    delay_a_replica
    save_state
    keep_run
    cat "$OUT/demo/connect"
}

case ${1:-} in
start) start_demo ;;
stop) stop_demo ;;
*) fail "usage: dev/demo.sh start|stop" ;;
esac
