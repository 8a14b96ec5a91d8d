"""A checkpoint becomes a classifier whose logits are open_clip's."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.classifier import build_classifier, set_weights, weight_names

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return open_clip.CLIP(**CONFIG["model_cfg"]).eval()


def saved(state, tmp_path, config=CONFIG):
    metadata = {"open_clip_config": json.dumps(config)} if config else None
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "x", metadata)
    return open_checkpoint(tmp_path / "x")


def loaded(checkpoint):
    classifier, transform = build_classifier(checkpoint)
    set_weights(classifier, {n: (checkpoint.info(n), checkpoint.read(n)) for n in weight_names(checkpoint)})
    return classifier, transform


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_those_of_open_clips_own_methods(clip, dtype, tmp_path):
    """Normalised ``encode_image`` times the head, for weights stored in any precision."""
    clip.to(dtype).float()  # as rounded as the file will be
    head = {"classification_head.weight": torch.randn(10, 16), "classification_head.bias": torch.randn(10)}
    state = {name: tensor.to(dtype) for name, tensor in clip.state_dict().items()} | head
    classifier, _ = loaded(saved(state, tmp_path))
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        features = clip.encode_image(images, normalize=True)
        wanted = features @ head["classification_head.weight"].T + head["classification_head.bias"]
        torch.testing.assert_close(classifier(images), wanted)


def test_the_transform_is_open_clips(clip, tmp_path):
    """Size, mean and deviation come from the metadata."""
    from PIL import Image

    head = {"classification_head.weight": torch.randn(10, 16), "classification_head.bias": torch.randn(10)}
    _, transform = build_classifier(saved(clip.state_dict() | head, tmp_path))
    white = transform(Image.new("RGB", (50, 40), "white"))
    torch.testing.assert_close(white, torch.full((3, 32, 32), 2.0))


def test_a_checkpoint_without_head_or_architecture_is_refused(clip, tmp_path):
    """Each with what to do."""
    with pytest.raises(ModelError, match="no classification head"):
        build_classifier(saved(clip.state_dict(), tmp_path))
    with pytest.raises(ModelError, match="Name it with --model"):
        build_classifier(saved(clip.state_dict(), tmp_path, config=None))


def test_weights_that_do_not_fit_the_architecture_are_refused(clip, tmp_path):
    """The first tensor that differs is named."""
    head = {"classification_head.weight": torch.randn(10, 16), "classification_head.bias": torch.randn(10)}
    state = clip.state_dict() | head
    del state["visual.proj"]
    with pytest.raises(ModelError, match="visual.proj"):
        build_classifier(saved(state, tmp_path))
