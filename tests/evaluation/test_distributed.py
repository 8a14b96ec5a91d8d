"""Several processes have the same predictions and errors as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mergekit_wise import launcher
from mergekit_wise.cores import usable_cores
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Engine, Forward, joined
from mergekit_wise.evaluation.distributed import ALONE, own_gpu
from tests.evaluation.fakes import PREPROCESS, linear, noise, setters

CODE = """
import json, sys, torch
import numpy as np
from mergekit_wise.errors import WiseError
from mergekit_wise.evaluation import Engine, Forward, joined
from tests.evaluation.fakes import PREPROCESS, linear, noise, setters

threads = [torch.get_num_threads()]
with joined("cpu") as (ranks, device):
    threads.append(torch.get_num_threads())
    module = linear()
    engine = Engine(Forward(module, PREPROCESS, torch.device(device), "fp32", print), 8, 1, max_bad=1, ranks=ranks)
    found = engine.predict(setters(module, 3)[0], noise(53, {40}), 7)
    shared = ranks.share({"from": ranks.rank})
    try:
        engine.predict([lambda: None], noise(53, {1, 2}), 7)
    except WiseError as error:
        message = str(error)
    rows = torch.arange(2 * ranks.rank + 1).reshape(-1, 1)
    tensors = {"a": torch.full((2, 2), ranks.rank + 1.5), "b": torch.tensor(ranks.rank), "c": torch.zeros(0, 3)}
    sent = ranks.share_tensors(tensors if ranks.rank == 0 else {})
    bits = np.array([[-0.0, np.nan], [0, 0]] if ranks.rank else [[0, 0], [1.5, -2]], np.float32)
    calls = []
    opening = lambda: calls.append(1) or [ranks.rank]
    lists = [ranks.opened("same", opening), ranks.opened(ranks.rank, opening)]
    lists.append(ranks.opened("same", lambda: calls.append(1) or (lambda: ranks.rank))())
    tensor_ops = [
        [part.tolist() for part in ranks.gather_rows(rows)],
        {name: tensor.tolist() for name, tensor in sent.items()},
        ranks.total(bits.view(np.int32)).tolist(),
        lists,
        len(calls),
    ]
    with joined("cuda") as (again, card):
        inner = [again.rank == ranks.rank, again.size, card, again.gather(again.rank)]
    after = ranks.gather(ranks.rank)
with open(f"{sys.argv[1]}/{ranks.rank}", "w") as file:
    found = [ranks.size, found.classes.tolist(), found.top5.tolist(), found.bad]
    json.dump([*found, shared, message, inner, after, threads, tensor_ops], file)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two gloo processes found; the second has a number of threads that its user chose."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    shared = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(folder)],
            cwd=root,
            env={**shared, "MASTER_PORT": str(port), "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": threads},
        )
        for rank, threads in (("0", "1"), ("1", "2"))
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    return [json.loads((folder / str(rank)).read_text()) for rank in range(2)]


def test_two_processes_predict_what_one_does(found):
    """Both processes have the predictions of all images by every variant."""
    module = linear()
    forward = Forward(module, PREPROCESS, torch.device("cpu"), "fp32", print)
    alone = Engine(forward, 8, max_bad=1).predict(setters(module, 3)[0], noise(53, {40}), 7)
    for size, classes, top5, bad, *_ in found:
        assert size == 2
        assert classes == alone.classes.tolist()
        assert top5 == alone.top5.tolist()
        assert bad == {"40": "images/40.jpg: broken."}


def test_an_error_of_one_is_an_error_of_all(found):
    """Images that one process cannot read stop both; neither waits for the other."""
    assert found[0][5] == found[1][5]
    assert "images/1.jpg: broken. images/2.jpg: broken." in found[0][5]


def test_the_first_decides(found):
    """Every process has the value of rank 0."""
    assert [entry[4] for entry in found] == [{"from": 0}, {"from": 0}]


def test_processes_that_have_met_meet_no_second_time(found):
    """An inner group is the outer one, which remains afterwards; each process has the GPU of its local rank."""
    for rank, entry in enumerate(found):
        assert entry[6] == [True, 2, f"cuda:{rank}", [0, 1]]
        assert entry[7] == [0, 1]


def test_tensors_and_data_sets_are_what_they_are_in_one_process(found):
    """Rows of different numbers, tensors of any shape and the bits of sums arrive; one process alone lists files."""
    bits = np.array([[-0.0, np.nan], [1.5, -2]], np.float32).view(np.int32).tolist()
    for rank, entry in enumerate(found):
        rows, sent, total, lists, calls = entry[9]
        assert rows == [[[0]], [[0], [1], [2]]]
        assert sent == {"a": [[1.5, 1.5]] * 2, "b": 0, "c": []}
        assert total == bits
        # The same place is listed by the first process; different places, and what cannot be sent, by each.
        assert lists == [[0], [rank], rank]
        assert calls == (3 if rank == 0 else 2)


@pytest.mark.parametrize(
    ("local_rank", "visible", "gpu"), [(0, 8, 0), (3, 8, 3), (3, 1, 0), (None, 1, 0), (0, 0, 0), (2, 0, 2)]
)
def test_a_process_takes_the_gpu_of_its_number_or_the_only_one(local_rank, visible, gpu):
    """A scheduler that shows each process one GPU needs no number; without a GPU, opening the device says so."""
    assert own_gpu(local_rank, visible) == gpu


@pytest.mark.parametrize(("local_rank", "visible", "says"), [(None, 2, "LOCAL_RANK"), (4, 4, "at most 4 processes")])
def test_a_gpu_that_is_not_clear_is_refused(local_rank, visible, says):
    """Two processes must not share a GPU by accident, and none is asked for that the machine lacks."""
    with pytest.raises(UsageError, match=says):
        own_gpu(local_rank, visible)


ALONE_BY = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host"}


@pytest.mark.parametrize("missing", ALONE_BY)
def test_variables_of_a_scheduler_are_no_run(missing, monkeypatch):
    """Without its number, the number of processes and an address, a process is alone; a note says so if it matters."""
    for name, value in ALONE_BY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (launcher.world_size(), launcher.rank(), launcher.local_world_size()) == (2, 1, 2)
    assert launcher.note() == ""
    monkeypatch.delenv(missing)
    assert (launcher.world_size(), launcher.rank(), launcher.local_rank(), launcher.local_world_size()) == (1, 0, 0, 1)
    assert (missing in launcher.note()) == (missing != "WORLD_SIZE")
    with joined("cuda") as (ranks, device):
        assert (ranks, device) == (ALONE, "cuda")


def test_the_number_on_a_machine_is_torchruns_or_slurms(monkeypatch):
    """LOCAL_RANK counts before Slurm's number; without both it is unknown."""
    for name, value in ALONE_BY.items():
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launcher.local_rank() is None
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert launcher.local_rank() == 3
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launcher.local_rank() == 1


def test_a_process_that_does_not_come_is_named(monkeypatch):
    """Of three processes two come: each says so after the time that the variable gives, and who is missing if known."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = """
from mergekit_wise.errors import WiseError
from mergekit_wise.evaluation import joined
try:
    with joined("cpu"):
        pass
except WiseError as error:
    print(error)
"""
    env = {**os.environ, "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={**env, "RANK": rank, "WISE_RENDEZVOUS_MINUTES": minutes},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank, minutes in (("0", "0.1"), ("1", "0.05"))
    ]
    second, first = (process.communicate(timeout=120)[0] for process in reversed(running))
    assert "Missing: 2." in second or "is not reached" in second
    assert "2 have come" in first or "1 have come" in first


@pytest.mark.parametrize("minutes", ["0", "soon", "nan", "-1"])
def test_a_time_that_is_none_is_refused(minutes, monkeypatch):
    """The variable holds a number of minutes above 0."""
    for name, value in ALONE_BY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WISE_RENDEZVOUS_MINUTES", minutes)
    with pytest.raises(UsageError, match="WISE_RENDEZVOUS_MINUTES"), joined("cpu"):
        pass


def test_one_thread_is_what_torchrun_chose_and_another_number_is_the_users(found):
    """Processes with one thread take their share of the cores; any other number is kept."""
    (_, shared), (before, kept) = (entry[8] for entry in found)
    assert shared == max(1, usable_cores() // 2)
    assert before == kept


def test_a_process_of_its_own_is_alone(monkeypatch):
    """Without torchrun's variables there is one rank, and the device is unchanged."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as (ranks, device):
        assert ranks is ALONE
        assert device == "cpu"
