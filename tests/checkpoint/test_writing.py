"""Tests of atomic writing: a file or folder appears whole or not at all."""

import errno
import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.checkpoint import open_checkpoint, refuse_overwriting, write_atomically
from mergekit_wise.checkpoint.mapped import watching
from mergekit_wise.checkpoint.writing import (
    locked,
    partial_name,
    remove_abandoned,
    uninterrupted,
    writing,
    writing_folder,
)
from mergekit_wise.errors import CheckpointError, OutputError

DATA = np.arange(100, dtype=np.float32)


def folder_content(path):
    return sorted(entry.name for entry in path.iterdir())


def test_the_output_appears_when_all_is_written(tmp_path):
    """There is no output until the block ends, and nothing else afterwards."""
    output = tmp_path / "out"
    with writing(output, 400) as write:
        write(200, DATA[50:])
        write(0, DATA[:50])
        assert not output.exists()
    assert output.read_bytes() == DATA.tobytes()
    assert folder_content(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_on_any_failure_nothing_is_left_and_an_earlier_output_stays(failure, tmp_path):
    """Any exception, Ctrl-C included, removes the partial file."""
    output = tmp_path / "out"
    output.write_text("earlier")
    with pytest.raises(failure), writing(output, 400) as write:
        write(0, DATA[:50])
        raise failure
    assert output.read_text() == "earlier"
    assert folder_content(tmp_path) == ["out"]


def test_a_disk_that_fills_up_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    """ENOSPC while writing is reported, and an earlier output stays."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "out"
    output.write_text("earlier")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="No space left"), writing(output, 400) as write:
        write(0, DATA)
    assert output.read_text() == "earlier"
    assert folder_content(tmp_path) == ["out"]


class System:
    """A file system that answers a request for space with an error."""

    def __init__(self, number):
        self.number, self.asked = number, []

    def reserve(self, _, size):
        self.asked.append(size)
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR], ids=errno.errorcode.get)
def test_a_file_system_that_reserves_no_space_takes_files(number, tmp_path, monkeypatch):
    """Space is reserved to be faster, and where that is impossible the file is written piece by piece."""
    system = System(number)
    monkeypatch.setattr("mergekit_wise.checkpoint.writing.watching", system)
    write_atomically(tmp_path / "out", bytes(1 << 20))
    assert system.asked == [1 << 20]
    assert (tmp_path / "out").read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_without_the_space_to_reserve_is_reported_before_any_work(number, tmp_path, monkeypatch):
    """A quota of the user, which the free space does not show, ends the run before it has written anything."""
    monkeypatch.setattr("mergekit_wise.checkpoint.writing.watching", System(number))
    (tmp_path / "out").write_text("earlier")
    with (
        pytest.raises(OutputError, match=f"{os.strerror(number)}. Free some space"),
        writing(tmp_path / "out", 1 << 20),
    ):
        pytest.fail("the block began")
    assert (tmp_path / "out").read_text() == "earlier"
    assert folder_content(tmp_path) == ["out"]


@pytest.mark.skipif(watching is None or sys.platform != "linux", reason="only Linux reserves space")
def test_the_space_of_a_file_is_reserved_before_it_is_written(tmp_path):
    """The blocks are there at once, where the file system can, and the file has its size and holds zeros."""
    with (tmp_path / "probe").open("wb") as file:
        try:
            watching.reserve(file.fileno(), 1 << 20)
        except OSError:
            pytest.skip("the file system reserves no space")
    with writing(tmp_path / "out", 3 << 20):
        (partial,) = tmp_path.glob(".out.*.partial")
        assert partial.stat().st_blocks * 512 >= 3 << 20
        assert partial.stat().st_size == 3 << 20
    assert (tmp_path / "out").read_bytes() == bytes(3 << 20)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errno.EDQUOT, "Free some space"),
        (errno.EACCES, "Choose a folder that you may write to"),
        (errno.EROFS, "Choose a folder that you may write to"),
        (errno.EIO, "an earlier output is untouched"),
    ],
    ids=errno.errorcode.get,
)
def test_what_the_system_refuses_is_reported_with_what_to_do(error, advice, tmp_path, monkeypatch):
    """The advice fits the error, also where removing the partial file fails, too, as on a read-only disk."""

    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(OutputError, match=f"{os.strerror(error)}. .*{advice}"), writing(tmp_path / "out", 400):
        pass


@pytest.mark.parametrize("length", [250, 300], ids=["with a suffix", "by itself"])
def test_a_name_too_long_is_reported(length, tmp_path):
    """The error names the output, not the partial file."""
    output = tmp_path / ("n" * length)
    refuse_overwriting(output, (tmp_path,))
    with pytest.raises(OutputError, match="nnn: writing failed: File name too long"), writing(output, 4):
        pass
    assert folder_content(tmp_path) == []


def test_a_link_to_itself_is_replaced(tmp_path):
    """A link that leads nowhere is no obstacle."""
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with writing(tmp_path / "link", 400) as write:
        write(0, DATA)
    assert (tmp_path / "link").read_bytes() == DATA.tobytes()


def test_a_disk_that_is_too_small_is_reported_before_anything_is_written(tmp_path):
    """An exabyte is refused before a partial file is created."""
    with pytest.raises(OutputError, match="free"), writing(tmp_path / "out", 1 << 60):
        pass
    assert folder_content(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_reported(tmp_path):
    """Both are refused with different messages."""
    with pytest.raises(OutputError, match="does not exist. Create it"), writing(tmp_path / "no" / "out", 4):
        pass
    with pytest.raises(OutputError, match="is a folder"), writing(tmp_path, 4):
        pass


def test_a_write_that_is_cut_short_is_continued(tmp_path, monkeypatch):
    """A signal or a nearly full disk lets pwrite write less than it was given."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:7], at))
    with writing(tmp_path / "out", 400) as write:
        write(0, DATA)
    assert (tmp_path / "out").read_bytes() == DATA.tobytes()


def test_permissions_follow_the_umask(tmp_path):
    """The mode is not 0600, which would lock out the group that shares a folder."""
    old = os.umask(0o027)
    try:
        with writing(tmp_path / "out", 4):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_link_to_the_output_keeps_pointing_to_it(tmp_path):
    """The file that the link points to is replaced, not the link."""
    (tmp_path / "real").write_text("earlier")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with writing(tmp_path / "link", 400) as write:
        write(0, DATA)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == DATA.tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    """A pipe or a device is refused as output, because root could otherwise replace /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or a pipe"), writing(tmp_path / "pipe", 10):
        pass
    assert not (tmp_path / "pipe").is_file()


@pytest.mark.parametrize("content", ["größe", "größe".encode(), b"", ""], ids=repr)
def test_a_text_or_bytes_replace_a_file_whole(content, tmp_path):
    """Texts and bytes, empty ones included, replace an earlier file and leave nothing else in the folder."""
    for _ in range(2):
        write_atomically(tmp_path / "out", content)
        assert (tmp_path / "out").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert folder_content(tmp_path) == ["out"]


def test_an_orphan_is_removed_and_an_owned_one_is_not(tmp_path):
    """Unlocked partial files and folders of this output are removed, locked ones and other outputs' are not."""
    target = tmp_path / "out[1]*.safetensors"
    orphan, owned, folder = partial_name(target), partial_name(target), partial_name(target)
    other = tmp_path / ".out1x.safetensors.1-a.partial"
    for path in (orphan, owned, other):
        path.touch()
    folder.mkdir()
    (folder / "x").touch()
    with locked(owned):
        remove_abandoned(target)
        assert {path.name for path in tmp_path.iterdir()} == {owned.name, other.name}
    remove_abandoned(target)
    assert {path.name for path in tmp_path.iterdir()} == {other.name}


def test_two_runs_to_one_output_both_finish(tmp_path):
    """No run removes the other's partial file, and the last to finish determines the output."""
    output = tmp_path / "out"
    with writing(output, 8) as first:
        with writing(output, 8) as second:
            second(0, np.full(2, 2.0, np.float32))
        assert output.read_bytes() == np.full(2, 2.0, np.float32).tobytes()
        first(0, np.full(2, 1.0, np.float32))
    assert output.read_bytes() == np.full(2, 1.0, np.float32).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("seed", range(4))
def test_a_merge_that_is_killed_leaves_the_earlier_output_whole(seed, tmp_path):
    """After SIGKILL at a random point the output is whole, and the next merge removes the partial file."""
    for name, value in (("zs", 1.0), ("ft", 2.0)):
        save_file({f"w{i}": torch.full((1 << 21,), value) for i in range(16)}, tmp_path / name)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=0.25)
    earlier = (tmp_path / "out").read_bytes()
    words = [sys.executable, "-m", "mergekit_wise", "merge", "zs", "ft", "-o", "out"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    now = (tmp_path / "out").read_bytes()
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out")
    finished = (tmp_path / "out").read_bytes()
    assert now in (earlier, finished)
    assert {path.name for path in tmp_path.iterdir()} == {"zs", "ft", "out"}


def filled(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("empty", [False, True], ids=["a new folder", "an empty folder"])
def test_a_folder_is_there_when_it_is_filled(empty, tmp_path):
    """The folder appears with copies of the source files when the block ends, and not before."""
    source, output = filled(tmp_path / "source", "config.json"), tmp_path / "out"
    if empty:
        output.mkdir()
    with writing_folder(output, {"config.json": source / "config.json"}) as folder:
        filled(folder, "model.safetensors")
        assert folder.parent == tmp_path
        assert not output.exists() or not list(output.iterdir())
    assert {path.name: path.read_text() for path in output.iterdir()} == {
        name: name for name in ("config.json", "model.safetensors")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, CheckpointError])
def test_on_any_failure_no_folder_is_left(failure, tmp_path):
    """Any exception, Ctrl-C included, removes the partial folder."""
    with pytest.raises(failure), writing_folder(tmp_path / "out", {}) as folder:
        filled(folder, "model.safetensors")
        raise failure
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("full", "already exists"),
        ("full/x", "already exists"),
        ("no/out", "does not exist. Create it"),
        ("n" * 250, "File name too long. Nothing was left behind"),
        ("n" * 300, "File name too long. Nothing was left behind"),
    ],
    ids=["a folder with files", "a file", "no parent", "too long with a suffix", "too long"],
)
def test_a_folder_that_cannot_be_made_is_reported(output, message, tmp_path):
    """Nothing that existed before is changed."""
    filled(tmp_path / "full", "x")
    with pytest.raises(OutputError, match=message), writing_folder(tmp_path / output, {}):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "x"]


def test_a_file_beside_the_weights_that_cannot_be_copied_is_reported(tmp_path):
    """A missing source file is reported, and nothing is left behind."""
    with (
        pytest.raises(OutputError, match="No such file"),
        writing_folder(tmp_path / "out", {"gone.json": tmp_path / "gone.json"}),
    ):
        pass
    assert not list(tmp_path.iterdir())


def refusing(number):
    """A function that fails with this error number."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF], ids=errno.errorcode.get)
def test_a_file_system_without_locks_takes_files_and_folders(number, tmp_path, monkeypatch):
    """Locks guard litter only: without them the output is written, and no partial file of another run is removed."""
    monkeypatch.setattr("fcntl.flock", refusing(number))
    other = partial_name(tmp_path / "out")
    other.touch()
    write_atomically(tmp_path / "out", b"x")
    with writing_folder(tmp_path / "folder", {}):
        pass
    assert folder_content(tmp_path) == sorted([other.name, "folder", "out"])


def test_a_file_system_that_does_not_say_what_is_free_takes_files(tmp_path, monkeypatch):
    """0 free bytes of 0, and no answer at all, are no reason to refuse; a disk that is full is one."""
    answers = iter([(0, 0, 0), refusing(errno.ENOSYS), (10, 10, 0)])

    def disk_usage(_):
        answer = next(answers)
        return shutil._ntuple_diskusage(*answer) if isinstance(answer, tuple) else answer()

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    write_atomically(tmp_path / "a", b"x")
    write_atomically(tmp_path / "b", b"x")
    with pytest.raises(OutputError, match="only 0 are free"):
        write_atomically(tmp_path / "c", b"x")


def test_a_file_system_that_cannot_rename_is_named(tmp_path, monkeypatch):
    """Without a rename no output can appear whole, so that there is none, and the error says where to write."""
    monkeypatch.setattr("pathlib.Path.replace", refusing(errno.ENOSYS))
    with pytest.raises(OutputError, match="write to another disk and copy"):
        write_atomically(tmp_path / "a", b"x")
    assert folder_content(tmp_path) == []


def test_a_file_system_that_cannot_flush_replaces_files(tmp_path, monkeypatch):
    """Some file systems know no fsync; one that fails to write is reported."""
    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    write_atomically(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OutputError):
        write_atomically(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_partial_file_that_another_run_removes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Between its creation and its lock a partial file looks abandoned: another run may remove it, or be about to."""
    real, calls = fcntl.flock, []

    def flock(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:  # removed, and the lock is free again
            for path in tmp_path.glob(".out.*"):
                path.unlink()
        elif len(calls) == 2:  # locked by the run that removes it
            raise BlockingIOError(errno.EWOULDBLOCK, "")
        return real(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", flock)
        with writing(tmp_path / "out", 1) as write:
            write(0, b"x")
    assert len(calls) == 3
    assert (tmp_path / "out").read_bytes() == b"x"


def test_a_partial_folder_that_another_run_removes_before_it_is_opened_is_made_again(tmp_path, monkeypatch):
    """Only an open folder can be locked: between the two it looks abandoned, as a file does before it is locked."""
    real, removed = os.open, []

    def opened(path, *arguments):
        if not removed and str(path).endswith(".partial"):
            removed.append(path)
            os.rmdir(path)
        return real(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        with writing_folder(tmp_path / "out", {}) as folder:
            filled(folder, "x")
    assert removed
    assert folder_content(tmp_path) == ["out"]
    assert folder_content(tmp_path / "out") == ["x"]


def test_processes_that_write_one_output_at_once_all_finish(tmp_path):
    """Each of several processes that replace the same file again and again succeeds, and none leaves anything."""
    code = (
        "from pathlib import Path\n"
        "from mergekit_wise.checkpoint import write_atomically\n"
        "for _ in range(150): write_atomically(Path('out'), b'x' * 100)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(3)]
    assert [run.communicate()[1] for run in runs] == [b""] * 3
    assert folder_content(tmp_path) == ["out"]


@pytest.mark.parametrize("name", [".out.partial", ".out.mine.partial", ".out.1-abc.partial", ".out.1-0123456z.partial"])
def test_a_file_that_is_named_almost_like_a_partial_file_is_not_litter(name, tmp_path):
    """Only names with a process number and eight hexadecimal digits are this tool's."""
    (tmp_path / name).touch()
    remove_abandoned(tmp_path / "out")
    assert folder_content(tmp_path) == [name]


def test_a_text_is_written_into_a_pipe_and_a_device(tmp_path):
    """Pipes and devices are written to, under a link, too, and stay what they are."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        write_atomically(tmp_path / name, "text")
        assert os.read(reader, 100) == b"text"
        os.close(reader)
    write_atomically(Path(os.devnull), "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert folder_content(tmp_path) == ["link", "pipe"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_short_block(number):
    """The block ends, and then the handler that was there before gets the signal, once."""
    done, received = [], []
    before = signal.signal(number, lambda number, _: received.append(number))
    try:
        with uninterrupted():
            signal.raise_signal(number)
            assert received == []
            done.append(True)
        assert (done, received) == ([True], [number])
    finally:
        signal.signal(number, before)


OUTPUTS = {
    "one file": ["-o", "out.safetensors"],
    "torch's format": ["-o", "out.pt"],
    "shards": ["-o", "out.safetensors", "--shard-size", "20MB"],
    "folder": ["-o", "out"],
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_merge_that_is_asked_to_stop_leaves_nothing(kind, number, tmp_path):
    """A signal at any moment leaves the whole output or nothing, whatever is written."""
    sides = ["zs", "ft"] if kind == "folder" else ["zs/model.safetensors", "ft/model.safetensors"]
    for name, value in (("zs", 1.0), ("ft", 2.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({f"w{i}": torch.full((1 << 21,), value) for i in range(8)}, tmp_path / name / "model.safetensors")
    words = [sys.executable, "-m", "mergekit_wise", "merge", *sides, *OUTPUTS[kind]]
    for moment in (0.0, 0.03):
        process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(tmp_path.glob(".out*")) and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(moment)
        process.send_signal(number)
        process.wait()
        found = {path.name for path in tmp_path.iterdir()} - {"zs", "ft"}
        assert not any(name.startswith(".") for name in found), found
        if found:  # it was too late: the output is whole
            output = tmp_path / max(found)  # of shards, the index
            checkpoint = open_checkpoint(output)
            assert all(set(checkpoint.read(f"w{i}").tolist()) == {1.5} for i in range(8))
        assert process.returncode in (0, 128 + number)
        for name in found:
            shutil.rmtree(tmp_path / name) if (tmp_path / name).is_dir() else (tmp_path / name).unlink()


def test_a_link_into_the_hubs_cache_is_not_written_through(tmp_path):
    """All revisions of a repository share the file that the link leads to."""
    blob = tmp_path / "models--a--b" / "blobs" / "1111"
    link = tmp_path / "models--a--b" / "snapshots" / "abc" / "model.safetensors"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(b"shared")
    link.symlink_to("../../blobs/1111")
    with pytest.raises(OutputError, match="cache of the Hugging Face hub"):
        write_atomically(link, b"new")
    assert blob.read_bytes() == b"shared"
