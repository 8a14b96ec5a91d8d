"""Zero-shot heads that are kept in the cache: what their numbers depend on, and how they are stored.

A head takes a text encoder minutes on a CPU (80 prompts for each of 1000 classes), and is a small file.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mergekit_wise.cache import Cache, key_of
from mergekit_wise.checkpoint.checked_array import read_checked, write_checked
from mergekit_wise.models.zero_shot_head import BATCH, Prompts
from mergekit_wise.wording import plural

COMPUTATION = "1"
"""Raised whenever the same facts would give other numbers."""

LIBRARIES = ("torch", "open_clip_torch", "ftfy", "regex", "transformers")

NOTE = "note"


def text_digest(tower: nn.Module, scale: Tensor) -> str:
    """SHA-256 of all that a head depends on of a model's weights: those of the text tower, and the logit scale."""
    named = sorted(chain(tower.named_parameters(), tower.named_buffers(), [("logit scale", scale)]), key=lambda p: p[0])
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        lines = zip(named, pool.map(_tensor_digest, (tensor for _, tensor in named)), strict=True)
        text = "".join(f"{name} {tensor.dtype} {tuple(tensor.shape)} {digest}\n" for (name, tensor), digest in lines)
    return hashlib.sha256(text.encode()).hexdigest()


def head_key(label: str, text_cfg: Mapping[str, Any], weights: str, prompts: Prompts, device: torch.device) -> str:
    """The key of a head in the cache.

    Args:
        label: the model's name.
        text_cfg: what the configuration says of the text tower: settings that its weights do not show.
        weights: their `text_digest`.
        prompts: of all classes.
        device: where the head is computed. Other devices, instruction sets and numbers of threads add in other orders.
    """
    facts = {
        "computation": [COMPUTATION, BATCH],
        "weights": weights,
        "config": text_cfg,
        "prompts": prompts.identity(),
        "classes": len(prompts.texts) // prompts.templates,
        "device": _device_facts(device),
        "versions": {name: _version(name) for name in LIBRARIES},
    }
    classes, templates = len(prompts.texts) // prompts.templates, prompts.templates
    return key_of(f"{label}, {plural(classes, 'class')}, {plural(templates, 'template')}", facts)


def find_head(cache: Cache, key: str, classes: int) -> tuple[Tensor, str] | None:
    """A head, float32 [C, D], with the sentence on prompts that are cut off; None if it is not there or damaged."""
    path = cache.find("heads", key)
    found = None if path is None else read_checked(path)
    if found is None or found[0].ndim != 2 or len(found[0]) != classes:
        return None
    return torch.from_numpy(found[0]), found[1].get(NOTE, "")


def keep_head(cache: Cache, key: str, head: Tensor, note: str) -> None:
    """Store a head."""
    with cache.storing("heads", key) as path:
        write_checked(path, head.cpu().numpy(), {NOTE: note})


def _tensor_digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(np.asarray(flat).data).hexdigest()


def _device_facts(device: torch.device) -> list[object]:
    if device.type == "cpu":
        return [device.type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return [device.type, name, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def text_settings(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The part of open_clip's ``model_cfg`` that decides what the text tower computes."""
    text = {key: value for key, value in model_cfg.items() if key != "vision_cfg"}
    found: dict[str, Any] = json.loads(json.dumps(text, default=str))
    return found
