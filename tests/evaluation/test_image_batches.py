"""Images come in batches of one shape, in order, decoded once, with any number of workers."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.image_batches import decoded, default_workers, shared_memory
from tests.evaluation.fakes import PREPROCESS, noise, renamed


def batched(count, size):
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("size", "hold"), [(1, 1), (7, 1), (20, 3), (100, 2)])
def test_batches_hold_the_images_in_order(workers, size, hold):
    """Each image is in its row until `hold` more batches were requested, with zeros after the last one."""
    dataset = noise(53)
    wanted = np.stack([PREPROCESS.pixels(dataset.image(i)).numpy() for i in range(53)])
    seen, recent = [], []
    for batch in decoded(dataset, PREPROCESS, batched(53, size), size, workers=workers, hold=hold):
        assert batch.pixels.shape == (size, 3, 8, 8)
        recent = [*recent, batch][-hold:]
        time.sleep(0.002)  # the workers run ahead
        for held in recent:
            count = len(held.indices)
            assert np.array_equal(held.pixels[:count], wanted[held.indices])
            assert not held.pixels[count:].any()
        seen += batch.indices.tolist()
    assert seen == list(range(53))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_decoded_once(workers, tmp_path):
    """Each image leaves a file, which must not exist yet, however many processes there are."""
    whole = noise(53)

    def image(index):
        (tmp_path / str(index)).touch(exist_ok=False)
        return whole.image(index)

    spied = renamed(whole, image=image)
    assert len(list(decoded(spied, PREPROCESS, batched(53, 9), 9, workers=workers, hold=2))) == 6
    assert len(list(tmp_path.iterdir())) == 53


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_reported_and_left_out(workers):
    """It is reported by its number, with the data set's own reason; its row holds zeros."""
    (batch,) = decoded(noise(20, {3, 17}), PREPROCESS, batched(20, 20), 20, workers=workers, hold=1)
    assert batch.bad == ((3, "images/3.jpg: broken."), (17, "images/17.jpg: broken."))
    assert [i for i in range(20) if not batch.pixels[i].any()] == [3, 17]


def test_an_image_too_narrow_to_be_resized_is_reported_and_left_out():
    """A line of pixels that is resized by its longer side has no height."""
    longest = replace(PREPROCESS, resize_mode="longest")
    dataset = renamed(noise(3), image=lambda i: Image.new("RGB", (2000, 1) if i == 1 else (20, 10), "white"))
    (batch,) = decoded(dataset, longest, batched(3, 3), 3, workers=0, hold=1)
    ((index, reason),) = batch.bad
    assert index == 1
    assert reason.startswith("images/1.jpg: cannot be resized: ")
    assert [bool(pixels.any()) for pixels in batch.pixels] == [True, False, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corruption_is_applied_after_resizing_and_cropping(workers):
    """It is given pixels [H, W, 3] and the image's number."""
    dataset = renamed(noise(20), corrupt=lambda i, pixels: np.full_like(pixels, i) + np.arange(3, dtype=np.uint8))
    (batch,) = decoded(dataset, PREPROCESS, batched(20, 20), 20, workers=workers, hold=1)
    wanted = np.arange(20)[:, None] + np.arange(3)
    assert np.array_equal(batch.pixels, np.broadcast_to(wanted[:, :, None, None], (20, 3, 8, 8)))


def test_a_worker_that_dies_is_an_error():
    """The error names --workers, as when the kernel kills a worker because memory ran out."""
    dataset = renamed(noise(40), image=lambda i: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(SuiteError, match="--workers"):
        list(decoded(dataset, PREPROCESS, batched(40, 8), 8, workers=2, hold=1))


ENDLESS = """
import os, sys, time
import numpy as np
from mergekit_wise.evaluation.image_batches import decoded
from tests.evaluation.fakes import PREPROCESS, noise, renamed

def image(index):
    print(os.getpid(), flush=True)
    time.sleep(600)

list(decoded(renamed(noise(1), image=image), PREPROCESS, [np.arange(1)], 1, workers=1, hold=1))
"""


def test_a_worker_whose_parent_was_killed_ends():
    """Otherwise it would wait for work forever, with the data set open."""
    words = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        # The worker writes to the same pipe, whose end is reached when nobody is left who could.
        assert parent.communicate(timeout=60)[0] == ""


def test_a_defect_in_a_worker_is_no_unreadable_image():
    """An exception that is not about an image is raised unchanged."""
    dataset = renamed(noise(40), image=lambda i: [][i])
    with pytest.raises(IndexError):
        list(decoded(dataset, PREPROCESS, batched(40, 8), 8, workers=2, hold=1))


def test_processes_share_the_cores(monkeypatch):
    """Processes that torchrun started on one machine divide its cores among their workers."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = default_workers()
    assert 1 <= alone <= min(32, os.cpu_count())
    cores = str(os.cpu_count())
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": cores,
        "MASTER_ADDR": "localhost",
        "LOCAL_WORLD_SIZE": cores,
    }.items():
        monkeypatch.setenv(name, value)
    assert default_workers() == 1


WRITE = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(6)
    file.write(bytes([7, 8, 9]))
"""


@pytest.mark.parametrize("anonymous", [True, False])
def test_what_one_process_writes_another_sees(anonymous, tmp_path, monkeypatch):
    """It works with anonymous files and without them, and leaves no file behind."""
    if not anonymous:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_memory((4, 3)) as shared:
        ours = shared.open()
        assert not ours.any()
        subprocess.run([sys.executable, "-c", WRITE, shared.path], check=True)
        assert np.array_equal(ours, [[0, 0, 0], [0, 0, 0], [7, 8, 9], [0, 0, 0]])
        assert len(list(tmp_path.iterdir())) == (0 if anonymous and hasattr(os, "memfd_create") else 1)
    assert not list(tmp_path.iterdir())
    assert not os.path.exists(shared.path)
