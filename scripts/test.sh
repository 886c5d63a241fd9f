#!/bin/sh
# Makes the environment if needed and runs all checks: style, types, tests. Further arguments go to pytest,
# such as `-m "not slow"` or `tests/sparse`.
#
#   XMASK3D_TEST_PROCESSES  processes that share the tests (default: as many as cores, at most 4; each takes up to 6 GiB)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
export XMASK3D_EXTRAS=dev
. "$here/scripts/venv.sh"
cd "$here"
"$python" -m ruff check .
"$python" -m ruff format --check --quiet .
"$python" -m mypy xmask3d
# A core each: torch's threads would only wait for one another.
processes=${XMASK3D_TEST_PROCESSES:-$("$python" -c 'import os; print(min(os.cpu_count() or 1, 4))')}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m pytest -q -n "$processes" --dist loadfile --no-loadscope-reorder "$@"
