"""Ctrl-C and SIGTERM finish the step and save, instead of losing it."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and can be resumed
    """The run stopped on a signal, after a checkpoint."""


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets ``received``; the second one raises KeyboardInterrupt at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = {s: signal.signal(s, self._handle) for s in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._in_main:
            for s, handler in self._before.items():
                signal.signal(s, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
