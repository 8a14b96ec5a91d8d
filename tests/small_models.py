"""Pairs of tiny models as files and folders of several libraries, and images to evaluate them on."""

import json

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.26, 0.27], "interpolation": "bicubic"},
}
TIMM = {"architecture": "test_vit", "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5]}}
NAMES = ("ant", "bee", "cat")


def clip_pair(folder, *, head=False):
    """A CLIP of open_clip's with both towers, or an image tower with a head, before and after training."""
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in open_clip.CLIP(**CONFIG["model_cfg"]).state_dict().items()}
    if head:
        state = {name: tensor for name, tensor in state.items() if name.startswith("visual.")}
        state |= {"classification_head.weight": torch.randn(3, 16), "classification_head.bias": torch.randn(3)}
    return _pair(folder, state, {"open_clip_config": json.dumps(CONFIG)})


def timm_pair(folder):
    """A classifier of timm's."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=3, img_size=32).state_dict()
    return _pair(folder, state, {"timm_config": json.dumps(TIMM)})


def transformers_pair(folder):
    """Two folders with a CLIPModel of transformers, its image processor, and somebody else's card."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    vision = {"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 100, **layers}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={**vision, **layers}, projection_dim=16))
    for name in ("zs", "ft"):
        model.save_pretrained(folder / name)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder / name)
        (folder / name / "README.md").write_text(f"# The card of {name}\n")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return folder / "zs", folder / "ft"


def _pair(folder, state, metadata):
    paths = folder / "zs.safetensors", folder / "ft.safetensors"
    changed = {name: t + 0.05 * torch.randn_like(t) if t.is_floating_point() else t for name, t in state.items()}
    for path, tensors in zip(paths, (state, changed), strict=True):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return paths


def noise(root, each=6):
    """Two data sets of noisy images of three classes in `root`: ``ref`` and ``shift``."""
    rng = np.random.default_rng(0)
    for part in ("ref", "shift"):
        for name in NAMES:
            (root / part / name).mkdir(parents=True)
            for number in range(each):
                picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
                picture.save(root / part / name / f"{number}.png")
    return root
