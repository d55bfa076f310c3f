#!/bin/bash
# dev/format.sh check|fix|tidy - the form of the C++ sources: clang-format, and clang-tidy for what it cannot see.
#
# Owns: nothing. Needs clang-format 14 (another version lays out some lines in another way, so only 14 decides;
#       CLANG_FORMAT names the program) or clang-tidy. Leaves nothing; `fix` rewrites sources in place.
# Status 3 means: the tool is missing or of another version (dev/check.sh counts that as skipped).
set -euo pipefail
cd "$(dirname "$0")/.."
version=14

find_tool() { # clang-format or clang-tidy
    local tool
    for tool in "$1-$version" "$1"; do
        if command -v "$tool" >/dev/null && "$tool" --version | grep -qE "version $version\."; then
            echo "$tool"
            return
        fi
    done
    echo "format: $1 $version is missing: apt-get install $1-$version" >&2
    exit 3
}
mapfile -t files < <(find src sql test dev -name '*.cpp' -o -name '*.hpp' | sort)
case ${1:-check} in
check | fix)
    tool=${CLANG_FORMAT:-$(find_tool clang-format)} || exit $?
    if [ "$1" = fix ]; then
        "$tool" -i "${files[@]}"
    elif ! "$tool" --dry-run -Werror --ferror-limit=3 "${files[@]}"; then
        echo 'format: the files above differ from .clang-format; make format mends them' >&2
        exit 1
    fi
    echo "format: ${#files[@]} files"
    ;;
tidy)
    tool=$(find_tool clang-tidy) || exit $?
    include=$("${PG_CONFIG:-pg_config}" --includedir-server)
    mapfile -t sources < <(find src -name '*.cpp' | sort)
    "$tool" --quiet "${sources[@]}" -- -std=c++17 -D_GNU_SOURCE -DPGPOOL_VERSION='""' -Isrc -isystem "$include"
    ;;
*)
    echo 'usage: dev/format.sh check|fix|tidy' >&2
    exit 2
    ;;
esac
