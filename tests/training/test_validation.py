"""Validation of checkpoints during fine-tuning, without a run."""

import json

from safetensors.torch import load_file, save_file

from mergekit_wise.api.sweep import sweep
from mergekit_wise.checkpoint import closing
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.models.source import open_source
from mergekit_wise.options import EvalOptions
from mergekit_wise.training.validation import open_validator
from tests.small_models import noise
from tests.training.fakes import CONFIG, save_tiny


def both_towers(path, seed):
    """A model without a head of its own."""
    whole = load_file(save_tiny(path, text=True, seed=seed))
    towers = {name: tensor for name, tensor in whole.items() if "head" not in name}
    save_file(towers, path, {"format": "pt", "open_clip_config": json.dumps(CONFIG)})
    return path


def test_every_epoch_has_a_head_of_its_own(tmp_path):
    """The head is made by the text tower of the same epoch, not by that of the epoch before."""
    zeroshot, *epochs = (both_towers(tmp_path / f"{seed}.safetensors", seed) for seed in range(3))
    source = open_source(zeroshot)
    options = EvalOptions("", "digits-small", batch_size=64, workers=0)
    with closing(source), open_validator(source, options, ALONE, "cpu", print) as validate:
        found = [validate(path) for path in epochs]
    for path, validation in zip(epochs, found, strict=True):
        swept = sweep(zeroshot, path, alphas=(0.5, 1.0), suite="digits-small", batch_size=64, workers=0).records
        counts = [(record.correct, record.total) for record in swept]
        assert [*validation.merged.shifts, *validation.finetuned.shifts] == counts
    assert found[0] != found[1]


def test_validation_keeps_decoded_images_and_no_heads(tmp_path, monkeypatch):
    """With --cache-images a later run reads the images; the heads of an epoch would never be read again."""
    monkeypatch.setenv("WISE_CACHE", str(tmp_path / "cache"))
    images = noise(tmp_path) / "shift"
    path = both_towers(tmp_path / "0.safetensors", 0)
    found, notes = [], []
    for _ in range(2):
        source = open_source(path)
        options = EvalOptions("", str(images), batch_size=64, workers=0, cache_images=True)
        with closing(source), open_validator(source, options, ALONE, "cpu", notes.append) as validate:
            found.append(validate(path))
    assert found[0] == found[1]
    assert sum("read from the cache" in note for note in notes) == 1
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["images"]
