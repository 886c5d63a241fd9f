#!/bin/sh
# Trains and evaluates the variants that docs/results.md compares on Rooms, each with every seed, then prints the table of
# means. What is complete is not repeated. Arguments are overrides for all runs, such as train.epochs=2.
#
#   XMASK3D_CONFIG  configuration (default rooms/B15N4)
#   SEEDS           seeds of every variant (default 5557,1,2, those of docs/results.md)
#   OUT             folder of the runs (default runs/ablation)
#   NPROC           processes of each run, as for scripts/train.sh; 2 suit two CPU cores, with OMP_NUM_THREADS=1
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
. "$here/scripts/launch.sh"
# The last: point cross entropy on base classes and nothing else, no masks, no captions, no gate.
launch ablate "${XMASK3D_CONFIG:-rooms/B15N4}" "$@" --seeds "${SEEDS:-5557,1,2}" --out "${OUT:-runs/ablation}" \
    --variant full \
    --variant no-regularisation loss.mask_regularisation=0 \
    --variant no-condition model.condition=none \
    --variant no-novel-labels train.novel_supervision=none \
    --variant baseline loss.mask_class=0 loss.mask=0 loss.dice=0 loss.point_fused=0 loss.caption_fused=0 \
    loss.caption_3d=0 loss.caption_2d=0 loss.binary=0 loss.mask_regularisation=0 evaluate.gate=none
