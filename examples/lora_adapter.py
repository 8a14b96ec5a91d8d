"""A LoRA adapter of PEFT, merged into its model at several alphas.

An adapter's folder takes the place of the fine-tuned model: nothing has to be merged before. Alpha 1 is what peft's
`merge_and_unload` gives, alpha 0 the model without the adapter, and smaller alphas than 1 keep more of what the model
could do before.

Needs `pip install peft 'transformers[torch]'`. Runs as a script or cell by cell, in about 11 seconds of one core
and without a network. Everything is written to the folder lora, below the current one.
"""

# %%
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPForImageClassification, CLIPImageProcessor
from transformers.utils import logging

import mergekit_wise as wise

torch.set_num_threads(1)  # for a model this small, several take longer
logging.disable_progress_bar()
folder = Path("lora")
RED, BLUE = (1, 0, 0), (0, 0, 1)
DIRECTIONS = {"horizontal": (1, 0), "vertical": (0, 1), "diagonal": (1, 1)}


# %% [markdown]
# ## Images in memory: noisy stripes of a colour, in one of three directions


# %%
def stripes(count, colours, seed):
    """Images uint8 [count, 16, 16, 3] and labels [count]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    down, right = np.array(list(DIRECTIONS.values()))[labels].T[:, :, None, None]
    rows, columns = np.mgrid[:16, :16]
    waves = np.sin(down * rows + right * columns + rng.uniform(0, 6.3, (count, 1, 1)))
    chosen = np.array(colours)[rng.integers(0, len(colours), count)]
    pixels = 128 + 40 * waves[..., None] * chosen[:, None, None, :] + 60 * rng.normal(size=(count, 16, 16, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def as_input(images):
    """What the image processor below makes of them: float32 [count, 3, 16, 16], about -1 to 1."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def train(model, images, labels, steps, lr):
    """Train the parameters that are not frozen."""
    pixels, targets = as_input(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=lr)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(targets), (32,))
        optimizer.zero_grad()
        cross_entropy(model(pixel_values=pixels[batch]).logits, targets[batch]).backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model, images, labels):
    """The share of right answers."""
    return float((model(pixel_values=as_input(images)).logits.argmax(-1).numpy() == labels).mean())


red, blue = stripes(400, [RED], seed=1), stripes(400, [BLUE], seed=2)

# %% [markdown]
# ## The model: it knows stripes of all colours. In practice, a folder or a name of the hub

# %%
torch.manual_seed(0)
vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
vision |= {"image_size": 16, "patch_size": 4}
names = dict(enumerate(DIRECTIONS))
base = CLIPForImageClassification(
    CLIPConfig(vision_config=vision, id2label=names, label2id={name: number for number, name in names.items()})
)
train(base, *stripes(1000, np.eye(3), seed=3), steps=160, lr=2e-3)
base.save_pretrained(folder / "model")
processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
processor.save_pretrained(folder / "model")

# %% [markdown]
# ## The adapter: fine-tuned on red stripes alone

# %%
config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "fc1", "fc2"])
adapted = get_peft_model(base, config)
train(adapted, *stripes(300, [RED], seed=4), steps=150, lr=3e-3)
adapted.save_pretrained(folder / "adapter")

# %% [markdown]
# ## Merged at several alphas
#
# Each output is a folder like the model's, which transformers loads.

# %%
print("alpha     red    blue")
for alpha in (0, 0.25, 0.5, 0.75, 1):
    wise.merge(folder / "model", folder / "adapter", folder / f"merged-{alpha:g}", alpha=alpha)
    merged = CLIPForImageClassification.from_pretrained(folder / f"merged-{alpha:g}")
    print(f"{alpha:5g}  {accuracy(merged, *red):6.1%}  {accuracy(merged, *blue):6.1%}")
by_peft = adapted.merge_and_unload()
print(f" peft  {accuracy(by_peft, *red):6.1%}  {accuracy(by_peft, *blue):6.1%}")

# %% [markdown]
# ## Which alpha: a sweep evaluates all in one pass, and writes none of them

# %%
report = wise.sweep(
    folder / "model",
    folder / "adapter",
    reference=list(zip(*red, strict=True)),
    suite={"blue": list(zip(*blue, strict=True))},
    alphas="0:1:0.25",
    workers=0,
)
print(f"Recommended: {report.recommendation.point} - {report.recommendation.reason}.")
