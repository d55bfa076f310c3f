#!/bin/bash
# dev/docscheck.sh - the documentation has what the code has, and names nothing that does not exist.
#
# Owns: nothing. Needs bash, grep, sed, awk; no server, no build. Leaves nothing.
# Fails when docs/reference.md lacks a setting of src/server/settings.cpp or gives another default; a view or one of its
# columns; a function; or when a document names a file, a make target or a test (`file` "name", "name") that is not there.
# Status 1, one line each.
# shellcheck disable=SC2013,SC2016 # no word of these lists has a blank; the backquotes are Markdown's
set -euo pipefail
cd "$(dirname "$0")/.."
reference=docs/reference.md
documents=(README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs/*.md src/core/README.md)
bad=0 checked=0
broken() {
    echo "docscheck: $*" >&2
    bad=1
}
# section HEADING: the lines below "### HEADING" up to the next heading
section() { awk -v heading="### $1" '$0 == heading { on = 1; next } /^##/ { on = 0 } on' "$reference"; }
setting_text() { tr '\n' ' ' <src/server/settings.cpp; }

# ---------------------------------------------------------------- settings
settings=$(grep -oE '"pgpool\.[a-z_]+", *("|$)' src/server/settings.cpp | grep -oE 'pgpool\.[a-z_]+' | sort -u)
[ "$(wc -w <<<"$settings")" -ge 20 ] || broken "found only these settings in src/server/settings.cpp: $settings"
for setting in $settings; do
    checked=$((checked + 1))
    text=$(section "$setting")
    [ -n "$text" ] || broken "$reference has no \"### $setting\""
    grep -qE '(Restart|Reload)' <<<"$text" || broken "$reference does not say how to change $setting"
    # {"name", "text", "more" or nullptr, &variable, preset, ...}
    preset=$(setting_text | grep -oE "\"$setting\", [^&]*&gucs\.[a-z_]+, *[A-Za-z0-9]+" | sed 's/.*, *//' || true)
    case $preset in
    '') ;; # not an integer
    kHour) grep -q 'Default 3600' <<<"$text" || broken "$reference: the default of $setting is 3600" ;;
    *[!0-9]*) ;; # a string or a boolean
    *) [ "$setting" = pgpool.default_pool_mode ] || grep -qiE "Default \`?$preset\b" <<<"$text" || broken "$reference: the default of $setting is $preset" ;;
    esac
    short=${setting/#pgpool.tcp_keepalives/} # README has these three in one row
    grep -qE "\`($setting|$short)\`" README.md || broken "README.md does not name $setting"
done
for setting in $(sed -n 's/^### \(pgpool\.[a-z_]*\)$/\1/p' "$reference" | grep -v '^pgpool\.pg_stat_'); do
    grep -qx "$setting" <<<"$settings" || broken "$reference documents $setting, which does not exist"
done

# ---------------------------------------------------------------- views: CREATE VIEW ... FROM stat_x(), whose OUT arguments are columns
views=$(sed -n 's/.*CREATE VIEW @extschema@\.\(pg_stat_[a-z]*\).*/\1/p' sql/pgpool.sql)
[ -n "$views" ] || broken "found no view in sql/pgpool.sql"
for view in $views; do
    text=$(section "pgpool.$view")
    [ -n "$text" ] || broken "$reference has no \"### pgpool.$view\""
    columns=$(tr '\n' ' ' <sql/pgpool.sql | grep -oE "CREATE FUNCTION @extschema@\.${view#pg_}\(([^()]|\([^)]*\))*\)" |
        grep -oE 'OUT [a-z_]+' | sed 's/OUT //')
    # and what the view itself adds
    columns+=$(tr '\n' ' ' <sql/pgpool.sql | grep -oE "CREATE VIEW @extschema@\.$view [^;]*;" |
        sed -n 's/.*END AS \([a-z_]*\) .*/\n\1/p')
    [ -n "$columns" ] || broken "found no column of $view in sql/pgpool.sql"
    for column in $columns; do
        checked=$((checked + 1))
        grep -qE "^\|[^|]*\`$column\`" <<<"$text" || broken "$reference has no column $column of pgpool.$view"
    done
    for column in $(grep -oE '^\|[^|]*\|' <<<"$text" | grep -oE '`[a-z_]+`' | tr -d '`'); do
        grep -qx "$column" <<<"$columns" || broken "$reference documents column $column of pgpool.$view, which does not exist"
    done
done

# ---------------------------------------------------------------- functions
for function in $(sed -n 's/^CREATE FUNCTION @extschema@\.\([a-z_]*\)(.*/\1/p' sql/pgpool.sql); do
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
