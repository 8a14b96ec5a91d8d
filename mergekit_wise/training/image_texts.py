"""The text of each image in the contrastive objective: a prompt with the name of its class, or one of its captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from mergekit_wise.datasets.captions import CaptionedImages
from mergekit_wise.models.zero_shot_head import Tokenizer
from mergekit_wise.training.images import Indices, seed_of
from mergekit_wise.wording import plural

CHECKED = 10_000
"""Captions whose length is checked."""


@dataclass(frozen=True, slots=True)
class ClassCaptions:
    """Prompts with the names of classes: FLYP (arXiv 2212.00638).

    Attributes:
        labels: of all images, int64 [N], on the CPU.
        tokens: of every class and template, int64 [C, T, L], on the CPU.
    """

    labels: Tensor
    tokens: Tensor

    def __call__(self, indices: Indices, seed: int) -> tuple[Tensor, Tensor]:
        """Return the classes of images, int64 [n], and the tokens of a prompt for each, int64 [n, L].

        The template of an image depends only on the step's seed and the image.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(self.tokens.shape[1], (len(self.labels),), generator=generator)
        rows = torch.from_numpy(indices)
        labels = self.labels[rows]
        return labels, self.tokens[labels, chosen[rows]]


@dataclass(frozen=True, slots=True)
class OwnCaptions:
    """The images' own captions; of several, one is drawn whenever the image is seen.

    Attributes:
        captions: of each image, at least one.
        tokenizer: texts to tokens, int64 [n, L].
    """

    captions: Sequence[Sequence[str]]
    tokenizer: Tokenizer

    def __call__(self, indices: Indices, seed: int) -> tuple[Tensor, Tensor]:
        """Return numbers that are equal for equal captions, int64 [n], and the tokens of a caption for each image.

        The caption of an image depends only on the step's seed and the image.
        """
        texts = [self._drawn(index, seed) for index in indices.tolist()]
        numbers = [int.from_bytes(blake2b(text.encode(), digest_size=7).digest()) for text in texts]
        return torch.tensor(numbers, dtype=torch.int64), self.tokenizer(texts)

    def _drawn(self, index: int, seed: int) -> str:
        captions = self.captions[index]
        return captions[seed_of(seed, index) % len(captions)] if len(captions) > 1 else captions[0]


def notes_on_length(captions: CaptionedImages, tokenizer: Tokenizer) -> tuple[str, ...]:
    """A note if captions fill all tokens of the text encoder, so that what follows in longer ones is cut off."""
    texts = captions.texts
    some = [texts[place] for place in np.linspace(0, len(texts) - 1, min(len(texts), CHECKED)).astype(int)]
    padding, length, full = tokenizer([""])[0, -1], 0, 0
    for start in range(0, len(some), 1000):
        tokens = tokenizer(some[start : start + 1000])
        length, full = tokens.shape[1], full + int((tokens[:, -1] != padding).sum())
    if not full:
        return ()
    of = f"{len(some):,} captions" if len(some) == len(texts) else f"{len(some):,} captions that were checked"
    return (
        f"{captions.title}: {full:,} of {of} fill all {plural(length, 'token')} of the text encoder; what follows is "
        "cut off",
    )
