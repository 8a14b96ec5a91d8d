"""Every image is decoded once and visits every variant of a model. Knows no file and no alpha.

A variant is a function that sets the weights in place. Setting them for each batch would cost more than a small model's
forward pass, so a group of batches is decoded, then visits one variant after the other.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.answers import answer, choose_columns, class_logits
from mergekit_wise.evaluation.decoding import CHUNK, Batch, decoded
from mergekit_wise.evaluation.distributed import ALONE, Ranks
from mergekit_wise.evaluation.forward import Forward
from mergekit_wise.evaluation.observers import NOTHING, Kept, Observers
from mergekit_wise.progress import Progress, silent

GROUP = 256 << 20
"""Bytes of decoded images that visit one variant after the other."""

AHEAD = 4
"""Batches whose answers are not waited for, so that a GPU has work while the next ones are sent to it."""

SHOWN = 5
"""Unreadable images that an error names."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What each variant says of each image.

    Attributes:
        classes: predicted classes, int32 [V, N], of the variants, then of the ensembles that were asked for; -1 where
            the logits are not finite, or the image is bad.
        top5: whether the label is among the best five, bool [V, N].
        bad: images that could not be read: what is the matter, by index.
    """

    classes: NDArray[np.int32]
    top5: NDArray[np.bool_]
    bad: Mapping[int, str]

    @property
    def unsound(self) -> list[int]:
        """For each variant, of how many readable images the logits are not finite."""
        return [int((row == -1).sum()) - len(self.bad) for row in self.classes]


@dataclass(frozen=True, slots=True)
class Engine:
    """How predictions are made, whatever the data set.

    Attributes:
        forward: the module, whose weights variants set.
        batch_size: images at a time. Batches have one shape, the last one padded, and are the same ones for any number
            of ranks, so that every image is computed by the same kernel, at the same place.
        workers: processes that decode; 0 decodes in this one.
        max_bad: how many images of a data set may be unreadable.
        ranks: the processes that share every data set.
        progress: called as work goes on.
    """

    forward: Forward
    batch_size: int = 128
    workers: int = 0
    max_bad: int = 0
    ranks: Ranks = ALONE
    progress: Progress = silent

    def predict(
        self,
        variants: Sequence[Callable[[], None]],
        dataset: Dataset,
        outputs: int,
        *,
        same_tower: bool = False,
        beside: Observers = NOTHING,
    ) -> Predictions:
        """The predictions of every variant for every image; each rank computes a part, and all get the whole.

        Args:
            variants: what sets the weights; called in turns, each once for every group of batches.
            dataset: the images.
            outputs: how many logits the module has.
            same_tower: whether variants differ in the head alone: then features are computed once for all.
            beside: what else is made of the variants' logits.

        Raises:
            SuiteError: more unreadable images than `max_bad`, no images, or labels that are no class.
            ModelError: the head has other classes than the data set, or memory does not hold one image.
        """
        columns = choose_columns(dataset, outputs)
        with self.ranks.agreeing():
            place = None if columns is None else columns.to(self.forward.device)
            found = self._part(variants, dataset, place, same_tower, beside)
        together = _gathered(found, self.ranks)
        _require_few(dataset, together.bad, self.max_bad)
        return together

    def _part(
        self,
        variants: Sequence[Callable[[], None]],
        dataset: Dataset,
        columns: Tensor | None,
        same_tower: bool,
        beside: Observers,
    ) -> Predictions:
        batches = self._batches(len(dataset))
        total, done = sum(map(len, batches)) * len(variants), 0
        tally = _Tally.of(len(variants) + len(beside.blends), len(dataset))
        compute = self.forward.classify if same_tower else self.forward
        with closing(self._groups(batches, len(variants), dataset)) as groups, torch.inference_mode():
            for group in groups:
                tally.bad |= {index: reason for batch in group for index, reason in batch.bad}
                _require_few(dataset, tally.bad, self.max_bad)
                sent = [_send(batch, dataset, self.forward.device) for batch in group]
                kept: list[Kept] = [{} for _ in group]
                for variant, set_weights in enumerate(variants):
                    # The weights of a single variant stay where they are.
                    if len(variants) > 1 or not done:
                        set_weights()
                    if same_tower and variant == 0:
                        sent = [(self.forward.features(pixels), labels) for pixels, labels in sent]
                    for batch, (inputs, labels), logits_of in zip(group, sent, kept, strict=True):
                        logits = compute(inputs)
                        tally.add(variant, batch.indices, *answer(class_logits(logits, columns), labels))
                        if variant in beside.variants:
                            logits_of[variant] = logits
                        done += len(batch.indices)
                        self.progress(dataset.title, done, total, "images")
                for batch, (_, labels), logits_of in zip(group, sent, kept, strict=True):
                    for number, logits in enumerate(beside.blended(logits_of), len(variants)):
                        tally.add(number, batch.indices, *answer(class_logits(logits, columns), labels))
                    beside.watched({v: class_logits(logits, columns) for v, logits in logits_of.items()}, labels, batch)
        return tally.result()

    def _batches(self, images: int) -> list[NDArray[np.int64]]:
        """Those of the rank: whole ones, dealt out in turns."""
        starts = range(0, images, self.batch_size)[self.ranks.rank :: self.ranks.size]
        return [np.arange(start, min(start + self.batch_size, images)) for start in starts]

    def _groups(
        self, batches: Sequence[NDArray[np.int64]], variants: int, dataset: Dataset
    ) -> Generator[list[Batch], None, None]:
        """Batches that visit the variants together, decoded once: as many as `GROUP` has room for; one for one."""
        preprocess = self.forward.preprocess
        room = max(1, GROUP // (self.batch_size * 3 * prod(preprocess.size))) if variants > 1 else 1
        # What keeps the workers busy, however small the batches are.
        hold = max(min(room, len(batches)), ceil(4 * self.workers * CHUNK / self.batch_size))
        stream = decoded(dataset, preprocess, batches, self.batch_size, workers=self.workers, hold=hold)
        with closing(stream):
            while group := list(islice(stream, room)):
                yield group


def _send(batch: Batch, dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels and labels on the device, both of the batch's full length."""
    labels = np.zeros(len(batch.pixels), np.int64)
    labels[: len(batch.indices)] = dataset.labels[batch.indices]
    pixels = torch.from_numpy(batch.pixels)
    if device.type == "cuda":  # pragma: no cover: needs a GPU
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=True), torch.from_numpy(labels).to(device)


@dataclass(slots=True)
class _Tally:
    """Answers as they come from the device."""

    classes: NDArray[np.int32]
    top5: NDArray[np.bool_]
    bad: dict[int, str] = field(default_factory=dict)
    waiting: deque[tuple[int, NDArray[np.int64], Tensor, Tensor]] = field(default_factory=deque)

    @classmethod
    def of(cls, variants: int, images: int) -> "_Tally":
        return cls(np.full((variants, images), -1, np.int32), np.zeros((variants, images), np.bool_))

    def add(self, variant: int, indices: NDArray[np.int64], classes: Tensor, top5: Tensor) -> None:
        self.waiting.append((variant, indices, classes, top5))
        if len(self.waiting) > AHEAD:
            self._store()

    def result(self) -> Predictions:
        while self.waiting:
            self._store()
        wrong = list(self.bad)
        self.classes[:, wrong], self.top5[:, wrong] = -1, False
        return Predictions(self.classes, self.top5, self.bad)

    def _store(self) -> None:
        variant, indices, classes, top5 = self.waiting.popleft()
        self.classes[variant, indices] = classes[: len(indices)].cpu().numpy()
        self.top5[variant, indices] = top5[: len(indices)].cpu().numpy()


def _gathered(found: Predictions, ranks: Ranks) -> Predictions:
    """The answers of all ranks, in every one of them; what a rank did not compute is -1 and False there."""
    bad: dict[int, str] = {}
    for part in ranks.everyone(dict(found.bad)):
        bad |= part
    top5 = ranks.largest(found.top5.astype(np.int32)).astype(np.bool_)
    return Predictions(ranks.largest(found.classes), top5, dict(sorted(bad.items())))


def _require_few(dataset: Dataset, bad: Mapping[int, str], allowed: int) -> None:
    if len(bad) <= allowed and len(bad) < len(dataset):
        return
    shown = " ".join(list(bad.values())[:SHOWN])
    more = f" And {len(bad) - SHOWN} more." if len(bad) > SHOWN else ""
    raise SuiteError(
        f"{dataset.title}: {len(bad)} images cannot be read, and {allowed} may be (--max-bad). {shown}{more}"
    )
