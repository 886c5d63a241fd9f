#!/bin/sh
# Downloads published checkpoints by name: sh scripts/download_checkpoints.sh NAME ... Interrupted, it resumes where it
# stopped; what is there already is not fetched again.
#
#   --list               prints the names
#   --data FOLDER        where data sets go (default: data/scannet)
#   --pretrained FOLDER  where networks go (default: pretrained)
#   --keep-archives      keeps archives after unpacking
#   --url URL            a mirror to take the one NAME from
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
. "$here/scripts/venv.sh"
exec "$python" -m xmask3d download "$@"
