#!/bin/bash
# dev/docscheck.sh - the documentation has what the code has, and names nothing that does not exist.
#
# Owns: nothing. Needs bash, grep, sed, awk, make and a C++ compiler; no server. Leaves sql/generate in $BUILD.
# Fails when a table of docs/reference.md is not what `make docs-tables` makes; when a view or one of its columns, or a
# function, is missing there; or when a document names a file, a make target, a function (`name()`, `Class::name()`) or a test
# (`file` "name", "name") that is not there.
# Status 1, one line each.
# shellcheck disable=SC2013,SC2016 # no word of these lists has a blank; the backquotes are Markdown's
set -euo pipefail
cd "$(dirname "$0")/.."
reference=docs/reference.md
documents=(README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs/*.md src/core/README.md test/README.md)
bad=0 checked=0
broken() {
    echo "docscheck: $*" >&2
    bad=1
}
# section HEADING: the lines below "### HEADING" up to the next heading
section() { awk -v heading="### $1" '$0 == heading { on = 1; next } /^##/ { on = 0 } on' "$reference"; }

# ---------------------------------------------------------------- tables that repeat the lists of src/region
make -s --no-print-directory docs-check || bad=1

# ---------------------------------------------------------------- settings
settings=$(grep -oE '^\| `pgpool\.[a-z_]+`' "$reference" | grep -oE 'pgpool\.[a-z_]+')
[ "$(wc -w <<<"$settings")" -ge 20 ] || broken "found only these settings in the table of $reference: $settings"
for setting in $(sed -n 's/^### \(pgpool\.[a-z_]*\)$/\1/p' "$reference" | grep -v '^pgpool\.pg_stat_') \
    $(grep -E '^\| `pgpool\.[^|]*\|[^|]*\| (restart|reload)' README.md | cut -d'|' -f2 | grep -oE 'pgpool\.[a-z_]+'); do
    checked=$((checked + 1))
    grep -qx "$setting" <<<"$settings" || broken "a document describes $setting, which does not exist"
done

# ---------------------------------------------------------------- views: the tables have their columns
views=$(sed -n 's/.*CREATE VIEW @extschema@\.\(pg_stat_[a-z]*\).*/\1/p' sql/pgpool.sql.in)
[ -n "$views" ] || broken "found no view in sql/pgpool.sql.in"
for view in $views; do
    checked=$((checked + 1))
    grep -qx "<!-- table $view -->" <(section "pgpool.$view") || broken "$reference has no table $view below \"### pgpool.$view\""
done

# ---------------------------------------------------------------- functions
for function in $(sed -n 's/^CREATE FUNCTION @extschema@\.\([a-z_]*\)(.*/\1/p' sql/pgpool.sql.in); do
    checked=$((checked + 1))
    grep -qE "\`$function\(" "$reference" || broken "$reference does not name $function()"
done

# ---------------------------------------------------------------- files and make targets that the documents name
for document in "${documents[@]}"; do
    [ -f "$document" ] || {
        broken "$document is missing"
        continue
    }
    for file in $(grep -oE '\b(src|dev|test|docs|sql|\.ci)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' "$document" | sort -u); do
        checked=$((checked + 1))
        compgen -G "$file*" >/dev/null || broken "$document names $file, which does not exist"
    done
    for link in $(grep -oE '\]\([^)#]+' "$document" | sed 's/](//' | grep -v '^http' || true); do
        [ -e "$(dirname "$document")/$link" ] || broken "$document links to $link, which does not exist"
    done
    for target in $(grep -oE '(`|^|&& )make [a-z][a-z0-9-]*' "$document" | sed 's/.*make //' | sort -u); do
        grep -qE "^([a-z0-9-]+ )*$target( [a-z0-9-]+)*:" Makefile || broken "$document names make $target, which does not exist"
    done
done

# ---------------------------------------------------------------- functions of the code that the documents name
# Not ours, and a pattern.
foreign='atexit|inet_server_addr|ssl_is_used|made_NAME'
sources=$(mktemp)
trap 'rm -f "$sources"' EXIT
# a declaration or definition is a line of its class, or names it
find src sql test dev -type f \( -name '*.?pp' -o -name '*.in' -o -name '*.p[lm]' -o -name '*.sh' \) -print0 |
    xargs -0 awk 'FNR == 1 { class = "" }
        match($0, /^(class|struct) [A-Za-z]+/) && !/;/ { split(substr($0, RSTART, RLENGTH), word, " "); class = word[2] }
        { print class "\t" $0 }
        /^}/ { class = "" }' >"$sources"
for document in "${documents[@]}"; do
    for name in $(grep -oE '`[A-Za-z_]+(::[A-Za-z_]+)*\(\)' "$document" | grep -oE '[A-Za-z_:]+' | sort -u); do
        checked=$((checked + 1))
        class=${name%%::*} function=${name##*::}
        [[ $function =~ ^($foreign)$ ]] && continue
        if [ "$class" = "$name" ]; then
            grep -qE "\b$function\(" "$sources"
        else
            grep -qE "\b$class::$function\(|^$class"$'\t'".*\b$function\(" "$sources"
        fi || broken "$document names $name(), which does not exist"
    done
done

# ---------------------------------------------------------------- tests that docs/security.md names as what shows a row
while IFS=$'\t' read -r file name; do
    checked=$((checked + 1))
    grep -qF -e "$name" "$file" 2>/dev/null || broken "docs/security.md names the test \"$name\" of $file, which does not exist"
done < <(grep -oE '`test/[^`]+`( "[^"]+",?)+' docs/security.md |
    awk -F'"' '{ gsub(/[` ]/, "", $1); for (i = 2; i <= NF; i += 2) print $1 "\t" $i }')
open=$(grep -oE 'TODO\([0-9a-z]+\)' docs/security.md | sort -u | tr '\n' ' ' || true)
[ -z "$open" ] || echo "docscheck: docs/security.md has yet to name the tests of ${open% }"

[ "$bad" = 0 ] || exit 1
echo "docscheck: $checked settings, columns, functions and files are right"
