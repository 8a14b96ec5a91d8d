"""Three fine-tunings of one model, their soups, and WiSE-FT of a soup, in one table.

Fine-tunings of one start that differ in nothing but their seed find different solutions, whose mean is often better
than each (model soups, Wortsman et al., ICML 2022). WiSE-FT then mixes that mean with the zero-shot model.

Goes on where two_cameras.py ends (and runs it first, where it has not run): its model is fine-tuned on images of camera
A with three seeds. Runs as a script or cell by cell, in about 17 seconds of one core after two_cameras.py and
without a network. Everything is written to the folder two-cameras, below the current one.
"""

# %%
import runpy
from pathlib import Path

import torch

import mergekit_wise as wise

torch.set_num_threads(1)  # for a model this small, several take longer
folder = Path("two-cameras")
if not (folder / "report.html").exists():
    runpy.run_path(str(Path(__file__).with_name("two_cameras.py")))
start = folder / "zeroshot.safetensors"

# %% [markdown]
# ## Three fine-tunings that differ in their seed alone: other orders of the images

# %%
members = [folder / f"seed{seed}.safetensors" for seed in range(3)]
for seed, member in enumerate(members):
    settings = {"epochs": 8, "batch_size": 32, "lr": 1e-3, "augment": "none", "workers": 0}
    wise.finetune(start, folder / "camera_a", member, seed=seed, **settings)

# %% [markdown]
# ## Three kinds of soup
#
# - Uniform: the mean of all members.
# - Greedy: the mean of the members that do best together on held-out images.
# - Model Stock: the angles between the updates decide how far to move from the zero-shot model.

# %%
uniform, greedy, stock = (folder / f"{how}.safetensors" for how in ("uniform", "greedy", "stock"))
wise.soup(start, members, uniform)
wise.soup(start, members, greedy, how="greedy", select_on=folder / "camera_a" / "val", workers=0)
wise.soup(start, members, stock, how="stock")

# %% [markdown]
# ## All in one table, and WiSE-FT of the uniform soup
#
# A sweep takes the members in place of a fine-tuned model, and writes no soup.

# %%
where = {"reference": folder / "camera_a", "suite": folder / "camera_b", "workers": 0}
table = {}
for path in (start, *members, uniform, greedy, stock):
    camera_a, camera_b = wise.evaluate(path, **where).records
    table[path.stem] = camera_a.accuracy, camera_b.accuracy
mixtures = wise.sweep(start, soup=members, alphas=[0.25, 0.5, 0.75], **where)
for each in mixtures.candidates:
    table[f"WiSE-FT of uniform, {each.point}"] = each.reference_accuracy, each.shift_accuracy

print(f"{'':32s}camera A  camera B")
for name, (on_a, on_b) in table.items():
    print(f"{name:32s}{on_a:8.1%}  {on_b:8.1%}")
