"""A GPU that is not there: tensors say that they are on `cuda:0`, compute on the CPU, and refuse to mix with others.

Inside `pretending()`, whatever is moved to "cuda" becomes a `FakeTensor`. An operator that meets one beside a plain
tensor of one or more axes, or a generator of the other device, raises as CUDA does; what makes a host wait for a device
is counted, with the place in the package that asked for it.

Values may be missing: what is computed of weights on "meta" has shapes alone, and costs neither time nor memory.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
# Operators for which CUDA takes plain tensors beside its own: copies, and index tensors (which are copied: a wait).
COPIES = {"aten::copy_", "aten::_to_copy", "aten::set_"}
INDICES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
# Operators whose result has a size, or is a number, that the host must wait for.
WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::masked_select", "aten::is_nonzero", "aten::equal", "aten::repeat_interleave",
}  # fmt: skip


class FakeTensor(Tensor):
    """Tensor that says it is on `cuda:0`; its values are in `plain`."""

    plain: Tensor
    waits: ClassVar[Counter[str]] = Counter()
    watch: ClassVar[Callable[[Tensor], None]] = lambda plain: None
    """Called with the plain tensor of each that is made."""

    @staticmethod
    def __new__(cls, plain: Tensor, requires_grad: bool = False) -> FakeTensor:
        fake = Tensor._make_wrapper_subclass(
            cls, plain.size(), strides=plain.stride(), storage_offset=plain.storage_offset(), dtype=plain.dtype,
            layout=plain.layout, device="cpu", requires_grad=requires_grad,
        )  # fmt: skip
        fake.plain = plain
        cls.watch(plain)
        return fake

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"FakeTensor({self.plain!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A file knows no pretence: what is read from it lies on the host, where checkpoints are loaded to.
        return values_of(self).__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        name = func._schema.name
        beside = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, FakeTensor) and x.dim()]
        if beside and name in INDICES:
            count("index from the host")
        elif beside and name not in COPIES:
            raise RuntimeError(f"Expected all tensors to be on the same device, cuda:0 and cpu ({name}, {place()})")
        if name in WAITS or (
            name in INDICES and any(isinstance(x, Tensor) and x.dtype == torch.bool for x in flat[1:])
        ):
            count(name)
        without_values = any(isinstance(x, Tensor) and plain_of(x).is_meta for x in flat)
        place_of_values = torch.device("meta" if without_values else "cpu")
        # The host is named by the backward pass of a cast alone, which takes a fake for what it is.
        kwargs = {
            key: place_of_values if is_cuda(value) or isinstance(value, torch.device) else value
            for key, value in kwargs.items()
        }
        plain = shape_of if without_values else plain_of
        result = func(*tree_map(plain, args), **tree_map(plain, kwargs))
        wrapped = tree_map(
            lambda x: FakeTensor(x) if isinstance(x, Tensor) and not isinstance(x, FakeTensor) else x, result
        )
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


class FakeGenerator(torch.Generator):
    """Generator that says it is on `cuda:0`."""

    @property
    def device(self) -> torch.device:
        return CUDA


class _Generator(torch.Generator):
    """Stands for `torch.Generator`, and makes fakes for CUDA."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        kind = FakeGenerator if is_cuda(device) else GENERATOR
        return kind.__new__(kind) if kind is FakeGenerator else kind(device=device)


GENERATOR = torch.Generator


class _ParameterKind(type(torch.nn.Parameter)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, torch.nn.Parameter)


class _Parameter(torch.nn.Parameter, metaclass=_ParameterKind):
    """Stands for `Parameter` where modules are moved: one on the device stays the object that optimisers know."""

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> Tensor:  # type: ignore[misc]
        if isinstance(data, FakeTensor) and isinstance(data, torch.nn.Parameter):
            return data
        return torch.nn.Parameter(data, requires_grad)


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return FakeTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return plain_of(gradient)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: FakeTensor) -> Tensor:
        return values_of(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return FakeTensor(gradient)


def lines() -> Iterator[tuple[str, int]]:
    """Files and lines that are running, innermost first."""
    frame = sys._getframe(1)
    while frame := frame.f_back:
        yield frame.f_code.co_filename, frame.f_lineno


def place() -> str:
    """The line of the package that is running."""
    found = ((file.rpartition("/xmask3d/"), line) for file, line in lines())
    return next((f"{file}:{line}" for (_, inside, file), line in found if inside), "outside")


def caller() -> str:
    """The file that called a function of torch."""
    return next(file for file, _ in lines() if not file.endswith("pretend_cuda.py"))


def count(what: str) -> None:
    """Count a wait of the host for the device."""
    FakeTensor.waits[f"{what} at {place()}"] += 1


def plain_of(value: Any) -> Any:
    return value.plain if isinstance(value, FakeTensor) else value


def shape_of(value: Any) -> Any:
    value = plain_of(value)
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def values_of(x: FakeTensor) -> Tensor:
    """What arrives on the host; zeros where values are missing."""
    return torch.zeros(x.shape, dtype=x.dtype) if x.plain.is_meta else x.plain.detach().clone()


def is_cuda(value: Any) -> bool:
    return (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value[:4] == "cuda"
    )


def to_device(x: Any) -> Any:
    if not isinstance(x, Tensor) or isinstance(x, FakeTensor):
        return x
    return _ToDevice.apply(x) if torch.is_grad_enabled() and x.requires_grad else FakeTensor(x.detach().clone())


def to_host(x: Tensor) -> Tensor:
    if not isinstance(x, FakeTensor):
        return x
    count("copy to the host")
    return _ToHost.apply(x) if torch.is_grad_enabled() and x.requires_grad else values_of(x)


class _Mode(TorchFunctionMode):
    """What makes tensors on a device, or moves them there, makes and moves fakes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        first = args[0] if args else None
        if func is torch.nn.functional.one_hot and isinstance(first, FakeTensor):
            return FakeTensor(func(first.plain, *args[1:], **kwargs))
        if func is Tensor.cpu:
            return to_host(first)
        if func is Tensor.cuda:
            return to_device(first)
        if func is Tensor.tolist and isinstance(first, FakeTensor):
            count("tolist")
            return values_of(first).tolist()
        if func is Tensor.new_tensor and isinstance(first, FakeTensor):
            return FakeTensor(torch.tensor(args[1], dtype=kwargs.get("dtype") or first.dtype))
        if func is Tensor.to:
            return self._to(func, args, kwargs)
        device = kwargs.get("device")
        self._check_generator(kwargs.get("generator"), device, args)
        if is_cuda(device):
            return tree_map(to_device, func(*args, **{**kwargs, "device": torch.device("cpu")}))
        return func(*args, **kwargs)

    def _check_generator(self, generator: Any, device: Any, args: Any) -> None:
        if generator is None:
            return
        wanted = is_cuda(device) if device is not None else any(isinstance(x, FakeTensor) for x in args)
        if wanted != isinstance(generator, FakeGenerator):
            raise RuntimeError(f"Expected a '{'cuda' if wanted else 'cpu'}' device type for generator ({place()})")

    def _to(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        x, *rest = args
        rest += [kwargs.pop(key) for key in ("device", "other", "dtype") if kwargs.get(key) is not None]
        devices = [value.device if isinstance(value, Tensor) else value for value in rest]
        target = next((v for v in devices if isinstance(v, str | torch.device | int) and not isinstance(v, bool)), None)
        dtype = next(
            (v.dtype if isinstance(v, Tensor) else v for v in rest if isinstance(v, Tensor | torch.dtype)), None
        )
        if is_cuda(target) or (isinstance(target, int) and target == 0):
            x = to_device(x)
        elif target is not None and "clip_grad" not in caller():  # which asks an operator for the device: the real one
            x = to_host(x)
        options = {
            key: value for key, value in kwargs.items() if key in ("copy", "memory_format") and value is not None
        }
        if dtype is not None:
            options["dtype"] = dtype
        return func(x, **options) if options else x


@contextmanager
def pretending() -> Iterator[Counter[str]]:
    """Pretend that there is a GPU; yields the waits of the host, counted from here on."""
    engine = torch.autograd._engine_run_backward
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with _Mode():
            return engine(*args, **kwargs)

    FakeTensor.waits.clear()
    torch.nn.modules.module.Parameter = _Parameter  # type: ignore[misc]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.autograd._engine_run_backward = run_backward
    torch.autograd.graph._engine_run_backward = run_backward
    torch.Generator = _Generator  # type: ignore[misc]
    try:
        with _Mode():
            yield FakeTensor.waits
    finally:
        torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = engine
        torch.Generator, torch.nn.modules.module.Parameter = GENERATOR, torch.nn.Parameter  # type: ignore[misc]
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def use_pretended_gpu() -> None:
    """Make accelerators of this process run on the pretended GPU."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    from xmask3d.engine import evaluate, train

    def make_accelerator(precision: str, cpu: bool = False) -> Accelerator:
        AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier one, which is not on the CPU now
        accelerator = Accelerator(cpu=True)
        PartialState().device = accelerator.state.device = CUDA
        return accelerator

    train.make_accelerator = evaluate.make_accelerator = make_accelerator
