"""Keeps what models answered for each image in a folder beside a results file: a file for each record.

Comparing two mixtures image by image says far more than comparing their counts, and a later run, or another command,
can do it without evaluating again. Knows no model and no image.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import NUMBERS, Answers, stacked
from mergekit_wise.checkpoint import write_atomically
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import OutputError, ResultsError
from mergekit_wise.results.identity import Key
from mergekit_wise.results.record import Record

ENDING = ".answers"
"""Ending of the folder's name, which replaces that of the results file."""

_UNLABELLED = "unlabelled"
"""Begins the keys of answers for images without labels, so that they are never taken for those behind a record."""

_UNREADABLE = (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is missing or damaged."""


@dataclass(frozen=True, slots=True)
class AnswerStore:
    """The folder with the answers behind the records of a results file."""

    folder: Path

    @classmethod
    def beside(cls, results: Path) -> "AnswerStore":
        """The folder of a results file: ``results.answers`` of ``results.jsonl``."""
        return cls(results.with_suffix(ENDING))

    def save(self, record: Record, answers: Answers) -> None:
        """Write the answers of one model, which `record` counts. Raises ResultsError."""
        self._write(record.key, answers)

    def save_unlabelled(self, key: Key, answers: Answers) -> None:
        """Write the answers of one model for images without labels, which no record counts. Raises ResultsError."""
        self._write((_UNLABELLED, *key), answers)

    def load_unlabelled(self, key: Key, example: Answers) -> Answers | None:
        """What one model answered for images without labels; None if that is not known.

        `example` names the data set and says what its answers look like; its numbers are not used.
        """
        try:
            return _answers(example, self._read((_UNLABELLED, *key)))
        except _UNREADABLE:
            return None

    def _write(self, key: Key | None, answers: Answers) -> None:
        metric = answers.metric
        accepted = [sorted(one) for one in metric.accepted or ()]
        buffer = BytesIO()
        np.savez(  # compressed, it would be a third smaller, and writing it would take thirty times as long
            buffer,
            key=np.array(_digest(key)),
            labels=answers.labels.astype(np.int32),
            images=answers.images.astype(np.int32),
            classes=answers.classes[0],
            numbers=answers.numbers[0],
            outputs=np.array(answers.outputs),
            group_names=np.array(list(metric.groups), np.str_),
            group_sizes=np.array([len(rows) for rows in metric.groups.values()], np.int64),
            groups=np.array(list(chain.from_iterable(metric.groups.values())), np.int64),
            accepted_sizes=np.array([len(one) for one in accepted], np.int64),
            accepted=np.array(list(chain.from_iterable(accepted)), np.int64),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file(key), buffer.getvalue())
        except (OSError, OutputError) as error:
            raise ResultsError(
                f"{self.folder}: the answers for each image cannot be written there ({error}). Leave them out with "
                "--no-answers."
            ) from error

    def load(self, records: Sequence[Record]) -> Answers | None:
        """What the models of these records, all of one data set, answered; None unless that is known of each.

        A file that is damaged, that was written for another record, or whose answers are not those that the record
        counts, is taken to be missing.
        """
        found = []
        for record in records:
            try:
                found.append(_answers(record, self._read(record.key)))
            except _UNREADABLE:
                return None
            if not _agree(found[-1], record):
                return None
        return stacked(found) if found else None

    def _read(self, key: Key | None) -> dict[str, Any]:
        """The arrays of a file. Raises one of `_UNREADABLE`, also if the file was written for something else."""
        with np.load(self._file(key), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        # The name alone does not say it: files are copied, and programs that restore them may mix them up.
        if str(found["key"]) != _digest(key):
            raise ValueError("answers of something else")
        return found

    def _file(self, key: Key | None) -> Path:
        return self.folder / f"{_digest(key)[:24]}.npz"


def _agree(answers: Answers, record: Record) -> bool:
    """Whether the answers are those that the record counts, or whose mean it reports."""
    if len(answers.images) != record.total:
        return False
    if record.correct is None:
        return answers.metric.kind == "mean" and isclose(answers.numbers[0, 0].mean(), record.value, abs_tol=1e-5)
    return int(answers.right.sum()) == record.correct


def _digest(key: Key | None) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _answers(of: Record | Answers, found: dict[str, Any]) -> Answers:
    """Raises ValueError or LookupError if the arrays are not what `AnswerStore` writes for this data set."""
    images, labels = found["images"].astype(np.int64), found["labels"].astype(np.int64)
    kind = _kind(of)
    rows = 1 if kind == "mean" else len(NUMBERS)
    shapes = [(len(images),), (len(images),), (len(images),), (rows, len(images))]
    if [found[name].shape for name in ("images", "labels", "classes", "numbers")] != shapes:
        raise ValueError("arrays of unequal length")
    members = _parts(found["groups"], found["group_sizes"])
    groups = dict(zip(map(str, found["group_names"]), members, strict=True))
    accepted = tuple(frozenset(part.tolist()) for part in _parts(found["accepted"], found["accepted_sizes"])) or None
    return Answers(
        dataset=of.dataset,
        title=of.title,
        role=of.role,
        metric=Metric(kind, groups, accepted),  # type: ignore[arg-type]
        outputs=int(found["outputs"]),
        labels=labels,
        images=images,
        same_images=of.same_images,
        classes=found["classes"].astype(np.int32)[None],
        numbers=found["numbers"].astype(np.float32)[None],
    )


def _kind(of: Record | Answers) -> str:
    """How the answers make the number: that of an evaluator of one's own has any name."""
    if not isinstance(of, Record):
        return of.metric.kind
    if of.evaluator:
        return "mean" if of.correct is None else "top-1"
    return of.metric


def _parts(values: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Consecutive parts of these sizes."""
    return np.split(values, np.cumsum(sizes)[:-1]) if len(sizes) else []
