"""A small furnished room of boxes, rendered consistently, in the on-disk layout of processed ScanNet."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from xmask3d.data.files import write_points
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS, Intrinsics

# name: (id in 3D files, NYU40 id, raw ScanNet id)
CLASSES = {
    "wall": (0, 1, 1),
    "floor": (1, 2, 3),
    "cabinet": (2, 3, 7),
    "bed": (3, 4, 11),
    "chair": (4, 5, 2),
    "sofa": (5, 6, 6),
    "table": (6, 7, 4),
    "door": (7, 8, 5),
    "bookshelf": (9, 10, 18),
    "desk": (12, 14, 8),
    "refrigerator": (14, 24, 27),
    "toilet": (16, 33, 17),
    "otherfurniture": (19, 39, 1164),
    "unlabelled": (255, 0, 0),
}


@dataclass
class Box:
    """An axis-aligned block of one class: corners in metres, colour 0..255."""

    name: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    color: tuple[int, int, int]


class BoxRoom:
    """A room of 4 x 3.6 x 2.5 m with furniture boxes, as points and as frames.

    Args:
        seed: chooses sizes, places and colours.
        spacing: metres between neighbouring points on a surface.
    """

    size = (4.0, 3.6, 2.5)
    kinds = ("bed", "chair", "sofa", "table", "bookshelf", "desk", "refrigerator", "toilet", "otherfurniture")

    def __init__(self, seed: int = 0, spacing: float = 0.05) -> None:
        self.seed, rng = seed, np.random.default_rng(seed)
        self.boxes = [self._furniture(rng, kind, place) for place, kind in enumerate(self.kinds)]
        points, colors, names = [], [], []
        for surface in self._surfaces():
            origin, u, v, name, color = surface
            steps = [max(int(np.linalg.norm(axis) / spacing), 1) for axis in (u, v)]
            grid = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in steps]), -1).reshape(-1, 2)
            grid = grid + rng.uniform(-0.4, 0.4, grid.shape) / steps
            points.append(np.asarray(origin) + grid @ np.stack([u, v]))
            colors.append(np.clip(np.asarray(color) + rng.normal(0, 6, (len(grid), 3)), 0, 255))
            names += [name] * len(grid)
        self.points = np.concatenate(points).astype(np.float32)
        self.colors = (np.concatenate(colors) / 127.5 - 1).astype(np.float32)
        self.labels = np.array([CLASSES[name][0] for name in names])
        self.raw_labels = np.array([CLASSES[name][2] for name in names])

    def _furniture(self, rng: np.random.Generator, kind: str, place: int) -> Box:
        column, row = place % 3, place // 3
        center = np.array([0.75 + column * 1.25, 0.7 + row * 1.1]) + rng.uniform(-0.08, 0.08, 2)
        half = rng.uniform(0.22, 0.36, 2)
        height = rng.uniform(0.4, 1.3)
        color = tuple(int(c) for c in rng.integers(40, 220, 3))
        return Box(kind, (*(center - half), 0.0), (*(center + half), height), color)

    def _surfaces(self) -> list[tuple]:
        x, y, z = self.size
        result = [
            ((0, 0, 0), (x, 0, 0), (0, y, 0), "floor", (120, 100, 80)),
            ((0, 0, 0), (x, 0, 0), (0, 0, z), "wall", (220, 215, 200)),
            ((0, y, 0), (x, 0, 0), (0, 0, z), "wall", (210, 220, 205)),
            ((0, 0, 0), (0, y, 0), (0, 0, z), "wall", (205, 210, 220)),
            ((x, 0, 0), (0, y, 0), (0, 0, z), "wall", (215, 205, 215)),
        ]
        for box in self.boxes:
            a, b = np.array(box.low), np.array(box.high)
            for axis in range(3):
                edges = np.diag(b - a)
                u, v = edges[(axis + 1) % 3], edges[(axis + 2) % 3]
                result.append((a + edges[axis], u, v, box.name, box.color))
                if axis < 2:  # the underside is hidden
                    result.append((a, u, v, box.name, box.color))
        return result

    def pose(self, angle: float) -> np.ndarray:
        """Camera to world, 4 x 4: from a corner region towards the middle, turned about the room by `angle` (rad)."""
        x, y, _ = self.size
        middle = np.array([x / 2, y / 2, 0.5])
        eye = middle + [1.6 * np.cos(angle), 1.4 * np.sin(angle), 1.5]
        forward = (middle - eye) / np.linalg.norm(middle - eye)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        pose[:3, 3] = eye
        return pose

    def render(
        self, pose: np.ndarray, intrinsics: Intrinsics, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cast a ray per pixel: h x w x 3 uint8 colour, h x w depth in metres, h x w index into `surface_names`."""
        rows, columns = np.mgrid[: size[0], : size[1]]
        rays = np.stack(
            [(columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy, np.ones(size)], -1
        )
        rays = rays @ pose[:3, :3].T + 1e-9
        eye = pose[:3, 3]
        best = np.full(size, np.inf)
        color = np.zeros((*size, 3))
        kind = np.full(size, len(self.surface_names) - 1)
        room = [(0.0, 0.0, 0.0), self.size]
        exit_time = np.maximum((room[0] - eye) / rays, (room[1] - eye) / rays)
        face = exit_time.argmin(-1)
        downwards = rays[..., 2] < 0
        best = exit_time.min(-1)
        kind = np.where((face == 2) & downwards, 1, np.where(face == 2, len(self.surface_names) - 1, 0))
        color = np.where((kind == 1)[..., None], (120, 100, 80), (212, 212, 210))
        for index, box in enumerate(self.boxes):
            near = np.minimum((box.low - eye) / rays, (box.high - eye) / rays).max(-1)
            far = np.maximum((box.low - eye) / rays, (box.high - eye) / rays).min(-1)
            hit = (near <= far) & (near > 0) & (near < best)
            best = np.where(hit, near, best)
            color = np.where(hit[..., None], box.color, color)
            kind = np.where(hit, index + 2, kind)
        return color.astype(np.uint8), best, kind

    @property
    def surface_names(self) -> list[str]:
        """Class names that `render` indexes."""
        return ["wall", "floor", *(box.name for box in self.boxes), "unlabelled"]


@lru_cache(maxsize=16)
def _frame(seed: int, angle: float, size: tuple[int, int]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Pose of a view of a room, and what `render` makes of it; many tests write the same rooms."""
    room = BoxRoom(seed, spacing=1)
    pose = room.pose(angle)
    return pose, room.render(pose, PUBLISHED_INTRINSICS.scaled((240, 320), size), size)


def write_room(root: Path, split: str, scene: str, room: BoxRoom, views: int = 3, size: tuple[int, int] = (240, 320)):
    """Write one room in all the folders of the layout, views with stems 0, 20, 40, ..."""
    write_points(root / "scannet_3d" / split / f"{scene}_vh_clean_2.pth", room.points, room.colors, room.labels)
    raw = root / "scannet_3d_200" / split / f"{scene}.txt"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_text("\n".join(map(str, room.raw_labels)) + "\n")
    folder = root / "scannet_2d" / scene
    for name in ("color", "depth", "pose", "label", "label_200"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(views):
        pose, (color, depth, kind) = _frame(room.seed, 2 * np.pi * i / views + 0.3, size)
        ids = np.array([CLASSES[name] for name in room.surface_names])[kind]
        stem = str(20 * i)
        Image.fromarray(color).save(folder / "color" / f"{stem}.jpg", quality=95)
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(folder / "depth" / f"{stem}.png")
        Image.fromarray(ids[..., 1].astype(np.uint8)).save(folder / "label" / f"{stem}.png")
        Image.fromarray(ids[..., 2].astype(np.uint16)).save(folder / "label_200" / f"{stem}.png")
        np.savetxt(folder / "pose" / f"{stem}.txt", pose)


def write_scenes(
    root: Path,
    splits: dict[str, int] | None = None,
    views: int = 3,
    spacing: float = 0.05,
    size: tuple[int, int] = (240, 320),
) -> Path:
    """Write a data set of box rooms.

    Args:
        root: folder to write below.
        splits: scenes per split, {"train": 2, "val": 1} by default; names are scene0000_00, scene0001_00, ...
        views: frames per scene.
        spacing: metres between points (0.05 gives about 30 000 points a room).
        size: (height, width) of the frames.

    Returns:
        `root`, to be given to `SCANNET.open` or `SCANNET200.open`.
    """
    root = Path(root)
    captions = {}
    number = 0
    for split, count in (splits or {"train": 2, "val": 1}).items():
        for _ in range(count):
            scene = f"scene{number:04d}_00"
            write_room(root, split, scene, BoxRoom(number, spacing), views, size)
            captions[scene] = {str(20 * i): f"a room with a chair and a table, view {i}" for i in range(views)}
            number += 1
    (root / "captions.json").write_text(json.dumps(captions))
    return root
