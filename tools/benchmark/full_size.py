"""Complete step of the published network, forward and backward, on a room that needs no data and no weights."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xmask3d.build import build_criterion, training_view_settings
from xmask3d.build_untrained import build_untrained, trainable_values
from xmask3d.checkpoints.published import Layout
from xmask3d.config import Config, load_config
from xmask3d.data.batch import collate
from xmask3d.data.sample import Sample
from xmask3d.data.sample_maker import make_sample
from xmask3d.data.scene import Scene, View
from xmask3d.engine.logs import peak_memory
from xmask3d.engine.training_step import TrainingStep
from xmask3d.errors import UserError, run_tool
from xmask3d.geometry.camera import PUBLISHED_INTRINSICS
from xmask3d.models.xmask3d import XMask3D
from xmask3d.splits import Benchmark, load_benchmark

TENSORS, TRAINABLE = 1073, 82_946_562
# Half of the room's width, depth and height in metres; the camera stands in the middle.
ROOM = (2.0, 3.0, 1.3)


@dataclass(frozen=True)
class FullSizeReport:
    """Measurements of one step.

    Attributes:
        tensors: number of tensors of a published checkpoint of this network. trainable: numbers that train.
        points, voxels: numbers of points and voxels of the view.
        loss: total.
        parameters, with_gradient: trainable tensors, and those that the step gave a gradient.
        build_seconds, forward_seconds, backward_seconds: wall time.
        peak_gib: largest memory of the process so far.
    """

    tensors: int
    trainable: int
    points: int
    voxels: int
    loss: float
    parameters: int
    with_gradient: int
    build_seconds: float
    forward_seconds: float
    backward_seconds: float
    peak_gib: float

    def lines(self) -> list[str]:
        """Format the report for people."""
        return [
            f"network: {self.tensors} checkpoint tensors, {self.trainable:,} trainable values",
            f"view: {self.points:,} points, {self.voxels:,} voxels",
            f"loss {self.loss:.4f}; {self.with_gradient} of {self.parameters} trainable tensors have a finite gradient",
            f"build {self.build_seconds:.1f} s, forward {self.forward_seconds:.1f} s, "
            f"backward {self.backward_seconds:.1f} s; peak memory {self.peak_gib:.2f} GiB",
        ]


class FullSizeStep:
    """Network, a batch of views, and everything else that a training step takes.

    Attributes:
        model: in training mode, on the device. batch: views of one room, which differ in their colours and labels.
    """

    def __init__(self, model: XMask3D, config: Config, views: int = 1, device: str = "cpu", seed: int = 0) -> None:
        """Make the views, and move all to a device."""
        self.model = model.to(device).train()
        benchmark = load_benchmark(config.benchmark)
        self.batch = collate([synthetic_sample(benchmark, config, seed + view) for view in range(views)]).to(device)
        width = self.model.classifier.null_embed.shape[1]
        self.text, self.captions = (torch.randn(count, width).to(device) for count in (benchmark.num_base, views))
        self._step = TrainingStep(self.model, build_criterion(config, benchmark))
        self._epoch = config.loss.mask_regularisation_start  # all losses take part
        self._precision, self._device, self._seed = config.train.precision, torch.device(device), seed

    def losses(self) -> dict[str, Tensor]:
        """Run the forward pass of all parts, and compute all losses."""
        generator = torch.Generator(self._device).manual_seed(self._seed)
        low = getattr(torch, self._precision)
        with torch.autocast(self._device.type, low, enabled=low != torch.float32):
            return self._step(self.batch, self.text, self.captions, self._epoch, generator)


def published_network(config: Config, seed: int = 0) -> XMask3D:
    """Build the published network on the CPU with random weights, frozen ones included.

    Raises:
        UserError: the network has other tensors than a published checkpoint.
    """
    torch.manual_seed(seed)
    model = build_untrained(config, "cpu")
    tensors, trainable = len(Layout.of(model).shapes), trainable_values(model)
    if (tensors, trainable) != (TENSORS, TRAINABLE):
        raise UserError(
            f"the network of this configuration has {tensors} checkpoint tensors and {trainable:,} trainable values, "
            f"the published one {TENSORS} and {TRAINABLE:,}"
        )
    return model


def check_full_size(config: Config, seed: int = 0) -> FullSizeReport:
    """Build the network with random weights, frozen ones included, and take one forward and backward of training.

    Raises:
        UserError: the network has other tensors than a published checkpoint, or the loss is not finite.
    """
    started = time.perf_counter()
    model = published_network(config, seed)
    built = time.perf_counter()
    step = FullSizeStep(model, config, seed=seed)
    ready = time.perf_counter()
    losses = step.losses()
    forward = time.perf_counter()
    losses["total"].backward()
    backward = time.perf_counter()
    if not torch.isfinite(losses["total"]):
        raise UserError("the loss is not finite")
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return FullSizeReport(
        len(Layout.of(model).shapes),
        trainable_values(model),
        len(step.batch.points),
        len(step.batch.voxel_coords),
        float(losses["total"].detach()),
        len(gradients),
        sum(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients),
        built - started,
        forward - ready,
        backward - forward,
        peak_memory(torch.device("cpu")),
    )


def synthetic_sample(benchmark: Benchmark, config: Config, seed: int = 0) -> Sample:
    """Make a view of an empty room's walls: a point for every third pixel, classes in blocks, colours of noise."""
    generator = np.random.default_rng(seed)
    height, width = config.data.frame_size
    camera = PUBLISHED_INTRINSICS.scaled((240, 320), (height, width))
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones((height, width))], -1)
    # The camera looks along y; its x is the room's x, its y points down.
    rotation = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    world = rays @ rotation.T
    depth = (np.array(ROOM) / np.abs(world).clip(1e-9)).min(-1)
    blocks = generator.integers(0, benchmark.num_classes, (6, 8))
    label_map = blocks.repeat(height // 6, 0).repeat(width // 8, 1)
    points = (world * depth[..., None]).reshape(-1, 3)[::3].astype(np.float32)
    scene = Scene(
        "room", points, generator.uniform(-1, 1, points.shape).astype(np.float32), label_map.reshape(-1)[::3], ["0"]
    )
    pose = np.eye(4)
    pose[:3, :3] = rotation
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = View("room", "0", image, depth.astype(np.float32), pose, camera, label_map, "a room with bare walls")
    sample = make_sample(scene, view, benchmark, training_view_settings(config, benchmark))
    assert sample is not None, "a whole room is in view"
    return sample


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default="scannet/B15N4", help="name or YAML file (default %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as model.checkpointing=false")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--limit", type=float, default=12, help="largest peak memory in GiB (default %(default)s)")
    return parser.parse_args(arguments)


def main() -> int:
    """Check; 1 if it took more memory than the limit, or a parameter got no gradient."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    report = check_full_size(load_config(args.config, ["model.checkpointing=true", *args.overrides]))
    print("\n".join(report.lines()))
    if report.with_gradient < report.parameters:
        print(f"{report.parameters - report.with_gradient} parameters have no finite gradient", file=sys.stderr)
        return 1
    if report.peak_gib > args.limit:
        print(f"more than {args.limit:g} GiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_tool(main)
