#!/bin/bash
# dev/lib.sh - clusters for the scripts beside it: demo.sh, check.sh, bench.sh. To be sourced, not run.
#
# Owns: one run directory (RUN) and one socket directory (SOCK) per run, and every server started through it.
# Needs: a PostgreSQL with PGXS (dev/setup.sh), openssl, python3; root or an ordinary user. PostgreSQL refuses to run as
#        root, so as root everything of it runs as another user (RUN_USER, by default the package's `postgres`), and
#        what that user must read moves to /tmp when the checkout lies where only root may look.
# Leaves: nothing. A trap stops the servers by their pid and removes both directories on every way out, unless the
#         script calls keep_run (the demo does, and `make demo-stop` comes back for them).
#
# Logins: the superuser `postgres` by peer through the socket, from the user that runs the scripts; everybody else
# by SCRAM. Nothing is trusted.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8
unset LANGUAGE
for variable in $(compgen -e PG); do
    case $variable in # what libpq would pick up must not reach our clients
    PG_CONFIG | PGBOUNCER | PGTAP_TESTS | PGPOOL_*) ;;
    *) unset "$variable" ;;
    esac
done

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export BUILD=${BUILD:-build}
case $BUILD in /*) OUT=$BUILD ;; *) OUT=$ROOT/$BUILD ;; esac

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

# ---------------------------------------------------------------- which PostgreSQL
# PG_CONFIG if given; else the newest server >= 15 with PGXS in Debian's place; else pg_config of the PATH.
choose_pg_config() {
    local config
    if [ -n "${PG_CONFIG:-}" ] && [ "$PG_CONFIG" != pg_config ]; then
        echo "$PG_CONFIG"
        return
    fi
    for config in $(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -t/ -k5,5nr); do
        if [ -x "$config" ] && [ -x "${config%/*}/postgres" ] && [ -f "$("$config" --pgxs)" ] && [ "$(major_of "$config")" -ge 15 ]; then
            echo "$config"
            return
        fi
    done
    echo pg_config
}
major_of() { "$1" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'; }

# ---------------------------------------------------------------- who runs the servers
if [ "$(id -u)" = 0 ]; then
    RUN_USER=${RUN_USER:-postgres}
    id -u "$RUN_USER" >/dev/null 2>&1 || RUN_USER=nobody
else
    RUN_USER=
fi
# as_user [-C directory] command...: as RUN_USER if we are root, in a directory that this user may enter
as_user() {
    local where=${RUN:-/}
    if [ "$1" = -C ]; then where=$2 && shift 2; fi
    if [ -n "$RUN_USER" ]; then
        (cd "$where" && exec setpriv --reuid="$RUN_USER" --regid="$(id -g "$RUN_USER")" --init-groups \
            env HOME="${RUN:-/tmp}" USER="$RUN_USER" LOGNAME="$RUN_USER" "$@")
    else
        (cd "$where" && exec "$@")
    fi
}
owner_name() { if [ -n "$RUN_USER" ]; then echo "$RUN_USER"; else id -un; fi; }
user_can_read() { [ -z "$RUN_USER" ] || [ -z "$(as_user -C / find "$@" ! -readable -print -quit 2>&1)" ]; }

# ---------------------------------------------------------------- packages that a test can do without
# install_optional NAME package...: what cannot be had is told under that name
install_optional() {
    local name=$1 sudo=() package log
    shift
    [ $# -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
        say "$name: not installed, which takes apt-get and root: $*"
        return 0
    fi
    say "$name: installing $*"
    log=$(mktemp "/tmp/pgpool-$name.XXXXXX")
    timeout 300 "${sudo[@]}" apt-get update -qq >"$log" 2>&1 || true
    # one by one, so that one that is not to be had does not take the others along
    for package; do
        timeout 600 "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
            >"$log" 2>&1 </dev/null || say "$name: $package cannot be installed: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log")"
    done
    rm -f "$log"
}

# ---------------------------------------------------------------- a run
RUN='' SOCK='' KEEP_RUN='' CHILD=''
# Below this length a socket's path fits everywhere (sun_path has 108 bytes).
open_run() {
    local name=$1
    mkdir -p "$OUT/run"
    RUN=$(mktemp -d "$OUT/run/$name.XXXXXX")
    if [ -n "$RUN_USER" ]; then
        chown "$RUN_USER:" "$RUN"
        if ! as_user -C / test -w "$RUN" 2>/dev/null; then
            rmdir "$RUN"
            RUN=$(mktemp -d "/tmp/pgpool-$name.XXXXXX")
            chown "$RUN_USER:" "$RUN"
        fi
    fi
    SOCK=$(mktemp -d /tmp/pgpool-XXXXXX)
    [ -z "$RUN_USER" ] || chown "$RUN_USER:" "$SOCK"
    chmod 755 "$SOCK"
}
keep_run() { KEEP_RUN=yes; }

# Servers of this run. A postmaster and its backends have their data directory as working directory, a PgBouncer the run.
run_pids() {
    local dir where comm
    for dir in /proc/[0-9]*; do
        { read -r comm <"$dir/comm"; } 2>/dev/null || continue
        case $comm in postgres | pgbouncer) ;; *) continue ;; esac
        where=$(readlink "$dir/cwd" 2>/dev/null || true)
        case $where in "$1" | "$1"/*) echo "${dir#/proc/}" ;; esac
    done
}
stop_run() {
    local run=$1 signal pids
    # fast shutdown, immediate shutdown (PgBouncer: the same two), the end
    for signal in INT QUIT KILL; do
        pids=$(run_pids "$run")
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086 # a list
        kill "-$signal" $pids 2>/dev/null || true
        for _ in $(seq 50); do
            [ -n "$(run_pids "$run")" ] || return 0
            sleep 0.1
        done
    done
}
remove_run() { rm -rf -- "$@"; }
lib_exit() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$CHILD" ] || end_child
    if [ -z "$KEEP_RUN" ] && [ -n "$RUN" ]; then
        if declare -F before_cleanup >/dev/null; then before_cleanup "$code" || true; fi
        stop_run "$RUN"
        remove_run "$RUN" "$SOCK"
        rmdir "$OUT/run" 2>/dev/null || true
    fi
    exit "$code"
}
trap lib_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# bounded SECONDS LOG command...: the command (or function) in a process group of its own, with its output in the log;
# stopped when the time is over (status 124), and at once when we are told to stop
bounded() {
    local seconds=$1 log=$2 code=0 deadline
    shift 2
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    CHILD=$!
    set +m
    deadline=$((SECONDS + seconds))
    while kill -0 "$CHILD" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
    if kill -0 "$CHILD" 2>/dev/null; then
        end_child
        echo "stopped after $seconds seconds" >>"$log"
        return 124
    fi
    wait "$CHILD" || code=$?
    CHILD=''
    return $code
}
end_child() {
    kill -TERM -- "-$CHILD" 2>/dev/null || true
    for _ in $(seq 50); do
        kill -0 -- "-$CHILD" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL -- "-$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
    CHILD=''
}

# ---------------------------------------------------------------- servers
# server_tree directory: the private tree (dev/server-tree.sh), there if RUN_USER can read it, else in the run directory. Sets BINDIR and TREE_CONFIG.
server_tree() {
    local where=$1
    PG_CONFIG=$(choose_pg_config)
    export PG_CONFIG
    TREE_CONFIG=$("$ROOT/dev/server-tree.sh" "$where")
    if ! user_can_read "$where"; then
        where=$RUN/pg
        TREE_CONFIG=$("$ROOT/dev/server-tree.sh" "$where")
    fi
    BINDIR=$("$TREE_CONFIG" --bindir)
}

# Ports that nothing listens on, outside the range that the kernel gives to outgoing connections.
free_ports() {
    python3 - "$1" <<'PY'
import random, socket, sys
found, kept = [], []
while len(found) < int(sys.argv[1]):
    port = random.randrange(20000, 32000)
    s = socket.socket()
    try:
        s.bind(("", port))
    except OSError:
        continue
    kept.append(s)
    found.append(str(port))
print(*found)
PY
}

certificate() { # directory: server.crt and server.key for localhost, valid for a month
    as_user openssl req -new -x509 -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$1/server.key" -out "$1/server.crt" 2>/dev/null
    as_user chmod 600 "$1/server.key"
}

hba_lines() {
    cat <<-HBA
	# written by dev/lib.sh
	local   all          postgres                peer map=owner
	local   all          all                     scram-sha-256
	host    all          all       127.0.0.1/32  scram-sha-256
	host    all          all       ::1/128       scram-sha-256
	local   replication  postgres                peer map=owner
	HBA
}

# What a cluster of ours has in common; the pool port 0 leaves pgpool out.
conf_lines() { # name port pool-port
    cat <<-CONF
	listen_addresses = '127.0.0.1'
	port = $2
	unix_socket_directories = '$SOCK'
	cluster_name = '$1'
	password_encryption = 'scram-sha-256'
	ssl = on
	ssl_cert_file = 'server.crt'
	ssl_key_file = 'server.key'
	log_line_prefix = '%m [%p] %q%u@%d %h '
	CONF
    if [ "$3" != 0 ]; then
        cat <<-CONF
	shared_preload_libraries = 'pgpool'
	pgpool.port = $3
	CONF
    fi
}

# cluster_create NAME PORT POOL-PORT [configuration line]...: the data directory is RUN/NAME, its log RUN/NAME.log
cluster_create() {
    local name=$1 port=$2 pool_port=$3
    shift 3
    as_user "$BINDIR/initdb" -D "$RUN/$name" -U postgres --auth-local=peer --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$RUN/$name.initdb.log" 2>&1 ||
        fail "initdb failed: $(tail -n 3 "$RUN/$name.initdb.log")"
    cluster_files "$name" "$port" "$pool_port" "$@"
}
# ... and the same files for a copy made by pg_basebackup
cluster_files() {
    local name=$1 port=$2 pool_port=$3 line
    shift 3
    certificate "$RUN/$name"
    hba_lines | as_user tee "$RUN/$name/pg_hba.conf" >/dev/null
    printf 'owner %s postgres\n' "$(owner_name)" | as_user tee "$RUN/$name/pg_ident.conf" >/dev/null
    { # the last line of a name counts
        conf_lines "$name" "$port" "$pool_port"
        for line in "$@"; do printf '%s\n' "$line"; done
    } | as_user tee -a "$RUN/$name/postgresql.conf" >/dev/null
}
cluster_start() { # name
    if ! as_user "$BINDIR/pg_ctl" start -w -t 60 -D "$RUN/$1" -l "$RUN/$1.log" </dev/null >"$RUN/$1.pg_ctl.log" 2>&1; then
        {
            echo "$1 did not start:"
            tail -n 20 "$RUN/$1.log" 2>/dev/null || cat "$RUN/$1.pg_ctl.log"
        } >&2
        fail "PostgreSQL did not start (its log is above)"
    fi
}
cluster_stop() { # name
    as_user "$BINDIR/pg_ctl" stop -w -t 30 -m fast -D "$RUN/$1" >/dev/null 2>&1 || true
}
postmaster_pid() { head -n 1 "$RUN/$1/postmaster.pid"; }

# superuser PORT DATABASE [psql options]: SQL from standard input or -c, by peer through the socket
superuser() {
    local port=$1 database=$2
    shift 2
    as_user "$BINDIR/psql" -X -q -v ON_ERROR_STOP=1 -h "$SOCK" -p "$port" -U postgres -d "$database" "$@"
}
wait_for_port() { # port: until something accepts there
    python3 - "$1" <<'PY'
import socket, sys, time
end = time.time() + 30
while time.time() < end:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        sys.exit(0)
    except OSError:
        time.sleep(0.05)
sys.exit(1)
PY
}
