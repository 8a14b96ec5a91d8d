"""Measurements of one suite side by side: a curve along alpha for each model, over the same columns.

Knows measurements; knows nothing of files and nothing of how they are drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mergekit_wise.analysis import Baseline, Estimate
from mergekit_wise.analysis.estimate import combined
from mergekit_wise.results import Finding, Measurement, Reading

Key = tuple[str, str]
"""A curve's file and model."""

SHIFTS, BOTH = "average-shifts", "average-both"
"""Names of the columns that are averages."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A data set or an average. `parts` has the weight of each data set in it; the weights add up to 1."""

    name: str
    title: str
    role: str
    metric: str
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One model along alpha.

    Attributes:
        name: its name in legends: the model, or the file if that identifies it.
        source, model: as in its measurements.
        alphas: ascending; None, which comes first, is a model of unknown alpha.
        rows: the measurements that are shown, by alpha and data set.
        findings: the analyses of its two models, by data set.
    """

    name: str
    source: str
    model: str
    alphas: tuple[float | None, ...]
    rows: Mapping[tuple[float | None, str], Measurement]
    findings: Mapping[str, Finding]

    @property
    def mixtures(self) -> tuple[float, ...]:
        """The alphas that are known."""
        return tuple(alpha for alpha in self.alphas if alpha is not None)

    def result(self, alpha: float | None, column: Column) -> Estimate | None:
        """The number in a column; None if a part of it was not measured."""
        found = [(self.rows.get((alpha, name)), weight) for name, weight in column.parts.items()]
        parts = [(weight, row.result) for row, weight in found if row is not None]
        same_images = [row.same_images for row, _ in found if row is not None]
        return None if len(parts) < len(found) else combined(parts, same_images)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All curves of a suite.

    Attributes:
        columns: the reference, the shifts, other data sets, then averages.
        averaged: the names of the shifts that averages are over: those on which every model with any shift was
            measured.
        baselines: the user's own baselines of effective robustness, by shift.
    """

    suite: str
    columns: tuple[Column, ...]
    averaged: tuple[str, ...]
    curves: tuple[Curve, ...]
    baselines: Mapping[str, Baseline]

    @property
    def reference(self) -> Column | None:
        """The data set that shifts are shifts from."""
        return next((column for column in self.columns if column.role == "reference"), None)

    @property
    def headline(self) -> tuple[Column, ...]:
        """The columns to show first: the reference and the averages, or else the first data sets."""
        columns = tuple(c for c in self.columns if c.role in ("reference", "average"))
        return columns or self.columns[:3]


def compare(reading: Reading, baselines: Mapping[str, Baseline] | None = None) -> tuple[Comparison, ...]:
    """One comparison per suite, in the order in which suites appear; of repeated measurements the latest is used."""
    suites: dict[str, list[Measurement]] = {}
    for row in reading.measurements:
        suites.setdefault(row.suite, []).append(row)
    return tuple(_comparison(suite, rows, reading.findings, baselines or {}) for suite, rows in suites.items())


def _comparison(
    suite: str, rows: Sequence[Measurement], findings: Sequence[Finding], baselines: Mapping[str, Baseline]
) -> Comparison:
    averaged = _shared_shifts(rows)
    curves = _curves(rows, [finding for finding in findings if finding.suite == suite])
    return Comparison(suite, _columns(rows, averaged), averaged, curves, baselines)


def _curves(rows: Sequence[Measurement], findings: Sequence[Finding]) -> tuple[Curve, ...]:
    groups: dict[Key, dict[tuple[float | None, str], Measurement]] = {}
    for row in rows:
        groups.setdefault((row.source, row.model), {})[row.alpha, row.dataset] = row
    return tuple(
        Curve(
            _name(key, list(groups)),
            *key,
            tuple(sorted({alpha for alpha, _ in group}, key=lambda a: -math.inf if a is None else a)),
            group,
            _merged(finding for finding in findings if finding.source == key[0] and finding.model in (key[1], "")),
        )
        for key, group in groups.items()
    )


def _merged(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One finding per data set; of numbers that were found more than once, the latest."""
    found: dict[str, Finding] = {}
    for new in findings:
        old = found.get(new.dataset, new)
        merged = replace(new, values={**old.values, **new.values}, ensembles={**old.ensembles, **new.ensembles})
        found[new.dataset] = merged
    return found


def _name(key: Key, keys: Sequence[Key]) -> str:
    """The model; with several files, the file, and the model too if the file holds several."""
    source, model = key
    if len({other for other, _ in keys}) == 1:
        return model
    models = {other for file, other in keys if file == source}
    return source if len(models) == 1 else f"{source}: {model}"


def _columns(rows: Sequence[Measurement], shifts: Sequence[str]) -> tuple[Column, ...]:
    """Reference, shifts and other data sets, each in order of appearance, then the averages."""
    first: dict[str, Measurement] = {}
    for row in rows:
        first.setdefault(row.dataset, row)
    measured = [Column(name, row.title, row.role, row.metric, {name: 1.0}) for name, row in first.items()]
    measured.sort(key=lambda column: {"reference": 0, "shift": 1}.get(column.role, 2))
    references = [column for column in measured if column.role == "reference"]
    averages = []
    if len(shifts) > 1:
        parts = dict.fromkeys(shifts, 1 / len(shifts))
        averages.append(Column(SHIFTS, f"Average of {len(shifts)} shifts", "average", "", parts))
    if shifts and references:
        parts = {references[0].name: 0.5, **dict.fromkeys(shifts, 0.5 / len(shifts))}
        averages.append(Column(BOTH, "Average of both", "average", "", parts))
    return (*measured, *averages)


def _shared_shifts(rows: Iterable[Measurement]) -> tuple[str, ...]:
    """The shifts on which every model with any shift was measured."""
    seen: dict[Key, dict[str, None]] = {}
    for row in rows:
        if row.role == "shift":
            seen.setdefault((row.source, row.model), {})[row.dataset] = None
    models = list(seen.values())
    return tuple(name for name in models[0] if all(name in other for other in models)) if models else ()
