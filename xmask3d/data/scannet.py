"""Reader of processed scans in ScanNet's layout (20 classes, 200 classes) and of S3DIS rooms in the same layout."""

import hashlib
import json
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from xmask3d.data.dataset_spec import DatasetSpec
from xmask3d.data.files import (
    intrinsics_files,
    picture_size,
    read_camera,
    read_intrinsics,
    read_picture,
    read_points,
    read_pose,
    visible_files,
)
from xmask3d.data.files import published_intrinsics as published
from xmask3d.data.id_files import parse_ids, read_text
from xmask3d.data.images import resize_bilinear, resize_nearest
from xmask3d.data.measurements import Tell
from xmask3d.data.scene import Scene, View
from xmask3d.data.segments import read_segments, segment_files
from xmask3d.errors import UserError
from xmask3d.files import atomic_write
from xmask3d.geometry.camera import Intrinsics
from xmask3d.guarded import is_text, read_object
from xmask3d.seal import check_beside, is_whole_cache, sealed
from xmask3d.splits import Benchmark

log = logging.getLogger(__name__)

SCENE_SUFFIX = "_vh_clean_2"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
KEEP_POINTS = 4_000_000


class FileView(View):
    """View with files that are decoded on demand, so that files not needed for a sample are never read."""

    def __init__(self, reader: "ScanNetReader", scene: str, name: str) -> None:
        self.scene, self.name = scene, name
        self.caption = reader.caption(scene, name)
        self._reader = reader

    @cached_property
    def image(self) -> np.ndarray:  # type: ignore[override]
        path = self._reader.color_path(self.scene, self.name)
        image = read_picture(path, "RGB")
        if image.shape[:2] != self._reader.frame_size:
            image = resize_bilinear(image.transpose(2, 0, 1), self._reader.frame_size).transpose(1, 2, 0)
        return image

    @cached_property
    def depth(self) -> np.ndarray:  # type: ignore[override]
        path = self._reader.view_folder(self.scene) / "depth" / f"{self.name}.png"
        depth = read_picture(path)
        if depth.ndim != 2 or depth.dtype == np.uint8:
            raise UserError(f"{path}: no depth picture, which has one channel of 16 bits")
        return (resize_nearest(depth, self._reader.frame_size) / self._reader.spec.depth_unit).astype(np.float32)

    @cached_property
    def pose(self) -> np.ndarray:  # type: ignore[override]
        return read_pose(self._reader.view_folder(self.scene) / "pose" / f"{self.name}.txt")

    @cached_property
    def intrinsics(self) -> Intrinsics:  # type: ignore[override]
        return self._reader.intrinsics(self.scene, self.name)

    @cached_property
    def label_map(self) -> np.ndarray | None:  # type: ignore[override]
        return self._reader.read_label_map(self.scene, self.name)


@dataclass(frozen=True)
class Folders:
    """Names of folders below the root of a data set.

    Attributes:
        points: folder of scene files, by split.
        views: folder of frames, by scene.
        raw_labels: folder of raw label ids of points, by split; None if the scene files hold the labels.
        label_pictures: folder of a scene's label pictures, beside its colour pictures.
    """

    points: str = "scannet_3d"
    views: str = "scannet_2d"
    raw_labels: str | None = None
    label_pictures: str = "label"


class ScanNetReader:
    """Reader of one split of a processed data set.

    On disk, below `root`::

        scannet_3d/<split>/<scene>_vh_clean_2.pth      (points n x 3, colours n x 3 in [-1, 1], label ids n)
        scannet_3d_200/<split>/<scene>.txt             raw category id per point (ScanNet200)
        scannet_2d/<scene>/color/<n>.jpg  depth/<n>.png (16 bit, mm)  pose/<n>.txt  label/<n>.png  label_200/<n>.png
        scannet_2d/<scene>/intrinsics.txt              optional
        scannet_2d/<scene>/intrinsics/<n>.txt          optional, where frames have cameras of their own

    Args:
        spec: facts about the data set.
        root: folder of the data set.
        split: sub-folder such as "train".
        benchmark, captions, frame_size, published_intrinsics: see `DatasetSpec.open`.
        cache: folder for decoded scenes, which are mapped into memory so that only the points in use are read.
        folders: names of the folders.
        keep_points: number of points of decoded scenes to keep in memory, at 32 bytes each.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        root: Path,
        split: str,
        benchmark: Benchmark,
        *,
        captions: Path | None = None,
        frame_size: tuple[int, int] = (240, 320),
        published_intrinsics: bool = False,
        cache: Path | None = None,
        folders: Folders = Folders(),
        keep_points: int = KEEP_POINTS,
    ) -> None:
        self.spec, self.root, self.split, self.benchmark = spec, Path(root), split, benchmark
        self.frame_size: tuple[int, int] = (frame_size[0], frame_size[1])
        self._points = self.root / folders.points / split
        self._views = self.root / folders.views
        self._raw_labels = self.root / folders.raw_labels / split if folders.raw_labels else None
        self._label_pictures, self._published = folders.label_pictures, published_intrinsics
        self._cache, self._keep_points = cache, keep_points
        self._scenes: OrderedDict[str, Scene] = OrderedDict()
        self._listings: dict[str, dict[str, Path]] = {}
        self._intrinsics: dict[str, Intrinsics] = {}
        self._captions = read_captions(captions) if captions else {}
        self._paths = {p.stem.removesuffix(SCENE_SUFFIX): p for p in visible_files(self._points) if p.suffix == ".pth"}
        self.scene_names = list(self._paths)
        if not self.scene_names:
            raise UserError(f"{self._points}: no scene files (*.pth); see the README on getting data")

    def __getstate__(self) -> dict:
        """Return the state for worker processes, which start without scenes in memory."""
        return self.__dict__ | {"_scenes": OrderedDict()}

    def view_folder(self, scene: str) -> Path:
        """Return the folder of a scene's frames."""
        return self._views / scene

    def color_path(self, scene: str, view: str) -> Path:
        """Return the path of a view's colour picture."""
        path = self._listing(scene).get(view)
        if path is None:
            raise UserError(f"{self.view_folder(scene) / 'color'}: no frame '{view}'")
        return path

    def label_path(self, scene: str, view: str) -> Path:
        """Return the path of a view's label picture, which need not exist."""
        return self.view_folder(scene) / self._label_pictures / f"{view}.png"

    def view_names(self, scene: str) -> list[str]:
        """List the frames of a scene in the order of their numbers; none for a scan without images."""
        return list(self._listing(scene))

    def scene_path(self, scene: str) -> Path:
        """Return the path of the scene file."""
        if scene not in self._paths:
            raise UserError(f"{self._points}: no scene '{scene}'")
        return self._paths[scene]

    def sources(self, scene: str) -> list[Path]:
        """Return files and folders whose times show that points, labels, segments, cameras or frames have changed."""
        folder = self.view_folder(scene)
        frames = (folder / part for part in ("color", "depth", "pose", "intrinsics"))
        return [*self._point_files(scene), *segment_files(self.scene_path(scene)), *intrinsics_files(folder), *frames]

    def _point_files(self, scene: str) -> list[Path]:
        """Return the files that hold points, colours and labels of a scene."""
        return [self.scene_path(scene)] + ([self._raw_labels / f"{scene}.txt"] if self._raw_labels else [])

    def visibility_files(self, scene: str, view: str) -> list[Path]:
        """Return the files that determine which points a view sees; they form the key of cached results."""
        folder = self.view_folder(scene)
        return [self.scene_path(scene), folder / "depth" / f"{view}.png", folder / "pose" / f"{view}.txt"]

    def caption(self, scene: str, view: str) -> str | None:
        """Return the sentence of a view."""
        return self._captions.get(scene, {}).get(view)

    def intrinsics(self, scene: str, view: str) -> Intrinsics:
        """Return the camera of a frame, its own or that of its scene, on the frame grid."""
        own = self.view_folder(scene) / "intrinsics" / f"{view}.txt"
        if not self._published and own.is_file():
            return read_camera(own, picture_size(self.color_path(scene, view)) or self.frame_size, self.frame_size)
        if scene not in self._intrinsics:
            found = None
            if not self._published:
                # the first picture may be damaged
                sizes = (picture_size(path) for path in self._listing(scene).values())
                stored = next((size for size in sizes if size), None)
                found = read_intrinsics(self.view_folder(scene), self.frame_size, stored) if stored else None
            if found is None and not (self.spec.one_camera or self._published):
                raise UserError(f"{self.view_folder(scene) / 'intrinsics.txt'}: missing (a 3 x 3 matrix, in pixels)")
            self._intrinsics[scene] = found or published(self.frame_size)
        return self._intrinsics[scene]

    def read_scene(self, name: str) -> Scene:
        """Read a scene; see `SceneReader`. The arrays are shared between calls: do not change them."""
        if name in self._scenes:
            self._scenes.move_to_end(name)
            return self._scenes[name]
        scene = self._read_cached(name, Path(self._cache)) if self._cache else self._read_scene(name)
        self._scenes[name] = scene
        while sum(len(kept.points) for kept in self._scenes.values()) > self._keep_points:
            self._scenes.popitem(last=False)
        return scene

    def read_view(self, scene: str, view: str) -> View:
        """Find a frame, whose files are decoded on demand; see `SceneReader`."""
        return FileView(self, scene, view)

    def read_label_map(self, scene: str, view: str) -> np.ndarray | None:
        """Read the class ids of a frame's pixels, h x w int64; None if the scene has no folder of label pictures."""
        path = self.label_path(scene, view)
        if not path.parent.is_dir():
            return None
        labels = read_picture(path)
        if labels.ndim != 2:
            raise UserError(f"{path}: not a picture of ids (it has {labels.shape[-1]} channels)")
        return self.benchmark.classes_of_pixels(resize_nearest(labels, self.frame_size))

    def _listing(self, scene: str) -> dict[str, Path]:
        if scene not in self._listings:
            folder = self.view_folder(scene) / "color"
            found = [path for path in visible_files(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
            self._listings[scene] = {p.stem: p for p in sorted(found, key=_frame_order)}
        return self._listings[scene]

    def read_files(self, name: str, tell: Tell = log.warning) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Read points, colours and label ids (or None) of a scene as they are in files; repairs are reported."""
        points, colors, file_ids = read_points(self.scene_path(name), tell)
        if self._raw_labels is not None:
            file_ids = _read_raw_labels(self._raw_labels / f"{name}.txt", len(points))
        return points, colors, file_ids

    def _read_scene(self, name: str) -> Scene:
        points, colors, file_ids = self.read_files(name)
        labels = None if file_ids is None else self.benchmark.classes_of_points(file_ids)
        segments = read_segments(self.scene_path(name), len(points))
        return Scene(name, points, colors, labels, self.view_names(name), segments)

    def _read_cached(self, name: str, cache: Path) -> Scene:
        """Read the scene as records of a single mapped file, which is written on first use."""
        parameters = [self.benchmark.name, list(self.benchmark.file_ids_3d)]
        path = cache / "scenes" / f"{name}-{digest(self._point_files(name), parameters)}.npy"
        try:
            whole = is_whole_cache(path)
            if not whole:
                log.warning("%s: damaged, making it again", path)
        except OSError:
            whole = False
        if whole:
            records = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            records = _records(self._read_scene(name))
            atomic_write(path, sealed(lambda part: np.save(part, records)), sync=False)
        records = np.asarray(records)  # a plain array on the mapped file, which is faster to index
        labels = records["label"]
        without = len(labels) > 0 and labels[0] == _NO_LABELS
        segments = read_segments(self.scene_path(name), len(records))
        return Scene(
            name, records["point"], records["color"], None if without else labels, self.view_names(name), segments
        )


_NO_LABELS = -1


def _records(scene: Scene) -> np.ndarray:
    kinds = np.dtype([("point", "<f4", 3), ("color", "<f4", 3), ("label", "<i8")])
    records = np.empty(len(scene.points), kinds)
    records["point"], records["color"] = scene.points, scene.colors
    records["label"] = _NO_LABELS if scene.labels is None else scene.labels
    return records


def digest(files: list[Path], parameters: list) -> str:
    """Return a short name for a result computed from files (identified by path, size and times) and parameters.

    The modification time alone would not do, since it can be set and is the same for all files of some archives; the
    time of the last status change cannot be set.
    """
    try:
        stats = [
            (os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for path in files
            for stat in [path.stat()]
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: missing") from error
    return hashlib.blake2b(json.dumps([stats, parameters]).encode(), digest_size=8).hexdigest()


def read_captions(path: Path) -> dict[str, dict[str, str]]:
    """Read {scene: {view: sentence}}."""
    check_beside(Path(path))
    content = read_object(Path(path), "captions in JSON")
    if not all(isinstance(views, dict) for views in content.values()):
        raise UserError(f"captions {path}: expected {{scene: {{view: sentence}}}}")
    for scene, views in content.items():
        for view, sentence in views.items():
            if not isinstance(sentence, str) or not is_text(sentence):
                raise UserError(f"captions {path}: {scene}, view {view}: {json.dumps(sentence)[:40]} is no sentence")
    return content


def _frame_order(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdigit() else (1 << 62, path.stem)


def _read_raw_labels(path: Path, count: int) -> np.ndarray:
    if not path.exists():
        raise UserError(f"{path}: missing; ScanNet200 needs the raw category id of every point")
    labels = parse_ids(path, read_text(path))
    if len(labels) != count:
        raise UserError(f"{path}: {len(labels)} ids for {count} points")
    return labels


SCANNET = DatasetSpec(
    "scannet",
    ScanNetReader,
    one_camera=True,
    class_list="scannet20",
    largest_ids=(19, 40),  # NYU20 in 3D files, NYU40 in label pictures
    scenes={"train": 1201, "val": 312},
    imitated="rooms.json",
)
SCANNET200 = DatasetSpec(
    "scannet200",
    partial(ScanNetReader, folders=Folders(raw_labels="scannet_3d_200", label_pictures="label_200")),
    one_camera=True,
    class_list="scannet200",
    largest_ids=(1357, 1357),  # ScanNet's own categories
    scenes=SCANNET.scenes,
    imitated="rooms.json",
)
S3DIS = DatasetSpec(
    "s3dis",
    partial(ScanNetReader, folders=Folders(points="s3dis_3d", views="s3dis_2d")),
    class_list="s3dis",
    largest_ids=(12, 12),  # including clutter
)


def _prepared(name: str, largest: int) -> DatasetSpec:
    """Return facts about a data set that `xmask3d prepare` brings into this layout, with one list of ids."""
    reader = partial(ScanNetReader, folders=Folders(points=f"{name}_3d", views=f"{name}_2d"))
    return DatasetSpec(name, reader, class_list=name, largest_ids=(largest, largest))


SCANNETPP = _prepared("scannetpp", 100)  # place in the list of the semantic benchmark, from 1
MATTERPORT = _prepared("matterport", 40)  # NYU40
ARKITSCENES = _prepared("arkitscenes", 17)  # place in the list of annotated boxes, from 1
REPLICA = _prepared("replica", 101)  # Replica's own classes
LAYOUTS = {spec.name: spec for spec in (SCANNET, SCANNET200, S3DIS, SCANNETPP, MATTERPORT, ARKITSCENES, REPLICA)}
"""Data sets that come with the program, by `data.layout`."""
