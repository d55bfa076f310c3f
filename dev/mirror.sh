#!/bin/bash
# dev/mirror.sh [DIRECTORY] - prints the address of the Debian mirror that this machine uses: MIRROR, if that is given, else
# the first of Debian's own repositories in /etc/apt (or in DIRECTORY, which looks like it).
#
# Owns: nothing. Needs: apt, which reads its files itself, whatever their form.
# Leaves: nothing. Where there is no such repository the last line of standard error says so, and the status is 1.
set -euo pipefail
export LC_ALL=C.UTF-8
if [ -n "${MIRROR:-}" ]; then
    echo "$MIRROR"
    exit 0
fi
etc=${1:-}
command -v apt-get >/dev/null || { echo 'mirror: there is no apt that would know a Debian mirror: MIRROR=http://... names one' >&2 && exit 1; }
# shellcheck disable=SC2016 # the names are apt's
targets() { apt-get ${etc:+-o "Dir::Etc=$etc"} indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' 'Component: main' "$@"; }
# What apt has fetched says whose it is. Before that, on Debian, the suite must do; security updates are no whole mirror.
mirror=$({
    targets 'Origin: Debian' 'Label: Debian'
    ! grep -qx ID=debian /etc/os-release || targets --no-release-info | sed -n '/^[a-z]* /{ /security/!p }'
} | awk '$2 !~ /^(cdrom|file|copy):/ && found == "" { found = $2 } END { print found }')
# a list of mirrors, as the images for clouds have it: any of them
case $mirror in mirror+file:*) mirror=$(grep -m 1 -oE '^https?://[^[:space:]]+' "${mirror#mirror+file:}" || true) ;; esac
[ -n "$mirror" ] || { echo "mirror: no Debian mirror is among the repositories of ${etc:-/etc/apt}: MIRROR=http://... names one" >&2 && exit 1; }
echo "${mirror%/}"
