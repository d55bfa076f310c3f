#!/bin/bash
# dev/simulate.sh program first-seed schedules jobs - runs the simulator on ranges of seeds, one process for each.
#
# Owns: nothing. Prints what the processes print, failing seeds among it, and the sum of schedules. Status 1: one failed.
# Leaves: the output of each process in the program's directory.
set -euo pipefail
program=$1 seed=$2 schedules=$3 jobs=$4
out=${program%/*}
rm -f "$out"/[0-9]*.log
[ "$jobs" -le "$schedules" ] || jobs=$schedules
pids=()
trap '[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true' EXIT
for ((i = 0; i < jobs; i++)); do
    from=$((seed + schedules * i / jobs))
    count=$((seed + schedules * (i + 1) / jobs - from))
    SIM_SEED=$from SIM_SCHEDULES=$count "$program" --gtest_brief=1 >"$out/$i.log" 2>&1 &
    pids+=($!)
done
status=0
for ((i = 0; i < jobs; i++)); do
    wait "${pids[i]}" || status=1
    cat "$out/$i.log"
done
pids=()
sed -n 's/.*\] \([0-9]*\) schedules, \([0-9]*\) events.*/\1 \2/p' "$out"/[0-9]*.log |
    awk -v seed="$seed" '{ s += $1; e += $2 } END { printf "simulate: %d schedules from seed %s, %d events\n", s, seed, e }'
grep -ho 'SIM_SEED=[0-9]*' "$out"/[0-9]*.log | sort -u || true
exit "$status"
