"""Results under the names that ``--label`` gives to models, data sets and suites. Knows what results files hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.errors import UsageError
from mergekit_wise.report.table import ENDPOINTS
from mergekit_wise.results import Estimation, Finding, Measurement, Reading, WrittenChoice
from mergekit_wise.wording import did_you_mean, listed

ENDS = {"zeroshot": 0.0, "finetuned": 1.0}
"""The names of the two models in ``--label``, with their alphas."""

JOINED = " + "
"""Between the names of the two models of a pair."""

Row = TypeVar("Row", Measurement, Finding, Estimation, WrittenChoice)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Results under other names, and what the two models of a sweep are called, by their alphas."""

    reading: Reading
    ends: Mapping[float, str]


def labelled(reading: Reading, labels: Mapping[str, str]) -> Labelled:
    """The results with a label in place of every name that has one.

    A record whose model has another name now keeps the file's name as its detail "checkpoints".

    Args:
        reading: what results files hold.
        labels: by ``zeroshot``, ``finetuned``, or the name of a checkpoint, a pair, a data set, a suite or a file.

    Raises UsageError if the results have no such name, or if two models or two data sets would have the same one.
    """
    rows = reading.measurements
    models = dict.fromkeys(row.model for row in rows)
    sets = {each.dataset: each.title for each in _of_sets(reading)}
    _require_known(reading, labels)
    ends = {alpha: labels.get(name, ENDPOINTS[alpha]) for name, alpha in ENDS.items()}
    of_model = _distinct(models, {model: _model(model, labels) for model in models})
    titles = {name: labels.get(name, labels.get(title, title)) for name, title in sets.items()}
    _require_distinct(titles, sets)
    suites = _distinct({row.suite: None for row in rows}, {row.suite: labels.get(row.suite, row.suite) for row in rows})
    sources = _distinct(
        {row.source: None for row in rows}, {row.source: labels.get(row.source, row.source) for row in rows}
    )

    def files(model: str) -> Mapping[str, str]:
        return {} if of_model[model] == model else {"checkpoints": model}

    # For each field that may be replaced: the field by whose value, and with what.
    by = {
        "source": ("source", sources),
        "model": ("model", of_model),
        "suite": ("suite", suites),
        "title": ("dataset", titles),
        "reference": ("reference", titles),
    }

    def renamed(row: Row, *fields: str) -> Row:
        """The row with labels in these fields, where there are any."""
        held = ((field, getattr(row, by[field][0]), by[field][1]) for field in fields)
        new: dict[str, Any] = {field: names[value] for field, value, names in held if value in names}
        return replace(row, **new)

    return Labelled(
        Reading(
            tuple(
                replace(renamed(row, "source", "model", "suite", "title"), details={**row.details, **files(row.model)})
                for row in rows
            ),
            tuple(renamed(each, "source", "model", "suite", "title") for each in reading.findings),
            reading.notes,
            tuple(renamed(each, "model", "suite", "title", "reference") for each in reading.estimations),
            tuple(renamed(each, "source", "model", "suite") for each in reading.choices),
        ),
        ends,
    )


def _of_sets(reading: Reading) -> list[Estimation | Measurement]:
    """What is about single data sets, the measurements last."""
    return [*reading.estimations, *reading.measurements]


def _model(model: str, labels: Mapping[str, str]) -> str:
    """The label of a model, or those of the two models of a pair."""
    if model in labels:
        return labels[model]
    parts = model.split(JOINED)
    ends = list(ENDS) if len(parts) == 2 else [""] * len(parts)
    return JOINED.join(labels.get(part, labels.get(end, part)) for part, end in zip(parts, ends, strict=True))


def _distinct(names: Mapping[str, object], shown: Mapping[str, str]) -> Mapping[str, str]:
    """The names that are shown, each with the original behind it where two would be the same."""
    texts = list(shown.values())
    return {name: f"{shown[name]} ({name})" if texts.count(shown[name]) > 1 else shown[name] for name in names}


def _require_distinct(titles: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Raise UsageError if a label is the title of another data set, too."""
    for name, title in titles.items():
        if title != before[name] and list(titles.values()).count(title) > 1:
            raise UsageError(f"--label {name}={title}: another data set has this name, too. Choose another one.")


def _require_known(reading: Reading, labels: Mapping[str, str]) -> None:
    """Raise UsageError for a label of something that the results do not have."""
    rows = reading.measurements
    pairs = any(row.swept == (ALPHA,) and row.alpha is not None for row in rows)
    names = {
        "models": [part for row in rows for part in (row.model, *row.model.split(JOINED))],
        "data sets": [each.dataset for each in _of_sets(reading)],
        "suites": [row.suite for row in rows],
        "results files": [row.source for row in rows],
    }
    titles = [each.title for each in _of_sets(reading)]
    every = dict.fromkeys([*(ENDS if pairs else ()), *(name for kind in names.values() for name in kind), *titles])
    for name in labels:
        if name in every:
            continue
        if name in ENDS:
            raise UsageError(f"--label {name}=...: the results hold no sweep of alpha, so there is no such model.")
        there = "; ".join(f"{kind} {listed(dict.fromkeys(found))}" for kind, found in names.items())
        raise UsageError(
            f"--label {name}={labels[name]}: the results have no such name.{did_you_mean(name, every)} "
            f"A label can be for zeroshot, finetuned, and: {there}."
        )
