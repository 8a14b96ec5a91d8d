"""Evaluate every alpha on a suite and recommend one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.analysis import (
    Candidate,
    Choice,
    Measurements,
    Point,
    as_preference,
    choose,
)
from mergekit_wise.analysis.goal import ERRORS, require_finetuned
from mergekit_wise.api.calibrate import merge_calibrated
from mergekit_wise.api.calibrated_mixture import calibration_of, require_calibratable, two_commands
from mergekit_wise.api.estimation import (
    ESTIMATED,
    WithoutLabels,
    append_lines,
    by_estimates,
    require_estimable,
    without_labels,
)
from mergekit_wise.api.merge import geometry_of, merge, merge_points, merge_rules, opened_fishers, preview
from mergekit_wise.api.mixtures import WITH_HEAD, ZeroShot, match_to_measure, zero_shot_side
from mergekit_wise.api.own_evaluation import mixture_of, open_own_evaluator, uses_own_evaluator
from mergekit_wise.api.per_image import per_image, require_ends, write_per_image
from mergekit_wise.api.sweep_report import SweepReport
from mergekit_wise.api.swept import swept_axes
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Suite
from mergekit_wise.errors import Interrupted, OutputError, ResultsError, SuiteError, Unsaved, UsageError, WiseError
from mergekit_wise.evaluation import joined
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.measure import Measured, measure, require_outside
from mergekit_wise.evaluation.measure_task import measure_task
from mergekit_wise.evaluation.own_evaluator import Mixture, TaskEvaluator
from mergekit_wise.evaluation.own_modules import prepared
from mergekit_wise.evaluation.pair_analysis import PairAnalysis
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Fishers, Pair, Rules, described_by, make_plan, parse_naming
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.merging.parameters import fixed_alpha, grid, notes_on_axes, require_effect, with_point
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
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.soup import notes_on_opposite
from mergekit_wise.option_types import Weights, run, takes
from mergekit_wise.options import MergeOptions, SweepOptions
from mergekit_wise.report.figures import draw_sweep, require_drawable, unshown
from mergekit_wise.results import Record, append_records, choice_of, is_new, read_choices
from mergekit_wise.results.record import column_names, to_candidates
from mergekit_wise.wording import listed, plural

SAME_IMAGES = (
    "is made of the same images as data sets that are reported on, so that what they report is optimistic. Choose on "
    "other images with --select-on."
)


ITEMS = "an evaluator that gives a score for each item lets them be compared"


@takes(SweepOptions)
def sweep(options: SweepOptions) -> SweepReport:
    """Evaluate ``(1 - alpha) * zeroshot + alpha * finetuned`` for every alpha, in one pass over the images.

    With `command` or `evaluator`, what these report is used in place of a suite, for any task: no model is built, and
    checkpoints of any architecture are swept. A command gets the file that `merge` writes, a function a state dict; or,
    if `zeroshot` is a module, a copy of it for each mixture, whose weights are set in place.

    `sweep` names other parameters of the merging rules to vary in place of alpha; two make a grid. The weights are
    those that `merge` would write, bit for bit. `suite` is required; `merge_each` writes mixtures without evaluating
    them. Models and data sets may be in memory, and `transform` is used, as for `evaluate`; a module that is called
    itself is copied, and the weights of each mixture are set in the copy.

    Raises:
        WiseError: as `merge` and `evaluate` do; Unsaved also if the choice or the plot cannot be written, with the
            whole report.
    """
    own = uses_own_evaluator(options)
    if options.suite is None and options.reference is None and not own:
        raise UsageError(
            "Name what to evaluate on with --suite ('wise suites' lists the suites), what evaluates with --command, or "
            "where to write with --save."
        )
    evaluator = open_own_evaluator(options, options.zeroshot) if own else None
    options = options if own else prepared(options)
    axes = swept_axes(options)
    if options.plot is not None:
        _require_plot(options.plot, options, evaluator, is_grid=len(axes) > 1)
    tried = grid(axes)
    _require_choice(options, tried, evaluator)
    require_estimable(options)
    calibration = calibration_of(options)
    if options.dynamic:
        require_ends(tried)
    if options.select_on is not None and not own:
        _require_set(options.select_on, options)
    # Processes that torchrun started can meet only once, however often is measured.
    given, rules = options, merge_rules(options)
    naming = parse_naming(options.like, options.rename)
    with ExitStack() as stack:
        ranks, _ = stack.enter_context(joined(options.device))
        images = () if calibration is None else (require_calibratable(calibration, ranks),)
        zeroshot = ZeroShot(options.zeroshot)
        if not own:
            zeroshot = stack.enter_context(zero_shot_side(options, naming, rules))
        options = replace(options, zeroshot=zeroshot.source)
        first, second, naming = stack.enter_context(
            open_pair(
                options.zeroshot,
                options.finetuned,
                naming,
                base=options.base,
                mmap=options.mmap,
                to_evaluate=options.like is None and not own,
            )
        )
        options = replace(options, like=KEYS[naming.like])  # for the checkpoints that are saved
        unneeded: tuple[str, ...] = ()
        if own:  # any evaluator may need any tensor
            pair = match(first, second, rules, naming, command="sweep")
        else:
            pair, rules, unneeded = match_to_measure(first, second, rules, naming, options)
        _, unusual = geometry_of(pair, rules, options)
        require_effect(axes, rules, pair.names, pair.finetuned.source)
        fishers = stack.enter_context(opened_fishers(options, pair))
        name = f"{_name_of(given.zeroshot, pair)} + {pair.finetuned.path.name}"
        work = _Sweep(pair, rules, fishers, options, name, ranks, evaluator)
        saves = ranks.rank == 0
        if options.output is not None:
            run(preview, work.merge(tried[0], options.output))
            require_outside([options.output], (*(() if own else _suite(options).datasets), *images))
        saved = work.save(tried) if saves else ()
        with _naming_saved(saved):
            found = work.run(tried)
        added = found.measured.added
        while options.refine and (between := found.choice.finer):
            tried = tuple(sorted({*tried, *between}))
            with _naming_saved(saved):
                saved += work.save(between) if saves else ()
                found = work.run(tried)
            added += found.measured.added
        plan = make_plan(pair, rules)
        notes = (
            *notes_on_axes(axes, rules),
            *zeroshot.notes,
            *notes_on_reading(pair),
            *unneeded,
            *unusual,
            *notes_on_order(pair),
            *(() if options.model else notes_on_preprocessing(pair, described_by(pair, plan))),
            *notes_on_plan(pair, rules, plan),
            *work.notes,
            *notes_on_opposite(pair.finetuned, [step.info.name for step in plan if step.action == "mix"]),
        )
        chosen = work.merge(found.choice.recommendation.point, options.output or _unused_name(options))
        written: tuple[Path, ...] = ()
        calibrated, failure = None, ""
        if options.output is not None and saves:
            try:
                if calibration is None:
                    written = (run(merge, chosen).output,)
                else:
                    calibrated = merge_calibrated(chosen, calibration)
                    written, notes = (calibrated.output,), (*notes, *calibrated.notes)
            except WiseError as error:
                failure = str(error)
        typed = replace(chosen, zeroshot=WITH_HEAD if zeroshot.command else given.zeroshot)
        # Where calibrating failed, it would fail again: the line then makes the mixture alone.
        line = merge_command(typed) if calibration is None or failure else two_commands(typed, calibration)
        if zeroshot.command:
            line = f"{zeroshot.command} && {line}"
    measured, candidates = found.measured, found.candidates
    if len(candidates) > 1 and len({record.weights for record in measured.records}) == 1:
        notes += (SAME,)
    said: list[str] = []
    dynamic = per_image(measured, tried, said.append) if options.dynamic else ()
    if options.plot is not None and saves:
        said += unshown(record.title for record in measured.records)
    report = SweepReport(
        measured.records,
        candidates,
        found.choice,
        measured.analyses,
        measured.missing,
        added,
        (*notes, *measured.notes, *(found.without_labels.notes if found.without_labels else ()), *said),
        (*saved, *written),
        measured.answers,
        found.without_labels,
        dynamic,
        line,
        calibrated,
    )
    if failure:
        raise Unsaved(failure, report)
    if options.results is not None and saves:
        try:
            _write_choice(options.results, report.records, report.choice, report.merge_command)
            if found.without_labels is not None:
                append_lines(found.without_labels, options.results)
            if dynamic:
                write_per_image(options.results, dynamic, measured)
        except ResultsError as error:
            raise Unsaved(str(error), report) from error
    if options.plot is not None and saves:
        try:
            draw_sweep(report.records, report.recommendation, options.plot)
        except OutputError as error:
            raise Unsaved(str(error), report) from error
    return report


@contextmanager
def _naming_saved(saved: Sequence[Path]) -> Iterator[None]:
    """Let an interruption name the merged models that were written."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not saved:
            raise
        text = f"{error or 'Interrupted.'} {plural(len(saved), 'merged model')} written: {listed(saved)}."
        raise Interrupted.of(error, text) from error


@dataclass(frozen=True, slots=True)
class _Found:
    """The measurements, the candidates that they make, the choice among these, and estimates without labels."""

    measured: Measured
    candidates: tuple[Candidate, ...]
    choice: Choice
    without_labels: WithoutLabels | None


class _Sweep:
    """A pair whose mixtures are measured, again whenever some are added."""

    def __init__(
        self,
        pair: Pair,
        rules: Rules,
        fishers: Fishers | None,
        options: SweepOptions,
        name: str,
        ranks: Ranks,
        evaluator: TaskEvaluator | None,
    ) -> None:
        self.pair, self.rules, self.options, self.name, self.ranks = pair, rules, options, name, ranks
        self.evaluator = evaluator
        plan = make_plan(pair, rules)
        recalibration = None
        if options.recalibrate is not None:
            from mergekit_wise.evaluation.recalibration import open_recalibration

            recalibration = open_recalibration(options, pair, plan)
        self._weights = InterpolatedWeights(pair, fishers, recalibration)
        self.notes: tuple[str, ...] = () if recalibration is not None else tuple(notes_on_batch_norm(pair, plan))

    def merge(self, point: Point, output: str | Path | None) -> MergeOptions:
        """The merge that writes the mixture at a point; without an output, in memory."""
        return merge_options(self.options, with_point(self.rules, point), output)

    def run(self, points: Sequence[Point]) -> _Found:
        """Measure every mixture on the suite and on the data set for the choice, unless the results file holds it."""
        options = self.options
        analyzed = options.analyze or options.output_ensemble
        alphas = [point.alpha for point in points if point.alpha is not None]  # `swept_axes` allows no others
        comparison = PairAnalysis(alphas, options.analyze, options.output_ensemble) if analyzed else None
        measured = self._measure(points, options, comparison, options.unlabelled)
        estimates = without_labels(measured, points, options) if options.unlabelled else None
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
        estimated = estimates is not None and options.prefer == ESTIMATED
        choice = choose(
            found,
            prefer="average" if estimated else options.prefer,
            margin=(options.margin or 0) / 100,
            cross_fit="off" if estimated else options.cross_fit,
            select_on=name,
            selected=selected,
            remedy="--redo measures them" if self.evaluator is None else ITEMS,
        )
        if selected is not None and own.records[0].same_images in {
            record.same_images for record in measured.records
        } - {""}:
            warned = replace(choice.recommendation, warning=f"{name} {SAME_IMAGES}")
            choice = replace(choice, recommendation=warned)
        if estimates is not None and estimated:
            recommended, finer = by_estimates(estimates)
            choice = replace(choice, prefer=ESTIMATED, recommendation=recommended, finer=finer)
        self.options = replace(options, redo=False)
        # What is added next must be the same in all processes.
        return _Found(measured, found.candidates, self.ranks.share(choice), estimates)

    def save(self, points: Sequence[Point]) -> tuple[Path, ...]:
        """Write the merged checkpoints, if requested."""
        if self.options.save is None:
            return ()
        merged = merge_options(self.options, self.rules, self.options.save)
        return tuple(report.output for report in merge_points(merged, points))

    def _measure(
        self,
        points: Sequence[Point],
        options: SweepOptions,
        comparison: PairAnalysis | None,
        unlabelled: Sequence[Path] = (),
    ) -> Measured:
        every = [with_point(self.rules, point) for point in points]
        ends = [self.rules.at_end(alpha) for alpha in (0.0, 1.0)]  # by which the pair is known
        self.notes = tuple(dict.fromkeys((*self.notes, *self._weights.prepare((*every, *ends), options.progress))))
        others = rule_text(merge_options(self.options, self.rules, "FILE"))
        variants = [
            Variant.mixed(self.name, self._weights, point, rules, f"{fixed_alpha(self.rules, point)} {others}".strip())
            for point, rules in zip(points, every, strict=True)
        ]
        layout = template(self.pair, make_plan(self.pair, self.rules))
        if self.evaluator is None:
            return measure(layout, variants, options, comparison, unlabelled)
        merges = {rules: self.merge(point, None) for point, rules in zip(points, every, strict=True)}

        def mixture(variant: Variant) -> Mixture:
            return mixture_of(merges[variant.rules], options.results, layout, variant)

        return measure_task(self.evaluator, layout, variants, mixture, options)


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


def _require_choice(options: SweepOptions, tried: Sequence[Point], evaluator: TaskEvaluator | None) -> None:
    """Raise UsageError now if the options for the choice do not fit together."""
    if options.prefer != ESTIMATED:
        as_preference(options.prefer)
    if options.margin is not None and options.prefer != "no-regret":
        raise UsageError(f"--margin is what --prefer no-regret may lose; --prefer is {options.prefer}. Leave one out.")
    if options.select_on is not None and options.prefer != "average":
        raise UsageError(
            f"--select-on chooses by the result on one data set, not by --prefer {options.prefer}. Leave one out."
        )
    if options.prefer in ERRORS and len(tried) < 2:
        raise UsageError(f"--prefer {options.prefer} compares mixtures, and one alone is evaluated. Add others.")
    if options.prefer == "no-regret":
        has_reference = bool(evaluator.reference) if evaluator is not None else _suite(options).reference is not None
        if has_reference:
            require_finetuned(tried)
    if options.cross_fit != "leave-one-out":
        return
    if options.prefer == "reference":
        raise UsageError("--cross-fit leave-one-out leaves shifts out of the choice; --prefer reference looks at none.")
    if options.select_on is not None:
        raise UsageError("--select-on chooses on one data set alone; --cross-fit leave-one-out needs the shifts.")
    if evaluator is None and len(_suite(options).shifts) < 2:
        raise UsageError("--cross-fit leave-one-out needs at least two shifts. Name more with --suite.")


def _name_of(given: Weights, pair: Pair) -> str:
    """The name of the zero-shot checkpoint as it was given, also where a head was made for it."""
    return Path(str(given)).name if pair.zeroshot.path.name == WITH_HEAD else pair.zeroshot.path.name


def _unused_name(options: SweepOptions) -> str:
    """A name for the recommended mixture that is not that of an input, and a new folder if all inputs are folders."""
    sources = [Path(str(source)) for source in (options.zeroshot, *(options.soup or (options.finetuned,)))]
    is_folder = options.calibrate is None and all(source.is_dir() for source in sources)
    names = [stem if is_folder else f"{stem}.safetensors" for stem in ("merged", "wise-ft", "mixture")]
    taken = {source.name for source in sources}
    unused = [name for name in names if name not in taken and not (is_folder and Path(name).exists())]
    return unused[0] if unused else names[-1]


def _write_choice(path: Path, records: Sequence[Record], choice: Choice, merge_command: str) -> None:
    """Add the choice to the results file, so that a report draws it, unless it is the last one there."""
    written = choice_of(records, choice, merge_command)
    if is_new(written, read_choices(path)):
        append_records(path, [written])


def _require_plot(path: Path, options: SweepOptions, evaluator: TaskEvaluator | None, *, is_grid: bool) -> None:
    """Raise OutputError now if no plot can be drawn, rather than when everything is measured."""
    require_drawable(path)
    if evaluator is not None:
        if not is_grid and not evaluator.reference:
            raise OutputError(f"--plot {path}: the plot needs a reference and a shift; name one with --reference.")
        return
    suite = _suite(options)
    if not is_grid and (suite.reference is None or not suite.shifts):
        lacks = "has no shift" if suite.reference else "has no reference; name one with --reference"
        raise OutputError(f"--plot {path}: the plot needs a reference and a shift, and {suite.name} {lacks}.")
    require_outside([path], suite.datasets)


def _require_set(name: str, options: SweepOptions) -> None:
    """Raise SuiteError now if there is no such data set to choose on, rather than when everything is measured."""
    if name in [dataset.name for dataset in _suite(options).datasets]:
        return
    try:
        held_out = open_suite(name, options.data, strict=True, keep=options.cache).datasets
    except SuiteError as error:
        raise SuiteError(f"--select-on {name}: {error}") from error
    if len(held_out) > 1:
        listed = ", ".join(dataset.name for dataset in held_out)
        raise SuiteError(f"--select-on {name}: expected one data set, found {len(held_out)}: {listed}.")


def _suite(options: SweepOptions) -> Suite:
    return open_suite(
        options.suite or "", options.data, reference=options.reference, strict=options.strict, keep=options.cache
    )
