"""The demo's training: tensors that are complete, repeatable, and seen as open_clip's transform would show them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mergekit_wise.api import demo
from mergekit_wise.api.finetune import finetune
from mergekit_wise.datasets.glyphs import CLASSNAMES, TRAINING_FACES, caption, plain_glyph, varied_glyph
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.transform import create_transform
from mergekit_wise.training import demo_model

CONFIG = demo_model.OPEN_CLIP_CONFIG


# Pre-training of a few steps.
SHORT = tuple(replace(stage, count=128, settings=replace(stage.settings, epochs=1)) for stage in demo_model.STAGES)


def test_training_sees_what_open_clips_transform_shows():
    """The preprocessing equals open_clip's transform bit for bit, for every gray level."""
    pixels = np.random.default_rng(0).permutation(np.arange(1024) % 256).astype(np.uint8).reshape(1, 32, 32)
    expected = create_transform(CONFIG["preprocess_cfg"])(Image.fromarray(pixels[0]).convert("RGB"))
    assert torch.equal(demo_model.prepare(torch.from_numpy(pixels))[0], expected)


def test_the_tensors_are_open_clips_and_a_head():
    """open_clip's own module loads all but the head, whose rows have the length of the logit scale."""
    state = demo_model.pretrain(0, stages=SHORT)
    head = {name: state.pop(name) for name in ("classification_head.weight", "classification_head.bias")}
    create_clip(CONFIG["model_cfg"]).load_state_dict(state, strict=True)
    torch.testing.assert_close(head["classification_head.weight"].norm(dim=1), state["logit_scale"].exp().expand(10))
    assert torch.equal(head["classification_head.bias"], torch.zeros(10))


def test_the_same_seed_gives_the_same_bytes():
    """The seed determines the weights, and torch's global random state does not change."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (demo_model.pretrain(seed, stages=SHORT) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.conv1.weight"], other["visual.conv1.weight"])


def test_finetuning_moves_the_image_tower_and_the_head_alone(tmp_path):
    """The text tower, the logit scale and the statistics of batch norm are as they were."""
    state = demo_model.pretrain(0, stages=SHORT)
    zeroshot, finetuned = tmp_path / "zeroshot.safetensors", tmp_path / "finetuned.safetensors"
    demo._save(zeroshot, state, seed=0)
    finetune(zeroshot, "digits", finetuned, epochs=1, batch_size=200, lr=3e-3, augment="none")
    tuned = load_file(finetuned)
    assert {n: (t.dtype, t.shape) for n, t in tuned.items()} == {n: (t.dtype, t.shape) for n, t in state.items()}
    moved = {name for name in state if not torch.equal(tuned[name], state[name])}
    image_side = {name for name in state if name.startswith(("visual.", "classification_head."))}
    statistics = {name for name in image_side if "running_" in name or "num_batches" in name}
    assert moved == image_side - statistics


@pytest.mark.parametrize("glyphs", [plain_glyph, varied_glyph])
def test_every_caption_names_its_digit_once(glyphs):
    """By word or by numeral, whatever else it says; no training font is held out of the suite's prints."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        glyph = glyphs(rng)
        words = caption(glyph, 0.5, rng).replace(",", "").split()
        if words[0] == "one" and len(words) > 1:
            words = words[1:]  # "one digit seven": the frame's own word
        named = [CLASSNAMES.index(w) if w in CLASSNAMES else int(w) for w in words if w in CLASSNAMES or w.isdigit()]
        assert named == [glyph.digit]
        assert glyph.face in TRAINING_FACES
