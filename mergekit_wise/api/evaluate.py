"""The accuracy of a checkpoint on a suite, or what an evaluator of one's own says of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mergekit_wise.analysis import Point
from mergekit_wise.api.own_evaluation import model_of, open_own_evaluator, uses_own_evaluator
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import closing
from mergekit_wise.errors import Unsaved
from mergekit_wise.evaluation.measure import Measured, measure
from mergekit_wise.evaluation.measure_task import measure_task
from mergekit_wise.evaluation.own_modules import prepared
from mergekit_wise.evaluation.variants import Variant, reader
from mergekit_wise.merging import read_origin
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import DIGITS, EvalOptions
from mergekit_wise.report.frames import record_rows
from mergekit_wise.report.table import Table, percent
from mergekit_wise.report.terminal_tables import accuracy_table
from mergekit_wise.results import as_entry
from mergekit_wise.wording import listed, plural


@dataclass(frozen=True, slots=True, repr=False)
class EvalReport(ResultObject, Measured):
    """What a checkpoint achieves; see `Measured` for the attributes."""

    def _summary(self) -> str:
        first = self.records[0]
        results = listed((f"{each.title} {percent(each.value)} %" for each in self.records), 3)
        return f"{first.model} on {plural(len(self.records), 'data set')}, {results}"

    def _entry(self) -> Mapping[str, Any]:
        return {"records": list(map(as_entry, self.records)), "notes": self.notes}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return record_rows(self.records)

    def _tables(self) -> Sequence[Table]:
        first = self.records[0]
        table = accuracy_table(self.records, len(self.missing))
        return [replace(table, title=f"{first.model} on {first.suite} (%)")]


@takes(EvalOptions)
def evaluate(options: EvalOptions) -> EvalReport:
    """Measure what a checkpoint achieves on the reference and every shift of a suite, one record each.

    With `command` or `evaluator`, on the data sets that these report: no model is built, and the checkpoint may be any.
    A function gets a state dict, or the module itself if `checkpoint` is one.

    The checkpoint may be a module or a state dict, and `suite` and `reference` data sets in memory. With `transform`, a
    function PIL image -> float tensor [C, H, W], images are preprocessed by it, and a module that gives logits is
    called itself, in evaluation mode; it is left as it was.

    Raises:
        CheckpointError, ModelError, SuiteError, ResultsError, UsageError: what is wrong, and what to do.
        Unsaved: a file cannot be written; `found` is what was measured before, as it would be returned.
    """
    own = uses_own_evaluator(options)
    if options.suite is None and options.reference is None and not own:
        options = replace(options, suite=DIGITS)
    options = options if own else prepared(options)
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source):
        alpha = (read_origin(source) or {}).get("alpha")
        point = Point.of_alpha(alpha) if isinstance(alpha, (int, float)) else None
        variant = Variant(source.path.name, point, reader(source))
        try:
            if own:
                evaluator = open_own_evaluator(options, options.checkpoint)
                given = partial(model_of, options.checkpoint, options.results, source)
                measured = measure_task(evaluator, source, [variant], given, options)
            else:
                measured = measure(source, [variant], options)
        except Unsaved as error:
            error.found = EvalReport.of(error.found)
            raise
    return EvalReport.of(replace(measured, notes=(*source.notes, *measured.notes)))
