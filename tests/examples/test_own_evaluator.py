"""The example of an evaluator of one's own."""

import runpy
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_evaluator.py"


def test_the_example_finds_the_same_mixture_by_a_function_and_by_a_command(tmp_path, monkeypatch, capsys):
    """Both ways of evaluating recommend one alpha between the two models, with the same numbers, and write it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    found = runpy.run_path(str(EXAMPLE), run_name="__main__")
    by_function, by_command = found["report"], found["same"]
    assert [(r.dataset, r.alpha) for r in by_function.records] == [(r.dataset, r.alpha) for r in by_command.records]
    assert all(
        abs(one.value - other.value) < 1e-5 for one, other in zip(by_function.records, by_command.records, strict=True)
    )
    assert by_function.choice.paired
    printed = capsys.readouterr().out
    assert printed.count("reference ") >= 5
    assert f"Recommended: {by_function.recommendation.point}" in printed
    assert by_function.recommendation.point == by_command.recommendation.point
    assert Path("merged.safetensors").exists()
