"""Files that ask for more than they hold are refused in a sentence that names them, in little memory."""

import io
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.npy_files import map_npy
from mergekit_wise.datasets.pickled_arrays import read_npy_dict
from mergekit_wise.errors import SuiteError

ROOT = Path(__file__).parents[2]
ROOM = 1 << 30
"""Bytes of address space for a process that imports NumPy and Pillow, with little to spare."""

OPEN = """
import sys
from pathlib import Path
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.errors import SuiteError
try:
    for dataset in open_suite(sys.argv[1]).datasets:
        for index in range(len(dataset)):
            dataset.image(index)
    print("opened")
except SuiteError as error:
    print(error)
"""


def opened(path):
    """What opening and decoding a data set says in a process whose memory is limited."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def png(width, height):
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def tars(folder, label=b"0", image=None):
    """A folder of one tar with one sample."""
    (folder / "test").mkdir(parents=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for name, data in (("a.png", png(8, 8) if image is None else image), ("a.cls", label)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder


def test_the_limit_leaves_room_for_ordinary_data(tmp_path):
    """With the memory of these tests, tars of ordinary images are opened and decoded."""
    assert opened(tars(tmp_path / "set", image=png(2000, 3000))) == "opened\n"


def test_a_class_number_takes_no_memory(tmp_path):
    """Tars without class names have as many classes as the largest number says, up to a bound."""
    assert "999,999,999" in opened(tars(tmp_path / "set", b"999999999"))


@pytest.mark.parametrize("label", [b"100000", b"9" * 400, b"-1", b"1e5", "٣".encode()])
def test_class_numbers_are_bounded(label, tmp_path):
    """A class number that no data set has is refused, and the sentence names the folder or the member."""
    with pytest.raises(SuiteError, match=str(tmp_path / "set")):
        open_suite(str(tars(tmp_path / "set", label)))


@pytest.mark.parametrize("count", ["9" * 5000, "1000000", "0", "-1", "٣", ""])
def test_the_number_of_tars_is_bounded_by_the_folder(count, tmp_path):
    """A count of more tars than the folder holds, of any length, is refused, and the sentence names the file."""
    folder = tars(tmp_path / "set")
    (folder / "test" / "nshards.txt").write_text(count)
    with pytest.raises(SuiteError, match=r"nshards\.txt"):
        open_suite(str(folder))


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1), (12_000, 12_000), (1, 501)])
def test_images_that_would_take_gigabytes_are_refused(size, recwarn):
    """Images of extreme shapes and decompression bombs are refused before they are decoded, and named."""
    with pytest.raises(SuiteError, match=rf"^a\.png: .*{size[0]:,} x {size[1]:,} pixels"):
        decode(png(*size), "a.png")
    assert not recwarn.list


def test_long_images_are_decoded():
    """Panoramas and strips up to the bound are images like all others."""
    assert decode(png(500, 1), "x").size == (500, 1)


def header(descr, shape="(3,)", order="False", version=1):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    length = (len(text) + 1).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        header("'|u1'", "(1000000000000,)") + b"abc",
        header("'|u1'", "(-3,)") + b"abc",
        header("'|u1'", "(4294967296, 4294967296)") + b"abc",
        header("'|u1'", "(True,)") + b"a",
        header("'|u1'", "'abc'") + b"abc",
        header("'|u1'", "(2,)") + b"abc",
        header("'|O'") + b"abc",
        header("[('a', '|O'), ('b', '<f4')]") + b"abc",
        header("'<M8[fortnight]'") + b"abc",
        header("'|V99999999999'") + b"abc",
        header("'|u1', (") + b"abc",
        header("'|u1'", "(((((" * 400) + b"abc",
        header("'|u1'", "[" * 20_000, version=2) + b"abc",
        header("'|u1'").replace(b"{", b"\xff") + b"abc",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY",
        b"PK\x03\x04" + bytes(100),
        b"",
    ],
)
def test_damaged_npy_files_are_refused(content, tmp_path):
    """A header that is cut, no literal, of objects, or of another size than the file raises SuiteError."""
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    for read in (map_npy, read_npy_dict):
        with pytest.raises(SuiteError, match=r"x\.npy"):
            read(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((3, 2), np.uint8))])
def test_sound_npy_files_are_mapped(array, version, tmp_path):
    """Arrays in either memory order, in files of every version, are those that NumPy reads."""
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        npy.write_array(file, array, version)
    found = map_npy(path)
    assert np.array_equal(found, np.load(path))
    assert found.dtype == array.dtype
