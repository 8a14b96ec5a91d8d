"""Both curves, reference and shift, while a Trainer of transformers fine-tunes.

A tiny CLIP learns the direction of stripes in all colours, and is then fine-tuned on red stripes alone. After each
epoch `WiseFTCallback` sets the weights of the mixtures in place, measures them on red stripes (the reference) and on
blue ones (the shift), and puts the weights back: training is the same as without it.

Needs `pip install 'transformers[torch]'`. Runs as a script or cell by cell, in about 9 seconds of one core and
without a network.
"""

# %%
import torch
from transformers import CLIPConfig, CLIPForImageClassification, Trainer, TrainingArguments

from mergekit_wise import merge
from mergekit_wise.integrations.transformers import WiseFTCallback

torch.set_num_threads(1)  # for a model this small, several take longer
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
DIRECTIONS = {"horizontal": (1, 0), "vertical": (0, 1), "diagonal": (1, 1)}


# %% [markdown]
# ## Images: noisy stripes of a colour, in one of three directions


# %%
def stripes(count, colours, seed, noise=1.0):
    """Pixels float32 [count, 3, 16, 16] and labels int64 [count]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(DIRECTIONS), (count,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    directions = torch.tensor(list(DIRECTIONS.values()))[labels]
    phases = 6.3 * torch.rand(count, 1, 1, generator=generator)
    waves = torch.sin(directions[:, :1, None] * rows + directions[:, 1:, None] * columns + phases)
    chosen = torch.tensor(colours)[torch.randint(0, len(colours), (count,), generator=generator)]
    pixels = waves[:, None] * chosen[:, :, None, None]
    return pixels + noise * torch.randn(pixels.shape, generator=generator), labels


def as_samples(pixels, labels):
    """A data set as the Trainer takes it."""
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(pixels, labels, strict=True)]


TESTS = {"red": stripes(200, [RED], seed=1), "blue": stripes(200, [BLUE], seed=2)}


# %% [markdown]
# ## What is measured: a function of the module
#
# It is called with the weights of each mixture, in evaluation mode, and returns numbers by name.


# %%
def accuracy(module):
    """The accuracy on red and on blue stripes."""
    return {
        name: float((module(pixel_values=pixels).logits.argmax(-1) == labels).float().mean())
        for name, (pixels, labels) in TESTS.items()
    }


# %% [markdown]
# ## Train on all colours, then on red alone


# %%
def trainer(model, samples, epochs, lr):
    """A Trainer without files, bars and reports."""
    settings = TrainingArguments(
        "trainer",
        use_cpu=True,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        learning_rate=lr,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        seed=0,
    )
    return Trainer(model, settings, train_dataset=samples)


vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
torch.manual_seed(0)
model = CLIPForImageClassification(
    CLIPConfig(vision_config={**vision, "image_size": 16, "patch_size": 4}, num_labels=len(DIRECTIONS))
)
trainer(model, as_samples(*stripes(1000, torch.eye(3).tolist(), seed=3)), epochs=5, lr=2e-3).train()
zeroshot = {name: tensor.clone() for name, tensor in model.state_dict().items()}

# %% [markdown]
# `trainer=` lets the callback report to TensorBoard, Weights & Biases, or wherever the Trainer reports to. With
# `save="mixtures/epoch-{epoch}-alpha-{alpha}.safetensors"` it would also write each mixture, as `merge` does.

# %%
finetuning = trainer(model, as_samples(*stripes(400, [RED], seed=4)), epochs=3, lr=1e-3)
callback = WiseFTCallback(alphas=(0, 0.25, 0.5, 0.75), measure=accuracy, trainer=finetuning)
finetuning.add_callback(callback)
finetuning.train()

# %% [markdown]
# ## Both curves, epoch by epoch

# %%
measured = {(each["epoch"], each["alpha"], each["metric"]): each["value"] for each in callback.history}
print("epoch  alpha     red    blue")
for epoch, alpha in sorted({(epoch, alpha) for epoch, alpha, _ in measured}):
    red, blue = (measured[epoch, alpha, metric] for metric in ("red", "blue"))
    print(f"{epoch:5g}  {alpha:5g}  {red:6.1%}  {blue:6.1%}")

# %% [markdown]
# The mixture that was measured is the one that `merge` gives:

# %%
mixture = merge(zeroshot, model, alpha=0.5)
model.load_state_dict(mixture)
print("alpha 0.5, merged:", accuracy(model.eval()))
