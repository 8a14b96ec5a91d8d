"""Write a checkpoint whose logits are divided by the temperature that calibrates them on a data set."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mergekit_wise import __version__, launcher
from mergekit_wise.api.merge import merge
from mergekit_wise.api.placing import place_of, placed, require_apart
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import Checkpoint, closing, require_folder, writing_output
from mergekit_wise.checkpoint.derived import InMemory
from mergekit_wise.checkpoint.writing import uninterrupted
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import limited, with_pixel_limit
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.evaluation.evaluator import open_evaluator
from mergekit_wise.evaluation.temperature import Fit, fit_temperature, require_single_labels
from mergekit_wise.evaluation.variants import checkpoint_fingerprint
from mergekit_wise.merging import Mixer, Pair, Rules, Sink, make_plan, open_backend
from mergekit_wise.merging.provenance import CALIBRATED, read_calibrations
from mergekit_wise.merging.stream import stream
from mergekit_wise.models.architecture import with_named_config
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import run, takes
from mergekit_wise.options import CalibrateOptions, EvalOptions, FisherOptions, MergeOptions
from mergekit_wise.report.calibration_tables import before_and_after
from mergekit_wise.report.reliability_figure import reliability_figure
from mergekit_wise.report.table import Table, percent
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.figures import Figure


@dataclass(frozen=True, slots=True, repr=False)
class CalibrateReport(ResultObject):
    """What `calibrate` did.

    Attributes:
        output: the file or folder that was written.
        dataset: the title of the data set.
        fit: the temperature, and calibration and accuracy before and after.
        notes: what was decided on the way, one sentence each.
    """

    output: Path
    dataset: str
    fit: Fit
    notes: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """The temperature and what it changes."""
        fit = self.fit
        both = {"before": dict(fit.before.values), "after": dict(fit.after.values)}
        counts = {"images": fit.images, "correct": list(fit.correct), "changed": fit.changed}
        return {"temperature": fit.temperature, **counts, **both}

    @property
    def title(self) -> str:
        """What the numbers of the table are."""
        return f"Calibration on {self.dataset} ({plural(self.fit.images, 'image')})"

    def plot(self) -> "Figure":
        """The reliability diagram before and after; it is not shown, and pyplot does not know of it."""
        return reliability_figure(self.fit.before, self.fit.after, self.title)

    def _summary(self) -> str:
        found = (each.values.get("ece") for each in (self.fit.before, self.fit.after))
        before, after = ("unknown" if value is None else f"{percent(value)} %" for value in found)
        name = self.output.name
        return f"{name}, T = {self.fit.temperature:.4f} on {self.dataset}, ECE {before} before, {after} after"

    def _entry(self) -> Mapping[str, Any]:
        return {"output": self.output, **self.numbers}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        both = (("before", 1.0, self.fit.before), ("after", self.fit.temperature, self.fit.after))
        for (when, temperature, found), correct in zip(both, self.fit.correct, strict=True):
            counts = {"images": self.fit.images, "correct": correct}
            yield {"when": when, "temperature": temperature, **counts, **found.values}

    def _tables(self) -> Sequence[Table]:
        return [replace(before_and_after(self.fit.before, self.fit.after), title=self.title)]


@takes(CalibrateOptions)
def calibrate(options: CalibrateOptions) -> CalibrateReport:
    """Write a checkpoint with its head divided by one temperature, fitted by the NLL on a data set.

    Weight and bias of the last linear layer are divided, or the ``logit_scale`` of a CLIP without head; all other
    tensors are copied. No prediction changes, except between classes that rounding to the head's dtype makes equal,
    which is counted. That is checked image for image before the output appears.

    Raises:
        CheckpointError, ModelError, SuiteError, UsageError, OutputError: what is wrong, and what to do.
    """
    if launcher.world_size() > 1:
        raise UsageError("wise calibrate runs in one process. Start it without torchrun.")
    require_folder(Path(options.output))
    dataset = calibration_dataset(options)
    source = open_source(options.checkpoint, mmap=options.mmap)
    notes = [*source.notes]
    with closing(source):
        if options.model:
            source = with_named_config(source, options.model)
        with open_evaluator(source, _evaluation(options), ALONE, options.device, notes.append) as evaluator:
            notes += [*evaluator.heads.require([dataset]), *dataset.titled_notes]
            fit = fit_temperature(evaluator, source, dataset)
            used = frozenset(evaluator.model.names)
        from mergekit_wise.evaluation.image_batches import notes_on_bad

        notes += notes_on_bad(dataset, fit.bad)
        if fit.changed:
            notes.append(
                f"{plural(fit.changed, 'prediction')} of {fit.images:,} changed, between classes that rounding the "
                "head to its dtype made equal or nearly so"
            )
        notes += _write(_calibrated(source, dataset, fit), options, used)
    return CalibrateReport(Path(options.output), dataset.title, fit, tuple(dict.fromkeys(notes)))


def calibration_dataset(options: CalibrateOptions) -> Dataset:
    """The data set that the temperature is fitted on. Raises SuiteError, UsageError if there are several."""
    dataset = dataset_of(options)
    require_single_labels(dataset)
    return dataset


def dataset_of(options: CalibrateOptions | FisherOptions) -> Dataset:
    """The one data set that ``--on`` names, or the reference of a suite. Raises SuiteError, UsageError."""
    suite = open_suite(
        options.on,
        options.data,
        strict=True,
        classnames=options.classnames,
        templates=options.templates,
        keep=options.cache,
    )
    suite = with_pixel_limit(suite, options.max_pixels)
    datasets = suite.datasets if suite.reference is None else (suite.reference,)
    if len(datasets) > 1:
        names = ", ".join(dataset.name for dataset in datasets)
        raise UsageError(f"{options.on}: expected one data set, found {len(datasets)}: {names}.")
    return datasets[0] if options.limit is None else limited(datasets[0], options.limit, options.seed)


def _evaluation(options: CalibrateOptions) -> EvalOptions:
    """How the model is evaluated."""
    return EvalOptions(
        options.checkpoint,
        model=options.model,
        templates=options.templates,
        image_size=options.image_size,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
        cache_images=options.cache_images,
        max_bad=options.max_bad,
        cache=options.cache,
        mmap=options.mmap,
        progress=options.progress,
    )


def _calibrated(source: Checkpoint, dataset: Dataset, fit: Fit) -> Checkpoint:
    """The checkpoint with the changed tensors, and a record of what was done in its metadata."""
    record = {
        "version": __version__,
        "temperature": fit.temperature,
        "dataset": dataset.name,
        "images": fit.images,
        "data": fingerprint(dataset),
        "tensors": {name: sha256(elements.tobytes()).hexdigest() for name, elements in sorted(fit.tensors.items())},
        "source_sha256": source.digest,
    }
    changed = {name: InMemory(source.info(name), elements) for name, elements in fit.tensors.items()}
    metadata = {"format": "pt", **source.metadata, CALIBRATED: json.dumps([*read_calibrations(source), record])}
    return replace(source, tensors={**source.tensors, **changed}, metadata=metadata)


def _write(checkpoint: Checkpoint, options: CalibrateOptions, used: frozenset[str]) -> tuple[str, ...]:
    """Write a checkpoint where a merge of it would be written; returns notes on the place."""
    pair = Pair(checkpoint, checkpoint, tuple(checkpoint.tensors))
    steps = make_plan(pair, Rules(alpha=0.0))
    where = MergeOptions(options.checkpoint, options.checkpoint, options.output, shard_size=options.shard_size)
    place = place_of(where, pair, steps)
    with ExitStack() as stack:
        with uninterrupted():
            plan = stack.enter_context(placed(place, where, steps, checkpoint.metadata))
            require_apart(plan, (checkpoint,))
            output = stack.enter_context(writing_output(plan))
        by_name = {step.info.name: step for step in steps}
        sink = Sink([by_name[info.name] for info in plan.infos], output.put)
        stream(Mixer(pair, open_backend("cpu")), [sink], options.progress)
    written = open_source(place.folder or plan.index or place.weights, mmap=options.mmap)
    with closing(written):
        if checkpoint_fingerprint(written, used) != checkpoint_fingerprint(checkpoint, used):
            raise OutputError(f"{options.output}: does not hold what was evaluated. Check the disk.")
    return place.notes


def merge_calibrated(options: MergeOptions, calibration: CalibrateOptions) -> CalibrateReport:
    """Merge, and write the merged model calibrated: for a sweep that writes its best mixture.

    The merged model is written beside the output first, for the time that it is evaluated. `calibration` says on what;
    its checkpoint and output are those of the merge. Raises what `merge` and `calibrate` raise.
    """
    output = options.output
    assert output is not None
    require_folder(output)
    with TemporaryDirectory(prefix=f".{output.name}-", dir=output.resolve().parent) as folder:
        merged = run(merge, replace(options, output=Path(folder) / output.name))
        return run(calibrate, replace(calibration, checkpoint=merged.output, output=output))
