"""One line of an analysis, whoever wrote it. Knows nothing of files, and trusts nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergekit_wise.report.sweep_tables import ENSEMBLE
from mergekit_wise.report.values import FURTHEST, as_items, as_number, as_text


@dataclass(frozen=True, slots=True)
class Finding:
    """What an analysis of the two ends found on one data set.

    Attributes:
        source, model, suite, dataset, title: as of a measurement.
        values: numbers, or short texts, by name.
        ensembles: by alpha, what mixing the outputs of the two ends achieves, in [0, 1].
    """

    source: str
    model: str
    suite: str
    dataset: str
    title: str
    values: Mapping[str, float | str]
    ensembles: Mapping[float, float]


def as_finding(source: str, entry: Mapping[str, Any]) -> Finding:
    """Raises ValueError if the entry holds nothing to show."""
    values: dict[str, float | str] = {}
    ensembles: dict[float, float] = {}
    for key, value in as_items(entry.get("values")):
        number, alpha = as_number(value), _alpha_of(key)
        if alpha is not None and number is not None and 0 <= number <= 1:
            ensembles[alpha] = number
        else:
            values[key] = as_text(value) if number is None else number
    if not values and not ensembles:
        raise ValueError("an analysis without values")
    dataset = as_text(entry.get("dataset") or "all data sets")
    return Finding(
        source=source,
        model=as_text(entry.get("model") or ""),
        suite=as_text(entry.get("suite") or "unnamed suite"),
        dataset=dataset,
        title=as_text(entry.get("title") or dataset),
        values=values,
        ensembles=ensembles,
    )


def _alpha_of(name: str) -> float | None:
    """The alpha of an output-space ensemble, None for a number that is something else."""
    try:
        alpha = float(name.removeprefix(ENSEMBLE)) if name.startswith(ENSEMBLE) else math.nan
    except ValueError:
        return None
    return round(alpha, 9) if abs(alpha) <= FURTHEST else None
