#!/bin/sh
#SBATCH --job-name=xmask3d
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=xmask3d-%j.log
# Train, or resume, the run of a configuration under SLURM: one process per GPU, on one machine or several.
#
#   sbatch scripts/slurm_train.sh CONFIG [key=value ...]                            in the repository
#   sbatch --nodes=2 --gpus-per-node=8 --time=48:00:00 scripts/slurm_train.sh CONFIG    in place of the lines above
#
# Five minutes before its time is up SLURM sends SIGTERM: the run saves, the job is queued again and resumes. A process
# that is lost is started again, with all others, from the newest checkpoint; train.save_minutes says how old that is.
#
#   MAX_RESTARTS  how often, in one job (default: 3)
#   XMASK3D_HOME  the repository (default: the folder in which sbatch was called); also all variables of train.sh
set -eu
if [ "${1:---help}" = --help ] || [ "$1" = -h ]; then
    sed -n '12,21s/^# \{0,1\}//p' "$0"
    exit 0
fi
here=${XMASK3D_HOME:-${SLURM_SUBMIT_DIR:-$PWD}} # SLURM runs a copy of this file from elsewhere
if [ ! -f "$here/scripts/train.sh" ]; then
    echo "error: $here is not the repository; call sbatch there, or set XMASK3D_HOME" >&2
    exit 1
fi
export here MAX_RESTARTS="${MAX_RESTARTS:-3}" NNODES="${SLURM_JOB_NUM_NODES:-1}"
export MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
code=0
# One task a machine; torchrun starts the processes there. A machine that has stopped must not end one that still saves.
# shellcheck disable=SC2016  # $SLURM_NODEID is the task's own
srun --kill-on-bad-exit=0 sh -c 'export NODE_RANK=$SLURM_NODEID; exec sh "$here/scripts/train.sh" "$@"' train "$@" ||
    code=$?
# A job that its user cancels ends with 143 too, but is not running any more.
if [ "$code" = 143 ] && [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then
    echo "saved when time was up; the job is queued again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
