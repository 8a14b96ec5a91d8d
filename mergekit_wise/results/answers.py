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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import NUMBERS, Answers, stacked
from mergekit_wise.checkpoint import write_atomically
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.errors import OutputError, ResultsError
from mergekit_wise.results.record import Record

ENDING = ".answers"
"""Ending of the folder's name, which replaces that of the results file."""


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
        metric = answers.metric
        accepted = [sorted(one) for one in metric.accepted or ()]
        buffer = BytesIO()
        np.savez(  # compressed, it would be a third smaller, and writing it would take thirty times as long
            buffer,
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
            write_atomically(self._file(record), buffer.getvalue())
        except (OSError, OutputError) as error:
            raise ResultsError(
                f"{self.folder}: the answers for each image cannot be written there ({error}). Leave them out with "
                "--no-answers."
            ) from error

    def load(self, records: Sequence[Record]) -> Answers | None:
        """What the models of these records, all of one data set, answered; None unless that is known of each.

        A file that is damaged counts as missing.
        """
        found = []
        for record in records:
            try:
                with np.load(self._file(record), allow_pickle=False) as file:
                    found.append(_answers(record, {name: file[name] for name in file.files}))
            except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error):
                return None
        return stacked(found) if found else None

    def _file(self, record: Record) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(record.key).encode()).hexdigest()[:24]}.npz"


def _answers(record: Record, found: dict[str, Any]) -> Answers:
    """Raises ValueError or LookupError if the arrays are not what `AnswerStore.save` writes for this record."""
    images, labels = found["images"].astype(np.int64), found["labels"].astype(np.int64)
    shapes = [(len(images),), (len(images),), (len(images),), (len(NUMBERS), len(images))]
    if [found[name].shape for name in ("images", "labels", "classes", "numbers")] != shapes:
        raise ValueError("arrays of unequal length")
    if len(images) != record.total:
        raise ValueError("another number of images than the record counts")
    members = _parts(found["groups"], found["group_sizes"])
    groups = dict(zip(map(str, found["group_names"]), members, strict=True))
    accepted = tuple(frozenset(part.tolist()) for part in _parts(found["accepted"], found["accepted_sizes"])) or None
    return Answers(
        dataset=record.dataset,
        title=record.title,
        role=record.role,
        metric=Metric(record.metric, groups, accepted),  # type: ignore[arg-type]
        outputs=int(found["outputs"]),
        labels=labels,
        images=images,
        same_images=record.same_images,
        classes=found["classes"].astype(np.int32)[None],
        numbers=found["numbers"].astype(np.float32)[None],
    )


def _parts(values: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Consecutive parts of these sizes."""
    return np.split(values, np.cumsum(sizes)[:-1]) if len(sizes) else []
