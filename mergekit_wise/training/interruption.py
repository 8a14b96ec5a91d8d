"""Ctrl-C and SIGTERM, kept until a run can stop. Knows nothing of what runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Request:
    """Whether someone asked to stop; `kept` is whether that waits until somebody looks."""

    asked: bool = False
    kept: bool = True

    def __call__(self) -> bool:
        """Whether someone did."""
        return self.asked

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, being asked raises KeyboardInterrupt at once; so does having been asked before."""
        if self.asked:
            raise KeyboardInterrupt
        self.kept = False
        try:
            yield
        finally:
            self.kept = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self.kept:
            raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Request]:
    """Keeps a request to stop; the second time somebody asks, KeyboardInterrupt is raised.

    A step that is cut in two leaves weights that belong to no step. Outside the main thread, which alone gets signals,
    nothing is kept.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
