import io
import multiprocessing
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import run_command
from tests.helpers.raw_scannet import sens_frame, sens_header, write_raw_scene, write_table
from tests.helpers.scenes import BoxRoom
from tests.helpers.views import TRAINING
from xmask3d.data.datasets import TrainingViews
from xmask3d.data.files import read_picture, read_points
from xmask3d.data.prepare.labels import classes_of_nyu40, read_categories
from xmask3d.data.prepare.many import read_list, run_all
from xmask3d.data.prepare.raw_scannet import Settings, prepare_scene
from xmask3d.data.prepare.sens import SensFile
from xmask3d.data.scannet import LAYOUTS, SCANNET
from xmask3d.errors import UserError
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS
from xmask3d.splits import load_benchmark


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    raw = tmp_path_factory.mktemp("raw")
    write_table(raw / "scannetv2-labels.combined.tsv")
    write_raw_scene(raw, "scene0000_00", BoxRoom(0, 0.1), lost=20)
    write_raw_scene(raw, "scene0001_00", BoxRoom(1, 0.1), frames=2)
    (raw / "train.txt").write_text("scene0000_00\n")
    (raw / "val.txt").write_text("scene0001_00\n")
    return raw


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    settings = Settings(raw, out, raw / "scannetv2-labels.combined.tsv")
    return out, prepare_scene("scene0000_00", "train", settings), settings


def test_report(prepared):
    _, report, _ = prepared
    assert report.frames == 2 and report.points == len(BoxRoom(0, 0.1).points) and not report.skipped
    assert report.notes == [
        "category 'no such category' is not in the table",
        "frame 20: no valid pose, left out",
    ]


def test_points(prepared):
    out, room = prepared[0], BoxRoom(0, 0.1)
    points, colors, labels = read_points(out / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth")
    np.testing.assert_array_equal(points, room.points)
    np.testing.assert_allclose(colors, room.colors, atol=1 / 127)
    np.testing.assert_array_equal(labels, room.labels)
    raw_ids = np.loadtxt(out / "scannet_3d_200" / "train" / "scene0000_00.txt")
    np.testing.assert_array_equal(raw_ids, room.raw_labels)


def test_frames(prepared):
    out, room = prepared[0], BoxRoom(0, 0.1)
    reader = SCANNET.open(out, "train", load_benchmark("scannet20/B15N4"))
    assert reader.read_scene("scene0000_00").view_names == ["0", "40"]
    view = reader.read_view("scene0000_00", "40")
    pose = room.pose(2 * np.pi * 40 / 45 + 0.3)
    color, depth, _ = room.render(pose, PUBLISHED_INTRINSICS, (240, 320))
    np.testing.assert_allclose(view.pose, pose, atol=1e-6)
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(view.intrinsics, name) == pytest.approx(getattr(PUBLISHED_INTRINSICS, name), rel=1e-6)
    assert np.abs(view.image.astype(int) - color).mean() < 3
    assert np.median(np.abs(view.depth - depth)) < 0.02


def test_label_pictures(prepared):
    out = prepared[0]
    folder = out / "scannet_2d" / "scene0000_00"
    nyu40, raw_ids = read_picture(folder / "label" / "0.png"), read_picture(folder / "label_200" / "0.png")
    assert nyu40.dtype == np.uint8 and raw_ids.dtype == np.uint16 and nyu40.shape == (240, 320)
    assert (raw_ids == 3).sum() > 1000
    np.testing.assert_array_equal(nyu40 == 2, raw_ids == 3)  # floor
    np.testing.assert_array_equal(nyu40 == 33, raw_ids == 17)  # toilet
    assert raw_ids.max() == 1164 or (raw_ids == 1164).sum() == (nyu40 == 39).sum()


@pytest.mark.parametrize(("layout", "name"), [("scannet", "scannet20/B15N4"), ("scannet200", "scannet200/B170N30")])
def test_samples_agree_with_pictures(prepared, layout, name):
    reader = LAYOUTS[layout].open(prepared[0], "train", load_benchmark(name))
    settings = replace(TRAINING, voxel_size=0.02, depth_tolerance=0.02, image_size=(240, 320))
    views = TrainingViews(reader, load_benchmark(name), settings)
    sample = views[0]
    rows, columns = sample.pixels.T
    assert (sample.label_map[rows, columns] == sample.labels).float().mean() > 0.95


def test_done_scenes_are_skipped_and_others_settings_are_not(prepared):
    out, report, settings = prepared
    path = out / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth"
    before = path.stat().st_mtime_ns
    again = prepare_scene("scene0000_00", "train", settings)
    assert again.skipped and again.points == report.points and path.stat().st_mtime_ns == before
    (out / ".prepared" / "scene0000_00.json").unlink()  # as after an interruption
    assert not prepare_scene("scene0000_00", "train", settings).skipped
    assert path.stat().st_mtime_ns > before


def test_pictures_as_published_are_picked_pixels_in_quality_75(prepared, raw, tmp_path):
    smooth, _, settings = prepared
    settings = replace(settings, out=tmp_path, as_published=True)
    prepare_scene("scene0000_00", "train", settings)
    place = "scannet_2d/scene0000_00/color/0.jpg"
    with SensFile(raw / "scans" / "scene0000_00" / "scene0000_00.sens") as source:
        picture = source.decode_color(next(source.frames()))
    buffer = io.BytesIO()
    height, width = picture.shape[:2]
    rows, columns = ((np.arange(size) + 0.5) * length / size for size, length in ((240, height), (320, width)))
    picked = picture[rows.astype(int)][:, columns.astype(int)]
    Image.fromarray(picked).save(buffer, "JPEG", quality=75)
    assert (tmp_path / place).read_bytes() == buffer.getvalue() != (smooth / place).read_bytes()
    assert prepare_scene("scene0000_00", "train", settings).skipped
    assert not prepare_scene("scene0000_00", "train", replace(settings, as_published=False)).skipped
    assert (tmp_path / place).read_bytes() == (smooth / place).read_bytes()


def files_of(out):
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())


def test_other_settings_leave_nothing_of_earlier_ones(raw, tmp_path):
    table, scene = raw / "scannetv2-labels.combined.tsv", "scene0000_00"
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    prepare_scene(scene, "val", Settings(raw, out, table))
    (out / "scannet_3d" / "val" / "other_vh_clean_2.pth").write_bytes(b"not of this scene")
    prepare_scene(scene, "train", Settings(raw, out, table, step=40))
    prepare_scene(scene, "train", Settings(raw, fresh, table, step=40))
    assert files_of(out) == sorted([*files_of(fresh), "scannet_3d/val/other_vh_clean_2.pth"])
    # A run that broke off in between is put right by the next.
    (out / ".prepared" / f"{scene}.json").rename(out / ".prepared" / f"{scene}.begun")
    prepare_scene(scene, "val", Settings(raw, out, table, step=40))
    assert not list(out.glob("scannet_3d*/train/*")) and len(list(out.glob("scannet_3d*/val/scene*"))) == 2


def test_nothing_is_lost_where_raw_files_are_gone(raw, tmp_path):
    broken, out, scene = tmp_path / "raw", tmp_path / "out", "scene0001_00"
    shutil.copytree(raw / "scans" / scene, broken / scene)
    settings = Settings(broken, out, raw / "scannetv2-labels.combined.tsv")
    prepare_scene(scene, "train", settings)
    before = files_of(out)
    (broken / scene / f"{scene}.sens").unlink()
    with pytest.raises(UserError, match=r"scene0001_00\.sens: missing, and .* frames of other settings"):
        prepare_scene(scene, "train", replace(settings, step=40))
    assert files_of(out) == before
    prepare_scene(scene, "val", settings)  # the frames of a scene are the same in all splits
    assert files_of(out) == sorted(name.replace("/train/", "/val/") for name in before)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"settings": 1}', b"\xff\xfe", b'{"settings": {}, "report": {"x": 1}}']
)
def test_a_damaged_mark_counts_as_not_done(raw, tmp_path, content):
    settings = Settings(raw, tmp_path, raw / "scannetv2-labels.combined.tsv")
    (tmp_path / ".prepared").mkdir()
    (tmp_path / ".prepared" / "scene0001_00.json").write_bytes(content)
    assert not prepare_scene("scene0001_00", "train", settings).skipped
    assert prepare_scene("scene0001_00", "train", settings).skipped


def test_tool(raw, tmp_path, capsys):
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt")
    assert run_command("prepare", raw, tmp_path, *lists, "--workers", 2) == 0
    assert "2 scenes ready, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "scannet_3d" / "val" / "scene0001_00_vh_clean_2.pth").is_file()
    assert len(list((tmp_path / "scannet_2d" / "scene0001_00" / "color").iterdir())) == 1


def test_tool_reports_a_failure_and_goes_on(raw, tmp_path, capsys):
    broken = tmp_path / "raw"
    shutil.copytree(raw, broken)
    path = broken / "scans" / "scene0000_00" / "scene0000_00.sens"
    path.write_bytes(path.read_bytes()[:-20])
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt", "--workers", 1)
    assert run_command("prepare", broken, tmp_path / "out", *lists) == 1
    captured = capsys.readouterr()
    assert "1 scenes ready, 1 failed" in captured.out
    assert f"failed: {path}: ends early" in captured.err
    assert not (tmp_path / "out" / ".prepared" / "scene0000_00.json").exists()


def damage_in(tmp_path, raw, name, content):
    broken = tmp_path / "raw"
    shutil.copytree(raw, broken)
    path = broken / name if name.endswith(".tsv") else broken / "scans" / "scene0000_00" / f"scene0000_00{name}"
    path.write_bytes(content)
    return broken, path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (".aggregation.json", b'{"segGroups": 5}', "no list"),
        (".aggregation.json", b'{"segGroups": [7]}', "without 'label'"),
        (".aggregation.json", b'{"segGroups": [{"label": ["a"], "segments": []}]}', "without 'label'"),
        (".aggregation.json", b'{"segGroups": [{"label": "wall", "segments": "a"}]}', "whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b'{"segIndices": ["a"]}', "whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b'{"segIndices": [[1, 2], [3]]}', "whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b'{"segIndices": {"a": 1.5}}', "whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", b"[" * 100_000, "damaged"),
    ],
)
def test_malformed_annotations_are_reported_and_others_prepared(
    raw, tmp_path, monkeypatch, capsys, name, content, message
):
    broken, path = damage_in(tmp_path, raw, name, content)
    lists = ("--train-list", raw / "train.txt", "--val-list", raw / "val.txt", "--workers", 1)
    assert run_command("prepare", broken, tmp_path / "out", *lists) == 1
    captured = capsys.readouterr()
    assert "1 scenes ready, 1 failed" in captured.out
    failed = [line for line in captured.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and str(path) in failed[0] and message in failed[0]


@pytest.mark.parametrize(
    "row", ["5\tx\tx\t1\t300", "-5\tx\tx\t1\t3", "5\tx\tx\t1\t" + "3" * 200_000, "99999999999\tx\tx\t1\t3"]
)
def test_malformed_tables(tmp_path, row):
    path = tmp_path / "table.tsv"
    write_table(path)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(UserError, match=r"table\.tsv: not ScanNet's table"):
        read_categories(path)


def test_unforeseen_damage_does_not_stop_the_others():
    def prepare(name):
        return {"good": 1}[name]

    results = dict(run_all(prepare, [("bad",), ("good",)], 1))
    assert results[("good",)] == 1 and str(results[("bad",)]).startswith("bad: cannot be read (KeyError")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"scene\0", b"../scene0000_00"])
def test_lists_that_are_none(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt: .*a line"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --train-list"),
        (("--train-list", "nowhere.txt"), "nowhere.txt: missing"),
        (("--train-list", "{raw}/train.txt", "--val-list", "{raw}/train.txt"), "in two lists"),
        (("--train-list", "{raw}/train.txt", "--labels", "none.tsv"), "none.tsv: missing"),
        (("--step", "0"), "1 or more"),
    ],
)
def test_tool_errors_are_one_line(raw, tmp_path, capsys, arguments, message):
    arguments = [a.format(raw=raw) for a in arguments]
    assert run_command("prepare", raw, tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_missing_parts_are_noted(raw, tmp_path):
    partial = tmp_path / "raw" / "scene0001_00"
    partial.mkdir(parents=True)
    shutil.copy(raw / "scans" / "scene0001_00" / "scene0001_00_vh_clean_2.ply", partial)
    settings = Settings(tmp_path / "raw", tmp_path / "out", raw / "scannetv2-labels.combined.tsv")
    report = prepare_scene("scene0001_00", "test", settings)
    assert [note.split(":")[0] for note in report.notes] == [
        "no labels.ply",
        "no aggregation.json or segs.json",
        "no .sens recording",
    ]
    labels = read_points(tmp_path / "out" / "scannet_3d" / "test" / "scene0001_00_vh_clean_2.pth")[2]
    assert (labels == 255).all()
    with pytest.raises(UserError, match="no folder of scene other"):
        prepare_scene("other", "test", settings)


def raw_files(raw, *endings):
    return [raw / "scans" / "scene0001_00" / f"scene0001_00{ending}" for ending in endings]


def test_raw_files_that_come_later_are_taken_in(raw, tmp_path):
    scene, partial = "scene0001_00", tmp_path / "raw" / "scene0001_00"
    partial.mkdir(parents=True)
    mesh, *others = raw_files(raw, "_vh_clean_2.ply", "_vh_clean_2.labels.ply", ".sens", "_2d-label-filt.zip")
    shutil.copy(mesh, partial)
    settings = Settings(tmp_path / "raw", tmp_path / "out", raw / "scannetv2-labels.combined.tsv")
    points = tmp_path / "out" / "scannet_3d" / "val" / f"{scene}_vh_clean_2.pth"
    frames = tmp_path / "out" / "scannet_2d" / scene
    assert prepare_scene(scene, "val", settings).frames == 0 and (read_points(points)[2] == 255).all()
    assert prepare_scene(scene, "val", settings).skipped
    for path in others:
        shutil.copy(path, partial)
    assert prepare_scene(scene, "val", settings).frames == 1
    np.testing.assert_array_equal(read_points(points)[2], BoxRoom(1, 0.1).labels)
    assert (frames / "label" / "0.png").is_file() and (frames / "color" / "0.jpg").is_file()
    shutil.rmtree(partial)  # raw data need not be kept
    assert prepare_scene(scene, "val", settings).skipped


def test_published_files_are_not_replaced_by_unlabelled_ones(raw, tmp_path):
    scene, partial, out = "scene0001_00", tmp_path / "raw" / "scene0001_00", tmp_path / "out"
    prepare_scene(scene, "val", Settings(raw, out, raw / "scannetv2-labels.combined.tsv"))
    shutil.rmtree(out / ".prepared")
    shutil.rmtree(out / "scannet_2d" / scene / "label")  # as the archives come: labelled points, frames, no pictures
    points = out / "scannet_3d" / "val" / f"{scene}_vh_clean_2.pth"
    before = points.read_bytes()
    partial.mkdir(parents=True)
    for path in raw_files(raw, "_vh_clean_2.ply", "_2d-label-filt.zip"):
        shutil.copy(path, partial)
    report = prepare_scene(scene, "val", Settings(tmp_path / "raw", out, raw / "scannetv2-labels.combined.tsv"))
    assert points.read_bytes() == before
    assert report.frames == 1 and (out / "scannet_2d" / scene / "label" / "0.png").is_file()
    assert report.notes == [
        f"no labels.ply: {points} stays as it is",
        "no aggregation.json or segs.json: no raw ids for the 200 classes",
        "no .sens recording: the 1 frames that are there stay as they are",
    ]


def touch_slowly(path):
    path.touch()
    time.sleep(0.2)


def test_a_stop_leaves_out_what_has_not_begun(tmp_path):
    results = run_all(touch_slowly, [(tmp_path / str(number),) for number in range(40)], 2)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert len(list(tmp_path.iterdir())) < 12


def test_no_process_outlives_the_last_result(tmp_path):
    before = set(multiprocessing.active_children())
    assert len(list(run_all(touch_slowly, [(tmp_path / str(number),) for number in range(3)], 2))) == 3
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends early"),
        (sens_header(1, version=3), "says 3"),
        (sens_header(1, depth_codec=2), "cannot be read"),
        (sens_header(1, color_codec=7), "cannot be read"),
        (sens_header(2) + sens_frame(np.eye(4), b"x", b"y"), "ends early"),
        (sens_header(1)[:50], "ends early"),
    ],
)
def test_damaged_recordings(tmp_path, content, message):
    path = tmp_path / "a.sens"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.sens.*{message}"), SensFile(path) as source:
        list(source.frames())


def test_damaged_pictures_of_a_recording(tmp_path):
    path = tmp_path / "a.sens"
    path.write_bytes(sens_header(1) + sens_frame(np.eye(4), b"no jpeg", b"no zlib"))
    with SensFile(path) as source:
        frame = next(source.frames())
        with pytest.raises(UserError, match="colour of frame 0"):
            source.decode_color(frame)
        with pytest.raises(UserError, match="depth of frame 0"):
            source.decode_depth(frame)


def test_classes_of_nyu40():
    ids = np.array([0, 1, 12, 13, 14, 16, 24, 39, 40, 77, -1, 1 << 60])
    assert classes_of_nyu40(ids).tolist() == [255, 0, 11, 255, 12, 13, 14, 19, *[255] * 4]


def test_depth_is_in_millimetres(prepared):
    depth = Image.open(prepared[0] / "scannet_2d" / "scene0000_00" / "depth" / "0.png")
    assert depth.mode.startswith("I;16") or depth.mode == "I"
    assert 500 < np.median(np.asarray(depth)) < 5000


def test_a_scene_list_that_is_not_text(tmp_path):
    (tmp_path / "list").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text file"):
        read_list(tmp_path / "list")
