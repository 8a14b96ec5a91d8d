"""The accuracy of a checkpoint on a suite, or what an evaluator of one's own says of it."""

from dataclasses import replace
from functools import partial

from mergekit_wise.analysis import Point
from mergekit_wise.api.own_evaluation import model_of, open_own_evaluator, uses_own_evaluator
from mergekit_wise.checkpoint import closing
from mergekit_wise.evaluation.measure import Measured, measure
from mergekit_wise.evaluation.measure_task import measure_task
from mergekit_wise.evaluation.variants import Variant, reader
from mergekit_wise.merging import read_origin
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import DIGITS, EvalOptions


@takes(EvalOptions)
def evaluate(options: EvalOptions) -> Measured:
    """Measure what a checkpoint achieves on the reference and every shift of a suite, one record each.

    With `command` or `evaluator`, on the data sets that these report: no model is built, and the checkpoint may be any.
    A function gets a state dict, or the module itself if `checkpoint` is one.

    Raises:
        CheckpointError, ModelError, SuiteError, ResultsError, UsageError: what is wrong, and what to do.
        Unsaved: a file cannot be written; `found` is what was measured before, as it would be returned.
    """
    own = uses_own_evaluator(options)
    if options.suite is None and options.reference is None and not own:
        options = replace(options, suite=DIGITS)
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source):
        alpha = (read_origin(source) or {}).get("alpha")
        point = Point.of_alpha(alpha) if isinstance(alpha, (int, float)) else None
        variant = Variant(source.path.name, point, reader(source))
        if own:
            evaluator = open_own_evaluator(options, options.checkpoint)
            given = partial(model_of, options.checkpoint, options.results, source)
            measured = measure_task(evaluator, source, [variant], given, options)
        else:
            measured = measure(source, [variant], options)
    return replace(measured, notes=(*source.notes, *measured.notes))
