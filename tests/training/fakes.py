"""Small things to train: a CLIP that learns the built-in digits in seconds, and a data set of a few noisy images."""

import json
from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP
from PIL import Image
from safetensors.torch import save_file

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.models.transform import Preprocess

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3},
}
PREPROCESS = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


def tiny_config(layers=2):
    """`CONFIG` with as many layers in the image tower."""
    model = CONFIG["model_cfg"]
    return {**CONFIG, "model_cfg": {**model, "vision_cfg": {**model["vision_cfg"], "layers": layers}}}


def tiny_state(seed=0, classes=10, layers=2):
    """An untrained CLIP as open_clip names its tensors, and a head for it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = {
            name: tensor.contiguous() for name, tensor in CLIP(**tiny_config(layers)["model_cfg"]).state_dict().items()
        }
        head = torch.nn.functional.normalize(torch.randn(classes, 32), dim=-1) * state["logit_scale"].exp()
    return {**state, "classification_head.weight": head, "classification_head.bias": torch.zeros(classes)}


def save_tiny(path: Path, *, text=False, classes=10, seed=0, layers=2) -> Path:
    """A checkpoint of it: image tower and head, as wise zeroshot writes them; with ``text`` both towers too."""
    state = tiny_state(seed, classes, layers)
    kept = {name: t for name, t in state.items() if text or name.startswith(("visual.", "classification_head."))}
    save_file(kept, path, {"format": "pt", "open_clip_config": json.dumps(tiny_config(layers))})
    return path


class Noise:
    """Image i is noise of its own; picklable."""

    def image(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (96, 80, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def noise(count=30, classes=3):
    labels = np.arange(count, dtype=np.int64) % classes
    return Dataset("noise", "Noise", tuple("abc"[:classes]), labels, Noise().image)
