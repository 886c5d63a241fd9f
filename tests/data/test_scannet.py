import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers.scenes import CLASSES, BoxRoom, write_scenes
from tests.helpers.views import read_whole
from xmask3d.data.files import read_points, write_points
from xmask3d.data.scannet import S3DIS, SCANNET, SCANNET200, ScanNetReader
from xmask3d.engine.evaluation_key import digest_of_sources
from xmask3d.errors import UserError
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS
from xmask3d.splits import load_benchmark


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scans"), views=2, spacing=0.1)


@pytest.fixture(scope="module")
def benchmark20():
    return load_benchmark("scannet20/B15N4")


def test_scene(root, benchmark20):
    reader = SCANNET.open(root, "train", benchmark20)
    assert reader.scene_names == ["scene0000_00", "scene0001_00"]
    assert SCANNET.open(root, "val", benchmark20).scene_names == ["scene0002_00"]
    scene, room = reader.read_scene("scene0001_00"), BoxRoom(1, 0.1)
    np.testing.assert_array_equal(scene.points, room.points)
    np.testing.assert_array_equal(scene.colors, room.colors)
    np.testing.assert_array_equal(scene.labels, np.where(room.labels >= 19, 19, room.labels))
    assert (scene.labels == 19).any() and scene.view_names == ["0", "20"]


def test_scene_with_200_classes(root):
    benchmark = load_benchmark("scannet200/B170N30")
    scene = SCANNET200.open(root, "train", benchmark).read_scene("scene0000_00")
    room = BoxRoom(0, 0.1)
    names = [benchmark.class_names[label] if label < 200 else "" for label in np.unique(scene.labels)]
    assert {"wall", "floor", "couch", "toilet", "object"} & set(names) == {"wall", "floor", "couch", "toilet"}
    np.testing.assert_array_equal(scene.labels == 0, room.raw_labels == CLASSES["wall"][2])


def test_view(root, benchmark20):
    reader = SCANNET.open(root, "train", benchmark20)
    view = reader.read_view("scene0000_00", "20")
    room = BoxRoom(0)
    color, depth, kind = room.render(room.pose(np.pi + 0.3), PUBLISHED_INTRINSICS, (240, 320))
    assert np.abs(view.image.astype(int) - color).mean() < 4
    np.testing.assert_allclose(view.depth, depth, atol=6e-4)
    np.testing.assert_allclose(view.pose, room.pose(np.pi + 0.3), atol=1e-12)
    classes = np.array([CLASSES[name][0] for name in room.surface_names])[kind]
    np.testing.assert_array_equal(view.label_map, np.where(classes >= 19, 19, classes))
    assert view.caption == "a room with a chair and a table, view 1"
    assert view.intrinsics == PUBLISHED_INTRINSICS


def test_frames_are_in_order_of_their_number(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    color = tmp_path / "data" / "scannet_2d" / "scene0000_00" / "color"
    for name in ("100", "9", "1000"):
        shutil.copy(color / "0.jpg", color / f"{name}.jpg")
    reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
    assert reader.read_scene("scene0000_00").view_names == ["0", "9", "20", "100", "1000"]


def test_own_intrinsics_and_published_ones(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    matrix = np.array([[280, 0, 150], [0, 281, 110], [0, 0, 1.0]])
    np.savetxt(tmp_path / "data" / "scannet_2d" / "scene0000_00" / "intrinsics.txt", matrix)
    own = SCANNET.open(tmp_path / "data", "train", benchmark20)
    assert own.read_view("scene0000_00", "0").intrinsics.fx == 280
    assert own.read_view("scene0001_00", "0").intrinsics == PUBLISHED_INTRINSICS
    frame = tmp_path / "data" / "scannet_2d" / "scene0000_00" / "intrinsics" / "20.txt"
    frame.parent.mkdir()
    np.savetxt(frame, np.array([[290, 0, 150], [0, 291, 110], [0, 0, 1.0]]))
    assert [own.read_view("scene0000_00", view).intrinsics.fx for view in ("0", "20")] == [280, 290]
    forced = SCANNET.open(tmp_path / "data", "train", benchmark20, published_intrinsics=True)
    assert all(forced.read_view("scene0000_00", view).intrinsics == PUBLISHED_INTRINSICS for view in ("0", "20"))


def test_rooms_of_s3dis_need_their_own_intrinsics(root, tmp_path):
    shutil.copytree(root / "scannet_3d", tmp_path / "s3dis_3d")
    shutil.copytree(root / "scannet_2d", tmp_path / "s3dis_2d")
    reader = S3DIS.open(tmp_path, "train", load_benchmark("s3dis/B8N4"))
    with pytest.raises(UserError, match=r"intrinsics\.txt: missing"):
        read_whole(reader, "scene0000_00", "0")
    np.savetxt(tmp_path / "s3dis_2d" / "intrinsics.txt", np.array([[280, 0, 150], [0, 281, 110], [0, 0, 1.0]]))
    reader = S3DIS.open(tmp_path, "train", load_benchmark("s3dis/B8N4"))
    assert reader.read_view("scene0001_00", "0").intrinsics.fy == 281


def test_frames_of_another_size_are_resized(benchmark20, tmp_path):
    root = write_scenes(tmp_path, {"train": 1}, views=1, spacing=0.2, size=(120, 160))
    view = SCANNET.open(root, "train", benchmark20).read_view("scene0000_00", "0")
    assert view.image.shape == (240, 320, 3) and view.depth.shape == view.label_map.shape == (240, 320)
    np.testing.assert_array_equal(view.depth[::2, ::2], view.depth[1::2, 1::2])


def test_cached_scenes_are_equal(root, benchmark20, tmp_path):
    plain = SCANNET.open(root, "train", benchmark20).read_scene("scene0000_00")
    for _ in range(2):
        kept = SCANNET.open(root, "train", benchmark20, cache=tmp_path).read_scene("scene0000_00")
        np.testing.assert_array_equal(kept.points, plain.points)
        np.testing.assert_array_equal(kept.colors, plain.colors)
        np.testing.assert_array_equal(kept.labels, plain.labels)
    assert len(list((tmp_path / "scenes").iterdir())) == 1


def test_a_changed_scene_file_is_not_taken_from_the_cache(benchmark20, tmp_path):
    root = write_scenes(tmp_path / "data", {"train": 1}, views=1, spacing=0.2)
    first = SCANNET.open(root, "train", benchmark20, cache=tmp_path / "kept").read_scene("scene0000_00")
    write_scenes(tmp_path / "data", {"train": 1}, views=1, spacing=0.15)
    second = SCANNET.open(root, "train", benchmark20, cache=tmp_path / "kept").read_scene("scene0000_00")
    assert len(second.points) > len(first.points)


def test_a_scene_file_of_the_same_size_and_time_is_not_taken_from_the_cache(benchmark20, tmp_path):
    root = write_scenes(tmp_path / "data", {"train": 1}, views=1, spacing=0.2)
    path = root / "scannet_3d" / "train" / "scene0000_00_vh_clean_2.pth"
    before = path.stat()
    first = SCANNET.open(root, "train", benchmark20, cache=tmp_path / "kept").read_scene("scene0000_00")
    points, colors, labels = read_points(path)
    write_points(path, points, colors, 19 - labels)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    second = SCANNET.open(root, "train", benchmark20, cache=tmp_path / "kept").read_scene("scene0000_00")
    assert (first.labels != second.labels).any()


@pytest.mark.parametrize("pixels", [np.zeros((240, 320, 3), np.uint8), np.full((240, 320), 200, np.uint8)])
def test_depth_of_three_channels_or_eight_bits_is_refused(pixels, benchmark20, tmp_path):
    root = write_scenes(tmp_path / "data", {"train": 1}, views=1, spacing=0.2)
    path = root / "scannet_2d" / "scene0000_00" / "depth" / "0.png"
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=rf"{path}: no depth picture"):
        _ = SCANNET.open(root, "train", benchmark20).read_view("scene0000_00", "0").depth


def test_only_a_few_scenes_are_held(root, benchmark20):
    reader = ScanNetReader(SCANNET, root, "train", benchmark20, keep_points=10_000)
    first = reader.read_scene("scene0000_00")
    assert reader.read_scene("scene0000_00") is first
    reader.read_scene("scene0001_00")
    assert reader.read_scene("scene0000_00") is not first


def test_without_label_pictures(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "scannet_2d" / "scene0000_00" / "label")
    reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
    assert reader.read_view("scene0000_00", "0").label_map is None
    assert reader.read_view("scene0001_00", "0").label_map is not None


@pytest.mark.parametrize("part", ["color/20.jpg", "depth/20.png", "pose/20.txt", "label/20.png"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_frames_are_named(root, benchmark20, tmp_path, part, damage):
    shutil.copytree(root, tmp_path / "data")
    path = tmp_path / "data" / "scannet_2d" / "scene0000_00" / part
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
    with pytest.raises(UserError, match=part.split("/")[0]):
        read_whole(reader, "scene0000_00", "20")


def test_files_of_a_broken_run_are_neither_scenes_nor_views(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data" / "scannet_3d" / "train" / ".part-ab12.pth").write_bytes(b"half")
    (tmp_path / "data" / "scannet_2d" / "scene0000_00" / "color" / ".part-cd34.jpg").write_bytes(b"half")
    expected = SCANNET.open(root, "train", benchmark20)
    reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
    assert reader.scene_names == expected.scene_names
    assert reader.view_names("scene0000_00") == expected.view_names("scene0000_00")


def test_a_damaged_first_picture_leaves_the_camera_to_the_others(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    expected = SCANNET.open(root, "train", benchmark20).read_view("scene0000_00", "20").intrinsics
    path = tmp_path / "data" / "scannet_2d" / "scene0000_00" / "color" / "0.jpg"
    for content in (path.read_bytes()[:400], b""):
        path.write_bytes(content)
        reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
        assert reader.read_view("scene0000_00", "20").intrinsics == expected


def test_raw_labels_must_fit(root, tmp_path):
    benchmark = load_benchmark("scannet200/B170N30")
    shutil.copytree(root, tmp_path / "data")
    path = tmp_path / "data" / "scannet_3d_200" / "train" / "scene0000_00.txt"
    for text, message in [
        ("1\n2\n", "2 ids for"),
        ("a\n", "line 1: not one whole number"),
        ("3.7\n4\n", "line 1: not one whole number"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            SCANNET200.open(tmp_path / "data", "train", benchmark).read_scene("scene0000_00")
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        SCANNET200.open(tmp_path / "data", "train", benchmark).read_scene("scene0000_00")


def test_raw_labels_may_have_a_decimal_point(root, tmp_path):
    benchmark = load_benchmark("scannet200/B170N30")
    before = SCANNET200.open(root, "train", benchmark).read_scene("scene0000_00").labels
    shutil.copytree(root, tmp_path / "data")
    path = tmp_path / "data" / "scannet_3d_200" / "train" / "scene0000_00.txt"
    np.savetxt(path, np.loadtxt(path), fmt="%.2f")
    after = SCANNET200.open(tmp_path / "data", "train", benchmark).read_scene("scene0000_00").labels
    np.testing.assert_array_equal(after, before)


def test_label_picture_with_colours_is_refused(root, benchmark20, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    path = tmp_path / "data" / "scannet_2d" / "scene0000_00" / "label" / "0.png"
    Image.fromarray(np.zeros((240, 320, 3), np.uint8)).save(path)
    with pytest.raises(UserError, match="not a picture of ids"):
        read_whole(SCANNET.open(tmp_path / "data", "train", benchmark20), "scene0000_00", "0")


def test_wrong_places(root, benchmark20, tmp_path):
    with pytest.raises(UserError, match="no scene files"):
        SCANNET.open(tmp_path, "train", benchmark20)
    reader = SCANNET.open(root, "train", benchmark20)
    with pytest.raises(UserError, match="no scene 'nothing'"):
        reader.read_scene("nothing")
    with pytest.raises(UserError, match="no frame '7'"):
        read_whole(reader, "scene0000_00", "7")


def test_captions_file(root, benchmark20, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"scene0000_00": {"0": "words"}}))
    reader = SCANNET.open(root, "train", benchmark20, captions=path)
    assert reader.read_view("scene0000_00", "0").caption == "words"
    assert reader.read_view("scene0000_00", "20").caption is None
    for text in ("{", "[1]", '{"a": 1}', '{"a": {"0": 5}}', '{"a": {"0": "\\ud800"}}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"other\.json"):
            SCANNET.open(root, "train", benchmark20, captions=path)
    with pytest.raises(UserError, match="missing"):
        SCANNET.open(root, "train", benchmark20, captions=tmp_path / "none.json")


def test_sources_change_with_segments_and_camera(root, benchmark20, tmp_path):
    """An evaluation of the scene resumes only while they are the same."""
    shutil.copytree(root, tmp_path / "data")
    reader = SCANNET.open(tmp_path / "data", "train", benchmark20)
    scene, frames = "scene0000_00", tmp_path / "data" / "scannet_2d" / "scene0000_00"
    segments = reader.scene_path(scene).with_name(f"{scene}_vh_clean_2.0.010000.segs.json")
    before = digest_of_sources(reader, scene)
    segments.write_text(json.dumps({"segIndices": [0] * len(reader.read_scene(scene).points)}))
    with_segments = digest_of_sources(reader, scene)
    (frames / "intrinsics.txt").write_text("280 0 160\n0 280 120\n0 0 1\n")
    assert len({before, with_segments, digest_of_sources(reader, scene)}) == 3
