"""The segmenter at tiny sizes: the evaluator's labels, resuming, little memory, clouds without pictures, queries."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.helpers.scenes import BoxRoom
from tests.helpers.tiny import write_config, write_model
from xmask3d.build import Assembly, build_labeller, build_model, build_reader, evaluation_settings
from xmask3d.config import Config, load_config
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.errors import UserError
from xmask3d.scan.scan import ScanOptions, open_scan
from xmask3d.segment.precision import bfloat16_wins, with_precision
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.segmenter import Segmenter, scan_key, views_at_once, with_image_size
from xmask3d.splits import load_benchmark
from xmask3d.visualize.cloud import write_ply

SCENE = "scene0002_00"
WORDS = ["sofa|couch", "floor", "potted plant"]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Assembly]:
    config = load_config(write_config(tmp_path_factory.mktemp("tiny")))
    torch.manual_seed(0)
    assembly = build_model(config)
    with torch.no_grad():  # let the binary head disagree with itself, so that the gate matters
        for parameter in assembly.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return config, assembly


@pytest.fixture
def segmenter(setup: tuple[Config, Assembly]) -> Segmenter:
    config, assembly = setup
    benchmark = load_benchmark(config.benchmark)
    return Segmenter(assembly.model, assembly.clip_text, config, benchmark, "cpu", "tiny", batch_size=1)


def scene_folder(config: Config) -> Path:
    return config.data.root / "scannet_2d" / SCENE


def test_labels_of_a_class_list_of_one_view_are_the_evaluators(
    setup: tuple[Config, Assembly], segmenter: Segmenter
) -> None:
    config, assembly = setup
    accelerator, benchmark = Accelerator(cpu=True), load_benchmark(config.benchmark)
    labeller = build_labeller(config, assembly, benchmark, accelerator)
    reader = build_reader(config, benchmark, "val")
    one_view = replace(evaluation_settings(config), max_views=1)
    expected = evaluate_scene(reader, benchmark, SCENE, labeller, one_view)
    scan = open_scan(scene_folder(config))
    scan.scene.view_names = scan.scene.view_names[:1]
    segmenter = Segmenter(assembly.model, assembly.clip_text, config, benchmark, "cpu", regions="none")
    result = segmenter(scan, classes="scannet20")
    assert (result.labels == expected.labels["fused"]).mean() > 0.99  # saved features are of half precision
    assert result.names == list(benchmark.class_names) and len(np.unique(result.labels)) > 1
    typed = segmenter(scan, list(benchmark.class_names))
    np.testing.assert_array_equal(typed.labels, result.labels)  # the names typed one by one are the same query


def test_synonyms_and_background(setup: tuple[Config, Assembly], segmenter: Segmenter) -> None:
    result = segmenter(scene_folder(setup[0]), WORDS, background=["wall"], objects=True)
    assert result.names == ["sofa", "floor", "potted plant"] and result.phrases == result.names
    assert set(np.unique(result.labels)) <= {-1, 0, 1, 2}
    other = segmenter(scene_folder(setup[0]), ["sofa", "couch", "floor", "potted plant", "wall"])
    np.testing.assert_array_equal(np.array([0, 0, 1, 2, -1])[other.labels], result.labels)
    np.testing.assert_allclose(result.heat("sofa"), np.maximum(other.heat("sofa"), other.heat("couch")), atol=2e-3)
    assert result.objects is not None and result.objects.max() == len(result.object_names) - 1
    assert (result.labels[result.objects >= 0] >= 0).all()  # what is unlabelled is no object


def test_stopped_work_goes_on_with_the_same_result(
    setup: tuple[Config, Assembly], segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmask3d.segment.labelling.SAVE_EVERY", 0.0)
    whole = segmenter(scene_folder(setup[0]), WORDS, objects=True)
    state = tmp_path / "state.npz"

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        segmenter(scene_folder(setup[0]), WORDS, objects=True, state=state, report=stop)
    seen: list[int] = []
    report = lambda done, _: seen.append(done)  # noqa: E731
    resumed = segmenter(scene_folder(setup[0]), WORDS, objects=True, state=state, report=report)
    assert seen == [2]  # the first of two views was not done again
    np.testing.assert_array_equal(resumed.labels, whole.labels)
    np.testing.assert_array_equal(resumed.similarity, whole.similarity)
    np.testing.assert_array_equal(resumed.objects, whole.objects)
    state.write_bytes(state.read_bytes()[:500])  # damaged: begun anew
    np.testing.assert_array_equal(segmenter(scene_folder(setup[0]), WORDS, state=state).labels, whole.labels)
    seen.clear()
    segmenter(scene_folder(setup[0]), ["bed", "floor"], state=state, report=report)
    assert seen == []  # features do not depend on the words, so another query finds all views done


def test_another_reading_does_not_take_over_the_state(setup: tuple[Config, Assembly]) -> None:
    scan = open_scan(scene_folder(setup[0]))
    key = scan_key(scan)
    assert scan_key(open_scan(scene_folder(setup[0]))) == key
    scan.fingerprint = "another calibration"
    assert scan_key(scan) != key
    scan.fingerprint = ""
    assert scan_key(scan) == key
    for values in (scan.scene.colors, scan.scene.points):
        values[5] += 0.25
        assert scan_key(scan) != key
        values[5] -= 0.25


def watch_batches(assembly: Assembly, monkeypatch: pytest.MonkeyPatch, largest: float = math.inf) -> list[int]:
    """Views of each batch that the model is given; larger ones than `largest` run out of memory."""
    whole, sizes = assembly.model.forward, []

    def forward(batch, *args, **kwargs):
        sizes.append(batch.size)
        if batch.size > largest:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return whole(batch, *args, **kwargs)

    monkeypatch.setattr(assembly.model, "forward", forward)
    return sizes


def test_batches_shrink_when_memory_runs_out(
    setup: tuple[Config, Assembly], segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, assembly = setup
    expected = segmenter(scene_folder(config), WORDS)
    sizes = watch_batches(assembly, monkeypatch, largest=1)
    large = Segmenter(assembly.model, assembly.clip_text, config, segmenter.benchmark, "cpu", "tiny", batch_size=4)
    result = large(scene_folder(config), WORDS)
    assert sizes == [2, 1, 1]
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(result.similarity, expected.similarity, atol=1e-4)

    def never(batch, *args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(assembly.model, "forward", never)
    with pytest.raises(UserError, match="does not fit into memory"):
        large(scene_folder(config), WORDS)


def test_no_view_is_lost_when_batches_shrink_on_the_way(
    setup: tuple[Config, Assembly], segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, assembly = setup
    scan = open_scan(scene_folder(config))
    scan.scene.view_names = scan.scene.view_names * 4
    sizes = watch_batches(assembly, monkeypatch, largest=2)
    large = Segmenter(assembly.model, assembly.clip_text, config, segmenter.benchmark, "cpu", "tiny", batch_size=4)
    assert large(scan, WORDS).about["views"] == 8
    assert sizes == [4, 2, 2, 2, 2]  # tried once, and smaller from then on


@pytest.mark.parametrize(("share", "looked_at"), [(1.0, 1), (0.0, 2)])
def test_views_that_change_no_label_are_left_out(
    setup: tuple[Config, Assembly], segmenter: Segmenter, tmp_path: Path, share: float, looked_at: int
) -> None:
    scan = open_scan(scene_folder(setup[0]))
    scan.scene.view_names = scan.scene.view_names[:1] * 8
    seen: list[int] = []
    report = lambda done, total: seen.append(done)  # noqa: E731
    state = tmp_path / "state.npz"
    result = segmenter(scan, WORDS, state=state, report=report, settle=share)
    assert result.about["views"] == looked_at and seen[-1] == 8
    assert any("labels settled" in line for line in result.lines) == (looked_at < 8)
    seen.clear()
    again = segmenter(scan, WORDS, state=state, report=report, settle=share)
    assert seen == [] and again.about["views"] == looked_at  # settled work is finished work
    np.testing.assert_array_equal(again.labels, result.labels)


def test_pictures_are_left_aside_where_it_must_be_fast(setup: tuple[Config, Assembly], segmenter: Segmenter) -> None:
    scan = open_scan(scene_folder(setup[0]))
    scan.load_view = None  # type: ignore[assignment]  # cannot be read
    result = segmenter(scan, WORDS, fast=True)
    assert result.about["views"] == 0 and (result.labels >= 0).all()
    bare = open_scan(scene_folder(setup[0]))
    bare.scene.view_names = []
    np.testing.assert_array_equal(segmenter(bare, WORDS).labels, result.labels)


def test_a_model_that_must_be_fast_is_loaded_without_what_looks_at_pictures(tmp_path: Path) -> None:
    checkpoint = write_model(tmp_path)
    config = load_config(tmp_path / "model.yaml")
    whole = Segmenter.from_pretrained(checkpoint, device="cpu")(scene_folder(config), WORDS, fast=True)
    for part in ("vae", "unet"):
        (tmp_path / "diffusion" / part / "diffusion_pytorch_model.safetensors").unlink()
    fast = Segmenter.from_pretrained(checkpoint, device="cpu", precision="auto", fast=True)
    assert not fast.model.image_features.diffusion.frozen_networks() + fast.model.mask_clip.frozen_networks()
    result = fast(scene_folder(config), WORDS)
    for name in ("labels", "confidence", "similarity"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert result.features.about["weights"] == whole.features.about["weights"]


def test_image_size_is_the_longer_side(setup: tuple[Config, Assembly]) -> None:
    config = setup[0]
    wide = config.model_copy(update={"data": config.data.model_copy(update={"image_size": (192, 256)})})
    assert with_image_size(wide, 128).data.image_size == (96, 128)
    assert with_image_size(wide, 100).data.image_size == (64, 96)  # multiples of 32
    assert with_image_size(wide, 512).data.image_size == (384, 512)
    with pytest.raises(UserError, match="--image-size 16: at least 32 pixels"):
        with_image_size(wide, 16)


def test_precision_is_of_the_frozen_networks(setup: tuple[Config, Assembly], monkeypatch: pytest.MonkeyPatch) -> None:
    config, cpu = setup[0], torch.device("cpu")
    assert with_precision(config, "bfloat16", cpu).model.clip_precision == "bfloat16"
    for wins, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("xmask3d.segment.precision.bfloat16_wins", lambda wins=wins: wins)
        assert with_precision(config, "auto", cpu).model.diffusion_precision == expected
    model = build_model(with_precision(config, "bfloat16", cpu)).model.eval()
    images, logits = torch.rand(2, 3, 64, 64), torch.randn(2, 5, 16, 16)
    narrow, wide = model.mask_clip(images, logits), setup[1].model.mask_clip(images, logits)
    assert narrow.dtype == torch.float32
    assert 1e-5 < (narrow - wide).norm() / wide.norm() < 0.02


def test_a_processor_that_cannot_tell_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert not bfloat16_wins()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    seconds = iter([2.0, 1.0, 3.0, 3.0, 1.3, 1.0])
    monkeypatch.setattr("xmask3d.segment.precision._seconds", lambda run: next(seconds))
    assert bfloat16_wins()  # 1.3 times as fast is the median


def test_large_pictures_go_through_one_by_one_on_a_cpu(setup: tuple[Config, Assembly]) -> None:
    config, cpu = setup[0], torch.device("cpu")
    batch = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"batch_size": 8})})
    for size, views in ((512, 1), (256, 4), (192, 8)):
        sized = with_image_size(batch, size)
        assert views_at_once(sized, cpu) == views and views_at_once(sized, torch.device("cuda")) == 8


def test_views_that_show_much_go_through_in_parts(
    setup: tuple[Config, Assembly], segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, assembly = setup
    expected = segmenter(scene_folder(config), WORDS)
    sizes = watch_batches(assembly, monkeypatch)
    large = Segmenter(assembly.model, assembly.clip_text, config, segmenter.benchmark, "cpu", "tiny", batch_size=4)
    large(scene_folder(config), WORDS)
    monkeypatch.setattr("xmask3d.segment.labelling.BATCH_POINTS", 1)
    result = large(scene_folder(config), WORDS)
    assert sizes == [2, 1, 1]
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_of_a_huge_scene_a_part_is_worked_on(setup: tuple[Config, Assembly], segmenter: Segmenter) -> None:
    scan = open_scan(scene_folder(setup[0]), ScanOptions(max_points=1500))
    assert scan.kept_index is not None and len(scan.scene.points) <= 1500 < len(scan.points)
    assert any("reduced to" in line for line in scan.lines)
    result = segmenter(scan, WORDS)
    assert len(result.labels) == len(result.points) == len(scan.points)
    for point in (0, len(scan.points) - 1):
        alike = result.labels[scan.kept_index == scan.kept_index[point]]
        assert (alike == result.labels[point]).all() and (alike >= 0).all()


@pytest.mark.parametrize("regions", ["none", "votes", "gate"])
def test_saved_features_answer_like_the_run(setup: tuple[Config, Assembly], tmp_path: Path, regions: str) -> None:
    config, assembly = setup
    benchmark = load_benchmark(config.benchmark)
    segmenter = Segmenter(assembly.model, assembly.clip_text, config, benchmark, "cpu", regions=regions)
    result = segmenter(scene_folder(setup[0]), WORDS)
    path = tmp_path / "räume" / "features.safetensors"
    result.features.save(path)
    features = PointFeatures.load(path)
    again = segmenter.query(features, WORDS)
    np.testing.assert_allclose(again.similarity, result.similarity, atol=1e-3)
    np.testing.assert_array_equal(again.labels, result.labels)
    np.testing.assert_array_equal(again.confidence, result.confidence)
    listed = segmenter(scene_folder(setup[0]), classes="scannet20")  # other words first, the same answer
    np.testing.assert_array_equal(segmenter.query(listed.features, WORDS).labels, result.labels)
    phrase = segmenter.query(features, "potted plant")
    np.testing.assert_allclose(phrase.heat(0), result.heat("potted plant"), atol=1e-3)
    for region in phrase.regions[0]:
        assert phrase.heat(0)[region.index].mean() > phrase.heat(0).mean()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        PointFeatures.load(path)
    with pytest.raises(UserError, match="--save-features"):
        PointFeatures.load(tmp_path / "none")


def test_cloud_without_pictures(segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = BoxRoom(2, spacing=0.08)
    colors = np.rint((room.colors + 1) * 127.5).astype(np.uint8)
    write_ply(tmp_path / "room.ply", room.points, colors)
    result = segmenter(tmp_path / "room.ply", WORDS, objects=True)
    assert result.about["views"] == 0 and len(result.labels) == len(room.points)
    assert (result.labels >= 0).all() and 0 < result.confidence.mean() <= 1
    monkeypatch.setattr("xmask3d.segment.labelling.TILE_POINTS", 1000)
    monkeypatch.setattr("xmask3d.segment.labelling.TILE", 1.5)
    tiled = segmenter(tmp_path / "room.ply", WORDS)
    assert (tiled.labels >= 0).all()  # every point lies in one tile
    assert (tiled.labels == result.labels).mean() > 0.5
    monkeypatch.setattr("xmask3d.segment.feature_accumulator.MAX_PLACES", 700)
    shared = segmenter(tmp_path / "room.ply", WORDS)
    assert len(shared.features.fused) <= 700 and len(shared.features.row) == len(room.points)
    assert (shared.labels == tiled.labels).mean() > 0.9
    row = shared.features.row
    for region in segmenter.query(shared.features, "sofa").regions[0]:  # whole places belong to a region
        np.testing.assert_array_equal(region.index, np.flatnonzero(np.isin(row, row[region.index])))
    coarse = segmenter(tmp_path / "room.ply", WORDS, options=ScanOptions(max_points=1500))
    assert len(coarse.labels) == len(room.points) and len(coarse.features.fused) <= 1500


def test_a_thinned_cloud_without_pictures_says_how_sure_it_is(segmenter: Segmenter, tmp_path: Path) -> None:
    room, queries = BoxRoom(2, spacing=0.08), ["chair", "floor", "wall"]
    write_ply(tmp_path / "room.ply", room.points, np.rint((room.colors + 1) * 127.5).astype(np.uint8))
    result = segmenter(tmp_path / "room.ply", queries, options=ScanOptions(max_points=1500))
    words = segmenter.vocabulary(queries)
    sureness = result.features.label(segmenter.encode(words.texts), words.novel)[1]
    assert len(np.unique(sureness)) > 10
    np.testing.assert_array_equal(result.confidence, sureness)


def test_tiny_clouds_and_wrong_words_get_an_answer(segmenter: Segmenter, tmp_path: Path) -> None:
    write_ply(tmp_path / "three.ply", np.eye(3, dtype=np.float32), np.zeros((3, 3), np.uint8))
    result = segmenter(tmp_path / "three.ply", WORDS)
    assert len(result.labels) == 3 and any("only 3 points" in line for line in result.lines)
    write_ply(tmp_path / "none.ply", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    for path, words, message in (
        (tmp_path / "none.ply", WORDS, "has no points"),
        (tmp_path / "three.ply", [], "no words"),
        (tmp_path / "three.ply", ["sofa", "couch|sofa"], "given twice"),
        (tmp_path / "three.ply", ["sofa|"], "empty"),
    ):
        with pytest.raises(UserError, match=message):
            segmenter(path, words)
    with pytest.raises(UserError, match="known: "):
        segmenter(tmp_path / "three.ply", classes="imagenet")


def test_views_that_show_nothing_leave_the_shape(setup: tuple[Config, Assembly], segmenter: Segmenter) -> None:
    scan = open_scan(scene_folder(setup[0]))
    load = scan.load_view

    def blind(name: str):
        view = load(name)
        view.depth = np.zeros_like(view.depth)
        return view

    scan.load_view = blind
    result = segmenter(scan, WORDS)
    assert result.about["views"] == 0 and any("by shape alone" in line for line in result.lines)


def test_unknown_device(setup: tuple[Config, Assembly]) -> None:
    config, assembly = setup
    with pytest.raises(UserError, match="not available here"):
        Segmenter(assembly.model, assembly.clip_text, config, load_benchmark(config.benchmark), "cuda:77")
