#!/bin/bash
# dev/layercheck.sh - proves the layers of src/: an include never points up, and the lower ones know no library.
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
bad=0
broken() { echo "layercheck: $*" >&2; bad=1; }

# folder -> what it may include
allowed() {
    case $1 in
    proto) echo proto ;;
    region) echo region ;;
    core) echo 'core|proto|region' ;;
    net) echo 'net|core|proto|region' ;;
    server) echo 'server|net|core|proto|region' ;;
    esac
}
shopt -s nullglob
files=0
for folder in proto region core net server; do
    for file in src/"$folder"/*.cpp src/"$folder"/*.hpp; do
        files=$((files + 1))
        while IFS=: read -r line text; do
            broken "$file:$line: src/$folder may not include $text (it may: $(allowed $folder))"
        done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<](proto|region|core|net|server)/' "$file" |
            grep -vE "[\"<]($(allowed $folder))/" || true)
        case $folder in
        proto | region | core) forbidden='(postgres(_fe)?|c|libpq-fe|fmgr|miscadmin|uv)\.h' ;;
        net) forbidden='(postgres(_fe)?|c|fmgr|miscadmin)\.h' ;;
        server) continue ;;
        esac
        while IFS=: read -r line text; do
            broken "$file:$line: $text: only src/server may see PostgreSQL, only src/net and src/server libuv"
        done < <(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]${forbidden}[\">]" "$file" || true)
    done
done
[ $files -gt 0 ] || broken "there is no source file"

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
for file in src/region/*.[ch]pp src/proto/*.[ch]pp src/core/*.[ch]pp; do
    # a header with a source file of its name is compiled with that
    case $file in *.hpp) [ ! -e "${file%.hpp}.cpp" ] || continue ;; esac
    case $file in
    src/core/*) compile "$file" -isystem "$dir/openssl-too" ;;
    *) compile "$file" ;;
    esac
done
[ $bad = 0 ] || exit 1
echo "layercheck: $files files, all in their layer"
