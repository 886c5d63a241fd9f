#!/bin/sh
# From a fresh clone to a trained model, an hIoU table and pictures: no GPU, no data set, no gated download.
# Run again, it installs nothing twice, keeps the rooms, resumes the training or reports the finished run.
#
#   XMASK3D_CONFIG  configuration (default config/rooms/B15N4.yaml); arguments are overrides, such as train.epochs=2
#   XMASK3D_ROOMS   arguments of xmask3d rooms (default: those the configuration was tuned for)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
. "$here/scripts/venv.sh"
cd "$here"
exec "$python" -m xmask3d quickstart "${XMASK3D_CONFIG:-config/rooms/B15N4.yaml}" "$@"
