"""Cases of a benchmark, their contenders, and their measurements."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Request:
    """Request of the user.

    Attributes:
        against: contenders besides this project, by name.
        interpreters: Python interpreter for contenders that live in an environment of their own.
        voxels: sizes of the sparse part.
        points: sizes of scenes.
        views: numbers of views; each part has its own where this is empty.
        types: `float32`, `bfloat16`.
        device: torch device.
        threads: CPU threads.
        repeats: timed runs of each case, after one that is not timed.
        only: words that a case's name must hold, all of them; none for all cases.
    """

    against: tuple[str, ...] = ()
    interpreters: dict[str, str] = field(default_factory=dict)
    voxels: tuple[int, ...] = (30_000, 100_000, 200_000)
    points: tuple[int, ...] = (150_000,)
    views: tuple[int, ...] = ()
    types: tuple[str, ...] = ("float32", "bfloat16")
    device: str = "cpu"
    threads: int = 1
    repeats: int = 3
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """Case to measure.

    Attributes:
        part: module of `tools.benchmark`.
        name: name of the measurement, the same for all contenders.
        contender: software that is measured; `xmask3d` is this project.
        options: arguments of the part's `prepare`, plain values.
    """

    part: str
    name: str
    contender: str
    options: dict[str, str | int | float]
    device: str = "cpu"
    threads: int = 1
    repeats: int = 3


@dataclass(frozen=True)
class Job:
    """Case that is ready to run: `run` is timed.

    Attributes:
        operations: multiply-adds of a run that torch's counter does not see.
        count: whether torch's counter adds the dense ones, in the run that is not timed.
    """

    run: Callable[[], object]
    operations: int = 0
    count: bool = False


@dataclass(frozen=True)
class Measurement:
    """Measurement of a case.

    Attributes:
        seconds: wall time of each run.
        cpu_seconds: processor time of each run, all threads together.
        peak_bytes: largest resident memory of the process (CPU), or largest memory allocated (CUDA), in the timed runs.
        operations: useful multiply-adds of a run.
        load: load average of the machine at the end.
        failure: one line, where the case could not be run.
    """

    case: Case
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    operations: int = 0
    load: float = 0.0
    failure: str = ""

    @property
    def median(self) -> float:
        """Median wall time in seconds."""
        return median(self.seconds)
