#!/bin/sh
# Trains and evaluates the variants that docs/results.md compares on Rooms, each with every seed, then prints the table of
# means. A run that is complete is not repeated. Arguments are overrides for all runs, such as train.epochs=2.
#
#   XMASK3D_CONFIG  configuration (default config/rooms/B15N4.yaml)
#   SEEDS           seeds of every variant (default "5557 1 2", those of docs/results.md)
#   OUT             folder of the runs (default runs/ablation)
#   NPROC           processes of each run, as for scripts/train.sh; 2 suit two CPU cores, with OMP_NUM_THREADS=1
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
. "$here/scripts/venv.sh"
cd "$here"
config=${XMASK3D_CONFIG:-config/rooms/B15N4.yaml}
out=${OUT:-runs/ablation}
seeds=${SEEDS:-5557 1 2}

# run NAME OVERRIDE...: with every seed; leaves the folders, joined by commas, in $runs.
run() {
    name=$1
    shift
    runs=
    for seed in $seeds; do
        sh scripts/train.sh "$config" "output=$out/$name-$seed" "seed=$seed" "$@"
        sh scripts/eval.sh "$config" newest "output=$out/$name-$seed" "seed=$seed" "$@"
        runs="$runs,$out/$name-$seed"
    done
    runs=${runs#,}
}

run full "$@"
full=$runs
run no-regularisation loss.mask_regularisation=0 "$@"
no_regularisation=$runs
run no-condition model.condition=none "$@"
no_condition=$runs
run no-novel-labels train.novel_supervision=none "$@"
no_novel_labels=$runs
# Point cross entropy on base classes and nothing else: no masks, no captions, no gate.
run baseline loss.mask_class=0 loss.mask=0 loss.dice=0 loss.point_fused=0 loss.caption_fused=0 \
    loss.caption_3d=0 loss.caption_2d=0 loss.binary=0 loss.mask_regularisation=0 evaluate.gate=none "$@"

"$python" -m xmask3d compare "full=$full" "no mask regularisation=$no_regularisation" \
    "no 3D condition=$no_condition" "no novel labels=$no_novel_labels" "baseline=$runs"
