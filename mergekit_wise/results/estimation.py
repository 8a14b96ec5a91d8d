"""A line of a results file with accuracies that were estimated without labels. No record: nothing was counted.

Knows no model, no file and no formula.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mergekit_wise.results.measurement import as_number, as_text

ESTIMATE = "estimate"
"""Value of ``kind`` in an estimate's line of a results file."""

Series = tuple[float, ...]
"""A number for each of the points, in their order."""


@dataclass(frozen=True, slots=True)
class Estimation:
    """What the mixtures of a sweep are estimated to achieve on one set of images.

    Attributes:
        model, suite, pair, rule: as in a record.
        dataset, title: of the images.
        role: "unlabelled", or "shift" for a back-test on a data set whose labels the estimates did not use.
        reference: the data set whose labels they used.
        images: how many could be read.
        limit, seed: how many images were drawn at most, and with which seed; None if all were used.
        points: where the mixtures lie in the sweep, as names and values.
        atc, doc, ac: estimated accuracies, as shares.
        low, high: the 95 % interval of `atc`; empty in a back-test.
        entropy: mean entropies, in nats.
        accuracy: the measured shares of right answers; empty without labels.
    """

    model: str
    suite: str
    pair: str
    rule: str
    dataset: str
    title: str
    role: str
    reference: str
    images: int
    limit: int | None
    seed: int | None
    points: tuple[tuple[tuple[str, float], ...], ...]
    atc: Series
    doc: Series
    ac: Series
    low: Series
    high: Series
    entropy: Series
    accuracy: Series = ()


_TEXTS = ("model", "suite", "pair", "rule", "dataset", "title", "role", "reference")
_SERIES = ("atc", "doc", "ac", "low", "high", "entropy", "accuracy")
_MAY_LACK = ("low", "high", "accuracy")


def estimation_entry(estimation: Estimation) -> dict[str, Any]:
    """The line as JSON; `read_estimation` reads it."""
    entry = asdict(estimation)
    points = [[[name, value] for name, value in point] for point in estimation.points]
    return {"kind": ESTIMATE, **entry, "points": points, **{name: list(entry[name]) for name in _SERIES}}


def read_estimation(entry: Mapping[str, Any]) -> Estimation:
    """The estimates that a line holds; texts are shortened. Raises ValueError, with the reason, if it holds none."""
    lacking = [field.name for field in fields(Estimation) if field.name not in entry]
    if lacking:
        raise ValueError(f"an estimate without {lacking[0]}")
    points = _points(entry["points"])
    series = {name: _series(entry[name], name) for name in _SERIES}
    for name, values in series.items():
        if len(values) != len(points) and not (name in _MAY_LACK and not values):
            raise ValueError(f"an estimate with {len(values)} values of {name} for {len(points)} points")
    if len(series["low"]) != len(series["high"]):
        raise ValueError("an estimate with half an interval")
    numbers = {name: _whole(entry[name], name) for name in ("images", "limit", "seed")}
    if numbers["images"] is None:
        raise ValueError("an estimate of no images")
    return Estimation(**{name: as_text(entry[name]) for name in _TEXTS}, **numbers, points=points, **series)  # type: ignore[arg-type]


def _points(value: object) -> tuple[tuple[tuple[str, float], ...], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("an estimate without points")
    return tuple(_point(point) for point in value)


def _point(value: object) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("an impossible point")
    found = []
    for pair in value:
        number = as_number(pair[1]) if isinstance(pair, list) and len(pair) == 2 else None
        if number is None:
            raise ValueError("an impossible point")
        found.append((as_text(pair[0]), number))
    return tuple(found)


def _series(value: object, name: str) -> Series:
    numbers = [as_number(each) for each in value] if isinstance(value, list) else [None]
    known = tuple(number for number in numbers if number is not None)
    shares = name not in ("doc", "entropy")
    if len(known) < len(numbers) or (shares and not all(0 <= number <= 1 for number in known)):
        raise ValueError(f"impossible values of {name}")
    return known


def _whole(value: object, name: str) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"an impossible {name}")
    return value
