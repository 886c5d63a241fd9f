"""Study of baselines."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tools.studies import baselines
from tools.studies.baselines import METHODS, ClipViews, Distillation, dense_features, patch_of, run_cell, tabulate
from xmask3d.build import build_criterion, build_reader, open_clip_model
from xmask3d.config import load_config
from xmask3d.models.clip import MaskClip
from xmask3d.splits import load_benchmark


@pytest.fixture(scope="module")
def source(tiny: Path) -> ClipViews:
    config = load_config(tiny)
    benchmark = load_benchmark(config.benchmark)
    clip, _ = open_clip_model(config.model.clip)
    return ClipViews(config, benchmark, build_reader(config, benchmark, "train"), MaskClip(clip))


@torch.no_grad()
def test_features_of_patches_are_the_last_layers_values(source: ClipViews) -> None:
    visual, images = source.mask_clip.visual, torch.rand(2, 3, 48, 64)
    features = dense_features(source.mask_clip, source.mask_clip.encode(images))
    assert features.shape == (2, 16, 32)
    # The same by the layer itself, when every token attends to itself alone.
    x = visual.conv1(source.mask_clip.preprocess(images)).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(2, 1, -1), x], 1) + visual.positional_embedding
    block = visual.transformer.resblocks[0]
    normed = block.ln_1(visual.ln_pre(x))
    alone = torch.full((17, 17), -torch.inf).fill_diagonal_(0)
    attended, _ = block.attn(normed, normed, normed, attn_mask=alone)
    torch.testing.assert_close(features, (visual.ln_post(attended) @ visual.proj)[:, 1:], atol=1e-5, rtol=1e-4)
    assert patch_of(torch.tensor([[0, 0], [239, 319], [0, 80], [60, 0]]), (4, 4), (240, 320)).tolist() == [0, 15, 1, 4]


def test_distillation_is_one_minus_cosine_where_a_view_shows_the_point(source: ClipViews, tmp_path: Path) -> None:
    source.write_features(tmp_path)
    scene = source.reader.scene_names[0]
    kept = np.load(tmp_path / f"{scene}.npy")
    norms = np.linalg.norm(kept.astype(np.float32), axis=1)
    assert kept.shape[1] == 32 and np.allclose(norms[norms > 0], 1, atol=1e-2) and 0 < (norms > 0).mean() < 1
    batch, _ = next(source.views(scene))

    class Step:
        voxels = torch.randn(len(batch.points), 32)
        outputs = type("Outputs", (), {"point_to_voxel": torch.arange(len(batch.points))})

    Step.batch = batch
    wanted = torch.from_numpy(kept[batch.point_index]).float()
    expected = (1 - F.cosine_similarity(Step.voxels, wanted, dim=1)).mean()
    torch.testing.assert_close(Distillation(tmp_path).compute(Step), expected, atol=1e-4, rtol=0)


def test_each_method_has_its_losses(tiny: Path) -> None:
    weights = {}
    for name, method in METHODS.items():
        config = load_config(tiny, ["evaluate.votes=soft", *method.changes])
        losses = build_criterion(config, load_benchmark(config.benchmark)).losses
        weights[name] = {loss.name for loss in losses if loss.weight}
    assert weights["points"] == {"point_3d"} and weights["captions"] == {"point_3d", "caption_3d", "binary"}
    assert weights["distillation"] == set() and "binary" in weights["ours"] - weights["unlabelled"]


@pytest.mark.slow
def test_runs_become_rows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = ["train.epochs=1", "evaluate.votes=soft", "evaluate.headlines=[hiou,f_miou]", "seed=3"]
    for name in ("fusion", "distillation"):
        folder = tmp_path / (METHODS[name].folder or name) / "seed-3"
        assert run_cell(name, load_config(tiny, [*fixed, *METHODS[name].changes, f"output={folder}"])) == 0
    text = tabulate(tmp_path, list(METHODS), [3])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [row[0] for row in rows] == [METHODS[name].title for name in ("fusion", "regions", "distillation")]
    assert all(0 <= float(value) <= 100 for row in rows for value in row[2:6])
    assert [row[6] == "–" for row in rows] == [True, True, False]
    monkeypatch.setattr(
        "sys.argv",
        ["baselines", str(tiny), "evaluate.votes=soft", "--methods", "fusion", "--seeds", "3", "--out", str(tmp_path)],
    )
    assert baselines.main() == 0  # nothing left to run
    assert (tmp_path / "baselines.md").read_text().count("OpenScene-2D-like") == 1
