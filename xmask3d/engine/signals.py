"""Graceful stop of a run after a signal."""

import signal
from types import FrameType, TracebackType


class StopSignals:
    """Context in which SIGTERM and SIGINT only set `code`, so that the loop can save before it exits.

    Attributes:
        code: exit code of the program: 143 after SIGTERM, 130 after SIGINT (128 + signal number), otherwise 0.

    A second SIGINT raises `KeyboardInterrupt` at once.
    """

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.code = 128 + number
