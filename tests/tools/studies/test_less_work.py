"""Study of what less work costs."""

from pathlib import Path

from tools.studies.less_work import SHARES, compare, remember_views
from xmask3d.build import build_model
from xmask3d.config import load_config
from xmask3d.segment.segmenter import Segmenter
from xmask3d.splits import load_benchmark


def test_every_way_is_compared_with_all_views(tiny: Path) -> None:
    config = load_config(tiny)
    assembly, benchmark = build_model(config), load_benchmark(config.benchmark)
    segmenter = Segmenter(assembly.model, assembly.clip_text, config, benchmark, "cpu", batch_size=1)
    forward, looked_at = segmenter._labeller._forward, []

    def count(samples: list, text: object) -> tuple:
        looked_at.append(samples[0].view)
        return forward(samples, text)

    segmenter._labeller._forward = count  # type: ignore[method-assign]
    remember_views(segmenter)
    scene = sorted((config.data.root / "scannet_3d" / "val").glob("*.pth"))[0]
    rows = list(compare({0: segmenter, 64: segmenter}, scene))
    assert [row[0] for row in rows[:1] + rows[-2:]] == ["all views", "--image-size 64", "--fast"]
    assert len(rows) == 3 + len(SHARES) and len(looked_at) == len(set(looked_at)) == rows[0][1]
    assert rows[0][2] == rows[-2][2] == 1.0 and rows[-1][1] == 0
    assert all(0 <= same <= 1 and 0 <= right <= 1 for _, _, same, right in rows)
