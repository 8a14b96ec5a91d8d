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
    """And afterwards signals mean what they meant before."""
    before = signal.getsignal(number)
    with deferred() as request:
        assert not request()
        send(number)
        assert request()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_request_does_not_wait(number):
    """Whoever asks twice is in a hurry."""
    with pytest.raises(KeyboardInterrupt), deferred():
        send(number)
        send(number)


def test_where_nothing_can_be_torn_a_request_counts_at_once():
    """Also one that came before."""
    with pytest.raises(KeyboardInterrupt), deferred() as request, request.at_once():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred() as request:
        send(signal.SIGINT)
        with request.at_once():
            pytest.fail("went on although somebody had asked to stop")


def test_another_thread_than_the_main_one_has_no_signals():
    """It is never asked, and nothing is changed."""
    told = []

    def run():
        with deferred() as request:
            told.append(request())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert told == [False]
    assert signal.getsignal(signal.SIGINT) is before
