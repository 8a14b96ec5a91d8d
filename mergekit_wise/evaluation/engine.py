"""Predicts with all variants of a model in one pass: every image is decoded once. Knows no file and no alpha.

A variant is a function that sets the weights in place. Setting them for each batch would take longer than a small
model's forward pass, so a group of batches is decoded, and each variant predicts the whole group.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mergekit_wise.analysis.answers import NUMBERS
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.evaluation.constant_prefix import ConstantPrefix
from mergekit_wise.evaluation.distributed import ALONE, Ranks
from mergekit_wise.evaluation.forward import Forward, autocast, even_size
from mergekit_wise.evaluation.image_batches import CHUNK, Batch, decoded, require_few
from mergekit_wise.evaluation.predictions import (
    Predictions,
    choose_columns,
    class_logits,
    predict_classes,
    probability_numbers,
)
from mergekit_wise.merging.torch_backend import Coming, Sender, fetch
from mergekit_wise.progress import Progress, silent

_AHEAD = 2
"""Groups whose answers are not waited for, so that a GPU has work while the next images are decoded and sent to it."""

Observe = Callable[[Sequence[NDArray[np.float32]], NDArray[np.int64], NDArray[np.int64]], None]


@dataclass(frozen=True, slots=True)
class OutputEnsemble:
    """The output-space ensemble (1 - alpha) f + alpha g of the variants with the numbers `first` and `second`."""

    first: int
    second: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Observers:
    """What is computed from the variants' logits while they are there, besides predictions.

    Attributes:
        ensembles: output-space ensembles, whose predictions follow those of the variants.
        observed: numbers of the variants whose logits `observe` is called with.
        observe: is called with logits float32 [n, K] of each observed variant, labels int64 [n] and indices int64 [n]
            of the readable images of each batch; K is the number of the data set's classes.
    """

    ensembles: Sequence[OutputEnsemble] = ()
    observed: Sequence[int] = ()
    observe: Observe | None = None

    @property
    def variants(self) -> set[int]:
        """The numbers of the variants whose logits are kept until all variants have seen a batch."""
        return {number for each in self.ensembles for number in (each.first, each.second)} | set(self.observed)

    def ensemble_logits(self, logits: Mapping[int, Tensor]) -> Iterator[Tensor]:
        """Logits [B, C] of each ensemble for one batch, given those of the variants by their numbers."""
        for each in self.ensembles:
            yield (1 - each.alpha) * logits[each.first] + each.alpha * logits[each.second]

    def see(self, logits: NDArray[np.float32], labels: NDArray[np.int64], indices: NDArray[np.int64]) -> None:
        """Call `observe` for one batch, given the logits of the observed variants [O, n, K], unless it is empty."""
        if self.observe is not None and len(indices):
            self.observe(list(logits), labels, indices)


NO_OBSERVERS = Observers()


@dataclass(frozen=True, slots=True)
class Engine:
    """How predictions are made, whatever the data set.

    Attributes:
        forward: the module, whose weights variants set.
        batch_size: images per batch at most. The batches of a data set have one shape, the last one padded, and are the
            same for any number of ranks, so that every image is computed by the same kernel, in the same row. They are
            made smaller where fewer images are padded so.
        workers: image-decoding processes; 0 decodes in this process.
        max_bad: how many images of a data set may be unreadable.
        ranks: the processes that share every data set.
        progress: the progress callback.
        group_bytes: memory for decoded images that all variants predict before the next ones are decoded, and for what
            is computed once for all.
        fetch: begins to copy what a device has computed to the CPU.
    """

    forward: Forward
    batch_size: int = 128
    workers: int = 0
    max_bad: int = 0
    ranks: Ranks = ALONE
    progress: Progress = silent
    group_bytes: int = 256 << 20
    fetch: Callable[[Tensor], Coming] = fetch

    def predict(
        self,
        variants: Sequence[Callable[[], None]],
        dataset: Dataset,
        outputs: int,
        *,
        names: Sequence[str] | None = None,
        prefix: ConstantPrefix | None = None,
        observers: Observers = NO_OBSERVERS,
    ) -> Predictions:
        """The predictions of every variant for every image; each rank computes a part, and all return the whole.

        Args:
            variants: functions that set the weights; each is called once for every group of batches.
            dataset: the images.
            outputs: the number of the module's logits.
            names: of the classes of the module's own head, if it knows them.
            prefix: the first part of the forward pass, if it is the same for all variants: it is computed once.
            observers: what else is computed from the variants' logits.

        Raises:
            SuiteError: there are more unreadable images than `max_bad`, no images, or labels that are not a class.
            ModelError: the head has other classes than the data set, or memory does not hold one image.
        """
        columns = choose_columns(dataset, outputs, names)
        with self.ranks.agreeing():
            columns = None if columns is None else columns.to(self.forward.device)
            found = self._part(variants, dataset, columns, prefix, observers)
        gathered = _gathered(found, self.ranks)
        require_few(dataset, gathered.bad, self.max_bad)
        return gathered

    def _part(
        self,
        variants: Sequence[Callable[[], None]],
        dataset: Dataset,
        columns: Tensor | None,
        prefix: ConstantPrefix | None,
        observers: Observers,
    ) -> Predictions:
        batches = self.batches(len(dataset))
        total, done = sum(map(len, batches)) * len(variants), 0
        results = _Results.empty(len(variants) + len(observers.ensembles), dataset, observers)
        extra = 0 if prefix is None else prefix.image_bytes
        device, sender = self.forward.device, Sender(self.forward.device)
        with closing(self.groups(batches, len(variants), dataset, extra)) as groups, torch.inference_mode():
            for group in groups:
                results.bad |= {index: reason for batch in group for index, reason in batch.bad}
                require_few(dataset, results.bad, self.max_bad)
                sent = [_sent(batch, dataset, sender) for batch in group]
                kept: list[dict[int, Tensor]] = [{} for _ in group]
                answers: list[list[Tensor]] = [[] for _ in group]
                logits_of = _Beginnings(self.forward, prefix)
                for variant, set_weights in enumerate(variants):
                    # The weights of a single variant are set once.
                    if len(variants) > 1 or not done:
                        set_weights()
                    # Around the group, so that weights are rounded to a lower precision once.
                    with autocast(self.forward.precision, device):
                        for number, (batch, logits_by_variant) in enumerate(zip(group, kept, strict=True)):
                            pixels, labels = sent[number]
                            logits = logits_of(number, pixels)
                            answers[number].append(_answers(class_logits(logits, columns), labels))
                            if variant in observers.variants:
                                logits_by_variant[variant] = logits
                            done += len(batch.indices)
                            self.progress(dataset.title, done, total, "images")
                shown = []
                for (_, labels), logits_by_variant, found in zip(sent, kept, answers, strict=True):
                    found += [
                        _answers(class_logits(logits, columns), labels)
                        for logits in observers.ensemble_logits(logits_by_variant)
                    ]
                    if observers.observed:
                        of_classes = [class_logits(logits_by_variant[v], columns) for v in observers.observed]
                        shown.append(torch.stack(of_classes))
                results.add(
                    [batch.indices for batch in group],
                    self.fetch(torch.cat([torch.stack(each) for each in answers], dim=-1)),
                    self.fetch(torch.cat(shown, dim=1)) if shown else None,
                )
        return results.result()

    def batches(self, images: int) -> list[NDArray[np.int64]]:
        """The indices of this rank's batches; batches are assigned to ranks in turns."""
        size = even_size(images, self.batch_size)
        starts = range(0, images, size)[self.ranks.rank :: self.ranks.size]
        return [np.arange(start, min(start + size, images)) for start in starts]

    def groups(
        self, batches: Sequence[NDArray[np.int64]], variants: int, dataset: Dataset, extra: int
    ) -> Generator[list[Batch], None, None]:
        """Groups of batches that fit into `group_bytes`, with `extra` bytes an image; of one for a single variant."""
        preprocess, size = self.forward.preprocess, even_size(len(dataset), self.batch_size)
        batch_bytes = size * (prod(preprocess.shape) * np.dtype(preprocess.dtype).itemsize + extra)
        room = max(1, self.group_bytes // batch_bytes) if variants > 1 else 1
        # Enough to keep the workers busy, however small the batches are.
        hold = max(min(room, len(batches)), ceil(4 * self.workers * CHUNK / size))
        stream = decoded(dataset, preprocess, batches, size, workers=self.workers, hold=hold)
        with closing(stream):
            while group := list(islice(stream, room)):
                yield group


def _sent(batch: Batch, dataset: Dataset, sender: Sender) -> tuple[Tensor, Tensor]:
    """Pixels and labels on the device, both padded to the batch size."""
    labels = np.zeros(len(batch.pixels), np.int64)
    labels[: len(batch.indices)] = dataset.labels[batch.indices]
    return sender(torch.from_numpy(batch.pixels)), sender(torch.from_numpy(labels))


def _answers(logits: Tensor, labels: Tensor) -> Tensor:
    """What is kept of logits [B, K], int32 [2 + `NUMBERS`, B]: class, whether among the best five, bits of numbers."""
    classes, top5 = predict_classes(logits, labels)
    numbers = probability_numbers(logits, labels).view(torch.int32)
    return torch.cat([torch.stack([classes, top5.int()]), numbers])


@dataclass(slots=True)
class _Beginnings:
    """Computes the logits of a group's batches; what `prefix` keeps of each is computed for the first variant."""

    forward: Forward
    prefix: ConstantPrefix | None
    kept: list[Tensor] = field(default_factory=list)
    versions: tuple[int, ...] = ()

    def __call__(self, number: int, pixels: Tensor) -> Tensor:
        """Logits [B, C] of the batch with this number."""
        prefix = self.prefix
        if prefix is not None and number == len(self.kept):
            logits, kept = self.forward.recorded(pixels, prefix)
            self.kept.append(kept)
            self.versions = prefix.versions
            return logits
        if prefix is None or prefix.versions != self.versions:  # something has written to these weights after all
            return self.forward(pixels)
        return self.forward.continued(self.kept[number], prefix)


@dataclass(slots=True)
class _Results:
    """Collects the answers of groups as they come from the device, and shows logits to the observers."""

    dataset: Dataset
    observers: Observers
    classes: NDArray[np.int32]
    top5: NDArray[np.bool_]
    numbers: NDArray[np.float32]
    bad: dict[int, str] = field(default_factory=dict)
    coming: deque[tuple[list[NDArray[np.int64]], Coming, Coming | None]] = field(default_factory=deque)

    @classmethod
    def empty(cls, variants: int, dataset: Dataset, observers: Observers) -> "_Results":
        images = len(dataset)
        nothing = np.full((variants, len(NUMBERS), images), -1, np.int32).view(np.float32)
        classes, top5 = np.full((variants, images), -1, np.int32), np.zeros((variants, images), np.bool_)
        return cls(dataset, observers, classes, top5, nothing)

    def add(self, indices: list[NDArray[np.int64]], answers: Coming, logits: Coming | None) -> None:
        """The indices of each batch of a group, what `_answers` gives of all [V, 6, B * batches], observed logits."""
        self.coming.append((indices, answers, logits))
        if len(self.coming) > _AHEAD:
            self._store()

    def result(self) -> Predictions:
        while self.coming:
            self._store()
        wrong = list(self.bad)
        self.classes[:, wrong], self.top5[:, wrong], self.numbers[:, :, wrong] = -1, False, np.nan
        return Predictions(self.classes, self.top5, self.numbers, self.bad)

    def _store(self) -> None:
        batches, coming, coming_logits = self.coming.popleft()
        found = coming.wait().numpy()
        logits = None if coming_logits is None else coming_logits.wait().numpy()
        size = found.shape[-1] // len(batches)
        for number, indices in enumerate(batches):
            rows = slice(number * size, number * size + len(indices))  # without padding
            self.classes[:, indices], self.top5[:, indices] = found[:, 0, rows], found[:, 1, rows] != 0
            self.numbers[:, :, indices] = found[:, 2:, rows].view(np.float32)
            if logits is not None:
                good = ~np.isin(indices, list(self.bad))
                labels = self.dataset.labels[indices[good]]
                self.observers.see(logits[:, rows][:, good], labels, indices[good])


def _gathered(found: Predictions, ranks: Ranks) -> Predictions:
    """The predictions of all ranks; those that a rank did not compute are -1 and False there."""
    bad: dict[int, str] = {}
    for part in ranks.gather(dict(found.bad)):
        bad |= part
    top5 = ranks.maximum(found.top5.astype(np.int32)).astype(np.bool_)
    # Floats that are not negative, and NaN after them, are in the order of their bits; -1 are the bits of no number.
    numbers = ranks.maximum(found.numbers.view(np.int32)).view(np.float32)
    return Predictions(ranks.maximum(found.classes), top5, numbers, dict(sorted(bad.items())))
