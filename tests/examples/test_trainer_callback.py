"""The example of a callback in transformers' Trainer runs, and shows what it says."""

import pytest
import torch


@pytest.mark.slow
def test_the_example_measures_both_curves(run):
    """Alpha 0 stays what it was through the epochs, and the merged model has the accuracy that was measured."""
    ran = run("trainer_callback.py")
    found, measured = ran.found, ran.found["measured"]
    assert len(measured) == 3 * 5 * 2
    assert len({value for (_, alpha, metric), value in measured.items() if (alpha, metric) == (0, "blue")}) == 1
    assert found["accuracy"](found["model"]) == {name: measured[3, 0.5, name] for name in ("red", "blue")}
    torch.testing.assert_close(found["model"].state_dict(), dict(found["mixture"]), rtol=0, atol=0)
    assert "epoch  alpha     red    blue" in ran.printed
    assert any("wise/alpha-0.25/blue" in entry for entry in found["finetuning"].state.log_history)
