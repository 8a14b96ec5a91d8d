"""Towers are built as open_clip builds them, except for random numbers."""

import copy
import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from safetensors.torch import save_file

from mergekit_wise.models.towers import build_text, build_visual

CONFIGS = {
    "positions": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None},
    "windows": {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_proj": "linear"},
    "plain": {"width": 64, "layers": 1, "patch_size": 8, "image_size": 32},
    "resnet": {"width": 16, "layers": [1, 1, 1, 1], "image_size": 32},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_buffers_that_no_checkpoint_holds_are_computed(kind):
    """Rotary positions and windows' indices are buffers that are not saved."""
    embed_dim = 512 if kind == "positions" else 16
    tower = build_visual({"embed_dim": embed_dim, "vision_cfg": CONFIGS[kind]})
    wanted = dict(_build_vision_tower(embed_dim, copy.deepcopy(CONFIGS[kind])).named_buffers())
    buffers = dict(tower.named_buffers())
    assert buffers.keys() == wanted.keys()
    assert all(torch.equal(buffers[name], wanted[name]) for name in wanted)
    assert (len(buffers) > len(set(buffers) & set(tower.state_dict()))) == (kind in ("positions", "windows"))


def test_building_draws_no_random_numbers(small):
    """They would be discarded, and the random state of later code would change."""
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    build_visual(small), build_text(small)
    assert torch.equal(torch.rand(1), wanted)


def test_random_numbers_are_drawn_again_afterwards():
    """A model that is trained in the same process is initialised as usual."""
    build_visual({"embed_dim": 16, "vision_cfg": CONFIGS["plain"]})
    assert torch.nn.Linear(8, 8).weight.std() > 0


@pytest.mark.parametrize(
    ("name", "command"),
    [("evil", "eval"), ("ORG/evil", "zeroshot"), ("roberta-base", "merge --recalibrate"), ("evil", "finetune")],
)
def test_no_code_runs_that_a_file_names(name, command, tmp_path):
    """A text tower of transformers is refused before transformers sees it, whatever is answered on the terminal."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    marker = tmp_path / "code-ran"
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.M"}}))
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\nclass M: pass\n")
    torch.manual_seed(0)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"hf_model_name": name, "hf_tokenizer_name": name},
    }
    plain = {**model_cfg, "text_cfg": {"context_length": 8, "vocab_size": 99, "width": 16, "heads": 2, "layers": 1}}
    state = {key: tensor.contiguous() for key, tensor in open_clip.CLIP(**plain).state_dict().items()}
    config = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": {"size": 16}})
    for file in ("a.safetensors", "b.safetensors"):
        save_file(state, tmp_path / file, {"open_clip_config": config})
    (tmp_path / "names.txt").write_text("zero\none\n")
    words = {
        "eval": ["eval", "a.safetensors", "--suite", "digits", "--limit", "10", "--workers", "0"],
        "zeroshot": ["zeroshot", "a.safetensors", "--classes", "names.txt", "-o", "out.safetensors"],
        "merge --recalibrate": ["merge", "a.safetensors", "b.safetensors", "--recalibrate", "digits", "-o", "out"],
        "finetune": ["finetune", "a.safetensors", "--train", "digits", "--objective", "contrastive", "-o", "out"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "mergekit_wise", *words],
        input="y\n" * 20,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1, done.stderr
    assert not marker.exists()
    assert "[y/N]" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
