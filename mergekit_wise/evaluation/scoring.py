"""Predictions become records, and records remarks. Knows no model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation import Predictions
from mergekit_wise.evaluation.answers import TOP
from mergekit_wise.results import Detail, Record


def as_details(
    dataset: Dataset, found: Predictions, drafts: Sequence[Mapping[str, Any]], seconds: float
) -> list[Detail]:
    """What each variant achieved on the images that can be read; `drafts` are the other attributes of its record."""
    readable = np.array([index for index in range(len(dataset)) if index not in found.bad], np.int64)
    metric = _of_part(dataset.metric, readable, len(dataset)) if found.bad else dataset.metric
    labels, classes = dataset.labels[readable], len(dataset.classnames)
    details = []
    for number, draft in enumerate(drafts):
        predicted = found.classes[number].astype(np.int64)
        try:
            scored = score(metric, predicted[readable], labels, classes)
        except ValueError as error:
            raise SuiteError(f"{dataset.title}: cannot be scored: {error}.") from error
        record = Record(
            **{
                **draft,
                "metric": scored.name,
                "value": scored.value,
                "values": dict(scored.values),
                "worst": scored.worst,
                "interval": scored.interval,
                "correct": scored.correct,
                "total": scored.total,
                "top5": int(found.top5[number].sum()) if classes > TOP else None,
                "bad": len(found.bad),
                "unsound": found.unsound[number],
                "seconds": seconds,
            }
        )
        details.append(Detail(record, dataset, predicted, found.top5[number], found.bad))
    return details


def remarks(records: Sequence[Record]) -> Iterator[str]:
    """What a reader of the numbers should know of them, each once."""
    for record in records:
        if record.limit is None and record.expected not in (None, record.total + record.bad):
            yield f"{record.title}: found {record.total + record.bad:,} of {record.expected:,} images."
        if record.unsound:
            model = "" if record.alpha is None else f" at alpha {record.alpha:g}"
            yield (
                f"{record.title}: the logits of {record.unsound:,} images{model} are infinite or no numbers; they "
                "count as wrong. Try --precision fp32, or look at the weights with 'wise inspect'."
            )


def _of_part(metric: Metric, rows: NDArray[np.int64], images: int) -> Metric:
    """The metric of those images alone that `rows` lists. Frames are judged by their anchor: they go if it goes."""
    place = np.full(images, -1)
    place[rows] = np.arange(len(rows))
    groups = {name: place[members] for name, members in metric.groups.items()}
    if metric.kind == "all-in-group":
        groups = {name: members for name, members in groups.items() if members[0] >= 0}
    accepted = None if metric.accepted is None else tuple(metric.accepted[row] for row in rows)
    return Metric(metric.kind, {name: members[members >= 0] for name, members in groups.items()}, accepted)
