"""Data sets of samples for training and evaluation (paper section 3.1)."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from xmask3d.data.batch import Batch, collate
from xmask3d.data.files import LostPose
from xmask3d.data.sample import Sample
from xmask3d.data.sample_maker import EVERYTHING, Augmentation, Limits, make_sample
from xmask3d.data.scene import Scene, SceneReader
from xmask3d.data.visibility import Visibility
from xmask3d.errors import UserError
from xmask3d.splits import Benchmark

__all__ = [
    "Augmentation",
    "Limits",
    "SceneViews",
    "TrainingViews",
    "ValidationViews",
    "collate_usable",
    "evenly_spaced",
    "make_sample",
]

log = logging.getLogger(__name__)

SCENES_TRIED = 20  # scenes in a row without a usable view after which a data set counts as unusable


class _Views(Dataset):
    """What the data sets below share: reading a view by policy, and making its sample."""

    def __init__(
        self,
        reader: SceneReader,
        benchmark: Benchmark,
        *,
        image_size: tuple[int, int],
        voxel_size: float,
        border: int,
        depth_tolerance: float,
        limits: Limits,
        augmentation: Augmentation | None,
        bad_views: Literal["skip", "refuse"] | None,
        cache: Path | None,
        with_label_map: bool = False,
    ) -> None:
        self._reader, self._benchmark, self._with_label_map = reader, benchmark, with_label_map
        self._image_size, self._voxel_size = image_size, voxel_size
        self._visibility = Visibility(border, depth_tolerance, cache)
        self._limits, self._augmentation = limits, augmentation
        self._refuse = (bad_views or getattr(reader, "bad_views", "skip")) == "refuse"
        self._unusable: set[tuple[str, str]] = set()

    def _sample(
        self, scene: Scene, name: str, generator: np.random.Generator | None, angle: float = 0.0
    ) -> Sample | None:
        """Sample of a view, or None where the view is damaged or shows too little (found out once)."""
        if (scene.name, name) in self._unusable:
            return None
        sample = None
        try:
            # A reader may decode files when they are used, and tell which files decide what is visible.
            view = getattr(self._reader, "open_view", self._reader.read_view)(scene.name, name)
            files = getattr(self._reader, "visibility_files", None)
            visible = self._visibility.find(scene, view, files(scene.name, name) if files else None)
            sample = make_sample(
                scene,
                view,
                self._benchmark,
                image_size=self._image_size,
                voxel_size=self._voxel_size,
                generator=generator,
                augmentation=self._augmentation,
                limits=self._limits,
                angle=angle,
                visible=visible,
                with_label_map=self._with_label_map,
            )
        except UserError as error:
            if self._refuse:
                raise
            # Lost poses are usual in ScanNet: nothing that a user could mend.
            log.log(logging.DEBUG if isinstance(error, LostPose) else logging.WARNING, "view skipped: %s", error)
        if sample is None:
            self._unusable.add((scene.name, name))
        return sample


class TrainingViews(_Views):
    """Random views of all scenes. Sample `index` of an epoch depends on (seed, epoch, index) and on nothing else.

    Args:
        reader: the training split; scenes need labels, and views label pictures.
        benchmark: gives training ids.
        image_size, voxel_size, border, depth_tolerance: see `make_sample`.
        min_points, max_points, min_labelled: a view is used if it shows more points than the first, fewer than the
            second, and more points of base and novel classes than the third.
        base_only: count points of base classes alone as labelled ones, so that no novel label decides what is used.
        views_per_scene: samples drawn from each scene per epoch.
        rotate, augment_color, augment_shape, shift: random changes of voxels, see `Augmentation`.
        seed: of everything random here.
        bad_views: what to do with a damaged view: "skip" reports it and draws another, "refuse" stops; the
            reader's own policy by default.
        cache: folder for visibility, see `Visibility`.
    """

    def __init__(
        self,
        reader: SceneReader,
        benchmark: Benchmark,
        *,
        image_size: tuple[int, int] = (512, 512),
        voxel_size: float = 0.02,
        border: int = 10,
        depth_tolerance: float = 0.25,
        min_points: int = 400,
        max_points: int = 65000,
        min_labelled: int = 10,
        base_only: bool = False,
        views_per_scene: int = 16,
        rotate: bool = True,
        augment_color: bool = False,
        augment_shape: bool = False,
        shift: int = 100,
        seed: int = 0,
        bad_views: Literal["skip", "refuse"] | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(
            reader,
            benchmark,
            image_size=image_size,
            voxel_size=voxel_size,
            border=border,
            depth_tolerance=depth_tolerance,
            limits=Limits(min_points + 1, max_points - 1, min_labelled + 1, benchmark.base if base_only else None),
            augmentation=Augmentation(rotate, augment_shape, augment_color, shift),
            bad_views=bad_views,
            cache=cache,
            with_label_map=True,
        )
        self._views_per_scene, self._seed = views_per_scene, seed
        # In shared memory, so that loader processes that outlive an epoch see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._reader.scene_names) * self._views_per_scene

    def all_views(self) -> list[tuple[str, str]]:
        """Scene and name of every view that may be drawn."""
        reader = self._reader
        return [(scene, view) for scene in reader.scene_names for view in reader.view_names(scene)]

    def have_captions(self) -> bool:
        """Whether any view that may be drawn has a sentence, as far as the reader can tell without reading views."""
        reader = self._reader
        caption = getattr(reader, "caption", None)
        if caption is None:
            return True
        return any(caption(scene, view) for scene in reader.scene_names for view in reader.view_names(scene))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose samples follow."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Draw views of scene `index % n_scenes` without replacement until one can be used.

        Raises:
            UserError: no view of the scene can be used, and the policy is "refuse" or the next scenes are no better.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        names = self._reader.scene_names
        tried = min(len(names), SCENES_TRIED)
        for step in range(tried):
            generator = np.random.default_rng([self._seed, int(self._epoch), index, step])
            sample = self._draw(names[(index + step) % len(names)], generator)
            if sample is not None:
                return sample
        raise UserError(
            f"{tried} scenes in a row, from {names[index % len(names)]} on, have no view that can be trained on; "
            "the warnings above and tools/check_data.py tell why"
        )

    def _draw(self, name: str, generator: np.random.Generator) -> Sample | None:
        try:
            scene = self._reader.read_scene(name)
            if not scene.view_names:
                raise UserError(f"scene {name} has no views")
            for view in generator.permutation(len(scene.view_names)):
                sample = self._sample(scene, scene.view_names[view], generator)
                if sample is not None:
                    return self._checked(sample)
            raise UserError(
                f"scene {name}: none of its {len(scene.view_names)} views can be used; each is damaged or shows "
                "too few or too many points, or too few labelled ones (data.min_points, data.max_points, "
                "data.min_labelled)"
            )
        except UserError as error:
            if self._refuse:
                raise
            if name not in self._reported:
                self._reported.add(name)
                log.warning("scene skipped: %s", error)
            return None

    @staticmethod
    def _checked(sample: Sample) -> Sample:
        if sample.labels is None or sample.label_map is None:
            missing = "label pictures" if sample.label_map is None else "point labels"
            raise UserError(f"scene {sample.scene} has no {missing}; training needs them (tools/prepare_scannet.py)")
        return sample


class ValidationViews(_Views):
    """Some views of every scene, other ones each epoch; the items of a scene follow each other.

    An item is None if no view will do, or if its scene has fewer views than are asked for.

    Arguments as of `TrainingViews`; `angle` is a turn about z in radians; `protocol="reference"` restores the random
    rotation of the published validation. `step`: how many views further on the next one is tried where one will not
    do; any other view is tried after those. `views_per_scene`: evenly spaced; one, as published, is a matter of luck
    where scenes are few.
    """

    def __init__(
        self,
        reader: SceneReader,
        benchmark: Benchmark,
        *,
        image_size: tuple[int, int] = (512, 512),
        voxel_size: float = 0.02,
        border: int = 10,
        depth_tolerance: float = 0.25,
        min_points: int = 400,
        max_points: int = 65000,
        min_labelled: int = 10,
        angle: float = 0.0,
        protocol: Literal["default", "reference"] = "default",
        step: int = 1,
        views_per_scene: int = 1,
        seed: int = 0,
        bad_views: Literal["skip", "refuse"] | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(
            reader,
            benchmark,
            image_size=image_size,
            voxel_size=voxel_size,
            border=border,
            depth_tolerance=depth_tolerance,
            limits=Limits(min_points + 1, max_points - 1, min_labelled + 1),
            augmentation=Augmentation(shift=0) if protocol == "reference" else None,
            bad_views=bad_views,
            cache=cache,
        )
        self._angle, self._step, self._seed, self._views_per_scene = angle, step, seed, views_per_scene
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._reader.scene_names) * self._views_per_scene

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0): of a scene's n views `epoch % n` is tried first, then those after it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample | None:
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch = int(self._epoch)
        number, turn = divmod(index, self._views_per_scene)
        try:
            scene = self._reader.read_scene(self._reader.scene_names[number])
        except UserError as error:
            if self._refuse:
                raise
            log.warning("scene skipped: %s", error)
            return None
        views = scene.view_names
        if turn >= len(views):
            return None
        first = epoch + turn * len(views) // self._views_per_scene
        generator = np.random.default_rng([self._seed, epoch, index]) if self._augmentation else None
        order = dict.fromkeys((first + self._step * tried) % len(views) for tried in range(len(views)))
        order |= dict.fromkeys((first + tried) % len(views) for tried in range(len(views)))
        samples = (self._sample(scene, views[place], generator, self._angle) for place in order)
        return next((sample for sample in samples if sample is not None), None)


class SceneViews(_Views):
    """All views of one scene in order, for evaluation; an item is None where its view cannot be used.

    Args:
        reader, benchmark, image_size, voxel_size, border, depth_tolerance, bad_views, cache: see `TrainingViews`.
        scene: name of the scene.
        min_points, max_points: fewest and most visible points of a view in use.
        min_labelled: fewest visible points of a base or novel class; only with `protocol="reference"`.
        max_views: at most this many views, evenly spaced; None for all.
        angle: turn about z in radians.
        protocol: "reference" restores two things the published evaluation did: views need labelled points (a filter
            that uses ground truth), and rotation and scale are random.
        seed: of that random rotation.
        rotation: number of the pass over the scene; each draws other random rotations.
        with_label_map: whether label pictures are read; labelling needs none.
    """

    def __init__(
        self,
        reader: SceneReader,
        scene: str,
        benchmark: Benchmark,
        *,
        image_size: tuple[int, int] = (512, 512),
        voxel_size: float = 0.02,
        border: int = 10,
        depth_tolerance: float = 0.25,
        min_points: int = 400,
        max_points: int = EVERYTHING,
        min_labelled: int = 10,
        max_views: int | None = None,
        angle: float = 0.0,
        protocol: Literal["default", "reference"] = "default",
        seed: int = 0,
        rotation: int = 0,
        bad_views: Literal["skip", "refuse"] | None = None,
        cache: Path | None = None,
        with_label_map: bool = False,
    ) -> None:
        self._reference = protocol == "reference"
        super().__init__(
            reader,
            benchmark,
            image_size=image_size,
            voxel_size=voxel_size,
            border=border,
            depth_tolerance=depth_tolerance,
            limits=Limits(min_points, max_points, min_labelled if self._reference else 0),
            augmentation=Augmentation(shift=0) if self._reference else None,
            bad_views=bad_views,
            cache=cache,
            with_label_map=with_label_map,
        )
        self.scene = reader.read_scene(scene)
        self.view_names = evenly_spaced(self.scene.view_names, max_views)
        self._angle, self._seed = angle, [seed, rotation] if rotation else [seed]

    def __len__(self) -> int:
        return len(self.view_names)

    def __getitem__(self, index: int) -> Sample | None:
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = np.random.default_rng([*self._seed, index]) if self._reference else None
        return self._sample(self.scene, self.view_names[index], generator, self._angle)


def evenly_spaced(names: list[str], limit: int | None) -> list[str]:
    """At most `limit` of the names, evenly spaced, in order."""
    if limit is None or len(names) <= limit:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, limit).round().astype(int)]


def collate_usable(samples: list[Sample | None]) -> Batch | None:
    """`collate` for data sets whose items may be None; None if all of them are."""
    usable = [sample for sample in samples if sample is not None]
    return collate(usable) if usable else None
