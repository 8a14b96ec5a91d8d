"""Ctrl-C and SIGTERM, deferred until a run can stop safely. Knows nothing of training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from mergekit_wise.errors import Interrupted
from mergekit_wise.signals import handled_by


@dataclass(slots=True)
class StopRequest:
    """Whether a stop was `requested`, and by which signal; while `waits` is true, a request raises no exception."""

    requested: bool = False
    waits: bool = True
    number: int = signal.SIGINT

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.requested

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, a request raises Interrupted at once, and so does an earlier request."""
        if self.requested:
            raise Interrupted(number=self.number)
        self.waits = False
        try:
            yield
        finally:
            self.waits = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.requested, self.number = self.requested, True, number
        if again or not self.waits:
            raise Interrupted(number=number)


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Defer Ctrl-C and SIGTERM until the request is checked; a second one raises Interrupted immediately.

    A step that is interrupted halfway would leave weights that belong to no step. Outside the main thread, which alone
    receives signals, nothing is deferred.
    """
    request = StopRequest()
    with handled_by(request._receive):
        yield request
