"""The example of a soup of three seeds prints what separate evaluations count."""

import runpy
from pathlib import Path

import pytest

from mergekit_wise import evaluate, merge
from mergekit_wise.api.demo import _save
from mergekit_wise.training import demo_model
from tests.training.test_demo_model import SHORT

EXAMPLE = Path(__file__).parents[2] / "examples" / "soup_of_seeds.py"


@pytest.mark.slow
def test_the_table_holds_what_separate_evaluations_count(tmp_path, monkeypatch):
    """Every row is the accuracy of a file that is evaluated by itself, the mixture after it was merged."""
    monkeypatch.chdir(tmp_path)
    _save(tmp_path / "zeroshot.safetensors", demo_model.pretrain(0, stages=SHORT), 0)
    table = runpy.run_path(str(EXAMPLE))["main"](tmp_path, epochs=1, limit=20)
    merge("zeroshot.safetensors", "uniform.safetensors", "mixed.safetensors", alpha=0.5)
    rows = {name: f"{name}.safetensors" for name in ("seed0", "seed2", "uniform", "greedy", "stock")}
    for name, path in {**rows, "WiSE-FT of uniform, alpha 0.5": "mixed.safetensors"}.items():
        records = evaluate(path, "digits", limit=20).records
        shifts = [record.correct / record.total for record in records if record.role == "shift"]
        assert table[name] == (records[0].correct / records[0].total, pytest.approx(sum(shifts) / len(shifts)))
