"""Processes that do not see the same state of a run end with a sentence, all of them."""

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
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import joined
from mergekit_wise.training.agreement import require_same_state, require_shared
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.loop import RunningMean
from mergekit_wise.training.optimizer import Optimization, OptimizerStep

home = Path(sys.argv[1])

def checkpointer(folder, steps, seed):
    weight = torch.nn.Parameter(torch.full((3,), float(seed)))
    optimizer = OptimizerStep([("w", weight)], Optimization(1, 1, 1e-3, 0), 10)
    optimizer.taken = steps
    found = Checkpointer(home / folder, {}, {"w": weight}, optimizer)
    if steps:
        found.save(RunningMean())
    return found

def outcome(check, *arguments):
    try:
        check(*arguments)
    except UsageError as error:
        return str(error).replace(str(home), "HOME")
    return "agreed"

with joined("cpu") as (ranks, _):
    own = f"own{ranks.rank}"
    (home / own).mkdir()
    print(outcome(require_same_state, ranks, checkpointer("none", 0, 0)))
    if ranks.rank == 0:
        checkpointer("both", 5, 1)
    ranks.share(None)
    both = checkpointer("both", 0, 1)
    both.restore()
    print(outcome(require_same_state, ranks, both))
    print(outcome(require_same_state, ranks, checkpointer(f"{own}-step", 3 + ranks.rank, 1)))
    print(outcome(require_same_state, ranks, checkpointer(f"{own}-weights", 3, ranks.rank)))
    print(outcome(require_same_state, ranks, checkpointer(f"{own}-first", 3 * (ranks.rank == 0), 1)))
    print(outcome(require_shared, ranks, both), outcome(require_shared, ranks, checkpointer(own, 0, 1)), sep="\\n")
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


def test_the_same_state_or_none_is_agreed(printed):
    """Processes that all found no state, or the same, go on; so do those that see one folder."""
    for lines in printed:
        assert [lines[0], lines[1], lines[5]] == ["agreed"] * 3


@pytest.mark.parametrize("case", [2, 3, 4, 6])
def test_different_states_and_folders_are_refused_by_all(case, printed):
    """Other steps, other weights, a state in one process only, and folders that are not shared stop every process."""
    for lines in printed:
        assert "--state" in lines[case]
        assert "process 1" in lines[case]
