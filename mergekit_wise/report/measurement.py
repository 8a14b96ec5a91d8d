"""One line of results, whoever wrote it, as a measurement.

Knows the few fields that a report draws, keeps all others as text, and trusts none of them. Knows nothing of files.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergekit_wise.analysis import Estimate
from mergekit_wise.report.values import FURTHEST, as_items, as_number, as_text

NOTHING: tuple[object, ...] = (None, "", [], {})
"""What fields hold that have nothing to tell."""

DRAWN = frozenset(
    """accuracy alpha correct dataset interval kind location metric model role seconds suite title top5 total
    value values versions weights""".split()  # noqa: SIM905
)
"""Fields with a place of their own, and where images lay, which is nobody's business who is handed a page.

All others are shown as they are.
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one data set.

    Attributes:
        source: name of the file that it stands in.
        model: what the record calls it.
        weights: fingerprint of the weights, shortened; "" where none is told.
        alpha: the mixing coefficient, None where it is not known.
        suite, dataset, title, role: what was evaluated, and which part it plays there.
        metric: name of what `result`, in [0, 1], is; its interval is NaN where none is known.
        correct, total: top-1 counts.
        values: other numbers by name.
        versions: of libraries. `seconds`: that it took.
        details: every other field of the record, as text.
    """

    source: str
    model: str
    weights: str
    alpha: float | None
    suite: str
    dataset: str
    title: str
    role: str
    metric: str
    result: Estimate
    correct: int
    total: int
    values: Mapping[str, float]
    versions: Mapping[str, str]
    seconds: float
    details: Mapping[str, str]


def as_measurement(source: str, entry: Mapping[str, Any]) -> Measurement:
    """Raises ValueError that says why the entry is no record."""
    if entry.get("kind") not in (None, "record", "measurement"):
        raise ValueError("of a kind that this version does not know")
    if not isinstance(entry.get("dataset"), str):
        raise ValueError("no record of this tool (it names no data set)")
    correct, total = _counts(entry)
    alpha = as_number(entry.get("alpha"))
    if alpha is not None and abs(alpha) > FURTHEST:
        raise ValueError("an impossible alpha")
    return Measurement(
        source=source,
        model=as_text(entry.get("model") or "unnamed model"),
        weights=as_text(entry.get("weights") or ""),
        # Alphas are names of columns here: 0.1 + 0.2 is 0.3.
        alpha=None if alpha is None else round(alpha, 9),
        suite=as_text(entry.get("suite") or "unnamed suite"),
        dataset=as_text(entry["dataset"]),
        title=as_text(entry.get("title") or entry["dataset"]),
        role=as_text(entry.get("role") or "shift"),
        metric=as_text(entry.get("metric") or "top-1"),
        result=_result(entry, Estimate.of_counts((correct, total))),
        correct=correct,
        total=total,
        values=_values(entry, total),
        versions={key: as_text(version) for key, version in as_items(entry.get("versions"))},
        seconds=as_number(entry.get("seconds")) or 0.0,
        details=_details(entry),
    )


def _counts(entry: Mapping[str, Any]) -> tuple[int, int]:
    correct, total = entry.get("correct"), entry.get("total")
    if type(correct) is not int or type(total) is not int:
        raise ValueError("no record of this tool (it holds no counts)")
    if not 0 <= correct <= total or not 0 < total < 10**12:
        raise ValueError("an impossible count")
    return correct, total


def _result(entry: Mapping[str, Any], counted: Estimate) -> Estimate:
    """What is reported: the counts' share where nothing else is told. The interval is the record's if it fits."""
    value = as_number(entry.get("value"))
    value = counted.value if value is None else value
    if not 0 <= value <= 1:
        raise ValueError("an impossible value")
    told = entry.get("interval")
    ends = [as_number(end) for end in told] if isinstance(told, list) else []
    match ends:
        case [float(low), float(high)] if 0 <= low <= value <= high <= 1:
            return Estimate(value, low, high)
    return counted if math.isclose(value, counted.value, abs_tol=1e-9) else Estimate(value, math.nan, math.nan)


def _values(entry: Mapping[str, Any], total: int) -> dict[str, float]:
    """Further numbers of a record, top-5 among them."""
    pairs = [(key, as_number(value)) for key, value in as_items(entry.get("values"))]
    top5 = as_number(entry.get("top5"))
    if top5 is not None:
        pairs.append(("top-5", top5 / total))
    return {key: number for key, number in pairs if number is not None}


def _details(entry: Mapping[str, Any]) -> dict[str, str]:
    told = {key: value for key, value in entry.items() if key not in DRAWN and value not in NOTHING}
    for count in ("bad", "unsound"):  # images; none is the rule
        if told.get(count) == 0:
            del told[count]
    return {as_text(key): as_text(value) for key, value in told.items()}
