"""Ctrl-C and SIGTERM wait until a run can stop, and no longer."""

import os
import signal
import threading

import pytest

from mergekit_wise.training.interruption import deferred

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_waits_to_be_looked_at(number):
    """A signal is deferred until it is checked, and afterwards the old handler is in place."""
    before = signal.getsignal(number)
    with deferred() as request:
        assert not request()
        send(number)
        assert request()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_request_does_not_wait(number):
    """The second signal raises KeyboardInterrupt at once."""
    with pytest.raises(KeyboardInterrupt), deferred():
        send(number)
        send(number)


def test_where_nothing_can_be_torn_a_request_counts_at_once():
    """Within `at_once`, a request raises KeyboardInterrupt at once, and so does an earlier one."""
    with pytest.raises(KeyboardInterrupt), deferred() as request, request.at_once():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred() as request:
        send(signal.SIGINT)
        with request.at_once():
            pytest.fail("went on although a stop was requested")


def test_another_thread_than_the_main_one_has_no_signals():
    """In another thread nothing is deferred, and the signal handlers do not change."""
    requested = []

    def run():
        with deferred() as request:
            requested.append(request())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert requested == [False]
    assert signal.getsignal(signal.SIGINT) is before
