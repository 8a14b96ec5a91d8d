"""The example of a model card runs."""

import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "model_card.py"


def test_the_example_writes_a_card_and_lists_the_upload(tmp_path, monkeypatch):
    """The card has results on both data sets, and the dry run lists weights, card, plot and page."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        found = runpy.run_path(str(EXAMPLE))
    finally:
        torch.set_num_threads(threads)
    assert found["written"].datasets == 2
    names = {file.name for file in found["planned"].files}
    assert names == {"model.safetensors", "config.json", "README.md", "report.html", "card-sweep.png"}
