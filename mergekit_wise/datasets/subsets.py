"""Data sets made from others: a random subset, the reference restricted to a shift's classes, other names.

This module knows nothing of where images come from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset, Metric, Suite
from mergekit_wise.datasets.name_matching import IN_GIVEN_ORDER, comparable, require_own_places, same_order
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

Draw = Literal["proportional", "balanced"]
"""How many images of each class a subset has."""


def limited(dataset: Dataset, count: int, seed: int = 0, draw: Draw = "proportional") -> Dataset:
    """A random subset of `count` images, in their old order; `dataset` itself if it has no more.

    `seed` decides the order in which images are drawn, so a smaller subset is contained in a larger one with the same
    seed. How many are drawn of each class, `draw` decides:

    - proportional: as large a share of every class as of the whole data set, apart from rounding up or down at random.
      Every image has the same chance to be drawn, so the subset's top-1 estimates that of the whole data set, with less
      variance than a simple random subset's (stratified sampling with proportional allocation; Cochran, Sampling
      Techniques, chapter 5).
    - balanced: the same number, unless a class has no more images. Where classes differ in size, the subset's top-1
      estimates another number than that of the whole data set.

    Notes of the subset say which classes or groups of images its metric misses.

    Raises SuiteError if `count` is not positive, or if the metric needs all frames of a video.
    """
    if count < 1:
        raise SuiteError(f"Expected a subset of at least 1 image, found {count}.")
    if count >= len(dataset):
        return dataset
    if dataset.metric.kind == "all-in-group":
        raise SuiteError(
            f"{dataset.title}: no subset can be evaluated, because the metric needs all frames of a group. "
            "Leave out --limit for this data set."
        )
    rows = np.sort(_ORDERS[draw](dataset.labels, seed)[:count]).astype(np.int64)
    drawn = subset(dataset, rows)
    return replace(drawn, notes=(*drawn.notes, *_notes_on_part(dataset, drawn, draw)))


def few_shot(dataset: Dataset, shots: int, seed: int = 0) -> Dataset:
    """A random subset of `shots` images of each class, in their old order; all images of a class that has no more.

    `seed` decides the order in which the images of a class are drawn, so fewer shots are contained in more with the
    same seed. A note says which classes have fewer images. Raises SuiteError if `shots` is not positive.
    """
    if shots < 1:
        raise SuiteError(f"Expected at least 1 image of each class, found {shots}.")
    by_class, _, rank, _ = _shuffled(dataset.labels, seed)
    drawn = subset(dataset, np.sort(by_class[rank < shots]).astype(np.int64))
    counts = np.bincount(dataset.labels, minlength=len(dataset.classnames)).tolist()
    notes = [f"{len(drawn)} of {len(dataset):,} images drawn, {shots} of each class"]
    few = {name: count for name, count in zip(dataset.classnames, counts, strict=True) if count < shots}
    if few:
        named = listed(f"{name} ({count})" for name, count in few.items())
        notes.append(f"{len(few)} of {plural(len(counts), 'class')} have fewer than {shots} images: {named}")
    return replace(drawn, notes=(*dataset.notes, *notes))


def subset(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The images of `dataset` with the indices `rows`, int64 [n], in that order."""
    return replace(
        dataset,
        labels=dataset.labels[rows],
        image=partial(_at, dataset.image, rows),
        sample=partial(_at, dataset.sample, rows),
        # A corruption is seeded by the image's index in the whole data set.
        corrupt=None if dataset.corrupt is None else partial(_at, dataset.corrupt, rows),
        size=None if dataset.size is None else partial(_at, dataset.size, rows),
        content=None if dataset.content is None else partial(_at, dataset.content, rows),
        metric=_metric_of_rows(dataset.metric, rows),
    )


def companions(suite: Suite) -> tuple[Dataset, ...]:
    """For each shift with fewer classes than the reference: the reference's images of these classes.

    They have the shift's labels and columns of the head. Which classes both have follows from the columns of one
    vocabulary, such as ImageNet's, or from the classes' names. Effective robustness on ImageNet-R, ImageNet-A and
    ObjectNet is measured against ImageNet's accuracy on their classes (WiSE-FT, appendix; Taori et al. 2020).
    """
    return () if suite.reference is None else tuple(_companions(suite.reference, suite.shifts))


def companion_name(shift: str) -> str:
    """The name that records have for the companion of the data set `shift`."""
    return f"reference-of-{shift}"


def with_names(
    dataset: Dataset,
    classnames: tuple[str, ...] | None,
    templates: tuple[str, ...] | None,
    reference: Dataset | None = None,
) -> Dataset:
    """`dataset` with other class names, other templates, or both; None keeps the data set's own.

    For a data set with some of ImageNet's classes, such as ImageNet-R, all 1000 names of ImageNet may be given; those
    of its classes are taken. So are those of a shift that has, by its own names, some of the classes of `reference`.
    Labels in memory without names are numbers of the given ones.
    The data set's own names in another order are no other names: its classes then take that order. Raises SuiteError
    if the number of names fits neither, or if most names are those that other classes have.
    """
    named = dataset if classnames is None else _named(dataset, classnames, reference)
    return named if templates is None else replace(named, templates=templates)


def _named(dataset: Dataset, names: tuple[str, ...], reference: Dataset | None) -> Dataset:
    if not dataset.has_names and len(names) >= len(dataset.classnames):
        return replace(dataset, classnames=names, has_names=True)
    places = same_order(dataset.classnames, names)
    if places is None:
        if len(names) == len(dataset.classnames):
            require_own_places(dataset.classnames, names, dataset.title)
        return replace(dataset, classnames=_fitting(dataset, names, reference))
    if places == tuple(range(len(names))):
        return replace(dataset, classnames=names)
    if dataset.vocabulary:
        note = f"the given class names are its own in another order; it keeps that of {dataset.vocabulary}"
        return replace(dataset, classnames=tuple(names[place] for place in places), notes=(*dataset.notes, note))
    return replace(_with_order(dataset, places, names), notes=(*dataset.notes, IN_GIVEN_ORDER))


def in_order_of(reference: Dataset, shift: Dataset) -> Dataset:
    """`shift` with its classes in the order that `reference` has them in, if both have the same names, each once.

    A head without names of its own is for the reference's classes in the reference's order. Data sets that are columns
    of a larger head stay as they are.
    """
    is_own = shift.columns is None and reference.columns is None and shift.vocabulary == reference.vocabulary
    places = same_order(shift.classnames, reference.classnames) if is_own else None
    if places is None or places == tuple(range(len(places))):
        return shift
    moved = _with_order(shift, places, reference.classnames)
    note = f"its classes are taken in the order of those of {reference.title}, by name."
    return replace(moved, notes=(*shift.notes, note))


def _with_order(dataset: Dataset, new_label: Sequence[int], order: tuple[str, ...]) -> Dataset:
    """`dataset` with the label ``new_label[i]`` in place of ``i``; `order` are its names in the new order."""
    new = np.array(new_label, np.int64)
    accepted = dataset.metric.accepted
    if accepted is not None:
        accepted = tuple(frozenset(int(new[label]) for label in labels) for labels in accepted)
    return replace(
        dataset,
        classnames=order,
        labels=new[dataset.labels],
        metric=replace(dataset.metric, accepted=accepted),
        no_answers=frozenset(int(new[label]) for label in dataset.no_answers),
    )


def with_pixel_limit(suite: Suite, most: int | None) -> Suite:
    """`suite` with images of up to `most` pixels; None keeps the limit of `decoding.MAX_PIXELS`."""
    if most is None:
        return suite
    limited_sets = [
        dataset and replace(dataset, image=partial(image_within, dataset.image, most))
        for dataset in (suite.reference, *suite.shifts)
    ]
    return replace(suite, reference=limited_sets[0], shifts=tuple(filter(None, limited_sets[1:])))


def image_within(image: Callable[[int], "Image.Image"], most: int, index: int) -> "Image.Image":
    """Image `index`, which may have up to `most` pixels; picklable as a partial."""
    from mergekit_wise.datasets.decoding import pixel_limit  # Pillow, which this module does without

    with pixel_limit(most):
        return image(index)


def _at(function: Callable[..., T], rows: NDArray[np.int64], index: int, *arguments: Any) -> T:
    """`function` of the row that image `index` of a subset has in the whole data set; picklable as a partial."""
    return function(int(rows[index]), *arguments)


def _proportional_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Row numbers, int64 [N], of which any first part has about the same share of every class.

    The images of a class with n images are placed at (u + 0) / n, (u + 1) / n ... on the line from 0 to 1, with u in
    [0, 1) drawn for the class. Each image is therefore as likely as any other to lie below a bound.
    """
    by_class, classes, rank, bits = _shuffled(labels, seed)
    # The upper 53 bits of a number as a fraction are exact in float64.
    position = (rank + (bits[classes] >> np.uint64(11)) * 2.0**-53) / np.bincount(labels)[classes]
    return by_class[np.argsort(position, kind="stable")]


def _balanced_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Row numbers, int64 [N]: an image of each class in turn, as long as it has any."""
    by_class, classes, rank, bits = _shuffled(labels, seed)
    return by_class[np.lexsort((np.argsort(bits, kind="stable")[classes], rank))]


def _shuffled(
    labels: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Row numbers class by class, shuffled in each; the class of each and its place in that; random bits by class."""
    # Raw random bits: NumPy promises the same ones in all its versions, but not the same permutations.
    bits = np.random.PCG64(seed)
    shuffled = np.argsort(bits.random_raw(len(labels)), kind="stable")
    of_classes = bits.random_raw(int(labels.max()) + 1)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes = labels[by_class]
    return by_class, classes, np.arange(len(labels)) - np.searchsorted(classes, classes), of_classes


_ORDERS: Mapping[Draw, Callable[[NDArray[np.int64], int], NDArray[np.int64]]] = {
    "proportional": _proportional_order,
    "balanced": _balanced_order,
}


def _notes_on_part(whole: Dataset, part: Dataset, draw: Draw) -> Iterator[str]:
    """What a metric of a part does not say about the whole."""
    occurring, drawn = (len(np.unique(dataset.labels)) for dataset in (whole, part))
    match whole.metric.kind:
        case "mean-per-class" | "macro-f1" if drawn < occurring:
            yield (
                f"--limit {len(part)} drew images of {drawn} of {plural(occurring, 'class')}; {whole.metric.kind} is "
                "the mean over these." + (" --balanced draws rare classes first." if draw == "proportional" else "")
            )
        case "worst-group":
            if lost := [
                name for name, rows in whole.metric.groups.items() if rows.size and name not in part.metric.groups
            ]:
                yield f"--limit {len(part)} drew no image of {listed(lost)}, which cannot be the worst group."
    sizes = np.bincount(whole.labels)
    # A mean over classes does not depend on how many images each has; precision and mixed groups do.
    if draw == "balanced" and whole.metric.kind != "mean-per-class" and len(set(sizes[sizes > 0].tolist())) > 1:
        yield (
            "its classes differ in size, and --balanced draws as many images of each, so the result is not an "
            "estimate of the whole data set's."
        )


def _metric_of_rows(metric: Metric, rows: NDArray[np.int64]) -> Metric:
    """The metric with the new indices of its groups; groups without any chosen image are left out."""
    groups = {name: np.flatnonzero(np.isin(rows, group)).astype(np.int64) for name, group in metric.groups.items()}
    accepted = None if metric.accepted is None else tuple(metric.accepted[row] for row in rows)
    return Metric(metric.kind, {name: group for name, group in groups.items() if group.size}, accepted)


def _metric_of_labels(metric: Metric, label_of: Mapping[int, int]) -> Metric:
    """The metric with the new numbers of the classes; those that have none are no answers."""
    if metric.accepted is None:
        return metric
    accepted = (frozenset(label_of[label] for label in labels if label in label_of) for labels in metric.accepted)
    return replace(metric, accepted=tuple(accepted))


def _companions(reference: Dataset, shifts: tuple[Dataset, ...]) -> Iterator[Dataset]:
    for shift in shifts:
        label_of = _shared_classes(reference, shift)
        rows = np.flatnonzero(np.isin(reference.labels, list(label_of))).astype(np.int64)
        if not len(rows):
            continue
        chosen = subset(reference, rows)
        yield replace(
            chosen,
            name=companion_name(shift.name),
            title=f"{reference.title}, {shift.title}'s classes",
            classnames=shift.classnames,
            labels=np.array([label_of[label] for label in chosen.labels.tolist()], np.int64),
            metric=_metric_of_labels(chosen.metric, label_of),
            columns=shift.columns,
            no_answers=shift.no_answers,
            expected=None,
        )


def _shared_classes(reference: Dataset, shift: Dataset) -> dict[int, int]:
    """The shift's label of each label of the reference, if the shift has some of its classes; else empty."""
    if shift.columns is not None and shift.vocabulary == reference.vocabulary and reference.columns is None:
        classes = [(label, columns) for label, columns in enumerate(shift.columns) if label not in shift.no_answers]
        return {column: label for label, columns in classes for column in columns}
    key = comparable(shift.classnames, reference.classnames)
    own = {key(name): label for label, name in enumerate(shift.classnames)}
    names = [key(name) for name in reference.classnames]
    if not len(own) < len(names) or not own.keys() <= set(names):
        return {}
    if len(own) < len(shift.classnames) or len(set(names)) < len(names):
        return {}
    return {label: own[name] for label, name in enumerate(names) if name in own}


def _fitting(dataset: Dataset, classnames: tuple[str, ...], reference: Dataset | None) -> tuple[str, ...]:
    if len(classnames) == len(dataset.classnames):
        return classnames
    if reference is not None and len(classnames) == len(reference.classnames):
        name_of = {label: classnames[place] for place, label in _shared_classes(reference, dataset).items()}
        if dataset.columns is None and len(name_of) == len(dataset.classnames):
            return tuple(name_of[label] for label in range(len(name_of)))
    columns = dataset.columns
    if columns is None or len(classnames) != 1000 or dataset.vocabulary != "imagenet":
        raise SuiteError(
            f"{dataset.title}: expected {len(dataset.classnames)} class names, one per class, found {len(classnames)}. "
            "--classnames replaces the names of every data set; if they have different classes, give each its own "
            "names in a TOML file."
        )
    if any(len(several) != 1 for several in columns):
        raise SuiteError(
            f"{dataset.title}: ImageNet's class names do not fit, because some of its {len(columns)} classes combine "
            "several of ImageNet's. Evaluate this data set in a run of its own, without --classnames or with "
            f"{len(columns)} names."
        )
    return tuple(classnames[column] for (column,) in columns)
