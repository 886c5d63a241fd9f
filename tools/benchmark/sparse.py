"""Sparse U-Nets on a synthetic room: forward with ready kernel maps, and a training step that builds them again."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tools.benchmark.case import Case, Job, Request
from xmask3d.models.mink_unet import MinkUNet
from xmask3d.sparse import Convolution, SparseTensor, TransposedConvolution, sparse_tensor
from xmask3d.sparse.backend import CoordinateManager, TorchCoordinateManager
from xmask3d.sparse.coordinates import CoordinateMaps, KernelMap

NETWORKS: dict[str, Callable[[], MinkUNet]] = {"MinkUNet34C": MinkUNet.unet34c, "MinkUNet18A": MinkUNet.unet18a}
# Back ends that stand for themselves, and the common way to do without one. `xmask3d` is the default back end.
CONTENDERS = ("torch", "minkowski", "spconv", "per-offset")


def cases(request: Request) -> list[Case]:
    """List every network, size, type and pass; contenders in float32 only, but for our own back end in plain torch."""
    found = []
    for voxels in request.voxels:
        for network in NETWORKS:
            for step in ("forward", "step"):
                for kind in request.types:
                    name = f"{network}, {voxels // 1000}k voxels, {step}, {kind}"
                    rivals = [name for name in request.against if kind == "float32" or name == "torch"]
                    if step == "step" and request.device == "cpu":
                        rivals = [name for name in rivals if name != "spconv"]  # no backward pass there
                    contenders = ["xmask3d", *rivals]
                    options: dict[str, str | int | float] = {"network": network, "voxels": voxels}
                    options |= {"step": step, "kind": kind}
                    common = (request.device, request.threads, request.repeats)
                    found += [Case("sparse", name, contender, options, *common) for contender in contenders]
    return found


def prepare(case: Case) -> Job:
    """Make the network and the room, and count the useful multiply-adds."""
    coordinates = room_voxels(int(case.options["voxels"])).to(case.device)
    torch.manual_seed(0)
    features = torch.rand(coordinates.shape[0], 3, device=case.device)
    network = NETWORKS[str(case.options["network"])]().to(case.device)
    low = case.options["kind"] == "bfloat16"
    forward_operations = multiply_adds(network, CoordinateMaps(coordinates))
    build = _builder(case.contender)

    def forward(x: SparseTensor) -> Tensor:
        with torch.autocast(case.device.partition(":")[0], torch.bfloat16, enabled=low):
            return network(x)[1]

    x = build(coordinates, features)
    if case.options["step"] == "step":
        # Any loss would be work of its own, the same for all.
        gradient = torch.randn_like(forward(x).detach())

        def step() -> None:
            network.zero_grad()
            forward(build(coordinates, features)).backward(gradient)

        return Job(step, 3 * forward_operations)
    network.eval()
    return Job(torch.no_grad()(lambda: forward(x)), forward_operations)


def multiply_adds(network: MinkUNet, maps: CoordinateMaps, pointwise: bool = True) -> int:
    """Count the multiply-adds of one forward pass: for each convolution, pairs of voxels times both channel counts.

    Args:
        pointwise: whether convolutions of size 1, which are dense products, are counted too.
    """
    total, stride = 0, 1
    for module in network.modules():
        if isinstance(module, TransposedConvolution):
            stride //= 2
            total += maps.coordinates(stride).shape[0] * module.kernel[0].numel()
        elif isinstance(module, Convolution) and module.stride == 2:
            total += maps.coordinates(stride).shape[0] * module.kernel[0].numel()
            stride *= 2
        elif isinstance(module, Convolution) and module.kernel_size == 1:
            total += pointwise * maps.coordinates(stride).shape[0] * module.kernel.numel()
        elif isinstance(module, Convolution):
            table = maps.neighbours(stride, module.kernel_size).table
            total += int((table < table.shape[0]).sum()) * module.kernel[0].numel()
    return total


def room_voxels(count: int, voxel_size: float = 0.02, seed: int = 0) -> Tensor:
    """Make voxels of the surfaces of a furnished room, turned and slightly rough like a scan, in random order.

    Args:
        count: number of voxels; the room grows with it.
        voxel_size: metres.

    Returns:
        count x 4 int32 rows (0, x, y, z).
    """
    generator = np.random.default_rng(seed)
    side = 0.95 * np.sqrt(count * voxel_size**2)
    while True:
        points = _room_points(side, 4 / voxel_size**2, generator)
        points += generator.normal(0, 0.2 * voxel_size, points.shape)
        sine, cosine = np.sin(0.3), np.cos(0.3)
        points[:, :2] = points[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
        voxels = np.unique(np.floor(points / voxel_size).astype(np.int32), axis=0)
        if len(voxels) >= count:
            break
        side *= 1.2
    nearest = np.argsort(np.linalg.norm(voxels[:, :2], axis=1), kind="stable")[:count]
    kept = voxels[generator.permutation(nearest)]
    return torch.from_numpy(np.concatenate([np.zeros((count, 1), np.int32), kept], 1))


def _room_points(side: float, density: float, generator: np.random.Generator) -> np.ndarray:
    """Make points on a floor, two walls 2.4 m high, and boxes for furniture; `density` in points a square metre."""
    x, y, z = np.eye(3)
    rectangles = [(np.zeros(3), x * side, y * side), (np.zeros(3), x * side, z * 2.4), (np.zeros(3), y * side, z * 2.4)]
    for _ in range(max(1, round(side**2 / 3))):
        corner = np.append(generator.random(2) * max(side - 0.9, 0.1), 0)
        width, depth, height = generator.uniform(0.3, 0.9, 3)[:, None] * np.eye(3)
        rectangles += [(corner + height, width, depth), (corner, width, height), (corner, depth, height)]
        rectangles += [(corner + width, depth, height), (corner + depth, width, height)]
    points = []
    for origin, first, second in rectangles:
        count = int(density * np.linalg.norm(np.cross(first, second)))
        shares = generator.random((count, 2))
        points.append(origin + shares[:, :1] * first + shares[:, 1:] * second)
    return np.concatenate(points)


def _builder(contender: str) -> Callable[[Tensor, Tensor], SparseTensor]:
    if contender == "per-offset":
        return lambda coordinates, features: _tensor(PerOffsetManager(coordinates), features)
    backend = "auto" if contender == "xmask3d" else contender
    return lambda coordinates, features: sparse_tensor(coordinates, features, backend)


def _tensor(manager: CoordinateManager, features: Tensor) -> SparseTensor:
    return SparseTensor(manager.arrange(features), 1, manager)


class PerOffsetManager(TorchCoordinateManager):
    """Common method without a compiler: for each tap select rows, multiply and add; differentiated by torch."""

    def convolve(self, features: Tensor, weight: Tensor, stride: int, kernel_size: int) -> Tensor:
        return self._sum_taps(features, weight, self._maps.neighbours(stride, kernel_size))

    def downsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        return self._sum_taps(features, weight, self._maps.stride_map(stride).down)

    def upsample(self, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        link = self._maps.stride_map(stride // 2)
        out = features.new_zeros((link.slot.shape[0], weight.shape[2]))
        for tap in range(8):
            target = torch.nonzero(link.slot % 8 == tap)[:, 0]
            out = out.index_add(0, target, features[link.slot[target] // 8] @ weight[tap].to(features.dtype))
        return out

    @staticmethod
    def _sum_taps(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        out = features.new_zeros((kernel_map.table.shape[0], weight.shape[2]))
        for tap in range(weight.shape[0]):
            source = kernel_map.table[:, tap].long()
            target = torch.nonzero(source < kernel_map.source_rows)[:, 0]
            out.index_add_(0, target, features[source[target]] @ weight[tap].to(features.dtype))
        return out
