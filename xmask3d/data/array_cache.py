"""Arrays that are computed once and kept on disk."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xmask3d.files import atomic_write
from xmask3d.seal import is_whole_cache, sealed

log = logging.getLogger(__name__)


def cached_array(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array that `path` holds, or compute and store it there if the file is missing or damaged."""
    try:
        if is_whole_cache(path):
            return np.load(path, allow_pickle=False)
        log.warning("%s: damaged, computing it again", path)
    except OSError:  # no result on disk yet
        pass
    found = compute()
    atomic_write(path, sealed(lambda part: np.save(part, found)), sync=False)
    return found
