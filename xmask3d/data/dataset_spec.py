"""Facts about a data set, and the opening of its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xmask3d.data.scene import SceneReader
from xmask3d.splits import Benchmark


class OpenSplit(Protocol):
    """Maker of the reader of one split; usually the reader's class itself."""

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
    """Facts about a data set that are known beforehand.

    Attributes:
        name: value of `data.layout`: one of those that come with the program, or the dotted path of this object.
        reader: makes the reader of a split; see `open` for its arguments.
        one_camera: ScanNet's published camera fits every scan: it stands in where a scene has none of its own, and
            `protocol=reference` uses it for all.
        depth_unit: steps of a depth picture in a metre.
        captions: file of sentences below the root, used where it exists.
        class_list: class list whose ids the files hold, such as "scannet20".
        largest_ids: largest id that files of that list hold, in 3D files and in label pictures; classes that a
            benchmark leaves out have ids too. None if any id may occur.
        scenes: number of scenes of each published split; scores on a part of one do not compare with others.
        imitated: file below the root of data that have this layout but scenes of their own.
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
            benchmark: maps ids of files to class ids.
            captions: JSON {scene: {view: sentence}}; the data set's own file by default, where it exists.
            frame_size: (height, width) of the frame grid; frames of another size are resized.
            published_intrinsics: use ScanNet's published camera even where the data have their own.
            cache: folder for decoded scenes.

        Raises:
            UserError: no scene where the layout has them.
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
