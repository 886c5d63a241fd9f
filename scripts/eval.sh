#!/bin/sh
# The hIoU table of a checkpoint on a benchmark: on the console, as JSON, CSV and a bar chart.
#
#   sh scripts/eval.sh CONFIG CHECKPOINT|newest|best [key=value ...] [--scenes NAME ...] [--pictures N] [--out FOLDER]
#
#   NPROC         processes that share the scenes (default: as many as GPUs, at least one)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines, as torchrun knows them
#   MAX_RESTARTS  times that all processes start again by themselves after one was lost (default: 0)
#   XMASK3D_VENV  virtual environment (default: .venv beside this folder, if it is there; else python3)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:---help}" = --help ] || [ "$1" = -h ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
fi
. "$here/scripts/launch.sh"
launch evaluate "$@"
