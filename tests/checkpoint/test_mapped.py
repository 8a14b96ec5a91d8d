"""Tests of files that are mapped, or read with ordinary I/O."""

import errno
import io
import json
import mmap
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.checkpoint.mapped import HUGE_PAGE, MappedFile, guarded_map, watching
from mergekit_wise.errors import CheckpointError


def old_save(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def pickled(state, path):
    path.write_bytes(pickle.dumps(state, protocol=4))


class Cut(io.FileIO):
    """Reads a few bytes at once, as Linux does of more than 2 GiB."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:7])


class Broken(io.FileIO):
    """A disk that fails."""

    def readinto(self, buffer):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def plainly(tmp_path, monkeypatch):
    """A file of the bytes 0 to 255, read plainly by a `FileIO` of some kind."""

    def plainly(kind):
        (tmp_path / "file").write_bytes(bytes(range(256)))
        monkeypatch.setattr(Path, "open", lambda path, *_, **__: kind(path))
        return MappedFile(tmp_path / "file", mmap=False)

    return plainly


def test_a_read_that_is_cut_short_is_continued(plainly):
    """Short reads are continued up to the last byte, and a file that became shorter is an error."""
    with plainly(Cut) as file:
        assert file.elements("u1", 3, 253).tolist() == list(range(3, 256))
        with pytest.raises(CheckpointError, match="became shorter while it was being read"):
            file.elements("u1", 4, 253)


def test_a_disk_that_fails_is_reported_with_the_place(plainly):
    """The error names the file and the byte."""
    with plainly(Broken) as file, pytest.raises(CheckpointError, match="file: reading failed at byte 3: Input/output"):
        file.elements("u1", 3, 5)


LIMITED = """
import resource, sys
from pathlib import Path
from mergekit_wise.checkpoint import open_checkpoint
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36))
checkpoint = open_checkpoint(Path(sys.argv[1]))
print(checkpoint.notes, checkpoint.read("w", 0, 2))
"""


@pytest.mark.skipif(watching is None or sys.platform != "linux", reason="elsewhere the limit is not kept")
def test_a_file_that_does_not_fit_into_the_address_space_is_read_with_a_note(tmp_path):
    """Under `ulimit -v`, as on a cluster's login node, a file that is too large to be mapped is read nevertheless."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1 << 37], "data_offsets": [0, 1 << 37]}}).encode()
    with (tmp_path / "large").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (1 << 37))
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "large"], capture_output=True, text=True)
    assert "could not be mapped into memory (Cannot allocate memory); read with ordinary I/O" in done.stdout, (
        done.stderr
    )
    assert "[0 0]" in done.stdout


def refuse(_):
    """A file system that maps no files."""
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


@pytest.mark.parametrize("save", [save_file, torch.save, old_save, pickled], ids=lambda save: save.__name__)
@pytest.mark.parametrize("mmap", [True, False], ids=["refused", "--no-mmap"])
def test_every_format_is_read_without_a_map(save, mmap, tmp_path, monkeypatch):
    """Where the file system refuses to map a file a note says so; with --no-mmap nothing is even tried."""
    tried = []
    monkeypatch.setattr("mergekit_wise.checkpoint.opening.MappedFile", partial(MappedFile, map_file=refuse))
    monkeypatch.setattr("mergekit_wise.checkpoint.mapped.memory.mmap", lambda *_, **__: tried.append(1))
    state = {"w": torch.arange(6.0), "v": torch.ones(2, 2)}
    save(state, tmp_path / "x")
    checkpoint = open_checkpoint(tmp_path / "x", mmap=mmap)
    for name, tensor in state.items():
        checkpoint.expect(name, 0, tensor.numel())
        assert checkpoint.read(name).tobytes() == tensor.numpy().tobytes()
        checkpoint.forget(name, 0, tensor.numel())
    assert not tried
    assert any("No such device" in note for note in checkpoint.notes) == mmap


SHRINKS = """
import os, sys
from pathlib import Path
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.errors import CheckpointError
path = Path(sys.argv[1])
file = MappedFile(path)
view = file.elements("u1", 0, file.size)
os.truncate(path, 1000)
print(view.sum())
os.truncate(path, file.size)
for action in (lambda: file.elements("u1", 0, file.size), lambda: file.forget(0, 1), file.close):
    try:
        action()
    except CheckpointError as error:
        print(error)
"""


@pytest.mark.skipif(watching is None, reason="without the compiled module nothing is mapped")
@pytest.mark.parametrize("options", [[], ["-X", "faulthandler"]], ids=["alone", "faulthandler"])
def test_a_mapped_file_that_becomes_shorter_is_an_error_and_no_crash(options, tmp_path):
    """What was read from pages that are gone is refused, even if the file has its length again."""
    (tmp_path / "file").write_bytes(b"\1" * (3 << 20))
    command = [sys.executable, *options, "-c", SHRINKS, tmp_path / "file"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total, *errors = done.stdout.splitlines()
    assert total == "1000"
    assert len(errors) == 3
    assert all("file: became shorter while it was being read" in error for error in errors)


@pytest.mark.skipif(watching is None or sys.platform != "linux", reason="the advice is Linux's")
def test_advice_reaches_no_further_than_the_map(tmp_path):
    """Advice on pages beside the map, or that the system does not know, is an error, and one within it is none."""
    (tmp_path / "file").write_bytes(bytes(mmap.PAGESIZE))
    mapped, _ = guarded_map(os.open(tmp_path / "file", os.O_RDONLY))
    watching.advise(mapped, mmap.MADV_DONTNEED, 0, mmap.PAGESIZE)
    for start, length in ((-mmap.PAGESIZE, mmap.PAGESIZE), (0, mmap.PAGESIZE + 1), (mmap.PAGESIZE, 1), (0, -1)):
        with pytest.raises(OSError, match="Invalid argument"):
            watching.advise(mapped, mmap.MADV_DONTNEED, start, length)
    with pytest.raises(OSError, match="Invalid argument"):
        watching.advise(mapped, 9999, 0, mmap.PAGESIZE)


def test_an_empty_tensor_at_the_very_end_is_like_any_other(tmp_path):
    """An empty tensor after the last page can be announced, read and forgotten."""
    state = {"a": torch.ones(HUGE_PAGE - 1000, dtype=torch.uint8), "b": torch.ones(0, dtype=torch.uint8)}
    save_file(state, tmp_path / "x")
    state["a"] = torch.ones(HUGE_PAGE - 1000 + HUGE_PAGE - (tmp_path / "x").stat().st_size, dtype=torch.uint8)
    save_file(state, tmp_path / "x")
    checkpoint = open_checkpoint(tmp_path / "x")
    assert checkpoint.size == checkpoint.tensors["b"].offset == HUGE_PAGE
    for name, tensor in state.items():
        checkpoint.expect(name, 0, len(tensor))
        assert checkpoint.read(name).tolist() == tensor.tolist()
        checkpoint.forget(name, 0, len(tensor))
    assert checkpoint.read("a").all()


def test_headers_are_read_without_touching_the_map(tmp_path):
    """Headers are read with ordinary I/O, because accessing a page can map two megabytes."""
    (tmp_path / "file").write_bytes(bytes(range(256)))
    with MappedFile(tmp_path / "file") as file:
        file._map = None
        assert file.bytes_at(250, 300) == bytes(range(250, 256))
        assert file.bytes_at(300, 310) == b""


def test_a_read_error_in_the_middle_is_reported_and_leaves_nothing(pair, tmp_path, wise):
    """A file that becomes shorter while it is read gives an error and leaves the earlier output."""
    (tmp_path / "out").write_text("earlier")

    class Short(MappedFile):
        def _read(self, offset, size):
            with self.path.open("r+b") as file:
                file.truncate(offset + size - 1)
            return super()._read(offset, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mergekit_wise.checkpoint.opening.MappedFile", Short)
        result = wise("merge", *pair, "-o", tmp_path / "out", "--no-mmap")
    assert result.exit_code == 1
    assert "became shorter while it was being read" in result.stderr
    assert (tmp_path / "out").read_text() == "earlier"
    assert not list(tmp_path.glob(".out*"))
