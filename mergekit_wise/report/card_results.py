"""What a results file holds of one model's weights, for its card: numbers of other weights are never among them.

Knows measurements and the fingerprints of weights; knows no file and no model.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from mergekit_wise.analysis import Estimate
from mergekit_wise.report.calibration_tables import SHORT, text
from mergekit_wise.report.comparison import Column, Comparison, Curve, compare
from mergekit_wise.report.exports import as_markdown
from mergekit_wise.report.plots import Plot, alpha_plots, scatter_plots
from mergekit_wise.report.table import EMPTY, Cell, Row, Table, alpha_text, interval, percent
from mergekit_wise.results import At, Measurement, Reading

ROLES = ("reference", "shift", "average")
"""The roles of the columns that a card shows; companions repeat the reference's images."""

OWN, MADE, GIVEN = "own", "zero-shot", "file"
"""Where the head that a number was measured with comes from: the checkpoint, class names, or another file."""

_OWN_HEAD = re.compile(r"own, \S+ classes(, features not normalised)?")


@dataclass(frozen=True, slots=True)
class CardResults:
    """What the model of a card, and the two models that it was mixed from, achieve on a suite.

    Attributes:
        comparison: with the curve alone that the model lies on.
        curve: the sweep, or the evaluation of one model.
        at: where the model lies on it.
    """

    comparison: Comparison
    curve: Curve
    at: At

    @property
    def columns(self) -> tuple[Column, ...]:
        """The data sets and averages on which the model was measured."""
        return tuple(
            column
            for column in self.comparison.columns
            if column.role in ROLES and self.curve.result(self.at, column) is not None
        )

    @property
    def rows(self) -> tuple[Measurement, ...]:
        """The model's measurements, in the order of the columns."""
        found = (self.curve.rows.get((self.at, column.name)) for column in self.columns)
        return tuple(row for row in found if row is not None)

    @property
    def head(self) -> str:
        """The head that every number was measured with: `OWN`, `MADE` or `GIVEN`; empty without one, or unknown."""
        return head_of(self.rows[0]) if self.rows else ""

    @property
    def has_ends(self) -> bool:
        """Whether the zero-shot and the fine-tuned model were measured in the same way."""
        return self.curve.has_ends and {0.0, 1.0} <= set(self.curve.alphas)

    @property
    def plot(self) -> Plot | None:
        """The picture of the sweep: shifts against the reference, or one data set along alpha; None without a sweep."""
        if len(self.curve.mixtures) < 2:
            return None
        return next(iter((*scatter_plots(self.comparison), *alpha_plots(self.comparison))), None)


def head_of(row: Measurement) -> str:
    """The head that a number was measured with: `OWN`, `MADE` or `GIVEN`; empty without one, or if it is not known."""
    name = row.details.get("head", "")
    if not name or name == MADE:
        return name
    return OWN if _OWN_HEAD.fullmatch(name) else GIVEN


def results_of(reading: Reading, fingerprints: Collection[str], alpha: float | None = None) -> tuple[CardResults, ...]:
    """For each suite the largest measurement of the weights with one of these fingerprints; empty if there is none.

    A measurement with the checkpoint's own head comes before one with a head of class names, and that before one with a
    head from another file, which is no part of the model.

    Args:
        reading: a results file.
        fingerprints: those that records of the weights may have, which depend on the tensors that were needed.
        alpha: of the model, where several mixtures of a sweep have the same weights.
    """
    known = {_group(row) for row in reading.measurements if row.weights in fingerprints}
    kept = replace(reading, measurements=tuple(row for row in reading.measurements if _group(row) in known))
    found = []
    for comparison in compare(kept):
        places = list(_places(comparison, fingerprints))
        if places:
            places.sort(key=lambda place: _preference(place, alpha))
            found.append(places[-1])
    return tuple(found)


def results_table(results: CardResults) -> Table:
    """A row per data set and average, a column per model; the model of the card last, in bold."""
    heads = {0.0: "Zero-shot (%)", 1.0: "Fine-tuned (%)"} if results.has_ends else {}
    rows = []
    for column in results.columns:
        cells = [_cell(results.curve.result(alpha, column)) for alpha in heads]
        own = replace(_cell(results.curve.result(results.at, column)), best=True)
        measured = results.curve.rows.get((results.at, column.name))
        scored_whole = measured is not None and measured.correct is None and not interval(measured.result)
        images = EMPTY if measured is None or scored_whole else Cell(f"{measured.total:,}")
        metric = f" ({column.metric})" if column.metric not in ("", "top-1") else ""
        rows.append(Row((Cell(f"{column.title}{metric}"), images, *cells, own)))
    of_images = not any(row.details.get("evaluator") for row in results.rows)
    return Table(("Data set", "Images" if of_images else "Items", *heads.values(), "This model (%)"), tuple(rows))


def calibration_table(results: CardResults) -> Table | None:
    """A row per data set with the calibration of the model's probabilities; None if it was not measured."""
    rows = [(row.title, *(text(name, row.calibration.get(name), "-") for name in SHORT)) for row in results.rows]
    measured = any(row.calibration for row in results.rows)
    return Table.of_texts(("Data set", *SHORT.values()), rows) if measured else None


def table_lines(table: Table) -> str:
    """The lines of a table in Markdown, without its title."""
    return as_markdown([table]).partition("\n\n")[2].strip()


def described(results: CardResults) -> str:
    """How the numbers of a table were measured, in a sentence or two."""
    curve = results.curve
    limits = [row.details["limit"] for row in results.rows if row.details.get("limit", "").isdecimal()]
    drawn = f" Each data set is a random subset of at most {max(map(int, limits)):,} images." if limits else ""
    place = "" if results.at is None or not curve.has_ends else f", at α = {alpha_text(results.at)}"
    return " ".join(
        filter(
            None, (f"Suite {results.comparison.suite}{place}. In parentheses: 95 % intervals.{drawn}", *_means(results))
        )
    )


def _means(results: CardResults) -> Iterator[str]:
    """Sentences on the head and the precision of the numbers, unless they are those of the checkpoint and float32."""
    if results.head == GIVEN:
        head = results.rows[0].details["head"]
        yield f"Measured with a head from another file, which is not in these weights: {head}."
    prompts = dict.fromkeys(filter(None, (row.details.get("prompts") for row in results.rows)))
    if results.head == MADE:
        digests = f" (digest of names and templates: {', '.join(prompts)})" if prompts else ""
        yield f"Measured with a head made from class names{digests}."
    precisions = dict.fromkeys(row.details.get("precision", "fp32") for row in results.rows)
    if set(precisions) - {"fp32"}:
        yield f"Computed in {', '.join(precisions)}."


def chosen(results: CardResults) -> str:
    """Why the sweep recommended the model, and the warning that goes with it; empty if it did not."""
    choice = results.curve.choice
    if choice is None or results.curve.point(results.at) != choice.choice.recommendation.point:
        return ""
    found = choice.choice.recommendation
    held_out = choice.choice.select_on
    on = f" on {held_out}" if held_out else ", which was chosen on these data sets, so that the numbers are optimistic"
    return " ".join(filter(None, (f"The sweep recommended this mixture{on}: {found.reason}.", found.warning)))


def versions_of(every: Collection[CardResults]) -> Mapping[str, str]:
    """The versions of libraries that the numbers depend on, by name."""
    found: dict[str, dict[str, None]] = {}
    for row in (row for results in every for row in results.rows):
        for library, version in row.versions.items():
            found.setdefault(library, {})[version] = None
    return {library: ", ".join(versions) for library, versions in found.items() if library != "measurement"}


def _group(row: Measurement) -> tuple[object, ...]:
    return row.source, row.suite, row.model, row.swept, row.rule, row.pair


def _places(comparison: Comparison, fingerprints: Collection[str]) -> Iterator[CardResults]:
    """Where on the curves of a suite these weights lie."""
    for curve in comparison.curves:
        for at in curve.alphas:
            rows = [row for (place, _), row in curve.rows.items() if place == at and row.role in ROLES]
            if rows and all(row.weights in fingerprints for row in rows):
                yield CardResults(replace(comparison, curves=(curve,)), curve, at)


def _preference(place: CardResults, alpha: float | None) -> tuple[object, ...]:
    """A key by which the better of two measurements of the same weights comes last."""
    head = (GIVEN, MADE, "", OWN).index(place.head)
    return head, not place.curve.label, len(place.rows), place.has_ends, place.at == alpha


def _cell(result: Estimate | None) -> Cell:
    return EMPTY if result is None else Cell(percent(result.value), note=interval(result))
