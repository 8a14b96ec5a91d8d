"""A file is there whole or not at all."""

import errno
import os
import stat

import numpy as np
import pytest

from mergekit_wise.checkpoint.writer import refuse_overwriting, writing
from mergekit_wise.errors import OutputError

DATA = np.arange(100, dtype=np.float32)


def folder_content(path):
    return sorted(entry.name for entry in path.iterdir())


def test_the_output_appears_when_all_is_written(tmp_path):
    """Until the block ends there is no output, afterwards nothing but the output."""
    output = tmp_path / "out"
    with writing(output, 400) as write:
        write(200, DATA[50:])
        write(0, DATA[:50])
        assert not output.exists()
    assert output.read_bytes() == DATA.tobytes()
    assert folder_content(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_on_any_failure_nothing_is_left_and_an_earlier_output_stays(failure, tmp_path):
    """Ctrl-C included."""
    output = tmp_path / "out"
    output.write_text("earlier")
    with pytest.raises(failure), writing(output, 400) as write:
        write(0, DATA[:50])
        raise failure
    assert output.read_text() == "earlier"
    assert folder_content(tmp_path) == ["out"]


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    """ENOSPC in the middle of writing."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "out"
    output.write_text("earlier")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="No space left"), writing(output, 400) as write:
        write(0, DATA)
    assert output.read_text() == "earlier"
    assert folder_content(tmp_path) == ["out"]


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
def test_what_the_system_refuses_is_told_with_what_to_do(error, advice, tmp_path, monkeypatch):
    """Also by a system that refuses to remove what it refused to make, as a read-only disk does."""

    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    for name in ("touch", "unlink"):
        monkeypatch.setattr(f"pathlib.Path.{name}", refuse)
    with pytest.raises(OutputError, match=f"{os.strerror(error)}. .*{advice}"), writing(tmp_path / "out", 400):
        pass


@pytest.mark.parametrize("length", [250, 300], ids=["with a suffix", "by itself"])
def test_a_name_too_long_is_told(length, tmp_path):
    """In the words of the output, not of the partial file beside it; and it is no input."""
    output = tmp_path / ("n" * length)
    refuse_overwriting(output, (tmp_path,))
    with pytest.raises(OutputError, match="nnn: writing failed: File name too long"), writing(output, 4):
        pass
    assert folder_content(tmp_path) == []


def test_a_link_to_itself_is_replaced(tmp_path):
    """There is no file behind it that could be."""
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with writing(tmp_path / "link", 400) as write:
        write(0, DATA)
    assert (tmp_path / "link").read_bytes() == DATA.tobytes()


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path):
    """An exabyte does not fit."""
    with pytest.raises(OutputError, match="free"), writing(tmp_path / "out", 1 << 60):
        pass
    assert folder_content(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_told(tmp_path):
    """With what to do about it."""
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
    """Not mode 0600, which would lock out the group that shares a folder."""
    old = os.umask(0o027)
    try:
        with writing(tmp_path / "out", 4):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_link_to_the_output_keeps_pointing_to_it(tmp_path):
    """The file behind the link is replaced, not the link."""
    (tmp_path / "real").write_text("earlier")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with writing(tmp_path / "link", 400) as write:
        write(0, DATA)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == DATA.tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    """As /dev/null would be, by root."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or a pipe"), writing(tmp_path / "pipe", 10):
        pass
    assert not (tmp_path / "pipe").is_file()
