#!/bin/sh
# Downloads data sets, pre-trained networks and furniture by name: sh scripts/download_datasets.sh NAME ...;
# --list prints the names, --help the options. Interrupted, it goes on where it stopped; what is there already is not
# fetched again.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/scripts/venv.sh"
exec "$python" "$here/tools/download.py" datasets "$@"
