"""A small CLIP before and after "fine-tuning", and images with captions, for the tests of retrieval."""

import json
from functools import cache

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
WORDS = ("red", "blue", "green", "dark", "bright", "small", "large", "cat", "dog", "boat", "tree", "house", "a", "the")


@cache
def weights(seed):
    """The state dict of a random model of open_clip's; those of two seeds are near each other."""
    torch.manual_seed(0)
    state, generator = open_clip.CLIP(**CONFIG).state_dict(), torch.Generator().manual_seed(seed)
    return {name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def write_clip(path, seed, frozen=()):
    """Save the model with its configuration; tensors whose names begin with `frozen` are those of seed 0."""
    first, state = weights(0), weights(seed)
    state = {name: first[name] if name.startswith(tuple(frozen)) else tensor for name, tensor in state.items()}
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    save_file({n: t.clone().contiguous() for n, t in state.items()}, path, {"open_clip_config": json.dumps(config)})
    return path


def write_captions(folder, images=20, name="flickr.csv", seed=0):
    """Images of noise of several sizes with 1 to 5 captions each, as open_clip trains on them."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = ["filepath\ttitle"]
    for number in range(images):
        size = random.integers(30, 50, 2)
        colour = random.integers(0, 256, (1, 1, 3)) * np.linspace(0, 1, size[0])[:, None, None]
        pixels = np.clip(colour + random.integers(0, 80, (*size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        for _ in range(random.integers(1, 6)):
            rows.append(f"images/{number}.png\t{' '.join(random.choice(WORDS, random.integers(2, 9)))}")
    (folder / name).write_text("\n".join(rows) + "\n")
    return folder / name


def mixed(alpha, first=0, second=1):
    """The weights of a mixture."""
    return {name: (1 - alpha) * tensor + alpha * weights(second)[name] for name, tensor in weights(first).items()}


@torch.no_grad()
def places_by_hand(state, samples, captions):
    """Places of the first right candidate, one image and one text at a time: of each image, and of each caption."""
    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(state)
    transform = open_clip.image_transform(32, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    images = [model.encode_image(transform(Image.open(path))[None], normalize=True)[0] for path in samples]
    texts = [(i, model.encode_text(tokenizer([t]), normalize=True)[0]) for i, own in enumerate(captions) for t in own]
    to_text, to_image = [], []
    for number, image in enumerate(images):
        order = sorted(range(len(texts)), key=lambda j: -float(image.double() @ texts[j][1].double()))
        to_text.append(next(place for place, j in enumerate(order) if texts[j][0] == number))
    for owner, text in texts:
        order = sorted(range(len(images)), key=lambda j: -float(text.double() @ images[j].double()))
        to_image.append(order.index(owner))
    return np.array(to_text), np.array(to_image)
