"""Whole-scene evaluation: votes, fill, tables, sharing of scenes, going on after a stop."""

import csv
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.helpers.command import run_command
from tests.helpers.runs import evaluate_run, run
from xmask3d.build import build_reader, evaluation_settings, label_settings
from xmask3d.config import load_config
from xmask3d.data.batch import Batch, collate
from xmask3d.data.files import read_points, write_points
from xmask3d.engine.evaluate import evaluate, evaluate_scene
from xmask3d.engine.evaluation_key import digest_of_sources, settings_of
from xmask3d.engine.results import SceneResult
from xmask3d.errors import UserError
from xmask3d.geometry.superpoints import superpoints
from xmask3d.inference.class_scores import ViewLabels
from xmask3d.inference.settings import LabelSettings
from xmask3d.inference.votes import SceneVotes
from xmask3d.models.diffusion import DiffusionFeatures, EncodedImages
from xmask3d.models.loading import diffusion_weights
from xmask3d.open_model import open_labeller
from xmask3d.splits import load_benchmark
from xmask3d.weights import clip_folder, diffusion_folder

SAME = ["train.ema=0.9"]


@pytest.fixture(scope="session")
def evaluated(tiny: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an evaluation by one process."""
    output = tmp_path_factory.mktemp("evaluated")
    assert run(evaluate_run, tiny, SAME, finished / "checkpoints" / "step-00000008.pt", output) == 0
    return next(output.iterdir())


def scores_of(folder: Path) -> dict:
    content = json.loads((folder / "results.json").read_text())
    wanted = ("scores", "binary_head", "classes", "views", "points", "unseen_points", "scenes")
    return {key: content[key] for key in wanted}


def test_files_of_an_evaluation(evaluated: Path, finished: Path) -> None:
    content = json.loads((evaluated / "results.json").read_text())
    assert content["benchmark"] == "scannet20/B15N4" and content["protocol"] == "default"
    assert content["scenes"] == ["scene0002_00", "scene0003_00"] and content["views"] == 4
    assert (finished / "checkpoints" / "step-00000008.pt.sha256").read_text().startswith(content["checkpoint_sha256"])
    assert {"xmask3d", "torch", "numpy", "python"} <= content["versions"].keys()
    with open(evaluated / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19 and [row["class"] for row in rows[-4:]] == ["sofa", "bookshelf", "desk", "toilet"]
    assert float(rows[0]["iou_fused"]) == content["classes"][0]["iou_fused"]
    table = (evaluated / "results.txt").read_text()
    assert "hIoU" in table and "binary head" in table and "bookshelf" in table


def test_the_table_sums_up_the_scenes(evaluated: Path, tiny: Path) -> None:
    """IoU from the saved labels by plain numpy."""
    config = load_config(tiny)
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    predicted, truth = [], []
    for name in reader.scene_names:
        result = SceneResult.load(evaluated / "scenes" / f"{name}.npz")
        assert result is not None and (result.labels["fused"] >= 0).all()  # every point is filled
        assert ((result.confidence > 0).sum() == len(result.confidence) - result.unseen) and result.unseen > 0
        predicted.append(result.labels["3d"].astype(int))
        truth.append(reader.read_scene(name).labels)
    predicted, truth = np.concatenate(predicted), np.concatenate(truth)
    known = truth < benchmark.num_classes
    iou = []
    for k in range(benchmark.num_classes):
        p, t = (predicted == k) & known, truth == k
        iou.append((p & t).sum() / max(1, (p | t).sum()))
    scores = scores_of(evaluated)["scores"]["3d"]
    assert scores["iou"] == pytest.approx(iou) and max(iou) > 0
    base, novel = np.mean([iou[i] for i in benchmark.base]), np.mean([iou[i] for i in benchmark.novel])
    assert scores["miou_base"] == pytest.approx(base) and scores["miou_novel"] == pytest.approx(novel)


def test_two_processes_give_the_same_table(evaluated: Path, tiny: Path, finished: Path, tmp_path: Path) -> None:
    checkpoint = finished / "checkpoints" / "step-00000008.pt"
    assert run(evaluate_run, tiny, SAME, checkpoint, tmp_path, processes=2) == 0
    assert scores_of(tmp_path / evaluated.name) == scores_of(evaluated)
    for path in (evaluated / "scenes").iterdir():
        first, second = SceneResult.load(path), SceneResult.load(tmp_path / evaluated.name / "scenes" / path.name)
        assert first is not None and second is not None
        assert all(np.array_equal(first.labels[branch], second.labels[branch]) for branch in first.labels)


def test_shares_that_know_nothing_of_one_another_give_the_same_table(
    evaluated: Path, tiny: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tasks of a SLURM array, one after the other, by the command."""
    command = ["evaluate", tiny, finished / "checkpoints" / "step-00000008.pt", *SAME, "--out", tmp_path, "--share"]
    assert run_command(*command, "1/2") == 0
    assert "1 of 2 scenes are left to other shares" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.rglob("*.npz")] == ["scene0003_00.npz"] and not (
        folder / "results.txt"
    ).exists()
    assert run_command(*command, "0/2") == 0
    assert "hIoU" in capsys.readouterr().out and scores_of(folder) == scores_of(evaluated)
    assert run_command(*command, "2/2") == 1
    assert "--share 2/2: expected K/N with K from 0 to N - 1" in capsys.readouterr().err


def test_it_goes_on_where_it_was_stopped(evaluated: Path, tiny: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / evaluated.name
    shutil.copytree(evaluated, folder)
    kept, damaged = sorted((folder / "scenes").iterdir())
    before = kept.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:100])
    config = load_config(tiny, SAME)
    results = evaluate(config, finished / "checkpoints" / "step-00000008.pt", output=tmp_path)
    assert results is not None and results.folder == folder
    assert kept.stat().st_mtime_ns == before and SceneResult.load(damaged) is not None
    assert scores_of(folder) == scores_of(evaluated)
    # Other settings have another folder.
    other = load_config(tiny, [*SAME, "evaluate.rotations=2", "evaluate.max_views=1"])
    results = evaluate(other, finished / "checkpoints" / "step-00000008.pt", ["scene0003_00"], output=tmp_path)
    assert results is not None and results.folder != folder and results.views == 2
    assert not (results.folder / "results.json").exists() and len(list(results.folder.glob("results-*.json"))) == 1


@pytest.mark.parametrize("hours", [1, 0, -1])
def test_a_scene_made_again_is_evaluated_again_whatever_the_clock_says(
    hours: int, evaluated: Path, tiny: Path, finished: Path, tmp_path: Path
) -> None:
    data, checkpoint = tmp_path / "data", finished / "checkpoints" / "step-00000008.pt"
    shutil.copytree(load_config(tiny).data.root, data)
    config = load_config(tiny, [*SAME, f"data.root={data}"])
    results = evaluate(config, checkpoint, output=tmp_path / "out")
    assert results is not None
    again, kept = sorted((results.folder / "scenes").iterdir())
    before = [path.stat().st_ino for path in (again, kept)]
    changed = data / "scannet_3d" / "val" / f"{again.stem}_vh_clean_2.pth"
    time = changed.stat().st_mtime_ns + 3600 * 10**9 * hours
    os.utime(changed, ns=(time, time))
    evaluate(config, checkpoint, output=tmp_path / "out")
    assert again.stat().st_ino != before[0] and kept.stat().st_ino == before[1]
    assert scores_of(results.folder) == scores_of(evaluated)
    evaluate(config, checkpoint, output=tmp_path / "out")
    assert kept.stat().st_ino == before[1]  # a time in the future does not make it evaluate without end


def test_scenes_without_frames_are_refused_and_later_ones_taken_in(
    evaluated: Path, tiny: Path, finished: Path, tmp_path: Path
) -> None:
    config = load_config(tiny, SAME)
    data, checkpoint = tmp_path / "data", finished / "checkpoints" / "step-00000008.pt"
    shutil.copytree(config.data.root, data)
    frames = data / "scannet_2d" / "scene0002_00"
    frames.rename(tmp_path / "elsewhere")
    config = load_config(tiny, [*SAME, f"data.root={data}", "data.cache=null"])
    with pytest.raises(UserError, match="scene scene0002_00 has no frames"):
        evaluate(config, checkpoint, output=tmp_path)
    (tmp_path / "elsewhere").rename(frames)
    results = evaluate(config, checkpoint, output=tmp_path)
    assert results is not None and scores_of(results.folder) == scores_of(evaluated)
    # A frame more, and the scene is labelled again.
    before = (results.folder / "scenes" / "scene0002_00.npz").stat().st_mtime_ns
    shutil.copy(frames / "color" / "0.jpg", frames / "color" / "1.jpg")
    assert evaluate(config, checkpoint, output=tmp_path) is not None
    assert (results.folder / "scenes" / "scene0002_00.npz").stat().st_mtime_ns > before


def test_objects_are_written_and_scored(
    tiny: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, checkpoint = tmp_path / "data", finished / "checkpoints" / "step-00000008.pt"
    shutil.copytree(load_config(tiny).data.root, data)
    asked = [tiny, checkpoint, *SAME, f"data.root={data}", "evaluate.instances=true", "--out", tmp_path / "out"]
    assert run_command("evaluate", *asked) == 0
    assert "instance_gt/val: no such folder" in capsys.readouterr().out
    (folder,) = (tmp_path / "out").iterdir()
    (data / "instance_gt" / "val").mkdir(parents=True)
    benchmark = load_benchmark("scannet20/B15N4")
    ids = np.array([*benchmark.file_ids_2d, 0])
    for name in ("scene0002_00", "scene0003_00"):
        result = SceneResult.load(folder / "scenes" / f"{name}.npz")
        assert result is not None and result.objects is not None
        found = result.objects
        assert len(found.classes) == found.of_point.max() + 1 > 1
        index = (folder / "predictions" / "instance" / f"{name}.txt").read_text().split()
        assert index[1::3] == [str(value) for value in ids[found.classes]]
        # A truth that equals what was found scores full marks.
        truth = np.where(found.of_point >= 0, ids[found.classes][found.of_point] * 1000 + found.of_point + 1, 0)
        (data / "instance_gt" / "val" / f"{name}.txt").write_text("\n".join(map(str, truth)))
    assert run_command("evaluate", *asked) == 0
    assert "2 of 2 scenes are done already" in capsys.readouterr().out
    content = json.loads((folder / "predictions" / "scores" / "results.json").read_text())
    headlines = {name: value for name, value in content["headlines"].items() if name in ("ap", "ap50", "ap25")}
    assert set(headlines.values()) <= {1.0, None} and content["scenes"] == ["scene0002_00", "scene0003_00"]
    assert content["separation"] == {"masks_that_merge_objects": 0, "objects_that_are_split": 0}
    assert content["headlines"]["miou_all"] == pytest.approx(scores_of(folder)["scores"]["fused"]["miou"])
    assert "instances" not in json.loads(settings_of(load_config(tiny), benchmark))["evaluate"]


def test_settings_that_matter_change_the_digest(tiny: Path) -> None:
    benchmark = load_benchmark("scannet20/B15N4")

    def digest(*overrides: str) -> str:
        return settings_of(load_config(tiny, list(overrides)), benchmark)

    assert digest() == digest("evaluate.workers=3", "train.epochs=7", "output=x", "seed=3")
    assert (
        len({digest(), digest("evaluate.base_ratio=0.5"), digest("protocol=reference"), digest("data.border=3")}) == 4
    )


def test_other_frozen_weights_frames_and_programs_change_the_key(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / "weights" / name for name in ("clip", "diffusion")}
    for name, source in (("clip", clip_folder()), ("diffusion", diffusion_folder())):
        shutil.copytree(source, folders[name])
    data = tmp_path / "data"
    shutil.copytree(load_config(tiny).data.root, data)
    own = [f"model.{name}={folder}" for name, folder in folders.items()]
    config = load_config(tiny, [*own, f"data.root={data}", f"data.captions={data / 'captions.json'}",
                                "model.condition=text", "evaluate.condition_text=captions"])  # fmt: skip
    benchmark = load_benchmark(config.benchmark)
    keys = [settings_of(config, benchmark)]
    assert keys[0] == settings_of(config, benchmark)
    for file in (folders["clip"] / "model.safetensors", folders["clip"] / "tokenizer_vocabulary.json",
                 *sorted(folders["diffusion"].rglob("*.safetensors")), data / "captions.json"):  # fmt: skip
        file.write_bytes(file.read_bytes() + b" ")
        keys.append(settings_of(config, benchmark))
    monkeypatch.setattr("xmask3d.engine.evaluation_key.__version__", "0.0")
    keys.append(settings_of(config, benchmark))
    assert len(set(keys)) == len(keys) >= 7
    reader = build_reader(config, benchmark, "val")
    before = digest_of_sources(reader, "scene0002_00")
    frame = next((data / "scannet_2d" / "scene0002_00" / "color").iterdir())
    frame.write_bytes(frame.read_bytes())  # in place: no folder shows it
    assert digest_of_sources(reader, "scene0002_00") != before


def test_weights_of_a_backbone_and_of_the_hub_change_the_key(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, benchmark = tmp_path / "vit.safetensors", load_benchmark("scannet20/B15N4")
    backbone = load_config(tiny, ["model.image_features=timm", f"model.image_features_options={{weights: {weights}}}"])
    snapshot = tmp_path / "snapshot" / "unet" / "config.json"
    snapshot.parent.mkdir(parents=True)
    monkeypatch.setattr(diffusion_weights, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    of_hub = load_config(tiny, ["model.diffusion=somebody/stable-diffusion-2-1"])
    for config, file in ((backbone, weights), (of_hub, snapshot)):
        keys = set()
        for content in (b"{}", b"{ }"):
            file.write_bytes(content)
            keys.add(settings_of(config, benchmark))
        assert len(keys) == 2, file


class Oracle:
    """Stands in for a labeller: knows the truth, and errs where told to."""

    settings = LabelSettings()

    def encode(self, batch: Batch) -> None:
        """Needs no picture."""

    def __call__(self, batch: Batch, encodings: None) -> tuple[SimpleNamespace, ViewLabels]:
        classes = batch.classes.clamp(max=18)
        wrong = (classes + 1) % 19
        unknown = torch.full_like(classes, -1)
        binary = torch.where(batch.binary_labels == 0, -1.0, 1.0)
        return SimpleNamespace(binary_logits=binary), ViewLabels(classes, unknown, wrong, torch.zeros(0))


def test_votes_reach_their_points(tiny: Path) -> None:
    config = load_config(tiny)
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    name = reader.scene_names[0]
    result = evaluate_scene(reader, benchmark, name, Oracle(), evaluation_settings(config))
    truth = reader.read_scene(name).labels
    views = evaluation_settings(config).open_views(reader, benchmark, name)
    seen = np.zeros(len(truth), bool)
    for view in views:
        seen[view.point_index] = True
    assert result.views == 2 and result.unseen == (~seen).sum() > 0
    right = result.labels["fused"] == truth
    assert right[seen & (truth < 19)].all() and not right[truth == 19].any()
    # Unseen points follow the nearest seen one.
    points = reader.read_scene(name).points.astype(np.float64)
    for i in np.flatnonzero(~seen)[::200]:
        nearest = np.linalg.norm(points[seen] - points[i], axis=1).argmin()
        assert result.labels["fused"][i] == result.labels["fused"][seen][nearest]
    assert not (result.labels["3d"] == truth)[seen].any()
    assert (result.labels["2d"] == -1).all()
    counts = result.counts["fused"]
    assert counts.sum() == (truth < 19).sum() and counts.diagonal().sum() == right.sum()
    assert result.counts["2d"][:, -1].sum() == (truth < 19).sum()
    assert (result.confidence[seen] == 1).all() and (result.confidence[~seen] == 0).all()
    novel = np.isin(truth, benchmark.novel)
    assert result.binary_counts.sum(1).tolist() == [novel.sum(), (truth < 19).sum() - novel.sum()]
    assert result.binary_counts[0, 0] >= (novel & seen).sum()


@pytest.mark.parametrize("regions", ["votes", "gate"])
def test_regions_are_of_one_class_and_reach_points_that_nobody_saw(
    regions: str, tiny: Path, finished: Path, tmp_path: Path
) -> None:
    checkpoint = finished / "checkpoints" / "step-00000008.pt"
    config = load_config(tiny, [*SAME, "evaluate.votes=soft", "evaluate.gate=soft", f"evaluate.regions={regions}"])
    results = evaluate(config, checkpoint, ["scene0003_00"], output=tmp_path)
    assert results is not None
    result = SceneResult.load(results.folder / "scenes" / "scene0003_00.npz")
    scene = build_reader(config, results.benchmark, "val").read_scene("scene0003_00")
    together = np.unique(np.stack(superpoints(scene.points, (scene.colors + 1) / 2)), axis=1, return_inverse=True)[1]
    labels = result.labels["fused"]
    for piece in np.unique(together):
        assert len(np.unique(labels[together == piece])) == 1
    assert result.unseen > 0 and (labels >= 0).all() and result.confidence.max() <= 1
    published = load_config(tiny, [*SAME, "evaluate.votes=soft", f"evaluate.regions={regions}", "protocol=reference"])
    assert label_settings(published).regions == "none"


def test_scenes_that_cannot_be_scored(tiny: Path, finished: Path, tmp_path: Path) -> None:
    config = load_config(tiny, SAME)
    checkpoint = finished / "checkpoints" / "step-00000008.pt"
    with pytest.raises(UserError, match="scene nowhere: not in the validation split, which has 2 scenes"):
        evaluate(config, checkpoint, ["nowhere"], output=tmp_path)
    with pytest.raises(UserError, match="does not fit the model"):
        evaluate(load_config(tiny, [*SAME, "model.queries=9"]), checkpoint, output=tmp_path)


def test_labels_of_another_list_are_no_table(tiny: Path, finished: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(load_config(tiny).data.root, data)
    for path in (data / "scannet_3d" / "val").iterdir():
        points, colors, _ = read_points(path)
        write_points(path, points, colors, np.full(len(points), 300))
    config = load_config(tiny, [*SAME, f"data.root={data}"])
    with pytest.raises(UserError, match=r"none of \d+ points in 2 scenes has a label of .*nothing can be scored"):
        evaluate(config, finished / "checkpoints" / "step-00000008.pt", output=tmp_path)


def test_a_file_in_place_of_the_folder(tiny: Path, finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=f"{file}/.*: cannot be made .*choose another folder"):
        evaluate(load_config(tiny, SAME), finished / "checkpoints" / "step-00000008.pt", output=file)


def test_each_pass_of_the_reference_protocol_rotates_anew(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(tiny, ["protocol=reference", "evaluate.rotations=2", "evaluate.workers=0"])
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    seen = []

    class Watching(Oracle):
        def __call__(self, batch: Batch, encodings: None) -> tuple[SimpleNamespace, ViewLabels]:
            seen.append(batch.voxel_coords)
            return super().__call__(batch, encodings)

    evaluate_scene(reader, benchmark, reader.scene_names[0], Watching(), evaluation_settings(config))
    first, second = seen
    assert first.shape != second.shape or not torch.equal(first, second)


def test_rotations_share_the_encodings_of_the_pictures(
    tiny: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Votes are those of passes one after the other, though every picture is encoded once."""
    config = load_config(tiny, [*SAME, "evaluate.rotations=3", "evaluate.batch_size=1"])
    benchmark = load_benchmark(config.benchmark)
    reader = build_reader(config, benchmark, "val")
    checkpoint = finished / "checkpoints" / "step-00000008.pt"
    labeller = open_labeller(config, checkpoint, benchmark, Accelerator(cpu=True))
    settings = evaluation_settings(config)
    name = reader.scene_names[0]
    expected = SceneVotes(len(reader.read_scene(name).points), benchmark.num_classes)
    for rotation in range(3):
        for sample in settings.open_views(reader, benchmark, name, rotation):
            batch = collate([sample])
            expected.add(batch.point_index, labeller(batch)[1].fused)
    encode, encoded = DiffusionFeatures.encode, []

    def counted(self: DiffusionFeatures, images: torch.Tensor) -> EncodedImages:
        encoded.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(DiffusionFeatures, "encode", counted)
    result = evaluate_scene(reader, benchmark, name, labeller, settings)
    assert result.views == 6 and encoded == [1, 1]
    seen = expected.counts.any(1).numpy()
    np.testing.assert_array_equal(result.labels["fused"][seen], expected.result().numpy()[seen])
