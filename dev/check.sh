#!/bin/bash
# dev/check.sh [suite]... - runs the test suites and counts: build versions docs layers unit format fuzz regress pgtap
#       tap core.
#
# Owns: a run directory with a private server tree and clusters (dev/lib.sh), and $BUILD/check, which keeps the output of
#       each suite and, when something failed, the server logs.
# Needs: what dev/setup.sh installs (it is called first). Root or an ordinary user; no server, no free port in particular.
# Leaves: $BUILD and missing Debian packages, no process, nothing in /tmp.
#
# The last line is `N passed, N failed`, with `, N skipped` if any, summed over the suites; the status is 0 if none failed.
# A suite that has files and runs no test counts as failed; every suite has a time limit.
# shellcheck source=dev/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
shopt -s nullglob

ALL=(build versions docs layers unit format fuzz regress pgtap tap core)
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=("${ALL[@]}")
LOGS=$OUT/check
JOBS=${JOBS:-$(nproc)}
passed=0 failed=0 skipped=0 ran_suite='' failures=()

# ---------------------------------------------------------------- counting
begin() { # suite, what it does
    suite=$1 log=$LOGS/$1.log suite_start=$SECONDS
    printf '%-8s %s ... ' "$suite" "$2"
    [ -t 1 ] || echo
}
# end PASSED FAILED SKIPPED [note]
end() {
    local note=${4:-}
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    printf '%-8s %d passed, %d failed%s  (%d s)%s\n' "$([ -t 1 ] || echo "$suite")" "$1" "$2" \
        "$([ "$3" = 0 ] || echo ", $3 skipped")" $((SECONDS - suite_start)) "${note:+  $note}"
    if [ "$2" -gt 0 ]; then failures+=("$suite"); fi
}
show() { # the part of a log that tells what is wrong
    if [ -s "$1" ]; then sed 's/^/    | /' "$1" | tail -n "${2:-40}"; fi
    echo "    the whole output: ${3:-$1}"
}
one_test() { # seconds command...: a suite that either passes or not
    local seconds=$1
    shift
    if bounded "$seconds" "$log" "$@"; then end 1 0 0; else
        end 0 1 0
        show "$log"
    fi
}
has_files() { # pattern description: or the suite ends here
    if [ "$1" -gt 0 ]; then return 0; fi
    end 0 0 0 "there are no $2"
    return 1
}

# ---------------------------------------------------------------- suites without a server
run_build() {
    begin build "both libraries and the test tools${WERROR:+, warnings are errors}"
    one_test 1500 make -j"$JOBS" --no-print-directory PG_CONFIG="$PG_CONFIG" all tools
    [ "$failed" = 0 ] || fail "the build failed, so there is nothing to test"
}
run_layers() {
    begin layers "includes never point up"
    one_test 300 dev/layercheck.sh
}
run_docs() {
    begin docs "every setting, column and function is documented"
    one_test 60 dev/docscheck.sh
}
# The control file has the version; the others repeat it.
run_versions() {
    begin versions "the same version in pgpool.control, META.json and CHANGELOG.md"
    one_test 60 python3 -c "$VERSIONS"
}
VERSIONS=$(
    cat <<'PY'
import json, os, re, sys
version = re.search(r"^default_version *= *'(.*)'", open("pgpool.control").read(), re.M)[1]
meta = json.load(open("META.json"))
found = {"META.json version": meta["version"], "META.json provides": meta["provides"]["pgpool"]["version"]}
if os.path.exists("CHANGELOG.md"):
    numbers = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", open("CHANGELOG.md").read(), re.M)
    if numbers:
        found["CHANGELOG.md, newest"] = numbers[0]
for where, value in found.items():
    if value != version:
        print("%s: %s, but pgpool.control says %s" % (where, value, version))
        sys.exit(1)
PY
)
# One process for each core, with a share of the tests and its own output.
# shellcheck disable=SC2317 # bounded() calls it
unit_shares() {
    local i pids=() code=0
    for ((i = 0; i < JOBS; i++)); do
        GTEST_TOTAL_SHARDS=$JOBS GTEST_SHARD_INDEX=$i "$OUT/unit/run" --gtest_filter="${UNIT_FILTER:-*}" \
            "--gtest_output=json:$LOGS/unit.$i.json" >"$LOGS/unit.$i" 2>&1 &
        pids+=($!)
    done
    for ((i = 0; i < JOBS; i++)); do
        wait "${pids[i]}" || code=$?
        cat "$LOGS/unit.$i"
        rm "$LOGS/unit.$i"
    done
    return "$code"
}
run_unit() {
    begin unit "unit tests under ASan and UBSan"
    local files=(test/unit/*.cpp)
    has_files ${#files[@]} test/unit/*.cpp || return 0
    if ! bounded 1500 "$log" make -j"$JOBS" --no-print-directory unit-build; then
        end 0 1 0
        show "$log"
        return
    fi
    rm -f "$LOGS"/unit.*.json
    local code=0
    bounded 900 "$log" unit_shares || code=$?
    local counts
    counts=$(python3 - "$code" "$JOBS" "$LOGS" <<'PY'
import json, sys
try:
    shares = [json.load(open("%s/unit.%d.json" % (sys.argv[3], i))) for i in range(int(sys.argv[2]))]
    tests = [t for share in shares for s in share["testsuites"] for t in s["testsuite"]]
    bad = sum(1 for t in tests if t.get("failures"))
    skip = sum(1 for t in tests if t["result"] in ("SKIPPED", "SUPPRESSED") or t["status"] == "NOTRUN")
    good = len(tests) - bad - skip
    if (sys.argv[1] != "0" and bad == 0) or good + bad == 0:
        bad += 1
except (OSError, ValueError, KeyError): # it died before the end
    good, bad, skip = 0, 1, 0
print(good, bad, skip)
PY
    )
    # shellcheck disable=SC2086 # three numbers
    end $counts
    case $counts in *' 0 '*) ;; *)
        grep -vE '^\[( RUN|       OK|-----|=====)' "$log" >"$log.short" || true
        show "$log.short" 60 "$log"
        rm -f "$log.short"
        ;;
    esac
}
run_format() {
    begin format "clang-format"
    local code=0
    bounded 300 "$log" dev/format.sh check || code=$?
    case $code in
    0) end 1 0 0 ;;
    3) end 0 0 1 "$(sed 's/^format: //' "$log" | head -n 1)" ;;
    *)
        end 0 1 0
        show "$log" 20
        ;;
    esac
}
run_fuzz() {
    begin fuzz "the fuzz corpora and mutations of them, once"
    local files=(test/fuzz/*.cpp) target good=0 bad=0
    has_files ${#files[@]} test/fuzz/*.cpp || return 0
    if ! bounded 900 "$log" make -j"$JOBS" --no-print-directory replay-build; then
        end 0 1 0
        show "$log"
        return
    fi
    for target in "${files[@]}"; do
        target=$(basename "$target" .cpp)
        if bounded 300 "$log.$target" "$OUT/replay/$target" "test/fuzz/corpus/$target"; then
            good=$((good + 1))
            rm -f "$log.$target"
        else
            bad=$((bad + 1))
            show "$log.$target"
        fi
    done
    end $good $bad 0
}

# ---------------------------------------------------------------- suites with a server
# Where the tests are read from: the checkout, or a copy of what they need if the servers' user cannot look there.
prepare_servers() {
    [ -z "$RUN" ] || return 0
    open_run check
    server_tree "$OUT/pg"
    STAGE=$ROOT BUILT=$OUT
    local parts=() part
    for part in tools drivers patroni; do [ ! -d "$OUT/$part" ] || parts+=("$OUT/$part"); done
    if ! user_can_read "$ROOT/test" "$ROOT/sql" "$ROOT/dev" "${parts[@]}"; then
        STAGE=$RUN/tree BUILT=$RUN/tree/build
        mkdir -p "$BUILT"
        cp -R "$ROOT/test" "$ROOT/sql" "$ROOT/dev" "$ROOT/pgpool.control" "$ROOT/Makefile" "$STAGE/"
        [ ${#parts[@]} = 0 ] || cp -R "${parts[@]}" "$BUILT/"
    fi
}
# After the suites: server logs of a failed run stay in $BUILD/check
before_cleanup() {
    [ ${#failures[@]} -gt 0 ] || [ "$1" != 0 ] || return 0
    mkdir -p "$LOGS/servers"
    (cd "$RUN" && find . -path ./pg -prune -o -path ./tree -prune -o -path '*/pgdata' -prune -o \( -name '*.log' -o -name '*.diffs' -o -name '*.out' -o -name 'regress_log_*' \) -print0 |
        tar --null -T - -cf -) 2>/dev/null | tar -C "$LOGS/servers" -xf - 2>/dev/null || true
    echo "server logs: $LOGS/servers"
}

run_regress() {
    begin regress "pg_regress"
    local files=(test/regress/sql/*.sql) names=() file port pool_port pg_regress dir code=0 good bad
    has_files ${#files[@]} test/regress/sql/*.sql || return 0
    prepare_servers
    for file in "${files[@]}"; do names+=("$(basename "$file" .sql)"); done
    # shellcheck disable=SC2206 # a list of names
    [ -z "${REGRESS:-}" ] || names=($REGRESS)
    read -r port pool_port < <(free_ports 2)
    dir=$RUN/regress
    as_user mkdir "$dir"
    regress_conf "$port" "$pool_port" | as_user tee "$dir/pgpool.conf" >/dev/null
    pg_regress=$(dirname "$("$TREE_CONFIG" --pgxs)")/../test/regress/pg_regress
    bounded 900 "$log" as_user -C "$dir" env PATH="$BINDIR:$PATH" PGPOOL_PORT="$pool_port" PG_REGRESS_SOCK_DIR="$SOCK" \
        "$pg_regress" --bindir="$BINDIR" --inputdir="$STAGE/test/regress" --outputdir="$dir" --temp-instance="$dir/instance" --temp-config="$dir/pgpool.conf" \
        --port="$port" --dbname=regression --encoding=UTF8 --no-locale --load-extension=pgpool "${names[@]}" || code=$?
    # `ok` or `FAILED` at the end before 16, TAP since then
    good=$(grep -cE '^(test .*\.\.\. ok|ok [0-9]+ )' "$log" || true)
    bad=$(grep -cE '^(test .*\.\.\. FAILED|not ok [0-9]+ )' "$log" || true)
    if [ $((good + bad)) = 0 ] || { [ "$code" != 0 ] && [ "$bad" = 0 ]; }; then bad=$((bad + 1)); fi
    end "$good" "$bad" 0
    if [ "$bad" -gt 0 ]; then
        if [ -s "$dir/regression.diffs" ]; then cp "$dir/regression.diffs" "$LOGS/" && show "$LOGS/regression.diffs" 80; fi
        show "$log" 15
    fi
}
# pg_regress makes the instance (superuser by trust inside a private socket directory); the rest is ours
regress_conf() { # port pool-port
    cat <<-CONF
	shared_preload_libraries = 'pgpool'
	pgpool.port = $2
	pgpool.database = 'regression'
	max_connections = 50
	CONF
    cat "$STAGE"/test/regress/*.conf 2>/dev/null || true
}

# prove(1)'s output as numbers, passed, failed and skipped, and the files that ended by something else than a failed
# check, one a line
prove_counts() { # log status files
    python3 - "$@" <<'PY'
import re, sys
text = open(sys.argv[1], errors="replace").read()
status, files = int(sys.argv[2]), int(sys.argv[3])
total = re.findall(r"^Files=(\d+), Tests=(\d+)", text, re.M)
tests = sum(int(t) for f, t in total)
failed = 0
died = []
summary = text.partition("Test Summary Report")[2]
for name, stat, details in re.findall(r"^(\S+)\s+\((Wstat: .*)\)\n((?:  .*\n)*)", summary, re.M):
    n = int((re.findall(r"Failed: (\d+)", stat) or ["0"])[0])
    failed += n
    if re.search("Parse errors|Non-zero wait|exit status: 255", details) or (not n and "Non-zero" in details):
        died.append(name)
    if not n and re.search("Non-zero|Parse errors", details): # died, or ran another number of tests than planned
        failed += 1
        tests += 1
# prove tells how many only beside failures; a test that skips a part says `# skipped: what: why`
skipped = max(sum(int(n) for n in re.findall(r"less (\d+) skipped subtests?", text)), len(re.findall(r"^# skipped: ", text, re.M)))
tests -= skipped
skipped += len(re.findall(r"\.\. skipped: ", text)) 
if not total or (tests == 0 and skipped == 0) or (status and not failed):
    failed += 1
    tests += 1
print(max(tests - failed, 0), failed, skipped, *died, sep="\n")
PY
}
# What a test that died said last: PostgreSQL::Test::Utils sends it to a file, where the output of prove is silent.
show_last_words() { # directory of these files, test
    local file
    file=$1/regress_log_$(basename "${2%.*}")
    [ -s "$file" ] || return 0
    echo "    $2 died; the end of its log:"
    # without what stops its servers at the very end
    grep -vE '^(### Stopping|# Running: pg_ctl .* stop|waiting for server to shut down|server stopped|# No postmaster PID)' "$file" |
        tail -n 15 | sed 's/^/    | /'
}
report_prove() { # log status files [directory of the tests' own logs]
    local counts=() test
    mapfile -t counts < <(prove_counts "$1" "$2" "$3")
    local died=("${counts[@]:3}")
    end "${counts[@]:0:3}"
    sed -nE 's/^(\[[0-9:]+\] )?(\S+) \.+ skipped: (.*)/    | \2 is skipped: \3/p' "$1"
    [ "${counts[1]}" != 0 ] || return 0
    # what passed, and what servers and pgbench say while they start
    grep -vE ' \.\.+ ok( |$)|^ok [0-9]|^ok  +[0-9]+ ms|^# (initializing|NOTICE: |creating|generating|vacuuming|done in|[0-9]+ of)|^\[[0-9:]+\]$' \
        "$1" >"$1.short" || true
    show "$1.short" 150 "$1"
    rm -f "$1.short"
    for test in "${died[@]}"; do show_last_words "${4:-}" "$test"; done
}
run_pgtap() {
    begin pgtap "pgTAP"
    local files=(test/pgtap/*.sql) port pool_port code=0
    # shellcheck disable=SC2206 # a list of files
    [ -z "${PGTAP_TESTS:-}" ] || files=($PGTAP_TESTS)
    has_files ${#files[@]} test/pgtap/*.sql || return 0
    prepare_servers
    read -r port pool_port < <(free_ports 2)
    cluster_create pgtap "$port" "$pool_port" "pgpool.database = 'pgtap'" 'max_connections = 50'
    cluster_start pgtap
    superuser "$port" postgres -c 'CREATE DATABASE pgtap'
    superuser "$port" pgtap -c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION pgpool'
    local runner=(--ext .sql --failures --comments --exec "psql -X -q -At -v ON_ERROR_STOP=1 -v pool_port=$pool_port -f")
    bounded 900 "$log" as_user -C "$STAGE" env PATH="$BINDIR:$PATH" PGHOST="$SOCK" PGPORT="$port" PGUSER=postgres PGDATABASE=pgtap \
        PGPOOL_PORT="$pool_port" PGOPTIONS='-c client_min_messages=warning' prove "${runner[@]}" "${files[@]}" || code=$?
    cluster_stop pgtap
    report_prove "$log" "$code" ${#files[@]}
}
# PostgreSQL's own test programs for the files that run them: PGTESTS is where they are; NO_PGTESTS is why the source of
# PostgreSQL is not here. A program that does not compile is a failure of its test.
PGTESTS='' NO_PGTESTS=''
pg_tests() { # files
    case " $* " in *libpq_pipeline*) ;; *) return 0 ;; esac
    PGTESTS=$OUT/pgtests
    if ! bounded 900 "$LOGS/pgsource.log" dev/pgsource.sh; then
        NO_PGTESTS=$(tail -n 1 "$LOGS/pgsource.log")
    elif ! bounded 300 "$LOGS/pgtests.log" make --no-print-directory PG_CONFIG="$PG_CONFIG" pgtests; then
        show "$LOGS/pgtests.log"
        rm -rf "$PGTESTS"
    elif ! user_can_read "$PGTESTS"; then
        cp -R "$PGTESTS" "$RUN/pgtests"
        PGTESTS=$RUN/pgtests
    fi
}
run_tap() {
    begin tap "TAP: drivers, replicas, TLS, crash, restart"
    local files=(test/tap/*.pl) perl_lib code=0 dir pgxs
    # shellcheck disable=SC2206 # a list of files
    [ -z "${PROVE_TESTS:-}" ] || files=($PROVE_TESTS)
    has_files ${#files[@]} test/tap/*.pl || return 0
    prepare_servers
    dir=$RUN/tap
    as_user mkdir -p "$dir/tmp_check/log"
    pgxs=$(dirname "$("$TREE_CONFIG" --pgxs)")
    pg_tests "${files[@]}"
    perl_lib=$pgxs/../test/perl
    [ -f "$perl_lib/PostgreSQL/Test/Cluster.pm" ] || perl_lib=$pgxs/../../src/test/perl
    # TESTDIR until 15, TESTDATADIR and TESTLOGDIR since 16
    bounded "${TAP_SECONDS:-2400}" "$log" as_user -C "$STAGE" env PATH="$BINDIR:$PATH" TMPDIR="$SOCK" PG_CONFIG="$TREE_CONFIG" \
        TESTDIR="$dir" TESTDATADIR="$dir/tmp_check" TESTLOGDIR="$dir/tmp_check/log" \
        PG_REGRESS="$pgxs/../test/regress/pg_regress" PGPOOL_TOOLS="$BUILT/tools" PGPOOL_DRIVERS="$BUILT/drivers" PGPOOL_PATRONI="$BUILT/patroni" \
        PGPOOL_PGTESTS="$PGTESTS" PGPOOL_NO_PGTESTS="$NO_PGTESTS" PG_TEST_TIMEOUT_DEFAULT=120 \
        prove -I "$perl_lib" -I test/tap --failures --timer "-j${TAP_JOBS:-2}" "${files[@]}" || code=$?
    report_prove "$log" "$code" ${#files[@]} "$dir/tmp_check/log"
    grep -E '^# (skipped|driver): ' "$log" || true
}

# PostgreSQL's own tests of what a session keeps, of clients of a pool that others keep busy
run_core() {
    begin core "PostgreSQL's tests of what a session keeps, in transaction mode"
    if ! bounded 900 "$LOGS/pgsource.log" dev/pgsource.sh; then
        end 0 0 1 "$(tail -n 1 "$LOGS/pgsource.log")"
        return
    fi
    local code=0 good all
    # with TLS, as libpq has it by itself where the server can
    bounded 900 "$log" env TESTS=dozen MODE=pool-busy TLS=prefer POOL_SIZE=2 CORE_SECONDS=300 dev/core.sh core || code=$?
    read -r good all < <(sed -nE '$s/^.*: ([0-9]+) of ([0-9]+) passed$/\1 \2/p' "$log") || good=0 all=1
    # the tests may have passed, and the other clients had errors
    if [ "$code" != 0 ] && [ "$good" = "$all" ]; then all=$((all + 1)); fi
    end "$good" $((all - good)) 0
    if [ "$good" != "$all" ]; then
        show "$log"
        if [ -s "$OUT/core/core-pool-busy-tls/regression.diffs" ]; then show "$OUT/core/core-pool-busy-tls/regression.diffs" 80; fi
    fi
}

# ---------------------------------------------------------------- main
case " ${suites[*]} " in *' regress '* | *' pgtap '* | *' tap '* | *' core '* | *' unit '*) dev/setup.sh check ;; *) dev/setup.sh build ;; esac
PG_CONFIG=$(choose_pg_config)
export PG_CONFIG
# WERROR is one of the flags whose change builds everything anew: all makes of a run agree, and one suite alone takes what is
[ $# -gt 0 ] || export WERROR=1
mkdir -p "$LOGS"
rm -rf "$LOGS/servers"
say "pgpool with $("$PG_CONFIG" --version), $(${CXX:-g++} --version | head -n 1), $(id -un)${RUN_USER:+, servers as $RUN_USER}"
for suite_name in "${suites[@]}"; do
    case $suite_name in
    build) run_build ;;
    versions) run_versions ;;
    docs) run_docs ;;
    layers) run_layers ;;
    unit) run_unit ;;
    format) run_format ;;
    fuzz) run_fuzz ;;
    regress) run_regress ;;
    pgtap) run_pgtap ;;
    tap) run_tap ;;
    core) run_core ;;
    *) fail "there is no suite $suite_name; there are: ${ALL[*]}" ;;
    esac
    ran_suite=$suite_name
done
[ -n "$ran_suite" ] || fail "no suite ran"
[ ${#failures[@]} = 0 ] || say "failed: ${failures[*]}"
code=0
[ $failed = 0 ] || code=1
# the clean-up comes first, so that the counts are the last line
if [ -n "$RUN" ]; then
    before_cleanup $code
    stop_run "$RUN"
    remove_run "$RUN" "$SOCK"
    rmdir "$OUT/run" 2>/dev/null || true
    RUN=''
fi
summary="$passed passed, $failed failed"
[ $skipped = 0 ] || summary+=", $skipped skipped"
say "$summary"
exit $code
