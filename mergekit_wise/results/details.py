"""Details of a record: accuracy per class as CSV, and every prediction as JSON Lines.

Knows no model and no image.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import Point, clopper_pearson
from mergekit_wise.analysis.metrics import is_right
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ResultsError
from mergekit_wise.results.record import Record
from mergekit_wise.wording import visible

COLUMNS = (
    *("dataset", "model", "alpha", "class", "name", "images", "correct", "accuracy", "low", "high", "predicted"),
    *("point", "rule"),
)

_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, in wide letters too; source: OWASP, CSV Injection."""


@dataclass(frozen=True, slots=True)
class Detail:
    """The predictions of one model on one data set.

    Attributes:
        record: the record that counts them.
        dataset: the images and labels.
        classes: predicted classes, int64 [N]; -1 for no prediction.
        top5: whether the label is among the five best, bool [N].
        bad: what is wrong with each image that could not be read, by index.
    """

    record: Record
    dataset: Dataset
    classes: NDArray[np.int64]
    top5: NDArray[np.bool_]
    bad: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class DetailFiles:
    """The files that details are written to; None for those that were not requested."""

    per_class: TextIO | None
    per_sample: TextIO | None

    def write(self, detail: Detail) -> None:
        """Write a row per class and a line per image. Raises ResultsError if a file cannot be written."""
        right = is_right(detail.dataset.metric, detail.classes, detail.dataset.labels)
        if self.per_class is not None:
            with _reporting(self.per_class):
                csv.writer(self.per_class, lineterminator="\n").writerows(_class_rows(detail, right))
        if self.per_sample is not None:
            with _reporting(self.per_sample):
                self.per_sample.writelines(json.dumps(line) + "\n" for line in _sample_lines(detail, right))


@contextmanager
def writing_details(per_class: Path | None, per_sample: Path | None) -> Iterator[DetailFiles]:
    """Open both files, replacing earlier ones. Raises ResultsError if one cannot be written."""
    with ExitStack() as stack:
        files = DetailFiles(*(_open(path, stack) if path else None for path in (per_class, per_sample)))
        if files.per_class is not None:
            with _reporting(files.per_class):
                csv.writer(files.per_class, lineterminator="\n").writerow(COLUMNS)
        yield files


def no_formula(text: str) -> str:
    """A text for a cell of a CSV file, after an apostrophe if a spreadsheet would take it for a formula.

    Control characters become escapes: a carriage return would end the row.
    """
    text = visible(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _open(path: Path, stack: ExitStack) -> TextIO:
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror}. Choose another file.") from error
    stack.callback(_close, file)
    return file


def _close(file: TextIO) -> None:
    """Close a file whose writes have all been flushed, so that an error here is one that was reported before."""
    with suppress(OSError):
        file.close()


@contextmanager
def _reporting(file: TextIO) -> Iterator[None]:
    """Flush what is written in the block, and raise ResultsError if that fails."""
    try:
        yield
        file.flush()
    except OSError as error:
        raise ResultsError(f"{file.name}: cannot be written: {error.strerror}. Choose another file.") from error


def _class_rows(detail: Detail, right: NDArray[np.bool_]) -> Iterator[tuple[Any, ...]]:
    record, names = detail.record, detail.dataset.classnames
    readable = ~np.isin(np.arange(len(detail.dataset)), list(detail.bad))
    labels = detail.dataset.labels
    images = np.bincount(labels[readable], minlength=len(names)).tolist()
    correct = np.bincount(labels[readable & right], minlength=len(names)).tolist()
    predicted = np.bincount(detail.classes[detail.classes >= 0], minlength=len(names)).tolist()
    end = (no_formula(str(Point(record.point))), no_formula(record.rule))
    start = (no_formula(record.dataset), no_formula(record.model), "" if record.alpha is None else record.alpha)
    for index, name in enumerate(names):
        count, hits = images[index], correct[index]
        shares = (hits / count, *clopper_pearson(hits, count)) if count else ("", "", "")
        yield (*start, index, no_formula(name), count, hits, *shares, predicted[index], *end)


def _sample_lines(detail: Detail, right: NDArray[np.bool_]) -> Iterator[dict[str, object]]:
    record, dataset = detail.record, detail.dataset
    for index, (label, predicted) in enumerate(zip(dataset.labels.tolist(), detail.classes.tolist(), strict=True)):
        line: dict[str, object] = {"dataset": record.dataset, "model": record.model, "alpha": record.alpha}
        line |= {"point": list(map(list, record.point)), "rule": record.rule}
        line |= {"index": index, "sample": dataset.sample(index), "label": label}
        if index in detail.bad:
            yield line | {"error": detail.bad[index]}
        else:
            found = {"correct": bool(right[index]), "top5": bool(detail.top5[index])}
            yield line | {"predicted": None if predicted < 0 else predicted, **found}
