"""Fine-tuning: from a zero-shot checkpoint to one that is worth merging with it."""

import os
from pathlib import Path

from mergekit_wise.checkpoint import closing, refuse_overwriting, require_folder
from mergekit_wise.checkpoint.formats import planner_of
from mergekit_wise.evaluation import joined
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.data import open_training_data
from mergekit_wise.training.trainable import open_trainable
from mergekit_wise.training.trainer import Epoch, FinetuneReport, Stopped, Trainer

__all__ = ["Epoch", "FinetuneOptions", "FinetuneReport", "Stopped", "finetune"]


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
    for path in filter(None, (output, options.log)):
        require_folder(path)
    planner_of(output)
    # Deterministic matrix products on CUDA need this; it is read when the first one is computed.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source), joined(options.device) as (ranks, device):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        dataset, notes = open_training_data(options)
        trainable = open_trainable(source, dataset, options)
        trainer = Trainer(options, trainable, dataset, ranks, device, options.progress, options.note)
        for text in (*source.notes, *notes, *trainable.on_classes):
            trainer.note(text)
        return trainer.run()
