"""Memory that processes share."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from mergekit_wise.evaluation.shared import shared_array

WRITE = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(6)
    file.write(bytes([7, 8, 9]))
"""


@pytest.mark.parametrize("anonymous", [True, False])
def test_what_one_process_writes_another_sees(anonymous, tmp_path, monkeypatch):
    """Where the system has files without a name, and where it has none; nothing is left behind."""
    if not anonymous:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with shared_array((4, 3)) as shared:
        ours = shared.open()
        assert not ours.any()
        subprocess.run([sys.executable, "-c", WRITE, shared.path], check=True)
        assert np.array_equal(ours, [[0, 0, 0], [0, 0, 0], [7, 8, 9], [0, 0, 0]])
        assert len(list(tmp_path.iterdir())) == (0 if anonymous and hasattr(os, "memfd_create") else 1)
    assert not list(tmp_path.iterdir())
    assert not os.path.exists(shared.path)
