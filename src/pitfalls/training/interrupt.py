"""Handling of Ctrl-C and SIGTERM: the run finishes its step, saves and stops, so that no work is lost."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(Exception):  # noqa: N818 - not an error: the run stopped on request
    """The run was stopped by a signal and has saved a checkpoint.

    It is no `PitfallsError`, because its user has nothing to mend. Like KeyboardInterrupt, it ends a program with status 130.
    """


class StopRequest:
    """A context in which the first SIGINT or SIGTERM only sets ``received``. The second one raises KeyboardInterrupt at once."""

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
