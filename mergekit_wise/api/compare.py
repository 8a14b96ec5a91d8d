"""Compare two results files, or the mixtures of one sweep: which model is better where."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.analysis import Point
from mergekit_wise.analysis.contrast import Contrast, Results, contrasts
from mergekit_wise.analysis.point import DEFAULT
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.errors import ResultsError, UsageError
from mergekit_wise.merging import check_alpha, parse_alphas
from mergekit_wise.option_types import takes
from mergekit_wise.options import CompareOptions
from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.comparison import compare as side_by_side
from mergekit_wise.report.contrast_figure import contrast_figure
from mergekit_wise.report.contrast_tables import contrast_table, matrix_table
from mergekit_wise.report.folders import suites_named
from mergekit_wise.report.frames import contrast_rows
from mergekit_wise.report.series import described
from mergekit_wise.report.summary import summarize
from mergekit_wise.report.table import Table
from mergekit_wise.results import AnswerStore, Reading, Record, as_entry, read_choices, read_records
from mergekit_wise.results.measurement import as_measurement
from mergekit_wise.wording import listed, plural

if TYPE_CHECKING:
    from mergekit_wise.report.figures import Figure


@dataclass(frozen=True, slots=True, repr=False)
class ModelComparison(ResultObject):
    """One model compared with another.

    Attributes:
        first, second: their names, with their alpha if they are a mixture of a sweep.
        point: where the second one lies in its sweep; None if it is not a mixture.
        columns: data set by data set, then the averages.
    """

    first: str
    second: str
    point: Point | None
    columns: tuple[Contrast, ...]

    def _summary(self) -> str:
        significant = sum(each.significant for each in self.columns)
        return f"{self.second} against {self.first}, {significant} of {plural(len(self.columns), 'column')} significant"

    def _entry(self) -> Mapping[str, Any]:
        columns = [
            {name: value for name, value in asdict(each).items() if name != "model"}
            | {"significant": each.significant, "better": each.better or None}
            for each in self.columns
        ]
        point = None if self.point is None else dict(self.point.values)
        return {"first": self.first, "second": self.second, "point": point, "columns": columns}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        point = {} if self.point is None else dict(self.point.values)
        return ({"first": self.first, "second": self.second, **point, **row} for row in contrast_rows(self.columns))

    def _tables(self) -> Sequence[Table]:
        title = f"A: {self.first}; B: {self.second}; B minus A in points (results in %)"
        return [replace(contrast_table(self.columns), title=title)]


@dataclass(frozen=True, slots=True, repr=False)
class CompareReport(ResultObject):
    """What was compared.

    Attributes:
        comparisons: one for each pair of models.
        one_sweep: whether these are the mixtures of one sweep, all compared with the same one.
        notes: what could not be compared, or not image by image, and what was chosen.
    """

    comparisons: tuple[ModelComparison, ...]
    one_sweep: bool
    notes: tuple[str, ...]

    @property
    def on_data_sets(self) -> tuple[Contrast, ...]:
        """All comparisons on single data sets, without those of averages."""
        return tuple(each for found in self.comparisons for each in found.columns if not each.is_average)

    @property
    def title(self) -> str:
        """What the differences are."""
        first = self.comparisons[0]
        if self.one_sweep:
            return f"Difference from {first.first}, in points (* significant)"
        return f"{first.second} minus {first.first}, in points"

    def plot(self) -> "Figure":
        """The differences with their 95 % intervals; it is not shown, and pyplot does not know of it."""
        names = [each.second if each.point is None else str(each.point) for each in self.comparisons]
        return contrast_figure(self.comparisons, names, self.title.removesuffix(" (* significant)"))

    def _summary(self) -> str:
        significant, found = sum(each.significant for each in self.on_data_sets), len(self.on_data_sets)
        first = self.comparisons[0].first
        return f"{plural(found, 'comparison')} with {first} on single data sets, {significant} significant"

    def _entry(self) -> Mapping[str, Any]:
        return {"comparisons": [each.to_dict() for each in self.comparisons], "notes": self.notes}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return (row for each in self.comparisons for row in each._rows())

    def _tables(self) -> Sequence[Table]:
        if self.one_sweep:
            return [replace(matrix_table(self.comparisons), title=self.title)]
        return [table for each in self.comparisons for table in each._tables()]


@takes(CompareOptions)
def compare(options: CompareOptions) -> CompareReport:
    """Compare two models on the data sets that both were evaluated on, image by image where the answers are known.

    With two results files, the model of the first is compared with that of the second; of a sweep the recommended
    mixture, or those at `alphas`. With one file that holds a sweep, every mixture is compared with the one at
    `against`, by default 0.5, or the recommended one where that was not measured; with one file and two names in
    `model`, these two.

    Raises:
        ResultsError: a file cannot be read, or the two share no images.
        UsageError: a file holds several models or suites and none was chosen, or no mixture has such an alpha.
    """
    alphas = _alphas(options)
    if len(options.model) > 2:
        raise UsageError(f"--model: expected one name, or two to compare, found {len(options.model)}.")
    names = (options.model[0], options.model[-1]) if options.model else (None, None)
    several = "Choose one with --model NAME, or compare two of them: --model A --model B."
    if options.second is not None:
        several = "Name the model of each file, in their order: --model A --model B."
    first = _Model.of(Path(options.first), options.suite, names[0], several)
    if options.second is None and len(options.model) < 2:
        return _within(first, alphas, options.against)
    if options.against is not None:
        raise UsageError("--against compares the mixtures of one sweep; two models are compared at --alphas.")
    second = _Model.of(options.second or Path(options.first), options.suite, names[1], several)
    return _between(first, second, alphas)


def _alphas(options: CompareOptions) -> tuple[float, ...]:
    if options.alphas is None:
        return ()
    if isinstance(options.alphas, str):
        return parse_alphas(options.alphas)
    return tuple(sorted({check_alpha(alpha, f"--alphas {alpha:g}") for alpha in options.alphas}))


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of a results file, or all mixtures of a sweep.

    Attributes:
        path: the results file.
        name: of the model.
        rows: its records, by mixture and data set; None is a model of unknown alpha.
        recommended: what the sweep recommends; None unless it is one.
        is_written: whether the file holds that choice; else it was made here.
        notes: how it was found.
    """

    path: Path
    name: str
    rows: Mapping[Point | None, Mapping[str, Record]]
    recommended: Point | None
    is_written: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, suite: str | None, model: str | None, several: str) -> "_Model":
        """The model that the options choose; `several` is the advice if these leave more than one.

        Raises ResultsError and UsageError.
        """
        records = read_records(path)
        if not records:
            raise ResultsError(f"{path}: no record found; expected a results file of 'wise sweep' or 'wise eval'.")
        rows = tuple(as_measurement(path.stem, as_entry(record)) for record in records)
        choices = tuple(replace(choice, source=path.stem) for choice in read_choices(path))
        comparison = _of_suite(path, side_by_side(Reading(rows, (), (), choices=choices)), suite)
        curve, notes = _of_model(path, comparison, model, several)
        record_of = dict(zip(map(id, rows), records, strict=True))
        found: dict[Point | None, dict[str, Record]] = {}
        for row in curve.rows.values():
            record = record_of[id(row)]
            if record.role != "companion":
                found.setdefault(record.at, {})[record.dataset] = record
        recommended = None
        if len(found) > 1:
            chosen = summarize(comparison).recommendations[comparison.curves.index(curve)]
            recommended = None if chosen is None else chosen.point
        return cls(path, curve.name, found, recommended, curve.choice is not None, notes)

    def points(self, alphas: Sequence[float]) -> list[Point | None]:
        """The mixtures at `alphas`, by default the recommended one; the model itself if it is not a sweep's.

        Raises UsageError if one was not measured, or if none is recommended.
        """
        if len(self.rows) == 1:
            return list(self.rows)
        if not alphas and self.recommended is None:
            raise UsageError(f"{self.path}: no mixture is recommended. Choose with --alphas: {self._measured}.")
        return [self.at(alpha) for alpha in alphas] if alphas else [self.recommended]

    def at(self, alpha: float) -> Point:
        """The mixture at an alpha. Raises UsageError if it was not measured."""
        for point in self.rows:
            if point is not None and point.alpha is not None and abs(point.alpha - alpha) < 1e-9:
                return point
        raise UsageError(f"{self.path}: alpha {alpha:g} was not measured; there are: {self._measured}.")

    def called(self, point: Point | None) -> str:
        """The name of a mixture, or of the model if it is not a sweep's."""
        return self.name if point is None or len(self.rows) == 1 else f"{self.name} at {point}"

    @property
    def _measured(self) -> str:
        return listed(point for point in self.rows if point is not None)


def _of_suite(path: Path, comparisons: Sequence[Comparison], suite: str | None) -> Comparison:
    names = {each.suite: each.suite for each in comparisons}
    named = names.keys() if suite is None else suites_named(suite, names)
    found = [each for each in comparisons if each.suite in named]
    suites = listed(each.suite for each in comparisons)
    if not found:
        raise UsageError(f"--suite {suite}: {path} holds no record of it, but of {suites}.")
    if len(found) > 1:
        raise UsageError(f"{path} holds {plural(len(found), 'suite')}: {suites}. Choose one with --suite NAME.")
    return found[0]


def _of_model(path: Path, comparison: Comparison, model: str | None, several: str) -> tuple[Curve, tuple[str, ...]]:
    """The curve of the model, the largest whole measurement of several, with a note if there are more."""
    models = list(dict.fromkeys(curve.model for curve in comparison.curves))
    found = [curve for curve in comparison.curves if curve.name == model and curve.label]
    if not found:
        found = [curve for curve in comparison.curves if model in (None, curve.model)]
    if not found:
        names = listed(repr(curve.name) for curve in comparison.curves)
        raise UsageError(f"--model {model}: {path} holds no record of it on {comparison.suite}, but of {names}.")
    if len({curve.model for curve in found}) > 1:
        names = listed(map(repr, models))
        raise UsageError(f"{path} holds {plural(len(models), 'model')} on {comparison.suite}: {names}. {several}")
    if len(found) == 1:
        return found[0], ()
    images = [(each.label, sum({row.dataset: row.total for row in each.rows.values()}.values())) for each in found]
    return found[0], (f"{described(found[0].name, images)} The first is compared; --model NAME chooses another.",)


def _between(first: _Model, second: _Model, alphas: Sequence[float]) -> CompareReport:
    """One model, or mixture, with another."""
    mine, others = first.points(alphas), second.points(alphas)
    count = max(len(mine), len(others))
    pairs = zip(mine * (count // len(mine)), others * (count // len(others)), strict=True)
    notes, found = [*first.notes, *second.notes], []
    notes += [
        f"{model.path} holds no choice of a sweep; {model.recommended} is recommended by its intervals alone."
        for model in (first, second)
        if not alphas and model.recommended is not None and not model.is_written
    ]
    for one, other in pairs:
        sides = ((first, first.rows[one]), (second, second.rows[other]))
        sets = _sets(sides, notes)
        names = first.called(one), second.called(other)
        found.append(ModelComparison(*names, other, contrasts(sets)))
    return CompareReport(tuple(found), one_sweep=False, notes=tuple(dict.fromkeys(notes)))


def _within(sweep: _Model, alphas: Sequence[float], against: float | None) -> CompareReport:
    """The mixtures of a sweep with one of them."""
    if len(sweep.rows) < 2:
        raise UsageError(
            f"{sweep.path} holds one model, {sweep.name}: nothing to compare it with. Give a second results file."
        )
    default = next((point for point in sweep.rows if point is not None and point.is_default), None)
    notes = [*sweep.notes]
    if against is None and default is None and sweep.recommended is not None:
        base = sweep.recommended
        notes.append(f"0.5 was not measured; all are compared with the recommended {base}.")
    else:
        base = default if against is None and default is not None else sweep.at(DEFAULT if against is None else against)
    others = [sweep.at(alpha) for alpha in alphas] or sorted(point for point in sweep.rows if point is not None)
    points = [base, *(point for point in others if point != base)]
    if len(points) < 2:
        raise UsageError(f"--alphas: {base} cannot be compared with itself. Name others, or another --against.")
    found = contrasts(_sets([(sweep, sweep.rows[point]) for point in points], notes))
    comparisons = tuple(
        ModelComparison(
            sweep.called(base),
            sweep.called(point),
            point,
            tuple(each for each in found if each.model == number),
        )
        for number, point in enumerate(points)
        if number
    )
    return CompareReport(comparisons, one_sweep=True, notes=tuple(dict.fromkeys(notes)))


Side = tuple[_Model, Mapping[str, Record]]
"""A model with the records of one of its mixtures, by data set."""


def _sets(sides: Sequence[Side], notes: list[str]) -> list[Results]:
    """What the models achieve on the data sets whose images are the same for all; notes say what is left out and why.

    Raises ResultsError if there is none.
    """
    names = dict.fromkeys(name for _, rows in sides for name in rows)
    found, unpaired, missing, folders = [], [], [], set[Path]()
    for name in names:
        rows = [each[name] for _, each in sides if name in each]
        if len(rows) < len(sides):
            missing.append(rows[0].title)
        elif reason := _incomparable(rows):
            notes.append(f"{rows[0].title} is not compared: {reason}.")
        else:
            stores = [AnswerStore.beside(model.path) for model, _ in sides]
            results = _results(rows, stores, notes)
            if results.answers is None:
                unpaired.append(rows[0].title)
                folders |= {store.folder for store, row in zip(stores, rows, strict=True) if store.load([row]) is None}
            found.append(results)
    if missing:
        notes.append(f"Not measured for all models, and not compared: {listed(missing)}.")
    if not found:
        held = "; ".join(f"{model.path}: {listed(rows)}" for model, rows in sides[:2])
        raise ResultsError(f"No data set was measured on the same images for all models. {held}.")
    if unpaired:
        remedy = "The same wise eval or wise sweep with --redo keeps them there."
        if any(row.evaluator for _, rows in sides for row in rows.values()):
            remedy = "An evaluator that gives a score for each item, and wise sweep with --redo, keep them there."
        notes.append(
            f"{listed(unpaired)}: compared by intervals as of independent images, which are wider than image by image, "
            f"because the answers for each image are not in {listed(sorted(folders))}. {remedy}"
        )
    return found


def _incomparable(rows: Sequence[Record]) -> str:
    """Why results on a data set of one name cannot be compared; "" if they can."""
    if not all(row.data for row in rows):
        return "an earlier version of wise did not record which images were measured"
    if len({row.data for row in rows}) > 1:
        return f"other images or labels ({', '.join(_drawn(row) for row in rows[:2])})"
    metrics = dict.fromkeys(row.metric for row in rows)
    return f"{' and '.join(metrics)} are different metrics" if len(metrics) > 1 else ""


def _drawn(row: Record) -> str:
    return plural(row.total, "image") + ("" if row.limit is None else f" drawn with --limit {row.limit}")


def _results(rows: Sequence[Record], stores: Sequence[AnswerStore], notes: list[str]) -> Results:
    """The results on one data set, with the answers if they are known for all models."""
    from mergekit_wise.analysis import stacked

    loaded = [store.load([row]) for store, row in zip(stores, rows, strict=True)]
    known = [answers for answers in loaded if answers is not None]
    answers = stacked(known) if len(known) == len(rows) else None
    if answers is not None and len({len(answers.labels), *(row.total for row in rows)}) > 1:
        notes.append(f"{rows[0].title}: compared on the {plural(len(answers.labels), 'image')} that all could read.")
    roles = _roles(rows)
    role = roles[0] if len(roles) == 1 else "other"
    if len(roles) > 1:
        notes.append(f"{rows[0].title} is {' and '.join(roles)}, so it is in no average.")
    return Results(rows[0].title, role, tuple(row.result for row in rows), answers, rows[0].same_images)


def _roles(rows: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(row.role for row in rows))
