"""Measures rules of the literature that look at the weights alone, each beside mixtures that only have its size."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mergekit_wise.analysis import Estimate, Point
from mergekit_wise.analysis.candidate import SHIFTS
from mergekit_wise.analysis.decision import excludes_zero
from mergekit_wise.analysis.paired import Evidence, evidence
from mergekit_wise.api.merge import merge_rules
from mergekit_wise.api.mixtures import WITH_HEAD, ZeroShot, match_to_measure, zero_shot_side
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Missing
from mergekit_wise.errors import OutputError, ResultsError, Unsaved, UsageError
from mergekit_wise.evaluation.measure import Measured, measure, require_outside
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant
from mergekit_wise.merging import Pair, Rules, make_plan, parse_naming
from mergekit_wise.merging.data_free import DataFreeRule, data_free_rules
from mergekit_wise.merging.naming import KEYS
from mergekit_wise.models.merge_command import merge_command, merge_options
from mergekit_wise.models.pair_notes import notes_on_order, notes_on_reading, template
from mergekit_wise.models.pairing import open_pair
from mergekit_wise.option_types import as_dataclass, takes
from mergekit_wise.options import RulesOptions, SweepOptions
from mergekit_wise.report.figures import require_drawable
from mergekit_wise.report.frames import estimate_columns
from mergekit_wise.report.rules_figure import draw_rules, rules_figure
from mergekit_wise.report.rules_table import rules_table
from mergekit_wise.report.table import Table
from mergekit_wise.results import Record
from mergekit_wise.results.record import column_names
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.figures import Figure

ALPHAS = tuple(step / 10 for step in range(11))
"""The single alphas that are measured as well: the curve that a rule must lie above."""

COLUMNS = ("reference", "shifts")


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What a rule achieves.

    Attributes:
        name: of the rule.
        size: ||update|| / ||D||, of the update that it makes of D = theta_1 - theta_0.
        values: the reference, then the average of the shifts, each with its 95 % interval; without what is not there.
        control: the name of the mixture that only shrinks D to this size; None for a control itself.
        gains: what the rule achieves more than its control, image by image, with paired 95 % intervals; empty for a
            control.
        merge_command: the line of ``wise merge`` that makes this mixture; empty if none or a very long one does.
    """

    name: str
    size: float
    values: tuple[Estimate, ...]
    control: str | None
    gains: tuple[Estimate, ...]
    merge_command: str

    @property
    def significant(self) -> tuple[bool, ...]:
        """Whether each gain's interval excludes zero."""
        return tuple(map(excludes_zero, self.gains))


@dataclass(frozen=True, slots=True, repr=False)
class RulesReport(ResultObject):
    """What `rules` measured.

    Attributes:
        results: of the rules and their controls.
        curve: the reference and the average of the shifts at each of `ALPHAS`.
        columns: the names of the numbers in both.
        records: of every mixture on every data set.
        missing: data sets of the suite that were not found.
        added: how many records are new.
        notes: on how files were read, and what was measured.
    """

    results: tuple[RuleResult, ...]
    curve: tuple[tuple[Estimate, ...], ...]
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    missing: tuple[Missing, ...]
    added: int
    notes: tuple[str, ...]

    def plot(self) -> "Figure":
        """The figure that the option `plot` writes; it is not shown, and pyplot does not know of it.

        Raises ResultsError if no reference or no shift was measured.
        """
        if self.columns != COLUMNS:
            raise ResultsError("The plot needs a reference and a shift, and one of the two was not measured.")
        return rules_figure(self.curve, self.results)

    def _summary(self) -> str:
        tried = [each for each in self.results if each.gains]
        better = sum(any(each.significant) for each in tried)
        sets = len({record.dataset for record in self.records})
        return (
            f"{plural(len(tried), 'rule')} on {plural(sets, 'data set')}, {better} with a significant difference from "
            "a mixture of the same size"
        )

    def _entry(self) -> Mapping[str, Any]:
        return {"columns": self.columns, "rules": list(map(asdict, self.results))}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for each in self.results:
            row: dict[str, Any] = {"rule": each.name, "size": each.size, "control": each.control}
            for name, value in zip(self.columns, each.values, strict=True):
                row |= estimate_columns(value, f"{name}_")
            for name, gain in zip(self.columns, each.gains, strict=False):
                row |= estimate_columns(gain, f"{name}_gain_")
            yield row

    def _tables(self) -> Sequence[Table]:
        return [replace(rules_table(self.results, self.columns), title=self.title)]

    @property
    def title(self) -> str:
        """What the numbers of the table are."""
        return f"Rules on {self.records[0].suite} (%; gains in points)"


@takes(RulesOptions)
def rules(options: RulesOptions) -> RulesReport:
    """Measure rules that look at the weights alone, and for each a mixture that only shrinks the update to its size.

    See `merging.data_free` for the rules. All are evaluated in one pass over the images, with single alphas from 0 to
    1. Raises WiseError, as `sweep` does; Unsaved if the plot cannot be written, with the report.
    """
    if options.suite is None and options.reference is None:
        raise UsageError("Name what to evaluate on with --suite ('wise suites' lists the suites).")
    if options.plot is not None:
        require_drawable(options.plot)
        suite = open_suite(
            options.suite or "",
            options.data,
            reference=options.reference,
            strict=options.strict,
            keep=options.cache,
        )
        if suite.reference is None or not suite.shifts:
            raise OutputError(f"--plot {options.plot}: the plot needs a reference and a shift. Name one --reference.")
        require_outside([options.plot], suite.datasets)
    asked = _as_sweep(options)
    base, naming = replace(merge_rules(asked), alpha=options.alpha), parse_naming(options.like, options.rename)
    with ExitStack() as stack:
        zeroshot = stack.enter_context(zero_shot_side(asked, naming, base))
        first, second, naming = stack.enter_context(
            open_pair(
                zeroshot.source,
                options.finetuned,
                naming,
                base=options.base,
                mmap=options.mmap,
                to_evaluate=options.like is None,
            )
        )
        pair, base, unneeded = match_to_measure(first, second, base, naming, asked)
        every = data_free_rules(pair, base, options.progress)
        measured = measure(template(pair, make_plan(pair, base)), _variants(pair, base, every), asked)
        notes = (*zeroshot.notes, *notes_on_reading(pair), *unneeded, *notes_on_order(pair))
        given = replace(asked, like=KEYS[naming.like])
        lines = {rule.name: _line(rule, given, zeroshot) for rule in every}
    report = _report(measured, every, lines, notes)
    if options.plot is not None:
        try:
            draw_rules(report.curve, report.results, options.plot)
        except OutputError as error:
            raise Unsaved(str(error), report) from error
    return report


def _as_sweep(options: RulesOptions) -> SweepOptions:
    """The options of a sweep of single alphas on the same pair and suite."""
    shared = {each.name for each in fields(as_dataclass(SweepOptions))} & {each.name for each in fields(options)}
    return SweepOptions(**{name: getattr(options, name) for name in shared - {"alpha", "plot"}})


def _line(rule: DataFreeRule, options: SweepOptions, zeroshot: ZeroShot) -> str:
    """The line of ``wise merge`` that makes a rule's mixture; empty if it would name every tensor."""
    if not rule.is_short:
        return ""
    merged = merge_options(options, rule.rules, "merged.safetensors")
    if zeroshot.command:
        return f"{zeroshot.command} && {merge_command(replace(merged, zeroshot=WITH_HEAD))}"
    return merge_command(merged)


def _variants(pair: Pair, base: Rules, every: Sequence[DataFreeRule]) -> list[Variant]:
    """The single alphas, then the rules; those of one pair share what is kept of its weights."""
    name = f"{pair.zeroshot.path.name} + {pair.finetuned.path.name}"
    weights = {id(pair): InterpolatedWeights(pair)}
    found = [
        Variant.mixed(name, weights[id(pair)], Point.of_alpha(alpha), replace(base, alpha=alpha)) for alpha in ALPHAS
    ]
    for rule in every:
        own = weights.setdefault(id(rule.pair), InterpolatedWeights(rule.pair))
        found.append(Variant(f"{name}: {rule.name}", None, partial(own.read, rule.rules), own, rule.rules))
    return found


def _report(
    measured: Measured, every: Sequence[DataFreeRule], lines: Mapping[str, str], notes: Sequence[str]
) -> RulesReport:
    answers = [each for each in measured.answers if each.role != "companion"]
    sets = {record.dataset for record in measured.records}
    if {each.dataset for each in answers} != sets:
        raise UsageError(
            "The results file holds results without the answers for each image, which rules are compared by. Run the "
            "same command with --redo."
        )
    found = evidence(answers, column_names(measured.records))
    places = _places(found, any(each.role == "reference" for each in answers))
    rows = {rule.name: number for number, rule in enumerate(every, len(ALPHAS))}

    def values(number: int) -> tuple[Estimate, ...]:
        return tuple(found.estimate(place, number) for place in places.values())

    def gains(rule: DataFreeRule) -> tuple[Estimate, ...]:
        if rule.control is None:
            return ()
        return tuple(found.difference(place, rows[rule.name], rows[rule.control]) for place in places.values())

    results = tuple(
        RuleResult(rule.name, rule.size, values(rows[rule.name]), rule.control, gains(rule), lines[rule.name])
        for rule in every
    )
    curve = tuple(values(number) for number in range(len(ALPHAS)))
    said = (*notes, *measured.notes)
    return RulesReport(results, curve, tuple(places), measured.records, measured.missing, measured.added, said)


def _places(found: Evidence, has_reference: bool) -> dict[str, int]:
    """The columns of the reference and of the shifts' average, or of the only shift."""
    places = {"reference": 0} if has_reference else {}
    if SHIFTS in found.columns:
        places["shifts"] = found.columns.index(SHIFTS)
    elif len(found.columns) > has_reference:
        places["shifts"] = int(has_reference)
    return places
