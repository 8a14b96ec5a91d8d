"""SIGINT and SIGTERM at any moment of the command line: one sentence, and the exit code 130 or 143, never a traceback.

While a command works, a signal raises `Interrupted`, so that everything is cleaned up. Before and after, there is
nothing to clean up, and an exception would end in the code of a library or the interpreter; so the process ends at
once. Imports nothing slow, because it is the first thing that a process needs.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mergekit_wise.errors import Interrupted

Handler = Callable[[int, FrameType | None], Any]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The user's Ctrl-C, and what job schedulers and torchrun send."""

_MOMENT = 0.02
"""Seconds after which a destructor is over."""

_GRACE = 20.0
"""Seconds that a wait for another process may go on after a signal; schedulers kill after 30."""

_AGAIN = 1.0
"""The same after a second signal."""


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code that shells give a process that the signal ended: 130 or 143."""
    return 128 + Interrupted.of(error, "").number


def leave_at_once(sentence: str) -> None:
    """From now on, let a signal print a sentence and end the process, without running any other code of it."""
    # Names of this module may be gone when the interpreter shuts down.
    write, leave, message = os.write, os._exit, f"{sentence}\n".encode()

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            write(2, message)
        finally:
            leave(128 + number)

    _install(handle)


def ignore_at_the_end() -> None:
    """Ignore signals while the interpreter is torn down: it would let them kill the process, whose work is done.

    To be called first, because Python runs what is to be done at the end in reverse order.
    """
    for number in SIGNALS:
        atexit.register(signal.signal, number, signal.SIG_IGN)


@contextmanager
def raising() -> Iterator[None]:
    """Let a signal raise `Interrupted` in the main thread while the block runs.

    Python only prints an exception that is raised in a destructor or a callback of C code; the signal is then sent
    again, a moment later.
    """
    report = sys.unraisablehook

    def again(problem: Any) -> None:
        if isinstance(problem.exc_value, Interrupted):
            timer = threading.Timer(_MOMENT, os.kill, (os.getpid(), problem.exc_value.number))
            timer.daemon = True
            timer.start()
        else:
            report(problem)

    sys.unraisablehook = again
    try:
        with handled_by(_raise):
            yield
    finally:
        sys.unraisablehook = report


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Let `handler` receive signals while the block runs, in the main thread, which alone receives any."""
    before = _install(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def ending_waits(sentence: str) -> Iterator[None]:
    """Let a signal print a sentence and end the process also while the main thread waits in C code.

    Python runs handlers between two of its own instructions, so a wait for other machines would go on for hours.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def watch(reading: int) -> None:
        for number in iter(lambda: os.read(reading, 1), b""):
            if number[0] in SIGNALS:
                os.write(2, f"{sentence}\n".encode())
                os._exit(128 + number[0])

    with handled_by(lambda number, frame: None), _watched_by(watch):
        yield


@contextmanager
def ending_stuck_waits(sentence: str, waits_at: Callable[[], object], grace: float = _GRACE) -> Iterator[None]:
    """End the process some time after a signal, with a sentence, if the main thread still waits where it did.

    Handlers stay as they are: as soon as the wait is over, the main thread runs them. Only if another process has
    vanished without a word is it never over.

    Args:
        sentence: what is printed.
        waits_at: where the main thread waits, to be compared; None if it does not.
        grace: seconds; after a second signal, at most one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import select

    def watch(reading: int) -> None:
        number, place, end = 0, None, 0.0
        while True:
            ready, _, _ = select.select([reading], [], [], min(grace, 0.2) if number else None)
            if ready:
                received = os.read(reading, 1)
                if not received:
                    break
                if received[0] in SIGNALS:
                    end = time.monotonic() + (min(grace, _AGAIN) if number else grace)
                    number, place = received[0], waits_at()
            elif place is None or waits_at() != place:
                number = 0
            elif time.monotonic() >= end:
                os.write(2, f"{sentence}\n".encode())
                os._exit(128 + number)

    with _watched_by(watch):
        yield


@contextmanager
def _watched_by(watch: Callable[[int], None]) -> Iterator[None]:
    """Run `watch` in a thread; its pipe gets the numbers of signals while the block runs, and is closed afterwards."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def run() -> None:
        watch(reading)
        os.close(reading)

    threading.Thread(target=run, daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


@contextmanager
def blocked() -> Iterator[None]:
    """Hold signals back while processes are forked; each must `unblock` them once it has its own handlers."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Receive the signals that the parent process held back."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number=number)


def _install(handler: Handler) -> dict[int, Any]:
    """Set the handler of both signals, and return the earlier ones; a signal that is ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    changed: dict[int, Any] = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in changed:
        signal.signal(number, handler)
    return changed
