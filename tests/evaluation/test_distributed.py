"""Several processes have the same predictions and errors as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Engine, Forward, joined
from mergekit_wise.evaluation.distributed import ALONE
from tests.evaluation.fakes import PREPROCESS, linear, noise, setters

CODE = """
import json, sys, torch
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
    with joined("cuda") as (again, card):
        inner = [again.rank == ranks.rank, again.size, card, again.gather(again.rank)]
    after = ranks.gather(ranks.rank)
with open(f"{sys.argv[1]}/{ranks.rank}", "w") as file:
    found = [ranks.size, found.classes.tolist(), found.top5.tolist(), found.bad, shared, message, inner, after, threads]
    json.dump(found, file)
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


def test_one_thread_is_what_torchrun_chose_and_another_number_is_the_users(found):
    """Processes with one thread take their share of the cores; any other number is kept."""
    (_, shared), (before, kept) = (entry[8] for entry in found)
    assert shared == max(1, os.cpu_count() // 2)
    assert before == kept


def test_a_process_of_its_own_is_alone(monkeypatch):
    """Without torchrun's variables there is one rank, and the device is unchanged."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as (ranks, device):
        assert ranks is ALONE
        assert device == "cpu"


def test_processes_that_do_not_know_their_gpu_are_refused(monkeypatch):
    """All of them would use the first one; what started them is asked to say which is whose."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UsageError, match="LOCAL_RANK.* is not set. Start the processes with torchrun"), joined("cuda"):
        pass
