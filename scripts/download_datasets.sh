#!/bin/sh
# Downloads data sets, pre-trained networks and furniture by name: sh scripts/download_datasets.sh NAME ...; --list prints the names,
# --help the options. Interrupted, it goes on where it stopped; what is there already is not fetched again.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
sh "$here/scripts/install.sh"
exec "${XMASK3D_VENV:-$here/.venv}/bin/python" "$here/tools/download.py" datasets "$@"
