"""SIGINT and SIGTERM at any moment: one sentence, and the exit code 130 or 143, in real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMPORTED = "import time:"
"""What every line of Python's -X importtime begins with; no other module writes to stderr at a known moment."""

WAITING = """
import sys
from mergekit_wise.cli import app
from mergekit_wise.evaluation import joined

def wait():
    with joined("cpu"):
        raise AssertionError("the other process never came")

app._run = wait
app.main()
"""
AFTERWARDS = """
import atexit, sys, time
from mergekit_wise.__main__ import main
sys.argv = ["wise", "--help"]
try:
    main()
finally:  # as libraries do that are imported by the command
    atexit.register(lambda: (print("done", flush=True), time.sleep(60)))
"""


def start(*words, **environment):
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("after", [40, 150, 260, 400])
def test_a_signal_while_modules_are_imported_is_one_sentence(number, after):
    """A signal after any number of imported modules ends the process with one sentence and the signal's exit code."""
    process = start("-X", "importtime", "-m", "mergekit_wise", "suites")
    seen, written = 0, []
    for line in process.stderr:
        seen += bool(seen) or "mergekit_wise.signals" in line
        if not line.startswith(IMPORTED):
            written.append(line)
        if seen == after:
            process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert len(written) == 1, written
    assert written[0].startswith("Interrupted")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_interpreter_exits_is_one_sentence(number):
    """After the work, while exit functions run, a signal ends the process with one sentence."""
    process = start("-c", AFTERWARDS)
    while process.stdout.readline() not in ("done\n", ""):
        pass
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == "Interrupted while exiting, after the work had ended.\n"


@pytest.mark.slow
def test_a_signal_at_the_rendezvous_is_one_sentence():
    """A process that waits for the others of a torchrun ends at once, though it waits in C++."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(
        "-c", WAITING, RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE="2"
    )
    while not listening(port):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == "Interrupted while process 0 was waiting for the other processes.\n"


VANISHED = """
import os, signal, sys, time
from mergekit_wise.cli import app
from mergekit_wise.evaluation import distributed
from mergekit_wise.evaluation import joined
from mergekit_wise.signals import ending_stuck_waits

distributed.ending_stuck_waits = lambda sentence, waits_at: ending_stuck_waits(sentence, waits_at, float(sys.argv[1]))

def vanish():
    with joined("cpu") as (ranks, _):
        ranks.share(None)
        if ranks.rank:
            print(os.getpid(), flush=True)
            signal.pause()  # as a machine that has lost its network
        print("waiting", flush=True)
        ranks.gather(None)

app._run = vanish
app.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("grace", "signals"), [("0.5", 1), ("1000", 2)])
def test_a_signal_ends_a_wait_for_a_process_that_has_vanished(grace, signals):
    """A process that waits in C++ for one that says nothing ends some time after a signal, or soon after a second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (start("-c", VANISHED, grace, RANK=rank, LOCAL_RANK=rank, **alone) for rank in "01")
    try:
        assert first.stdout.readline() == "waiting\n"
        time.sleep(0.3)
        for _ in range(signals):
            first.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        _, errors = first.communicate(timeout=60)
    finally:
        second.kill()
        second.communicate(timeout=60)
    assert first.returncode == 143
    assert errors == "Interrupted. Process 0 waited for another one, in vain.\n"


def listening(port):
    return f":{port:04X} 00000000" in Path("/proc/net/tcp").read_text() or any(
        f":{port:04X}" in line.split()[1] for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]
    )


def test_a_signal_that_is_ignored_stays_ignored():
    """Started with SIGINT ignored, as nohup and shells' background jobs are, a command runs to its end."""
    words = [sys.executable, "-m", "mergekit_wise", "suites"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert "digits" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_a_signal_in_a_destructor_is_not_lost():
    """Python swallows what a destructor raises; the signal is sent again, and the command ends."""
    code = """
import signal, time
from mergekit_wise.signals import raising

class Fragile:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        [None for _ in range(10)]

try:
    with raising():
        Fragile()
        for _ in range(100):
            time.sleep(0.01)
except KeyboardInterrupt as error:
    print(error.number)
"""
    process = start("-c", code)
    written, errors = process.communicate(timeout=60)
    assert (written, errors) == ("15\n", "")


LOST = """
import os, sys, time
from mergekit_wise.__main__ import main
from mergekit_wise.cli import app
from mergekit_wise.evaluation import joined

def lose(**settings):
    with joined("cpu") as (ranks, _):
        ranks.share(None)
        if ranks.rank:
            os._exit(9)
        ranks.gather(None)

app.app = lose
main()
"""


@pytest.mark.slow
def test_a_process_that_loses_another_says_so():
    """If a process of a run is killed, the others do not call it a bug."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (start("-c", LOST, RANK=rank, LOCAL_RANK=rank, **alone) for rank in "01")
    _, errors = first.communicate(timeout=60)
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (1, 9)
    assert errors.startswith("error: Process 0 lost the connection")
