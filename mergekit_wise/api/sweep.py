"""Evaluate every alpha on a suite and recommend one."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.analysis import (
    WARNING,
    Candidate,
    Loss,
    Point,
    Recommendation,
    as_preference,
    losses,
    recommend,
)
from mergekit_wise.analysis import refine as refinement
from mergekit_wise.analysis import select_on as selected_on
from mergekit_wise.api.merge import merge, merge_each, merge_rules, opened_fishers, preview, sweep_alphas
from mergekit_wise.api.mixtures import WITH_HEAD, match_to_measure, zero_shot_side
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Missing, Suite
from mergekit_wise.errors import OutputError, SuiteError, Unsaved, UsageError, WiseError
from mergekit_wise.evaluation import joined
from mergekit_wise.evaluation.measure import Measured, measure, require_outside
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.recalibration import open_recalibration
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Fishers, Pair, Rules, described_by, make_plan, parse_naming
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.merging.parameters import with_point
from mergekit_wise.models.merge_command import merge_command, merge_options, rule_text
from mergekit_wise.models.pair_notes import (
    SAME,
    notes_on_batch_norm,
    notes_on_order,
    notes_on_plan,
    notes_on_preprocessing,
    notes_on_reading,
    template,
)
from mergekit_wise.models.pairing import open_pair
from mergekit_wise.option_types import run, takes
from mergekit_wise.options import MergeOptions, SweepOptions
from mergekit_wise.report.figures import draw_scatter, require_drawable
from mergekit_wise.results import Analysis, Record
from mergekit_wise.results.record import column_names, to_candidates


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found.

    Attributes:
        records: of all alphas on all data sets.
        candidates: what each alpha achieves.
        recommendation: the alpha to use, and why.
        losses: the best alpha of each column, and the loss at alpha 0.5 (the paper's Table 3).
        analyses: how the two models differ on each data set, if requested.
        missing: data sets of the suite that were not found.
        added: how many records are new.
        notes: on how files were read, and what was measured.
        saved: the checkpoints that were written.
        merge_command: the line of ``wise merge`` that makes the recommended mixture.
    """

    records: tuple[Record, ...]
    candidates: tuple[Candidate, ...]
    recommendation: Recommendation
    losses: tuple[Loss, ...]
    analyses: tuple[Analysis, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]
    saved: tuple[Path, ...] = ()
    merge_command: str = ""


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
    if options.select_on is not None:
        _require_set(options.select_on, options)
    # Processes that torchrun started can meet only once, however often is measured.
    given, rules = options, merge_rules(options)
    naming = parse_naming(options.like, options.rename)
    with ExitStack() as stack:
        ranks, _ = stack.enter_context(joined(options.device))
        zeroshot = stack.enter_context(zero_shot_side(options, naming, rules))
        options = replace(options, zeroshot=zeroshot.source)
        first, second, naming = stack.enter_context(
            open_pair(
                options.zeroshot,
                options.finetuned,
                naming,
                base=options.base,
                mmap=options.mmap,
                to_evaluate=options.like is None,
            )
        )
        options = replace(options, like=KEYS[naming.like])  # for the checkpoints that are saved
        pair, rules, unneeded = match_to_measure(first, second, rules, naming, options)
        fishers = stack.enter_context(opened_fishers(options, pair))
        work = _Sweep(pair, rules, fishers, options, f"{_name_of(given.zeroshot, pair)} + {pair.finetuned.path.name}")
        work.require_effect(tried)
        saves = ranks.rank == 0
        if options.output is not None:
            run(preview, work.merge(tried[0], options.output))
            require_outside([options.output], _suite(options).datasets)
        saved = work.save(tried) if saves else ()
        found = work.run(tried)
        added = found.measured.added
        while options.refine and (between := tuple(map(Point.of_alpha, refinement(found.judged, work.prefer)))):
            tried = tuple(sorted({*tried, *between}))
            saved += work.save(between) if saves else ()
            found = work.run(tried)
            added += found.measured.added
        plan = make_plan(pair, rules)
        notes = (
            *zeroshot.notes,
            *notes_on_reading(pair),
            *unneeded,
            *notes_on_order(pair),
            *(() if options.model else notes_on_preprocessing(pair, described_by(pair, plan))),
            *notes_on_plan(pair, rules, plan),
            *work.notes,
        )
        chosen = work.merge(found.recommendation.point, options.output or _unused_name(options))
        written: tuple[Path, ...] = ()
        failure = ""
        if options.output is not None and saves:
            try:
                written = (run(merge, chosen).output,)
            except WiseError as error:
                failure = str(error)
        line = merge_command(replace(chosen, zeroshot=given.zeroshot))
        if zeroshot.command:
            line = f"{zeroshot.command} && {merge_command(replace(chosen, zeroshot=WITH_HEAD))}"
    measured, candidates = found.measured, to_candidates(found.measured.records)
    if len(candidates) > 1 and len({record.weights for record in measured.records}) == 1:
        notes += (SAME,)
    report = SweepReport(
        measured.records,
        candidates,
        found.recommendation,
        losses(candidates),
        measured.analyses,
        measured.missing,
        added,
        (*notes, *measured.notes),
        (*saved, *written),
        line,
    )
    if failure:
        raise Unsaved(failure, report)
    if options.plot is not None and saves:
        try:
            draw_scatter(candidates, found.recommendation.point, options.plot)
        except OutputError as error:
            raise Unsaved(str(error), report) from error
    return report


@dataclass(frozen=True, slots=True)
class _Found:
    """The measurements, the candidates that the choice is based on, and the recommendation."""

    measured: Measured
    judged: tuple[Candidate, ...]
    recommendation: Recommendation


class _Sweep:
    """A pair whose mixtures are measured, again whenever some are added."""

    def __init__(self, pair: Pair, rules: Rules, fishers: Fishers | None, options: SweepOptions, name: str) -> None:
        self.pair, self.rules, self.options, self.name = pair, rules, options, name
        self.prefer = as_preference(options.prefer)
        plan = make_plan(pair, rules)
        recalibration = None if options.recalibrate is None else open_recalibration(options, pair, plan)
        self._weights = InterpolatedWeights(pair, fishers, recalibration)
        self.notes: tuple[str, ...] = () if recalibration is not None else tuple(notes_on_batch_norm(pair, plan))

    def require_effect(self, points: Sequence[Point]) -> None:
        """Raise UsageError if the rules leave nothing that differs between the points."""
        free = [name for name in self.pair.names if not self.rules.kept(name)]
        alphas = [with_point(self.rules, point).alphas(free) for point in points]
        if free and len(alphas) > 1 and all(each == alphas[0] for each in alphas):
            raise UsageError(
                "The other rules set the alpha of every tensor that is mixed, so that all alphas give the same "
                "weights. Measure them with one alpha: --alphas 0.5."
            )

    def merge(self, point: Point, output: str | Path) -> MergeOptions:
        """The merge that writes the mixture at a point."""
        return merge_options(self.options, with_point(self.rules, point), output)

    def run(self, points: Sequence[Point]) -> _Found:
        """Measure every mixture on the suite and on the data set for the choice, unless the results file holds it."""
        options = self.options
        analyzed = options.analyze or options.output_ensemble
        alphas = [point.numbers[0] for point in points]
        comparison = PairAnalysis(alphas, options.analyze, options.output_ensemble) if analyzed else None
        measured = self._measure(points, options, comparison)
        judged = to_candidates(measured.records)
        if options.select_on is None:
            chosen = recommend(judged, self.prefer)
        else:
            name, judged_on = column_names(measured.records).get(options.select_on), measured.records
            if name is None:
                held_out = replace(options, suite=options.select_on, reference=None)
                own = self._measure(points, held_out, None)
                judged, name, judged_on = to_candidates(own.records), own.records[0].title, own.records
                measured = replace(measured, notes=tuple(dict.fromkeys((*measured.notes, *own.notes))))
            chosen = selected_on(judged, name)
            if {record.data for record in judged_on} <= {record.data for record in measured.records}:
                chosen = replace(chosen, warning=WARNING)  # the same images, by another name
        self.options = replace(options, redo=False)
        return _Found(measured, judged, chosen)

    def save(self, points: Sequence[Point]) -> tuple[Path, ...]:
        """Write the merged checkpoints, if requested."""
        if self.options.save is None:
            return ()
        alphas = [point.numbers[0] for point in points]
        merged = merge_options(self.options, self.rules, self.options.save)
        return tuple(report.output for report in merge_each(merged, alphas))

    def _measure(self, points: Sequence[Point], options: SweepOptions, comparison: PairAnalysis | None) -> Measured:
        every = [with_point(self.rules, point) for point in points]
        ends = [self.rules.at_end(alpha) for alpha in (0.0, 1.0)]  # by which the pair is known
        self.notes = tuple(dict.fromkeys((*self.notes, *self._weights.prepare((*every, *ends), options.progress))))
        rule = rule_text(merge_options(self.options, self.rules, "FILE"))
        variants = [
            Variant.mixed(self.name, self._weights, point, rules, rule)
            for point, rules in zip(points, every, strict=True)
        ]
        return measure(template(self.pair, make_plan(self.pair, self.rules)), variants, options, comparison)


def _name_of(given: str | Path, pair: Pair) -> str:
    """The name of the zero-shot checkpoint as it was given, also where a head was made for it."""
    return Path(given).name if pair.zeroshot.path.name == WITH_HEAD else pair.zeroshot.path.name


def _unused_name(options: SweepOptions) -> str:
    """A name for the recommended mixture that is not that of an input."""
    inputs = {Path(source).name for source in (options.zeroshot, options.finetuned)}
    return next(
        name for name in ("merged.safetensors", "wise-ft.safetensors", "mixture.safetensors") if name not in inputs
    )


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
