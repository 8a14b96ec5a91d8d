"""The accuracy of a checkpoint on a suite."""

from dataclasses import replace

from mergekit_wise.analysis import Point
from mergekit_wise.checkpoint import closing
from mergekit_wise.evaluation.measure import Measured, measure
from mergekit_wise.evaluation.own_modules import prepared
from mergekit_wise.evaluation.variants import Variant, reader
from mergekit_wise.merging import read_origin
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import DIGITS, EvalOptions


@takes(EvalOptions)
def evaluate(options: EvalOptions) -> Measured:
    """Measure what a checkpoint achieves on the reference and every shift of a suite, one record each.

    The checkpoint may be a module or a state dict, and `suite` and `reference` data sets in memory. With `transform`, a
    function PIL image -> float tensor [C, H, W], images are preprocessed by it, and a module that gives logits is
    called itself, in evaluation mode; it is left as it was.

    Raises:
        CheckpointError, ModelError, SuiteError, ResultsError, UsageError: what is wrong, and what to do.
        Unsaved: a file cannot be written; `found` is what was measured before, as it would be returned.
    """
    if options.suite is None and options.reference is None:
        options = replace(options, suite=DIGITS)
    options = prepared(options)
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source):
        alpha = (read_origin(source) or {}).get("alpha")
        point = Point.of_alpha(alpha) if isinstance(alpha, (int, float)) else None
        variant = Variant(source.path.name, point, reader(source))
        measured = measure(source, [variant], options)
    return replace(measured, notes=(*source.notes, *measured.notes))
