"""The accuracy of a checkpoint on a suite."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from mergekit_wise.checkpoint import closing
from mergekit_wise.evaluation.measure import Measured, measure
from mergekit_wise.evaluation.variants import Variant, reader
from mergekit_wise.merging import read_origin
from mergekit_wise.models.source import open_source
from mergekit_wise.options import EvalKeywords, EvalOptions


def evaluate(checkpoint: str | Path, suite: str = "digits", **options: Unpack[EvalKeywords]) -> Measured:
    """What a checkpoint achieves on the reference and every shift of `suite`, one record each.

    Args:
        checkpoint: holds an image tower, and a classification head or a text tower to make one with.
        suite: names of suites and data sets, or paths of a user's own, with commas between them.
        options: see `EvalOptions`.

    Raises:
        CheckpointError, ModelError, SuiteError, ResultsError, UsageError: what is wrong, and what to do.
    """
    setting = EvalOptions(suite, **options)
    source = open_source(checkpoint)
    with closing(source):
        alpha = (read_origin(source) or {}).get("alpha")
        variant = Variant(source.path.name, alpha if isinstance(alpha, (int, float)) else None, reader(source))
        measured = measure(source, [variant], setting)
    return replace(measured, notes=(*source.notes, *measured.notes))
