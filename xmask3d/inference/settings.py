"""Settings of labelling and evaluation, made once from the configuration."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from xmask3d.data.datasets import SceneViews
from xmask3d.data.scene import SceneReader
from xmask3d.data.view_settings import ViewSettings
from xmask3d.inference.gate_weights import FIXED, GateWeights
from xmask3d.splits import Benchmark

Gating = Literal["hard", "soft", "none", "clip"]


@dataclass(frozen=True)
class LabelSettings:
    """Settings for turning the outputs of views into labels and votes.

    Attributes:
        base_ratio, novel_ratio: exponent of the model's probability for base and novel classes; CLIP's has the rest.
        gating: how the binary head chooses between base and novel classes, see `label_views`.
        votes: "hard" if a view votes for its best class, "soft" if it votes with all probabilities.
        regions: "votes" to sum soft votes over regions of the cloud; "gate" to also choose between base and novel
            classes region by region, see `xmask3d.inference.region_votes`.
        gate_weights: weights of head and CLIP in the gate of regions.
        region_clip: share of CLIP's own view of a region in the choice of its class; 0 for none.
    """

    base_ratio: float = 0.65
    novel_ratio: float = 0.35
    gating: Gating = "hard"
    votes: Literal["hard", "soft"] = "hard"
    regions: Literal["none", "votes", "gate"] = "none"
    gate_weights: GateWeights = FIXED
    region_clip: float = 0.0


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings for turning the views of a scene into votes.

    Attributes:
        views: settings of the samples.
        max_views: largest number of views per scene, evenly spaced; None for all.
        rotations: passes over the scene, each turned further about z.
        batch_size, workers: views per forward, and loader processes.
        seed: seed of the random rotations that the published evaluation makes.
        instances: also separate objects.
    """

    views: ViewSettings
    max_views: int | None = None
    rotations: int = 1
    batch_size: int = 8
    workers: int = 0
    seed: int = 0
    instances: bool = False

    def open_views(
        self, reader: SceneReader, benchmark: Benchmark, scene: str, rotation: int = 0, with_label_map: bool = False
    ) -> SceneViews:
        """Open the usable views of a scene for one of the passes; label maps are only needed for training."""
        angle = self.views.angle + 2 * math.pi * rotation / self.rotations
        return SceneViews(
            reader,
            scene,
            benchmark,
            replace(self.views, angle=angle),
            max_views=self.max_views,
            seed=self.seed,
            rotation=rotation,
            with_label_map=with_label_map,
        )
