"""A model card with results, and what an upload to the Hugging Face hub would send.

Merges a tiny pair, evaluates it, writes its card and lists what `wise push` would upload. No hub is contacted.

Runs as a script or cell by cell, in about 7 seconds of one core and without a network; writes into the current
folder.
"""

# %%
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from mergekit_wise import card, merge, push, sweep

torch.set_num_threads(1)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Two models and two data sets: noise, to keep it short

# %%
torch.manual_seed(0)
state = timm.create_model("test_vit", num_classes=3).state_dict()
save_file(state, "zs.safetensors")
save_file({name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in state.items()}, "ft.safetensors")

for part in ("ref", "shift"):
    for name in ("ant", "bee", "cat"):
        folder = Path(part, name)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")

# %% [markdown]
# ## Sweep, merge, card, and a dry run of the upload

# %%
options = {"model": "timm:test_vit", "workers": 0, "results": "results.jsonl"}
sweep("zs.safetensors", "ft.safetensors", alphas=[0, 0.5, 1], suite="./shift", reference="./ref", **options)
merged = merge("zs.safetensors", "ft.safetensors", "merged.safetensors", alpha=0.5, model="timm:test_vit")
written = card("merged.safetensors", results="results.jsonl", license="mit", model="timm:test_vit")
planned = push(
    "merged.safetensors", "me/my-model", results="results.jsonl", license="mit", model="timm:test_vit", dry_run=True
)
print(written.output.read_text().split("## Evaluation")[1].split("##")[0])
print(*(f"{file.name}: {file.size:,} bytes" for file in planned.files), sep="\n")
