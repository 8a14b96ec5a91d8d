"""What records and comparisons hold as rows of plain numbers, for data frames. Knows no library of data frames."""

from collections.abc import Iterable, Iterator
from typing import Any

from mergekit_wise.analysis import Estimate
from mergekit_wise.analysis.contrast import Contrast
from mergekit_wise.results import Record
from mergekit_wise.results.predictions import Prediction


def record_rows(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """A row for each record: what was measured on what, the reported number with its interval, counts, calibration.

    Parameters that a sweep varies in place of alpha, further metrics (``values.NAME``) and numbers of calibration have
    a column each.
    """
    for record in records:
        point = dict(record.point)
        yield {
            "model": record.model,
            "alpha": record.alpha,
            **{name: value for name, value in point.items() if name != "alpha"},
            "suite": record.suite,
            "dataset": record.dataset,
            "title": record.title,
            "role": record.role,
            "metric": record.metric,
            **estimate_columns(record.result),
            "correct": record.correct,
            "total": record.total,
            "top5": record.top5,
            **{f"values.{name}": value for name, value in record.values.items()},
            **record.calibration,
            "seconds": record.seconds,
            "weights": record.weights,
        }


def estimate_columns(found: Estimate, prefix: str = "") -> dict[str, float]:
    """A number with the bounds of its 95 % interval: ``value``, ``low``, ``high``, or those after a prefix."""
    return {f"{prefix}value": found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}


def contrast_rows(found: Iterable[Contrast]) -> Iterator[dict[str, Any]]:
    """A row for each data set and average in which two models were compared."""
    for each in found:
        yield {
            "column": each.column,
            "is_average": each.is_average,
            "first_value": each.first,
            "second_value": each.second,
            **estimate_columns(each.difference, "difference_"),
            "p": each.p,
            "paired": each.paired,
            "significant": each.significant,
            "better": each.better or None,
        }


def prediction_rows(found: Iterable[Prediction]) -> Iterator[dict[str, Any]]:
    """A row for each image, with the columns of the CSV file; no class where there is no prediction."""
    for each in found:
        row: dict[str, Any] = {"file": each.file, "class": None, "name": None, "probability": None}
        row |= {"alpha": each.alpha, "error": each.error or None}
        for rank, (number, name, share) in enumerate(each.ranking, 1):
            after = f"_{rank}" if rank > 1 else ""
            row |= {f"class{after}": number, f"name{after}": name, f"probability{after}": share}
        yield row
