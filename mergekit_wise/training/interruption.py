"""Ctrl-C and SIGTERM, deferred until a run can stop safely. Knows nothing of training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class StopRequest:
    """Whether a stop was `requested`; while `waits` is true, a request does not raise KeyboardInterrupt."""

    requested: bool = False
    waits: bool = True

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.requested

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, a request raises KeyboardInterrupt at once, and so does an earlier request."""
        if self.requested:
            raise KeyboardInterrupt
        self.waits = False
        try:
            yield
        finally:
            self.waits = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or not self.waits:
            raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Defer Ctrl-C and SIGTERM until the request is checked; a second one raises KeyboardInterrupt immediately.

    A step that is interrupted halfway would leave weights that belong to no step. Outside the main thread, which alone
    receives signals, nothing is deferred.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
