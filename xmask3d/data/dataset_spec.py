"""Specification of a data set, which also opens its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xmask3d.data.scene import SceneReader
from xmask3d.splits import Benchmark


class OpenSplit(Protocol):
    """Function that makes the reader of one split; usually the reader's class itself."""

    def __call__(
        self,
        spec: DatasetSpec,
        root: Path,
        split: str,
        benchmark: Benchmark,
        *,
        captions: Path | None,
        frame_size: tuple[int, int],
        published_intrinsics: bool,
        cache: Path | None,
    ) -> SceneReader: ...


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about a data set that are known before it is read.

    Attributes:
        name: value of `data.layout`: the name of a built-in data set, or the dotted path of this object.
        reader: function that makes the reader of a split; see `open` for its arguments.
        one_camera: ScanNet's published camera fits every scan. It is used for scenes without a camera of their own and,
            with `protocol=reference`, for all scenes.
        depth_unit: value of a depth picture at one metre.
        captions: file of captions below the root, used if it exists.
        class_list: class list of the ids in the files, such as "scannet20".
        largest_ids: largest id in 3D files and in label pictures, including classes that a benchmark leaves out. None
            if any id may occur.
        scenes: number of scenes of each published split; scores on a part of a split are not comparable.
        imitated: file below the root that marks data with this layout but scenes of their own.
    """

    name: str
    reader: OpenSplit
    one_camera: bool = False
    depth_unit: float = 1000.0
    captions: str = "captions.json"
    class_list: str | None = None
    largest_ids: tuple[int, int] | None = None
    scenes: Mapping[str, int] = field(default_factory=dict)
    imitated: str | None = None

    def open(
        self,
        root: Path | str,
        split: str,
        benchmark: Benchmark,
        *,
        captions: Path | None = None,
        frame_size: tuple[int, int] = (240, 320),
        published_intrinsics: bool = False,
        cache: Path | None = None,
    ) -> SceneReader:
        """Open one split of the data set on disk.

        Args:
            root: folder of the data set.
            split: name of the split, such as "train".
            benchmark: mapping of ids in files to class ids.
            captions: JSON {scene: {view: sentence}}; by default the data set's own file, if it exists.
            frame_size: (height, width) of the frame grid; frames of another size are resized.
            published_intrinsics: use ScanNet's published camera even if the data have their own.
            cache: folder for decoded scenes.

        Raises:
            UserError: there is no scene in the folder that the layout prescribes.
        """
        own = Path(root) / self.captions
        if captions is None or Path(captions) == own:
            captions = own if own.is_file() else None
        return self.reader(
            self,
            Path(root),
            split,
            benchmark,
            captions=captions,
            frame_size=frame_size,
            published_intrinsics=published_intrinsics,
            cache=cache,
        )
