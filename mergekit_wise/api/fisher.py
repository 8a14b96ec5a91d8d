"""Compute the Fisher information of a model, with which `merge` and `sweep` weight its parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise import __version__, launcher
from mergekit_wise.api.calibrate import dataset_of
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.api.state_dict import StateDict
from mergekit_wise.checkpoint import Checkpoint, closing, refuse_overwriting, require_output, write_checkpoint
from mergekit_wise.checkpoint.formats import planner_of
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.evaluation.evaluator import Evaluator, open_evaluator
from mergekit_wise.evaluation.fisher import Fisher, fisher_information
from mergekit_wise.evaluation.image_batches import notes_on_bad
from mergekit_wise.evaluation.variants import checkpoint_fingerprint
from mergekit_wise.merging.fisher import RECORD
from mergekit_wise.merging.torch_backend import as_tensor
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import EvalOptions, FisherOptions
from mergekit_wise.wording import fold_names, listed, plural


@dataclass(frozen=True, slots=True, repr=False)
class FisherReport(ResultObject):
    """What `fisher` wrote.

    Attributes:
        output: the file.
        kind: "true" or "empirical".
        dataset: the title of the data set, `images` how many of its images were used.
        tensors, elements: how many there are in the file.
        notes: what was decided on the way, one sentence each.
    """

    output: Path
    kind: str
    dataset: str
    images: int
    tensors: int
    elements: int
    notes: tuple[str, ...]

    def _summary(self) -> str:
        return f"{self.output.name}, {self.kind}, {plural(self.images, 'image')} of {self.dataset}"

    def _entry(self) -> Mapping[str, Any]:
        names = ("output", "kind", "dataset", "images", "tensors", "elements")
        return {name: getattr(self, name) for name in names}


@takes(FisherOptions)
def fisher(options: FisherOptions) -> FisherReport | Any:
    """Compute the diagonal Fisher information of a model: the mean over images of the squared gradient of log p(y | x).

    `merge` and `sweep` read it with ``fisher=`` (Matena and Raffel, NeurIPS 2022). Without `output`, nothing is
    written, and the result is a `StateDict` of float32 tensors on the CPU. Names and shapes are those of the
    checkpoint. Tensors that log p(y | x) does not depend on have no entry: batch-norm statistics, and all of a text
    tower, because a head that is made from class names counts as a constant.

    Computed in float32, image by image, and summed in float64: the memory is that of the weights three times over, and
    of the activations of one image. The same inputs give the same bytes on the same machine.

    Raises:
        CheckpointError, ModelError, SuiteError, UsageError, OutputError: what is wrong, and what to do.
    """
    if launcher.world_size() > 1:
        raise UsageError("wise fisher runs in one process. Start it without torchrun.")
    if options.output is not None:
        require_output(options.output)
        planner_of(options.output)
    dataset = dataset_of(options)
    if options.kind == "empirical" and dataset.metric.accepted is not None:
        raise SuiteError(
            f"{dataset.title}: images have several right classes, and --kind empirical needs one label each. Use "
            "--kind true."
        )
    source = open_source(options.checkpoint, mmap=options.mmap)
    notes = [*source.notes]
    with closing(source):
        if options.output is not None:
            refuse_overwriting(options.output, tuple(file.path for file in source.files))
        with open_evaluator(source, _evaluation(options), ALONE, options.device, notes.append) as evaluator:
            notes += [*evaluator.heads.require([dataset]), *dataset.titled_notes]
            found = fisher_information(evaluator, source, dataset, options.kind, options.seed)  # type: ignore[arg-type]
            notes += [*notes_on_bad(dataset, found.bad), *_notes_on_constants(evaluator, found)]
            metadata = {"format": "pt", RECORD: json.dumps(_record(options, source, dataset, evaluator, found))}
    unique = tuple(dict.fromkeys(notes))
    if options.output is None:
        state = StateDict((name, as_tensor(*stored)) for name, stored in found.tensors.items())
        state.metadata, state.outcomes, state.distance, state.notes = metadata, (), None, unique
        return state
    write_checkpoint(options.output, found.tensors, metadata)
    elements = sum(info.count for info, _ in found.tensors.values())
    return FisherReport(options.output, options.kind, dataset.title, found.images, len(found.tensors), elements, unique)


def _evaluation(options: FisherOptions) -> EvalOptions:
    """How the model is built."""
    return EvalOptions(
        options.checkpoint,
        model=options.model,
        templates=options.templates,
        head=options.head,
        head_features=options.head_features,
        head_rows=options.head_rows,
        image_size=options.image_size,
        device=options.device,
        precision="fp32",
        workers=options.workers,
        cache_images=options.cache_images,
        max_bad=options.max_bad,
        cache=options.cache,
        mmap=options.mmap,
        progress=options.progress,
    )


def _notes_on_constants(evaluator: Evaluator, found: Fisher) -> list[str]:
    """What has no entry, and why."""
    notes = []
    if not evaluator.model.has_own_head:
        notes.append(
            "the head made from class names counts as a constant, so the tensors it is made with have no Fisher "
            "information"
        )
    if found.constant:
        names = listed(fold_names(found.constant))
        notes.append(
            f"{plural(len(found.constant), 'tensor')} without Fisher information, which 'wise merge --fisher' mixes "
            f"with alpha alone: {names}"
        )
    return notes


def _record(
    options: FisherOptions, source: Checkpoint, dataset: Dataset, evaluator: Evaluator, found: Fisher
) -> dict[str, object]:
    """How the file was made, without times and paths, so that the same inputs give the same bytes."""
    return {
        "version": __version__,
        "kind": options.kind,
        **({"seed": options.seed} if options.kind == "true" or options.limit is not None else {}),
        "dataset": dataset.name,
        "images": found.images,
        "data": fingerprint(dataset),
        "head": evaluator.heads.name,
        **({"prompts": prompts} if (prompts := evaluator.heads.prompts(dataset)) else {}),
        "architecture": evaluator.model.architecture,
        "checkpoint": {
            "name": source.path.name,
            "header_sha256": source.digest,
            "weights": checkpoint_fingerprint(source, evaluator.model.names),
        },
    }
