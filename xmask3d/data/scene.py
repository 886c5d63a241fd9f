"""Scenes, their posed views, and the interface of their readers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from xmask3d.errors import UserError
from xmask3d.geometry.camera import Intrinsics


@dataclass
class Scene:
    """Scanned scene.

    Attributes:
        name: name, such as "scene0011_00".
        points: n x 3 float32, metres, world frame.
        colors: n x 3 float32 in [-1, 1].
        labels: n int64 class ids 0..K-1, K for ignored points; None for a scan without truth.
        view_names: names of its views in order, empty for a cloud without images.
        segments: n int64, over-segmentation that came with the scene; None for most scenes.
    """

    name: str
    points: np.ndarray
    colors: np.ndarray
    labels: np.ndarray | None
    view_names: list[str] = field(default_factory=list)
    segments: np.ndarray | None = None


@dataclass
class View:
    """Posed RGB-D frame.

    Attributes:
        scene, name: names of the scene and of the view; `name` is the frame's stem.
        image: h x w x 3 uint8 RGB on the frame grid (240 x 320).
        depth: h x w float32 metres, 0 where unknown.
        pose: 4 x 4 float64, camera to world.
        intrinsics: pinhole parameters on the frame grid.
        label_map: h x w int64 class ids 0..K-1, K for ignored pixels; None without truth.
        caption: a sentence about the view, or None.
    """

    scene: str
    name: str
    image: np.ndarray
    depth: np.ndarray
    pose: np.ndarray
    intrinsics: Intrinsics
    label_map: np.ndarray | None = None
    caption: str | None = None


class SceneReader(Protocol):
    """Reader of a data set split: names of scenes, and access to one scene or one view at a time."""

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes, in order."""

    def view_names(self, scene: str) -> list[str]:
        """Return the names of a scene's views, in order."""

    def read_scene(self, name: str) -> Scene:
        """Read points, colours and labels. Raises `UserError` naming a missing or damaged file."""

    def read_view(self, scene: str, view: str) -> View:
        """Read one frame, either now or each part at its first use.

        Raises:
            UserError: a file is missing or truncated, or its pose has NaN. The error may also come at the first use.
        """

    def caption(self, scene: str, view: str) -> str | None:
        """Return the sentence about a view, without reading the view."""

    def sources(self, scene: str) -> list[Path]:
        """Return files and folders whose times show that a scene or its frames have changed; the list may be empty."""

    def visibility_files(self, scene: str, view: str) -> list[Path]:
        """Return the files that determine which points a view sees; without any, results are not cached."""


def choose_scenes(reader: SceneReader, wanted: list[str] | None) -> list[str]:
    """Return the wanted scenes in the reader's order, each once. Raises `UserError` for an unknown scene."""
    if wanted is None:
        return list(reader.scene_names)
    unknown = [name for name in wanted if name not in reader.scene_names]
    if unknown:
        raise UserError(f"scene {unknown[0]}: not in the validation split, which has {len(reader.scene_names)} scenes")
    return [name for name in reader.scene_names if name in wanted]
