import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.helpers.scenes import write_scenes
from tests.helpers.views import PUBLISHED, SCENE, TRAINING, VALIDATION
from xmask3d.data.datasets import SceneViews, TrainingViews, ValidationViews, collate_usable, evenly_spaced
from xmask3d.data.files import read_tuple, write_points
from xmask3d.data.sample_maker import make_sample
from xmask3d.data.scannet import SCANNET
from xmask3d.data.view_settings import Augmentation, ViewFilter
from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark

GOLDEN = Path(__file__).parents[1] / "golden" / "l_loader"


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("scannet20/B15N4")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scans"), views=3, spacing=0.1)


@pytest.fixture
def own_root(root, tmp_path):
    return Path(shutil.copytree(root, tmp_path / "data"))


@pytest.fixture(scope="module")
def golden(tmp_path_factory, benchmark):
    """The recorded scene on disk: a reader and the recorded numbers."""
    root = tmp_path_factory.mktemp("golden")
    inputs, outputs = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "outputs.npz")
    scene_file = root / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth"
    write_points(scene_file, inputs["points"], inputs["colors"], inputs["labels"])
    folder = root / "scannet_2d" / "scene0000_00"
    for part in ("color", "depth", "pose", "label"):
        (folder / part).mkdir(parents=True)
    for i, stem in enumerate(("0", "20")):
        (folder / "color" / f"{stem}.jpg").write_bytes(inputs[f"view{i}/jpg"].tobytes())
        Image.fromarray(inputs[f"view{i}/depth"]).save(folder / "depth" / f"{stem}.png")
        Image.fromarray(inputs[f"view{i}/label"]).save(folder / "label" / f"{stem}.png")
        np.savetxt(folder / "pose" / f"{stem}.txt", inputs[f"view{i}/pose"], fmt="%.17g")
    return SCANNET.open(root, "train", benchmark, published_intrinsics=True), outputs


@pytest.mark.parametrize("number", [0, 1])
def test_golden_sample(golden, benchmark, number):
    reader, outputs = golden
    expected = {k.split("/")[-1]: outputs[k] for k in outputs.files if k.startswith(f"train_view{number}/")}
    view = reader.read_view("scene0000_00", ("0", "20")[number])
    sample = make_sample(reader.read_scene("scene0000_00"), view, benchmark, replace(PUBLISHED, voxel_order="hash"))
    binary = expected["binary_label"]
    exact = {
        "coords": (sample.voxel_coords, expected["coords"][:, 1:]),
        "labels": (sample.labels, expected["labels"]),
        "binary": (sample.binary_labels, np.where(binary > 1, -1, binary)),
        "label map": (sample.label_map, expected["label_2d"]),
        "rows": (sample.pixels[:, 0], expected["x_label"]),
        "columns": (sample.pixels[:, 1], expected["y_label"]),
        "point to voxel": (sample.point_to_voxel, expected["inds_reconstruct"]),
        "points": (sample.points, expected["locals_3d"][:, 1:]),
    }
    for name, (ours, theirs) in exact.items():
        np.testing.assert_array_equal(ours.numpy(), theirs, err_msg=name)
    np.testing.assert_allclose(sample.voxel_features, expected["feats"], rtol=0, atol=3e-7)
    image = sample.image.permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(image.ravel()[::1009], expected["img_every1009"], rtol=0, atol=1e-4)
    np.testing.assert_allclose([image.mean(dtype=float), image.std(dtype=float)], expected["img_stats"][:2], rtol=1e-6)
    seen = np.zeros(len(reader.read_scene("scene0000_00").points), bool)
    seen[sample.point_index] = True
    np.testing.assert_array_equal(np.packbits(seen), outputs[f"infer/view{number}/mask_2d"])


def test_golden_validation_views(golden, benchmark):
    reader, outputs = golden
    views = ValidationViews(reader, benchmark, replace(PUBLISHED, filter=VALIDATION.filter))
    for epoch in (0, 1):
        views.set_epoch(epoch)
        sample = views[0]
        assert sample.view == ("0", "20")[int(outputs[f"val_epoch{epoch}/view"])]
        binary = outputs[f"val_epoch{epoch}/binary_label"]
        np.testing.assert_array_equal(sample.binary_labels, np.where(binary > 1, -1, binary))


def test_points_pixels_and_classes_agree(root, benchmark):
    reader = SCANNET.open(root, "train", benchmark)
    scene, view = reader.read_scene("scene0000_00"), reader.read_view("scene0000_00", "0")
    sample = make_sample(scene, view, benchmark, replace(PUBLISHED, image_size=(64, 80), depth_tolerance=0.02))
    np.testing.assert_array_equal(sample.points, scene.points[sample.point_index])
    rows, columns = sample.pixels.T.numpy()
    agree = view.label_map[rows, columns] == sample.classes.numpy()
    assert len(agree) > 500 and agree.mean() > 0.97  # but for pixels at the edges of furniture
    assert sample.label_map.shape == (64, 80) and sample.image.shape == (3, 64, 80)
    np.testing.assert_array_equal(sample.labels, benchmark.training_labels(sample.classes.numpy()))


def test_view_filter():
    classes = np.array([0, 1, 19, 19, 2])
    assert ViewFilter(5, 5, 3).accept(classes, 5, 19)
    assert not ViewFilter(6).accept(classes, 5, 19)
    assert not ViewFilter(1, 4).accept(classes, 5, 19)
    assert not ViewFilter(1, 9, 4).accept(classes, 5, 19)
    assert ViewFilter(1, 9, 4).accept(None, 5, 19)
    assert ViewFilter(1, 9, 2, counted=(0, 2)).accept(classes, 5, 19)
    assert not ViewFilter(1, 9, 3, counted=(0, 2)).accept(classes, 5, 19)


@pytest.mark.parametrize("base_only", [False, True])
def test_labels_of_novel_classes_choose_views_unless_they_must_not(own_root, benchmark, base_only):
    name = "scene0000_00"
    path = own_root / "scannet_3d" / "train" / f"{name}_vh_clean_2.pth"
    points, colors, _ = read_tuple(path)
    write_points(path, points, colors, np.full(len(points), benchmark.file_ids_3d[benchmark.novel[0]]))
    counted = benchmark.base if base_only else None
    settings = replace(TRAINING, filter=replace(TRAINING.filter, counted=counted))
    views = TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, settings)
    scenes = {views[index].scene for index in range(2)}
    assert (name in scenes) != base_only


def test_a_rejected_view_of_validation_is_followed_by_the_one_after_the_next_as_published(root, benchmark, monkeypatch):
    tried = []
    monkeypatch.setattr(ValidationViews, "_sample", lambda self, scene, view, *_: tried.append(view))
    reader = SCANNET.open(root, "train", benchmark)
    names = reader.view_names("scene0000_00")
    assert len(names) == 3
    for step in (1, 2):
        views = ValidationViews(reader, benchmark, VALIDATION, step=step)
        views.set_epoch(1)
        assert views[0] is None
        expected = [names[place] for place in ((1, 2, 0) if step == 1 else (1, 0, 2))]
        assert tried == expected
        tried.clear()
    monkeypatch.setattr(reader, "view_names", lambda scene: ["0", "1", "2", "3"])
    even = ValidationViews(reader, benchmark, VALIDATION, step=2)
    reader.read_scene("scene0000_00").view_names[:] = ["0", "1", "2", "3"]
    assert even[0] is None and tried == ["0", "2", "1", "3"]  # the others too, before the scene is given up


def test_a_damaged_view_changes_nothing_of_the_next_one(own_root, benchmark):
    """Samples are the same whether or not their process has met the damaged view before."""
    (own_root / "scannet_2d" / "scene0000_00" / "label" / "20.png").unlink()

    def views():
        return TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, TRAINING, seed=1)

    used = views()
    for index in range(16):
        assert used[index].view != "20" or used[index].scene != "scene0000_00"
    for index in range(16):
        first, second = views()[index], used[index]
        assert first.view == second.view and torch.equal(first.voxel_coords, second.voxel_coords)


def test_only_training_reads_label_pictures(own_root, benchmark):
    (own_root / "scannet_2d" / "scene0000_00" / "label" / "20.png").unlink()
    reader = SCANNET.open(own_root, "train", benchmark)
    views = SceneViews(reader, "scene0000_00", benchmark, replace(SCENE, filter=ViewFilter()))
    assert all(views[index] is not None and views[index].label_map is None for index in range(len(views)))


def test_validation_passes_over_a_damaged_scene(own_root, benchmark, caplog):
    (own_root / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth").write_bytes(b"no scene")
    reader = SCANNET.open(own_root, "train", benchmark)
    views = ValidationViews(reader, benchmark, VALIDATION)
    assert views[0] is None and views[1] is not None and "scene0000_00_vh_clean_2.pth" in caplog.text
    with pytest.raises(UserError, match="damaged"):
        ValidationViews(reader, benchmark, replace(VALIDATION, bad_views="refuse"))[0]


def test_validation_looks_at_evenly_spaced_views(root, benchmark, monkeypatch):
    monkeypatch.setattr(ValidationViews, "_sample", lambda self, scene, view, *_: (scene.name, view))
    reader = SCANNET.open(root, "train", benchmark)
    lists = {"scene0000_00": ["0", "1", "2", "3", "4"], "scene0001_00": ["0"]}
    for name in reader.scene_names:
        reader.read_scene(name).view_names[:] = lists[name]
    views = ValidationViews(reader, benchmark, VALIDATION, views_per_scene=2)
    assert [views[index] for index in range(len(views))] == [
        ("scene0000_00", "0"),
        ("scene0000_00", "2"),
        ("scene0001_00", "0"),
        None,
    ]
    views.set_epoch(3)
    assert [views[index] for index in range(2)] == [("scene0000_00", "3"), ("scene0000_00", "0")]


def equal(a, b):
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


def values(sample):
    return [v for v in vars(sample).values() if v is not None]


def test_samples_depend_on_seed_epoch_and_index_alone(root, benchmark):
    reader = SCANNET.open(root, "train", benchmark)
    views = TrainingViews(reader, benchmark, TRAINING, seed=3)
    forwards = [views[i] for i in range(6)]
    backwards = [TrainingViews(reader, benchmark, TRAINING, seed=3)[i] for i in reversed(range(6))][::-1]
    assert all(equal(values(a), values(b)) for a, b in zip(forwards, backwards, strict=True))
    views.set_epoch(1)
    assert not any(torch.equal(views[i].voxel_coords, forwards[i].voxel_coords) for i in range(6))
    other = TrainingViews(reader, benchmark, TRAINING, seed=4)
    assert not any(torch.equal(other[i].voxel_coords, forwards[i].voxel_coords) for i in range(6))


def test_workers_see_the_epoch_and_change_nothing(root, benchmark):
    reader = SCANNET.open(root, "train", benchmark)
    views = TrainingViews(reader, benchmark, TRAINING, views_per_scene=2)
    loader = DataLoader(views, 2, num_workers=2, persistent_workers=True, collate_fn=collate_usable)
    for epoch in (0, 1):
        views.set_epoch(epoch)
        batches = list(loader)
        alone = [collate_usable([views[i], views[i + 1]]) for i in (0, 2)]
        assert all(equal(values(a), values(b)) for a, b in zip(batches, alone, strict=True))


def test_length_and_scene_of_an_index(root, benchmark):
    views = TrainingViews(SCANNET.open(root, "train", benchmark), benchmark, TRAINING, views_per_scene=5)
    assert len(views) == 10
    assert [views[i].scene for i in (0, 1, 2, 9)] == [f"scene000{i}_00" for i in (0, 1, 0, 1)]
    assert len({views[i].view for i in range(0, 10, 2)}) > 1
    with pytest.raises(IndexError):
        views[10]


def test_without_rotation_only_the_shift_is_random(root, benchmark):
    reader = SCANNET.open(root, "train", benchmark)
    views = TrainingViews(reader, benchmark, replace(TRAINING, augmentation=Augmentation(rotate=False)))
    first, second = next(
        (views[i], views[j]) for i in range(0, 16, 2) for j in range(i + 2, 16, 2) if views[i].view == views[j].view
    )
    shift = second.voxel_coords - first.voxel_coords
    assert (shift == shift[0]).all() and shift[0].any() and (shift.abs() < 100).all()
    still = TrainingViews(reader, benchmark, replace(TRAINING, augmentation=Augmentation(rotate=False, shift=0)))
    assert (still[0].voxel_coords.amin(0) == 0).all()


def test_all_augmentations_run(root, benchmark):
    reader = SCANNET.open(root, "train", benchmark)
    sample = TrainingViews(reader, benchmark, replace(TRAINING, augmentation=Augmentation(color=True, shape=True)))[0]
    plain = TrainingViews(reader, benchmark, TRAINING)[0]
    assert sample.view == plain.view and torch.equal(sample.points, plain.points)
    assert len(sample.voxel_features) != len(plain.voxel_features) or not torch.equal(
        sample.voxel_features, plain.voxel_features
    )


def test_cached_visibility_is_equal_and_damage_is_mended(root, benchmark, tmp_path, caplog):
    reader = SCANNET.open(root, "train", benchmark)
    cached = TrainingViews(reader, benchmark, replace(TRAINING, cache=tmp_path))
    plain = TrainingViews(reader, benchmark, TRAINING)
    for _ in range(2):
        assert all(equal(values(cached[i]), values(plain[i])) for i in range(4))
    kept = list((tmp_path / "visible").rglob("*.npy"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:70])
    with caplog.at_level(logging.WARNING):
        assert equal(values(cached[0]), values(plain[0]))
    assert "damaged" in caplog.text


def test_depth_is_not_read_again_where_visibility_is_kept(own_root, benchmark, tmp_path, monkeypatch):
    reader = SCANNET.open(own_root, "train", benchmark)
    views = TrainingViews(reader, benchmark, replace(TRAINING, cache=tmp_path / "kept"))
    first = views[0]
    opened = []
    from xmask3d.data import scannet

    real = scannet.read_picture
    monkeypatch.setattr(scannet, "read_picture", lambda path, mode=None: opened.append(path) or real(path, mode))
    assert equal(values(views[0]), values(first))
    assert opened and not any("depth" in path.parts for path in opened)


def damage(root, scene="scene0000_00", keep=()):
    for path in (root / "scannet_2d" / scene / "pose").glob("*.txt"):
        if path.stem not in keep:
            path.write_text("nan " * 16)


def test_a_bad_view_is_reported_once_and_skipped(own_root, benchmark, caplog):
    damage(own_root, keep=("20",))
    views = TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, TRAINING)
    with caplog.at_level(logging.WARNING):
        names = {views[i].view for i in range(0, 32, 2) for _ in range(2)}
    assert names == {"20"}
    bad = own_root / "scannet_2d" / "scene0000_00" / "pose" / "0.txt"
    assert caplog.text.count(str(bad)) == 1


def test_a_bad_view_is_refused_if_asked(own_root, benchmark):
    damage(own_root)
    reader = SCANNET.open(own_root, "train", benchmark)
    with pytest.raises(UserError, match=r"pose.*NaN"):
        TrainingViews(reader, benchmark, replace(TRAINING, bad_views="refuse"))[0]


def test_a_scene_without_usable_views_gives_way_to_the_next(own_root, benchmark, caplog):
    damage(own_root)
    views = TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, TRAINING)
    with caplog.at_level(logging.WARNING):
        assert {views[i].scene for i in range(4)} == {"scene0001_00"}
    assert caplog.text.count("scene skipped: scene scene0000_00") == 1


def test_nothing_loops_for_ever(own_root, benchmark):
    for scene in ("scene0000_00", "scene0001_00"):
        damage(own_root, scene)
    views = TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, TRAINING)
    with pytest.raises(UserError, match=r"2 scenes in a row.*xmask3d check"):
        views[1]
    few = TrainingViews(
        SCANNET.open(own_root, "train", benchmark), benchmark, replace(TRAINING, filter=ViewFilter(10**6))
    )
    with pytest.raises(UserError, match="have no view"):
        few[0]


def test_training_without_label_pictures_is_refused(own_root, benchmark, caplog):
    for scene in ("scene0000_00", "scene0001_00"):
        shutil.rmtree(own_root / "scannet_2d" / scene / "label")
    views = TrainingViews(SCANNET.open(own_root, "train", benchmark), benchmark, TRAINING)
    with pytest.raises(UserError, match="have no view"):
        views[0]
    assert "has no label pictures" in caplog.text


def test_scene_views_are_complete_and_deterministic(root, benchmark):
    reader = SCANNET.open(root, "val", benchmark)
    views = SceneViews(reader, "scene0002_00", benchmark, SCENE)
    samples = [views[i] for i in range(len(views))]
    assert [s.view for s in samples] == ["0", "20", "40"]
    assert all(equal(values(views[i]), values(samples[i])) for i in range(3))
    assert (samples[0].voxel_coords.amin(0) == 0).all()
    turned = SceneViews(reader, "scene0002_00", benchmark, replace(SCENE, angle=1.0))[0]
    assert torch.equal(turned.points, samples[0].points)
    assert not torch.equal(turned.point_to_voxel, samples[0].point_to_voxel)


def test_reference_protocol_rotates_and_filters_by_truth(own_root, benchmark):
    path = own_root / "scannet_3d" / "val" / "scene0002_00_vh_clean_2.pth"
    reader = SCANNET.open(own_root, "val", benchmark)
    plain = SceneViews(reader, "scene0002_00", benchmark, SCENE)[0]
    labelled = replace(SCENE.filter, min_labelled=10)
    published = replace(SCENE, filter=labelled, augmentation=Augmentation(shift=0))
    reference = SceneViews(reader, "scene0002_00", benchmark, published)
    assert not torch.equal(reference[0].point_to_voxel, plain.point_to_voxel)
    assert equal(values(reference[0]), values(reference[0]))
    first, second = (SceneViews(reader, "scene0002_00", benchmark, published, rotation=n)[0] for n in (0, 1))
    assert equal(values(first), values(reference[0]))
    assert not torch.equal(first.point_to_voxel, second.point_to_voxel)
    scene = reader.read_scene("scene0002_00")
    write_points(path, scene.points, scene.colors, np.full(len(scene.points), 255))
    blank = SCANNET.open(own_root, "val", benchmark)
    assert SceneViews(blank, "scene0002_00", benchmark, published)[0] is None
    assert SceneViews(blank, "scene0002_00", benchmark, SCENE)[0] is not None


def test_scene_views_limits(own_root, benchmark):
    damage(own_root, "scene0002_00", keep=("0", "40"))
    reader = SCANNET.open(own_root, "val", benchmark)
    views = SceneViews(reader, "scene0002_00", benchmark, SCENE)
    usable = [views[i] is not None for i in range(3)]
    assert usable == [True, False, True]
    batch = collate_usable([views[i] for i in range(3)])
    assert batch.views == ["0", "40"] and collate_usable([None]) is None
    assert len(SceneViews(reader, "scene0002_00", benchmark, SCENE, max_views=2)) == 2
    few = SceneViews(reader, "scene0002_00", benchmark, replace(SCENE, filter=ViewFilter(1, 50)))
    assert few[0] is None


def test_evenly_spaced():
    names = [str(i) for i in range(10)]
    assert evenly_spaced(names, None) == names and evenly_spaced(names, 20) == names
    assert evenly_spaced(names, 4) == ["0", "3", "6", "9"]
    assert evenly_spaced(names, 1) == ["0"]
