"""Evaluate every alpha on a suite and recommend one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.analysis import (
    Candidate,
    Choice,
    Loss,
    Measurements,
    Point,
    Recommendation,
    as_preference,
    choose,
)
from mergekit_wise.api.merge import merge_each, mixtures_of, sweep_alphas
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Missing, Suite
from mergekit_wise.errors import OutputError, SuiteError, Unsaved, UsageError
from mergekit_wise.evaluation import joined
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.measure import Measured, measure, require_outside
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Pair, Rules, make_plan, parse_naming
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.merging.parameters import with_point
from mergekit_wise.models.pair_notes import (
    SAME,
    notes_on_order,
    notes_on_plan,
    notes_on_preprocessing,
    notes_on_reading,
    template,
)
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.option_types import takes
from mergekit_wise.options import SweepOptions
from mergekit_wise.report.figures import draw_scatter, require_drawable
from mergekit_wise.results import Analysis, Record
from mergekit_wise.results.record import column_names, to_candidates


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found.

    Attributes:
        records: of all alphas on all data sets.
        candidates: what each alpha achieves.
        choice: the alpha to use and why, and how the others compare with 0.5.
        analyses: how the two models differ on each data set, if requested.
        missing: data sets of the suite that were not found.
        added: how many records are new.
        notes: on how files were read, and what was measured.
        saved: the checkpoints that were written.
    """

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    choice: Choice
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]
    saved: tuple[Path, ...] = ()

    @property
    def recommendation(self) -> Recommendation:
        """The alpha to use, and why."""
        return self.choice.recommendation

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The best alpha of each column, and the loss at alpha 0.5 (the paper's Table 3)."""
        return self.choice.losses


@takes(SweepOptions)
def sweep(options: SweepOptions) -> SweepReport:
    """Evaluate ``(1 - alpha) * zeroshot + alpha * finetuned`` for every alpha, in one pass over the images.

    The weights are those that `merge` would write, bit for bit. `suite` is required; `merge_each` writes mixtures
    without evaluating them.

    Raises:
        WiseError: as `merge` and `evaluate` do; Unsaved also if the plot cannot be written, with the whole report.
    """
    if options.suite is None and options.reference is None:
        raise UsageError(
            "Name what to evaluate on with --suite ('wise suites' lists the suites), or where to write with --save."
        )
    if options.plot is not None:
        _require_plot(options.plot, options)
    tried = tuple(map(Point.of_alpha, sweep_alphas(options)))
    _require_choice(options)
    if options.select_on is not None:
        _require_set(options.select_on, options)
    # Processes that torchrun started can meet only once, however often is measured.
    naming = parse_naming(options.like, options.rename)
    opening = open_pair(
        options.zeroshot,
        options.finetuned,
        naming,
        base=options.base,
        mmap=options.mmap,
        to_evaluate=options.like is None,
    )
    with opening as (first, second, naming), joined(options.device) as (ranks, _):
        options = replace(options, like=KEYS[naming.like])  # for the checkpoints that are saved
        work = _Sweep(match(first, second, naming=naming), options, ranks)
        saves = ranks.rank == 0
        saved = work.save(tried) if saves else ()
        found = work.run(tried)
        added = found.measured.added
        while options.refine and (between := found.choice.finer):
            tried = tuple(sorted({*tried, *between}))
            saved += work.save(between) if saves else ()
            found = work.run(tried)
            added += found.measured.added
        rules = work.rules
        notes = (
            *notes_on_reading(work.pair),
            *notes_on_order(work.pair),
            *(() if options.model else notes_on_preprocessing(work.pair, "finetuned")),
            *notes_on_plan(work.pair, rules, make_plan(work.pair, rules)),
        )
    measured, candidates = found.measured, found.candidates
    if len(candidates) > 1 and len({record.weights for record in measured.records}) == 1:
        notes += (SAME,)
    report = SweepReport(
        measured.records,
        candidates,
        found.choice,
        measured.analyses,
        measured.missing,
        added,
        (*notes, *measured.notes),
        saved,
    )
    if options.plot is not None and saves:
        try:
            draw_scatter(candidates, report.recommendation.point, options.plot)
        except OutputError as error:
            raise Unsaved(str(error), report) from error
    return report


@dataclass(frozen=True, slots=True)
class _Found:
    """The measurements, the candidates that they make, and the choice among these."""

    measured: Measured
    candidates: tuple[Candidate, ...]
    choice: Choice


class _Sweep:
    """A pair whose mixtures are measured, again whenever some are added."""

    def __init__(self, pair: Pair, options: SweepOptions, ranks: Ranks) -> None:
        self.pair, self.options, self.ranks = pair, options, ranks
        self.rules = Rules(frozen_tolerance=options.frozen_tolerance)
        self._weights = InterpolatedWeights(pair)

    def run(self, points: Sequence[Point]) -> _Found:
        """Measure every mixture on the suite and on the data set for the choice, unless the results file holds it."""
        options = self.options
        analyzed = options.analyze or options.output_ensemble
        alphas = [point.numbers[0] for point in points]
        comparison = PairAnalysis(alphas, options.analyze, options.output_ensemble) if analyzed else None
        measured = self._measure(points, options, comparison)
        found, name, selected = as_measurements(measured, points), "", None
        if options.select_on is not None:
            name = column_names(measured.records).get(options.select_on, "")
            if not name:
                held_out = replace(options, suite=options.select_on, reference=None)
                own = self._measure(points, held_out, None)
                measured = replace(measured, notes=tuple(dict.fromkeys((*measured.notes, *own.notes))))
                name = _reported_as(own.records, measured.records)
                if not name:
                    selected, name = as_measurements(own, points), own.records[0].title
        choice = choose(
            found,
            prefer=options.prefer,
            margin=(options.margin or 0) / 100,
            cross_fit=options.cross_fit,
            select_on=name,
            selected=selected,
            remedy="--redo measures them",
        )
        self.options = replace(options, redo=False)
        # What is added next must be the same in all processes.
        return _Found(measured, found.candidates, self.ranks.share(choice))

    def save(self, points: Sequence[Point]) -> tuple[Path, ...]:
        """Write the merged checkpoints, if requested."""
        if self.options.save is None:
            return ()
        alphas = [point.numbers[0] for point in points]
        return tuple(report.output for report in merge_each(mixtures_of(self.options)[0], alphas))

    def _measure(self, points: Sequence[Point], options: SweepOptions, comparison: PairAnalysis | None) -> Measured:
        name = f"{self.pair.zeroshot.path.name} + {self.pair.finetuned.path.name}"
        variants = [Variant.mixed(name, self._weights, point, with_point(self.rules, point)) for point in points]
        return measure(template(self.pair), variants, options, comparison)


def as_measurements(measured: Measured, points: Sequence[Point]) -> Measurements:
    """What mixtures achieve, `points` being those of the variants that were measured, in their order."""
    candidates, names = to_candidates(measured.records), column_names(measured.records)
    order = [points.index(candidate.point) for candidate in candidates]
    answers = {names[each.dataset]: each.of_models(order) for each in measured.answers if each.role != "companion"}
    return Measurements.of(candidates, answers)


def _reported_as(own: Sequence[Record], reported: Sequence[Record]) -> str:
    """The name of the reported column that has the same images as `own`, by another name; empty if none has."""
    data = {record.data for record in own}
    names = column_names(reported)
    return next((names[record.dataset] for record in reported if {record.data} == data), "")


def _require_choice(options: SweepOptions) -> None:
    """Raise UsageError now if the options for the choice do not fit together."""
    as_preference(options.prefer)
    if options.margin is not None and options.prefer != "no-regret":
        raise UsageError(f"--margin is what --prefer no-regret may lose; --prefer is {options.prefer}. Leave one out.")
    if options.select_on is not None and options.prefer != "average":
        raise UsageError(
            f"--select-on chooses by the result on one data set, not by --prefer {options.prefer}. Leave one out."
        )
    if options.cross_fit != "leave-one-out":
        return
    if options.select_on is not None:
        raise UsageError("--select-on chooses on one data set alone; --cross-fit leave-one-out needs the shifts.")
    if len(_suite(options).shifts) < 2:
        raise UsageError("--cross-fit leave-one-out needs at least two shifts. Name more with --suite.")


def _require_plot(path: Path, options: SweepOptions) -> None:
    """Raise OutputError now if no plot can be drawn, rather than when everything is measured."""
    require_drawable(path)
    suite = _suite(options)
    if suite.reference is None or not suite.shifts:
        lacks = "has no shift" if suite.reference else "has no reference; name one with --reference"
        raise OutputError(f"--plot {path}: the plot needs a reference and a shift, and {suite.name} {lacks}.")
    require_outside([path], suite.datasets)


def _require_set(name: str, options: SweepOptions) -> None:
    """Raise SuiteError now if there is no such data set to choose on, rather than when everything is measured."""
    if name in [dataset.name for dataset in _suite(options).datasets]:
        return
    try:
        held_out = open_suite(name, options.data, strict=True).datasets
    except SuiteError as error:
        raise SuiteError(f"--select-on {name}: {error}") from error
    if len(held_out) > 1:
        listed = ", ".join(dataset.name for dataset in held_out)
        raise SuiteError(f"--select-on {name}: expected one data set, found {len(held_out)}: {listed}.")


def _suite(options: SweepOptions) -> Suite:
    return open_suite(options.suite or "", options.data, reference=options.reference, strict=options.strict)
