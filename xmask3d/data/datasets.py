"""Data sets of samples for training and evaluation (paper section 3.1)."""

import logging
from contextlib import suppress

import numpy as np
import torch
from torch.utils.data import Dataset

from xmask3d.data.batch import Batch, collate
from xmask3d.data.files import LostPose
from xmask3d.data.regions import SceneRegions
from xmask3d.data.sample import Sample
from xmask3d.data.sample_maker import make_sample
from xmask3d.data.scene import Scene, SceneReader
from xmask3d.data.view_settings import ViewSettings
from xmask3d.data.visibility import Visibility
from xmask3d.errors import UserError, WriteError
from xmask3d.splits import Benchmark

log = logging.getLogger(__name__)

UNCAPTIONED = 0.1  # largest share of views without a caption that losses with captions tolerate
SCENES_TRIED = 20  # a data set counts as unusable after this number of scenes in a row without a usable view


class _Views(Dataset):
    """Base of the data sets below: reads a view, treats damage by policy, and makes the sample."""

    def __init__(
        self, reader: SceneReader, benchmark: Benchmark, settings: ViewSettings, with_label_map: bool = False
    ) -> None:
        self._reader, self._benchmark, self._settings = reader, benchmark, settings
        self._with_label_map = with_label_map
        self._visibility = Visibility(settings.border, settings.depth_tolerance, settings.cache)
        self._refuse = settings.bad_views == "refuse"
        self._unusable: set[tuple[str, str]] = set()
        self._regions: SceneRegions | None = None

    def _sample(self, scene: Scene, name: str, rng: np.random.Generator | None) -> Sample | None:
        """Make the sample of a view, or None if the view is damaged or shows too little (detected once)."""
        if (scene.name, name) in self._unusable:
            return None
        sample = None
        try:
            view = self._reader.read_view(scene.name, name)
            visible = self._visibility.find(scene, view, self._reader.visibility_files(scene.name, name))
            sample = make_sample(
                scene,
                view,
                self._benchmark,
                self._settings,
                rng=rng,
                visible=visible,
                with_label_map=self._with_label_map,
                regions=self._regions.find(scene, self._reader.sources(scene.name)) if self._regions else None,
            )
        except UserError as error:
            if self._refuse or isinstance(error, WriteError):
                raise
            # Lost poses are normal in ScanNet, and nothing that a user could fix.
            log.log(logging.DEBUG if isinstance(error, LostPose) else logging.WARNING, "view skipped: %s", error)
        if sample is None:
            self._unusable.add((scene.name, name))
        return sample


class TrainingViews(_Views):
    """Random views of all scenes. Sample `index` of an epoch depends on (seed, epoch, index) alone.

    Args:
        reader: reader of the training split; scenes need labels, and views need label pictures.
        benchmark: class list that gives training ids.
        settings: sizes, filter and augmentation of samples.
        views_per_scene: samples drawn from each scene per epoch.
        seed: seed of the random generator that chooses views and augments them.
        regions: finds regions that replace the labels, none of which is then read; None to train on labels.
    """

    def __init__(
        self,
        reader: SceneReader,
        benchmark: Benchmark,
        settings: ViewSettings,
        *,
        views_per_scene: int = 16,
        seed: int = 0,
        regions: SceneRegions | None = None,
    ) -> None:
        super().__init__(reader, benchmark, settings, with_label_map=regions is None)
        self._regions = regions
        self._views_per_scene, self._seed = views_per_scene, seed
        # In shared memory, so that loader processes that live for several epochs see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64)
        with suppress(RuntimeError):  # without shared memory no loader process is started
            self._epoch.share_memory_()
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._reader.scene_names) * self._views_per_scene

    def all_views(self) -> list[tuple[str, str]]:
        """List scene and name of every view that may be drawn."""
        reader = self._reader
        return [(scene, view) for scene in reader.scene_names for view in reader.view_names(scene)]

    def count_captions(self) -> tuple[int, int]:
        """Count the views that may be drawn: those with a caption, and all of them."""
        views = self.all_views()
        return sum(bool(self._reader.caption(scene, view)) for scene, view in views), len(views)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0) of the following samples."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Draw views of scene `index % n_scenes` without replacement until one can be used.

        Raises:
            UserError: no view of the scene is usable, and the policy is "refuse" or the next scenes are no better.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        names = self._reader.scene_names
        tried = min(len(names), SCENES_TRIED)
        for step in range(tried):
            rng = np.random.default_rng([self._seed, int(self._epoch), index, step])
            sample = self._draw(names[(index + step) % len(names)], rng)
            if sample is not None:
                return sample
        raise UserError(
            f"{tried} scenes in a row, from {names[index % len(names)]} on, have no view that can be trained on; "
            "see the warnings above, and xmask3d check"
        )

    def _draw(self, name: str, rng: np.random.Generator) -> Sample | None:
        try:
            scene = self._reader.read_scene(name)
            if not scene.view_names:
                raise UserError(f"scene {name} has no views")
            for view in rng.permutation(len(scene.view_names)):
                sample = self._sample(scene, scene.view_names[view], rng)
                if sample is not None:
                    return self._checked(sample)
            raise UserError(
                f"scene {name}: none of its {len(scene.view_names)} views can be used; each is damaged or shows "
                "too few or too many points, or too few labelled ones (data.min_points, data.max_points, "
                "data.min_labelled)"
            )
        except UserError as error:
            if self._refuse or isinstance(error, WriteError):
                raise
            if name not in self._reported:
                self._reported.add(name)
                log.warning("scene skipped: %s", error)
            return None

    @staticmethod
    def _checked(sample: Sample) -> Sample:
        if sample.labels is None or sample.label_map is None:
            missing = "label pictures" if sample.label_map is None else "point labels"
            raise UserError(f"scene {sample.scene} has no {missing}; training needs them (xmask3d prepare)")
        return sample


class ValidationViews(_Views):
    """Some views of every scene, different ones in each epoch; the items of a scene are consecutive.

    An item is None if no view is usable, or if its scene has fewer views than requested.

    Args:
        reader, benchmark, settings, seed: see `TrainingViews`; the published validation is augmented too.
        step: distance to the next view to try if a view is not usable; all remaining views are tried last.
        views_per_scene: number of evenly spaced views per scene; with few scenes a single one, as published, depends on
            luck.
    """

    def __init__(
        self,
        reader: SceneReader,
        benchmark: Benchmark,
        settings: ViewSettings,
        *,
        step: int = 1,
        views_per_scene: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(reader, benchmark, settings)
        self._step, self._seed, self._views_per_scene = step, seed, views_per_scene
        self._epoch = torch.zeros((), dtype=torch.int64)
        with suppress(RuntimeError):  # without shared memory no loader process is started
            self._epoch.share_memory_()

    def __len__(self) -> int:
        return len(self._reader.scene_names) * self._views_per_scene

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0): view `epoch % n` of a scene's n views is tried first, then those after it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample | None:
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch = int(self._epoch)
        number, turn = divmod(index, self._views_per_scene)
        try:
            scene = self._reader.read_scene(self._reader.scene_names[number])
        except UserError as error:
            if self._refuse or isinstance(error, WriteError):
                raise
            log.warning("scene skipped: %s", error)
            return None
        views = scene.view_names
        if turn >= len(views):
            return None
        first = epoch + turn * len(views) // self._views_per_scene
        rng = np.random.default_rng([self._seed, epoch, index]) if self._settings.augmentation else None
        order = dict.fromkeys((first + self._step * tried) % len(views) for tried in range(len(views)))
        order |= dict.fromkeys((first + tried) % len(views) for tried in range(len(views)))
        samples = (self._sample(scene, views[place], rng) for place in order)
        return next((sample for sample in samples if sample is not None), None)


class SceneViews(_Views):
    """All views of one scene in order, for evaluation; an item is None if its view is not usable.

    Args:
        reader, benchmark, settings: see `TrainingViews`.
        scene: name of the scene.
        max_views: largest number of views, evenly spaced; None for all.
        seed: seed of the augmentation that the published evaluation applies.
        rotation: number of the pass over the scene; each pass draws its own random numbers.
        with_label_map: read label pictures, which labelling does not need.
    """

    def __init__(
        self,
        reader: SceneReader,
        scene: str,
        benchmark: Benchmark,
        settings: ViewSettings,
        *,
        max_views: int | None = None,
        seed: int = 0,
        rotation: int = 0,
        with_label_map: bool = False,
    ) -> None:
        super().__init__(reader, benchmark, settings, with_label_map)
        self.scene = reader.read_scene(scene)
        self.view_names = evenly_spaced(self.scene.view_names, max_views)
        self._seed = [seed, rotation] if rotation else [seed]

    def __len__(self) -> int:
        return len(self.view_names)

    def __getitem__(self, index: int) -> Sample | None:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng([*self._seed, index]) if self._settings.augmentation else None
        return self._sample(self.scene, self.view_names[index], rng)


def evenly_spaced(names: list[str], limit: int | None) -> list[str]:
    """Choose at most `limit` of the names, evenly spaced, in order."""
    if limit is None or len(names) <= limit:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, limit).round().astype(int)]


def collate_usable(samples: list[Sample | None]) -> Batch | None:
    """Apply `collate` to the items that are not None; None if all of them are."""
    usable = [sample for sample in samples if sample is not None]
    return collate(usable) if usable else None
