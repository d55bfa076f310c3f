#!/bin/bash
# dev/layercheck.sh - proves the layers of src/ and the rooms in them: an include never points up, the lower ones know
# no library, and no source file is so long that it must own more than one thing.
#
# Owns: $BUILD/layercheck, a directory of poisoned headers. Needs a C++ compiler (CXX); no PostgreSQL, no libuv.
# Leaves: that directory. Says which file broke which rule; status 1 if any did.
#
# Two checks, since each sees what the other does not: a reading of the #include lines (every file, also those
# behind #if), and a compilation of src/region, src/proto and src/core in which <uv.h>, <postgres.h> and <libpq-fe.h> (and
# OpenSSL's headers in core) resolve to a file that stops the compiler, whoever includes them.
set -euo pipefail
cd "$(dirname "$0")/.."
CXX=${CXX:-g++}
dir=${BUILD:-build}/layercheck
most_lines=500 # of a .cpp
bad=0
broken() { echo "layercheck: $*" >&2; bad=1; }

# The rooms of src/core, the lowest first: one may include itself and those before it.
core_rooms=(base account settings routing agent statements context group server pool listening client worker)
# The rooms of src/postgres stand beside each other, on base.
postgres_rooms=(base backend manager functions postmaster worker)

# folder -> the start of what it may include
allowed() {
    local room below='proto|region'
    case $1 in
    proto | region) echo "$1" && return ;;
    core/*)
        for room in "${core_rooms[@]}"; do
            below+="|core/$room"
            [ "core/$room" != "$1" ] || break
        done
        ;;
    net) below+='|core|net' ;;
    postgres/*) below+="|core|net|postgres/base|$1" ;;
    esac
    echo "$below"
}
shopt -s nullglob
files=0
folders=(proto region "${core_rooms[@]/#/core/}" net "${postgres_rooms[@]/#/postgres/}")
for folder in "${folders[@]}"; do
    may=$(allowed "$folder")
    here=(src/"$folder"/*.cpp src/"$folder"/*.hpp)
    [ ${#here[@]} -gt 0 ] || broken "src/$folder is in the list of this script and has no source file"
    case $folder in
    proto | region | core/*) forbidden='(postgres(_fe)?|c|libpq-fe|fmgr|miscadmin|uv)\.h' ;;
    net) forbidden='(postgres(_fe)?|c|fmgr|miscadmin)\.h' ;;
    *) forbidden= ;;
    esac
    for file in "${here[@]}"; do
        files=$((files + 1))
        lines=$(wc -l <"$file")
        [[ $file != *.cpp || $lines -le $most_lines ]] || broken "$file has $lines lines, more than $most_lines"
        while IFS=: read -r line text; do
            broken "$file:$line: src/$folder may not include $text (it may: $may)"
        done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<](proto|region|core|net|postgres)/' "$file" |
            grep -vE "[\"<]($may)/" || true)
        [ -n "$forbidden" ] || continue
        while IFS=: read -r line text; do
            broken "$file:$line: $text: only src/postgres may see PostgreSQL, only src/net and src/postgres libuv"
        done < <(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]${forbidden}[\">]" "$file" || true)
    done
done
while read -r file; do
    broken "$file is in no room that this script knows"
done < <(find src -name '*.[ch]pp' | grep -vE "^src/($(IFS='|' && echo "${folders[*]}"))/[^/]+$" || true)

rm -rf "$dir"
mkdir -p "$dir/libraries" "$dir/openssl-too/openssl"
for header in uv postgres postgres_fe c libpq-fe fmgr miscadmin; do
    echo "#error \"$header.h is not for this layer\"" >"$dir/libraries/$header.h"
done
for header in ssl evp hmac sha rand crypto err md5 bio x509; do
    echo '#error "OpenSSL is not for this layer"' >"$dir/openssl-too/openssl/$header.h"
done
compile() { # file [option]...
    local file=$1
    shift
    "$CXX" -std=c++17 -D_GNU_SOURCE -DPGPOOL_VERSION='"layercheck"' -Isrc -isystem "$dir/libraries" "$@" \
        -fsyntax-only -x c++ -include "$file" /dev/null || broken "$file does not compile by itself without PostgreSQL and libuv"
}
for file in src/region/*.[ch]pp src/proto/*.[ch]pp src/core/*/*.[ch]pp; do
    # a header with a source file of its name is compiled with that
    case $file in *.hpp) [ ! -e "${file%.hpp}.cpp" ] || continue ;; esac
    case $file in
    src/core/*) compile "$file" -isystem "$dir/openssl-too" ;;
    *) compile "$file" ;;
    esac
done
[ $bad = 0 ] || exit 1
echo "layercheck: $files files, all in their layer"
