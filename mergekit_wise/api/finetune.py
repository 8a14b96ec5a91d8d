"""Fine-tuning: from a zero-shot checkpoint to one that is worth merging with it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise import __version__
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import Checkpoint, closing, refuse_overwriting, require_folder
from mergekit_wise.checkpoint.formats import planner_of
from mergekit_wise.datasets.catalog import ROOT_VARIABLE
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Ranks, joined
from mergekit_wise.models.head_files import HeadReading, open_head
from mergekit_wise.models.new_head import with_head_of, with_new_head, without_head
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.report.table import Table, percent
from mergekit_wise.training.agreement import require_same_run
from mergekit_wise.training.data import open_training_data
from mergekit_wise.training.trackers import require_trackers
from mergekit_wise.training.trainable import open_trainable
from mergekit_wise.training.trainer import Epoch, Stage, Stopped, Trained, Trainer
from mergekit_wise.wording import plural

__all__ = ["Epoch", "FinetuneOptions", "FinetuneReport", "Stopped", "finetune"]


@dataclass(frozen=True, slots=True, repr=False)
class FinetuneReport(ResultObject, Trained):
    """What `finetune` did; see `Trained` for the attributes."""

    def _summary(self) -> str:
        last = f", training accuracy {percent(self.epochs[-1].accuracy)} %" if self.epochs else ""
        of = f"of {plural(self.classes, 'class')}" if self.classes else "with captions"
        images = f"{plural(self.images, 'image')} {of}"
        return f"{self.output.name}, {plural(self.steps, 'step')} on {images}{last}"

    def _entry(self) -> Mapping[str, Any]:
        return {
            "output": self.output,
            "steps": self.steps,
            "resumed": self.resumed,
            "images": self.images,
            "classes": self.classes,
            "architecture": self.architecture,
            "probe": self.probe,
            "epochs": [
                {
                    "epoch": epoch.number,
                    "loss": epoch.loss,
                    "accuracy": epoch.accuracy,
                    "seconds": epoch.seconds,
                    "validation": epoch.validation.entry() if epoch.validation else None,
                }
                for epoch in self.epochs
            ],
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for epoch in self.epochs:
            numbers = {"loss": epoch.loss, "accuracy": epoch.accuracy, "seconds": epoch.seconds}
            accuracies = {} if epoch.validation is None else epoch.validation.entry()
            validation = {
                f"{name}, {model}": share for model, each in accuracies.items() for name, share in each.items()
            }
            yield {"epoch": epoch.number, **numbers, **validation}

    def _tables(self) -> Sequence[Table]:
        rows = [
            (str(each.number), f"{each.loss:.4f}", percent(each.accuracy), str(each.validation or ""))
            for each in self.epochs
        ]
        table = Table.of_texts(("Epoch", "Loss", "Training accuracy (%)", "Validation"), rows)
        return [replace(table, title=str(self.output))]


@takes(FinetuneOptions)
def finetune(options: FinetuneOptions) -> FinetuneReport:
    """Fine-tune `checkpoint` on `train` and write the result to `output`, in the format of its name (see `merge`).

    The output has the tensor names and the metadata of the checkpoint, so that it can be merged with it and evaluated
    as it is. It is written atomically. The same seed gives the same bytes on the same machine, however often the run
    was interrupted. `note` is called with a line for each epoch and decision.

    Raises:
        UsageError: options are invalid or contradict each other, or a saved state belongs to another run.
        CheckpointError, SuiteError: an input cannot be read.
        ModelError: the checkpoint is no model that can be trained, or its head has other classes than the data.
        NonFiniteError: the loss or its gradient is not finite; the message names the last good checkpoint.
        OutputError: a file cannot be written.
        Stopped: the run was interrupted; the same call resumes it.
    """
    output = Path(options.output)
    probe = options.probe if options.lp_ft else None
    for path in filter(None, (output, options.log)):
        require_folder(path)
    planner_of(output)
    if options.cache_images and options.validate is None:
        raise UsageError(
            "--cache-images keeps the images that --validate measures, and nothing is validated. Add --validate, or "
            "leave it out."
        )
    require_trackers(options.track)
    # Deterministic matrix products on CUDA need this; it is read when the first one is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source), joined(options.device) as (ranks, device):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        # First of all: what is exchanged from here on depends on the options and on the version.
        require_same_run(ranks, {"version": __version__, **options.settings(), "restart": options.restart})
        if probe is not None:
            return _probe_first(source, probe, options.after_probe, ranks, device)
        trainer = _trainer(source, options, ranks, device, Stage())
        left_out = trainer.trainable.source.tensors.keys() < source.tensors.keys()
        return FinetuneReport.of(replace(trainer.run(), without_head=left_out))


def _probe_first(
    source: Checkpoint, first: FinetuneOptions, second: FinetuneOptions, ranks: Ranks, device: str
) -> FinetuneReport:
    """Train the head alone, unless an earlier run of the same command did, and then all weights from that checkpoint.

    Source: LP-FT (Kumar et al., ICLR 2022, arXiv 2202.10054). The weights are those of the two commands by hand.
    """
    path = Path(first.output)
    refuse_overwriting(path, tuple(file.path for file in source.files))
    probe = _trainer(source, first, ranks, device, Stage("linear probe", "--lp-lr"))
    if ranks.share(probe.is_done()):
        probe.note(f"stage 1 of 2: {path} is the linear probe of an earlier run of this command")
    else:
        probe.note(f"stage 1 of 2: linear probe, written to {path}")
        probe.run()
    ranks.share(None)  # no process looks for the probe before it is written
    missing = [rank for rank, seen in enumerate(ranks.gather(path.exists())) if not seen]
    if missing:
        raise UsageError(
            f"{path}: process {missing[0]} does not see this file of process 0, from which all weights are trained. "
            "Choose a folder on a disk that all machines share, with --output."
        )
    # The zero-shot model is what the output will be mixed with; a new head has none.
    stage = Stage("all weights", mixed_with=None if first.new_head else probe.trainable.named_source)
    notes = probe.notes
    del probe  # and the model on the device
    start = open_source(path, mmap=second.mmap)
    with closing(start):
        trainer = _trainer(start, second, ranks, device, stage, notes)
        trainer.note(f"stage 2 of 2: all weights, from {path}")
        return FinetuneReport.of(replace(trainer.run(), probe=path))


def _trainer(
    source: Checkpoint,
    options: FinetuneOptions,
    ranks: Ranks,
    device: str,
    stage: Stage,
    said: Sequence[str] = (),
) -> Trainer:
    """The trainer of a stage; notes that an earlier stage `said` are not printed again."""
    places = (str(options.data), str(options.train), os.environ.get(ROOT_VARIABLE))
    data = ranks.opened(places, lambda: open_training_data(options))
    start = _with_head(source, data.images, options) if data.captions is None else without_head(source)
    trainable = open_trainable(start, data.images, options, data.captions)
    trainer = Trainer(options, trainable, data, ranks, device, options.progress, options.note, stage)
    trainer.notes.extend(said)
    for text in (*trainable.source.notes, *data.notes, *trainable.on_classes, *_unused(options)):
        trainer.note(text)
    return trainer


def _unused(options: FinetuneOptions) -> tuple[str, ...]:
    """A note on an option that changes nothing in this run; recipes may share it with other steps."""
    if options.templates is None or options.objective == "contrastive":
        return ()
    return ("--templates is for the captions of --objective contrastive, and changes nothing in this training",)


def _with_head(source: Checkpoint, dataset: Dataset, options: FinetuneOptions) -> Checkpoint:
    """The checkpoint with the head that training starts from."""
    if options.new_head:
        changed = with_new_head(source, options.model, dataset.classnames)
        note = (
            f"new head: zeros for the {plural(len(dataset.classnames), 'class')} of {dataset.title}; the head of "
            "the checkpoint, if it has one, is left out"
        )
        return replace(changed, notes=(*changed.notes, note))
    if options.head is None:
        if options.head_features or options.head_rows:
            raise UsageError(
                "--head-features and --head-rows say how the head in a file is read. Add --head FILE, or leave "
                "them out."
            )
        return source
    with open_head(options.head, mmap=options.mmap) as file:
        return with_head_of(source, options.model, file, HeadReading(options.head_features, options.head_rows))
