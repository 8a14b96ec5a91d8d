"""The example of a soup of three seeds prints what separate evaluations count."""

import pytest

from mergekit_wise import evaluate, merge
from tests.examples.conftest import run_in

pytestmark = pytest.mark.xdist_group("two_cameras")


def test_the_table_holds_what_separate_evaluations_count(two_cameras, tmp_path):
    """The seeds give other models; a mixture of the sweep is the merge of the soup's file, and is in the table."""
    ran = run_in(two_cameras.folder, "soup_of_seeds.py")
    table, folder = ran.found["table"], two_cameras.folder / "two-cameras"
    assert len({(folder / f"seed{seed}.safetensors").read_bytes() for seed in range(3)}) == 3
    merge(folder / "zeroshot.safetensors", folder / "uniform.safetensors", tmp_path / "mixed.safetensors", alpha=0.5)
    where = {"reference": folder / "camera_a" / "test", "suite": folder / "camera_b", "workers": 0}
    camera_a, camera_b = evaluate(tmp_path / "mixed.safetensors", **where).records
    assert table["WiSE-FT of uniform, alpha 0.5"] == (camera_a.accuracy, camera_b.accuracy)
    assert set(table) >= {"zeroshot", "seed0", "seed1", "seed2", "uniform", "greedy", "stock"}
    assert f"{table['stock'][0]:8.1%}  {table['stock'][1]:8.1%}" in ran.printed
