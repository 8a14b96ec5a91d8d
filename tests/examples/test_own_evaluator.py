"""The example of an evaluator of one's own."""

import sys


def test_the_example_finds_the_same_mixture_by_a_function_and_by_a_command(run, monkeypatch):
    """Both ways of evaluating recommend one alpha between the two models, with the same numbers, and write it."""
    monkeypatch.setattr(sys, "argv", ["own_evaluator.py"])
    ran = run("own_evaluator.py")
    by_function, by_command = ran.found["report"], ran.found["same"]
    assert [(r.dataset, r.alpha) for r in by_function.records] == [(r.dataset, r.alpha) for r in by_command.records]
    assert all(
        abs(one.value - other.value) < 1e-5 for one, other in zip(by_function.records, by_command.records, strict=True)
    )
    assert by_function.choice.paired
    assert ran.printed.count("reference ") >= 5
    assert f"Recommended: {by_function.recommendation.point}" in ran.printed
    assert by_function.recommendation.point == by_command.recommendation.point
    assert (ran.folder / "merged.safetensors").exists()
