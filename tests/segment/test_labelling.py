"""Labelling: what it refuses to begin with. Its results are compared in `tests/segment/test_segmenter.py`."""

from typing import Any

import pytest

from xmask3d.errors import UserError
from xmask3d.segment.labelling import ScanLabeller


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_no_view_are_refused(batch_size: int) -> None:
    unused: Any = None
    with pytest.raises(UserError, match=f"--batch-size {batch_size}: at least one view at once"):
        ScanLabeller(unused, unused, unused, unused, unused, batch_size=batch_size)
