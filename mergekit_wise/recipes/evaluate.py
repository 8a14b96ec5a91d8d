"""The accuracy of a checkpoint on a suite."""

from pathlib import Path

from mergekit_wise.checkpoint import closing
from mergekit_wise.merging import read_origin
from mergekit_wise.models.classifier import weight_names
from mergekit_wise.progress import Progress, silent
from mergekit_wise.recipes.measure import Setting, Variant, Weights, measure
from mergekit_wise.recipes.source import open_source
from mergekit_wise.results import Record, append_records


def evaluate(
    checkpoint: str | Path,
    suite: str = "digits",
    *,
    model: str | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    results: Path | None = None,
    progress: Progress = silent,
) -> tuple[Record, ...]:
    """Top-1 accuracy on the reference and every shift of `suite`, one record each.

    Args:
        checkpoint: holds an image tower and a classification head.
        suite: name of a suite.
        model: the open_clip architecture, where the checkpoint does not say it.
        device: a torch device.
        batch_size: images at a time; another size changes nothing beyond rounding.
        results: a JSON Lines file to append the records to.
        progress: called as work goes on.

    Raises:
        CheckpointError, ModelError, SuiteError, ResultsError: what is wrong, and what to do.
    """
    source = open_source(checkpoint)
    with closing(source):
        origin = read_origin(source) or {}
        alpha = origin.get("alpha")

        def weights() -> Weights:
            return {name: (source.info(name), source.read(name)) for name in weight_names(source)}

        variant = Variant(source.path.name, alpha if isinstance(alpha, (int, float)) else None, weights)
        setting = Setting(suite, model, device, batch_size, progress)
        records = measure(source, [variant], setting)
    if results is not None:
        append_records(results, records)
    return records
