#!/bin/bash
# dev/coverage.sh directory compiler - line and branch coverage of src/core by what was run in the directory.
#
# Owns: nothing. Needs gcov of the compiler's version. The directory has the objects and counts of `make coverage`.
# Leaves: nothing outside the directory.
# How it is counted: a line or branch of src/core counts once, whatever file includes it. The build has exceptions off,
#       so there are no branches that only an exception takes; without optimisation, each condition of && and || has two.
set -euo pipefail
directory=$1 compiler=$2
version=$("$compiler" -dumpversion)
gcov=$(command -v "gcov-${version%%.*}" || command -v gcov) || {
    echo "coverage: gcov is missing: it comes with gcc, apt-get install gcc" >&2
    exit 1
}
cd "$directory"
find . -name '*.gcda' -print0 | xargs -0 "$gcov" --branch-probabilities --json-format --stdout 2>/dev/null |
    python3 -c '
import json, sys
lines, branches = {}, {}
decoder, text, at = json.JSONDecoder(), sys.stdin.read(), 0
while at < len(text):
    unit, at = decoder.raw_decode(text, at)
    while at < len(text) and text[at].isspace():
        at += 1
    for file in unit["files"]:
        name = file["file"]
        if "src/core/" not in name:
            continue
        name = name[name.index("src/core/"):]
        for line in file["lines"]:
            key = name, line["line_number"]
            lines[key] = max(lines.get(key, 0), line["count"])
            # the same line may be in several functions, as those of a template
            where = (*key, line.get("function_name", ""))
            seen = branches.setdefault(where, [])
            for i, branch in enumerate(b for b in line["branches"] if not b["throw"]):
                if i == len(seen):
                    seen.append(0)
                seen[i] += branch["count"]
def share(hit, all):
    return "%5d of %5d %6.1f %%" % (hit, all, 100 * hit / all) if all else "%24s" % "-"
total = [0, 0, 0, 0]
print("%-34s %24s   %24s" % ("", "lines", "branches"))
for name in sorted({key[0] for key in lines}):
    l = [n for key, n in lines.items() if key[0] == name]
    b = [n for key, list in branches.items() if key[0] == name for n in list]
    row = [sum(n > 0 for n in l), len(l), sum(n > 0 for n in b), len(b)]
    total = [x + y for x, y in zip(total, row)]
    print("%-34s %s   %s" % (name, share(*row[:2]), share(*row[2:])))
print("%-34s %s   %s" % ("total", share(*total[:2]), share(*total[2:])))
with open("missed", "w") as out:
    for (name, number, function), list in sorted(branches.items()):
        if 0 in list:
            out.write("%s:%d %s\n" % (name, number, " ".join("-" if n == 0 else str(n) for n in list)))
'
echo "coverage: $directory/missed has the lines with branches that nothing took"
