"""JSON from files is refused where it would take far more memory than its size, and read like any other otherwise."""

import json
import subprocess
import sys

import pytest

from mergekit_wise.checkpoint.bounded_json import SMALL, parse_json


@pytest.mark.parametrize("part", ["[]", "{}", "[[]]", '{"a":{}}'])
def test_a_text_of_nothing_but_brackets_is_refused(part):
    """The sentence says what there is too much of."""
    text = f'{{"x": [{",".join([part] * SMALL)}]}}'.encode()
    with pytest.raises(ValueError, match="more lists and objects than its size allows"):
        parse_json(text)


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "9" * 30, "NaN", "Infinity"])
def test_numbers_that_no_file_needs_are_refused(number):
    """Python's own message would speak of its settings."""
    with pytest.raises(ValueError, match="it holds"):
        parse_json(f'{{"x": {number}}}'.encode())


def test_brackets_in_texts_do_not_count():
    """Metadata may hold JSON as a text, as trainers of adapters write it."""
    value = {"__metadata__": {"tags": json.dumps([[]] * SMALL) + '"\\'}, "n": [1, -2.5, True, None]}
    assert parse_json(json.dumps(value).encode()) == value


def test_a_header_of_many_tensors_is_read():
    """The shortest entries that a header can have are within the bounds."""
    header = {str(n): {"dtype": "U8", "shape": [], "data_offsets": [n, n + 1]} for n in range(30_000)}
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) > SMALL
    assert parse_json(text) == header


REFUSED = """
import re, sys
from pathlib import Path
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError
try:
    open_checkpoint(Path(sys.argv[1]))
except CheckpointError as error:
    print(re.search("VmHWM:.*?([0-9]+)", Path("/proc/self/status").read_text())[1], error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_header_of_empty_lists_takes_little_memory(tmp_path):
    """A header of 24 MB of empty lists would take 600 MB."""
    header = b'{"a": [' + b",".join([b"[]"] * (8 << 20)) + b"]}"
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    done = subprocess.run([sys.executable, "-c", REFUSED, tmp_path / "x"], capture_output=True, text=True)
    kilobytes, message = done.stdout.split(" ", 1)
    assert "more lists and objects" in message, done.stderr
    assert int(kilobytes) < 200_000
