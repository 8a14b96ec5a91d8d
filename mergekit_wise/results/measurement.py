"""A line of a results file as the report shows it, whichever version or tool wrote it.

Knows the few fields that a report draws, keeps all others as short texts, and trusts none of them. Knows no file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mergekit_wise.analysis import CALIBRATION, Bins, Estimate
from mergekit_wise.analysis.calibration import BINS
from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.results.identity import IDENTITY, setting_of
from mergekit_wise.results.record import ENSEMBLE, Record

MAX_TEXT = 400
"""Characters of a text that are kept, unless it may be longer."""

MAX_ALPHA = 1000.0
"""Largest absolute alpha that is accepted: an axis of alpha has to end somewhere."""

DRAWN = frozenset(
    """accuracy alpha calibration correct dataset interval kind location metric model pair point reliability role rule
    reported same_images seconds suite title top5 total value values versions weights""".split()  # noqa: SIM905
)
"""Fields with a place of their own in a report, and the images' folder, which is private. All others are details."""


At = float | tuple[float, ...] | None
"""The value of the swept parameter, the values of several, or None for a model of unknown alpha."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one data set, as a report shows it.

    Attributes:
        source: name of the results file.
        model: the model's name in the record.
        weights: fingerprint of the weights, shortened; "" if it is not recorded.
        alpha: the mixing coefficient; None if it is not known, or if another parameter was swept.
        swept: what was swept: alpha alone, unless the record names other parameters.
        at: where the model lies in that sweep.
        rule: the other merging rules, as in a `Record`.
        pair: fingerprints of the models that were mixed in a sweep; "" otherwise.
        setting: `setting_of` the record.
        suite, dataset, title, role: as in a `Record`.
        metric: name of the reported number.
        result: the reported number, in [0, 1]; its bounds are NaN if no interval is known.
        correct, total: top-1 counts; None and the number of items where items have scores.
        values: other numbers by name.
        versions: of libraries.
        seconds: time that the measurement took.
        same_images: as in a `Record`.
        calibration, reliability: as in a `Record`; empty if they are not recorded.
        details: every other field of the record, as text.
    """

    source: str
    model: str
    weights: str
    alpha: float | None
    pair: str
    setting: str
    suite: str
    dataset: str
    title: str
    role: str
    metric: str
    result: Estimate
    correct: int | None
    total: int
    values: Mapping[str, float]
    versions: Mapping[str, str]
    seconds: float
    same_images: str
    calibration: Mapping[str, float]
    reliability: Bins
    details: Mapping[str, str]
    swept: tuple[str, ...] = (ALPHA,)
    at: At = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The analysis of two models on one data set, as a report shows it.

    Attributes:
        source, model, suite, dataset, title: as in a `Measurement`.
        zeroshot, finetuned: fingerprints of the weights of both models.
        data: a digest of the images.
        measurement: `setting` of the measurements that it belongs to; "" if it is not recorded.
        values: numbers, or short texts, by name.
        ensembles: accuracies of the output-space ensemble, in [0, 1], by alpha.
        per_image: what an alpha for each image achieves, in [0, 1], by how many mixtures the images share; by None if
            each has its own.
    """

    source: str
    model: str
    suite: str
    dataset: str
    title: str
    zeroshot: str
    finetuned: str
    data: str
    measurement: str
    values: Mapping[str, float | str]
    ensembles: Mapping[float, float]
    per_image: Mapping[int | None, float] = field(default_factory=dict)


def as_measurement(source: str, entry: Mapping[str, Any]) -> Measurement:
    """The measurement that a line holds. Raises ValueError with the reason if it holds none."""
    if entry.get("kind") not in (None, "record", "measurement"):
        raise ValueError("its kind is unknown to this version")
    if not isinstance(entry.get("dataset"), str):
        raise ValueError("not a record of this tool (it names no data set)")
    correct, total = _counts(entry)
    alpha = as_number(entry.get("alpha"))
    if alpha is None and entry.get("alpha") is not None:
        raise ValueError("an impossible alpha")
    if alpha is not None and abs(alpha) > MAX_ALPHA:
        raise ValueError("an impossible alpha")
    alpha = None if alpha is None else round(alpha, 9)  # alphas are keys of rows here: 0.1 + 0.2 is 0.3
    swept, at = _place(entry.get("point")) or ((ALPHA,), alpha)
    return Measurement(
        source=source,
        model=as_text(entry.get("model") or "unnamed model"),
        weights=as_text(entry.get("weights") or ""),
        alpha=at if swept == (ALPHA,) and not isinstance(at, tuple) else None,
        swept=swept,
        at=at,
        rule=as_text(entry.get("rule") or ""),
        pair=as_text(entry.get("pair") or ""),
        setting=setting_of(_with_defaults(entry)),
        suite=as_text(entry.get("suite") or "unnamed suite"),
        dataset=as_text(entry["dataset"]),
        title=as_text(entry.get("title") or entry["dataset"]),
        role=as_text(entry.get("role") or "shift"),
        metric=as_text(entry.get("metric") or "top-1"),
        result=_result(entry, None if correct is None else Estimate.of_counts((correct, total))),
        correct=correct,
        total=total,
        values=_values(entry, total),
        versions={key: as_text(version) for key, version in _items(entry.get("versions"))},
        seconds=as_number(entry.get("seconds")) or 0.0,
        same_images=as_text(entry.get("same_images") or ""),
        calibration=_calibration(entry.get("calibration")),
        reliability=_bins(entry.get("reliability"), total),
        details=_details(entry),
    )


def as_finding(source: str, entry: Mapping[str, Any]) -> Finding:
    """The analysis that a line holds. Raises ValueError with the reason if it holds no values."""
    values: dict[str, float | str] = {}
    ensembles: dict[float, float] = {}
    for key, value in _items(entry.get("values")):
        number, alpha = as_number(value), _alpha_of_ensemble(key)
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
        zeroshot=as_text(entry.get("zeroshot") or ""),
        finetuned=as_text(entry.get("finetuned") or ""),
        data=as_text(entry.get("data") or ""),
        measurement=as_text(entry.get("measurement") or ""),
        values=values,
        ensembles=ensembles,
    )


def as_number(value: object) -> float | None:
    """A finite number; None for everything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def as_text(value: object, most: int = MAX_TEXT) -> str:
    """A value of a record as one short line that every file can hold: no control characters, no lone surrogates."""
    match value:
        case str():
            line = value
        case bool():
            line = "yes" if value else "no"
        case float():
            line = f"{value:g}"
        case Mapping():
            line = ", ".join(f"{key} {entry}" for key, entry in value.items())
        case list() | tuple():
            line = ", ".join(map(str, value))
        case _:
            line = str(value)
    line = line.encode("utf-8", "replace").decode("utf-8")
    line = "".join(character if character.isprintable() else " " for character in line).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def _with_defaults(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record, with the values that those have which an earlier version did not write."""
    bare = Record("", "", None, "", "", "", "shift", 0, 1, value=0.0, interval=(0.0, 1.0), limit=entry.get("limit"))
    return {**{name: getattr(bare, name) for name in IDENTITY}, **entry, "draw": entry.get("draw") or bare.draw}


def _place(point: object) -> tuple[tuple[str, ...], At] | None:
    """The parameters that a record says were swept, with their values; None if it names none. Raises ValueError."""
    if not point:
        return None
    pairs = point if isinstance(point, list) else [point]
    names, numbers = [], []
    for pair in pairs:
        name, number = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        value = as_number(number)
        if not isinstance(name, str) or value is None or abs(value) > MAX_ALPHA:
            raise ValueError("an impossible point of a sweep")
        names.append(as_text(name))
        numbers.append(round(value, 12))
    return tuple(names), numbers[0] if len(numbers) == 1 else tuple(numbers)


def _items(value: object) -> list[tuple[str, Any]]:
    """Names and values of an object; nothing for any other value."""
    return [(as_text(key), entry) for key, entry in value.items()] if isinstance(value, Mapping) else []


def _counts(entry: Mapping[str, Any]) -> tuple[int | None, int]:
    correct, total = entry.get("correct"), entry.get("total")
    if correct is None and entry.get("evaluator") and type(total) is int and 0 < total < 10**12:
        return None, total
    if type(correct) is not int or type(total) is not int:
        raise ValueError("not a record of this tool (it holds no counts)")
    if not 0 <= correct <= total or not 0 < total < 10**12:
        raise ValueError("an impossible count")
    return correct, total


def _result(entry: Mapping[str, Any], counted: Estimate | None) -> Estimate:
    """The reported number, by default for top-1 the counts' share. The record's interval is used if it is valid."""
    value = as_number(entry.get("value"))
    if value is None and (entry.get("value") is not None or as_text(entry.get("metric") or "top-1") != "top-1"):
        raise ValueError("an impossible value")
    value = counted.value if value is None and counted is not None else value
    if value is None or not 0 <= value <= 1:
        raise ValueError("an impossible value")
    given = entry.get("interval")
    bounds = [as_number(bound) for bound in given] if isinstance(given, list) else []
    match bounds:
        case [float(low), float(high)] if 0 <= low <= value <= high <= 1:
            return Estimate(value, low, high)
    if counted is not None and math.isclose(value, counted.value, abs_tol=1e-9):
        return counted
    return Estimate(value, math.nan, math.nan)


def _values(entry: Mapping[str, Any], total: int) -> dict[str, float]:
    """Further numbers of a record, top-5 accuracy among them."""
    pairs = [(key, as_number(value)) for key, value in _items(entry.get("values"))]
    top5 = as_number(entry.get("top5"))
    if top5 is not None:
        pairs.append(("top-5", top5 / total))
    return {key: number for key, number in pairs if number is not None}


def _calibration(given: object) -> dict[str, float]:
    """The numbers of `CALIBRATION` that are possible."""
    pairs = [(key, as_number(value)) for key, value in _items(given) if key in CALIBRATION]
    return {
        key: value
        for key, value in pairs
        if value is not None and value >= 0 and (key == "nll" or value <= (2 if key == "brier" else 1) + 1e-6)
    }


def _bins(given: object, total: int) -> Bins:
    """The bins of a reliability diagram; none if they cannot be those of `total` images."""
    if not isinstance(given, list) or len(given) != BINS:
        return ()
    found = []
    for row in given:
        match row:
            case [int(images), int(right), int() | float() as confidences] if (
                0 <= right <= images and math.isfinite(confidences) and 0 <= confidences <= images + 1e-6
            ):
                found.append((images, right, float(confidences)))
            case _:
                return ()
    return tuple(found) if sum(images for images, _, _ in found) == total else ()


def _details(entry: Mapping[str, Any]) -> dict[str, str]:
    """All other fields that are not empty; images that are bad or unsound only if there are any."""
    empty: tuple[object, ...] = (None, "", [], {})
    if entry.get("limit") is not None:
        entry = {"draw": "balanced", **entry}  # as earlier versions drew
    kept = {key: value for key, value in entry.items() if key not in DRAWN and value not in empty}
    return {
        as_text(key): as_text(value) for key, value in kept.items() if not (key in ("bad", "unsound") and value == 0)
    }


def _alpha_of_ensemble(name: str) -> float | None:
    """The alpha of an output-space ensemble; None for any other number's name."""
    try:
        alpha = float(name.removeprefix(ENSEMBLE)) if name.startswith(ENSEMBLE) else math.nan
    except ValueError:
        return None
    return round(alpha, 9) if abs(alpha) <= MAX_ALPHA else None
