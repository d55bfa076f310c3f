#!/bin/bash
# dev/core.sh core|isolation - PostgreSQL's own regression or isolation suite, directly or through the pool.
#
# MODE=direct     on the server's own port: what the suite says without us
#      session    on the session port: what differs there is not a matter of what a session keeps
#      pool       in transaction mode
#      pool-busy  likewise, with BUSY=3 (the default)
# BUSY=N          so many more clients of that role and database beside, in any mode: short transactions, settings, prepared
#                 statements, LISTEN and temporary tables
# TLS=on          all clients, busy ones too, come by TCP and TLS (sslmode=require); TLS=prefer: as libpq does by itself,
#                 and clear text is refused. off: by Unix socket (the default)
# TESTS="a b"     these tests alone, in this order; TESTS=dozen those of the list below. What they depend on is not added.
# POOL_SIZE       servers in transaction mode, 20 and one for each busy client; if it is given, clients may keep all of them
# CORE_SECONDS    limit of time, 1800. A test without an end counts as not passed, as do those that did not start.
#
# Owns: a run directory with one cluster (dev/lib.sh), and $BUILD/core/SUITE-MODE: the suite's output, regression.diffs,
#       results and the server log.
# Needs: what dev/setup.sh check installs, and the source that dev/pgsource.sh unpacks. The programs pg_regress,
#        pg_isolation_regress and isolationtester come with the server's headers.
# Leaves: that directory, no process, nothing in /tmp. The last line is `N of M passed`; the status is 0 if all did.
#
# What the output of a test may differ in, in transaction mode, is in test/SUITE/TEST.diff, as hunks of `diff -U0` and what
# causes them. Each may be there or not; with any other difference, or a line more or less, the test has failed.
#
# Everybody is trusted, as the suites need it (`\c - regress_somebody`): by Unix socket in a directory that is ours alone, by
# TLS with a certificate that is ours alone.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

# Tests that depend on what a session keeps, and before them what makes their tables.
DOZEN=(test_setup create_index
    guc prepare temp portals sequence rolenames privileges plpgsql transactions namespace async advisory_lock)

suite=${1:-}
MODE=${MODE:-pool-busy}
case $suite in
core) folder=regress schedule=parallel_schedule database=regression program=regress/pg_regress ;;
isolation) folder=isolation schedule=isolation_schedule database=isolation_regression program=isolation/pg_isolation_regress ;;
*) fail 'usage: [MODE=direct|session|pool|pool-busy] [TLS=off|on|prefer] [BUSY=N] [TESTS="a b"] dev/core.sh core|isolation' ;;
esac
case $MODE in direct | session | pool) BUSY=${BUSY:-0} ;; pool-busy) BUSY=${BUSY:-3} ;; *) fail "MODE is direct, session, pool or pool-busy, not $MODE" ;; esac
case $BUSY in '' | *[!0-9]*) fail "BUSY is a number of clients, not $BUSY" ;; esac
TLS=${TLS:-off} title=$suite,\ $MODE kept=$suite-$MODE
case $TLS in
off) ;;
on | prefer) title+=", TLS" kept+=-tls ;;
*) fail "TLS is off, on or prefer, not $TLS" ;;
esac

# ---------------------------------------------------------------- what it takes
dev/setup.sh check
PG_CONFIG=$(choose_pg_config)
export PG_CONFIG
source=$(dev/pgsource.sh | tail -n 1)
KEEP=$OUT/core/$kept DIRECT=$OUT/core/$suite-direct
rm -rf "$KEEP"
mkdir -p "$KEEP"
version=$(sed -n "s/^PACKAGE_VERSION='\(.*\)'/\1/p" "$source/configure")
goals=(all pgcore) other_version=''
case $("$PG_CONFIG" --version) in
"PostgreSQL $version" | "PostgreSQL $version "*) ;;
*) goals+=("$BUILD/pgtests/psql") other_version=yes ;; # what is expected, that psql writes
esac
bounded 1500 "$KEEP/build.log" make -j"$(nproc)" --no-print-directory "${goals[@]}" ||
    fail "the build failed: $(tail -n 20 "$KEEP/build.log")"
open_run core
# who may connect is who may enter here
chmod 700 "$SOCK"
server_tree "$OUT/pg"
input=$RUN/input libraries=$RUN/libraries psql_dir=$BINDIR
[ -z "$other_version" ] || psql_dir=$libraries
cp -R "$source/src/test/$folder" "$input"
cp -R "$OUT/pgtests" "$libraries"
if [ "$suite" = core ]; then
    # a test of the regression suite's database that lies elsewhere
    for file in sql/rolenames.sql expected/rolenames.out; do cp "$source/src/test/modules/unsafe_tests/$file" "$input/$file"; done
fi
# What a server of another version than the source said in the last direct run is right, too.
if [ "$MODE" != direct ] && [ -n "$other_version" ] && [ -s "$DIRECT/regression.diffs" ]; then
    while read -r name; do
        cp "$DIRECT/results/$name.out" "$input/expected/${name}_9.out"
        say "$name: expected is also what the server said in $DIRECT"
    done < <(sed -n 's,^diff .*/results/\(.*\)\.out$,\1,p' "$DIRECT/regression.diffs")
fi
# libpq's words for a connection that ends are others with TLS
if [ "$TLS" != off ]; then
    while read -r file; do
        sed -e '/^server closed the connection unexpectedly$/{N;N;s/.*/SSL connection has been closed unexpectedly/}' "$file" >"${file%.out}_8.out"
    done < <(grep -lx 'server closed the connection unexpectedly' "$input"/expected/*.out || true)
fi
if [ "${TESTS:-}" = dozen ]; then TESTS=${DOZEN[*]}; fi
if [ -n "${TESTS:-}" ]; then
    # shellcheck disable=SC2206 # a list of names
    tests=($TESTS) chosen=($TESTS)
else
    read -r -d '' -a tests < <(sed -n 's/^test://p' "$input/$schedule") || true
    chosen=("--schedule=$input/$schedule")
fi

# ---------------------------------------------------------------- the cluster
read -r port pool_port session_port < <(free_ports 3)
# As pg_regress sets up an instance of its own; workers of ours are more than those that parallel queries count on. A lock
# that a session has lost to a server of the pool costs a minute, not the run.
conf=('lock_timeout = 60s' 'fsync = off' 'max_prepared_transactions = 2' 'log_lock_waits = on' 'max_connections = 200'
    'max_worker_processes = 11' 'pgpool.workers = 2' "pgpool.default_pool_size = ${POOL_SIZE:-$((20 + BUSY))}" "pgpool.session_port = $session_port"
    "pgpool.default_max_pinned = ${POOL_SIZE:-0}" 'pgpool.pin_grace_time = 0' 'pgpool.default_pin_sequences = on' "ssl_ca_file = 'server.crt'")
# guc sets placeholders of plpgsql that is not loaded yet, and a backend says so when it is, to whomever it serves then. In a
# pool that would be a matter of who gets which backend, so all have it loaded.
[ "$MODE" = direct ] || conf+=("session_preload_libraries = 'plpgsql'")
case $MODE in
direct) pool_port=0 to=$port ;;
session) to=$session_port ;;
*) to=$pool_port ;;
esac
# the regression tests look at all of their database, which must be as PostgreSQL makes it
extension=postgres
[ "$suite" = core ] || extension=$database
[ "$MODE" = direct ] || conf+=("pgpool.database = '$extension'")
cluster_create core "$port" "$pool_port" "${conf[@]}"
printf '%s\n' 'local all all trust' 'hostssl all all 127.0.0.1/32 trust clientcert=verify-ca' |
    as_user tee "$RUN/core/pg_hba.conf" >/dev/null
cluster_start core
# how the suite and the busy clients connect
host=$SOCK client=(env)
if [ "$TLS" != off ]; then
    host=127.0.0.1
    client+=("PGSSLMODE=${TLS/#on/require}" "PGSSLCERT=$RUN/core/server.crt" "PGSSLKEY=$RUN/core/server.key")
fi
# as pg_regress makes it; by the server's own port, since CREATE DATABASE is none of the suite
superuser "$port" postgres <<SQL
CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
ALTER DATABASE $database SET lc_messages TO 'C';
ALTER DATABASE $database SET lc_monetary TO 'C';
ALTER DATABASE $database SET lc_numeric TO 'C';
ALTER DATABASE $database SET lc_time TO 'C';
ALTER DATABASE $database SET bytea_output TO 'hex';
ALTER DATABASE $database SET timezone_abbreviations TO 'Default';
SQL
# isolationtester asks whether one of its sessions waits for another, by the pids that the sessions were told. In transaction
# mode these are none of backends: the question is put to the backends that serve those sessions now.
is_blocked() {
    cat <<'SQL'
ALTER FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(int, int[]) RENAME TO pg_isolation_test_backend_is_blocked;
CREATE FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(int, int[]) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_catalog.pg_isolation_test_backend_is_blocked(waiting.server_pid,
        ARRAY(SELECT server_pid FROM pgpool.pg_stat_clients WHERE pid = ANY ($2) AND server_pid IS NOT NULL))
    FROM pgpool.pg_stat_clients AS waiting WHERE waiting.pid = $1 AND waiting.server_pid IS NOT NULL
$$;
SQL
}
if [ "$MODE" != direct ]; then
    superuser "$port" "$extension" -c 'CREATE EXTENSION pgpool'
    [ "$suite" = core ] || is_blocked | superuser "$port" "$database"
    # the socket comes after the port
    for _ in $(seq 300); do
        as_user "$BINDIR/psql" -X -q -h "$SOCK" -p "$pool_port" -U postgres -d "$database" -c '' 2>/dev/null && break
        sleep 0.1
    done
    superuser "$pool_port" "$database" -c '' || fail "pgpool does not serve: $(tail -n 10 "$RUN/core.log")"
fi

# A hunk is the place in the expected output, and all its lines.
differs_as_known() { # expected got known
    python3 - "$@" <<'PY'
import re, subprocess, sys
def hunks(text):
    found, hunk = set(), None
    for line in text.split("\n") + ["@@"]:
        if hunk and not re.match("[-+]", line):
            found.add("\n".join(hunk))
            hunk = None
        if line.startswith("@@ "):
            hunk = [line.split()[1]]
        elif hunk:
            hunk.append(line)
    return found
expected, got, known = sys.argv[1:]
diff = subprocess.run(["diff", "-U0", expected, got], stdout=subprocess.PIPE)
found = re.sub(r"from PID \d+", "from PID *", diff.stdout.decode())
sys.exit(diff.returncode != 1 or not hunks(found) <= hunks(open(known).read()))
PY
}
# What an application does to a session, in pieces of a few milliseconds; pgbench ends a client at its first error. A thread
# for each, since pgbench prepares without looking at its other clients, which may keep all servers. No NOTIFY: `async` looks
# at the queue. Nor statements of the protocol beside the suite core: pg_prepared_statements shows them to its tests.
busy_script() { # name, lines
    local name=$1
    shift
    printf '%s\n' "$@" '\sleep 1 ms' | as_user tee "$RUN/busy-$name.sql" >/dev/null
    scripts+=(-f "$RUN/busy-$name.sql")
}
busy() { # its output is $RUN/busy.log, its pid $RUN/busy.pid
    local scripts=() protocol=prepared first=''
    # Plans depend on VACUUM of what test_setup has just loaded, and VACUUM on who has a snapshot: that test runs alone.
    [ "${tests[0]}" != test_setup ] || [ ${#tests[@]} = 1 ] || first=out/results/test_setup.out
    [ "$suite" != core ] || protocol=simple
    busy_script transaction 'BEGIN;' 'SELECT 1;' 'COMMIT;'
    busy_script settings "SET work_mem = '5MB';" "SET search_path = pg_catalog, public;" "SET TimeZone = 'Asia/Tokyo';" \
        "SELECT 1 / (current_setting('work_mem') || current_setting('TimeZone') = '5MBAsia/Tokyo')::int;" 'RESET ALL;'
    busy_script prepare 'PREPARE busy AS SELECT 1;' 'EXECUTE busy;' 'DEALLOCATE busy;'
    busy_script listen 'LISTEN busy;' 'SELECT 1 / count(*) FROM pg_listening_channels();' 'UNLISTEN busy;'
    busy_script temporary 'CREATE TEMP TABLE busy (a int);' 'INSERT INTO busy VALUES (1);' \
        'SELECT 1 / count(*) FROM busy;' 'DISCARD TEMP;'
    # shellcheck disable=SC2016 # $$ is the shell's that becomes pgbench
    as_user "${client[@]}" sh -c 'echo $$ >busy.pid; exec >busy.log 2>&1
        while [ -n "$1" ] && [ -z "$(find out/results -name "*.out" ! -path "$1" 2>/dev/null)" ]; do sleep 0.1; done
        shift; exec "$@"' - "$first" "$BINDIR/pgbench" -n -M $protocol -c "$BUSY" -j "$BUSY" -T 100000 -P 5 \
        -h "$host" -p "$to" -U postgres "${scripts[@]}" "$database" 2>/dev/null & # the shell would say `Terminated`
}
busy_is_running() { [ -s "$RUN/busy.pid" ] && kill -0 "$(cat "$RUN/busy.pid")" 2>/dev/null; }
# shellcheck disable=SC2317 # dev/lib.sh calls it
before_cleanup() { # what is of interest stays
    ! busy_is_running || kill "$(cat "$RUN/busy.pid")"
    cp -R "$RUN"/core.log "$RUN"/busy.log "$RUN"/out/regression.diffs "$RUN"/out/results "$KEEP/" 2>/dev/null || true
}

# ---------------------------------------------------------------- the run
as_user mkdir -p "$RUN/out"
[ "$BUSY" = 0 ] || busy
say "$title, $BUSY busy clients, $("$PG_CONFIG" --version), source $version"
code=0
bounded "${CORE_SECONDS:-1800}" "$KEEP/output" as_user -C "$RUN/out" "${client[@]}" PGISOLATIONTIMEOUT=60 \
    "$(dirname "$("$TREE_CONFIG" --pgxs)")/../test/$program" \
    --bindir="$psql_dir" --inputdir="$input" --outputdir="$RUN/out" --dlpath="$libraries" --max-concurrent-tests=20 \
    --host="$host" --port="$to" --user=postgres --use-existing --dbname="$database" --encoding=UTF8 --no-locale \
    "${chosen[@]}" || code=$?

# "ok NAME" and "FAILED NAME"; TAP since 16. What PostgreSQL lets fail (`ignore:`) is not counted against us.
results=$(sed -nE 's/^(test)? +(\S+) +\.\.\. (ok|FAILED|failed).*/\3 \2/p; s/^ok [0-9]+ +[-+] (\S+).*/ok \1/p
    s/^not ok [0-9]+ +[-+] (\S+).*/FAILED \1/p' "$KEEP/output" | sed 's/^failed /ok /')
if [[ $MODE = pool* ]]; then
    for file in test/"$suite"/*.diff; do
        name=$(basename "$file" .diff)
        grep -qx "FAILED $name" <<<"$results" || continue
        if differs_as_known "$input/expected/$name.out" "$RUN/out/results/$name.out" "$file"; then
            say "$name: no more than $file"
            results=${results/"FAILED $name"/"ok $name"}
        fi
    done
    # pg_regress calls these failed
    [ "$code" != 1 ] || grep -q '^FAILED ' <<<"$results" || code=0
fi
passed=$(grep -c '^ok ' <<<"$results" || true)
failed=$(sed -n 's/^FAILED //p' <<<"$results")
missing=$(printf '%s\n' "${tests[@]}" | grep -Fvx -f <(cut -d' ' -f2 <<<"$results") || true)
[ -z "$failed" ] || say "failed: ${failed//$'\n'/ }"
if [ -n "$missing" ]; then
    tail -n 3 "$KEEP/output" | sed 's/^/    | /'
    say "without a result: ${missing//$'\n'/ }"
fi
status=0
if [ "$BUSY" != 0 ]; then
    if ! busy_is_running || grep -qE 'error|aborted' "$RUN/busy.log"; then
        say "the other clients had errors:"
        grep -vE '^progress' "$RUN/busy.log" | head -n 5 | sed 's/^/    | /'
        status=1
    fi
    say "the other clients: $(tail -n 1 "$RUN/busy.log")"
fi
if grep -E 'crashed by signal|was terminated by signal|out of step' "$RUN/core.log" | sed 's/^/    | /' | grep .; then status=1; fi
say "kept: $KEEP"
[ "$passed" = ${#tests[@]} ] && [ "$code" = 0 ] || status=1
say "$title: $passed of ${#tests[@]} passed"
exit $status
