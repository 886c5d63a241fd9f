"""Sections about speed and memory: training steps of the published size, parts beside other software, scenes."""

import importlib.util
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from tools.benchmark import load_part
from tools.benchmark.case import Request
from tools.benchmark.full_size import FullSizeStep, published_network
from tools.benchmark.runner import run_case
from tools.benchmark.sample import SCENE, write_scene
from tools.gpu.report import Row, Settings
from xmask3d.build import build_model, build_reader, evaluation_settings, label_settings, make_optimizer
from xmask3d.config import Config, load_config
from xmask3d.engine.accelerator import evaluation_arithmetic, make_accelerator, use_training_arithmetic
from xmask3d.engine.evaluate import evaluate_scene
from xmask3d.engine.logs import peak_memory
from xmask3d.inference.labeller import Labeller
from xmask3d.models.xmask3d import XMask3D
from xmask3d.splits import load_benchmark

VIEWS = 16
CONTENDERS = {"minkowski": "MinkowskiEngine", "spconv": "spconv"}
"""Other software for sparse convolutions, and the package that brings it."""


def training_step(settings: Settings, overrides: Sequence[str]) -> Iterator[Row]:
    """Time steps of the published network with random weights; their memory, and the waits of the host in one."""
    use_training_arithmetic()
    with tempfile.TemporaryDirectory() as folder:
        config, model = network(settings, folder, overrides)
        step = FullSizeStep(model, config, 2 if settings.small else VIEWS, settings.device)
    optimizer = make_optimizer(model, config.train.lr_3d, config.train.lr_others, config.train.weight_decay)

    def run() -> Tensor:
        loss = step.losses()["total"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    loss = float(run())  # a step in which cuDNN chooses, and the optimiser gets its memory
    seconds = median(timed(run, settings.device)[0] for _ in range(1 if settings.small else 3))
    peak, views = peak_memory(torch.device(settings.device)), step.batch.size
    words = f"{seconds:.3f} s, {views / seconds:.1f} views/s, peak {peak:.2f} GiB, loss {loss:.3f}"
    yield Row(f"{views} views", words, math.isfinite(loss), {"seconds": seconds, "peak_gib": peak, "loss": loss})
    places = host_waits(run) if settings.device.startswith("cuda") else None
    if places is not None:
        found = ", ".join(f"{place} ({count})" for place, count in places.most_common(8))
        yield Row("waits of the host in a step", f"{places.total()}: {found}", None, {"waits": places.total()})


def network(settings: Settings, folder: str, overrides: Sequence[str]) -> tuple[Config, XMask3D]:
    """Build the published network with random weights, or a tiny one in a folder."""
    if not settings.small:
        config = load_config("scannet/B15N4", list(overrides))
        return config, published_network(config)
    from tests.helpers.tiny import write_config

    config = load_config(write_config(Path(folder)), ["data.voxel_size=0.05", *overrides])
    torch.manual_seed(0)
    return config, build_model(config).model


def timed(run: Callable[[], Tensor], device: str) -> tuple[float, Tensor]:
    """Return the seconds and the result of a run that a device may still be busy with when it returns."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    start = time.perf_counter()
    result = run()
    wait()
    return time.perf_counter() - start, result


def host_waits(run: Callable[[], object]) -> Counter[str]:
    """Count the waits of the host for the GPU in a run, by file and line."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
    return Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in waits)


def sparse(settings: Settings) -> Iterator[Row]:
    """Time a MinkUNet34C beside whatever else is installed."""
    installed = tuple(name for name, package in CONTENDERS.items() if importlib.util.find_spec(package))
    for name in (name for name in CONTENDERS if name not in installed):
        yield Row(CONTENDERS[name], "not installed, so not timed")
    request = Request(
        against=(*installed, "per-offset"),
        voxels=(2_000 if settings.small else 100_000,),
        types=("float32",) if settings.small else ("float32", "bfloat16"),
        device=settings.device,
        repeats=1 if settings.small else 3,
        only=("MinkUNet34C",),
    )
    yield from timings("sparse", request)


def features(settings: Settings) -> Iterator[Row]:
    """Time the frozen features of a picture of 512 x 512."""
    if settings.small:
        yield Row("512x512", "left out: Stable Diffusion has no small size")
        return
    yield from timings("features", Request(device=settings.device, only=("forward",)))


def scene(settings: Settings) -> Iterator[Row]:
    """Time the labels of a scene of 30 views by the networks of Rooms."""
    points, views, repeats = (5_000, 2, 1) if settings.small else (150_000, 30, 3)
    yield from timings("scene", Request(points=(points,), views=(views,), device=settings.device, repeats=repeats))


def timings(part: str, request: Request) -> Iterator[Row]:
    """Time the cases of a part of `tools.benchmark`, each in a process of its own."""
    for planned in load_part(part).cases(request):
        if any(word not in planned.name for word in request.only):
            continue
        found = run_case(planned)
        case = f"{found.case.name} [{found.case.contender}]"
        if found.failure:
            yield Row(case, found.failure[:200], False)
            continue
        peak = found.peak_bytes / 2**30
        numbers = {"seconds": found.median, "peak_gib": peak}
        yield Row(case, f"{found.median:.4f} s, peak {peak:.2f} GiB", None, numbers)


def published_scene(settings: Settings) -> Iterator[Row]:
    """Time the labels of a scene of 30 views by the published network with random weights, files included."""
    points, views = (5_000, 2) if settings.small else (150_000, 30)
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), points, views, split="val")
        overrides = [f"data.root={folder}", "data.val_split=val", "evaluate.workers=0"]
        config, model = network(settings, f"{folder}/tiny", overrides)
        benchmark = load_benchmark(config.benchmark)
        accelerator = make_accelerator(config.train.precision, cpu=settings.device == "cpu")
        text = torch.randn(benchmark.num_classes, model.classifier.null_embed.shape[1])
        novel = torch.from_numpy(benchmark.novel_mask)
        labeller = Labeller(model.to(accelerator.device), text, novel, label_settings(config), accelerator)
        reader = build_reader(config, benchmark, config.data.val_split)

        def run() -> Tensor:
            result = evaluate_scene(reader, benchmark, SCENE, labeller, evaluation_settings(config))
            return torch.tensor(result.views)

        with evaluation_arithmetic(reference=False):
            run()
            seconds, used = timed(run, settings.device)
    peak = peak_memory(accelerator.device)
    words = f"{seconds:.2f} s for {int(used)} views, peak {peak:.2f} GiB"
    yield Row(f"{points // 1000}k points", words, int(used) > 0, {"seconds": seconds, "peak_gib": peak})
