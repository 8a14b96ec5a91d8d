"""Measurements of one suite side by side: a curve for each sweep of a model, over the same columns.

Knows measurements; knows nothing of files and nothing of how they are drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mergekit_wise.analysis import Baseline, Estimate, Point
from mergekit_wise.analysis.estimate import combined
from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.report.series import Place, Series, divided
from mergekit_wise.report.table import ENDPOINTS
from mergekit_wise.results import At, Finding, Measurement, Reading, WrittenChoice

Key = tuple[str, str, tuple[str, ...], str]
"""A file, a model in it, what was swept, and the other merging rules."""

SYMBOLS = {ALPHA: "α"}
"""How parameters are written where they have a sign."""

MOVES_ENDS = ("--alpha-for", "--depth-alpha", "--keep")
"""Rules with which the mixtures at alpha 0 and 1 are not the two models."""

Images = tuple[tuple[str, str, int], ...]
"""Name, digest and number of images of data sets."""

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
    """One sweep of a model, measured in one way.

    Attributes:
        name: its name in legends: the model, or the file if that identifies it, what was swept with which other rules
            unless it is alpha without any, and the label if there is one.
        label: what distinguishes it from the main measurement of the same model in the same file; empty for that one.
        source, model: as in its measurements.
        swept: the parameters: one that the curve is drawn along, or two of a grid.
        rule: the other merging rules, as options.
        alphas: the values of the parameter, ascending, or of both of a grid; None, which comes first, is a model of
            unknown alpha.
        rows: the measurements that are shown, by alpha and data set.
        findings: the analyses of its two models, by data set.
        repeated: where an earlier measurement of the same had another result.
        choice: the latest choice that a sweep wrote of these measurements; None if the file holds none.
        ends: what the two models are called, by their alphas.
    """

    name: str
    label: str
    source: str
    model: str
    swept: tuple[str, ...]
    rule: str
    alphas: tuple[At, ...]
    rows: Mapping[Place, Measurement]
    findings: Mapping[str, Finding]
    repeated: tuple[Place, ...]
    choice: WrittenChoice | None = None
    ends: Mapping[float, str] = field(default_factory=lambda: ENDPOINTS)

    @property
    def mixtures(self) -> tuple[float, ...]:
        """The values of the one parameter; none of a grid."""
        return tuple(alpha for alpha in self.alphas if isinstance(alpha, float))

    @property
    def is_grid(self) -> bool:
        """Whether several parameters were swept."""
        return len(self.swept) > 1

    @property
    def has_ends(self) -> bool:
        """Whether the curve begins at the zero-shot model and ends at the fine-tuned one."""
        return self.swept == (ALPHA,) and not any(option in self.rule.split() for option in MOVES_ENDS)

    @property
    def symbol(self) -> str:
        """What was swept, as it is written on axes and in tables."""
        return ", ".join(SYMBOLS.get(name, name) for name in self.swept)

    def point(self, at: At) -> Point | None:
        """The place in the sweep with the names of what was swept; None for a model of unknown alpha."""
        if at is None:
            return None
        return Point(tuple(zip(self.swept, at if isinstance(at, tuple) else (at,), strict=True)))

    def result(self, alpha: At, column: Column) -> Estimate | None:
        """The number in a column; None if a part of it was not measured."""
        found = [(self.rows.get((alpha, name)), weight) for name, weight in column.parts.items()]
        parts = [(weight, row.result) for row, weight in found if row is not None]
        same_images = [row.same_images for row, _ in found if row is not None]
        return None if len(parts) < len(found) else combined(parts, same_images)

    def images(self, alpha: At, column: Column) -> Images:
        """What a number in a column was measured on: only numbers on the same images can be compared."""
        rows = (self.rows.get((alpha, name)) for name in column.parts)
        return tuple((row.dataset, row.details.get("data", ""), row.total) for row in rows if row is not None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All curves of a suite.

    Attributes:
        columns: the reference, the shifts, other data sets, then averages.
        averaged: the names of the shifts that averages are over: those on which the main measurement of every model
            with any shift was made.
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
    def measure(self) -> str:
        """What its numbers are: accuracies, unless no data set reports one."""
        metrics = {column.metric for column in self.columns if column.role != "average"}
        return "Accuracy" if metrics & {"", "top-1", "accuracy"} else "Score"

    @property
    def swept(self) -> tuple[str, ...]:
        """Every parameter that some curve varies, alpha first."""
        names = dict.fromkeys(name for curve in self.curves for name in curve.swept)
        return tuple(sorted(names, key=lambda name: name != ALPHA))

    @property
    def headline(self) -> tuple[Column, ...]:
        """The columns to show first: the reference and the averages, or else the first data sets."""
        columns = tuple(c for c in self.columns if c.role in ("reference", "average"))
        return columns or self.columns[:3]


def compare(
    reading: Reading, baselines: Mapping[str, Baseline] | None = None, ends: Mapping[float, str] = ENDPOINTS
) -> tuple[Comparison, ...]:
    """One comparison per suite, in the order in which suites appear; `ends` are the names of the two models.

    Of each model in a file, the largest whole measurement is the main one; see `divided`. Others have curves of their
    own after it. Of repeated measurements the latest is used.
    """
    suites: dict[str, list[Measurement]] = {}
    for row in reading.measurements:
        suites.setdefault(row.suite, []).append(row)
    return tuple(_comparison(suite, rows, reading, baselines or {}, ends) for suite, rows in suites.items())


def _comparison(
    suite: str,
    rows: Sequence[Measurement],
    reading: Reading,
    baselines: Mapping[str, Baseline],
    ends: Mapping[float, str],
) -> Comparison:
    findings = [finding for finding in reading.findings if finding.suite == suite]
    curves = _curves(rows, findings, [choice for choice in reading.choices if choice.suite == suite], ends)
    latest = {row.dataset: row for row in rows}
    shared = _shared_shifts(curve for curve in curves if not curve.label)
    averaged = tuple(name for name in shared if latest[name].role == "shift")
    return Comparison(suite, _columns(latest.values(), averaged), averaged, curves, baselines)


def _curves(
    rows: Sequence[Measurement],
    findings: Sequence[Finding],
    choices: Sequence[WrittenChoice],
    ends: Mapping[float, str],
) -> tuple[Curve, ...]:
    groups: dict[Key, list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.source, row.model, row.swept, row.rule), []).append(row)
    return tuple(
        Curve(
            _name(key, list(groups)) + (f" ({series.label})" if series.label else ""),
            series.label,
            *key,
            tuple(sorted({alpha for alpha, _ in series.rows}, key=_order)),
            series.rows,
            _merged(found for found in findings if found.source == key[0] and _is_of(found, key[1], series)),
            series.repeated,
            _latest(
                each
                for each in choices
                if (each.source, each.model, each.swept, each.rule) == key and _chose(each, series)
            ),
            ends,
        )
        for key, group in groups.items()
        for series in divided(group)
    )


def _order(at: At) -> tuple[float, ...]:
    """A key by which places in a sweep ascend."""
    return at if isinstance(at, tuple) else (-math.inf if at is None else at,)


def _is_of(finding: Finding, model: str, series: Series) -> bool:
    """Whether an analysis is of the models of a series, on the same images."""
    if finding.model not in (model, "") or any(row.swept != (ALPHA,) for row in series.rows.values()):
        return False
    ends = {0.0: finding.zeroshot, 1.0: finding.finetuned}
    rows = [row for (_, name), row in series.rows.items() if name == finding.dataset]
    return (
        any(finding.measurement in ("", row.setting) for row in rows)
        and all(row.weights in ("", ends[row.alpha]) for row in rows if row.alpha is not None and ends.get(row.alpha))
        and all(finding.data in ("", row.details.get("data", "")) for row in rows)
    )


def _key_of(choice: WrittenChoice) -> Key:
    return choice.source, choice.model, choice.swept, choice.rule


def _latest(choices: Iterable[WrittenChoice]) -> WrittenChoice | None:
    return next(reversed(list(choices)), None)


def _chose(choice: WrittenChoice, series: Series) -> bool:
    """Whether a sweep chose among the mixtures of a series, measured in the same way on the same images."""
    rows = series.rows.values()
    weights, settings = {row.weights for row in rows}, {(row.dataset, row.setting) for row in rows}
    return all(each.weights in weights for each in choice.mixtures) and all(
        (each.dataset, each.measurement) in settings for each in choice.sets
    )


def _merged(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One finding per data set; of numbers that were found more than once, the latest."""
    found: dict[str, Finding] = {}
    for new in findings:
        old = found.get(new.dataset, new)
        merged = replace(new, values={**old.values, **new.values}, ensembles={**old.ensembles, **new.ensembles})
        merged = replace(merged, per_image={**old.per_image, **new.per_image})
        found[new.dataset] = merged
    return found


def _name(key: Key, keys: Sequence[Key]) -> str:
    """The model; with several files, the file, and the model too if the file holds several.

    What was swept with which rules follows, unless it is alpha without any; of several sweeps of one model it is all.
    """
    source, model, swept, rule = key
    how = " ".join(filter(None, ("" if swept == (ALPHA,) else " x ".join(swept), rule)))
    if len(keys) > 1 and len({other[:2] for other in keys}) == 1:
        return how or ALPHA
    models = {other[1] for other in keys if other[0] == source}
    name = model if len({other[0] for other in keys}) == 1 else source if len(models) == 1 else f"{source}: {model}"
    return f"{name} [{how}]" if how else name


def _columns(latest: Iterable[Measurement], shifts: Sequence[str]) -> tuple[Column, ...]:
    """Reference, shifts and other data sets, each in order of appearance, then the averages.

    The latest measurement says what a data set is: a later run may have named another reference.
    """
    measured = [Column(row.dataset, row.title, row.role, row.metric, {row.dataset: 1.0}) for row in latest]
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


def _shared_shifts(curves: Iterable[Curve]) -> tuple[str, ...]:
    """The shifts on which every model with any shift was measured."""
    shifts = [dict.fromkeys(row.dataset for row in curve.rows.values() if row.role == "shift") for curve in curves]
    models = [names for names in shifts if names]
    return tuple(name for name in models[0] if all(name in other for other in models)) if models else ()
