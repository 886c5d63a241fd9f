"""Thread that runs the newest call and discards older ones that are still waiting."""

import threading
import time
import traceback
from collections.abc import Callable


class Newest:
    """Queue that keeps only the newest call of each kind, so that many requests do not pile up."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, Callable[[], object]]] = {}
        self._changed = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, kind: str, call: Callable[[], object], delay: float = 0) -> None:
        """Run `call` after `delay` seconds, unless another of its kind comes first."""
        with self._changed:
            self._waiting[kind] = (time.monotonic() + delay, call)
            self._changed.notify()

    def stop(self) -> None:
        """Stop running calls."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:  # a request that fails must not end the viewer
                traceback.print_exc()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            while not self._stopped:
                if self._waiting:
                    kind, (due, call) = min(self._waiting.items(), key=lambda item: item[1][0])
                    if due <= time.monotonic():
                        del self._waiting[kind]
                        return call
                    self._changed.wait(due - time.monotonic())
                else:
                    self._changed.wait()
        return None
