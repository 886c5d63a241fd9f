#!/bin/sh
# Makes the virtual environment if it is missing and installs xmask3d with a tested set of versions.
# Prints nothing and takes a moment when everything is installed already.
#
#   XMASK3D_VENV         where the environment is (default: .venv beside this folder)
#   XMASK3D_PYTHON       the Python to make it with (default: python3; needs 3.10 or later)
#   XMASK3D_TORCH_INDEX  index to take torch and torchvision from, such as PyTorch's own index of CPU builds
#   XMASK3D_EXTRAS       extras of pyproject.toml to install as well (default: train,rooms,view,plots)
#   XMASK3D_CONSTRAINTS  constraints file (default: scripts/constraints.txt); empty for the newest versions
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
fi
venv=${XMASK3D_VENV:-$here/.venv}
python=${XMASK3D_PYTHON:-python3}
extras=${XMASK3D_EXTRAS:-train,rooms,view,plots}
constraints=${XMASK3D_CONSTRAINTS-$here/scripts/constraints.txt}

if [ ! -x "$venv/bin/python" ]; then
    command -v "$python" >/dev/null 2>&1 || {
        echo "error: no $python found; install Python 3.10 or later, or name one with XMASK3D_PYTHON" >&2
        exit 1
    }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $("$python" --version) is too old; name Python 3.10 or later with XMASK3D_PYTHON" >&2
        exit 1
    }
    echo "Making a virtual environment in $venv" >&2
    "$python" -m venv "$venv" || {
        echo "error: $python cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2
        exit 1
    }
fi

# A stamp for each list of extras holds what was installed: nothing is installed twice, and a change of what the package
# needs is noticed.
wanted=$( (cat "$here/pyproject.toml"; [ -z "$constraints" ] || cat "$constraints"; echo "$here") | cksum)
stamp="$venv/.xmask3d-installed-$extras"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

echo "Installing xmask3d and what it needs (once, a few minutes)" >&2
if [ -n "$constraints" ]; then
    set -- -c "$constraints"
else
    set --
fi
failed() {
    echo "error: the installation failed; installation.md has a section on trouble" >&2
    exit 1
}
if [ -n "${XMASK3D_TORCH_INDEX:-}" ]; then
    # These two alone: an index of PyTorch's builds has other versions of what they need than the tested ones.
    "$venv/bin/python" -m pip install -q --no-deps --index-url "$XMASK3D_TORCH_INDEX" "$@" torch torchvision >&2 ||
        failed
fi
"$venv/bin/python" -m pip install -q --no-warn-script-location "$@" -e "$here[$extras]" >&2 || failed
printf '%s\n' "$wanted" >"$stamp"
