"""The example of a callback in transformers' Trainer runs, and shows what it says."""

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "trainer_callback.py"


@pytest.mark.slow
def test_the_example_measures_both_curves(tmp_path, monkeypatch, capsys):
    """Alpha 0 stays what it was through the epochs, and the merged model has the accuracy that was measured."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        found = runpy.run_path(str(EXAMPLE))
    finally:
        torch.set_num_threads(threads)
    measured = found["measured"]
    assert len(measured) == 3 * 5 * 2
    assert len({value for (_, alpha, metric), value in measured.items() if (alpha, metric) == (0, "blue")}) == 1
    assert found["accuracy"](found["model"]) == {name: measured[3, 0.5, name] for name in ("red", "blue")}
    torch.testing.assert_close(found["model"].state_dict(), dict(found["mixture"]), rtol=0, atol=0)
    assert "epoch  alpha     red    blue" in capsys.readouterr().out
    assert any("wise/alpha-0.25/blue" in entry for entry in found["finetuning"].state.log_history)
