#!/bin/sh
# Build MinkowskiEngine 0.5.4 from its PyPI source release, for the optional back end `sparse.backend: minkowski`.
#
#   sh scripts/install_minkowski.sh [--into DIR] [--python PYTHON] [--torch VERSION] [--cuda | --cpu] [--jobs N]
#
# --into DIR        environment to make or use (default: .venv-minkowski). Name .venv to build into the project's own.
# --python PYTHON   interpreter of a new environment, 3.8 to 3.11: the build needs a setuptools that 3.12 no longer runs
# --torch VERSION   torch of a new environment (default: what pip chooses); an existing torch is kept
# --cuda, --cpu     build for a GPU (needs nvcc) or not (default: what torch.cuda.is_available() says)
# --jobs N          compilers side by side (default 1; each needs about 2 GB). About 10 minutes of one core for the CPU.
#
# OpenBLAS with its headers is taken from the system, or else fetched by apt-get and unpacked inside DIR, without root.
set -eu

version=0.5.4
into=.venv-minkowski
python=
torch=torch
target=
jobs=1

fail() { echo "error: $1" >&2; exit 1; }

while [ $# -gt 0 ]; do
    case "$1" in
        --into|--python|--torch|--jobs) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case "$1" in
        --into) into=$2; shift 2 ;;
        --python) python=$2; shift 2 ;;
        --torch) torch="torch==$2"; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        --cuda) target=cuda; shift ;;
        --cpu) target=cpu; shift ;;
        -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument '$1' (see --help)" ;;
    esac
done

find_python() {
    if [ -n "$python" ]; then
        set -- "$python"
    else
        set -- python3.11 python3.10 python3.9 python3.8 python3
    fi
    for candidate in "$@"; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info < (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        [ -z "$python" ] || fail "$python is not a Python 3.8 to 3.11"
    done
    fail "no Python 3.8 to 3.11 found; name one with --python"
}

command -v g++ >/dev/null || fail "g++ not found; install a C++ compiler (Debian: apt-get install g++)"
if [ ! -x "$into/bin/python" ]; then
    python=$(find_python)
    "$python" -m venv "$into" || fail "cannot make the environment $into"
fi
into=$(cd "$into" && pwd)
python="$into/bin/python"
"$python" -c 'import sys; sys.exit(not sys.version_info < (3, 12))' ||
    fail "$into has Python 3.12 or newer; the build needs 3.8 to 3.11"
if "$python" -c 'import MinkowskiEngine' 2>/dev/null; then
    echo "MinkowskiEngine is already in $into"
    exit 0
fi

"$python" -c 'import torch' 2>/dev/null || "$python" -m pip install -q "$torch"
"$python" -m pip install -q "numpy<2" wheel ninja
# Afterwards, since torch asks for a newer one that the release's setup.py cannot use; put back at the end.
newer_setuptools=$("$python" -c 'import setuptools; print(setuptools.__version__)' 2>/dev/null || echo "")
"$python" -m pip install -q "setuptools<60" 2>/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
# setup.py runs `pip uninstall MinkowskiEngine` with the first pip on the path: let it find one that does nothing.
mkdir "$work/bin"
printf '#!/bin/sh\nexit 0\n' > "$work/bin/pip"
chmod +x "$work/bin/pip"
PATH="$work/bin:$into/bin:$PATH"
export PATH

# OpenBLAS: from the system where the compiler finds it, else from Debian's packages into the environment.
if ! printf '#include <cblas.h>\nint main() { return cblas_sgemm == 0; }' |
    g++ -x c++ - -o "$work/probe" -lopenblas 2>/dev/null; then
    blas="$into/openblas"
    if [ ! -d "$blas" ]; then
        command -v apt-get >/dev/null || fail "OpenBLAS with headers not found; install it (Debian: libopenblas-dev)"
        (cd "$work" && apt-get download -qq libopenblas-pthread-dev libopenblas0-pthread libgfortran5 libquadmath0 2>/dev/null) ||
            fail "cannot fetch OpenBLAS with apt-get; install libopenblas-dev and run again"
        mkdir "$blas"
        for package in "$work"/*.deb; do dpkg -x "$package" "$blas"; done
    fi
    include=$(dirname "$(find "$blas" -name cblas.h | head -n 1)")
    library=$(dirname "$(find "$blas" -name libopenblas.so | head -n 1)")
    runtime=$(dirname "$(find "$blas" -name 'libgfortran.so.5' | head -n 1)")
    export CPLUS_INCLUDE_PATH="$include${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}"
    export LIBRARY_PATH="$library:$runtime${LIBRARY_PATH:+:$LIBRARY_PATH}"
    export LDFLAGS="-L$library -Wl,--disable-new-dtags,-rpath,$library:$runtime ${LDFLAGS:-}"
    # numpy.distutils looks here while pip reads the metadata of the release.
    export OPENBLAS="$library"
fi

echo "fetching MinkowskiEngine $version"
"$python" -m pip download -q --no-deps --no-binary MinkowskiEngine --no-build-isolation -d "$work" "MinkowskiEngine==$version"
tar -xzf "$work/MinkowskiEngine-$version.tar.gz" -C "$work"
cd "$work/MinkowskiEngine-$version"
# The abstract classes left `collections` in Python 3.10.
grep -rl '^from collections import Sequence' MinkowskiEngine | while read -r file; do
    sed -i -e 's/^from collections import Sequence, namedtuple/from collections import namedtuple\nfrom collections.abc import Sequence/' \
        -e 's/^from collections import Sequence$/from collections.abc import Sequence/' "$file"
done

case "$target" in
    cuda) option=--force_cuda ;;
    cpu) option=--cpu_only ;;
    *) option= ;;
esac
echo "building with $jobs job(s); this takes about 10 minutes"
log="$into/minkowski-build.log"
if ! MAX_JOBS=$jobs "$python" setup.py $option --blas=openblas bdist_wheel > "$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "the build failed; the whole log is in $log"
fi
"$python" -m pip install -q --no-deps dist/*.whl
cd /
if [ -n "$newer_setuptools" ]; then "$python" -m pip install -q "setuptools==$newer_setuptools" 2>/dev/null || true; fi
"$python" -c 'import torch, MinkowskiEngine as M; print("MinkowskiEngine", M.__version__, "with torch", torch.__version__)' ||
    fail "MinkowskiEngine was built but cannot be imported; see $log"
echo "use it with: $python"
