"""Study of what a training reads: scenes are decoded again without a cache, once and by one process with one."""

from pathlib import Path

import pytest

from tools.studies.reads import Reads, Watch, epoch_reads, table
from xmask3d.config import load_config
from xmask3d.data.scannet import ScanNetReader


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def opened(reads: list[list[Reads]], kind: str) -> list[list[int]]:
    """Different files of a kind that were opened, by epoch and process."""
    return [[len(process.files[kind]) for process in epoch] for epoch in reads]


def test_files_and_bytes_of_two_epochs(
    tiny: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(tiny)  # two scenes of two views, eight samples an epoch
    scenes = sum(path.stat().st_size for path in Path(config.data.root).glob("scannet_3d/train/*.pth"))
    reads = epoch_reads(config, 2, 1, 2, watch)
    assert opened(reads, "scene") == [[2, 2], [0, 0]]  # they fit into memory; a loader that lives on keeps them
    assert min(process.bytes for process in reads[0]) > max(scenes, *(process.bytes for process in reads[1]))
    assert all(min(epoch) > 0 for epoch in opened(reads, "colour"))
    first, *lines = table(reads).splitlines()
    assert first.endswith("different files opened") and len(lines) == 4 and lines[0].endswith("scene 2")
    monkeypatch.setitem(ScanNetReader.__init__.__kwdefaults__, "keep_points", 0)  # as of a data set that does not fit
    reads = epoch_reads(config, 2, 1, 2, watch)
    assert all(process.bytes > 1.9 * scenes for epoch in reads for process in epoch)  # once a sample, of four
    reads = epoch_reads(load_config(tiny, [f"data.cache={tmp_path}"]), 2, 2, 2, watch)
    assert opened(reads, "scene") == [[2, 0], [0, 0]]  # by the first that needs it, for all of the machine
    assert sum(map(sum, opened(reads, "depth"))) <= 4  # once a view
