"""Two stages of fine-tuning of a timm model, and a sweep between them.

timm's classifiers have no text encoder, so no zero-shot head: the first stage gives the model a new head and is trained
on images of all kinds, the second one on those that matter. Mixtures of the two keep more of the first.

Runs as a script or cell by cell, in about 13 seconds of one core and without a network. Everything is written to
the folder timm-classifier, below the current one.
"""

# %%
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

import mergekit_wise as wise

torch.set_num_threads(1)  # for a model this small, several take longer
folder = Path("timm-classifier")
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
DIRECTIONS = {"horizontal": (1, 0), "vertical": (0, 1), "diagonal": (1, 1)}


# %% [markdown]
# ## Folders of images: noisy stripes in three directions, the classes, and three colours


# %%
def save_stripes(place, colours, count, seed):
    """Write images of stripes in one folder per direction, below `place`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    for number in range(count):
        direction, (down, right) = list(DIRECTIONS.items())[number % 3]
        waves = np.sin(0.8 * (down * rows + right * columns) + rng.uniform(0, 6.3))
        colour = COLOURS[colours[number // 3 % len(colours)]]
        pixels = 128 + 60 * waves[..., None] * colour + 40 * rng.normal(size=(32, 32, 3))
        path = folder / place / direction / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


save_stripes("all-colours/train", ["red", "green", "blue"], 600, seed=1)
save_stripes("red/train", ["red"], 600, seed=2)
save_stripes("red/test", ["red"], 300, seed=3)
save_stripes("blue", ["blue"], 300, seed=4)

# %% [markdown]
# ## Stage 1: a new head, on all colours
#
# With a network, take weights that are worth fine-tuning, and train the new head alone at first:
#
#     model = timm.create_model("vit_small_patch16_224.augreg_in21k", pretrained=True)
#     wise.finetune(model, "photos", "general.safetensors", new_head=True, linear=True)

# %%
torch.manual_seed(0)
model = timm.create_model("test_vit", pretrained_cfg_overlay={"input_size": (3, 32, 32), "crop_pct": 1.0})
settings = {"batch_size": 32, "augment": "none", "workers": 0}
general, special = folder / "general.safetensors", folder / "special.safetensors"
wise.finetune(model, folder / "all-colours", general, new_head=True, epochs=8, lr=5e-4, **settings)

# %% [markdown]
# ## Stage 2: all weights, on red stripes alone
#
# The file of the first stage records the architecture, the preprocessing and the names of the classes.

# %%
wise.finetune(general, folder / "red", special, epochs=4, lr=5e-4, **settings)

# %% [markdown]
# ## The sweep: red stripes are the reference, blue ones the shift

# %%
report = wise.sweep(general, special, reference=folder / "red", suite=folder / "blue", alphas="0:1:0.125", workers=0)
print(f"{report.records[0].architecture}")
print("alpha     red    blue")
for each in report.candidates:
    print(f"{each.alpha:5g}  {each.reference_accuracy:6.1%}  {each.shift_accuracy:6.1%}")
print(f"Recommended: {report.recommendation.point} - {report.recommendation.reason}.")

# %% [markdown]
# ## The merged file is a state dict of timm's
#
# Its tensors have timm's names, so timm loads it; `wise` needs no more than the file.

# %%
merged = wise.merge(general, special, folder / "merged.safetensors", alpha=report.recommendation.alpha)
classifier = timm.create_model(
    "test_vit", num_classes=3, img_size=32, checkpoint_path=str(folder / "merged.safetensors")
)
predicted = wise.predict(folder / "merged.safetensors", folder / "blue", workers=0)
print(f"Wrote {merged.output}. It says of the blue stripes: {predicted}")
