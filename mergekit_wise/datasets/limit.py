"""A fixed, seeded, class-balanced part of a data set. Knows nothing of where images come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.errors import SuiteError

T = TypeVar("T")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Part(Generic[T]):
    """What a function of an image's number gives for the images that were chosen; `rows` are int64 [n]."""

    whole: Callable[[int], T]
    rows: NDArray[np.int64]

    def at(self, index: int) -> T:
        return self.whole(int(self.rows[index]))


@dataclass(frozen=True, slots=True, eq=False)
class _Corrupted:
    """The change of each chosen image, seeded by its number in the whole data set."""

    whole: Callable[[int, Pixels], Pixels]
    rows: NDArray[np.int64]

    def at(self, index: int, pixels: Pixels) -> Pixels:
        return self.whole(int(self.rows[index]), pixels)


def limited(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """`count` images of `dataset` in their old order, or all if it has no more.

    Classes take turns, in an order drawn from `seed`, each giving its images in an order drawn from it; so no class
    has two images more than another unless that one has no more, and a smaller part is part of a larger one.

    Raises SuiteError if `count` is not positive, or if frames are judged together, of which a part means nothing.
    """
    if count < 1:
        raise SuiteError(f"A part of {count} images was asked for; expected at least 1.")
    if count >= len(dataset):
        return dataset
    if dataset.metric.kind == "all-in-group":
        raise SuiteError(
            f"{dataset.title}: frames are judged together with their neighbours, so no part is taken of it."
        )
    return part(dataset, _rows(dataset.labels, count, seed))


def part(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The images of `dataset` that `rows`, int64 [n], number, in that order."""
    return replace(
        dataset,
        labels=dataset.labels[rows],
        image=_Part(dataset.image, rows).at,
        sample=_Part(dataset.sample, rows).at,
        corrupt=None if dataset.corrupt is None else _Corrupted(dataset.corrupt, rows).at,
        size=None if dataset.size is None else _Part(dataset.size, rows).at,
        metric=_part_of(dataset.metric, rows),
    )


def _rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Ascending row numbers, int64 [count]."""
    # Sorted by raw random bits: NumPy promises the same ones in all its versions, but not the same permutations.
    bits = np.random.PCG64(seed)
    shuffled = np.argsort(bits.random_raw(len(labels)), kind="stable")
    turn = np.argsort(bits.random_raw(int(labels.max()) + 1), kind="stable")
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes = labels[by_class]
    # How many images of its class stand before each.
    rank = np.arange(len(labels)) - np.searchsorted(classes, classes)
    chosen: NDArray[np.int64] = np.sort(by_class[np.lexsort((turn[classes], rank))[:count]]).astype(np.int64)
    return chosen


def _part_of(metric: Metric, rows: NDArray[np.int64]) -> Metric:
    """The metric with its groups counted anew; groups of which no image was chosen are left out."""
    groups = {name: np.flatnonzero(np.isin(rows, group)).astype(np.int64) for name, group in metric.groups.items()}
    accepted = None if metric.accepted is None else tuple(metric.accepted[row] for row in rows)
    return Metric(metric.kind, {name: group for name, group in groups.items() if group.size}, accepted)
