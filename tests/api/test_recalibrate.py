"""A merged model's batch-norm statistics are recomputed on images."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mergekit_wise.api.merge import merge
from mergekit_wise.api.verify import verify
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.errors import UsageError, WiseError
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.transform import Preprocess

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "patch_size": None}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
OPEN_CLIP_CONFIG = {
    "model_cfg": {"embed_dim": 64, "vision_cfg": RESNET, "text_cfg": TEXT},
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
VIT = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}


def save(path, seed, config, *, declared=True):
    torch.manual_seed(seed)
    visual = create_clip(config["model_cfg"]).visual
    tensors = {f"visual.{name}": tensor.clone() for name, tensor in visual.state_dict().items()}
    for name in tensors:
        if "running" in name:
            tensors[name] += torch.rand_like(tensors[name])
    tensors["classification_head.weight"] = torch.randn(10, 64)
    tensors["classification_head.bias"] = torch.zeros(10)
    save_file(tensors, path, {"open_clip_config": json.dumps(config)} if declared else None)
    return path


@pytest.fixture
def sides(tmp_path):
    return [save(tmp_path / f"{seed}.safetensors", seed, OPEN_CLIP_CONFIG) for seed in (0, 1)]


def own_statistics(visual, images):
    """The first batch norm's statistics by torch: means over batches of 128 of each batch's mean and variance."""
    means, variances = [], []
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    for batch in order.split(128):
        seen = functional.conv2d(images[batch], visual["visual.conv1.weight"], stride=2, padding=1)
        means.append(seen.mean((0, 2, 3)))
        variances.append(seen.var((0, 2, 3), unbiased=True))
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


def test_the_statistics_are_those_of_the_merged_model_on_the_images(sides, tmp_path):
    """Only the statistics change; the file records which images were used, and `verify` accepts it."""
    plain = merge(*sides, tmp_path / "plain", alpha=0.4)
    merge(*sides, tmp_path / "out", alpha=0.4, recalibrate="digits")
    ours, mixed = load_file(tmp_path / "out"), load_file(tmp_path / "plain")
    for name, tensor in mixed.items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(ours[name], tensor), name
    dataset = open_suite("digits", use="train").reference
    preprocess = Preprocess.of(OPEN_CLIP_CONFIG["preprocess_cfg"])
    images = torch.stack([preprocess.normalise(preprocess.pixels(dataset.image(i))) for i in range(len(dataset))])
    mean, variance = own_statistics(mixed, images)
    torch.testing.assert_close(ours["visual.bn1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["visual.bn1.running_var"], variance, rtol=1e-4, atol=1e-5)
    assert ours["visual.bn1.num_batches_tracked"] == -(-len(dataset) // 128)
    with safe_open(tmp_path / "out", "pt") as file:
        declared = json.loads(file.metadata()["mergekit_wise"])["recalibrated"]
    assert (declared["dataset"], declared["images"]) == ("digits-train", len(dataset))
    verdict = verify(tmp_path / "out", zeroshot=sides[0], finetuned=sides[1])
    assert verdict.difference is None
    statistics = [name for name in ours if "running" in name or "tracked" in name]
    assert (verdict.recorded, verdict.skipped) == (len(statistics), 0)
    assert verdict.mixed + verdict.copied == len(ours) - len(statistics)
    with safe_open(tmp_path / "out", "pt") as file:
        metadata = file.metadata()
    changed = {**ours, "visual.bn1.running_mean": ours["visual.bn1.running_mean"] + 1}
    save_file(changed, tmp_path / "changed", metadata)
    found = verify(tmp_path / "changed", zeroshot=sides[0], finetuned=sides[1]).difference
    assert found is not None
    assert found.startswith("visual.bn1.running_mean is not the tensor that was recomputed when the file was written")
    origin = json.loads(metadata["mergekit_wise"])
    del origin["recalibrated"]["tensors"]  # as earlier versions wrote it
    save_file(changed, tmp_path / "older", {**metadata, "mergekit_wise": json.dumps(origin)})
    verdict = verify(tmp_path / "older", zeroshot=sides[0], finetuned=sides[1])
    assert verdict.difference is None
    assert (verdict.recorded, verdict.skipped) == (0, len(statistics))
    assert any("--recalibrate" in note for note in plain.notes)


@pytest.mark.parametrize(
    ("vision", "declared", "options", "message"),
    [
        (VIT, True, {}, "no batch-norm"),
        (RESNET, False, {}, "does not say which architecture it holds.*model"),
        (RESNET, True, {"only": ("*weight",)}, r"needs the whole image tower, .*only. leaves out visual\."),
    ],
)
def test_what_cannot_be_recalibrated_is_refused_before_mixing(vision, declared, options, message, tmp_path):
    """A missing batch norm, architecture or part of the tower is found before the first byte is mixed or written."""
    config = {**OPEN_CLIP_CONFIG, "model_cfg": {**OPEN_CLIP_CONFIG["model_cfg"], "vision_cfg": vision}}
    sides = [save(tmp_path / f"{seed}.safetensors", seed, config, declared=declared) for seed in (0, 1)]
    heard = []
    with pytest.raises(WiseError, match=message):
        merge(*sides, tmp_path / "out", recalibrate="digits", progress=lambda *step: heard.append(step), **options)
    assert heard == []
    assert not (tmp_path / "out").exists()


def test_the_zeroshot_checkpoint_may_declare_the_architecture(tmp_path):
    """As in a sweep, one configuration is enough: the tensors are those of two sides that both declare it."""
    for declared in (True, False):
        sides = [save(tmp_path / f"{seed}", seed, OPEN_CLIP_CONFIG, declared=declared or seed == 0) for seed in (0, 1)]
        merge(*sides, tmp_path / f"{declared}", recalibrate="digits-noisy")
    ours, theirs = load_file(tmp_path / "False"), load_file(tmp_path / "True")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_head_is_not_needed(sides, tmp_path):
    """Statistics depend on the image tower alone: they are the same with a text tower instead of a head."""
    merge(*sides, tmp_path / "with", recalibrate="digits-noisy")
    torch.manual_seed(0)
    text = {n: t for n, t in create_clip(OPEN_CLIP_CONFIG["model_cfg"]).state_dict().items() if "visual" not in n}
    for path in sides:
        tower = {name: tensor for name, tensor in load_file(path).items() if name.startswith("visual.")}
        save_file(tower | text, path, {"open_clip_config": json.dumps(OPEN_CLIP_CONFIG)})
    merge(*sides, tmp_path / "without", recalibrate="digits-noisy")
    ours, theirs = load_file(tmp_path / "without"), load_file(tmp_path / "with")
    encoder = {name for name in theirs if name.startswith("visual.")}
    assert any(name.endswith("running_var") for name in encoder)
    assert encoder == {name for name in ours if name.startswith("visual.")}
    assert all(torch.equal(ours[name], theirs[name]) for name in encoder)


def test_several_sets_are_refused(sides, tmp_path):
    """The error asks for one data set, because it would not be clear which one is meant."""
    with pytest.raises(UsageError, match="one data set"):
        merge(*sides, tmp_path / "out", recalibrate="digits-inverted,digits-rotated")
