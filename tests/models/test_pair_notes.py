"""A note says if two checkpoints are the same model, or swapped."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge, merge_each
from mergekit_wise.api.sweep import sweep
from mergekit_wise.models.pair_notes import SAME
from mergekit_wise.models.towers import create_clip
from mergekit_wise.options import MergeOptions

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {},
    },
    "preprocess_cfg": {"size": 32},
}


@pytest.fixture
def model(tmp_path):
    """The file of a classifier that can be evaluated."""
    visual = create_clip({**CONFIG["model_cfg"], "text_cfg": {"layers": 1}}).visual
    tensors = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    tensors["classification_head.weight"] = torch.randn(10, 32)
    save_file(tensors, tmp_path / "model", {"open_clip_config": json.dumps(CONFIG)})
    return tmp_path / "model"


def of_one_model(notes):
    return [note for note in notes if note == SAME]


def changed(path, **metadata):
    """A copy with another head and more metadata."""
    tensors = load_file(path)
    tensors["classification_head.weight"] += 1
    save_file(tensors, path.with_name("changed"), {"open_clip_config": json.dumps(CONFIG), **metadata})
    return path.with_name("changed")


def test_merging_a_model_with_itself_is_noted(pair, states, tmp_path):
    """The two files may be of different kinds; one tensor that differs is enough for no note."""
    (tmp_path / "copy").write_bytes(pair[0].read_bytes())
    save_file(states[0], tmp_path / "other kind")
    for other in (pair[0], tmp_path / "copy", tmp_path / "other kind"):
        assert len(of_one_model(merge(pair[0], other, tmp_path / "out").notes)) == 1
    save_file({**states[0], "scale": torch.tensor(2.25)}, tmp_path / "moved")
    assert not of_one_model(merge(pair[0], tmp_path / "moved", tmp_path / "out").notes)
    several = merge_each(MergeOptions(pair[0], pair[0], tmp_path / "{alpha}"), (0.2, 0.4))
    assert all(of_one_model(report.notes) for report in several)


def test_sweeping_a_model_with_itself_is_noted(model):
    """There is one note, and none if the heads differ."""
    options = {"alphas": (0.0, 0.5), "suite": "digits-noisy", "limit": 20}
    assert len(of_one_model(sweep(model, model, **options).notes)) == 1
    assert not of_one_model(sweep(model, changed(model), **options).notes)


def test_swapped_checkpoints_are_noted(model, tmp_path):
    """Both merge and sweep find it in the metadata that `wise finetune` writes."""
    finetuned = changed(model, mergekit_wise_finetune="{}")
    options = {"alphas": (0.5,), "suite": "digits-noisy", "limit": 20}
    for ends, expected in (((finetuned, model), 1), ((model, finetuned), 0), ((finetuned, finetuned), 0)):
        merged, swept = merge(*ends, tmp_path / "out"), sweep(*ends, **options)
        for report in (merged, swept):
            assert sum("if they are swapped" in note for note in report.notes) == expected


def test_how_files_were_read_is_noted_for_both_files(model, tmp_path):
    """A merge and a sweep name the file; an evaluation has only one."""
    wrapped = tmp_path / "wrapped"
    save_file(
        {f"module.{name}": tensor for name, tensor in load_file(model).items()},
        wrapped,
        {"open_clip_config": json.dumps(CONFIG)},
    )
    took = "removed the wrapper 'module' from all tensor names"
    options = {"suite": "digits-noisy", "limit": 20}
    assert f"wrapped: {took}" in merge(wrapped, model, tmp_path / "out").notes
    assert f"wrapped: {took}" in sweep(model, wrapped, alphas=(0.5,), **options).notes
    assert took in evaluate(wrapped, **options).notes
