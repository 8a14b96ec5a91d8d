"""Processes of one run need not see one folder to resume it, and end with a sentence if they are of several runs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
import torch
from mergekit_wise.errors import WiseError
from mergekit_wise.evaluation import joined
from mergekit_wise.training.agreement import require_same_run, require_shared
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.loop import RunningMean
from mergekit_wise.training.optimizer import MovingAverage, Optimization, OptimizerStep

home = Path(sys.argv[1])

def checkpointer(folder, seed, facts={}):
    weight = torch.nn.Parameter(torch.full((3,), float(seed)))
    optimizer = OptimizerStep([("w", weight)], Optimization(1, 1, 1e-3, 0), 10)
    average = MovingAverage([("w", weight)], 0.9)
    return Checkpointer(home / folder, facts, {"w": weight}, optimizer, average)

def outcome(check, *arguments):
    try:
        return check(*arguments)
    except WiseError as error:
        return str(error).replace(str(home), "HOME")

with joined("cpu") as (ranks, _):
    own = f"own{ranks.rank}"
    (home / own).mkdir()
    # Of what each finds in its own folder, process 0 has step 2 of the weights 5, the other step 1 of the weights 9.
    saved = checkpointer(own, 9 if ranks.rank else 5)
    for _ in range(1 if ranks.rank else 2):
        saved.optimizer.step((saved.parameters["w"] ** 2).sum())
    saved.save(RunningMean(images=7 + ranks.rank))
    found = checkpointer(own, 0)
    mean = found.restore(ranks)
    numbers = [*found.parameters["w"].tolist(), *found.average.tensors["w"].tolist()]
    numbers += [number for tensor in found.optimizer.moments().values() for number in tensor.reshape(-1).tolist()]
    print(mean.images, found.optimizer.taken, numbers)
    print(outcome(checkpointer("none", 0).restore, ranks))
    print(outcome(checkpointer(own, 0, {"lr": 1}).restore, ranks))
    if ranks.rank == 0:
        (home / own / "state.safetensors").write_bytes(b"no state")
    print(outcome(checkpointer(own, 0).restore, ranks))
    print(outcome(require_same_run, ranks, {"lr": 1}))
    print(outcome(require_same_run, ranks, {"lr": 1 + ranks.rank}))
    shared = [outcome(require_shared, ranks, home / folder, "it", "Share it") for folder in ("both", own)]
    print(*shared, sep="\\n")
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The lines that each of two processes prints: `both` is a folder that they share, `own0` and `own1` are not."""
    home = tmp_path_factory.mktemp("agreement")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(home)],
            cwd=ROOT,
            env={**os.environ, **alone, "OMP_NUM_THREADS": "1", "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    lines = [process.communicate(timeout=120)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert not list(home.glob("*/shared-*"))
    return lines


def test_processes_without_a_shared_folder_resume_what_the_first_saved(printed):
    """Both have the weights, averages, moments, steps and sums of process 0, whatever the other's own folder holds."""
    first, second = (lines[0] for lines in printed)
    assert first == second
    assert first.startswith("7 2 [4.99")


def test_without_a_state_of_the_first_nothing_is_resumed(printed):
    """No process restores anything if process 0 has no state."""
    assert [lines[1] for lines in printed] == ["None", "None"]


@pytest.mark.parametrize(("case", "says"), [(2, "other options"), (3, "state.safetensors"), (5, "lr: 1 in process 0")])
def test_a_state_that_does_not_fit_and_another_run_are_refused_by_all(case, says, printed):
    """A state of other options, a damaged one, and processes with other options stop every process."""
    for lines in printed:
        assert says in lines[case]


def test_the_same_run_and_a_shared_folder_are_agreed(printed):
    """Processes of the same run go on, and so do those that see one folder; separate folders stop all of them."""
    for lines in printed:
        assert [lines[4], lines[6]] == ["None", "None"]
        assert "process 1" in lines[7]
