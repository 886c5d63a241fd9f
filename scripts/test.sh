#!/bin/sh
# Makes the environment if needed and runs all checks: style, types, tests. Further arguments go to pytest,
# such as `-m "not slow"` or `tests/sparse`.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
sh "$here/scripts/install.sh"
python=${XMASK3D_VENV:-$here/.venv}/bin/python
cd "$here"
"$python" -m ruff check .
"$python" -m mypy xmask3d
exec "$python" -m pytest -q "$@"
