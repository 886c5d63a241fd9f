# Read by train.sh and eval.sh, which set $here: defines `launch COMMAND ARGUMENTS`, which does not return.

launch() {
    venv=${XMASK3D_VENV:-$here/.venv}
    python=$venv/bin/python
    if [ ! -x "$python" ]; then
        if [ -n "${XMASK3D_VENV:-}" ]; then
            echo "error: no Python in XMASK3D_VENV=$venv; sh scripts/install.sh makes one there" >&2
            exit 1
        fi
        python=python3
        "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' || {
            echo "error: $python has no torch; sh scripts/install.sh makes an environment with all that is needed" >&2
            exit 1
        }
    fi
    export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
    processes=${NPROC:-$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')}
    restarts=${MAX_RESTARTS:-0}
    if [ "$processes" = 1 ] && [ "${NNODES:-1}" = 1 ] && [ "$restarts" = 0 ]; then
        exec "$python" -m xmask3d "$@"
    fi
    set -- --nproc-per-node "$processes" --max-restarts "$restarts" -m xmask3d "$@"
    if [ "${NNODES:-1}" = 1 ]; then
        set -- --standalone "$@"
    else
        # Not torchrun's static rendezvous: by it the other machines do not learn that one starts its processes again.
        : "${NODE_RANK:?set NODE_RANK to 0 ... NNODES - 1}" "${MASTER_ADDR:?set MASTER_ADDR to the first machine}"
        set -- --nnodes "$NNODES" --rdzv-backend c10d --rdzv-id "${SLURM_JOB_ID:-xmask3d}" \
            --rdzv-endpoint "$MASTER_ADDR:${MASTER_PORT:-29500}" --rdzv-conf "is_host=$((NODE_RANK == 0))" "$@"
    fi
    exec "$python" -m xmask3d.cli.launch "$@"
}
