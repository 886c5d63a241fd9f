#!/bin/sh
# Trains and evaluates the variants that the README compares on Rooms, then prints the table.
# A run that is complete is not repeated. Arguments are overrides for all runs, such as train.epochs=2.
#
#   XMASK3D_CONFIG  configuration (default config/rooms/B15N4.yaml)
#   SEEDS           seeds of the full model (default "1 2 3"); the variants use the first
#   OUT             folder of the runs (default runs/ablation)
#   NPROC           processes of each run, as for scripts/train.sh; 2 suit two CPU cores, with OMP_NUM_THREADS=1
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
sh "$here/scripts/install.sh"
python=${XMASK3D_VENV:-$here/.venv}/bin/python
cd "$here"
config=${XMASK3D_CONFIG:-config/rooms/B15N4.yaml}
out=${OUT:-runs/ablation}
seeds=${SEEDS:-1 2 3}

run() {
    name=$1
    shift
    sh scripts/train.sh "$config" "output=$out/$name" "$@"
    sh scripts/eval.sh "$config" newest "output=$out/$name" "$@"
}

full=
for seed in $seeds; do
    run "full-$seed" "seed=$seed" "$@"
    full="$full,$out/full-$seed"
done
first=${seeds%% *}
run no-regularisation "seed=$first" loss.mask_regularisation=0 "$@"
run no-condition "seed=$first" model.condition=none "$@"
run no-novel-labels "seed=$first" train.novel_supervision=none "$@"
# Point cross entropy on base classes and nothing else: no masks, no captions, no gate.
run baseline "seed=$first" loss.mask_class=0 loss.mask=0 loss.dice=0 loss.point_fused=0 loss.caption_fused=0 \
    loss.caption_3d=0 loss.caption_2d=0 loss.binary=0 loss.mask_regularisation=0 evaluate.gate=none "$@"

"$python" tools/compare.py "full=${full#,}" "no mask regularisation=$out/no-regularisation" \
    "no 3D condition=$out/no-condition" "no novel labels=$out/no-novel-labels" "baseline=$out/baseline"
