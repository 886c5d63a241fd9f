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
    if [ "$processes" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
        exec "$python" -m xmask3d "$@"
    fi
    if [ "${NNODES:-1}" = 1 ]; then
        set -- --standalone --nproc-per-node "$processes" -m xmask3d "$@"
    else
        set -- --nnodes "$NNODES" --node-rank "${NODE_RANK:?set NODE_RANK to 0 ... NNODES - 1}" \
            --master-addr "${MASTER_ADDR:?set MASTER_ADDR to the first machine}" \
            --master-port "${MASTER_PORT:-29500}" --nproc-per-node "$processes" -m xmask3d "$@"
    fi
    exec "$python" -m xmask3d.cli.launch "$@"
}
