# Read by other scripts, which set $here: makes XMASK3D_VENV absolute (default: .venv beside this folder) for all that they
# start, installs if need be, and sets $python.

case ${XMASK3D_VENV:=$here/.venv} in
    /*) ;;
    *) XMASK3D_VENV=$PWD/$XMASK3D_VENV ;;
esac
export XMASK3D_VENV
sh "$here/scripts/install.sh"
python=$XMASK3D_VENV/bin/python
